/* Encoding and decoding; see tokenizer.h. */
#include "text/tokenizer.h"

#include "core/memory.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pre_tokenizer.h"

#include <string.h>

void pxr_tokenizer_free(pxr_tokenizer *tokenizer)
{
    if (tokenizer) pxr_vocabulary_free(&tokenizer->vocabulary);
    pxr_free(tokenizer);
}

int32_t pxr_tokenizer_id(const pxr_tokenizer *tokenizer, const char *written, size_t length)
{
    const int32_t added = pxr_vocabulary_find_added(&tokenizer->vocabulary, written, length);
    return added != PXR_NO_TOKEN ? added : pxr_vocabulary_find(&tokenizer->vocabulary, written, length);
}

/* ---- splitting added tokens off --------------------------------------------------------------------------------- */

/* A part of the normalised text: an added token, or text between two of them. */
typedef struct segment {
    size_t start, length;
    int32_t id; /* the added token, PXR_NO_TOKEN for text */
} segment;

typedef struct segments {
    segment *data; /* [count] */
    size_t count, capacity;
} segments;

static bool add_segment(segments *parts, size_t start, size_t end, int32_t id)
{
    if (start == end) return true;
    if (!pxr_grow((void **)&parts->data, &parts->capacity, parts->count + 1, sizeof *parts->data)) return false;
    parts->data[parts->count++] = (segment){start, end - start, id};
    return true;
}

/* Cuts the text at its added tokens: the leftmost first, of those the longest. */
static bool split(const pxr_vocabulary *vocabulary, const char *text, size_t length, segments *parts)
{
    size_t start = 0, matched;
    for (size_t at = 0; at < length;) {
        const int32_t id = pxr_vocabulary_match_added(vocabulary, text + at, length - at, &matched);
        if (id == PXR_NO_TOKEN) {
            at++;
            continue;
        }
        if (!add_segment(parts, start, at, PXR_NO_TOKEN) || !add_segment(parts, at, at + matched, id)) return false;
        start = at += matched;
    }
    return add_segment(parts, start, length, PXR_NO_TOKEN);
}

/* Python's str.isspace for one character: what lstrip and rstrip of an added token swallow. */
static bool is_blank(int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static void strip_left(const char *text, segment *part)
{
    int32_t character;
    while (part->length > 0) {
        const size_t size = pxr_utf8_read(text + part->start, part->length, &character);
        if (!is_blank(character)) return;
        part->start += size, part->length -= size;
    }
}

static void strip_right(const char *text, segment *part)
{
    int32_t character;
    while (part->length > 0) {
        size_t size = 1;
        while (size < part->length && (text[part->start + part->length - size] & 0xC0) == 0x80) size++;
        pxr_utf8_read(text + part->start + part->length - size, size, &character);
        if (!is_blank(character)) return;
        part->length -= size;
    }
}

/* Joins an added token that is no single word to its neighbour `text_part`, which is then text, or another added
 * token. Stripping may have left a gap between the two: the token's bytes move into it. */
static void join(const pxr_vocabulary *vocabulary, char *text, segment *token, segment *text_part)
{
    const bool is_left = text_part->start < token->start;
    const size_t start = is_left ? text_part->start + text_part->length : text_part->start - token->length;
    memmove(text + start, text + token->start, token->length);
    if (!is_left) text_part->start = start;
    text_part->length += token->length;
    text_part->id = pxr_vocabulary_find_added(vocabulary, text + text_part->start, text_part->length);
    token->length = 0;
}

/* What lstrip, rstrip and single_word ask for, step by step as PreTrainedTokenizer.tokenize does it. Neither Qwen2 nor
 * PixelRefer has such a token; a tokenizer made with others may. */
static void apply_flags(const pxr_vocabulary *vocabulary, char *text, segments *parts)
{
    for (size_t i = 0; i < parts->count; i++) {
        segment *part = &parts->data[i];
        if (part->id == PXR_NO_TOKEN || part->length == 0) continue;
        const uint32_t flags = vocabulary->tokens[part->id].flags;
        segment *left = i > 0 && part[-1].length > 0 ? part - 1 : NULL;
        segment *right = i + 1 < parts->count && part[1].length > 0 ? part + 1 : NULL;
        const bool joins_left = left && text[left->start + left->length - 1] != ' ';
        const bool joins_right = right && text[right->start] != ' ';
        if (flags & PXR_TOKEN_RSTRIP && right) strip_left(text, right);
        if (flags & PXR_TOKEN_LSTRIP && left) strip_right(text, left);
        if (!(flags & PXR_TOKEN_SINGLE_WORD)) continue;
        if (joins_left)
            join(vocabulary, text, part, left);
        else if (joins_right)
            join(vocabulary, text, part, right);
    }
}

/* ---- encoding --------------------------------------------------------------------------------------------------- */

static pxr_status encode_text(pxr_bpe *bpe, const pxr_vocabulary *vocabulary, const char *text, size_t length,
                              pxr_token_list *tokens, pxr_error *error)
{
    pxr_status status = PXR_OK;
    for (size_t start = 0; start < length && status == PXR_OK;) {
        const size_t end = pxr_word_end(text, length, start);
        status = pxr_bpe_word(bpe, vocabulary, text + start, end - start, tokens, error);
        start = end;
    }
    return status;
}

pxr_status pxr_tokenizer_encode(const pxr_tokenizer *tokenizer, const char *text, size_t length, int32_t **ids,
                                size_t *count, pxr_error *error)
{
    const pxr_vocabulary *vocabulary = &tokenizer->vocabulary;
    const uint32_t odd_flags = PXR_TOKEN_LSTRIP | PXR_TOKEN_RSTRIP | PXR_TOKEN_SINGLE_WORD;
    pxr_token_list tokens = {0};
    segments parts = {0};
    pxr_bpe bpe = {0};
    char *normal = NULL;
    size_t normal_length;
    *ids = NULL, *count = 0;
    pxr_status status = pxr_normalize_nfc(text, length, &normal, &normal_length, error);
    if (status == PXR_OK && !split(vocabulary, normal, normal_length, &parts))
        status = pxr_fail_memory(error, (parts.count + 1) * sizeof *parts.data, "the parts of a text");
    if (status == PXR_OK && vocabulary->added_flags & odd_flags) apply_flags(vocabulary, normal, &parts);
    for (size_t i = 0; i < parts.count && status == PXR_OK; i++) {
        const segment *part = &parts.data[i];
        if (part->length == 0) continue;
        status = part->id != PXR_NO_TOKEN
                     ? pxr_token_list_add(&tokens, part->id, error)
                     : encode_text(&bpe, vocabulary, normal + part->start, part->length, &tokens, error);
    }
    pxr_bpe_free(&bpe);
    pxr_free(parts.data);
    pxr_free(normal);
    if (status != PXR_OK) {
        pxr_free(tokens.ids);
        return status;
    }
    *ids = tokens.ids, *count = tokens.count;
    return PXR_OK;
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

static pxr_status append(pxr_text_buffer *text, const char *bytes, size_t length, pxr_error *error)
{
    if (!pxr_grow((void **)&text->data, &text->capacity, text->length + length, 1))
        return pxr_fail_memory(error, text->length + length, "a decoded text");
    memcpy(text->data + text->length, bytes, length);
    text->length += length;
    return PXR_OK;
}

/* Appends the pending bytes' character, or U+FFFD for those of them that are none. */
static pxr_status drain(pxr_token_stream *stream, pxr_text_buffer *text, bool at_end, pxr_error *error)
{
    while (stream->pending_count > 0) {
        int32_t character;
        char written[PXR_UTF8_MAX];
        const size_t size = pxr_utf8_read(stream->pending, stream->pending_count, &character);
        if (character == PXR_UTF8_INCOMPLETE && !at_end) return PXR_OK;
        if (character == PXR_UTF8_INCOMPLETE) character = PXR_UTF8_REPLACEMENT;
        const pxr_status status = append(text, written, pxr_utf8_write(character, written), error);
        if (status != PXR_OK) {
            stream->pending_count = 0; /* there is no room for more than a character */
            return status;
        }
        stream->pending_count -= size;
        memmove(stream->pending, stream->pending + size, stream->pending_count);
    }
    return PXR_OK;
}

pxr_status pxr_token_stream_push(pxr_token_stream *stream, const pxr_tokenizer *tokenizer, int64_t id,
                                 pxr_text_buffer *text, pxr_error *error)
{
    const pxr_vocabulary *vocabulary = &tokenizer->vocabulary;
    const pxr_token *token = pxr_vocabulary_token(vocabulary, id);
    if (!token) return PXR_OK;
    if (stream->skip_special && token->flags & PXR_TOKEN_SPECIAL) return PXR_OK;
    pxr_status status = PXR_OK;
    for (size_t i = 0; i < token->length && status == PXR_OK; i++) {
        stream->pending[stream->pending_count++] = vocabulary->pool[token->offset + i];
        status = drain(stream, text, false, error);
    }
    return status;
}

pxr_status pxr_token_stream_finish(pxr_token_stream *stream, pxr_text_buffer *text, pxr_error *error)
{
    return drain(stream, text, true, error);
}

pxr_status pxr_tokenizer_decode(const pxr_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                char **text, size_t *length, pxr_error *error)
{
    pxr_token_stream stream = {.skip_special = skip_special};
    pxr_text_buffer buffer = {0};
    pxr_status status = PXR_OK;
    *text = NULL, *length = 0;
    for (size_t i = 0; i < count && status == PXR_OK; i++) {
        if (pxr_vocabulary_token(&tokenizer->vocabulary, ids[i]))
            status = pxr_token_stream_push(&stream, tokenizer, ids[i], &buffer, error);
        else
            status = pxr_fail(error, PXR_ERROR_ARGUMENT, "id %d stands for no token; the tokenizer's ids are 0 to %lld",
                              ids[i], (long long)tokenizer->vocabulary.size - 1);
    }
    if (status == PXR_OK) status = pxr_token_stream_finish(&stream, &buffer, error);
    if (status != PXR_OK) {
        pxr_free(buffer.data);
        return status;
    }
    *text = buffer.data, *length = buffer.length;
    return PXR_OK;
}
