/* Zip archives of stored entries; see zip.h. Field numbers follow PKWARE's APPNOTE 6.3, sections 4.3 to 4.5. */
#include "io/zip.h"

#include "core/memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_BYTES = 30,                     /* 4.3.7, local file header without name and extra field */
    CENTRAL_BYTES = 46,                   /* 4.3.12, central directory header */
    END_BYTES = 22,                       /* 4.3.16, end of central directory, without comment */
    LOCATOR_BYTES = 20,                   /* 4.3.15, zip64 end of central directory locator */
    END64_BYTES = 56,                     /* 4.3.14, zip64 end of central directory */
    MAX_COMMENT = 65535,                  /* bytes behind the end record */
    ZIP64_FIELD = 0x0001,                 /* 4.5.3, id of the zip64 extra field */
    ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13 /* 4.4.4, general purpose bits */
};

static const uint32_t LOCAL_SIGNATURE = 0x04034b50, CENTRAL_SIGNATURE = 0x02014b50, END_SIGNATURE = 0x06054b50,
                      LOCATOR_SIGNATURE = 0x07064b50, END64_SIGNATURE = 0x06064b50;
static const uint32_t IN_ZIP64 = 0xffffffff; /* a 32-bit field that moved to the zip64 one */

static uint64_t little(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

static uint32_t u16(const unsigned char *at)
{
    return (uint32_t)little(at, 2);
}

static uint32_t u32(const unsigned char *at)
{
    return (uint32_t)little(at, 4);
}

static uint64_t u64(const unsigned char *at)
{
    return little(at, 8);
}

/* ---- the directory --------------------------------------------------------------------------------------------- */

typedef struct directory {
    size_t offset, bytes; /* of the central directory, within the archive */
    uint64_t count;       /* entries it says to have */
} directory;

/* The end record: the last one whose comment ends with the archive. */
static bool find_end(const pxr_zip *zip, size_t *end)
{
    if (zip->bytes < END_BYTES) return false;
    for (size_t comment = 0; comment <= MAX_COMMENT && comment <= zip->bytes - END_BYTES; comment++) {
        *end = zip->bytes - END_BYTES - comment;
        if (u32(zip->data + *end) == END_SIGNATURE && u16(zip->data + *end + 20) == comment) return true;
    }
    return false;
}

static pxr_status find_directory(const pxr_zip *zip, directory *found, pxr_error *error)
{
    size_t end;
    if (!find_end(zip, &end))
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "zip: the file has no end of a zip archive (truncated, or not a zip file)");
    const unsigned char *record = zip->data + end;
    uint64_t count = u16(record + 10), bytes = u32(record + 12), offset = u32(record + 16), disks = u16(record + 4);
    if (end >= LOCATOR_BYTES && u32(record - LOCATOR_BYTES) == LOCATOR_SIGNATURE) {
        const uint64_t at = u64(record - LOCATOR_BYTES + 8);
        if (at > end - LOCATOR_BYTES || end - LOCATOR_BYTES - at < END64_BYTES ||
            u32(zip->data + at) != END64_SIGNATURE)
            return pxr_fail(error, PXR_ERROR_FORMAT, "zip: the zip64 end record at byte %llu is not there",
                            (unsigned long long)at);
        record = zip->data + at;
        disks = u32(record + 16);
        count = u64(record + 32);
        bytes = u64(record + 40);
        offset = u64(record + 48);
        end = (size_t)at;
    }
    if (disks != 0) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "zip: an archive in several parts");
    if (offset > end || bytes > end - offset || count > bytes / CENTRAL_BYTES)
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "zip: a directory of %llu entries in %llu bytes at byte %llu does not fit in front of byte %zu",
                        (unsigned long long)count, (unsigned long long)bytes, (unsigned long long)offset, end);
    *found = (directory){.offset = (size_t)offset, .bytes = (size_t)bytes, .count = count};
    return PXR_OK;
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

/* Replaces the fields of a central header that say IN_ZIP64 by those of its zip64 extra field, which holds just these
 * in this order; false when they are not there. */
static bool read_zip64(const unsigned char *extra, size_t extra_bytes, uint64_t *fields[3])
{
    if (*fields[0] != IN_ZIP64 && *fields[1] != IN_ZIP64 && *fields[2] != IN_ZIP64) return true;
    while (extra_bytes >= 4) {
        const uint32_t id = u16(extra), bytes = u16(extra + 2);
        if (bytes > extra_bytes - 4) return false;
        if (id == ZIP64_FIELD) {
            uint32_t used = 0;
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != IN_ZIP64) continue;
                if (bytes - used < 8) return false;
                *fields[i] = u64(extra + 4 + used);
                used += 8;
            }
            return true;
        }
        extra += 4 + bytes;
        extra_bytes -= 4 + bytes;
    }
    return false;
}

enum { NAME_SHOWN = 200 /* bytes of a name that fit in a message */ };
#define SHOWN(entry) (int)((entry)->name_length < NAME_SHOWN ? (entry)->name_length : NAME_SHOWN), (entry)->name

/* Finds where the content begins: behind the local header, which must tell the same story as the central one. `end` is
 * where content has to end, the directory's beginning. */
static pxr_status locate(const pxr_zip *zip, pxr_zip_entry *entry, uint64_t local, size_t end, pxr_error *error)
{
    if (local > end || end - local < LOCAL_BYTES || u32(zip->data + local) != LOCAL_SIGNATURE)
        return pxr_fail(error, PXR_ERROR_FORMAT, "zip: entry \"%.*s\" has no local header at byte %llu", SHOWN(entry),
                        (unsigned long long)local);
    const unsigned char *header = zip->data + local;
    const size_t name_bytes = u16(header + 26), head_bytes = LOCAL_BYTES + name_bytes + u16(header + 28);
    if (head_bytes > end - local || entry->bytes > end - local - head_bytes)
        return pxr_fail(error, PXR_ERROR_FORMAT, "zip: entry \"%.*s\" has %zu bytes at byte %llu, beyond byte %zu",
                        SHOWN(entry), entry->bytes, (unsigned long long)local + head_bytes, end);
    /* With bit 3 the sizes of the local header may be left to a record behind the content. */
    const uint32_t flags = u16(header + 6), stored = u32(header + 18), size = u32(header + 22);
    const bool sized = !(flags & 1 << 3) && stored != IN_ZIP64 && size != IN_ZIP64;
    if (name_bytes != entry->name_length || memcmp(header + LOCAL_BYTES, entry->name, name_bytes) != 0 ||
        u16(header + 8) != 0 || (flags & ENCRYPTED) || (sized && (stored != entry->bytes || size != entry->bytes)))
        return pxr_fail(error, PXR_ERROR_FORMAT, "zip: entry \"%.*s\" has another local header than the directory says",
                        SHOWN(entry));
    entry->offset = (size_t)local + head_bytes;
    return PXR_OK;
}

/* Reads one central header at `*at` (within the directory, which ends at `end`) and moves `*at` behind it. */
static pxr_status read_entry(const pxr_zip *zip, const directory *where, size_t *at, pxr_zip_entry *entry,
                             pxr_error *error)
{
    const size_t end = where->offset + where->bytes;
    const unsigned char *header = zip->data + *at;
    if (end - *at < CENTRAL_BYTES || u32(header) != CENTRAL_SIGNATURE)
        return pxr_fail(error, PXR_ERROR_FORMAT, "zip: byte %zu does not begin a directory entry", *at);
    const size_t name_bytes = u16(header + 28), extra_bytes = u16(header + 30);
    const size_t bytes = CENTRAL_BYTES + name_bytes + extra_bytes + u16(header + 32);
    if (bytes > end - *at)
        return pxr_fail(error, PXR_ERROR_FORMAT, "zip: the directory entry at byte %zu runs out of the directory", *at);
    *entry = (pxr_zip_entry){.name = (const char *)header + CENTRAL_BYTES, .name_length = name_bytes};

    uint64_t stored = u32(header + 20), size = u32(header + 24), local = u32(header + 42);
    if (u16(header + 8) & ENCRYPTED)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "zip: entry \"%.*s\" is encrypted", SHOWN(entry));
    if (u16(header + 10) != 0)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "zip: entry \"%.*s\" is compressed (method %u); only stored ones are read", SHOWN(entry),
                        (unsigned)u16(header + 10));
    if (!read_zip64(header + CENTRAL_BYTES + name_bytes, extra_bytes, (uint64_t *[]){&size, &stored, &local}) ||
        size != stored || size > zip->bytes)
        return pxr_fail(error, PXR_ERROR_FORMAT, "zip: entry \"%.*s\" has impossible sizes: %llu bytes, %llu stored",
                        SHOWN(entry), (unsigned long long)size, (unsigned long long)stored);
    entry->bytes = (size_t)size;
    *at += bytes;
    return locate(zip, entry, local, where->offset, error);
}

static int by_offset(const void *left, const void *right)
{
    const pxr_zip_entry *a = left, *b = right;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int compare_names(const char *a, size_t a_length, const char *b, size_t b_length)
{
    const int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : a_length < b_length ? -1 : a_length > b_length;
}

static int by_name(const void *left, const void *right)
{
    const pxr_zip_entry *a = left, *b = right;
    return compare_names(a->name, a->name_length, b->name, b->name_length);
}

/* No two contents share bytes, no two entries a name; leaves the entries sorted by name. */
static pxr_status check_distinct(pxr_zip *zip, pxr_error *error)
{
    qsort(zip->entries, zip->count, sizeof *zip->entries, by_offset);
    for (size_t i = 1; i < zip->count; i++) {
        const pxr_zip_entry *before = &zip->entries[i - 1], *entry = &zip->entries[i];
        if (entry->offset - before->offset < before->bytes)
            return pxr_fail(error, PXR_ERROR_FORMAT, "zip: entry \"%.*s\" lies within entry \"%.*s\"", SHOWN(entry),
                            SHOWN(before));
    }
    qsort(zip->entries, zip->count, sizeof *zip->entries, by_name);
    for (size_t i = 1; i < zip->count; i++)
        if (by_name(&zip->entries[i - 1], &zip->entries[i]) == 0)
            return pxr_fail(error, PXR_ERROR_FORMAT, "zip: entry \"%.*s\" is there twice", SHOWN(&zip->entries[i]));
    return PXR_OK;
}

pxr_status pxr_zip_open(pxr_zip *zip, const void *data, size_t bytes, pxr_error *error)
{
    directory where = {0};
    *zip = (pxr_zip){.data = data, .bytes = bytes};
    pxr_status status = find_directory(zip, &where, error);
    if (status != PXR_OK) return status;
    zip->entries = pxr_calloc((size_t)where.count + 1, sizeof *zip->entries);
    if (!zip->entries) return pxr_fail_memory(error, (size_t)where.count * sizeof *zip->entries, "a zip directory");
    for (size_t at = where.offset; zip->count < where.count && status == PXR_OK; zip->count++)
        status = read_entry(zip, &where, &at, &zip->entries[zip->count], error);
    if (status == PXR_OK) status = check_distinct(zip, error);
    if (status != PXR_OK) pxr_zip_close(zip);
    return status;
}

const pxr_zip_entry *pxr_zip_find(const pxr_zip *zip, const char *name, size_t name_length)
{
    size_t low = 0, high = zip->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const pxr_zip_entry *entry = &zip->entries[middle];
        const int order = compare_names(name, name_length, entry->name, entry->name_length);
        if (order == 0) return entry;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

void pxr_zip_close(pxr_zip *zip)
{
    pxr_free(zip->entries);
    *zip = (pxr_zip){0};
}
