/* The safetensors format: 8 bytes of header length (little-endian), a JSON header, the tensors' bytes without a hole.
 *
 * Reading gives views over the mapped file; nothing is copied. Writing goes tensor by tensor, so that a checkpoint
 * larger than memory can be written, and the file has its name only when it is complete.
 */
#ifndef PXR_IO_SAFETENSORS_H
#define PXR_IO_SAFETENSORS_H

#include "core/tensor_map.h"

/* The `__metadata__` strings of a file, in its order. */
typedef struct pxr_metadata {
    struct pxr_metadata_entry {
        char *key, *value; /* NUL-terminated UTF-8 */
    } * entries;           /* [count] of [capacity] */
    size_t count, capacity;
} pxr_metadata;

/** Adds a copy of a pair. Errors: memory. */
pxr_status pxr_metadata_add(pxr_metadata *metadata, const char *key, const char *value, pxr_error *error);

/** Releases the strings; the struct is zeroed. */
void pxr_metadata_free(pxr_metadata *metadata);

/** Adds every tensor of `file` (uint8 [bytes], see mapped_file.h) to `tensors` and the metadata to `metadata` (NULL: not
 * wanted). BOOL becomes uint8. Everything that the format promises is checked first: the header's length and JSON,
 * types, shapes against offsets, and that the tensors cover the data without overlap or hole. Errors name the tensor;
 * on failure `tensors` may hold a part. */
pxr_status pxr_safetensors_read(const pxr_tensor *file, pxr_tensor_map *tensors, pxr_metadata *metadata,
                                pxr_error *error);

/* A tensor that is going to be written. */
typedef struct pxr_safetensors_entry {
    const char *name; /* UTF-8; needs to live only during pxr_safetensors_writer_open */
    pxr_dtype dtype;
    int rank;
    int64_t size[PXR_MAX_RANK];
} pxr_safetensors_entry;

typedef struct pxr_safetensors_writer pxr_safetensors_writer;

/** Begins a file with the given tensors: writes the header and reserves the room. `metadata` may be NULL. Wider types
 * are put in front, so that every tensor is aligned to its element. Errors: a name twice, empty or not UTF-8; what
 * pxr_output_file_create says. */
pxr_status pxr_safetensors_writer_open(pxr_safetensors_writer **writer, const char *path,
                                       const pxr_safetensors_entry *entries, size_t count, const pxr_metadata *metadata,
                                       pxr_error *error);

/** Writes a tensor, in any order, from any strides and device. Errors: a name that was not declared or was written
 * already, another type or shape than declared, a full disk. */
pxr_status pxr_safetensors_writer_write(pxr_safetensors_writer *writer, const char *name, const pxr_tensor *tensor,
                                        pxr_error *error);

/** Completes the file and frees the writer, also on failure (then there is no file). Errors: a tensor that was declared
 * and not written; a full disk. */
pxr_status pxr_safetensors_writer_close(pxr_safetensors_writer *writer, pxr_error *error);

/** Frees the writer and removes what it wrote; NULL is fine. */
void pxr_safetensors_writer_abandon(pxr_safetensors_writer *writer);

#endif
