/* SAOT's pooling; see object_tokenizer.h. */
#include "model/object_tokenizer.h"

#include "core/memory.h"
#include "model/views.h"
#include "model/weights.h"
#include "ops/device.h"

struct pxr_object_tokenizer {
    pxr_saot_variant variant;
    int64_t hidden, mask_num;
    pxr_device *device;
    pxr_linear_weights pos_linear; /* [E,2], [E] */
};

pxr_status pxr_object_tokenizer_new(pxr_object_tokenizer **tokenizer, pxr_saot_variant variant, int64_t hidden,
                                    int64_t mask_num, const pxr_tensor_map *weights, pxr_device *device,
                                    pxr_error *error)
{
    *tokenizer = NULL;
    if (hidden < 1 || mask_num < 1)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "object tokenizer: width %lld, mask_num %lld", (long long)hidden,
                        (long long)mask_num);
    pxr_object_tokenizer *made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "an object tokenizer");
    *made = (pxr_object_tokenizer){.variant = variant, .hidden = hidden, .mask_num = mask_num, .device = device};
    const pxr_status status = pxr_linear_weights_take(&made->pos_linear, weights, device, hidden, 2, true, error,
                                                      "pos_linear");
    if (status != PXR_OK) {
        pxr_object_tokenizer_free(made);
        return status;
    }
    *tokenizer = made;
    return PXR_OK;
}

void pxr_object_tokenizer_free(pxr_object_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    pxr_linear_weights_release(&tokenizer->pos_linear);
    pxr_free(tokenizer);
}

pxr_saot_variant pxr_object_tokenizer_variant(const pxr_object_tokenizer *tokenizer)
{
    return tokenizer->variant;
}

int64_t pxr_object_tokenizer_mask_num(const pxr_object_tokenizer *tokenizer)
{
    return tokenizer->mask_num;
}

int64_t pxr_object_tokenizer_hidden(const pxr_object_tokenizer *tokenizer)
{
    return tokenizer->hidden;
}

pxr_device *pxr_object_tokenizer_device(const pxr_object_tokenizer *tokenizer)
{
    return tokenizer->device;
}

/* ---- pooling --------------------------------------------------------------------------------------------------- */

/* A host tensor's contents on `device`; the same tensor, retained, when it is already there. */
static pxr_status to_device(pxr_tensor *out, const pxr_tensor *host, pxr_device *device, pxr_error *error)
{
    if (pxr_tensor_device(host) == device) {
        pxr_tensor_alias(out, host);
        return PXR_OK;
    }
    pxr_status status = pxr_tensor_new(out, device, host->dtype, host->rank, host->size, error);
    const size_t bytes = (size_t)pxr_tensor_count(host) * pxr_dtype_size(host->dtype);
    return status == PXR_OK ? device->upload(device, out->data, host->data, bytes, error) : status;
}

/* Where each cell lies in the image, [cells,2]. The reference stores the box as (top, left, bottom, right) and reads
 * it as (x0, y0, x1, y1), so columns run over the box's vertical extent and rows over its horizontal one. The weights
 * were trained with exactly that (REFERENCE 7.6). */
static pxr_status cell_positions(pxr_tensor *positions, int64_t rows, int64_t columns, const int64_t box[4],
                                 int64_t image_height, int64_t image_width, pxr_device *device, pxr_error *error)
{
    const int64_t size[2] = {rows * columns, 2};
    const double top = (double)box[0], left = (double)box[1], bottom = (double)box[2], right = (double)box[3];
    const double last_column = image_width > 1 ? (double)(image_width - 1) : 1.0;
    const double last_row = image_height > 1 ? (double)(image_height - 1) : 1.0;
    pxr_tensor host = {0};
    pxr_status status = pxr_tensor_new(&host, pxr_cpu_device(), PXR_F32, 2, size, error);
    if (status != PXR_OK) return status;
    float *p = pxr_tensor_data(&host);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++, p += 2) {
            p[0] = (float)(((double)j / (double)columns * (bottom - top) + top) / last_column);
            p[1] = (float)(((double)i / (double)rows * (right - left) + left) / last_row);
        }
    }
    status = to_device(positions, &host, device, error);
    pxr_tensor_release(&host);
    return status;
}

/* features + pos_linear(positions), on the mask's grid: [rows*columns,E]. */
static pxr_status place(pxr_tensor *placed, const pxr_object_tokenizer *tokenizer, const pxr_tensor *features,
                        int64_t grid_height, int64_t grid_width, const pxr_tensor *mask_grid, const int64_t box[4],
                        int64_t image_height, int64_t image_width, pxr_error *error)
{
    const int64_t e = tokenizer->hidden, size[2] = {grid_height * grid_width, e};
    const int64_t target[3] = {mask_grid->size[0], mask_grid->size[1], e}, source[3] = {grid_height, grid_width, e};
    const int64_t flat[2] = {-1, e};
    pxr_tensor positions = {0}, sum = {0}, resized = {0}, picture = {0};
    pxr_status status = cell_positions(&positions, grid_height, grid_width, box, image_height, image_width,
                                       tokenizer->device, error);
    if (status == PXR_OK) status = pxr_tensor_new(&sum, tokenizer->device, PXR_F32, 2, size, error);
    if (status == PXR_OK)
        status = pxr_linear_layer(&sum, &positions, &tokenizer->pos_linear, PXR_ACTIVATION_NONE, features, error);
    if (status == PXR_OK && target[0] == grid_height && target[1] == grid_width) {
        pxr_tensor_alias(placed, &sum);
    } else if (status == PXR_OK) { /* the budget's resize shrank the crop */
        status = pxr_tensor_view(&picture, &sum, 3, source, error);
        if (status == PXR_OK) status = pxr_tensor_new(&resized, tokenizer->device, PXR_F32, 3, target, error);
        if (status == PXR_OK)
            status = pxr_resize_bilinear(&(pxr_resize_bilinear_args){.out = &resized, .x = &picture}, error);
        if (status == PXR_OK) status = pxr_tensor_view(placed, &resized, 2, flat, error);
    }
    pxr_tensor_release(&positions);
    pxr_tensor_release(&sum);
    pxr_tensor_release(&resized);
    pxr_tensor_release(&picture);
    return status;
}

/* Indices of the cells under the mask, in raster order: int64 [n] on the host. */
static pxr_status cells_inside(pxr_tensor *indices, const pxr_tensor *mask_grid, pxr_error *error)
{
    const float *grid = pxr_tensor_data(mask_grid);
    const int64_t count = pxr_tensor_count(mask_grid);
    int64_t inside = 0;
    for (int64_t i = 0; i < count; i++) inside += grid[i] > 0.0f;
    const pxr_status status = pxr_tensor_new(indices, pxr_cpu_device(), PXR_I64, 1, &inside, error);
    if (status != PXR_OK) return status;
    int64_t *to = pxr_tensor_data(indices);
    for (int64_t i = 0; i < count; i++)
        if (grid[i] > 0.0f) *to++ = i;
    return PXR_OK;
}

/* k-means from a random permutation's first mask_num cells. */
static pxr_status merge(pxr_pooled_region *pooled, const pxr_object_tokenizer *tokenizer, pxr_mt19937 *generator,
                        pxr_error *error)
{
    const int64_t n = pooled->cells.size[0], size[2] = {tokenizer->mask_num, tokenizer->hidden};
    pxr_tensor permutation = {0}, start = {0}, start_there = {0};
    pxr_status status = pxr_tensor_new(&permutation, pxr_cpu_device(), PXR_I64, 1, &n, error);
    if (status == PXR_OK) {
        pxr_randperm(generator, pxr_tensor_data(&permutation), n);
        start = pxr_rows(&permutation, 0, tokenizer->mask_num);
        status = to_device(&start_there, &start, tokenizer->device, error);
    }
    if (status == PXR_OK) status = pxr_tensor_new(&pooled->tokens, tokenizer->device, PXR_F32, 2, size, error);
    if (status == PXR_OK) status = pxr_tensor_new(&pooled->assignment, tokenizer->device, PXR_I64, 1, &n, error);
    if (status == PXR_OK)
        status = pxr_kmeans(&(pxr_kmeans_args){.out = &pooled->tokens,
                                               .points = &pooled->cells,
                                               .start = &start_there,
                                               .assignment = &pooled->assignment,
                                               .rounds = tokenizer->variant == PXR_SAOT_OBJECT_ONLY ? 3 : 5},
                            error);
    pxr_tensor_release(&permutation);
    pxr_tensor_release(&start_there);
    return status;
}

/* Every cell is its own token; Lite fills up with zero rows. */
static pxr_status keep(pxr_pooled_region *pooled, const pxr_object_tokenizer *tokenizer, pxr_error *error)
{
    const int64_t n = pooled->cells.size[0];
    const bool pads = tokenizer->variant == PXR_SAOT_OBJECT_ONLY;
    const int64_t size[2] = {pads ? tokenizer->mask_num : n, tokenizer->hidden};
    pxr_tensor numbers = {0};
    pxr_status status = pxr_tensor_new(&pooled->tokens, tokenizer->device, PXR_F32, 2, size, error);
    if (status == PXR_OK) status = pxr_tensor_new(&numbers, pxr_cpu_device(), PXR_I64, 1, &n, error);
    if (status != PXR_OK) return status;
    int64_t *number = pxr_tensor_data(&numbers);
    for (int64_t i = 0; i < n; i++) number[i] = i;
    status = to_device(&pooled->assignment, &numbers, tokenizer->device, error);
    pxr_tensor_release(&numbers);
    const pxr_tensor filled = pxr_rows(&pooled->tokens, 0, n), empty = pxr_rows(&pooled->tokens, n, size[0] - n);
    if (status == PXR_OK) status = pxr_copy(&(pxr_copy_args){.out = &filled, .x = &pooled->cells}, error);
    if (status == PXR_OK) status = pxr_fill(&(pxr_fill_args){.out = &empty}, error);
    return status;
}

static pxr_status check_pool(const pxr_object_tokenizer *tokenizer, const pxr_tensor *features, int64_t grid_height,
                             int64_t grid_width, const pxr_tensor *mask_grid, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    int64_t cells;
    if (grid_height < 1 || grid_width < 1 || __builtin_mul_overflow(grid_height, grid_width, &cells) ||
        features->rank != 2 || features->size[0] != cells || features->size[1] != tokenizer->hidden ||
        features->dtype != PXR_F32)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "pool: features are %s %s, expected float32 [%lld*%lldx%lld]",
                        pxr_dtype_name(features->dtype), pxr_tensor_shape_text(features, shape), (long long)grid_height,
                        (long long)grid_width, (long long)tokenizer->hidden);
    if (mask_grid->rank != 2 || mask_grid->dtype != PXR_F32 || !pxr_tensor_is_contiguous(mask_grid) ||
        !pxr_tensor_device(mask_grid)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "pool: mask grid is %s %s, expected contiguous float32 [ghxgw] on the cpu",
                        pxr_dtype_name(mask_grid->dtype), pxr_tensor_shape_text(mask_grid, shape));
    return PXR_OK;
}

pxr_status pxr_object_tokenizer_pool(pxr_object_tokenizer *tokenizer, pxr_pooled_region *pooled,
                                     const pxr_tensor *features, int64_t grid_height, int64_t grid_width,
                                     const pxr_tensor *mask_grid, const int64_t box[4], int64_t image_height,
                                     int64_t image_width, pxr_mt19937 *generator, pxr_error *error)
{
    *pooled = (pxr_pooled_region){0};
    pxr_tensor placed = {0}, indices = {0}, indices_there = {0};
    pxr_status status = check_pool(tokenizer, features, grid_height, grid_width, mask_grid, error);
    if (status == PXR_OK)
        status = place(&placed, tokenizer, features, grid_height, grid_width, mask_grid, box, image_height, image_width,
                       error);
    if (status == PXR_OK) status = cells_inside(&indices, mask_grid, error);
    if (status == PXR_OK) status = to_device(&indices_there, &indices, tokenizer->device, error);
    if (status == PXR_OK) {
        const int64_t size[2] = {indices.size[0], tokenizer->hidden};
        status = pxr_tensor_new(&pooled->cells, tokenizer->device, PXR_F32, 2, size, error);
    }
    if (status == PXR_OK)
        status = pxr_index_select(&(pxr_index_select_args){.out = &pooled->cells,
                                                           .x = &placed,
                                                           .index = &indices_there,
                                                           .dim = 0},
                                  error);
    if (status == PXR_OK)
        status = pooled->cells.size[0] > tokenizer->mask_num ? merge(pooled, tokenizer, generator, error)
                                                             : keep(pooled, tokenizer, error);
    pxr_tensor_release(&placed);
    pxr_tensor_release(&indices);
    pxr_tensor_release(&indices_there);
    if (status != PXR_OK) pxr_pooled_region_release(pooled);
    return status;
}

void pxr_pooled_region_release(pxr_pooled_region *pooled)
{
    pxr_tensor_release(&pooled->tokens);
    pxr_tensor_release(&pooled->cells);
    pxr_tensor_release(&pooled->assignment);
}
