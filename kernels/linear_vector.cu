/* linear for few rows, as a decoding step has them: bound by reading the weights, which are read once for all rows.
 *
 * One launch serves several products of the same rows, each with blocks of its own: queries, keys and values are few
 * columns, and a launch for each would cost more than reading them. A block computes some columns for all rows. Its
 * threads take every 128th piece of 16 bytes of a weight row, so that a warp's loads are whole lines; the next pieces
 * are under way while these are multiplied, the first ones before the kernel before has ended (where weights are
 * constant). The threads' sums are
 * added in one order. Sums of a row do not depend on how many rows there are.
 *
 * What stands before and behind is done here for one or two rows, which saves launches: each block norms the rows for
 * itself (they lie in the caches), and computes the same columns of gate and up.
 */
#include "linear.cuh"

enum {
    VECTOR_THREADS = 128,
    VECTOR_WARPS = VECTOR_THREADS / 32,
    VECTOR_BLOCKS = 4, /* of a multiprocessor at least, whose registers they share */
};

/* How a block's columns and rows are had. */
enum vector_form {
    ANY,     /* element by element: any sizes and alignment */
    ALIGNED, /* in pieces of 16 bytes */
    NORMED,  /* the same; the rows are normed first */
    GATED,   /* normed; half of the columns are of gate, half of up */
};

/* 16 bytes of weights as float32. */
template <class Weight> struct piece {
    enum { COUNT = 16 / sizeof(Weight) };
    float value[COUNT];
};

GPU_DEV void unpack(piece<float> &to, uint4 bits)
{
    to.value[0] = __uint_as_float(bits.x);
    to.value[1] = __uint_as_float(bits.y);
    to.value[2] = __uint_as_float(bits.z);
    to.value[3] = __uint_as_float(bits.w);
}

GPU_DEV void unpack(piece<__nv_bfloat16> &to, uint4 bits)
{
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to.value[2 * i] = __uint_as_float(words[i] << 16);
        to.value[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

GPU_DEV void unpack(piece<__half> &to, uint4 bits)
{
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to.value[2 * i] = widen(__ushort_as_half((unsigned short)(words[i] & 0xffffu)));
        to.value[2 * i + 1] = widen(__ushort_as_half((unsigned short)(words[i] >> 16)));
    }
}

/* COUNT values of a row of x from element `at` on, in loads of 16 bytes where there are as many. (In loops over more rows
 * its branches are too much for nvcc to unroll.) */
template <int COUNT> GPU_DEV void load_row(float (&to)[COUNT], const void *x, pxr_dtype type, int64_t at)
{
    if (COUNT == 8 && type == PXR_BF16) {
        piece<__nv_bfloat16> values;
        unpack(values, *reinterpret_cast<const uint4 *>(static_cast<const __nv_bfloat16 *>(x) + at));
#pragma unroll
        for (int i = 0; i < COUNT; i++) to[i] = values.value[i];
    } else if (COUNT % 4 == 0 && type == PXR_F32) {
#pragma unroll
        for (int i = 0; i + 4 <= COUNT; i += 4) {
            const float4 four = *reinterpret_cast<const float4 *>(static_cast<const float *>(x) + at + i);
            to[i] = four.x;
            to[i + 1] = four.y;
            to[i + 2] = four.z;
            to[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) to[i] = load_float(x, type, at + i);
    }
}

/* A column's next weights, on their way: a piece, or where nothing is aligned one. */
template <bool IN_PIECES> struct weights_ahead {
    uint4 bits;
};
template <> struct weights_ahead<false> {
    float value;
};

template <class Weight> GPU_DEV void load_ahead(weights_ahead<true> &to, const Weight *from)
{
    to.bits = load_once16(from);
}

template <class Weight> GPU_DEV void load_ahead(weights_ahead<false> &to, const Weight *from)
{
    to.value = widen(*from);
}

template <class Weight> GPU_DEV void unpack(piece<Weight> &to, const weights_ahead<true> &from)
{
    unpack(to, from.bits);
}

template <class Weight> GPU_DEV void unpack(piece<Weight> &to, const weights_ahead<false> &from)
{
    to.value[0] = from.value;
}

/* Products of the same rows by weights of one type: y of the grid, or all by each block where they are gated. */
struct vector_jobs {
    pxr_gpu_linear_job each[PXR_LINEARS_MAX];
    pxr_gpu_linear_norm norm;
    pxr_gpu_linear_gated gated;
};

/* 1 over the root of the mean square of the norm's rows. */
template <int ROWS, int COUNT>
GPU_DEV void norm_scales(float (&scale)[ROWS], const pxr_gpu_linear_norm &norm, int rows, int depth, float *partial)
{
    float x[COUNT];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int64_t row = (r < rows ? r : rows - 1) * norm.x_stride;
        float squares = 0.0f;
        for (int k = (int)threadIdx.x * COUNT; k < depth; k += VECTOR_THREADS * COUNT) {
            load_row(x, norm.x, PXR_F32, row + k);
#pragma unroll
            for (int i = 0; i < COUNT; i++) squares += x[i] * x[i];
        }
        scale[r] = 1.0f / sqrtf(block_sum(squares, partial) / (float)depth + norm.epsilon);
    }
}

/* As it would lie in memory of the type. */
GPU_DEV float rounded(float value, pxr_dtype type)
{
    return type == PXR_BF16 ? widen(__float2bfloat16_rn(value)) : value;
}

/* ROWS: rows of x, the last of which may be missing. COLUMNS: of a block. */
template <class Weight, int ROWS, int COLUMNS, vector_form FORM>
__global__ void __launch_bounds__(VECTOR_THREADS, VECTOR_BLOCKS) linear_vector(const __grid_constant__ vector_jobs jobs)
{
    enum {
        COUNT = FORM == ANY ? 1 : (int)piece<Weight>::COUNT,
        STEP = VECTOR_THREADS * COUNT,
        SUMS = COLUMNS * ROWS,
        WIDTH = FORM == GATED ? COLUMNS / 2 : COLUMNS /* columns of a product */
    };
    GPU_SHARED(float, partial, VECTOR_WARPS *SUMS > 32 ? VECTOR_WARPS * SUMS : 32);
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32, column0 = (int)blockIdx.x * WIDTH;
    const pxr_gpu_linear_job &any = jobs.each[0]; /* x is every product's */
    const auto job_of = [&](int c) -> const pxr_gpu_linear_job & {
        return jobs.each[FORM == GATED ? c / WIDTH : (int)blockIdx.y];
    };
    weights_ahead<FORM != ANY> ahead[COLUMNS];
    /* Beyond the last column the last one again. */
    const auto load = [&](int k) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            const pxr_gpu_linear_job &job = job_of(c);
            const int column = column0 + c % WIDTH < job.columns ? column0 + c % WIDTH : job.columns - 1;
            load_ahead(ahead[c], static_cast<const Weight *>(job.weight) + column * job.weight_stride + k);
        }
    };
    let_next_kernel_begin();
    const bool is_there = column0 < job_of(0).columns; /* else the block belongs to a product of more columns */
    if (is_there && thread * COUNT < any.depth) load(thread * COUNT);
    wait_for_previous_kernel();
    if (!is_there) return;
    float sum[SUMS] = {}, scale[ROWS];
    if (FORM == NORMED || FORM == GATED) norm_scales<ROWS, COUNT>(scale, jobs.norm, any.rows, any.depth, partial);
    for (int k = thread * COUNT; k < any.depth; k += STEP) {
        piece<Weight> w[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) unpack(w[c], ahead[c]);
        if (k + STEP < any.depth) load(k + STEP);
        float x[COUNT], norm_weight[COUNT];
        if (FORM == NORMED || FORM == GATED) load_row(norm_weight, jobs.norm.weight, jobs.norm.weight_type, k);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int row = r < any.rows ? r : any.rows - 1;
            if (FORM == NORMED || FORM == GATED)
                load_row(x, jobs.norm.x, PXR_F32, row * jobs.norm.x_stride + k);
            else if (ROWS <= 8)
                load_row(x, any.x, any.x_type, row * any.x_stride + k);
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                if (FORM == NORMED || FORM == GATED) x[i] = rounded(x[i] * scale[r] * norm_weight[i], any.x_type);
                if (ROWS > 8) x[i] = load_float(any.x, any.x_type, row * any.x_stride + k + i);
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) sum[c * ROWS + r] += w[c].value[i] * x[i];
            }
        }
    }
    const float of_warp = warp_sums(sum);
    enum { LANES_OF_A_SUM = 32 / SUMS };
    if (lane % LANES_OF_A_SUM == 0) partial[warp * SUMS + lane / LANES_OF_A_SUM] = of_warp;
    __syncthreads();
    const int c = thread / ROWS, row = thread % ROWS, column = column0 + c % WIDTH;
    float total = 0.0f;
    if (thread < SUMS) {
        for (int w = 0; w < VECTOR_WARPS; w++) total += partial[w * SUMS + thread];
        const pxr_gpu_linear_job &job = job_of(c);
        const bool is_wanted = row < job.rows && column < job.columns;
        if (is_wanted && FORM != GATED) finish_element(job, row, column, total);
        if (is_wanted && FORM == GATED) total = rounded(finished(job, row, column, total), job.out_type);
    }
    if (FORM != GATED) return;
    __syncthreads();
    if (thread < SUMS) partial[thread] = total;
    __syncthreads();
    if (thread < WIDTH * ROWS && row < any.rows && column < any.columns)
        store_activation(jobs.gated.out, jobs.gated.out_type, row * jobs.gated.out_stride + column,
                         total * sigmoid(total) * partial[thread + WIDTH * ROWS]);
}

template <class Weight, int ROWS, int COLUMNS, vector_form FORM>
static cudaError_t launch_form(const vector_jobs &jobs, int count, const pxr_gpu *gpu)
{
    int columns = 0;
    for (int i = 0; i < count; i++) columns = jobs.each[i].columns > columns ? jobs.each[i].columns : columns;
    const int width = FORM == GATED ? COLUMNS / 2 : COLUMNS;
    const dim3 grid(pxr_gpu_grid(pxr_gpu_blocks(columns, width)), FORM == GATED ? 1 : (unsigned)count);
    if (!pxr_gpu_are_constant(jobs.each, count))
        return GPU_LAUNCH((linear_vector<Weight, ROWS, COLUMNS, FORM>), grid, VECTOR_THREADS, 0, gpu->stream, jobs);
    return GPU_LAUNCH_EARLY((linear_vector<Weight, ROWS, COLUMNS, FORM>), gpu->early, grid, VECTOR_THREADS, 0,
                            gpu->stream, jobs);
}

template <class Weight, int ROWS, int COLUMNS>
static cudaError_t launch_rows(const vector_jobs &jobs, int count, bool aligned, const pxr_gpu *gpu)
{
    if (aligned) return launch_form<Weight, ROWS, COLUMNS, ALIGNED>(jobs, count, gpu);
    return launch_form<Weight, ROWS, COLUMNS, ANY>(jobs, count, gpu);
}

static bool is_aligned(const void *data, int64_t stride, size_t size)
{
    return (uintptr_t)data % 16 == 0 && (size_t)stride * size % 16 == 0;
}

template <class Weight> static bool is_in_pieces(const pxr_gpu_linear_job *job)
{
    return is_aligned(job->weight, job->weight_stride, sizeof(Weight)) &&
           is_aligned(job->x, job->x_stride, pxr_dtype_size(job->x_type)) &&
           job->depth % (int)piece<Weight>::COUNT == 0;
}

template <class Weight>
static cudaError_t launch_aligned(const vector_jobs &jobs, int count, bool aligned, const pxr_gpu *gpu)
{
    const int rows = jobs.each[0].rows;
    if (rows == 1) return launch_rows<Weight, 1, 4>(jobs, count, aligned, gpu);
    if (rows == 2) return launch_rows<Weight, 2, 4>(jobs, count, aligned, gpu);
    if (rows <= 4) return launch_rows<Weight, 4, 4>(jobs, count, aligned, gpu);
    if (rows <= 8) return launch_rows<Weight, 8, 2>(jobs, count, aligned, gpu);
    return launch_rows<Weight, 16, 2>(jobs, count, aligned, gpu);
}

/* Neighbours of one alignment go together, so that sums are in the order in which each product alone has them. */
template <class Weight> static cudaError_t launch(const pxr_gpu_linear_job *each, int count, const pxr_gpu *gpu)
{
    cudaError_t result = cudaSuccess;
    for (int begin = 0, end = 0; result == cudaSuccess && begin < count; begin = end) {
        const bool aligned = is_in_pieces<Weight>(&each[begin]);
        vector_jobs jobs = {};
        for (; end < count && is_in_pieces<Weight>(&each[end]) == aligned; end++) jobs.each[end - begin] = each[end];
        result = launch_aligned<Weight>(jobs, end - begin, aligned, gpu);
    }
    return result;
}

pxr_status pxr_gpu_linear_vector(pxr_device *device, const pxr_gpu_linear_job *each, int count, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    const cudaError_t result = pxr_gpu_by_weight_type(each, [=](auto weight) {
        return launch<decltype(weight)>(each, count, gpu);
    });
    return pxr_gpu_launched(device, "linear", result, error);
}

/* ---- with what stands before and behind ------------------------------------------------------------------------ */

enum { FUSED_ROWS = 2 /* at most: each block reads all rows in float32 */ };

bool pxr_gpu_linear_fused_takes(const pxr_gpu_linear_job *each, int count, const pxr_gpu_linear_norm *norm, bool gated)
{
    bool takes = each->rows <= FUSED_ROWS && (each->weight_type == PXR_BF16 || each->weight_type == PXR_F16) &&
                 is_aligned(norm->x, norm->x_stride, sizeof(float)) &&
                 is_aligned(norm->weight, 0, pxr_dtype_size(norm->weight_type));
    for (int i = 0; takes && i < count; i++) takes = is_in_pieces<__nv_bfloat16>(&each[i]); /* two bytes, as float16 */
    return takes && (!gated || (count == 2 && each[0].columns == each[1].columns));
}

template <class Weight, int ROWS>
static cudaError_t launch_around(const vector_jobs &jobs, int count, const pxr_gpu *gpu)
{
    if (jobs.gated.out) return launch_form<Weight, ROWS, 4, GATED>(jobs, count, gpu);
    return launch_form<Weight, ROWS, 4, NORMED>(jobs, count, gpu);
}

template <class Weight> static cudaError_t launch_fused(const vector_jobs &jobs, int count, const pxr_gpu *gpu)
{
    if (jobs.each[0].rows == 1) return launch_around<Weight, 1>(jobs, count, gpu);
    return launch_around<Weight, FUSED_ROWS>(jobs, count, gpu);
}

pxr_status pxr_gpu_linear_fused(pxr_device *device, const pxr_gpu_linear_job *each, int count,
                                const pxr_gpu_linear_norm *norm, const pxr_gpu_linear_gated *gated, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    vector_jobs jobs = {};
    for (int i = 0; i < count; i++) jobs.each[i] = each[i];
    jobs.norm = *norm;
    if (gated) jobs.gated = *gated;
    const cudaError_t result = each->weight_type == PXR_BF16 ? launch_fused<__nv_bfloat16>(jobs, count, gpu)
                                                             : launch_fused<__half>(jobs, count, gpu);
    return pxr_gpu_launched(device, "linear", result, error);
}
