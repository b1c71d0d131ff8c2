/* OCI; see infusion.h for the recipe. */
#include "model/infusion.h"

#include "core/arena.h"
#include "core/memory.h"
#include "model/views.h"
#include "model/weights.h"

#include <math.h>
#include <stdio.h>

enum { HEADS = 8 }; /* the reference's constant; in no file of a checkpoint */

typedef struct fusion {
    pxr_tensor norm_weight, norm_bias; /* [E], eps 1e-5 (torch's default) */
    pxr_linear_weights in_proj;        /* [3E,E]: q, k, v */
    pxr_linear_weights out_proj;       /* [E,E] */
} fusion;

struct pxr_infusion {
    int64_t hidden;
    pxr_device *device;
    fusion steps[2]; /* indexed by pxr_infusion_step */
    pxr_arena arena;
};

static pxr_status take_fusion(fusion *f, const pxr_infusion *infusion, const char *step, const pxr_tensor_map *weights,
                              pxr_error *error)
{
    pxr_device *device = infusion->device;
    const int64_t e = infusion->hidden, packed = 3 * e;
    pxr_status status = pxr_weight(&f->norm_weight, weights, device, 1, &e, error, "ln_%s.weight", step);
    if (status == PXR_OK) status = pxr_weight(&f->norm_bias, weights, device, 1, &e, error, "ln_%s.bias", step);
    if (status == PXR_OK)
        status = pxr_matrix_take(&f->in_proj, weights, device, packed, e, error, "fusion_attention_%s.in_proj_weight",
                                 step);
    if (status == PXR_OK)
        status = pxr_weight(&f->in_proj.bias, weights, device, 1, &packed, error, "fusion_attention_%s.in_proj_bias",
                            step);
    char out_proj[64];
    snprintf(out_proj, sizeof out_proj, "fusion_attention_%s.out_proj", step);
    if (status == PXR_OK) status = pxr_linear_weights_take(&f->out_proj, weights, device, e, e, true, error, out_proj);
    return status;
}

/* The rows of in_proj from `begin` on, borrowed. */
static pxr_linear_weights part_of(const pxr_linear_weights *in_proj, int64_t begin, int64_t count)
{
    pxr_linear_weights part = {.weight = pxr_rows(&in_proj->weight, begin, count),
                               .bias = pxr_rows(&in_proj->bias, begin, count)};
    if (in_proj->scales.storage) part.scales = pxr_rows(&in_proj->scales, begin, count);
    return part;
}

pxr_status pxr_infusion_new(pxr_infusion **infusion, int64_t hidden, const pxr_tensor_map *weights, pxr_device *device,
                            pxr_error *error)
{
    *infusion = NULL;
    if (hidden < 1 || hidden % HEADS != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "infusion: hidden size %lld does not give %d heads",
                        (long long)hidden, HEADS);
    pxr_infusion *made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "an infusion");
    made->hidden = hidden;
    made->device = device;
    pxr_status status = take_fusion(&made->steps[PXR_INFUSION_LOCAL], made, "local", weights, error);
    if (status == PXR_OK) status = take_fusion(&made->steps[PXR_INFUSION_GLOBAL], made, "global", weights, error);
    if (status != PXR_OK) {
        pxr_infusion_free(made);
        return status;
    }
    *infusion = made;
    return PXR_OK;
}

void pxr_infusion_free(pxr_infusion *infusion)
{
    if (!infusion) return;
    for (int i = 0; i < 2; i++) {
        fusion *f = &infusion->steps[i];
        pxr_tensor_release(&f->norm_weight);
        pxr_tensor_release(&f->norm_bias);
        pxr_linear_weights_release(&f->in_proj);
        pxr_linear_weights_release(&f->out_proj);
    }
    pxr_arena_free(&infusion->arena);
    pxr_free(infusion);
}

int64_t pxr_infusion_hidden(const pxr_infusion *infusion)
{
    return infusion->hidden;
}

pxr_device *pxr_infusion_device(const pxr_infusion *infusion)
{
    return infusion->device;
}

typedef struct buffers {
    pxr_tensor normed, q; /* [k,E]; the first in the operand type */
    pxr_tensor kv;        /* [cells,2E]: keys and values side by side, in_proj's last two thirds */
} buffers;

static void cut_buffers(buffers *b, pxr_infusion *infusion, int64_t tokens, int64_t cells)
{
    const int64_t hidden = infusion->hidden;
    pxr_arena *arena = &infusion->arena;
    const pxr_dtype operand = pxr_operand_type(&infusion->steps->out_proj.weight);
    const int64_t narrow[2] = {tokens, hidden}, wide[2] = {cells, 2 * hidden};
    b->normed = pxr_arena_tensor(arena, operand, 2, narrow);
    b->q = pxr_arena_tensor(arena, PXR_F32, 2, narrow);
    b->kv = pxr_arena_tensor(arena, PXR_F32, 2, wide);
}

static pxr_status check_width(const pxr_infusion *infusion, const pxr_tensor *x, const char *what, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (x->rank == 2 && x->size[1] == infusion->hidden && x->dtype == PXR_F32) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "infusion: %s is %s %s, expected float32 [nx%lld]", what,
                    pxr_dtype_name(x->dtype), pxr_tensor_shape_text(x, shape), (long long)infusion->hidden);
}

static pxr_status attend(const buffers *b, int64_t hidden, pxr_error *error)
{
    const pxr_tensor keys = pxr_columns(&b->kv, 0, hidden), values = pxr_columns(&b->kv, hidden, hidden);
    const pxr_tensor q = pxr_heads(&b->q, HEADS), k = pxr_heads(&keys, HEADS), v = pxr_heads(&values, HEADS);
    const pxr_tensor mixed = pxr_heads(&b->normed, HEADS);
    const pxr_attention_segment all = {.query_count = b->q.size[0], .key_count = b->kv.size[0]};
    return pxr_attention(&(pxr_attention_args){.out = &mixed,
                                               .q = &q,
                                               .k = &k,
                                               .v = &v,
                                               .segments = &all,
                                               .segment_count = 1,
                                               .scale = 1.0f / sqrtf((float)(hidden / HEADS))},
                         error);
}

pxr_status pxr_infusion_forward(pxr_infusion *infusion, pxr_infusion_step step, const pxr_tensor *out,
                                const pxr_tensor *tokens, const pxr_tensor *context, pxr_error *error)
{
    const int64_t e = infusion->hidden;
    const fusion *f = &infusion->steps[step];
    buffers b;
    pxr_status status = check_width(infusion, tokens, "tokens", error);
    if (status == PXR_OK) status = check_width(infusion, context, "context", error);
    if (status != PXR_OK) return status;
    pxr_arena_plan(&infusion->arena);
    cut_buffers(&b, infusion, tokens->size[0], context->size[0]);
    status = pxr_arena_reserve(&infusion->arena, infusion->device, error);
    if (status != PXR_OK) return status;
    cut_buffers(&b, infusion, tokens->size[0], context->size[0]);

    const pxr_linear_weights to_q = part_of(&f->in_proj, 0, e), to_kv = part_of(&f->in_proj, e, 2 * e);
    status = pxr_layer_norm(&(pxr_layer_norm_args){.out = &b.normed,
                                                   .x = tokens,
                                                   .weight = &f->norm_weight,
                                                   .bias = &f->norm_bias,
                                                   .epsilon = 1e-5f},
                            error);
    if (status == PXR_OK) status = pxr_linear_layer(&b.q, &b.normed, &to_q, PXR_ACTIVATION_NONE, NULL, error);
    if (status == PXR_OK) status = pxr_linear_layer(&b.kv, context, &to_kv, PXR_ACTIVATION_NONE, NULL, error);
    if (status == PXR_OK) status = attend(&b, e, error);
    if (status == PXR_OK) status = pxr_linear_layer(out, &b.normed, &f->out_proj, PXR_ACTIVATION_NONE, tokens, error);
    return status;
}
