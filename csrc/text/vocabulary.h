/* The tokens, the merges and the added tokens of a tokenizer: tables in C, since 151,000 entries as Lua tables would
 * cost 29 MB and every collection a scan (docs/memory.md).
 *
 * Files write a token with one printable character for each byte ("Ġthe" for " the"); here a token is its bytes. Added
 * tokens (<|im_end|>, <REGION>) are written as they are and live apart: text is searched for them first, and merging
 * never makes one.
 *
 * To be filled in this order: tokens, then merges, then added tokens.
 */
#ifndef PXR_TEXT_VOCABULARY_H
#define PXR_TEXT_VOCABULARY_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PXR_TOKEN_ID_LIMIT = 1 << 20,  /* ids lie below; keeps a lying file from asking for memory without end */
    PXR_ADDED_LENGTH_LIMIT = 1024, /* bytes of an added token */
    PXR_NO_TOKEN = -1
};

/* What is known of a token, and how an added one is found in text. */
enum {
    PXR_TOKEN_USED = 1,        /* the id stands for a token: ids may have holes */
    PXR_TOKEN_ADDED = 2,       /* split off before anything else */
    PXR_TOKEN_SPECIAL = 4,     /* left out of an answer */
    PXR_TOKEN_LSTRIP = 8,      /* swallows blanks before it */
    PXR_TOKEN_RSTRIP = 16,     /* swallows blanks behind it */
    PXR_TOKEN_SINGLE_WORD = 32 /* only found between blanks */
};

typedef struct pxr_token {
    uint32_t offset, length; /* its bytes in the pool */
    uint32_t flags;          /* 0: the id is a hole */
} pxr_token;

typedef struct pxr_merge {
    int32_t left, right, merged; /* token ids; `merged` is the two tokens' bytes joined */
} pxr_merge;

typedef struct pxr_added_node {
    int32_t child, sibling; /* indices of nodes, 0: none */
    int32_t id;             /* of the added token that ends here, or PXR_NO_TOKEN */
    unsigned char byte;
} pxr_added_node;

typedef struct pxr_vocabulary {
    pxr_token *tokens; /* [size], by id */
    size_t size, token_capacity;
    char *pool; /* [pool_used] the tokens' bytes */
    size_t pool_used, pool_capacity;
    uint32_t *slots; /* [slot_count], a power of two: ids + 1 by a hash of the bytes, 0 is empty; not the added ones */
    size_t slot_count, slots_used;
    pxr_merge *merges; /* [merge_count], by rank: the lowest is merged first */
    size_t merge_count, merge_capacity;
    uint32_t *merge_slots; /* [merge_slot_count], a power of two: ranks + 1 by a hash of the pair, 0 is empty */
    size_t merge_slot_count, merge_slots_used;
    pxr_added_node *nodes; /* [node_count] the added tokens as a trie over bytes; the root is node 0 */
    size_t node_count, node_capacity;
    int32_t byte_tokens[256]; /* the token of each single byte */
    uint32_t added_flags;     /* of all added tokens together */
} pxr_vocabulary;

/** An empty vocabulary. */
void pxr_vocabulary_init(pxr_vocabulary *vocabulary);

/** Frees what it holds and makes it empty. */
void pxr_vocabulary_free(pxr_vocabulary *vocabulary);

/** Adds a token as files write it (`length` bytes of UTF-8). Errors: the id is taken or out of range, the token is
 * empty, was there already, or has a character that stands for no byte. */
pxr_status pxr_vocabulary_add(pxr_vocabulary *vocabulary, int64_t id, const char *written, size_t length,
                              pxr_error *error);

/** To be called behind the last token: fails, naming it, when one of the 256 bytes has no token. */
pxr_status pxr_vocabulary_check_bytes(pxr_vocabulary *vocabulary, pxr_error *error);

/** Adds the merge of the next rank, its two tokens as files write them. A pair that comes again gets the later rank,
 * as in the reference. Errors: one of the two, or what they make together, is no token. */
pxr_status pxr_vocabulary_add_merge(pxr_vocabulary *vocabulary, const char *left, size_t left_length, const char *right,
                                    size_t right_length, pxr_error *error);

/** Adds an added token, `content` as it stands in text; `flags` without PXR_TOKEN_USED and _ADDED. The same token
 * again may only bring PXR_TOKEN_SPECIAL. Errors: the id belongs to another token, the token has another id, its length
 * is 0 or over PXR_ADDED_LENGTH_LIMIT. */
pxr_status pxr_vocabulary_add_added(pxr_vocabulary *vocabulary, int64_t id, const char *content, size_t length,
                                    uint32_t flags, pxr_error *error);

/** The id of a token of the merges, given as files write it, or PXR_NO_TOKEN. */
int32_t pxr_vocabulary_find(const pxr_vocabulary *vocabulary, const char *written, size_t length);

/** The id of an added token, or PXR_NO_TOKEN. */
int32_t pxr_vocabulary_find_added(const pxr_vocabulary *vocabulary, const char *content, size_t length);

/** The longest added token that begins at `text` (`length` bytes) and its length, or PXR_NO_TOKEN. */
int32_t pxr_vocabulary_match_added(const pxr_vocabulary *vocabulary, const char *text, size_t length, size_t *matched);

/** The rank of merging two tokens, or PXR_NO_TOKEN when they stay apart. */
int32_t pxr_vocabulary_rank(const pxr_vocabulary *vocabulary, int32_t left, int32_t right);

/** The token of an id, or NULL when the id stands for none. */
const pxr_token *pxr_vocabulary_token(const pxr_vocabulary *vocabulary, int64_t id);

/** Writes a token as files do, an added one as it is: at most twice its bytes. Returns the length. */
size_t pxr_vocabulary_write(const pxr_vocabulary *vocabulary, const pxr_token *token, char *written);

#endif
