/* Writing safetensors tensor by tensor; see safetensors.h. */
#include "io/safetensors.h"

#include "core/memory.h"
#include "io/output_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_ALIGNMENT = 64 /* the header is padded with blanks, so that the data begins at a multiple of it */ };

/* A declared tensor. */
typedef struct place {
    char *name;
    pxr_tensor shape; /* dtype, rank and size only */
    size_t bytes;
    uint64_t offset; /* from the beginning of the data */
    bool written;
} place;

struct pxr_safetensors_writer {
    pxr_output_file file;
    place *places; /* [count], in the order of declaration */
    size_t count;
    size_t next;         /* where the search for a name begins: tensors mostly come in order */
    uint64_t data_start; /* from the beginning of the file */
};

static const char *type_text(pxr_dtype dtype)
{
    switch (dtype) {
    case PXR_F32:
        return "F32";
    case PXR_F16:
        return "F16";
    case PXR_BF16:
        return "BF16";
    case PXR_I64:
        return "I64";
    case PXR_I32:
        return "I32";
    case PXR_I8:
        return "I8";
    case PXR_U8:
        return "U8";
    case PXR_DTYPE_COUNT:
        break;
    }
    return NULL;
}

/* Fills `at` but for its offset. */
static pxr_status declare(place *at, const pxr_safetensors_entry *entry, pxr_error *error)
{
    if (entry->rank < 0 || entry->rank > PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: tensor \"%s\" has %d dims; at most %d are supported",
                        entry->name, entry->rank, PXR_MAX_RANK);
    if (entry->name[0] == '\0' || strcmp(entry->name, "__metadata__") == 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: a tensor cannot be called \"%s\"", entry->name);
    at->bytes = pxr_dtype_size(entry->dtype);
    at->shape = (pxr_tensor){.dtype = entry->dtype, .rank = entry->rank};
    for (int dim = 0; dim < entry->rank; dim++) {
        at->shape.size[dim] = entry->size[dim];
        if (entry->size[dim] < 0 || !pxr_mul_size(at->bytes, (size_t)entry->size[dim], &at->bytes) ||
            at->bytes > INT64_MAX)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: tensor \"%s\": size %lld of dim %d", entry->name,
                            (long long)entry->size[dim], dim + 1);
    }
    at->name = pxr_strndup(entry->name, strlen(entry->name));
    return at->name ? PXR_OK : pxr_fail_memory(error, strlen(entry->name), "a tensor's name");
}

/* Gives every place its offset, wider elements first; returns the end. Overflow is impossible for what fits a disk and
 * caught as a file that is too large. */
static bool assign_offsets(pxr_safetensors_writer *writer, uint64_t *end)
{
    bool fits = true;
    *end = 0;
    for (size_t element = 8; element > 0; element /= 2)
        for (size_t i = 0; i < writer->count; i++) {
            if (pxr_dtype_size(writer->places[i].shape.dtype) != element) continue;
            writer->places[i].offset = *end;
            fits = fits && !__builtin_add_overflow(*end, writer->places[i].bytes, end) && *end <= INT64_MAX / 2;
        }
    return fits;
}

/* The header as a JSON object (a new reference); NULL with an error. */
static json_t *make_header(const pxr_safetensors_writer *writer, const pxr_metadata *metadata, pxr_error *error)
{
    json_t *header = json_object();
    if (metadata && metadata->count > 0) {
        json_t *strings = json_object();
        for (size_t i = 0; i < metadata->count; i++)
            if (json_object_set_new(strings, metadata->entries[i].key, json_string(metadata->entries[i].value)) != 0) {
                pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: metadata \"%s\" is not UTF-8",
                         metadata->entries[i].key);
                json_decref(strings);
                goto failed;
            }
        if (json_object_set_new(header, "__metadata__", strings) != 0) goto no_memory;
    }
    for (size_t i = 0; i < writer->count; i++) {
        const place *at = &writer->places[i];
        if (json_object_get(header, at->name)) {
            pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: the tensor \"%s\" is declared twice", at->name);
            goto failed;
        }
        json_t *shape = json_array();
        for (int dim = 0; dim < at->shape.rank; dim++) json_array_append_new(shape, json_integer(at->shape.size[dim]));
        json_t *info = json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_text(at->shape.dtype), "shape", shape,
                                 "data_offsets", (json_int_t)at->offset, (json_int_t)(at->offset + at->bytes));
        if (!info || json_array_size(json_object_get(info, "shape")) != (size_t)at->shape.rank) {
            json_decref(info);
            goto no_memory;
        }
        if (json_object_set_new(header, at->name, info) != 0) {
            pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: the name \"%s\" is not UTF-8", at->name);
            goto failed;
        }
    }
    return header;
no_memory:
    pxr_fail_memory(error, writer->count * sizeof(place), "a safetensors header");
failed:
    json_decref(header);
    return NULL;
}

/* The bytes in front of the data: length, JSON, blanks. `*head` is the caller's to pxr_free. */
static pxr_status format_head(const pxr_safetensors_writer *writer, const pxr_metadata *metadata, char **head,
                              size_t *head_bytes, pxr_error *error)
{
    pxr_status status = PXR_OK;
    *head = NULL;
    json_t *header = make_header(writer, metadata, error);
    if (!header) return error->status;
    const size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    *head_bytes = (8 + length + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
    *head = length > 0 ? pxr_malloc(*head_bytes) : NULL;
    if (*head) {
        for (int i = 0; i < 8; i++) (*head)[i] = (char)((*head_bytes - 8) >> 8 * i & 0xff);
        memset(*head + 8, ' ', *head_bytes - 8);
        json_dumpb(header, *head + 8, length, JSON_COMPACT);
    } else {
        status = pxr_fail_memory(error, *head_bytes, "a safetensors header");
    }
    json_decref(header);
    return status;
}

pxr_status pxr_safetensors_writer_open(pxr_safetensors_writer **writer, const char *path,
                                       const pxr_safetensors_entry *entries, size_t count, const pxr_metadata *metadata,
                                       pxr_error *error)
{
    pxr_error unheard = {0};
    if (!error) error = &unheard;
    char *head = NULL;
    size_t head_bytes = 0;
    uint64_t data_bytes;
    pxr_status status = PXR_ERROR_MEMORY;
    *writer = NULL;
    pxr_safetensors_writer *made = pxr_calloc(1, sizeof *made);
    if (made) made->places = pxr_calloc(count + 1, sizeof *made->places);
    if (!made || !made->places) {
        pxr_fail_memory(error, count * sizeof(place), "a safetensors writer");
        goto failed;
    }
    for (; made->count < count; made->count++) {
        status = declare(&made->places[made->count], &entries[made->count], error);
        if (status != PXR_OK) goto failed;
    }
    if (!assign_offsets(made, &data_bytes)) {
        status = pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: the tensors are too large for a file", path);
        goto failed;
    }
    status = format_head(made, metadata, &head, &head_bytes, error);
    if (status == PXR_OK) status = pxr_output_file_create(&made->file, path, head_bytes + data_bytes, error);
    if (status == PXR_OK) status = pxr_output_file_write(&made->file, 0, head, head_bytes, error);
    pxr_free(head);
    if (status != PXR_OK) goto failed;
    made->data_start = head_bytes;
    *writer = made;
    return PXR_OK;
failed:
    pxr_safetensors_writer_abandon(made);
    return status;
}

static place *find(pxr_safetensors_writer *writer, const char *name)
{
    for (size_t step = 0; step < writer->count; step++) {
        const size_t i = (writer->next + step) % writer->count;
        if (strcmp(writer->places[i].name, name) != 0) continue;
        writer->next = i + 1;
        return &writer->places[i];
    }
    return NULL;
}

pxr_status pxr_safetensors_writer_write(pxr_safetensors_writer *writer, const char *name, const pxr_tensor *tensor,
                                        pxr_error *error)
{
    place *at = find(writer, name);
    char declared[PXR_SHAPE_TEXT], found[PXR_SHAPE_TEXT];
    if (!at)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: no tensor \"%s\" was declared for %s", name,
                        writer->file.target);
    if (at->written)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: the tensor \"%s\" was written already", name);
    if (tensor->dtype != at->shape.dtype || !pxr_tensor_same_shape(tensor, &at->shape))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: \"%s\" was declared as %s %s, got %s %s", name,
                        pxr_dtype_name(at->shape.dtype), pxr_tensor_shape_text(&at->shape, declared),
                        pxr_dtype_name(tensor->dtype), pxr_tensor_shape_text(tensor, found));
    const pxr_status status = pxr_output_file_write_tensor(&writer->file, writer->data_start + at->offset, tensor,
                                                           error);
    at->written = status == PXR_OK;
    return status;
}

pxr_status pxr_safetensors_writer_close(pxr_safetensors_writer *writer, pxr_error *error)
{
    pxr_status status = PXR_OK;
    for (size_t i = 0; i < writer->count && status == PXR_OK; i++)
        if (!writer->places[i].written)
            status = pxr_fail(error, PXR_ERROR_ARGUMENT, "safetensors: the tensor \"%s\" was declared but not written",
                              writer->places[i].name);
    if (status == PXR_OK) status = pxr_output_file_commit(&writer->file, error);
    pxr_safetensors_writer_abandon(writer);
    return status;
}

void pxr_safetensors_writer_abandon(pxr_safetensors_writer *writer)
{
    if (!writer) return;
    pxr_output_file_abandon(&writer->file);
    for (size_t i = 0; writer->places && i < writer->count; i++) pxr_free(writer->places[i].name);
    pxr_free(writer->places);
    pxr_free(writer);
}
