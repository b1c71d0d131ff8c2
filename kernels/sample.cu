/* sample: the processors and the draw of csrc/cpu/sample.c, one block a row. Scores, probabilities and their sum are
 * rounded as there, so that both devices draw the same ids. Semantics: ops/ops.h.
 *
 * What the CPU sorts is found by bisection here: the bits of floats that are not negative are in the order of the
 * floats, so a threshold is settled bit by bit, each time with one pass over the row.
 */
#include "device.h"
#include "numeric.cuh"

#include "core/memory.h"
#include "core/random.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLE_THREADS = 512,
    SUM_LANES = 16, /* partial sums of the CPU's exponentials */
    FINE = -1,      /* of a row's verdict; else the first id whose logit is no number */
    NOTHING_LEFT = -2
};

struct sample_job {
    const float *logits;  /* [n,vocabulary] */
    int64_t *out;         /* [n] */
    float *scores;        /* [n,vocabulary] */
    float *probabilities; /* [n,vocabulary] */
    int *verdict;         /* [n] */
    const float *uniform; /* [n]: what is drawn, in [0,1) */
    const int *begin;     /* [n + 1]: where a row's penalised ids begin in `penalised`; NULL: none */
    const int *penalised;
    int64_t logits_stride;
    int vocabulary;
    float temperature, top_p, penalty;
    int64_t top_k;
    bool greedy, one_hot; /* one_hot: a greedy choice is shown in `probabilities` */
};

/* Everything in shared memory that a step of the block needs. */
struct sample_shared {
    float *number; /* [SAMPLE_THREADS] */
    double *sum;   /* [SAMPLE_THREADS] */
    int *index;    /* [SAMPLE_THREADS] */
};

/* ---- over the block -------------------------------------------------------------------------------------------- */

GPU_DEV double total_of(sample_shared s, double value)
{
    const int thread = (int)threadIdx.x;
    s.sum[thread] = value;
    __syncthreads();
    for (int distance = SAMPLE_THREADS / 2; distance > 0; distance /= 2) {
        if (thread < distance) s.sum[thread] += s.sum[thread + distance];
        __syncthreads();
    }
    value = s.sum[0];
    __syncthreads();
    return value;
}

GPU_DEV int count_of(sample_shared s, int value)
{
    const int thread = (int)threadIdx.x;
    s.index[thread] = value;
    __syncthreads();
    for (int distance = SAMPLE_THREADS / 2; distance > 0; distance /= 2) {
        if (thread < distance) s.index[thread] += s.index[thread + distance];
        __syncthreads();
    }
    value = s.index[0];
    __syncthreads();
    return value;
}

/* The first of the largest. */
GPU_DEV int first_largest(sample_shared s, const float *values, int count)
{
    const int thread = (int)threadIdx.x;
    float best = -INFINITY;
    int at = INT_MAX;
    for (int i = thread; i < count; i += SAMPLE_THREADS)
        if (at == INT_MAX || values[i] > best) {
            best = values[i];
            at = i;
        }
    s.number[thread] = best;
    s.index[thread] = at;
    __syncthreads();
    for (int distance = SAMPLE_THREADS / 2; distance > 0; distance /= 2) {
        if (thread < distance) {
            const float other = s.number[thread + distance];
            const int other_at = s.index[thread + distance];
            const bool better = other > s.number[thread] || (other == s.number[thread] && other_at < s.index[thread]);
            if (other_at != INT_MAX && (better || s.index[thread] == INT_MAX)) {
                s.number[thread] = other;
                s.index[thread] = other_at;
            }
        }
        __syncthreads();
    }
    at = s.index[0];
    __syncthreads();
    return at;
}

/* FINE, or what is wrong with a row: NaN has no order, and where all is -infinity no id is left. */
GPU_DEV int examine(sample_shared s, const float *logits, int count)
{
    const int thread = (int)threadIdx.x;
    int wrong = INT_MAX, finite = 0;
    for (int i = thread; i < count; i += SAMPLE_THREADS) {
        if (!(logits[i] < INFINITY) && wrong == INT_MAX) wrong = i;
        if (logits[i] > -INFINITY) finite = 1;
    }
    finite = __syncthreads_count(finite);
    s.index[thread] = wrong;
    __syncthreads();
    for (int distance = SAMPLE_THREADS / 2; distance > 0; distance /= 2) {
        if (thread < distance) s.index[thread] = min(s.index[thread], s.index[thread + distance]);
        __syncthreads();
    }
    wrong = s.index[0];
    __syncthreads();
    return wrong != INT_MAX ? wrong : finite ? FINE : NOTHING_LEFT;
}

/* ---- probabilities --------------------------------------------------------------------------------------------- */

/* exp as csrc/cpu/v16_math.h computes it, to the bit. */
GPU_DEV float exp_of(float x)
{
    const float shifter = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = -104.0f > x ? -104.0f : x;
    x = 89.0f < x ? 89.0f : x;
    const float shifted = __fmaf_rn(x, 1.44269502f, shifter), n = __fsub_rn(shifted, shifter);
    float r = __fmaf_rn(n, -0.693145752f, x); /* ln 2 in two parts */
    r = __fmaf_rn(n, -1.42860677e-6f, r);
    float p = 1.9875691500e-4f;
    p = __fmaf_rn(p, r, 1.3981999507e-3f);
    p = __fmaf_rn(p, r, 8.3334519073e-3f);
    p = __fmaf_rn(p, r, 4.1665795894e-2f);
    p = __fmaf_rn(p, r, 1.6666665459e-1f);
    p = __fmaf_rn(p, r, 5.0000001201e-1f);
    p = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.0f);
    const int power = __float_as_int(shifted) - 0x4b400000, low = power >> 1, high = power - low;
    return __fmul_rn(__fmul_rn(p, __int_as_float((low + 127) << 23)), __int_as_float((high + 127) << 23));
}

/* Scores to probabilities; returns the id of the largest. The sum has the CPU's 16 partial sums. */
GPU_DEV int normalise(sample_shared s, const float *scores, float *probabilities, int count)
{
    const int thread = (int)threadIdx.x, best = first_largest(s, scores, count);
    const float largest = scores[best];
    for (int i = thread; i < count; i += SAMPLE_THREADS) probabilities[i] = exp_of(__fsub_rn(scores[i], largest));
    __syncthreads();
    if (thread < SUM_LANES) {
        float sum = 0.0f;
#pragma unroll 8
        for (int i = thread; i < count; i += SUM_LANES) sum = __fadd_rn(sum, probabilities[i]);
        s.number[thread] = sum;
    }
    __syncthreads();
    for (int distance = SUM_LANES / 2; distance > 0; distance /= 2) {
        if (thread < distance) s.number[thread] = __fadd_rn(s.number[thread], s.number[thread + distance]);
        __syncthreads();
    }
    const float sum = s.number[0];
    for (int i = thread; i < count; i += SAMPLE_THREADS) probabilities[i] = __fdiv_rn(probabilities[i], sum);
    __syncthreads();
    return best;
}

/* ---- top-k ----------------------------------------------------------------------------------------------------- */

/* Unsigned integers in the order of the floats. */
GPU_DEV unsigned ordered(float value)
{
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

GPU_DEV float from_ordered(unsigned bits)
{
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

/* Everything below the k-th largest score goes; what equals it stays. */
GPU_DEV void keep_top_k(sample_shared s, float *scores, int count, int64_t k)
{
    if (k == 0 || k >= count) return;
    unsigned threshold = 0;
    for (int bit = 31; bit >= 0; bit--) {
        const unsigned raised = threshold | 1u << bit;
        int reach = 0;
        for (int i = (int)threadIdx.x; i < count; i += SAMPLE_THREADS) reach += ordered(scores[i]) >= raised;
        if (count_of(s, reach) >= k) threshold = raised;
    }
    const float smallest = from_ordered(threshold);
    for (int i = (int)threadIdx.x; i < count; i += SAMPLE_THREADS)
        if (scores[i] < smallest) scores[i] = -INFINITY;
    __syncthreads();
}

/* ---- top-p ----------------------------------------------------------------------------------------------------- */

/* The sum of the probabilities whose bits are at most `bits`. */
GPU_DEV double sum_up_to(sample_shared s, const float *probabilities, int count, unsigned bits)
{
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < count; i += SAMPLE_THREADS)
        if (__float_as_uint(probabilities[i]) <= bits) sum += (double)probabilities[i];
    return total_of(s, sum);
}

/* Of the ids whose probability has exactly these bits, the first `excess` go. A thread looks at a run of ids. */
GPU_DEV void drop_first(sample_shared s, const float *probabilities, float *scores, int count, unsigned bits,
                        int excess)
{
    const int thread = (int)threadIdx.x, run = (count + SAMPLE_THREADS - 1) / SAMPLE_THREADS;
    const int begin = thread * run, end = begin + run < count ? begin + run : count;
    int mine = 0, before = 0;
    for (int i = begin; i < end; i++) mine += __float_as_uint(probabilities[i]) == bits;
    s.index[thread] = mine;
    __syncthreads();
    for (int other = 0; other < thread; other++) before += s.index[other];
    for (int i = begin; i < end && before < excess; i++)
        if (__float_as_uint(probabilities[i]) == bits) {
            scores[i] = -INFINITY;
            before++;
        }
    __syncthreads();
}

/* Ids go in ascending order of probability, then of number, while their sum is at most 1 - top_p; the last one never
 * goes. */
GPU_DEV void keep_top_p(sample_shared s, float *scores, float *probabilities, int count, float top_p)
{
    if (top_p >= 1.0f) return;
    const int best = normalise(s, scores, probabilities, count);
    const unsigned most = __float_as_uint(probabilities[best]);
    const float limit = __fsub_rn(1.0f, top_p), negligible = __fdiv_rn(limit, (float)count);
    unsigned threshold = 0; /* the smallest bits up to which the sum exceeds the limit */
    for (int bit = 30; bit >= 0; bit--) {
        const unsigned below = threshold | ((1u << bit) - 1u);
        if (!((float)sum_up_to(s, probabilities, count, below) > limit)) threshold |= 1u << bit;
    }
    if (threshold > most) threshold = most;
    if (threshold < __float_as_uint(negligible)) { /* rounding alone: the smallest that are not negligible */
        unsigned smallest = most;
        for (int i = (int)threadIdx.x; i < count; i += SAMPLE_THREADS) {
            const unsigned bits = __float_as_uint(probabilities[i]);
            if (bits >= __float_as_uint(negligible) && bits < smallest) smallest = bits;
        }
        s.index[threadIdx.x] = (int)smallest;
        __syncthreads();
        for (int distance = SAMPLE_THREADS / 2; distance > 0; distance /= 2) {
            const int thread = (int)threadIdx.x;
            if (thread < distance) s.index[thread] = min(s.index[thread], s.index[thread + distance]);
            __syncthreads();
        }
        threshold = (unsigned)s.index[0];
        __syncthreads();
    }
    int ties = 0, excess = 0;
    for (int i = (int)threadIdx.x; i < count; i += SAMPLE_THREADS) {
        const unsigned bits = __float_as_uint(probabilities[i]);
        ties += bits == threshold;
        if (bits < threshold) scores[i] = -INFINITY;
    }
    ties = count_of(s, ties);
    double sum = threshold > 0 ? sum_up_to(s, probabilities, count, threshold - 1) : 0.0;
    const double each = (double)__uint_as_float(threshold);
    for (const int droppable = threshold == most ? ties - 1 : ties; excess < droppable; excess++) {
        sum += each;
        if ((float)sum > limit) break;
    }
    drop_first(s, probabilities, scores, count, threshold, excess);
}

/* ---- the draw -------------------------------------------------------------------------------------------------- */

/* The first id up to which the probabilities sum to more than uniform * their sum. A thread sums a run of ids. */
GPU_DEV int draw(sample_shared s, const float *scores, float *probabilities, int count, float uniform)
{
    const int thread = (int)threadIdx.x, run = (count + SAMPLE_THREADS - 1) / SAMPLE_THREADS;
    const int begin = thread * run, end = begin + run < count ? begin + run : count;
    const int best = normalise(s, scores, probabilities, count);
    double mine = 0.0;
    for (int i = begin; i < end; i++) mine += (double)probabilities[i];
    s.sum[thread] = mine;
    if (thread == 0) s.index[0] = best; /* where a penalty made scores overflow */
    __syncthreads();
    double total = 0.0, reached = 0.0;
    for (int other = 0; other < SAMPLE_THREADS; other++) total += s.sum[other];
    for (int other = 0; other < thread; other++) reached += s.sum[other];
    const double target = (double)uniform * total;
    if (!(reached > target) && reached + mine > target) {
        int at = begin;
        for (double sum = reached; at < end - 1; at++) {
            sum += (double)probabilities[at];
            if (sum > target) break;
        }
        s.index[0] = at;
    }
    __syncthreads();
    return s.index[0];
}

/* ---- a row ----------------------------------------------------------------------------------------------------- */

GPU_DEV void penalise(const sample_job &job, const float *logits, float *scores)
{
    if (!job.begin) return;
    for (int i = job.begin[blockIdx.x] + (int)threadIdx.x; i < job.begin[blockIdx.x + 1]; i += SAMPLE_THREADS) {
        const int id = job.penalised[i];
        scores[id] = logits[id] < 0.0f ? logits[id] * job.penalty : __fdiv_rn(logits[id], job.penalty);
    }
    __syncthreads();
}

__global__ void __launch_bounds__(SAMPLE_THREADS, 1) sample_rows(sample_job job)
{
    GPU_SHARED(float, number, SAMPLE_THREADS);
    GPU_SHARED(double, sum, SAMPLE_THREADS);
    GPU_SHARED(int, index, SAMPLE_THREADS);
    const sample_shared s = {number, sum, index};
    const int thread = (int)threadIdx.x, count = job.vocabulary;
    const float *logits = job.logits + (int64_t)blockIdx.x * job.logits_stride;
    float *scores = job.scores ? job.scores + (int64_t)blockIdx.x * count : NULL;
    float *probabilities = job.probabilities ? job.probabilities + (int64_t)blockIdx.x * count : NULL;
    const int verdict = examine(s, logits, count);
    if (thread == 0) job.verdict[blockIdx.x] = verdict;
    if (verdict != FINE) return;
    if (scores) {
        for (int i = thread; i < count; i += SAMPLE_THREADS) scores[i] = logits[i];
        __syncthreads();
        penalise(job, logits, scores);
    }
    int id;
    if (job.greedy) {
        id = first_largest(s, scores ? scores : logits, count);
        for (int i = thread; job.one_hot && i < count; i += SAMPLE_THREADS) probabilities[i] = i == id ? 1.0f : 0.0f;
    } else {
        for (int i = thread; i < count; i += SAMPLE_THREADS) scores[i] = __fdiv_rn(scores[i], job.temperature);
        __syncthreads();
        keep_top_k(s, scores, count, job.top_k);
        keep_top_p(s, scores, probabilities, count, job.top_p);
        id = draw(s, scores, probabilities, count, job.uniform[blockIdx.x]);
    }
    if (thread == 0) job.out[blockIdx.x] = id;
}

/* ---- the op ---------------------------------------------------------------------------------------------------- */

/* What the host knows and the kernel reads, one block of memory that goes up at once. */
struct host_table {
    char *block;
    size_t bytes;
    float *uniform; /* [n] */
    int *begin;     /* [n + 1] */
    int *penalised; /* [begin[n]] */
};

static int by_number(const void *left, const void *right)
{
    const int a = *static_cast<const int *>(left), b = *static_cast<const int *>(right);
    return a < b ? -1 : a > b;
}

/* The ids of a row, each once: several threads must not write one score. Returns how many, -1 with an error. */
static int take_ids(int *ids, const pxr_sample_args *args, int64_t row, pxr_error *error)
{
    const int64_t vocabulary = args->logits->size[1];
    int count = 0, kept = 0;
    for (int64_t i = 0; i < args->generated_count[row]; i++) {
        const int64_t id = args->generated[row][i];
        if (id < 0 || id >= vocabulary) {
            pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: generated id %lld of row %lld is not in 0 .. %lld",
                     (long long)id, (long long)row, (long long)vocabulary - 1);
            return -1;
        }
        ids[count++] = (int)id;
    }
    qsort(ids, (size_t)count, sizeof *ids, by_number);
    for (int i = 0; i < count; i++)
        if (i == 0 || ids[i] != ids[i - 1]) ids[kept++] = ids[i];
    return kept;
}

static pxr_status make_table(host_table *table, const pxr_sample_args *args, bool penalises, pxr_error *error)
{
    const int64_t rows = args->logits->size[0];
    size_t ids = 0;
    for (int64_t row = 0; penalises && row < rows; row++) ids += (size_t)args->generated_count[row];
    table->bytes = (size_t)rows * sizeof(float) + ((size_t)rows + 1 + ids) * sizeof(int);
    table->block = static_cast<char *>(pxr_malloc(table->bytes));
    if (!table->block) return pxr_fail_memory(error, table->bytes, "sampling");
    table->uniform = reinterpret_cast<float *>(table->block);
    table->begin = reinterpret_cast<int *>(table->uniform + rows);
    table->penalised = table->begin + rows + 1;
    table->begin[0] = 0;
    for (int64_t row = 0; row < rows; row++) {
        uint32_t words[4];
        pxr_philox(args->seed, args->step, args->streams ? args->streams[row] : 0, words);
        table->uniform[row] = pxr_unit_float(words[0]);
        const int taken = penalises ? take_ids(table->penalised + table->begin[row], args, row, error) : 0;
        if (taken < 0) return PXR_ERROR_ARGUMENT;
        table->begin[row + 1] = table->begin[row] + taken;
    }
    table->bytes = (size_t)(reinterpret_cast<char *>(table->penalised + table->begin[rows]) - table->block);
    return PXR_OK;
}

/* The error about the first row whose verdict is not FINE. */
static pxr_status judge(pxr_device *device, const sample_job *job, int rows, pxr_error *error)
{
    int *verdict = static_cast<int *>(pxr_malloc((size_t)rows * sizeof *verdict));
    if (!verdict) return pxr_fail_memory(error, (size_t)rows * sizeof *verdict, "sampling");
    pxr_status status = pxr_gpu_download(device, verdict, job->verdict, (size_t)rows * sizeof *verdict, error);
    for (int row = 0; status == PXR_OK && row < rows; row++) {
        if (verdict[row] == FINE) continue;
        if (verdict[row] == NOTHING_LEFT) {
            status = pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: all logits of row %d are -infinity: no id is left",
                              row);
            break;
        }
        float value;
        status = pxr_gpu_download(device, &value, job->logits + row * job->logits_stride + verdict[row], sizeof value,
                                  error);
        if (status == PXR_OK)
            status = pxr_fail(error, PXR_ERROR_ARGUMENT,
                              "sample: the logit of id %d in row %d is %s, expected a number", verdict[row], row,
                              value != value ? "NaN" : "infinite");
    }
    pxr_free(verdict);
    return status;
}

static pxr_status run(pxr_device *device, sample_job *job, const host_table *table, const pxr_sample_args *args,
                      pxr_error *error)
{
    const size_t rows = (size_t)args->logits->size[0], row_bytes = rows * (size_t)job->vocabulary * sizeof(float);
    const size_t scores = job->greedy && !job->begin ? 0 : row_bytes;
    const size_t probabilities = job->greedy || args->probabilities ? 0 : row_bytes;
    void *scratch;
    pxr_status status = pxr_gpu_scratch(device, scores + probabilities + table->bytes + rows * sizeof(int), &scratch,
                                        error);
    if (status != PXR_OK) return status;
    char *at = static_cast<char *>(scratch), *up = at + scores + probabilities;
    job->scores = scores ? reinterpret_cast<float *>(at) : NULL;
    job->probabilities = args->probabilities ? static_cast<float *>(args->probabilities->data)
                         : probabilities     ? reinterpret_cast<float *>(at + scores)
                                             : NULL;
    job->uniform = reinterpret_cast<const float *>(up);
    job->begin = job->begin ? reinterpret_cast<const int *>(job->uniform + rows) : NULL;
    job->penalised = job->begin ? job->begin + rows + 1 : NULL;
    job->verdict = reinterpret_cast<int *>(up + table->bytes);
    status = pxr_gpu_upload(device, up, table->block, table->bytes, error);
    if (status == PXR_OK)
        status = pxr_gpu_launched(device, "sample",
                                  GPU_LAUNCH(sample_rows, pxr_gpu_grid(rows), SAMPLE_THREADS, 0,
                                             pxr_gpu_of(device)->stream, *job),
                                  error);
    return status == PXR_OK ? judge(device, job, (int)rows, error) : status;
}

pxr_status pxr_gpu_sample(pxr_device *device, const pxr_sample_args *args, pxr_error *error)
{
    const float coldest = 1e-30f; /* as on the CPU: at and below it the largest score has all the probability */
    const int64_t rows = args->logits->size[0];
    const float penalty = args->repetition_penalty;
    const bool penalises = args->generated && penalty != 0.0f && penalty != 1.0f;
    if (rows == 0) return PXR_OK;
    if (args->logits->size[1] > INT_MAX / 2 || rows > INT_MAX / 2)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "sample: %lld rows of %lld logits are not on %s", (long long)rows,
                        (long long)args->logits->size[1], device->name);
    host_table table = {};
    pxr_status status = make_table(&table, args, penalises, error);
    if (status == PXR_OK) {
        sample_job job = {};
        job.logits = static_cast<const float *>(args->logits->data);
        job.out = static_cast<int64_t *>(args->out->data);
        job.begin = penalises ? table.begin : NULL;
        job.logits_stride = args->logits->stride[0];
        job.vocabulary = (int)args->logits->size[1];
        job.temperature = args->temperature;
        job.top_p = args->top_p;
        job.penalty = penalty;
        job.top_k = args->top_k;
        job.greedy = args->temperature <= coldest;
        job.one_hot = args->probabilities != NULL;
        status = run(device, &job, &table, args, error);
    }
    pxr_free(table.block);
    return status;
}
