/* Reading safetensors; see safetensors.h. */
#include "io/safetensors.h"

#include "core/json.h"
#include "core/memory.h"
#include "io/mapped_file.h"

#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 8,             /* the header's length comes first */
    MAX_HEADER_BYTES = 100000000, /* as the format's own implementation has it */
    NAME_SHOWN = 200              /* bytes of a name that fit in a message */
};

#define METADATA_KEY "__metadata__"

/* ---- metadata -------------------------------------------------------------------------------------------------- */

pxr_status pxr_metadata_add(pxr_metadata *metadata, const char *key, const char *value, pxr_error *error)
{
    if (!pxr_grow((void **)&metadata->entries, &metadata->capacity, metadata->count + 1, sizeof *metadata->entries))
        return pxr_fail_memory(error, sizeof *metadata->entries, "metadata");
    struct pxr_metadata_entry entry = {pxr_strndup(key, strlen(key)), pxr_strndup(value, strlen(value))};
    if (!entry.key || !entry.value) {
        pxr_free(entry.key);
        pxr_free(entry.value);
        return pxr_fail_memory(error, strlen(key) + strlen(value), "metadata");
    }
    metadata->entries[metadata->count++] = entry;
    return PXR_OK;
}

void pxr_metadata_free(pxr_metadata *metadata)
{
    for (size_t i = 0; i < metadata->count; i++) {
        pxr_free(metadata->entries[i].key);
        pxr_free(metadata->entries[i].value);
    }
    pxr_free(metadata->entries);
    *metadata = (pxr_metadata){0};
}

static pxr_status read_metadata(json_t *object, pxr_metadata *metadata, pxr_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: " METADATA_KEY " is not a JSON object");
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value))
            return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: " METADATA_KEY " \"%.*s\" is not a string",
                            NAME_SHOWN, key);
        if (!metadata) continue;
        const pxr_status status = pxr_metadata_add(metadata, key, json_string_value(value), error);
        if (status != PXR_OK) return status;
    }
    return PXR_OK;
}

/* ---- the header ------------------------------------------------------------------------------------------------ */

/* Where one tensor's bytes lie, from the beginning of the data. */
typedef struct extent {
    size_t begin, end;
    const char *name;
} extent;

static bool parse_type(const char *name, pxr_dtype *dtype)
{
    static const struct {
        const char *name;
        pxr_dtype dtype;
    } types[] = {{"F32", PXR_F32}, {"F16", PXR_F16}, {"BF16", PXR_BF16}, {"I64", PXR_I64},
                 {"I32", PXR_I32}, {"I8", PXR_I8},   {"U8", PXR_U8},     {"BOOL", PXR_U8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) != 0) continue;
        *dtype = types[i].dtype;
        return true;
    }
    return false;
}

static pxr_status parse_shape(json_t *shape, const char *name, pxr_tensor *tensor, pxr_error *error)
{
    if (!json_is_array(shape))
        return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: tensor \"%.*s\" has no \"shape\" array", NAME_SHOWN,
                        name);
    if (json_array_size(shape) > PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "safetensors: tensor \"%.*s\" has %zu dims; at most %d are supported", NAME_SHOWN, name,
                        json_array_size(shape), PXR_MAX_RANK);
    tensor->rank = (int)json_array_size(shape);
    for (int dim = 0; dim < tensor->rank; dim++) {
        const json_t *size = json_array_get(shape, (size_t)dim);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return pxr_fail(error, PXR_ERROR_FORMAT,
                            "safetensors: tensor \"%.*s\": size %d of its shape is not a non-negative integer",
                            NAME_SHOWN, name, dim + 1);
        tensor->size[dim] = json_integer_value(size);
    }
    return PXR_OK;
}

static pxr_status parse_offsets(json_t *offsets, const char *name, size_t data_bytes, extent *where, pxr_error *error)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "safetensors: tensor \"%.*s\" has no \"data_offsets\" array of two integers", NAME_SHOWN, name);
    const json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "safetensors: tensor \"%.*s\" lies at bytes %lld to %lld, but the file holds %zu bytes of data",
                        NAME_SHOWN, name, (long long)from, (long long)to, data_bytes);
    *where = (extent){.begin = (size_t)from, .end = (size_t)to, .name = name};
    return PXR_OK;
}

/* One entry of the header: adds the view and notes where it lies. `data_start` counts from the file's beginning. */
static pxr_status read_tensor(const pxr_tensor *file, size_t data_start, const char *name, json_t *info, extent *where,
                              pxr_tensor_map *tensors, pxr_error *error)
{
    const char *type = json_string_value(json_object_get(info, "dtype"));
    pxr_tensor shape = {0}, view;
    if (!type)
        return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: tensor \"%.*s\" has no \"dtype\" string", NAME_SHOWN,
                        name);
    if (!parse_type(type, &shape.dtype))
        return pxr_fail(
            error, PXR_ERROR_UNSUPPORTED,
            "safetensors: tensor \"%.*s\" has the type %.40s; supported are F32, F16, BF16, I64, I32, I8, U8 "
            "and BOOL",
            NAME_SHOWN, name, type);
    pxr_status status = parse_shape(json_object_get(info, "shape"), name, &shape, error);
    if (status == PXR_OK)
        status = parse_offsets(json_object_get(info, "data_offsets"), name, (size_t)file->size[0] - data_start, where,
                               error);
    if (status != PXR_OK) return status;

    size_t bytes = pxr_dtype_size(shape.dtype);
    bool fits = true;
    for (int dim = 0; dim < shape.rank; dim++) fits = fits && pxr_mul_size(bytes, (size_t)shape.size[dim], &bytes);
    if (!fits || bytes != where->end - where->begin) {
        char text[PXR_SHAPE_TEXT];
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "safetensors: tensor \"%.*s\" is %s %s, which %zu bytes cannot hold exactly", NAME_SHOWN, name,
                        type, pxr_tensor_shape_text(&shape, text), where->end - where->begin);
    }
    status = pxr_mapped_file_view(&view, file, data_start + where->begin, shape.dtype, shape.rank, shape.size, NULL,
                                  error);
    if (status != PXR_OK) return pxr_error_prefix(error, "safetensors: tensor \"%.*s\"", NAME_SHOWN, name);
    status = pxr_tensor_map_add(tensors, name, strlen(name), &view, error);
    pxr_tensor_release(&view);
    return status;
}

static int by_place(const void *left, const void *right)
{
    const extent *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

/* The tensors must lie one behind the other and fill the data. Sorts `extents`. */
static pxr_status check_coverage(extent *extents, size_t count, size_t data_bytes, pxr_error *error)
{
    size_t covered = 0;
    qsort(extents, count, sizeof *extents, by_place);
    for (size_t i = 0; i < count; i++) {
        if (extents[i].begin != covered)
            return pxr_fail(
                error, PXR_ERROR_FORMAT,
                "safetensors: tensor \"%.*s\" begins at byte %zu, but the tensor before it ends at %zu (%s)",
                NAME_SHOWN, extents[i].name, extents[i].begin, covered,
                extents[i].begin < covered ? "overlap" : "hole");
        covered = extents[i].end;
    }
    if (covered != data_bytes)
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "safetensors: the tensors end at byte %zu, but the file holds %zu bytes of data", covered,
                        data_bytes);
    return PXR_OK;
}

static pxr_status read_header(const pxr_tensor *file, size_t data_start, json_t *header, pxr_tensor_map *tensors,
                              pxr_metadata *metadata, pxr_error *error)
{
    const char *name;
    json_t *info;
    size_t count = 0;
    pxr_status status = PXR_OK;
    extent *extents = pxr_malloc((json_object_size(header) + 1) * sizeof *extents);
    if (!extents) return pxr_fail_memory(error, json_object_size(header) * sizeof *extents, "a safetensors header");
    json_object_foreach(header, name, info)
    {
        if (strcmp(name, METADATA_KEY) == 0) {
            status = read_metadata(info, metadata, error);
        } else {
            status = read_tensor(file, data_start, name, info, &extents[count], tensors, error);
            count++;
        }
        if (status != PXR_OK) break;
    }
    if (status == PXR_OK) status = check_coverage(extents, count, (size_t)file->size[0] - data_start, error);
    pxr_free(extents);
    return status;
}

pxr_status pxr_safetensors_read(const pxr_tensor *file, pxr_tensor_map *tensors, pxr_metadata *metadata,
                                pxr_error *error)
{
    const unsigned char *bytes = pxr_tensor_data(file);
    const size_t size = (size_t)file->size[0];
    if (size < LENGTH_BYTES)
        return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: the file has %zu bytes, too few for a header", size);
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) length = length << 8 | bytes[i];
    if (length > MAX_HEADER_BYTES)
        return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: a header of %llu bytes; at most %d are allowed",
                        (unsigned long long)length, MAX_HEADER_BYTES);
    if (length > size - LENGTH_BYTES)
        return pxr_fail(
            error, PXR_ERROR_FORMAT,
            "safetensors: a header of %llu bytes, but the file has only %zu (truncated, or not safetensors)",
            (unsigned long long)length, size);
    const char *text = (const char *)bytes + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return pxr_fail(error, PXR_ERROR_FORMAT, "safetensors: the header does not begin with '{'");

    pxr_json header;
    pxr_status status = pxr_json_parse(&header, text, (size_t)length, error);
    if (status != PXR_OK) return pxr_error_prefix(error, "safetensors: the header");
    status = read_header(file, LENGTH_BYTES + (size_t)length, header.root, tensors, metadata, error);
    pxr_json_free(&header);
    return status;
}
