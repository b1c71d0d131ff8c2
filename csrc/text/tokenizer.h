/* The Qwen2 tokenizer: byte-level byte-pair encoding (REFERENCE section 3; transformers' Qwen2Tokenizer).
 *
 *     text -> valid UTF-8 -> NFC -> added tokens split off -> words -> bytes -> merges -> ids
 *
 * A tokenizer does not change once it is made and may be used by several threads.
 *
 *     pxr_tokenizer *tokenizer;
 *     int32_t *ids;
 *     size_t count;
 *     if (pxr_tokenizer_open(&tokenizer, "PixelRefer-2B", error) != PXR_OK) return error->status;
 *     if (pxr_tokenizer_encode(tokenizer, text, length, &ids, &count, error) == PXR_OK) ... pxr_free(ids);
 *     pxr_tokenizer_free(tokenizer);
 */
#ifndef PXR_TEXT_TOKENIZER_H
#define PXR_TEXT_TOKENIZER_H

#include "text/utf8.h"
#include "text/vocabulary.h"

typedef struct pxr_tokenizer {
    pxr_vocabulary vocabulary;
} pxr_tokenizer;

/* A file's content; data is NULL when there is no such file. */
typedef struct pxr_tokenizer_file {
    const char *data; /* [length], needs no NUL */
    size_t length;
} pxr_tokenizer_file;

/* The files that a tokenizer is made of. */
typedef struct pxr_tokenizer_files {
    pxr_tokenizer_file tokenizer;          /* tokenizer.json, everything in one; read instead of the next two */
    pxr_tokenizer_file vocab, merges;      /* vocab.json, merges.txt */
    pxr_tokenizer_file added_tokens;       /* added_tokens.json */
    pxr_tokenizer_file config;             /* tokenizer_config.json */
    pxr_tokenizer_file special_tokens_map; /* special_tokens_map.json */
} pxr_tokenizer_files;

/** Makes a tokenizer from its files' content; free it with pxr_tokenizer_free. Added tokens come from all files that
 * name some and must not contradict each other. Errors name the file and what in it was expected and found. */
pxr_status pxr_tokenizer_new(pxr_tokenizer **tokenizer, const pxr_tokenizer_files *files, pxr_error *error);

/** Makes a tokenizer from the files of a checkpoint's directory. */
pxr_status pxr_tokenizer_open(pxr_tokenizer **tokenizer, const char *directory, pxr_error *error);

/** Frees it; NULL is fine. */
void pxr_tokenizer_free(pxr_tokenizer *tokenizer);

/** The ids of a text, in a block of `*count` ids that the caller frees with pxr_free. Bytes that are no UTF-8 are
 * taken for U+FFFD as Python's errors="replace" does it. */
pxr_status pxr_tokenizer_encode(const pxr_tokenizer *tokenizer, const char *text, size_t length, int32_t **ids,
                                size_t *count, pxr_error *error);

/** The text of `count` ids, as valid UTF-8 in a block of `*length` bytes that the caller frees with pxr_free: bytes
 * that are no UTF-8 become U+FFFD. With `skip_special`, special tokens are left out as if they were not there.
 * Errors: an id that stands for no token. */
pxr_status pxr_tokenizer_decode(const pxr_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                char **text, size_t *length, pxr_error *error);

/** The id of a token written as the files write it, an added one first; PXR_NO_TOKEN when there is none. */
int32_t pxr_tokenizer_id(const pxr_tokenizer *tokenizer, const char *written, size_t length);

/* A text that grows. */
typedef struct pxr_text_buffer {
    char *data; /* [length] */
    size_t length, capacity;
} pxr_text_buffer;

/* Decoding one id after another. The texts it gives out are whole characters and join to pxr_tokenizer_decode's. */
typedef struct pxr_token_stream {
    bool skip_special;
    char pending[PXR_UTF8_MAX]; /* [pending_count] the beginning of a character */
    size_t pending_count;
} pxr_token_stream;

/** Appends to `text` what has become certain with the next id. An id that stands for no token adds nothing: a model's
 * embedding can have more rows than its tokenizer has tokens, and a generated answer must not end in an error there. */
pxr_status pxr_token_stream_push(pxr_token_stream *stream, const pxr_tokenizer *tokenizer, int64_t id,
                                 pxr_text_buffer *text, pxr_error *error);

/** Appends U+FFFD to `text` when the ids end inside a character; the stream can begin anew. */
pxr_status pxr_token_stream_finish(pxr_token_stream *stream, pxr_text_buffer *text, pxr_error *error);

#endif
