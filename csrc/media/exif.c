/* Orientation from an EXIF block; see exif.h. Every offset in it is checked: it comes from a file. */
#include "media/exif.h"

#include <stdbool.h>
#include <string.h>

enum { ORIENTATION = 0x0112, SHORT = 3, LONG = 4, ENTRY = 12 /* bytes */ };

static uint32_t read16(const uint8_t *at, bool little)
{
    return little ? (uint32_t)at[0] | (uint32_t)at[1] << 8 : (uint32_t)at[0] << 8 | (uint32_t)at[1];
}

static uint32_t read32(const uint8_t *at, bool little)
{
    return little ? read16(at, true) | read16(at + 2, true) << 16 : read16(at, false) << 16 | read16(at + 2, false);
}

int pxr_exif_read_orientation(const uint8_t *tiff, size_t length)
{
    if (length < 8) return 1;
    const bool little = memcmp(tiff, "II", 2) == 0;
    if ((!little && memcmp(tiff, "MM", 2) != 0) || read16(tiff + 2, little) != 42) return 1;
    const size_t directory = read32(tiff + 4, little);
    if (directory > length - 2) return 1;
    const size_t entries = read16(tiff + directory, little), room = (length - directory - 2) / ENTRY;
    for (size_t i = 0; i < entries && i < room; i++) {
        const uint8_t *entry = tiff + directory + 2 + i * ENTRY; /* tag, type, count, value */
        if (read16(entry, little) != ORIENTATION) continue;
        const uint32_t type = read16(entry + 2, little);
        const uint32_t value = type == SHORT ? read16(entry + 8, little) : type == LONG ? read32(entry + 8, little) : 1;
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}
