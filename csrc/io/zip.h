/* Zip archives as PyTorch writes them: entries stored as they are, found by name, lying in the mapped file.
 *
 * Zip64 is read; compression, encryption and archives in several parts are refused. Checksums are not verified: that
 * would read every byte of every weight before the first is used.
 */
#ifndef PXR_IO_ZIP_H
#define PXR_IO_ZIP_H

#include "core/error.h"

#include <stdint.h>

typedef struct pxr_zip_entry {
    const char *name;   /* in the archive, not NUL-terminated */
    size_t name_length; /* bytes */
    size_t offset;      /* of the content, from the archive's beginning */
    size_t bytes;       /* of the content */
} pxr_zip_entry;

typedef struct pxr_zip {
    const unsigned char *data; /* borrowed */
    size_t bytes;
    pxr_zip_entry *entries; /* [count], sorted by name */
    size_t count;
} pxr_zip;

/** Reads the directory of an archive in memory, which must outlive `zip`. Every entry is checked to lie within the
 * archive, apart from the others, and to agree with its local header. Errors name the entry. */
pxr_status pxr_zip_open(pxr_zip *zip, const void *data, size_t bytes, pxr_error *error);

/** The entry of that name; NULL when there is none. */
const pxr_zip_entry *pxr_zip_find(const pxr_zip *zip, const char *name, size_t name_length);

/** Releases the directory; a zeroed struct is fine. */
void pxr_zip_close(pxr_zip *zip);

#endif
