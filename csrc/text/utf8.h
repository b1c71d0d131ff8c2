/* UTF-8, one character at a time, with broken input replaced as Python's errors="replace" does it. */
#ifndef PXR_TEXT_UTF8_H
#define PXR_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum {
    PXR_UTF8_REPLACEMENT = 0xFFFD, /* what stands for bytes that are no character */
    PXR_UTF8_INCOMPLETE = -1,      /* the text ends inside a character that is fine so far */
    PXR_UTF8_MAX = 4               /* bytes of the longest character */
};

/** Reads the character at the beginning of `text` (`length` bytes, at least one) and returns how many bytes it takes.
 * Bytes that cannot begin or continue a character give PXR_UTF8_REPLACEMENT for each longest beginning of a valid
 * character among them (so that a broken character counts once); a beginning that the text's end cuts off gives
 * PXR_UTF8_INCOMPLETE and takes all that is left. */
size_t pxr_utf8_read(const char *text, size_t length, int32_t *code_point);

/** Writes a character (not a surrogate, at most U+10FFFF) and returns how many of the 4 bytes at `text` it took. */
size_t pxr_utf8_write(int32_t code_point, char *text);

#endif
