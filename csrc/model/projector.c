/* Linear, GELU, Linear; see projector.h. */
#include "model/projector.h"

#include "core/arena.h"
#include "core/memory.h"
#include "model/views.h"
#include "model/weights.h"

#include <stdio.h>

enum { MAX_DEPTH = 8, ROWS = 1024 /* rows of the inner activations at a time */ };

struct pxr_projector {
    int64_t in, out, depth;
    pxr_device *device;
    pxr_linear_weights layers[MAX_DEPTH];
    pxr_arena arena; /* two inner activations [min(n,ROWS),out] */
};

pxr_status pxr_projector_new(pxr_projector **projector, int64_t in, int64_t out, int64_t depth, const char *prefix,
                             const pxr_tensor_map *weights, pxr_device *device, pxr_error *error)
{
    *projector = NULL;
    if (depth < 1 || depth > MAX_DEPTH || in < 1 || out < 1)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "projector: depth %lld is not in 1 to %d, or a width is not positive", (long long)depth,
                        MAX_DEPTH);
    pxr_projector *made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "a projector");
    *made = (pxr_projector){.in = in, .out = out, .depth = depth, .device = device};
    for (int64_t i = 0; i < depth; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%lld", prefix, (long long)(2 * i));
        const pxr_status status = pxr_linear_weights_take(&made->layers[i], weights, device, out, i == 0 ? in : out,
                                                          true, error, name);
        if (status != PXR_OK) {
            pxr_projector_free(made);
            return status;
        }
    }
    *projector = made;
    return PXR_OK;
}

void pxr_projector_free(pxr_projector *projector)
{
    if (!projector) return;
    for (int i = 0; i < MAX_DEPTH; i++) pxr_linear_weights_release(&projector->layers[i]);
    pxr_arena_free(&projector->arena);
    pxr_free(projector);
}

int64_t pxr_projector_in(const pxr_projector *projector)
{
    return projector->in;
}

int64_t pxr_projector_out(const pxr_projector *projector)
{
    return projector->out;
}

pxr_device *pxr_projector_device(const pxr_projector *projector)
{
    return projector->device;
}

static void cut_buffers(pxr_tensor inner[2], pxr_projector *projector, int64_t rows)
{
    const int64_t size[2] = {rows < ROWS ? rows : ROWS, projector->out};
    const pxr_dtype operand = pxr_operand_type(&projector->layers[projector->depth - 1].weight);
    inner[0] = pxr_arena_tensor(&projector->arena, operand, 2, size);
    inner[1] = pxr_arena_tensor(&projector->arena, operand, 2, size);
}

pxr_status pxr_projector_forward(pxr_projector *projector, const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (x->rank != 2 || x->size[1] != projector->in)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "projector: expected [nx%lld], found %s", (long long)projector->in,
                        pxr_tensor_shape_text(x, shape));
    if (out->rank != 2 || out->size[0] != x->size[0] || out->size[1] != projector->out)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "projector: result is %s, expected [%lldx%lld]",
                        pxr_tensor_shape_text(out, shape), (long long)x->size[0], (long long)projector->out);
    pxr_tensor inner[2];
    pxr_arena_plan(&projector->arena);
    cut_buffers(inner, projector, x->size[0]);
    pxr_status status = pxr_arena_reserve(&projector->arena, projector->device, error);
    if (status != PXR_OK) return status;
    cut_buffers(inner, projector, x->size[0]);

    for (int64_t begin = 0; status == PXR_OK && begin < x->size[0]; begin += ROWS) {
        const int64_t count = x->size[0] - begin < ROWS ? x->size[0] - begin : ROWS;
        pxr_tensor from = pxr_rows(x, begin, count);
        for (int64_t i = 0; status == PXR_OK && i < projector->depth; i++) {
            const bool is_last = i + 1 == projector->depth;
            const pxr_tensor to = is_last ? pxr_rows(out, begin, count) : pxr_rows(&inner[i % 2], 0, count);
            status = pxr_linear_layer(&to, &from, &projector->layers[i],
                                      is_last ? PXR_ACTIVATION_NONE : PXR_ACTIVATION_GELU_ERF, NULL, error);
            from = to;
        }
    }
    return status;
}
