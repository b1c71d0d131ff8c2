/* NumPy's .npy files; see npy.h. The format is described in numpy/lib/format.py. */
#include "io/npy.h"

#include "io/mapped_file.h"
#include "io/output_file.h"

#include <stdio.h>
#include <string.h>

enum {
    PREFIX_BYTES = 8,  /* magic and version */
    ALIGNMENT = 64,    /* of the data in the file */
    HEADER_BYTES = 256 /* room for the longest header that is written */
};

static const char MAGIC[] = "\x93NUMPY";

static const struct {
    const char *name; /* with the byte order where there is one */
    pxr_dtype dtype;
} types[] = {{"<f4", PXR_F32}, {"<f2", PXR_F16}, {"<i8", PXR_I64}, {"<i4", PXR_I32},
             {"|i1", PXR_I8},  {"|u1", PXR_U8},  {"|b1", PXR_U8}};

/* ---- the header: a Python dict of three entries ---------------------------------------------------------------- */

typedef struct reader {
    const char *at, *end;
} reader;

typedef struct header {
    pxr_dtype dtype;
    bool fortran_order;
    int rank;
    int64_t size[PXR_MAX_RANK];
    bool has_descr, has_order, has_shape;
} header;

static void skip_blanks(reader *from)
{
    while (from->at < from->end && (*from->at == ' ' || *from->at == '\n')) from->at++;
}

/* Skips blanks and the text, if it comes next. */
static bool accept(reader *from, const char *text)
{
    skip_blanks(from);
    const size_t length = strlen(text);
    if ((size_t)(from->end - from->at) < length || memcmp(from->at, text, length) != 0) return false;
    from->at += length;
    return true;
}

/* A quoted string without escapes. */
static bool read_string(reader *from, const char **text, size_t *length)
{
    const char quote = accept(from, "'") ? '\'' : accept(from, "\"") ? '"' : 0;
    if (!quote) return false;
    const char *close = memchr(from->at, quote, (size_t)(from->end - from->at));
    if (!close) return false;
    *text = from->at;
    *length = (size_t)(close - from->at);
    from->at = close + 1;
    return true;
}

static bool read_size(reader *from, int64_t *size)
{
    skip_blanks(from);
    const char *start = from->at;
    *size = 0;
    for (; from->at < from->end && *from->at >= '0' && *from->at <= '9'; from->at++)
        if (__builtin_mul_overflow(*size, 10, size) || __builtin_add_overflow(*size, *from->at - '0', size))
            return false;
    return from->at > start;
}

static pxr_status malformed(pxr_error *error, const char *what)
{
    return pxr_fail(error, PXR_ERROR_FORMAT, "npy: the header %s", what);
}

/* (), (3,), (3, 4) */
static pxr_status read_shape(reader *from, header *into, pxr_error *error)
{
    bool comma = true;
    if (!accept(from, "(")) return malformed(error, "has no shape tuple");
    while (!accept(from, ")")) {
        int64_t size;
        if (!comma || !read_size(from, &size)) return malformed(error, "has a shape that is no tuple of sizes");
        if (into->rank == PXR_MAX_RANK)
            return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "npy: more than %d dims", PXR_MAX_RANK);
        into->size[into->rank++] = size;
        comma = accept(from, ",");
    }
    into->has_shape = true;
    return PXR_OK;
}

static pxr_status read_type(reader *from, header *into, pxr_error *error)
{
    const char *name;
    size_t length;
    if (!read_string(from, &name, &length))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "npy: the array is structured; only plain types are read");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strlen(types[i].name) == length && memcmp(types[i].name, name, length) == 0) {
            into->dtype = types[i].dtype;
            into->has_descr = true;
            return PXR_OK;
        }
    return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                    "npy: the type '%.*s' is not supported ('<f4', '<f2', '<i8', '<i4', '|i1', '|u1' and '|b1' are); "
                    "convert it with astype",
                    (int)(length < 40 ? length : 40), name);
}

static pxr_status read_entry(reader *from, header *into, pxr_error *error)
{
    const char *key;
    size_t length;
    if (!read_string(from, &key, &length) || !accept(from, ":")) return malformed(error, "is not a dict of strings");
    if (length == 5 && memcmp(key, "descr", 5) == 0 && !into->has_descr) return read_type(from, into, error);
    if (length == 5 && memcmp(key, "shape", 5) == 0 && !into->has_shape) return read_shape(from, into, error);
    if (length == 13 && memcmp(key, "fortran_order", 13) == 0 && !into->has_order) {
        into->has_order = true;
        into->fortran_order = accept(from, "True");
        if (into->fortran_order || accept(from, "False")) return PXR_OK;
        return malformed(error, "has a fortran_order that is neither True nor False");
    }
    return pxr_fail(error, PXR_ERROR_FORMAT, "npy: the header has an unknown or repeated key \"%.*s\"",
                    (int)(length < 40 ? length : 40), key);
}

static pxr_status read_header(reader *from, header *into, pxr_error *error)
{
    bool comma = true;
    if (!accept(from, "{")) return malformed(error, "is not a dict");
    while (!accept(from, "}")) {
        if (!comma) return malformed(error, "lacks a comma between its entries");
        const pxr_status status = read_entry(from, into, error);
        if (status != PXR_OK) return status;
        comma = accept(from, ",");
    }
    skip_blanks(from);
    if (from->at != from->end) return malformed(error, "goes on behind its dict");
    if (!into->has_descr || !into->has_order || !into->has_shape)
        return malformed(error, "lacks 'descr', 'fortran_order' or 'shape'");
    return PXR_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Version and header length: where the header begins and ends in the file. */
static pxr_status find_header(const pxr_tensor *file, size_t *begin, size_t *end, pxr_error *error)
{
    const unsigned char *bytes = pxr_tensor_data(file);
    const size_t size = (size_t)file->size[0];
    if (size < PREFIX_BYTES || memcmp(bytes, MAGIC, 6) != 0)
        return pxr_fail(error, PXR_ERROR_FORMAT, "npy: the file does not begin as a .npy file does");
    const int version = bytes[6];
    if (version < 1 || version > 3 || bytes[7] != 0)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "npy: version %d.%d; 1.0 to 3.0 are read", version, bytes[7]);
    const size_t length_bytes = version == 1 ? 2 : 4;
    size_t length = 0;
    *begin = PREFIX_BYTES + length_bytes;
    if (size >= *begin)
        for (size_t i = length_bytes; i-- > 0;) length = length << 8 | bytes[PREFIX_BYTES + i];
    if (size < *begin || length > size - *begin)
        return pxr_fail(error, PXR_ERROR_FORMAT, "npy: a header of %zu bytes in a file of %zu (truncated)", length,
                        size);
    *end = *begin + length;
    return PXR_OK;
}

pxr_status pxr_npy_read(pxr_tensor *tensor, const pxr_tensor *file, pxr_error *error)
{
    *tensor = (pxr_tensor){0};
    header described = {0};
    size_t begin = 0, end = 0;
    pxr_status status = find_header(file, &begin, &end, error);
    if (status != PXR_OK) return status;
    const char *text = pxr_tensor_data(file);
    status = read_header(&(reader){text + begin, text + end}, &described, error);
    if (status != PXR_OK) return status;

    int64_t stride[PXR_MAX_RANK] = {0}, count = 1;
    bool fits = true, empty = false;
    for (int i = 0; i < described.rank; i++) {
        const int dim = described.fortran_order ? i : described.rank - 1 - i;
        stride[dim] = count;
        empty = empty || described.size[dim] == 0;
        if (described.size[dim] > 0) fits = fits && !__builtin_mul_overflow(count, described.size[dim], &count);
    }
    if (empty) count = 0;
    const size_t found = (size_t)file->size[0] - end, element = pxr_dtype_size(described.dtype);
    if (!fits || found % element != 0 || (uint64_t)count != found / element) {
        pxr_tensor shape = {.rank = described.rank};
        char shape_text[PXR_SHAPE_TEXT];
        memcpy(shape.size, described.size, sizeof shape.size);
        return pxr_fail(error, PXR_ERROR_FORMAT, "npy: %s %s needs %s bytes, found %zu",
                        pxr_dtype_name(described.dtype), pxr_tensor_shape_text(&shape, shape_text),
                        found < (uint64_t)count * element ? "more" : "fewer", found);
    }
    return pxr_mapped_file_view(tensor, file, end, described.dtype, described.rank, described.size, stride, error);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* The head as NumPy writes it, padded with blanks to a multiple of ALIGNMENT; returns its bytes. */
static size_t format_head(const pxr_tensor *tensor, const char *type, char head[HEADER_BYTES])
{
    memcpy(head, MAGIC, 6);
    head[6] = 1;
    head[7] = 0;
    size_t at = PREFIX_BYTES + 2;
    at += (size_t)snprintf(head + at, HEADER_BYTES - at, "{'descr': '%s', 'fortran_order': False, 'shape': (", type);
    for (int dim = 0; dim < tensor->rank; dim++)
        at += (size_t)snprintf(head + at, HEADER_BYTES - at, dim > 0 ? " %lld," : "%lld,",
                               (long long)tensor->size[dim]);
    if (tensor->rank > 1) at--; /* only a tuple of one keeps its comma */
    at += (size_t)snprintf(head + at, HEADER_BYTES - at, "), }");
    const size_t bytes = (at + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    memset(head + at, ' ', bytes - at - 1);
    head[bytes - 1] = '\n';
    head[PREFIX_BYTES] = (char)((bytes - PREFIX_BYTES - 2) & 0xff);
    head[PREFIX_BYTES + 1] = (char)((bytes - PREFIX_BYTES - 2) >> 8);
    return bytes;
}

pxr_status pxr_npy_write(const char *path, const pxr_tensor *tensor, pxr_error *error)
{
    const char *type = NULL;
    for (size_t i = sizeof types / sizeof *types; i-- > 0;)
        if (types[i].dtype == tensor->dtype && strcmp(types[i].name, "|b1") != 0) type = types[i].name;
    if (!type)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s: NumPy has no %s; convert the tensor to float32 first", path,
                        pxr_dtype_name(tensor->dtype));
    char head[HEADER_BYTES];
    const size_t head_bytes = format_head(tensor, type, head);
    pxr_output_file file;
    pxr_status status = pxr_output_file_create(&file, path,
                                               head_bytes +
                                                   (uint64_t)pxr_tensor_count(tensor) * pxr_dtype_size(tensor->dtype),
                                               error);
    if (status == PXR_OK) status = pxr_output_file_write(&file, 0, head, head_bytes, error);
    if (status == PXR_OK) status = pxr_output_file_write_tensor(&file, head_bytes, tensor, error);
    if (status == PXR_OK) return pxr_output_file_commit(&file, error);
    pxr_output_file_abandon(&file);
    return status;
}
