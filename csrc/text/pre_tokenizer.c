/* Qwen2's word pattern as a hand-written matcher: its alternatives are tried in the pattern's order.
 *
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d)     a contraction
 *     [^\r\n\p{L}\p{N}]?\p{L}+         letters, one other character (a blank, a quote) may lead
 *     \p{N}                            one digit
 *      ?[^\s\p{L}\p{N}]+[\r\n]*        punctuation, a blank may lead, line ends may follow
 *     \s*[\r\n]+                       blanks up to the last line end
 *     \s+(?!\S)                        blanks but the last before a word
 *     \s+                              one blank
 */
#include "text/pre_tokenizer.h"

#include "text/utf8.h"

#include <stdbool.h>
#include <utf8proc.h>

typedef enum kind { END, LETTER, NUMBER, NEWLINE, SPACE, OTHER } kind; /* \s is NEWLINE or SPACE */

/* \s beyond ASCII: the characters with Unicode's White_Space property. */
static bool is_wide_space(int32_t c)
{
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static kind kind_of(int32_t c)
{
    if (c < 0x80) {
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return LETTER;
        if (c >= '0' && c <= '9') return NUMBER;
        if (c == '\r' || c == '\n') return NEWLINE;
        return c == ' ' || (c >= '\t' && c <= '\r') ? SPACE : OTHER;
    }
    if (is_wide_space(c)) return SPACE;
    const utf8proc_category_t category = utf8proc_category(c);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return LETTER;
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO ? NUMBER : OTHER;
}

/* The kind of the character at byte `at`, and where it ends; END behind the text. */
static kind kind_at(const char *text, size_t length, size_t at, size_t *after)
{
    int32_t code_point;
    *after = at;
    if (at >= length) return END;
    *after = at + pxr_utf8_read(text + at, length - at, &code_point);
    return kind_of(code_point);
}

/* The end of the run of characters of kind `wanted` that begins at `at`. */
static size_t skip(const char *text, size_t length, size_t at, kind wanted)
{
    size_t after;
    while (kind_at(text, length, at, &after) == wanted) at = after;
    return at;
}

/* The end of a contraction whose apostrophe is at `start`; 0 when there is none. */
static size_t contraction_end(const char *text, size_t length, size_t start)
{
    const char *letter = text + start + 1;
    const size_t left = length - start - 1;
    if (left == 0) return 0;
    switch (letter[0] | 0x20) {
    case 's':
    case 't':
    case 'm':
    case 'd':
        return start + 2;
    case 'r':
    case 'v':
        return left > 1 && (letter[1] | 0x20) == 'e' ? start + 3 : 0;
    case 'l':
        return left > 1 && (letter[1] | 0x20) == 'l' ? start + 3 : 0;
    default:
        break;
    }
    /* U+017F, the long s, is an s without case. */
    return left > 1 && letter[0] == '\xC5' && letter[1] == '\xBF' ? start + 3 : 0;
}

/* The end of the first word in a run of blanks that begins at `start`. */
static size_t blank_end(const char *text, size_t length, size_t start)
{
    size_t at = start, last = start, line_end = 0, after;
    for (kind k; (k = kind_at(text, length, at, &after)) == SPACE || k == NEWLINE; at = after) {
        last = at;
        if (k == NEWLINE) line_end = after;
    }
    if (line_end) return line_end;
    return at == length || last == start ? at : last;
}

size_t pxr_word_end(const char *text, size_t length, size_t start)
{
    size_t second, third;
    const kind first_kind = kind_at(text, length, start, &second);
    const size_t contraction = text[start] == '\'' ? contraction_end(text, length, start) : 0;
    if (contraction) return contraction;
    if (first_kind == LETTER) return skip(text, length, second, LETTER);
    if (first_kind == NUMBER) return second;
    const kind second_kind = kind_at(text, length, second, &third);
    if (first_kind != NEWLINE && second_kind == LETTER) return skip(text, length, third, LETTER);
    if (first_kind == OTHER || (text[start] == ' ' && second_kind == OTHER))
        return skip(text, length, skip(text, length, second, OTHER), NEWLINE);
    return blank_end(text, length, start);
}
