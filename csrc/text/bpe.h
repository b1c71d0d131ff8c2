/* Merging the byte pairs of a word. */
#ifndef PXR_TEXT_BPE_H
#define PXR_TEXT_BPE_H

#include "text/vocabulary.h"

/* A growing list of token ids. */
typedef struct pxr_token_list {
    int32_t *ids; /* [count] */
    size_t count, capacity;
} pxr_token_list;

/* What a merge works on, kept from word to word. All arrays are [capacity], a word's bytes being the positions. */
typedef struct pxr_bpe {
    int32_t *ids;               /* the token that begins at a position, PXR_NO_TOKEN when none does any more */
    uint32_t *previous, *next;  /* where the tokens before and behind it begin */
    uint64_t *heap, *new_pairs; /* pairs that can be merged: rank << 32 | position of the left token */
    size_t heap_count, new_count, capacity;
} pxr_bpe;

/** Appends the tokens of a word to `tokens`: in each round, the pair with the lowest rank is merged wherever it
 * stands, from left to right, until no pair can be. Takes time n log n for n bytes (fewer than 2^31), whatever the
 * word. */
pxr_status pxr_bpe_word(pxr_bpe *bpe, const pxr_vocabulary *vocabulary, const char *word, size_t length,
                        pxr_token_list *tokens, pxr_error *error);

/** Appends one token. */
pxr_status pxr_token_list_add(pxr_token_list *tokens, int32_t id, pxr_error *error);

/** Frees the working memory. */
void pxr_bpe_free(pxr_bpe *bpe);

#endif
