/* JSON texts of others; see json.h.
 *
 * jansson's lexer takes no notice of a failed allocation and reads on behind its buffer (lex_save in its load.c, 2.14).
 * So while it parses it has our memory, and when there is none the parse is left at once by longjmp. That is safe
 * because nothing of jansson's outlives a parse but its blocks, which lie in our chunks.
 */
#include "core/json.h"

#include "core/memory.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stddef.h>

enum { CHUNK_BYTES = 64 << 10 };

typedef struct pxr_json_chunk {
    struct pxr_json_chunk *next;
    size_t used, capacity; /* bytes of `data` */
    alignas(max_align_t) char data[];
} chunk;

typedef struct parse {
    chunk *chunks;
    jmp_buf no_memory;
} parse;

static _Thread_local parse *current;                     /* this thread's parse, if it is at one */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held while jansson has our functions */
static json_malloc_t usual_malloc;                       /* what other users of jansson have */
static json_free_t usual_free;

static void *parse_malloc(size_t bytes)
{
    if (!current) return usual_malloc(bytes);
    const size_t unit = alignof(max_align_t);
    chunk *top = current->chunks;
    size_t padded;
    if (!pxr_add_size(bytes, unit - 1, &padded)) longjmp(current->no_memory, 1);
    padded = padded / unit * unit;
    if (!top || top->capacity - top->used < padded) {
        const size_t capacity = padded > CHUNK_BYTES ? padded : CHUNK_BYTES;
        chunk *fresh = capacity < SIZE_MAX - sizeof *fresh ? pxr_malloc(sizeof *fresh + capacity) : NULL;
        if (!fresh) longjmp(current->no_memory, 1);
        *fresh = (chunk){.next = top, .capacity = capacity};
        current->chunks = top = fresh;
    }
    void *block = top->data + top->used;
    top->used += padded;
    return block;
}

static void parse_free(void *block)
{
    if (!current) usual_free(block);
}

/* NULL without `failure` filled in when there is no memory. Of its own, because setjmp wants a function whose variables
 * nobody needs afterwards. */
static json_t *load(parse *parsing, const char *text, size_t length, json_error_t *failure)
{
    if (setjmp(parsing->no_memory) != 0) return NULL;
    return json_loadb(text, length, JSON_REJECT_DUPLICATES, failure);
}

pxr_status pxr_json_parse(pxr_json *json, const char *text, size_t length, pxr_error *error)
{
    parse parsing = {0};
    json_error_t failure = {.line = -1};
    pthread_mutex_lock(&lock);
    json_get_alloc_funcs(&usual_malloc, &usual_free);
    json_set_alloc_funcs(parse_malloc, parse_free);
    current = &parsing;
    *json = (pxr_json){.root = load(&parsing, text, length, &failure)};
    current = NULL;
    json_set_alloc_funcs(usual_malloc, usual_free);
    pthread_mutex_unlock(&lock);
    json->chunks = parsing.chunks;
    if (json->root) return PXR_OK;
    pxr_json_free(json);
    if (failure.text[0] == '\0') return pxr_fail_memory(error, length, "parsed JSON");
    return pxr_fail(error, PXR_ERROR_FORMAT, "not valid JSON: %s (line %d, column %d, byte %d)", failure.text,
                    failure.line, failure.column, failure.position);
}

void pxr_json_free(pxr_json *json)
{
    for (chunk *at = json->chunks, *next; at; at = next) {
        next = at->next;
        pxr_free(at);
    }
    *json = (pxr_json){0};
}
