/* sample on the CPU: what transformers' logits processors do (RepetitionPenalty, Temperature, TopK, TopP), then a draw.
 * Plain greedy search takes no memory; the rest takes scratch of the vocabulary's size for the call. */
#include "cpu/kernels.h"

#include "core/memory.h"
#include "core/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* At and below this temperature scores can overflow; the largest one has all the probability long before. */
static const float COLDEST = 1e-30f;

/* An id that may survive top-p. */
typedef struct candidate {
    float probability;
    int64_t id;
} candidate;

typedef struct sampler {
    const pxr_sample_args *args;
    const pxr_kernels *kernels;
    int64_t vocabulary;
    float *scores;         /* [vocabulary]: processed logits; -infinity where filtered out */
    float *probabilities;  /* [vocabulary] */
    candidate *candidates; /* [vocabulary] */
} sampler;

static int64_t first_largest(const float *values, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

/* NaN, as damaged weights give, has no order: a token would be drawn at random and nobody would know. */
static pxr_status check_logits(const float *logits, int64_t count, int64_t row, pxr_error *error)
{
    bool any = false;
    for (int64_t i = 0; i < count; i++) {
        if (!(logits[i] < INFINITY))
            return pxr_fail(error, PXR_ERROR_ARGUMENT,
                            "sample: the logit of id %lld in row %lld is %s, expected a number", (long long)i,
                            (long long)row, isnan(logits[i]) ? "NaN" : "infinite");
        any = any || logits[i] > -INFINITY;
    }
    if (any) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: all logits of row %lld are -infinity: no id is left",
                    (long long)row);
}

static pxr_status penalise(const sampler *s, const float *logits, int64_t row, pxr_error *error)
{
    const float penalty = s->args->repetition_penalty;
    if (penalty == 0.0f || penalty == 1.0f || !s->args->generated) return PXR_OK;
    for (int64_t i = 0; i < s->args->generated_count[row]; i++) {
        const int64_t id = s->args->generated[row][i];
        if (id < 0 || id >= s->vocabulary)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: generated id %lld of row %lld is not in 0 .. %lld",
                            (long long)id, (long long)row, (long long)s->vocabulary - 1);
        s->scores[id] = logits[id] < 0.0f ? logits[id] * penalty : logits[id] / penalty;
    }
    return PXR_OK;
}

/* ---- top-k ----------------------------------------------------------------------------------------------------- */

static void sift_down(float *heap, int64_t count, int64_t at)
{
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[at] <= heap[child]) return;
        const float value = heap[at];
        heap[at] = heap[child];
        heap[child] = value;
        at = child;
    }
}

/* Everything below the k-th largest score goes; what equals it stays. The heap (smallest of the k largest on top) lies
 * in `probabilities`, which is not in use yet. */
static void keep_top_k(const sampler *s)
{
    const int64_t k = s->args->top_k;
    if (k == 0 || k >= s->vocabulary) return;
    float *heap = s->probabilities;
    memcpy(heap, s->scores, (size_t)k * sizeof *heap);
    for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(heap, k, i);
    for (int64_t i = k; i < s->vocabulary; i++)
        if (s->scores[i] > heap[0]) {
            heap[0] = s->scores[i];
            sift_down(heap, k, 0);
        }
    const float threshold = heap[0];
    for (int64_t i = 0; i < s->vocabulary; i++)
        if (s->scores[i] < threshold) s->scores[i] = -INFINITY;
}

/* ---- top-p ----------------------------------------------------------------------------------------------------- */

/* Scores to probabilities; returns the id of the largest. */
static int64_t normalise(const sampler *s)
{
    const int64_t best = first_largest(s->scores, s->vocabulary);
    const float sum = s->kernels->exp_minus(s->probabilities, s->scores, s->vocabulary, s->scores[best]);
    for (int64_t i = 0; i < s->vocabulary; i++) s->probabilities[i] /= sum;
    return best;
}

static int by_probability(const void *left, const void *right)
{
    const candidate *a = left, *b = right;
    if (a->probability != b->probability) return a->probability < b->probability ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Ids go in ascending order of probability while their sum is at most 1 - top_p. All of those below (1 - top_p) / V go
 * for certain, so that only the few others need sorting. */
static void keep_top_p(const sampler *s)
{
    const float top_p = s->args->top_p;
    if (top_p >= 1.0f) return;
    normalise(s);
    const float limit = 1.0f - top_p, negligible = limit / (float)s->vocabulary;
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < s->vocabulary; i++) {
        if (s->probabilities[i] < negligible) {
            sum += (double)s->probabilities[i];
            s->scores[i] = -INFINITY;
        } else {
            s->candidates[count++] = (candidate){.probability = s->probabilities[i], .id = i};
        }
    }
    qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_probability);
    for (int64_t i = 0; i + 1 < count; i++) { /* the most probable one always stays */
        sum += (double)s->candidates[i].probability;
        if ((float)sum > limit) break;
        s->scores[s->candidates[i].id] = -INFINITY;
    }
}

/* ---- the draw -------------------------------------------------------------------------------------------------- */

static int64_t draw(const sampler *s, int64_t row)
{
    const int64_t best = normalise(s);
    uint32_t words[4];
    pxr_philox(s->args->seed, s->args->step, s->args->streams ? s->args->streams[row] : 0, words);
    double sum = 0.0, reached = 0.0;
    for (int64_t i = 0; i < s->vocabulary; i++) sum += (double)s->probabilities[i];
    const double target = (double)pxr_unit_float(words[0]) * sum;
    for (int64_t i = 0; i < s->vocabulary; i++) {
        reached += (double)s->probabilities[i];
        if (reached > target) return i;
    }
    return best; /* where a penalty made scores overflow */
}

static int64_t be_greedy(const sampler *s, const float *scores)
{
    const int64_t best = first_largest(scores, s->vocabulary);
    if (s->args->probabilities) {
        memset(s->probabilities, 0, (size_t)s->vocabulary * sizeof *s->probabilities);
        s->probabilities[best] = 1.0f;
    }
    return best;
}

static pxr_status sample_row(sampler *s, int64_t row, pxr_error *error)
{
    const pxr_sample_args *args = s->args;
    const float *logits = (const float *)args->logits->data + row * args->logits->stride[0];
    int64_t *id = (int64_t *)args->out->data + row;
    pxr_status status = check_logits(logits, s->vocabulary, row, error);
    if (status != PXR_OK) return status;
    if (args->probabilities) s->probabilities = (float *)args->probabilities->data + row * s->vocabulary;
    if (!s->scores) {
        *id = be_greedy(s, logits);
        return PXR_OK;
    }
    memcpy(s->scores, logits, (size_t)s->vocabulary * sizeof *logits);
    status = penalise(s, logits, row, error);
    if (status != PXR_OK) return status;
    if (args->temperature <= COLDEST) {
        *id = be_greedy(s, s->scores);
        return PXR_OK;
    }
    for (int64_t i = 0; i < s->vocabulary; i++) s->scores[i] /= args->temperature;
    keep_top_k(s);
    keep_top_p(s);
    *id = draw(s, row);
    return PXR_OK;
}

pxr_status pxr_cpu_sample(pxr_device *device, const pxr_sample_args *args, pxr_error *error)
{
    (void)device;
    sampler s = {.args = args, .kernels = pxr_cpu_kernels(), .vocabulary = args->logits->size[1]};
    const size_t count = (size_t)s.vocabulary, each = 2 * sizeof(float) + sizeof(candidate);
    candidate *scratch = NULL;
    if (args->temperature != 0.0f || args->generated) {
        size_t bytes = 0;
        if (pxr_mul_size(count, each, &bytes)) scratch = pxr_malloc(bytes);
        if (!scratch) return pxr_fail_memory(error, bytes, "sampling");
        s.candidates = scratch;
        s.scores = (float *)(scratch + count);
        s.probabilities = s.scores + count;
    }
    pxr_status status = PXR_OK;
    for (int64_t row = 0; status == PXR_OK && row < args->logits->size[0]; row++) status = sample_row(&s, row, error);
    pxr_free(scratch);
    return status;
}
