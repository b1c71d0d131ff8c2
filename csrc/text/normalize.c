/* Unicode normalisation form C: decompose, put runs of marks into canonical order, compose.
 *
 * The tables and the first and last step are utf8proc's. The ordering is ours: utf8proc's exchanges neighbours, which
 * is quadratic in a run of marks, and a text may be nothing but marks.
 */
#include "text/normalize.h"

#include "core/memory.h"
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

enum {
    FIRST_UNSTABLE = 0x300, /* characters below are starters and never change under NFC */
    LONGEST_DECOMPOSITION = 16,
    BEFORE_FINALS = 0x11A7, /* the code point in front of Hangul's trailing consonants */
    CLASSES = 256           /* canonical combining classes */
};

typedef struct scalars {
    int32_t *data; /* [count] code points */
    size_t count, capacity;
} scalars;

static size_t mark_class(int32_t code_point)
{
    return (size_t)utf8proc_get_property(code_point)->combining_class & (CLASSES - 1);
}

/* Sorts the marks data[begin .. count) by their class, those of one class staying in order. */
static bool order_marks(scalars *text, size_t begin, scalars *scratch)
{
    size_t next[CLASSES + 1] = {0};
    const size_t count = text->count - begin;
    int32_t *marks = text->data + begin;
    bool ordered = true;
    for (size_t i = 1; i < count && ordered; i++) ordered = mark_class(marks[i - 1]) <= mark_class(marks[i]);
    if (ordered) return true;
    if (!pxr_grow((void **)&scratch->data, &scratch->capacity, count, sizeof *scratch->data)) return false;
    memcpy(scratch->data, marks, count * sizeof *marks);
    for (size_t i = 0; i < count; i++) next[mark_class(marks[i]) + 1]++;
    for (size_t i = 0; i < CLASSES; i++) next[i + 1] += next[i];
    for (size_t i = 0; i < count; i++) marks[next[mark_class(scratch->data[i])]++] = scratch->data[i];
    return true;
}

/* Decomposes the text's characters into `out`, marks in canonical order. */
static bool decompose(const char *text, size_t length, scalars *out, scalars *scratch)
{
    size_t marks = 0; /* where the current run of marks begins */
    for (size_t at = 0; at < length;) {
        int32_t code_point, parts[LONGEST_DECOMPOSITION];
        at += pxr_utf8_read(text + at, length - at, &code_point);
        if (code_point == PXR_UTF8_INCOMPLETE) code_point = PXR_UTF8_REPLACEMENT;
        utf8proc_ssize_t count = utf8proc_decompose_char(code_point, parts, LONGEST_DECOMPOSITION,
                                                         UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        if (count < 1 || count > LONGEST_DECOMPOSITION) parts[0] = code_point, count = 1;
        if (!pxr_grow((void **)&out->data, &out->capacity, out->count + (size_t)count, sizeof *out->data)) return false;
        for (utf8proc_ssize_t i = 0; i < count; i++) {
            if (mark_class(parts[i]) == 0) {
                if (!order_marks(out, marks, scratch)) return false;
                marks = out->count + 1;
            }
            out->data[out->count++] = parts[i];
        }
    }
    return order_marks(out, marks, scratch);
}

/* Composes in place and returns how many characters are left. U+11A7 is a vowel that composes with nothing, yet
 * utf8proc takes it for a trailing consonant and swallows it: what lies between two of them is composed on its own. */
static size_t compose(int32_t *text, size_t count)
{
    size_t composed = 0;
    for (size_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && text[end] != BEFORE_FINALS;) end++;
        const utf8proc_ssize_t length = utf8proc_normalize_utf32(text + begin, (utf8proc_ssize_t)(end - begin),
                                                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        const size_t kept = length < 0 ? end - begin : (size_t)length;
        memmove(text + composed, text + begin, kept * sizeof *text);
        composed += kept;
    }
    return composed;
}

static bool is_stable(const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        int32_t code_point;
        at += pxr_utf8_read(text + at, length - at, &code_point);
        if (code_point < 0 || code_point >= FIRST_UNSTABLE) return false; /* U+FFFD, a broken byte's, is not below */
    }
    return true;
}

pxr_status pxr_normalize_nfc(const char *text, size_t length, char **normal, size_t *normal_length, pxr_error *error)
{
    scalars parts = {0}, scratch = {0};
    pxr_status status = PXR_OK;
    *normal = NULL, *normal_length = 0;
    if (is_stable(text, length)) {
        *normal = pxr_strndup(text, length);
        *normal_length = length;
        return *normal ? PXR_OK : pxr_fail_memory(error, length, "a text");
    }
    if (!decompose(text, length, &parts, &scratch)) {
        status = pxr_fail_memory(error, length * sizeof *parts.data, "normalising a text");
        goto done;
    }
    parts.count = compose(parts.data, parts.count);
    size_t bytes;
    *normal = pxr_mul_size(parts.count, PXR_UTF8_MAX, &bytes) ? pxr_malloc(bytes) : NULL;
    if (!*normal) {
        status = pxr_fail_memory(error, parts.count * PXR_UTF8_MAX, "a normalised text");
        goto done;
    }
    for (size_t i = 0; i < parts.count; i++) *normal_length += pxr_utf8_write(parts.data[i], *normal + *normal_length);
done:
    pxr_free(parts.data);
    pxr_free(scratch.data);
    return status;
}
