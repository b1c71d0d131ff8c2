/*** Vision encoder, projector, object tokenizer and infusion as Lua objects.
 * @module pixelrefer.core
 */
#include "lua/binding.h"
#include "lua/tensor.h"

#include "model/infusion.h"
#include "model/object_tokenizer.h"
#include "model/projector.h"
#include "model/vision_encoder.h"
#include "ops/device.h"
#include "ops/ops.h"

#define VISION_ENCODER "pixelrefer.VisionEncoder"
#define PROJECTOR "pixelrefer.Projector"
#define OBJECT_TOKENIZER "pixelrefer.ObjectTokenizer"
#define INFUSION "pixelrefer.Infusion"

/* A new float32 tensor [rows,columns] on `device`, pushed. */
static pxr_tensor *push_matrix(lua_State *L, pxr_device *device, int64_t rows, int64_t columns)
{
    pxr_error error = {0};
    pxr_tensor *tensor = pxr_lua_new_tensor(L);
    const int64_t size[2] = {rows, columns};
    pxr_lua_check(L, pxr_tensor_new(tensor, device, PXR_F32, 2, size, &error), &error);
    return tensor;
}

/* A tensor of rank 2 at `index`, for which a result with as many rows will be made; brought to `device`. */
static pxr_tensor *check_matrix(lua_State *L, int index, pxr_device *device)
{
    const pxr_tensor *x = pxr_lua_check_tensor_of(L, index, PXR_F32);
    if (x->rank != 2) luaL_argerror(L, index, "a tensor of two dims expected");
    return pxr_lua_bring(L, index, device);
}

/* ---- vision encoder -------------------------------------------------------------------------------------------- */

enum { MAX_CELLS = 1 << 26 };

/* The list {{height, width[, block]}, ...} at `index`, as scratch memory (pushed). */
static pxr_grid *check_grids(lua_State *L, int index, int64_t *count)
{
    luaL_checktype(L, index, LUA_TTABLE);
    *count = (int64_t)lua_objlen(L, index);
    pxr_grid *grids = pxr_lua_scratch(L, (size_t)*count * sizeof *grids + 1);
    for (int64_t g = 0; g < *count; g++) {
        lua_rawgeti(L, index, (int)g + 1);
        if (!lua_istable(L, -1)) luaL_argerror(L, index, "a list of grids {height, width, block} expected");
        int64_t values[3] = {0, 0, 1};
        for (int i = 0; i < 3; i++) {
            lua_rawgeti(L, -1, i + 1);
            if (i < 2 || !lua_isnil(L, -1)) values[i] = pxr_lua_check_integer(L, -1, 1, MAX_CELLS);
            lua_pop(L, 1);
        }
        grids[g] = (pxr_grid){values[0], values[1], values[2]};
        lua_pop(L, 1);
    }
    return grids;
}

/*** The vision encoder, VL3-SigLIP-NaViT.
@function vision_encoder
@tparam table config hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, patch_size,
  num_channels, layer_norm_eps
@tparam table weights names (`encoder.layers.0.self_attn.q_proj.weight`, ...) to tensors
@tparam[opt="cpu"] string device
@treturn VisionEncoder */
static int new_vision_encoder(lua_State *L)
{
    pxr_error error = {0};
    luaL_checktype(L, 1, LUA_TTABLE);
    const int64_t patch = pxr_lua_integer_field(L, 1, "patch_size", 1, 1024);
    const pxr_vision_config config = {
        .hidden = pxr_lua_integer_field(L, 1, "hidden_size", 1, 1 << 20),
        .intermediate = pxr_lua_integer_field(L, 1, "intermediate_size", 1, 1 << 20),
        .layers = pxr_lua_integer_field(L, 1, "num_hidden_layers", 0, 1 << 12),
        .heads = pxr_lua_integer_field(L, 1, "num_attention_heads", 1, 1 << 12),
        .patch_values = pxr_lua_integer_field(L, 1, "num_channels", 1, 16) * patch * patch,
        .epsilon = (float)pxr_lua_number_field(L, 1, "layer_norm_eps"),
    };
    pxr_device *device = pxr_lua_opt_device(L, 3);
    const pxr_tensor_map *weights = pxr_lua_check_tensor_map(L, 2);
    void **handle = pxr_lua_new_handle(L, VISION_ENCODER);
    pxr_lua_check(L, pxr_vision_encoder_new((pxr_vision_encoder **)handle, &config, weights, device, &error), &error);
    return 1;
}

static int vision_encoder_free(lua_State *L)
{
    void **handle = luaL_checkudata(L, 1, VISION_ENCODER);
    pxr_vision_encoder_free(*handle);
    *handle = NULL;
    return 0;
}

/*** Features [cells,E] of pictures from their patches, cells in block order.
@function VisionEncoder:forward
@tparam Tensor patches float32 [cells,588], all pictures one behind the other
@tparam table grids {{height, width[, block=1]}, ...} in cells, one for each picture
@treturn Tensor float32 [cells,E] */
static int vision_encoder_forward(lua_State *L)
{
    pxr_error error = {0};
    int64_t count;
    pxr_vision_encoder *encoder = pxr_lua_check_handle(L, 1, VISION_ENCODER);
    pxr_tensor *patches = check_matrix(L, 2, pxr_vision_encoder_device(encoder));
    const pxr_grid *grids = check_grids(L, 3, &count);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, pxr_vision_encoder_device(encoder), patches->size[0],
                                  pxr_vision_encoder_config(encoder)->hidden);
    pxr_lua_interruptible_begin();
    const pxr_status status = pxr_vision_encoder_forward(encoder, out, patches, grids, count, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** The patch embedding alone.
@function VisionEncoder:embed
@tparam Tensor patches float32 [cells,588]
@treturn Tensor float32 [cells,E] */
static int vision_encoder_embed(lua_State *L)
{
    pxr_error error = {0};
    pxr_vision_encoder *encoder = pxr_lua_check_handle(L, 1, VISION_ENCODER);
    pxr_tensor *patches = check_matrix(L, 2, pxr_vision_encoder_device(encoder));
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, pxr_vision_encoder_device(encoder), patches->size[0],
                                  pxr_vision_encoder_config(encoder)->hidden);
    pxr_lua_check(L, pxr_vision_encoder_embed(encoder, out, patches, &error), &error);
    return 1;
}

/*** Some layers, for looking inside: the residual stream after them.
@function VisionEncoder:layers
@tparam Tensor x float32 [cells,E]; left as it is
@tparam table grids as in forward
@tparam int first 1-based
@tparam int last inclusive
@treturn Tensor float32 [cells,E] */
static int vision_encoder_layers(lua_State *L)
{
    pxr_error error = {0};
    int64_t count;
    pxr_vision_encoder *encoder = pxr_lua_check_handle(L, 1, VISION_ENCODER);
    const int64_t layers = pxr_vision_encoder_config(encoder)->layers;
    pxr_tensor *x = check_matrix(L, 2, pxr_vision_encoder_device(encoder));
    const pxr_grid *grids = check_grids(L, 3, &count);
    const int64_t first = pxr_lua_check_integer(L, 4, 1, layers), last = pxr_lua_check_integer(L, 5, first - 1, layers);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, pxr_vision_encoder_device(encoder), x->size[0], x->size[1]);
    pxr_status status = pxr_copy(&(pxr_copy_args){.out = out, .x = x}, &error);
    pxr_lua_check(L, status, &error);
    pxr_lua_interruptible_begin();
    status = pxr_vision_encoder_layers(encoder, out, grids, count, first - 1, last, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** The final layer norm.
@function VisionEncoder:norm
@tparam Tensor x float32 [cells,E]
@treturn Tensor float32 [cells,E] */
static int vision_encoder_norm(lua_State *L)
{
    pxr_error error = {0};
    pxr_vision_encoder *encoder = pxr_lua_check_handle(L, 1, VISION_ENCODER);
    pxr_tensor *x = check_matrix(L, 2, pxr_vision_encoder_device(encoder));
    pxr_tensor *out = push_matrix(L, pxr_vision_encoder_device(encoder), x->size[0], x->size[1]);
    pxr_lua_check(L, pxr_vision_encoder_norm(encoder, out, x, &error), &error);
    return 1;
}

/* ---- projector ------------------------------------------------------------------------------------------------- */

/*** A projector into the decoder's space: Linear, GELU, Linear, ...
@function projector
@tparam int width_in
@tparam int width_out
@tparam int depth number of linear layers
@tparam string prefix of the weights' names: "readout" or "feat_linear"
@tparam table weights names to tensors
@tparam[opt="cpu"] string device
@treturn Projector */
static int new_projector(lua_State *L)
{
    pxr_error error = {0};
    const int64_t in = pxr_lua_check_integer(L, 1, 1, 1 << 20), out = pxr_lua_check_integer(L, 2, 1, 1 << 20);
    const int64_t depth = pxr_lua_check_integer(L, 3, 1, 8);
    const char *prefix = luaL_checkstring(L, 4);
    pxr_device *device = pxr_lua_opt_device(L, 6);
    const pxr_tensor_map *weights = pxr_lua_check_tensor_map(L, 5);
    void **handle = pxr_lua_new_handle(L, PROJECTOR);
    pxr_lua_check(L, pxr_projector_new((pxr_projector **)handle, in, out, depth, prefix, weights, device, &error),
                  &error);
    return 1;
}

static int projector_free(lua_State *L)
{
    void **handle = luaL_checkudata(L, 1, PROJECTOR);
    pxr_projector_free(*handle);
    *handle = NULL;
    return 0;
}

/*** Projects rows.
@function Projector:forward
@tparam Tensor x float32 [n,width_in]
@treturn Tensor float32 [n,width_out] */
static int projector_forward(lua_State *L)
{
    pxr_error error = {0};
    pxr_projector *projector = pxr_lua_check_handle(L, 1, PROJECTOR);
    pxr_tensor *x = check_matrix(L, 2, pxr_projector_device(projector));
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, pxr_projector_device(projector), x->size[0], pxr_projector_out(projector));
    pxr_lua_check(L, pxr_projector_forward(projector, out, x, &error), &error);
    return 1;
}

/* ---- object tokenizer ------------------------------------------------------------------------------------------ */

static pxr_saot_variant check_variant(lua_State *L, int index)
{
    static const char *const names[] = {"vision_object", "object_only", NULL};
    return (pxr_saot_variant)luaL_checkoption(L, index, NULL, names);
}

/*** SAOT's pooling stage; its preparation needs no weights and is `saot_prepare`.
@function object_tokenizer
@tparam string framework "vision_object" or "object_only"
@tparam int hidden width E of the features
@tparam int mask_num most tokens of a region
@tparam table weights `pos_linear.weight`, `pos_linear.bias`
@tparam[opt="cpu"] string device
@treturn ObjectTokenizer */
static int new_object_tokenizer(lua_State *L)
{
    pxr_error error = {0};
    const pxr_saot_variant variant = check_variant(L, 1);
    const int64_t hidden = pxr_lua_check_integer(L, 2, 1, 1 << 20);
    const int64_t mask_num = pxr_lua_check_integer(L, 3, 1, 1 << 16);
    pxr_device *device = pxr_lua_opt_device(L, 5);
    const pxr_tensor_map *weights = pxr_lua_check_tensor_map(L, 4);
    void **handle = pxr_lua_new_handle(L, OBJECT_TOKENIZER);
    pxr_lua_check(L,
                  pxr_object_tokenizer_new((pxr_object_tokenizer **)handle, variant, hidden, mask_num, weights, device,
                                           &error),
                  &error);
    return 1;
}

static int object_tokenizer_free(lua_State *L)
{
    void **handle = luaL_checkudata(L, 1, OBJECT_TOKENIZER);
    pxr_object_tokenizer_free(*handle);
    *handle = NULL;
    return 0;
}

/*** Crops and scales a region for the encoder (SAOT's first step).
@function saot_prepare
@tparam string framework "vision_object" or "object_only"
@tparam int mask_num most tokens of a region
@tparam Tensor image uint8 [h,w,3]
@tparam Tensor mask uint8 [h,w] of 0 and 1
@treturn Tensor picture: uint8 [H,W,3], the scaled crop
@treturn Tensor mask_grid: float32 [H/14,W/14], a cell is in when > 0
@treturn table box: {top, left, bottom, right} in pixels
@treturn ?Tensor local_picture: uint8 [224,224,3], for Lite's OCI */
static int saot_prepare(lua_State *L)
{
    pxr_error error = {0};
    pxr_prepared_region region;
    const pxr_saot_variant variant = check_variant(L, 1);
    const int64_t mask_num = pxr_lua_check_integer(L, 2, 1, 1 << 16);
    pxr_tensor *image = pxr_lua_check_tensor(L, 3), *mask = pxr_lua_check_tensor(L, 4);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *picture = pxr_lua_new_tensor(L), *mask_grid = pxr_lua_new_tensor(L);
    lua_createtable(L, 4, 0);
    pxr_tensor *local_picture = pxr_lua_new_tensor(L);
    pxr_lua_check(L, pxr_saot_prepare(&region, variant, mask_num, image, mask, &error), &error);
    *picture = region.picture;
    *mask_grid = region.mask_grid;
    *local_picture = region.local_picture;
    for (int i = 0; i < 4; i++) {
        lua_pushnumber(L, (lua_Number)region.box[i]);
        lua_rawseti(L, -3, i + 1);
    }
    if (variant == PXR_SAOT_OBJECT_ONLY) return 4;
    lua_pop(L, 1);
    return 3;
}

static void check_pair(lua_State *L, int index, int64_t pair[2])
{
    luaL_checktype(L, index, LUA_TTABLE);
    for (int i = 0; i < 2; i++) {
        lua_rawgeti(L, index, i + 1);
        pair[i] = pxr_lua_check_integer(L, -1, 1, MAX_CELLS);
        lua_pop(L, 1);
    }
}

/*** Pools a region's encoded picture into object tokens (positions are added here).
@function ObjectTokenizer:pool
@tparam Tensor features float32 [fh*fw,E], raster order
@tparam table grid {fh, fw}
@tparam Tensor mask_grid float32 [gh,gw]
@tparam table box {top, left, bottom, right}
@tparam table image_size {h, w} in pixels
@tparam Generator generator draws the k-means starts
@treturn Tensor tokens: float32 [k,E]
@treturn Tensor cells: float32 [n,E], the features under the mask
@treturn Tensor assignment: int64 [n], the token (from 1) that each cell went into */
static int object_tokenizer_pool(lua_State *L)
{
    pxr_error error = {0};
    pxr_pooled_region pooled;
    int64_t grid[2], image[2], box[4];
    pxr_object_tokenizer *tokenizer = pxr_lua_check_handle(L, 1, OBJECT_TOKENIZER);
    pxr_tensor *features = pxr_lua_bring(L, 2, pxr_object_tokenizer_device(tokenizer));
    pxr_tensor *mask_grid = pxr_lua_bring(L, 4, pxr_cpu_device());
    check_pair(L, 3, grid);
    luaL_checktype(L, 5, LUA_TTABLE);
    for (int i = 0; i < 4; i++) {
        lua_rawgeti(L, 5, i + 1);
        box[i] = pxr_lua_check_integer(L, -1, 0, 1 << 24);
        lua_pop(L, 1);
    }
    check_pair(L, 6, image);
    pxr_mt19937 *generator = luaL_checkudata(L, 7, PXR_LUA_GENERATOR);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *tokens = pxr_lua_new_tensor(L), *cells = pxr_lua_new_tensor(L), *assignment = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_object_tokenizer_pool(tokenizer, &pooled, features, grid[0], grid[1], mask_grid, box,
                                                        image[0], image[1], generator, &error);
    pxr_lua_check(L, status, &error);
    *tokens = pooled.tokens;
    *cells = pooled.cells;
    *assignment = pooled.assignment;
    pxr_lua_shift_indices(L, assignment, 1);
    return 3;
}

/* ---- infusion -------------------------------------------------------------------------------------------------- */

/*** OCI, object-centric infusion (PixelRefer-Lite).
@function infusion
@tparam int hidden width E
@tparam table weights `fusion_attention_local.in_proj_weight`, ..., `ln_global.bias`
@tparam[opt="cpu"] string device
@treturn Infusion */
static int new_infusion(lua_State *L)
{
    pxr_error error = {0};
    const int64_t hidden = pxr_lua_check_integer(L, 1, 1, 1 << 20);
    pxr_device *device = pxr_lua_opt_device(L, 3);
    const pxr_tensor_map *weights = pxr_lua_check_tensor_map(L, 2);
    void **handle = pxr_lua_new_handle(L, INFUSION);
    pxr_lua_check(L, pxr_infusion_new((pxr_infusion **)handle, hidden, weights, device, &error), &error);
    return 1;
}

static int infusion_free(lua_State *L)
{
    void **handle = luaL_checkudata(L, 1, INFUSION);
    pxr_infusion_free(*handle);
    *handle = NULL;
    return 0;
}

/*** One step of OCI: tokens + attention over a context.
@function Infusion:forward
@tparam string step "local" or "global"
@tparam Tensor tokens float32 [k,E]
@tparam Tensor context float32 [cells,E]
@treturn Tensor float32 [k,E] */
static int infusion_forward(lua_State *L)
{
    static const char *const steps[] = {"local", "global", NULL};
    pxr_error error = {0};
    pxr_infusion *infusion = pxr_lua_check_handle(L, 1, INFUSION);
    const pxr_infusion_step step = (pxr_infusion_step)luaL_checkoption(L, 2, NULL, steps);
    pxr_device *device = pxr_infusion_device(infusion);
    pxr_tensor *tokens = check_matrix(L, 3, device), *context = check_matrix(L, 4, device);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, device, tokens->size[0], tokens->size[1]);
    pxr_lua_check(L, pxr_infusion_forward(infusion, step, out, tokens, context, &error), &error);
    return 1;
}

/* ---- module ---------------------------------------------------------------------------------------------------- */

void pxr_lua_open_model(lua_State *L)
{
    static const luaL_Reg vision_encoder[] = {{"forward", vision_encoder_forward},
                                              {"embed", vision_encoder_embed},
                                              {"layers", vision_encoder_layers},
                                              {"norm", vision_encoder_norm},
                                              {NULL, NULL}};
    static const luaL_Reg projector[] = {{"forward", projector_forward}, {NULL, NULL}};
    static const luaL_Reg object_tokenizer[] = {{"pool", object_tokenizer_pool}, {NULL, NULL}};
    static const luaL_Reg infusion[] = {{"forward", infusion_forward}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"vision_encoder", new_vision_encoder},
                                         {"projector", new_projector},
                                         {"object_tokenizer", new_object_tokenizer},
                                         {"saot_prepare", saot_prepare},
                                         {"infusion", new_infusion},
                                         {NULL, NULL}};
    pxr_lua_class(L, VISION_ENCODER, vision_encoder, vision_encoder_free);
    pxr_lua_class(L, PROJECTOR, projector, projector_free);
    pxr_lua_class(L, OBJECT_TOKENIZER, object_tokenizer, object_tokenizer_free);
    pxr_lua_class(L, INFUSION, infusion, infusion_free);
    lua_pop(L, 4);
    luaL_setfuncs(L, functions, 0);
}
