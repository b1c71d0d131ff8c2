/* linear and matmul on the CPU: products of rows cut into pieces for the pool; the arithmetic is linear_kernel.h. */
#include "cpu/kernels.h"

#include "core/memory.h"
#include "core/threads.h"

#include <string.h>

/* Where rows are few: columns of a task are a multiple of STRIP, and each thread has about so many tasks. */
enum { STRIP = 64, FEW_TASKS = 4 };

/* A product and how it is cut. */
typedef struct product {
    pxr_linear_job job;
    int64_t columns;
    int64_t task_rows, task_columns, tasks;
    void *block; /* its rows of x in fewer bits, where no product before it has the same ones */
} product;

/* Products of as many rows each, one behind the other. */
typedef struct linear_work {
    const pxr_kernels *kernels;
    product *products;
    int64_t count, rows;
    const pxr_silu_mul_args *silu_mul; /* of the first two products, part by part; or NULL */
} linear_work;

/* Row range by row range: the rows stay in the caches while the weights pass by. */
static pxr_linear_part part_at(const linear_work *work, const product *p, int64_t task)
{
    const int64_t across = (p->columns + p->task_columns - 1) / p->task_columns;
    const int64_t row = task / across * p->task_rows, row_end = row + p->task_rows;
    const int64_t column = task % across * p->task_columns, column_end = column + p->task_columns;
    return (pxr_linear_part){.row_begin = row,
                             .row_end = row_end < work->rows ? row_end : work->rows,
                             .column_begin = column,
                             .column_end = column_end < p->columns ? column_end : p->columns};
}

static void do_part(const pxr_kernels *kernels, const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->x.dtype == PXR_I8)
        kernels->linear_int8(job, part);
    else
        kernels->linear(job, part);
}

/* Tasks are numbered product by product. */
static void do_block(void *context, int64_t task)
{
    const linear_work *work = context;
    const product *p = work->products;
    for (; task >= p->tasks; p++) task -= p->tasks;
    const pxr_linear_part part = part_at(work, p, task);
    do_part(work->kernels, &p->job, &part);
}

/* The same part of two products, which stay in the caches: memory gets silu(first) * second alone. */
static void do_gated(void *context, int64_t task)
{
    const linear_work *work = context;
    const product *p = work->products;
    const pxr_linear_part part = part_at(work, p, task);
    const pxr_tensor *out = work->silu_mul->out;
    float sums[2][PXR_LINEAR_ROWS_MAX][PXR_LINEAR_COLUMNS_MAX];
    for (int i = 0; i < 2; i++) {
        pxr_linear_job job = p[i].job;
        job.out = sums[i][0];
        job.out_stride = PXR_LINEAR_COLUMNS_MAX;
        job.out_row = part.row_begin;
        job.out_column = part.column_begin;
        do_part(work->kernels, &job, &part);
    }
    for (int64_t row = part.row_begin; row < part.row_end; row++)
        work->kernels->silu_mul((float *)out->data + row * out->stride[0] + part.column_begin,
                                sums[0][row - part.row_begin], sums[1][row - part.row_begin],
                                part.column_end - part.column_begin);
}

/* Columns of a task of a product of many rows. */
static int64_t columns_of_many(const pxr_linear_job *job)
{
    if (job->is_tiled) return PXR_LINEAR_TILE_COLUMNS;
    return job->x.dtype == PXR_I8 ? PXR_LINEAR_INT8_COLUMNS : PXR_LINEAR_COLUMNS;
}

static int64_t rows_of_many(const pxr_linear_job *job)
{
    return job->x.dtype == PXR_I8 && !job->is_tiled ? PXR_LINEAR_INT8_ROWS : PXR_LINEAR_ROWS;
}

/* Columns of a task of products of few rows, which take as long as memory needs for the weights: neighbouring rows of
 * weights are asked for ahead and should be the same thread's. */
static int64_t columns_of_few(const linear_work *work)
{
    const int64_t tasks = (int64_t)pxr_threads() * FEW_TASKS;
    int64_t columns = 0;
    for (int64_t i = 0; i < work->count; i++) columns += work->products[i].columns;
    const int64_t strips = (columns + tasks * STRIP - 1) / (tasks * STRIP);
    return (strips > 1 ? strips : 1) * STRIP;
}

/* Does the products; true if silu_mul, which may be NULL, is done with them. */
static bool run_products(product *products, int64_t count, int64_t rows, const pxr_silu_mul_args *silu_mul)
{
    const bool few = rows <= PXR_LINEAR_FEW;
    linear_work work = {.kernels = pxr_cpu_kernels(),
                        .products = products,
                        .count = count,
                        .rows = rows,
                        .silu_mul = silu_mul};
    const int64_t columns = columns_of_few(&work);
    int64_t tasks = 0;
    for (int64_t i = 0; i < count && rows > 0; i++) {
        product *p = &products[i];
        p->task_rows = few ? rows : rows_of_many(&p->job);
        p->task_columns = few ? columns : columns_of_many(&p->job);
        p->tasks = (rows + p->task_rows - 1) / p->task_rows * ((p->columns + p->task_columns - 1) / p->task_columns);
        tasks += p->tasks;
    }
    const product *second = products + 1;
    const bool gated = silu_mul && tasks > 0 && !few && second->task_columns == products->task_columns &&
                       second->task_rows == products->task_rows;
    if (gated)
        pxr_parallel_tasks(products[0].tasks, do_gated, &work);
    else
        pxr_parallel_tasks(tasks, do_block, &work);
    return gated;
}

static pxr_any_row any_row(const pxr_tensor *tensor)
{
    return tensor ? (pxr_any_row){.data = tensor->data, .dtype = tensor->dtype} : (pxr_any_row){0};
}

/* ---- rows of fewer bits ---------------------------------------------------------------------------------------- */

enum { ROUND_GRAIN = 32 << 10 /* elements that are worth waking a thread for */ };

/* Rows of x on their way into fewer bits. */
typedef struct narrow_rows {
    const pxr_tensor *x;
    pxr_dtype weights;
    char *values;   /* [rows][padded] */
    int64_t padded; /* elements of a row */
    pxr_chunks chunks;
} narrow_rows;

static void narrow(void *context, int64_t begin, int64_t end)
{
    const narrow_rows *rows = context;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    const int64_t count = rows->x->size[1], padded = rows->padded;
    for (int64_t row = begin; row < end; row++) {
        const float *x = (const float *)pxr_tensor_data(rows->x) + row * rows->x->stride[0];
        if (rows->weights == PXR_BF16)
            kernels->round_x((uint16_t *)rows->values + row * padded, x, count, padded);
        else
            kernels->quantize_x((int8_t *)rows->values + row * padded, &rows->chunks, row, rows->weights, x, count,
                                padded);
    }
}

/* In what the rows of x meet these weights. */
static pxr_dtype x_type(const pxr_device *device, const pxr_linear_args *args, const pxr_scales *scales)
{
    if (device->compute == PXR_COMPUTE_BF16 && args->weight->dtype == PXR_BF16) return PXR_BF16;
    const bool has_chunks = args->scales && scales->group_shift >= PXR_CHUNK_SHIFT_MIN;
    return device->compute == PXR_COMPUTE_INT8 && has_chunks ? PXR_I8 : PXR_F32;
}

/* Memory for so many rows of fewer bits, with their chunks; the job points into it. NULL: there is none. */
static void *allocate_x(pxr_linear_job *job, int64_t rows, pxr_error *error)
{
    const size_t row_bytes = (size_t)job->x_stride + (size_t)job->chunks.count * (sizeof(float) + sizeof(int32_t));
    size_t bytes;
    char *block = NULL;
    if (!pxr_mul_size((size_t)rows, row_bytes, &bytes) || !(block = pxr_malloc(bytes))) {
        pxr_fail_memory(error, row_bytes, "linear");
        return NULL;
    }
    job->x.data = block;
    job->chunks.scales = (float *)(void *)(block + rows * job->x_stride);
    job->chunks.corrections = (int32_t *)(void *)(job->chunks.scales + rows * job->chunks.count);
    return block;
}

/* Rows of x on their way into tiles. */
typedef struct arrangement {
    const pxr_linear_job *from;
    char *values;
    pxr_chunks chunks;
    int64_t rows;
} arrangement;

/* Tiles begin .. end - 1 of rows. */
static void arrange(void *context, int64_t begin, int64_t end)
{
    enum { SIDE = PXR_LINEAR_TILE_ROWS, UNIT = 4 /* bytes */ };
    const arrangement *work = context;
    const pxr_linear_job *from = work->from;
    const int64_t units = from->x_stride / UNIT, chunks = from->chunks.count;
    const int64_t last = end * SIDE < work->rows ? end * SIDE : work->rows;
    for (int64_t row = begin * SIDE; row < last; row++) {
        const int64_t tile = row / SIDE * SIDE, place = row % SIDE;
        char *values = work->values + tile * from->x_stride + place * UNIT;
        for (int64_t i = 0; i < units; i++)
            memcpy(values + i * SIDE * UNIT, from->x.data + row * from->x_stride + i * UNIT, UNIT);
        for (int64_t i = 0; i < chunks; i++) {
            const int64_t at = tile * chunks + i * SIDE + place;
            work->chunks.scales[at] = from->chunks.scales[row * chunks + i];
            work->chunks.corrections[at] = from->chunks.corrections[row * chunks + i];
        }
    }
}

/* Arranges the job's rows as tiles, in memory that takes the place of `block`. */
static pxr_status arrange_x(pxr_linear_job *job, int64_t rows, void **block, pxr_error *error)
{
    const int64_t tiles = (rows + PXR_LINEAR_TILE_ROWS - 1) / PXR_LINEAR_TILE_ROWS, all = tiles * PXR_LINEAR_TILE_ROWS;
    pxr_linear_job tiled = *job;
    void *fresh = allocate_x(&tiled, all, error);
    if (!fresh) return PXR_ERROR_MEMORY;
    arrangement work = {.from = job, .values = fresh, .chunks = tiled.chunks, .rows = rows};
    pxr_parallel_for(tiles, 1, arrange, &work);
    pxr_free(*block);
    *block = fresh;
    *job = tiled;
    job->is_tiled = true;
    return PXR_OK;
}

/* 2^s columns are a chunk of rows in eight bits. */
static int chunk_shift(const pxr_linear_job *job)
{
    return job->scales.group_shift < PXR_CHUNK_SHIFT_MAX ? job->scales.group_shift : PXR_CHUNK_SHIFT_MAX;
}

/* Gives the job rows of its x's type, in memory that the caller frees. */
static pxr_status narrow_x(pxr_linear_job *job, const pxr_tensor *x, void **block, pxr_error *error)
{
    const bool is_int8 = job->x.dtype == PXR_I8;
    const int64_t rows = x->size[0], unit = is_int8 ? PXR_CHUNK_BLOCK : PXR_ALIGNMENT / (int64_t)sizeof(uint16_t);
    const int64_t padded = (job->depth + unit - 1) / unit * unit;
    job->chunks.shift = chunk_shift(job);
    job->chunks.count = is_int8 ? ((job->depth - 1) >> job->chunks.shift) + 1 : 0;
    job->x_stride = padded * (int64_t)pxr_dtype_size(job->x.dtype);
    *block = allocate_x(job, rows, error);
    if (!*block) return PXR_ERROR_MEMORY;
    narrow_rows narrowed = {.x = x,
                            .weights = job->weight.dtype,
                            .values = *block,
                            .padded = padded,
                            .chunks = job->chunks};
    pxr_parallel_for(rows, ROUND_GRAIN / padded + 1, narrow, &narrowed);
    const bool tiles = pxr_cpu_kernels()->has_tiles && (!is_int8 || rows > PXR_LINEAR_FEW);
    return tiles ? arrange_x(job, rows, block, error) : PXR_OK;
}

static pxr_linear_job job_of(const pxr_linear_args *args)
{
    return (pxr_linear_job){
        .out = pxr_tensor_data(args->out),
        .x = {.data = pxr_tensor_data(args->x), .dtype = PXR_F32},
        .residual = args->residual ? pxr_tensor_data(args->residual) : NULL,
        .out_stride = args->out->stride[0],
        .x_stride = args->x->stride[0] * (int64_t)sizeof(float),
        .residual_stride = args->residual ? args->residual->stride[0] : 0,
        .weight = any_row(args->weight),
        .bias = any_row(args->bias),
        .weight_stride = args->weight->stride[0] * (int64_t)pxr_dtype_size(args->weight->dtype),
        .scales = pxr_cpu_scales_of(args->scales, args->x->size[1]),
        .depth = args->x->size[1],
        .activation = args->activation,
    };
}

/* Whether products of the same x read the same rows: in chunks they follow the weights' type and groups. */
static bool share_rows(const pxr_linear_job *a, const pxr_linear_job *b)
{
    if (a->x.dtype != b->x.dtype) return false;
    return a->x.dtype != PXR_I8 || (a->weight.dtype == b->weight.dtype && a->chunks.shift == chunk_shift(b));
}

/* The product's rows of x in fewer bits: those of a product before it, or its own. */
static pxr_status find_rows(product *products, int64_t index, const pxr_tensor *x, pxr_error *error)
{
    pxr_linear_job *job = &products[index].job;
    for (int64_t i = 0; i < index; i++) {
        const pxr_linear_job *other = &products[i].job;
        if (!share_rows(other, job)) continue;
        job->x = other->x;
        job->x_stride = other->x_stride;
        job->chunks = other->chunks;
        job->is_tiled = other->is_tiled;
        return PXR_OK;
    }
    return narrow_x(job, x, &products[index].block, error);
}

pxr_status pxr_cpu_linears(pxr_device *device, const pxr_linears_args *args, pxr_error *error)
{
    product products[PXR_LINEARS_MAX] = {0};
    pxr_status status = args->norm ? pxr_cpu_rms_norm(device, args->norm, error) : PXR_OK;
    for (int64_t i = 0; status == PXR_OK && i < args->count; i++) {
        const pxr_linear_args *each = &args->each[i];
        pxr_linear_job *job = &products[i].job;
        *job = job_of(each);
        products[i].columns = each->out->size[1];
        if (each->x->size[0] > 0 && job->depth > 0) job->x.dtype = x_type(device, each, &job->scales);
        if (job->x.dtype != PXR_F32) status = find_rows(products, i, each->x, error);
    }
    bool gated = false;
    if (status == PXR_OK) gated = run_products(products, args->count, args->each->x->size[0], args->silu_mul);
    for (int64_t i = 0; i < args->count; i++) pxr_free(products[i].block);
    if (status == PXR_OK && args->silu_mul && !gated) return pxr_cpu_silu_mul(device, args->silu_mul, error);
    return status;
}

pxr_status pxr_cpu_linear(pxr_device *device, const pxr_linear_args *args, pxr_error *error)
{
    return pxr_cpu_linears(device, &(pxr_linears_args){.each = args, .count = 1}, error);
}

/* ---- matmul ---------------------------------------------------------------------------------------------------- */

static float element_at(const pxr_tensor *tensor, int64_t index)
{
    const char *data = tensor->data;
    if (tensor->dtype == PXR_F32) {
        float value;
        memcpy(&value, data + index * 4, sizeof value);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, data + index * 2, sizeof bits);
    return tensor->dtype == PXR_BF16 ? pxr_bf16_to_f32(bits) : pxr_f16_to_f32(bits);
}

static void set_element(const pxr_tensor *tensor, int64_t index, float value)
{
    char *data = tensor->data;
    if (tensor->dtype == PXR_F32) {
        memcpy(data + index * 4, &value, sizeof value);
        return;
    }
    const uint16_t bits = tensor->dtype == PXR_BF16 ? pxr_f32_to_bf16(value) : pxr_f32_to_f16(value);
    memcpy(data + index * 2, &bits, sizeof bits);
}

/* One of the matrices that a matmul is made of: the last two dims, maybe exchanged, as dense float32 rows. */
typedef struct matrix {
    float *copy; /* [rows,columns], or NULL: the tensor's own rows are used */
    const float *rows_at;
    int64_t rows, columns, row_stride, column_stride; /* of the tensor */
    int64_t stride;                                   /* of rows_at */
} matrix;

/* Describes a matrix and makes room for its copy where one is needed. */
static pxr_status open_matrix(matrix *m, const pxr_tensor *tensor, bool transposed, pxr_error *error)
{
    const int row = tensor->rank - (transposed ? 1 : 2), column = tensor->rank - (transposed ? 2 : 1);
    *m = (matrix){.rows = tensor->size[row],
                  .columns = tensor->size[column],
                  .row_stride = tensor->stride[row],
                  .column_stride = tensor->stride[column]};
    m->stride = m->row_stride;
    if (tensor->dtype == PXR_F32 && (m->column_stride == 1 || m->columns <= 1)) return PXR_OK;
    size_t bytes;
    if (!pxr_mul_size((size_t)m->rows, (size_t)m->columns, &bytes) || !pxr_mul_size(bytes, sizeof(float), &bytes))
        return pxr_fail(error, PXR_ERROR_MEMORY, "matmul: a matrix of %lldx%lld does not fit in memory",
                        (long long)m->rows, (long long)m->columns);
    m->copy = pxr_malloc(bytes);
    m->stride = m->columns;
    return m->copy ? PXR_OK : pxr_fail_memory(error, bytes, "matmul");
}

/* Points the matrix at the elements from `offset` on, through the copy if there is one. */
static void load_matrix(matrix *m, const pxr_tensor *tensor, int64_t offset)
{
    m->rows_at = m->copy ? m->copy : (const float *)tensor->data + offset;
    if (!m->copy) return;
    for (int64_t i = 0; i < m->rows; i++)
        for (int64_t j = 0; j < m->columns; j++)
            m->copy[i * m->columns + j] = element_at(tensor, offset + i * m->row_stride + j * m->column_stride);
}

/* Offset in `tensor` of matrix number `index` of `out`, its leading dims broadcast. */
static int64_t matrix_offset(const pxr_tensor *tensor, const pxr_tensor *out, int64_t index)
{
    int64_t offset = 0;
    for (int i = out->rank - 3; i >= 0; i--) {
        const int64_t place = index % out->size[i];
        const int dim = i - (out->rank - tensor->rank);
        index /= out->size[i];
        if (dim >= 0 && tensor->size[dim] > 1) offset += place * tensor->stride[dim];
    }
    return offset;
}

static void multiply(const matrix *out, const matrix *a, const matrix *b)
{
    product only = {.columns = out->columns};
    only.job = (pxr_linear_job){
        .out = (float *)out->rows_at,
        .x = {.data = (const char *)a->rows_at, .dtype = PXR_F32},
        .out_stride = out->stride,
        .x_stride = a->stride * (int64_t)sizeof(float),
        .weight = {.data = (const char *)b->rows_at, .dtype = PXR_F32},
        .weight_stride = b->stride * (int64_t)sizeof(float),
        .depth = a->columns,
    };
    run_products(&only, 1, out->rows, NULL);
}

pxr_status pxr_cpu_matmul(pxr_device *device, const pxr_matmul_args *args, pxr_error *error)
{
    (void)device;
    const pxr_tensor *out = args->out;
    matrix a = {0}, b = {0}, y = {0}; /* b as [m,K]: the rows of linear's weight */
    int64_t count = 1;
    for (int i = 0; i < out->rank - 2; i++) count *= out->size[i];
    pxr_status status = open_matrix(&a, args->a, false, error);
    if (status == PXR_OK) status = open_matrix(&b, args->b, true, error);
    if (status == PXR_OK) status = open_matrix(&y, out, false, error);
    for (int64_t i = 0; status == PXR_OK && i < count; i++) {
        const int64_t offset = matrix_offset(out, out, i);
        load_matrix(&a, args->a, matrix_offset(args->a, out, i));
        load_matrix(&b, args->b, matrix_offset(args->b, out, i));
        y.rows_at = y.copy ? y.copy : (const float *)out->data + offset;
        multiply(&y, &a, &b);
        for (int64_t r = 0; y.copy && r < y.rows; r++)
            for (int64_t c = 0; c < y.columns; c++)
                set_element(out, offset + r * y.row_stride + c * y.column_stride, y.copy[r * y.columns + c]);
    }
    pxr_free(a.copy);
    pxr_free(b.copy);
    pxr_free(y.copy);
    return status;
}
