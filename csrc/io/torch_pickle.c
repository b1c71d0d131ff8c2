/* PyTorch's state dicts as views of the mapped file; see torch_pickle.h. */
#include "io/torch_pickle.h"

#include "core/memory.h"
#include "io/mapped_file.h"
#include "io/pickle.h"
#include "io/zip.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PATH = 512, /* bytes of an entry's name */ NAME_SHOWN = 200 };

typedef struct archive {
    const pxr_tensor *file;
    pxr_zip zip;
    pxr_pickle pickle;
    const char *root; /* what stands before "data.pkl", with its slash; in the zip directory */
    size_t root_length;
} archive;

#define SHOWN(value) (int)((value)->length < NAME_SHOWN ? (value)->length : NAME_SHOWN), (value)->text

/* ---- the archive ----------------------------------------------------------------------------------------------- */

static const pxr_zip_entry *find_entry(const archive *from, const char *folder, const char *name, size_t name_length)
{
    char path[MAX_PATH];
    const size_t folder_length = strlen(folder);
    if (from->root_length + folder_length + name_length > sizeof path) return NULL;
    memcpy(path, from->root, from->root_length);
    memcpy(path + from->root_length, folder, folder_length);
    memcpy(path + from->root_length + folder_length, name, name_length);
    return pxr_zip_find(&from->zip, path, from->root_length + folder_length + name_length);
}

/* The one `<root>/data.pkl`. */
static pxr_status find_pickle(archive *from, const pxr_zip_entry **found, pxr_error *error)
{
    static const char name[] = "/data.pkl";
    *found = NULL;
    for (size_t i = 0; i < from->zip.count; i++) {
        const pxr_zip_entry *entry = &from->zip.entries[i];
        if (entry->name_length < strlen(name)) continue;
        const size_t root = entry->name_length - strlen(name);
        if (memcmp(entry->name + root, name, strlen(name)) != 0 || memchr(entry->name, '/', root)) continue;
        if (*found) return pxr_fail(error, PXR_ERROR_FORMAT, "torch: the archive has more than one data.pkl");
        *found = entry;
        from->root = entry->name;
        from->root_length = root + 1;
    }
    if (!*found)
        return pxr_fail(error, PXR_ERROR_FORMAT, "torch: the zip archive has no data.pkl (not written by torch.save)");
    return PXR_OK;
}

static pxr_status check_byte_order(const archive *from, pxr_error *error)
{
    const pxr_zip_entry *entry = find_entry(from, "", "byteorder", strlen("byteorder"));
    if (!entry) return PXR_OK; /* before PyTorch 2.1 */
    if (entry->bytes == strlen("little") && memcmp(from->zip.data + entry->offset, "little", entry->bytes) == 0)
        return PXR_OK;
    return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "torch: the byte order is not little-endian");
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static bool parse_type(const pxr_pickle_value *type, pxr_dtype *dtype)
{
    static const struct {
        const char *name;
        pxr_dtype dtype;
    } types[] = {{"FloatStorage", PXR_F32}, {"HalfStorage", PXR_F16}, {"BFloat16Storage", PXR_BF16},
                 {"LongStorage", PXR_I64},  {"IntStorage", PXR_I32},  {"CharStorage", PXR_I8},
                 {"ByteStorage", PXR_U8},   {"BoolStorage", PXR_U8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].name) != type->length || memcmp(types[i].name, type->text, type->length) != 0) continue;
        *dtype = types[i].dtype;
        return true;
    }
    return false;
}

/* Lays a described tensor over its storage's bytes. Errors speak of the tensor; the caller puts its name in front. */
static pxr_status view_tensor(const archive *from, const pxr_pickle_tensor *described, pxr_tensor *view,
                              pxr_error *error)
{
    const pxr_pickle_storage *storage = &from->pickle.storages[described->storage];
    pxr_dtype dtype;
    if (!parse_type(&storage->type, &dtype))
        return pxr_fail(
            error, PXR_ERROR_UNSUPPORTED,
            "the type torch.%.*s is not supported (float32, float16, bfloat16, int64, int32, int8, uint8 and "
            "bool are)",
            SHOWN(&storage->type));
    const pxr_zip_entry *entry = find_entry(from, "data/", storage->key.text, storage->key.length);
    if (!entry)
        return pxr_fail(error, PXR_ERROR_FORMAT, "the archive has no storage \"data/%.*s\"", SHOWN(&storage->key));
    const size_t element = pxr_dtype_size(dtype);
    if (storage->elements < 0 || entry->bytes % element != 0 || (uint64_t)storage->elements != entry->bytes / element)
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "storage \"data/%.*s\" should hold %lld %s elements, but has %zu bytes", SHOWN(&storage->key),
                        (long long)storage->elements, pxr_dtype_name(dtype), entry->bytes);
    if (described->offset < 0 || described->offset > storage->elements)
        return pxr_fail(error, PXR_ERROR_FORMAT, "it begins at element %lld of a storage of %lld",
                        (long long)described->offset, (long long)storage->elements);
    /* The view is checked against the storage first (as if the file were nothing else), then made on the file. */
    pxr_tensor content = {.data = (unsigned char *)pxr_tensor_data(from->file) + entry->offset,
                          .dtype = PXR_U8,
                          .rank = 1,
                          .size = {(int64_t)entry->bytes},
                          .stride = {1},
                          .storage = from->file->storage};
    return pxr_mapped_file_view(view, &content, (size_t)described->offset * element, dtype, described->rank,
                                described->size, described->stride, error);
}

static pxr_status add_tensor(const archive *from, const pxr_pickle_pair *pair, pxr_tensor_map *tensors,
                             pxr_error *error)
{
    pxr_tensor view;
    if (pair->value.kind != PXR_PICKLE_TENSOR)
        return pxr_fail(error, PXR_ERROR_FORMAT, "torch: the state dict's \"%.*s\" is not a tensor", SHOWN(&pair->key));
    pxr_status status = view_tensor(from, &from->pickle.tensors[pair->value.index], &view, error);
    if (status != PXR_OK) {
        pxr_error_prefix(error, "torch: tensor \"%.*s\"", SHOWN(&pair->key));
        return status;
    }
    status = pxr_tensor_map_add(tensors, pair->key.text, pair->key.length, &view, error);
    pxr_tensor_release(&view);
    return status;
}

/* The dict that holds the tensors: the file's object itself, or one that is known to hold the state dict in it. */
static pxr_status find_state_dict(const archive *from, const pxr_pickle_value *top, const pxr_pickle_dict **found,
                                  pxr_error *error)
{
    static const char *const holders[] = {"state_dict", "model", "module"};
    if (top->kind != PXR_PICKLE_DICT) return pxr_fail(error, PXR_ERROR_FORMAT, "torch: the file holds no state dict");
    *found = &from->pickle.dicts[top->index];
    for (size_t at = (*found)->first; at != 0; at = from->pickle.pairs[at - 1].next) {
        const pxr_pickle_pair *pair = &from->pickle.pairs[at - 1];
        if (pair->key.kind != PXR_PICKLE_TEXT)
            return pxr_fail(error, PXR_ERROR_FORMAT, "torch: a key of the state dict is not a string");
        if (pair->value.kind != PXR_PICKLE_DICT) continue;
        for (size_t i = 0; i < sizeof holders / sizeof *holders; i++) {
            if (strlen(holders[i]) != pair->key.length || memcmp(holders[i], pair->key.text, pair->key.length) != 0)
                continue;
            *found = &from->pickle.dicts[pair->value.index];
            return PXR_OK;
        }
    }
    return PXR_OK;
}

static pxr_status read_archive(archive *from, pxr_tensor_map *tensors, pxr_error *error)
{
    const pxr_zip_entry *entry;
    pxr_pickle_value top;
    const pxr_pickle_dict *dict = NULL;
    pxr_status status = pxr_zip_open(&from->zip, pxr_tensor_data(from->file), (size_t)from->file->size[0], error);
    if (status == PXR_OK) status = find_pickle(from, &entry, error);
    if (status == PXR_OK) status = check_byte_order(from, error);
    if (status == PXR_OK)
        status = pxr_pickle_run(&from->pickle, from->zip.data + entry->offset, entry->bytes, &top, error);
    if (status == PXR_OK) status = find_state_dict(from, &top, &dict, error);
    for (size_t at = status == PXR_OK ? dict->first : 0; at != 0 && status == PXR_OK;) {
        const pxr_pickle_pair *pair = &from->pickle.pairs[at - 1];
        if (pair->key.kind != PXR_PICKLE_TEXT)
            return pxr_fail(error, PXR_ERROR_FORMAT, "torch: a key of the state dict is not a string");
        status = add_tensor(from, pair, tensors, error);
        at = pair->next;
    }
    return status;
}

pxr_status pxr_torch_read(const pxr_tensor *file, pxr_tensor_map *tensors, pxr_error *error)
{
    const unsigned char *bytes = pxr_tensor_data(file);
    if (file->size[0] >= 2 && bytes[0] == 0x80 && bytes[1] <= 5)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "torch: a bare pickle, as torch.save wrote before version 1.6; save it again with a newer one");
    archive from = {.file = file};
    const pxr_status status = read_archive(&from, tensors, error);
    pxr_pickle_close(&from.pickle);
    pxr_zip_close(&from.zip);
    return status;
}
