/* Byte-pair merging with a linked list of tokens and a heap of the pairs that can be merged.
 *
 * The reference merges in rounds: all places of the pair with the lowest rank, then the next pair. Popping pairs one
 * by one would do the same for merges that training has made, but not for any: a token made in a round may allow a
 * merge of lower rank. So the pairs that a round makes enter the heap when it has ended.
 */
#include "text/bpe.h"

#include "core/memory.h"

enum { LIST_END = UINT32_MAX };

/* ---- the heap: smallest first, so by rank and then from left to right ------------------------------------------- */

static void sift_down(uint64_t *heap, size_t count, size_t parent)
{
    const uint64_t value = heap[parent];
    for (size_t child; (child = 2 * parent + 1) < count; parent = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (value <= heap[child]) break;
        heap[parent] = heap[child];
    }
    heap[parent] = value;
}

static void push(pxr_bpe *bpe, uint64_t pair)
{
    size_t child = bpe->heap_count++;
    for (; child > 0 && pair < bpe->heap[(child - 1) / 2]; child = (child - 1) / 2)
        bpe->heap[child] = bpe->heap[(child - 1) / 2];
    bpe->heap[child] = pair;
}

static uint64_t pop(pxr_bpe *bpe)
{
    const uint64_t smallest = bpe->heap[0];
    bpe->heap[0] = bpe->heap[--bpe->heap_count];
    sift_down(bpe->heap, bpe->heap_count, 0);
    return smallest;
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

static bool reserve(pxr_bpe *bpe, size_t length)
{
    if (length <= bpe->capacity) return true;
    size_t ids = bpe->capacity, previous = ids, next = ids, heap = ids, new_pairs = ids;
    /* The heap holds at most the word's n - 1 pairs and two new ones for each of at most n - 1 merges. */
    if (!pxr_grow((void **)&bpe->ids, &ids, length, sizeof *bpe->ids) ||
        !pxr_grow((void **)&bpe->previous, &previous, length, sizeof *bpe->previous) ||
        !pxr_grow((void **)&bpe->next, &next, length, sizeof *bpe->next) ||
        !pxr_grow((void **)&bpe->new_pairs, &new_pairs, length, 2 * sizeof *bpe->new_pairs) ||
        !pxr_grow((void **)&bpe->heap, &heap, length, 3 * sizeof *bpe->heap))
        return false;
    bpe->capacity = ids;
    return true;
}

/* The pair of the token at `position` with the one behind it; UINT64_MAX when they stay apart. */
static uint64_t pair_at(const pxr_bpe *bpe, const pxr_vocabulary *vocabulary, uint32_t position)
{
    if (bpe->next[position] == LIST_END) return UINT64_MAX;
    const int32_t rank = pxr_vocabulary_rank(vocabulary, bpe->ids[position], bpe->ids[bpe->next[position]]);
    return rank == PXR_NO_TOKEN ? UINT64_MAX : (uint64_t)rank << 32 | position;
}

static void note_new_pair(pxr_bpe *bpe, const pxr_vocabulary *vocabulary, uint32_t position)
{
    const uint64_t pair = pair_at(bpe, vocabulary, position);
    if (pair != UINT64_MAX) bpe->new_pairs[bpe->new_count++] = pair;
}

/* Merges the pair at `position`, unless one of its tokens has gone into another merge. */
static void merge_at(pxr_bpe *bpe, const pxr_vocabulary *vocabulary, const pxr_merge *merge, uint32_t position)
{
    const uint32_t right = bpe->next[position];
    if (bpe->ids[position] != merge->left || right == LIST_END || bpe->ids[right] != merge->right) return;
    bpe->ids[position] = merge->merged;
    bpe->ids[right] = PXR_NO_TOKEN;
    bpe->next[position] = bpe->next[right];
    if (bpe->next[right] != LIST_END) bpe->previous[bpe->next[right]] = position;
    if (bpe->previous[position] != LIST_END) note_new_pair(bpe, vocabulary, bpe->previous[position]);
    note_new_pair(bpe, vocabulary, position);
}

pxr_status pxr_bpe_word(pxr_bpe *bpe, const pxr_vocabulary *vocabulary, const char *word, size_t length,
                        pxr_token_list *tokens, pxr_error *error)
{
    if (length == 0) return PXR_OK;
    if (length > INT32_MAX) return pxr_fail(error, PXR_ERROR_ARGUMENT, "a word of %zu bytes is too long", length);
    if (!reserve(bpe, length)) return pxr_fail_memory(error, length * sizeof *bpe->heap, "a word's byte pairs");
    for (uint32_t i = 0; i < length; i++) {
        bpe->ids[i] = vocabulary->byte_tokens[(unsigned char)word[i]];
        bpe->previous[i] = i == 0 ? LIST_END : i - 1;
        bpe->next[i] = i + 1 == length ? LIST_END : i + 1;
    }
    bpe->heap_count = 0;
    for (uint32_t i = 0; i < length; i++) {
        const uint64_t pair = pair_at(bpe, vocabulary, i);
        if (pair != UINT64_MAX) bpe->heap[bpe->heap_count++] = pair;
    }
    for (size_t parent = bpe->heap_count / 2; parent-- > 0;) sift_down(bpe->heap, bpe->heap_count, parent);
    while (bpe->heap_count > 0) {
        const uint64_t rank = bpe->heap[0] >> 32;
        bpe->new_count = 0;
        while (bpe->heap_count > 0 && bpe->heap[0] >> 32 == rank)
            merge_at(bpe, vocabulary, &vocabulary->merges[rank], (uint32_t)pop(bpe));
        for (size_t i = 0; i < bpe->new_count; i++) push(bpe, bpe->new_pairs[i]);
    }
    pxr_status status = PXR_OK;
    for (uint32_t i = 0; i != LIST_END && status == PXR_OK; i = bpe->next[i])
        status = pxr_token_list_add(tokens, bpe->ids[i], error);
    return status;
}

pxr_status pxr_token_list_add(pxr_token_list *tokens, int32_t id, pxr_error *error)
{
    if (!pxr_grow((void **)&tokens->ids, &tokens->capacity, tokens->count + 1, sizeof *tokens->ids))
        return pxr_fail_memory(error, (tokens->count + 1) * sizeof *tokens->ids, "token ids");
    tokens->ids[tokens->count++] = id;
    return PXR_OK;
}

void pxr_bpe_free(pxr_bpe *bpe)
{
    pxr_free(bpe->ids);
    pxr_free(bpe->previous);
    pxr_free(bpe->next);
    pxr_free(bpe->heap);
    pxr_free(bpe->new_pairs);
    *bpe = (pxr_bpe){0};
}
