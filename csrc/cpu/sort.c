/* Sorting along a dim, and the first k of it. Semantics: ops/ops.h.
 *
 * Every element becomes an unsigned 64-bit key whose order is the wanted one (NaN last, -0 equal to 0, all inverted when
 * descending), paired with its place. Pairs are ordered by key, then place, which makes any algorithm stable: merge sort
 * for whole lanes, a heap of the best k where few are wanted.
 */
#include "cpu/cpu.h"
#include "cpu/elements.h"
#include "cpu/walk.h"

#include "core/memory.h"

#include <math.h>
#include <stdatomic.h>

typedef struct pair {
    uint64_t key;
    int64_t place;
} pair;

typedef struct sorting {
    pxr_dtype dtype;
    bool descending;
    int64_t length, wanted;                     /* elements of a lane, and how many of the sorted ones are stored */
    int64_t stride, out_stride, indices_stride; /* bytes along the dim */
    atomic_bool no_memory;
} sorting;

static bool before(const pair *a, const pair *b)
{
    return a->key < b->key || (a->key == b->key && a->place < b->place);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static uint64_t float_key(float value)
{
    uint32_t bits;
    if (isnan(value)) return UINT32_MAX;
    value += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static void read_keys(const sorting *op, const char *from, pair *pairs)
{
    const uint64_t flip = op->descending ? UINT64_MAX : 0;
    for (int64_t at = 0, n; at < op->length; at += n) {
        n = op->length - at < PXR_BLOCK ? op->length - at : PXR_BLOCK;
        if (pxr_dtype_is_float(op->dtype)) {
            float block[PXR_BLOCK];
            const float *x = pxr_load_floats(op->dtype, from + at * op->stride, op->stride, n, block);
            for (int64_t i = 0; i < n; i++) pairs[at + i] = (pair){float_key(x[i]) ^ flip, at + i};
        } else {
            int64_t block[PXR_BLOCK];
            const int64_t *x = pxr_load_integers(op->dtype, from + at * op->stride, op->stride, n, block);
            for (int64_t i = 0; i < n; i++) pairs[at + i] = (pair){((uint64_t)x[i] ^ UINT64_C(1) << 63) ^ flip, at + i};
        }
    }
}

/* ---- whole lanes: merge sort ------------------------------------------------------------------------------------- */

enum { RUN = 16 }; /* pairs sorted by insertion before merging begins */

static void insertion_sort(pair *pairs, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        const pair moved = pairs[i];
        int64_t j = i;
        for (; j > 0 && before(&moved, &pairs[j - 1]); j--) pairs[j] = pairs[j - 1];
        pairs[j] = moved;
    }
}

/* Merges the sorted runs from[begin..middle) and from[middle..end) into to[begin..end). */
static void merge(const pair *from, pair *to, int64_t begin, int64_t middle, int64_t end)
{
    int64_t left = begin, right = middle;
    for (int64_t i = begin; i < end; i++) {
        const bool take_left = left < middle && (right == end || before(&from[left], &from[right]));
        to[i] = take_left ? from[left++] : from[right++];
    }
}

/* Sorts with a second array of the same length; returns the one that holds the result. */
static const pair *merge_sort(pair *pairs, pair *spare, int64_t count)
{
    for (int64_t i = 0; i < count; i += RUN) insertion_sort(pairs + i, count - i < RUN ? count - i : RUN);
    for (int64_t run = RUN; run < count; run *= 2) {
        for (int64_t begin = 0; begin < count; begin += 2 * run) {
            const int64_t middle = count - begin < run ? count : begin + run;
            const int64_t end = count - begin < 2 * run ? count : begin + 2 * run;
            merge(pairs, spare, begin, middle, end);
        }
        pair *const sorted = spare;
        spare = pairs;
        pairs = sorted;
    }
    return pairs;
}

/* ---- few of many: a heap with the last of the kept pairs on top --------------------------------------------------- */

static void sift_down(pair *heap, int64_t count, int64_t at)
{
    const pair moved = heap[at];
    for (int64_t child = 2 * at + 1; child < count; at = child, child = 2 * at + 1) {
        if (child + 1 < count && before(&heap[child], &heap[child + 1])) child++;
        if (!before(&moved, &heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* Leaves the first `wanted` pairs, sorted, at the front. */
static void heap_select(pair *pairs, int64_t count, int64_t wanted)
{
    for (int64_t i = wanted / 2 - 1; i >= 0; i--) sift_down(pairs, wanted, i);
    for (int64_t i = wanted; i < count; i++) {
        if (!before(&pairs[i], &pairs[0])) continue;
        pairs[0] = pairs[i];
        sift_down(pairs, wanted, 0);
    }
    for (int64_t end = wanted - 1; end > 0; end--) {
        const pair last = pairs[0];
        pairs[0] = pairs[end];
        pairs[end] = last;
        sift_down(pairs, end, 0);
    }
}

/* ---- the op ------------------------------------------------------------------------------------------------------ */

/* `count` lanes: data[0] the values' outputs, data[1] the indices', data[2] the inputs. */
static void sort_lanes(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    sorting *op = context;
    const bool few = op->wanted > 0 && op->wanted < op->length / 8;
    pair *pairs = pxr_calloc((size_t)op->length * (few ? 1 : 2), sizeof *pairs);
    if (!pairs) {
        atomic_store_explicit(&op->no_memory, true, memory_order_relaxed);
        return;
    }
    for (int64_t j = 0; j < count; j++) {
        const char *from = data[2] + j * stride[2];
        char *to = data[0] + j * stride[0], *indices = data[1] + j * stride[1];
        const pair *sorted = pairs;
        read_keys(op, from, pairs);
        if (few)
            heap_select(pairs, op->length, op->wanted);
        else
            sorted = merge_sort(pairs, pairs + op->length, op->length);
        for (int64_t i = 0; i < op->wanted; i++) {
            pxr_move_element(pxr_dtype_size(op->dtype), to + i * op->out_stride, from + sorted[i].place * op->stride);
            memcpy(indices + i * op->indices_stride, &sorted[i].place, sizeof sorted[i].place);
        }
    }
    pxr_free(pairs);
}

pxr_status pxr_cpu_sort(pxr_device *device, const pxr_sort_args *args, pxr_error *error)
{
    (void)device;
    const int dim = args->dim;
    const int64_t bytes = (int64_t)pxr_dtype_size(args->x->dtype);
    const pxr_tensor out = pxr_walk_lanes(args->out, dim), indices = pxr_walk_lanes(args->indices, dim),
                     x = pxr_walk_lanes(args->x, dim);
    sorting op = {.dtype = args->x->dtype,
                  .descending = args->descending,
                  .length = args->x->size[dim],
                  .wanted = args->out->size[dim],
                  .stride = args->x->stride[dim] * bytes,
                  .out_stride = args->out->stride[dim] * bytes,
                  .indices_stride = args->indices->stride[dim] * (int64_t)sizeof(int64_t)};
    pxr_walk walk;
    if (op.wanted == 0) return PXR_OK;
    pxr_walk_plan(&walk, 3, (const pxr_tensor *const[]){&out, &indices, &x});
    pxr_walk_run(&walk, 16 * op.length, sort_lanes, &op);
    if (atomic_load(&op.no_memory)) return pxr_fail_memory(error, 2 * (size_t)op.length * sizeof(pair), "sorting");
    return PXR_OK;
}
