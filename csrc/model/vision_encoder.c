/* VL3-SigLIP-NaViT; see vision_encoder.h for the layer recipe. */
#include "model/vision_encoder.h"

#include "core/arena.h"
#include "core/interrupt.h"
#include "core/memory.h"
#include "model/rotary.h"
#include "model/views.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>

enum {
    GROUP_CELLS = 4096, /* pictures are encoded together up to about this many cells */
    MLP_ROWS = 1024     /* rows of the MLP's wide activations at a time */
};

typedef struct layer {
    pxr_tensor norm1_weight, norm1_bias, norm2_weight, norm2_bias; /* [E] */
    pxr_linear_weights q, k, v, out;                               /* [E,E] */
    pxr_linear_weights fc1, fc2;                                   /* [F,E], [E,F] */
} layer;

struct pxr_vision_encoder {
    pxr_vision_config config;
    pxr_device *device;
    pxr_linear_weights patch_embedding; /* [E,patch_values] */
    layer *layers;                      /* [config.layers] */
    pxr_tensor post_weight, post_bias;  /* [E] */
    pxr_arena arena;                    /* activations of one call */
};

/* ---- weights --------------------------------------------------------------------------------------------------- */

static pxr_status take_layer(pxr_vision_encoder *encoder, layer *l, int64_t index, const pxr_tensor_map *weights,
                             pxr_error *error)
{
    const pxr_vision_config *c = &encoder->config;
    const struct {
        const char *name;
        pxr_linear_weights *linear;
        int64_t out, in;
    } linears[] = {
        {"self_attn.q_proj", &l->q, c->hidden, c->hidden}, {"self_attn.k_proj", &l->k, c->hidden, c->hidden},
        {"self_attn.v_proj", &l->v, c->hidden, c->hidden}, {"self_attn.out_proj", &l->out, c->hidden, c->hidden},
        {"mlp.fc1", &l->fc1, c->intermediate, c->hidden},  {"mlp.fc2", &l->fc2, c->hidden, c->intermediate},
    };
    const struct {
        const char *name;
        pxr_tensor *tensor;
    } norms[] = {
        {"layer_norm1.weight", &l->norm1_weight},
        {"layer_norm1.bias", &l->norm1_bias},
        {"layer_norm2.weight", &l->norm2_weight},
        {"layer_norm2.bias", &l->norm2_bias},
    };
    char prefix[96];
    pxr_status status = PXR_OK;
    for (size_t i = 0; status == PXR_OK && i < sizeof linears / sizeof *linears; i++) {
        snprintf(prefix, sizeof prefix, "encoder.layers.%lld.%s", (long long)index, linears[i].name);
        status = pxr_linear_weights_take(linears[i].linear, weights, encoder->device, linears[i].out, linears[i].in,
                                         true, error, prefix);
    }
    for (size_t i = 0; status == PXR_OK && i < sizeof norms / sizeof *norms; i++)
        status = pxr_weight(norms[i].tensor, weights, encoder->device, 1, &c->hidden, error, "encoder.layers.%lld.%s",
                            (long long)index, norms[i].name);
    return status;
}

/* The convolution's weight [E,3,14,14] seen as a matrix [E,588]. */
static pxr_status take_patch_embedding(pxr_vision_encoder *encoder, const pxr_tensor_map *weights, pxr_error *error)
{
    const pxr_vision_config *c = &encoder->config;
    const char *name = "embeddings.patch_embedding.weight";
    const int64_t matrix[2] = {c->hidden, c->patch_values};
    const pxr_tensor *kernel = pxr_tensor_map_find(weights, name);
    const bool is_kernel = kernel && kernel->rank == 4 && pxr_tensor_count(kernel) == c->hidden * c->patch_values;
    pxr_tensor taken = {0};
    pxr_status status = pxr_weight(&taken, weights, encoder->device, is_kernel ? 4 : 2,
                                   is_kernel ? kernel->size : matrix, error, "%s", name);
    if (status == PXR_OK) status = pxr_tensor_view(&encoder->patch_embedding.weight, &taken, 2, matrix, error);
    pxr_tensor_release(&taken);
    if (status != PXR_OK) return status;
    return pxr_weight(&encoder->patch_embedding.bias, weights, encoder->device, 1, &c->hidden, error,
                      "embeddings.patch_embedding.bias");
}

static pxr_status take_weights(pxr_vision_encoder *encoder, const pxr_tensor_map *weights, pxr_error *error)
{
    const pxr_vision_config *c = &encoder->config;
    pxr_status status = take_patch_embedding(encoder, weights, error);
    for (int64_t i = 0; status == PXR_OK && i < c->layers; i++)
        status = take_layer(encoder, &encoder->layers[i], i, weights, error);
    if (status == PXR_OK)
        status = pxr_weight(&encoder->post_weight, weights, encoder->device, 1, &c->hidden, error,
                            "post_layernorm.weight");
    if (status == PXR_OK)
        status = pxr_weight(&encoder->post_bias, weights, encoder->device, 1, &c->hidden, error, "post_layernorm.bias");
    return status;
}

static pxr_status check_config(const pxr_vision_config *c, pxr_error *error)
{
    if (c->hidden < 1 || c->intermediate < 1 || c->layers < 0 || c->heads < 1 || c->patch_values < 1)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "vision encoder: sizes must be positive");
    /* rotate-half over head_dim, and half of that for rows, half for columns */
    if (c->hidden % c->heads != 0 || c->hidden / c->heads % 4 != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "vision encoder: hidden size %lld does not give %lld heads of a multiple of 4",
                        (long long)c->hidden, (long long)c->heads);
    return PXR_OK;
}

pxr_status pxr_vision_encoder_new(pxr_vision_encoder **encoder, const pxr_vision_config *config,
                                  const pxr_tensor_map *weights, pxr_device *device, pxr_error *error)
{
    *encoder = NULL;
    pxr_status status = check_config(config, error);
    if (status != PXR_OK) return status;
    pxr_vision_encoder *made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "a vision encoder");
    made->config = *config;
    made->device = device;
    made->layers = pxr_calloc((size_t)config->layers, sizeof *made->layers);
    status = made->layers ? take_weights(made, weights, error)
                          : pxr_fail_memory(error, (size_t)config->layers * sizeof *made->layers, "a vision encoder");
    if (status != PXR_OK) {
        pxr_vision_encoder_free(made);
        return status;
    }
    *encoder = made;
    return PXR_OK;
}

void pxr_vision_encoder_free(pxr_vision_encoder *encoder)
{
    if (!encoder) return;
    for (int64_t i = 0; encoder->layers && i < encoder->config.layers; i++) {
        layer *l = &encoder->layers[i];
        pxr_linear_weights *linears[] = {&l->q, &l->k, &l->v, &l->out, &l->fc1, &l->fc2};
        pxr_tensor *norms[] = {&l->norm1_weight, &l->norm1_bias, &l->norm2_weight, &l->norm2_bias};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++) pxr_linear_weights_release(linears[j]);
        for (size_t j = 0; j < sizeof norms / sizeof *norms; j++) pxr_tensor_release(norms[j]);
    }
    pxr_linear_weights_release(&encoder->patch_embedding);
    pxr_tensor_release(&encoder->post_weight);
    pxr_tensor_release(&encoder->post_bias);
    pxr_arena_free(&encoder->arena);
    pxr_free(encoder->layers);
    pxr_free(encoder);
}

const pxr_vision_config *pxr_vision_encoder_config(const pxr_vision_encoder *encoder)
{
    return &encoder->config;
}

pxr_device *pxr_vision_encoder_device(const pxr_vision_encoder *encoder)
{
    return encoder->device;
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

/* Activations of one call of _layers over `cells` cells. */
typedef struct buffers {
    pxr_tensor normed;   /* [cells,E]: input of a sublayer, then attention's result; in the operand type */
    pxr_tensor q, k, v;  /* [cells,E] */
    pxr_tensor wide;     /* [min(cells,MLP_ROWS),F], in the operand type */
    pxr_tensor cos, sin; /* [cells,head_dim/2] */
} buffers;

static void cut_buffers(buffers *b, pxr_vision_encoder *encoder, int64_t cells)
{
    const pxr_vision_config *c = &encoder->config;
    pxr_arena *arena = &encoder->arena;
    const pxr_dtype operand = c->layers > 0 ? pxr_operand_type(&encoder->layers->q.weight) : PXR_F32;
    const int64_t narrow[2] = {cells, c->hidden}, angles[2] = {cells, c->hidden / c->heads / 2};
    const int64_t wide[2] = {cells < MLP_ROWS ? cells : MLP_ROWS, c->intermediate};
    b->normed = pxr_arena_tensor(arena, operand, 2, narrow);
    b->q = pxr_arena_tensor(arena, PXR_F32, 2, narrow);
    b->k = pxr_arena_tensor(arena, PXR_F32, 2, narrow);
    b->v = pxr_arena_tensor(arena, PXR_F32, 2, narrow);
    b->wide = pxr_arena_tensor(arena, operand, 2, wide);
    b->cos = pxr_arena_tensor(arena, PXR_F32, 2, angles);
    b->sin = pxr_arena_tensor(arena, PXR_F32, 2, angles);
}

/* The angle vector of a cell is [row * f, column * f] with head_dim/4 frequencies f = 10000^(-2i/(head_dim/2)); the
 * reference tiles it twice, which rotate-half consumes as one half (Qwen2-VL's vision rotary embedding). */
static pxr_status fill_angles(const pxr_vision_encoder *encoder, const buffers *b, const pxr_grid *grids,
                              int64_t grid_count, pxr_error *error)
{
    const int64_t half = encoder->config.hidden / encoder->config.heads / 2, quarter = half / 2;
    const size_t count = (size_t)(b->cos.size[0] * half), bytes = count * sizeof(float);
    float *cosines = pxr_malloc(2 * bytes + (size_t)half * sizeof(float));
    if (!cosines) return pxr_fail_memory(error, 2 * bytes, "rotary angles");
    float *sines = cosines + count, *frequencies = sines + count;
    pxr_rotary_frequencies(frequencies, half, 10000.0f);
    float *c = cosines, *s = sines;
    for (int64_t g = 0; g < grid_count; g++) {
        const int64_t block = grids[g].block, across = grids[g].width / block;
        for (int64_t cell = 0; cell < grids[g].height * grids[g].width; cell++, c += half, s += half) {
            const int64_t in_block = cell % (block * block), which = cell / (block * block);
            const int64_t row = which / across * block + in_block / block;
            const int64_t column = which % across * block + in_block % block;
            pxr_rotary_angles(c, s, frequencies, quarter, (float)row);
            pxr_rotary_angles(c + quarter, s + quarter, frequencies, quarter, (float)column);
        }
    }
    pxr_status status = encoder->device->upload(encoder->device, b->cos.data, cosines, bytes, error);
    if (status == PXR_OK) status = encoder->device->upload(encoder->device, b->sin.data, sines, bytes, error);
    pxr_free(cosines);
    return status;
}

/* x += out_proj(attention(LN1(x))) */
static pxr_status attention_sublayer(const pxr_vision_encoder *encoder, const layer *l, const buffers *b,
                                     const pxr_tensor *x, const pxr_attention_segment *segments, int64_t segment_count,
                                     pxr_error *error)
{
    const int64_t heads = encoder->config.heads;
    const float head_dim = (float)(encoder->config.hidden / heads);
    const pxr_tensor q = pxr_heads(&b->q, heads), k = pxr_heads(&b->k, heads), v = pxr_heads(&b->v, heads);
    const pxr_tensor mixed = pxr_heads(&b->normed, heads);
    const pxr_layer_norm_args norm = {.out = &b->normed,
                                      .x = x,
                                      .weight = &l->norm1_weight,
                                      .bias = &l->norm1_bias,
                                      .epsilon = encoder->config.epsilon};
    const pxr_attention_args attention = {.out = &mixed,
                                          .q = &q,
                                          .k = &k,
                                          .v = &v,
                                          .segments = segments,
                                          .segment_count = segment_count,
                                          .scale = 1.0f / sqrtf(head_dim)};
    const pxr_tensor *const qkv[] = {&b->q, &b->k, &b->v};
    const pxr_linear_weights *const to_qkv[] = {&l->q, &l->k, &l->v};
    pxr_status status = pxr_layer_norm(&norm, error);
    if (status == PXR_OK) status = pxr_linear_layers(qkv, &b->normed, to_qkv, 3, NULL, NULL, error);
    if (status == PXR_OK) status = pxr_rope(&(pxr_rope_args){.out = &q, .cos = &b->cos, .sin = &b->sin}, error);
    if (status == PXR_OK) status = pxr_rope(&(pxr_rope_args){.out = &k, .cos = &b->cos, .sin = &b->sin}, error);
    if (status == PXR_OK) status = pxr_attention(&attention, error);
    if (status == PXR_OK) status = pxr_linear_layer(x, &b->normed, &l->out, PXR_ACTIVATION_NONE, x, error);
    return status;
}

/* x += fc2(gelu_tanh(fc1(LN2(x)))), some rows at a time */
static pxr_status mlp_sublayer(const pxr_vision_encoder *encoder, const layer *l, const buffers *b, const pxr_tensor *x,
                               pxr_error *error)
{
    const pxr_layer_norm_args norm = {.out = &b->normed,
                                      .x = x,
                                      .weight = &l->norm2_weight,
                                      .bias = &l->norm2_bias,
                                      .epsilon = encoder->config.epsilon};
    pxr_status status = pxr_layer_norm(&norm, error);
    for (int64_t begin = 0; status == PXR_OK && begin < x->size[0]; begin += MLP_ROWS) {
        const int64_t count = x->size[0] - begin < MLP_ROWS ? x->size[0] - begin : MLP_ROWS;
        const pxr_tensor in = pxr_rows(&b->normed, begin, count), wide = pxr_rows(&b->wide, 0, count);
        const pxr_tensor out = pxr_rows(x, begin, count);
        status = pxr_linear_layer(&wide, &in, &l->fc1, PXR_ACTIVATION_GELU_TANH, NULL, error);
        if (status == PXR_OK) status = pxr_linear_layer(&out, &wide, &l->fc2, PXR_ACTIVATION_NONE, &out, error);
    }
    return status;
}

static pxr_status check_grids(const pxr_tensor *x, int64_t width, const pxr_grid *grids, int64_t grid_count,
                              pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    int64_t cells = 0;
    for (int64_t g = 0; g < grid_count; g++) {
        const pxr_grid *grid = &grids[g];
        int64_t product;
        if (grid->height < 1 || grid->width < 1 || grid->block < 1 || grid->height % grid->block != 0 ||
            grid->width % grid->block != 0 || __builtin_mul_overflow(grid->height, grid->width, &product) ||
            __builtin_add_overflow(cells, product, &cells))
            return pxr_fail(error, PXR_ERROR_ARGUMENT,
                            "vision encoder: grid %lld of %lld x %lld cells does not consist of blocks of %lld",
                            (long long)g + 1, (long long)grid->height, (long long)grid->width, (long long)grid->block);
    }
    if (x->rank != 2 || x->size[0] != cells || x->size[1] != width || x->dtype != PXR_F32 ||
        !pxr_tensor_is_contiguous(x))
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "vision encoder: expected a contiguous float32 tensor [%lldx%lld], found %s %s",
                        (long long)cells, (long long)width, pxr_tensor_shape_text(x, shape), pxr_dtype_name(x->dtype));
    return PXR_OK;
}

pxr_status pxr_vision_encoder_embed(pxr_vision_encoder *encoder, const pxr_tensor *out, const pxr_tensor *patches,
                                    pxr_error *error)
{
    return pxr_linear_layer(out, patches, &encoder->patch_embedding, PXR_ACTIVATION_NONE, NULL, error);
}

pxr_status pxr_vision_encoder_layers(pxr_vision_encoder *encoder, const pxr_tensor *x, const pxr_grid *grids,
                                     int64_t grid_count, int64_t first, int64_t last, pxr_error *error)
{
    const pxr_vision_config *c = &encoder->config;
    buffers b;
    pxr_status status = check_grids(x, c->hidden, grids, grid_count, error);
    if (status != PXR_OK) return status;
    if (first < 0 || last > c->layers || first > last)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "vision encoder: layers %lld to %lld do not exist, it has %lld",
                        (long long)first + 1, (long long)last, (long long)c->layers);

    pxr_arena_plan(&encoder->arena);
    cut_buffers(&b, encoder, x->size[0]);
    status = pxr_arena_reserve(&encoder->arena, encoder->device, error);
    if (status != PXR_OK) return status;
    cut_buffers(&b, encoder, x->size[0]);

    pxr_attention_segment *segments = pxr_calloc((size_t)grid_count, sizeof *segments);
    if (!segments) return pxr_fail_memory(error, (size_t)grid_count * sizeof *segments, "attention segments");
    for (int64_t g = 0, begin = 0; g < grid_count; g++) {
        const int64_t cells = grids[g].height * grids[g].width;
        segments[g] = (pxr_attention_segment){.query_begin = begin,
                                              .query_count = cells,
                                              .key_begin = begin,
                                              .key_count = cells};
        begin += cells;
    }
    status = fill_angles(encoder, &b, grids, grid_count, error);
    for (int64_t i = first; status == PXR_OK && i < last; i++) {
        status = pxr_interrupt_check(error);
        if (status == PXR_OK)
            status = attention_sublayer(encoder, &encoder->layers[i], &b, x, segments, grid_count, error);
        if (status == PXR_OK) status = mlp_sublayer(encoder, &encoder->layers[i], &b, x, error);
    }
    pxr_free(segments);
    return status;
}

pxr_status pxr_vision_encoder_norm(pxr_vision_encoder *encoder, const pxr_tensor *out, const pxr_tensor *x,
                                   pxr_error *error)
{
    const pxr_layer_norm_args norm = {.out = out,
                                      .x = x,
                                      .weight = &encoder->post_weight,
                                      .bias = &encoder->post_bias,
                                      .epsilon = encoder->config.epsilon};
    return pxr_layer_norm(&norm, error);
}

pxr_status pxr_vision_encoder_forward(pxr_vision_encoder *encoder, const pxr_tensor *out, const pxr_tensor *patches,
                                      const pxr_grid *grids, int64_t grid_count, pxr_error *error)
{
    pxr_status status = check_grids(patches, encoder->config.patch_values, grids, grid_count, error);
    if (status == PXR_OK) status = check_grids(out, encoder->config.hidden, grids, grid_count, error);
    int64_t begin = 0;
    for (int64_t g = 0, end; status == PXR_OK && g < grid_count; g = end) {
        int64_t cells = grids[g].height * grids[g].width;
        for (end = g + 1; end < grid_count; end++) {
            const int64_t more = grids[end].height * grids[end].width;
            if (cells + more > GROUP_CELLS) break;
            cells += more;
        }
        const pxr_tensor in = pxr_rows(patches, begin, cells), x = pxr_rows(out, begin, cells);
        status = pxr_vision_encoder_embed(encoder, &x, &in, error);
        if (status == PXR_OK)
            status = pxr_vision_encoder_layers(encoder, &x, grids + g, end - g, 0, encoder->config.layers, error);
        if (status == PXR_OK) status = pxr_vision_encoder_norm(encoder, &x, &x, error);
        begin += cells;
    }
    return status;
}
