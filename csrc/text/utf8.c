/* UTF-8 after table 3-7 of the Unicode Standard; see utf8.h. */
#include "text/utf8.h"

size_t pxr_utf8_read(const char *text, size_t length, int32_t *code_point)
{
    const unsigned char *bytes = (const unsigned char *)text;
    const unsigned char first = bytes[0];
    unsigned char low = 0x80, high = 0xBF; /* what the second byte may be: neither overlong, surrogate nor too large */
    size_t size;
    int32_t value;
    *code_point = PXR_UTF8_REPLACEMENT;
    if (first < 0x80) {
        *code_point = first;
        return 1;
    }
    if (first < 0xC2 || first > 0xF4) return 1;
    if (first < 0xE0) {
        size = 2, value = first & 0x1F;
    } else if (first < 0xF0) {
        size = 3, value = first & 0x0F;
        if (first == 0xE0) low = 0xA0;
        if (first == 0xED) high = 0x9F;
    } else {
        size = 4, value = first & 0x07;
        if (first == 0xF0) low = 0x90;
        if (first == 0xF4) high = 0x8F;
    }
    for (size_t i = 1; i < size; i++) {
        if (i == length) {
            *code_point = PXR_UTF8_INCOMPLETE;
            return i;
        }
        if (bytes[i] < low || bytes[i] > high) return i;
        low = 0x80, high = 0xBF;
        value = value << 6 | (bytes[i] & 0x3F);
    }
    *code_point = value;
    return size;
}

size_t pxr_utf8_write(int32_t code_point, char *text)
{
    const uint32_t value = (uint32_t)code_point;
    if (value < 0x80) {
        text[0] = (char)value;
        return 1;
    }
    const size_t size = value < 0x800 ? 2 : value < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size - 1, shift = 0; i > 0; i--, shift += 6) text[i] = (char)(0x80 | (value >> shift & 0x3F));
    text[0] = (char)(lead[size] | value >> 6 * (size - 1));
    return size;
}
