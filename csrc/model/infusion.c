/* OCI; see infusion.h for the recipe. */
#include "model/infusion.h"

#include "core/arena.h"
#include "core/memory.h"
#include "model/views.h"
#include "model/weights.h"

#include <math.h>

enum { HEADS = 8 }; /* the reference's constant; in no file of a checkpoint */

typedef struct fusion {
    pxr_tensor norm_weight, norm_bias;         /* [E], eps 1e-5 (torch's default) */
    pxr_tensor in_proj_weight, in_proj_bias;   /* [3E,E], [3E]: q, k, v */
    pxr_tensor out_proj_weight, out_proj_bias; /* [E,E], [E] */
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
    const int64_t e = infusion->hidden, square[2] = {e, e}, packed[2] = {3 * e, e};
    const struct {
        pxr_tensor *tensor;
        int rank;
        const int64_t *size;
        const char *before, *after;
    } taken[] = {
        {&f->norm_weight, 1, &e, "ln_", ".weight"},
        {&f->norm_bias, 1, &e, "ln_", ".bias"},
        {&f->in_proj_weight, 2, packed, "fusion_attention_", ".in_proj_weight"},
        {&f->in_proj_bias, 1, packed, "fusion_attention_", ".in_proj_bias"},
        {&f->out_proj_weight, 2, square, "fusion_attention_", ".out_proj.weight"},
        {&f->out_proj_bias, 1, square, "fusion_attention_", ".out_proj.bias"},
    };
    pxr_status status = PXR_OK;
    for (size_t i = 0; status == PXR_OK && i < sizeof taken / sizeof *taken; i++)
        status = pxr_weight(taken[i].tensor, weights, infusion->device, taken[i].rank, taken[i].size, error, "%s%s%s",
                            taken[i].before, step, taken[i].after);
    return status;
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
        pxr_tensor *held[] = {&f->norm_weight,  &f->norm_bias,       &f->in_proj_weight,
                              &f->in_proj_bias, &f->out_proj_weight, &f->out_proj_bias};
        for (size_t j = 0; j < sizeof held / sizeof *held; j++) pxr_tensor_release(held[j]);
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
    const pxr_dtype operand = pxr_operand_type(&infusion->steps->out_proj_weight);
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

    const pxr_linear_weights to_q = {pxr_rows(&f->in_proj_weight, 0, e), pxr_rows(&f->in_proj_bias, 0, e)};
    const pxr_linear_weights to_kv = {pxr_rows(&f->in_proj_weight, e, 2 * e), pxr_rows(&f->in_proj_bias, e, 2 * e)};
    const pxr_linear_weights to_out = {f->out_proj_weight, f->out_proj_bias};
    status = pxr_layer_norm(&(pxr_layer_norm_args){.out = &b.normed,
                                                   .x = tokens,
                                                   .weight = &f->norm_weight,
                                                   .bias = &f->norm_bias,
                                                   .epsilon = 1e-5f},
                            error);
    if (status == PXR_OK) status = pxr_linear_layer(&b.q, &b.normed, &to_q, PXR_ACTIVATION_NONE, NULL, error);
    if (status == PXR_OK) status = pxr_linear_layer(&b.kv, context, &to_kv, PXR_ACTIVATION_NONE, NULL, error);
    if (status == PXR_OK) status = attend(&b, e, error);
    if (status == PXR_OK) status = pxr_linear_layer(out, &b.normed, &to_out, PXR_ACTIVATION_NONE, tokens, error);
    return status;
}
