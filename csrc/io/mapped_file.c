/* Files mapped into memory as uint8 tensors; see mapped_file.h. */
#include "io/mapped_file.h"

#include "core/memory.h"
#include "ops/device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct mapping {
    void *start;
    size_t bytes;
} mapping;

static void unmap(void *context)
{
    mapping *map = context;
    munmap(map->start, map->bytes);
    pxr_free(map);
}

static pxr_status check_kind(const struct stat *about, const char *path, pxr_error *error)
{
    if (S_ISDIR(about->st_mode)) return pxr_fail(error, PXR_ERROR_IO, "%s: is a directory, not a file", path);
    if (!S_ISREG(about->st_mode)) return pxr_fail(error, PXR_ERROR_IO, "%s: is not a regular file", path);
    if (about->st_size <= 0) return pxr_fail(error, PXR_ERROR_FORMAT, "%s: the file is empty", path);
    return PXR_OK;
}

pxr_status pxr_mapped_file_open(pxr_tensor *file, const char *path, pxr_error *error)
{
    *file = (pxr_tensor){0};
    pxr_status status;
    struct stat about;
    mapping *map = NULL;
    /* O_NONBLOCK: opening a fifo must not wait for a writer before it can be refused. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return pxr_fail_errno(error, "%s: cannot be opened", path);
    if (fstat(descriptor, &about) != 0) {
        status = pxr_fail_errno(error, "%s: cannot be examined", path);
        goto done;
    }
    status = check_kind(&about, path, error);
    if (status != PXR_OK) goto done;

    map = pxr_malloc(sizeof *map);
    if (!map) {
        status = pxr_fail_memory(error, sizeof *map, "a mapped file");
        goto done;
    }
    map->bytes = (size_t)about.st_size;
    /* Writable but private: a user who changes a weight in place gets a copy of the page, not a crash. NORESERVE,
     * because those copies are the exception: a checkpoint larger than memory may be mapped. */
    map->start = mmap(NULL, map->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor, 0);
    if (map->start == MAP_FAILED) {
        status = pxr_fail_errno(error, "%s: %zu bytes cannot be mapped", path, map->bytes);
        goto done;
    }
    status = pxr_tensor_wrap(file, pxr_cpu_device(), PXR_U8, 1, &(int64_t){about.st_size}, map->start, unmap, map,
                             error);
    if (status != PXR_OK)
        munmap(map->start, map->bytes);
    else
        map = NULL; /* the tensor's now */
done:
    pxr_free(map);
    close(descriptor);
    return status;
}

/* Elements from the first to the last that the view touches, 0 for an empty one; false on a negative size or stride
 * and on overflow. */
static bool span_of(const pxr_tensor *view, int64_t *span)
{
    bool valid = true, empty = false;
    *span = 1;
    for (int dim = 0; dim < view->rank; dim++) {
        int64_t reach = 0;
        if (view->size[dim] < 0 || view->stride[dim] < 0) return false;
        if (view->size[dim] == 0) {
            empty = true;
            continue;
        }
        valid = valid && !__builtin_mul_overflow(view->size[dim] - 1, view->stride[dim], &reach) &&
                !__builtin_add_overflow(*span, reach, span);
    }
    if (empty) *span = 0;
    return valid;
}

static bool dense_strides(pxr_tensor *view)
{
    int64_t stride = 1;
    for (int dim = view->rank - 1; dim >= 0; dim--) {
        view->stride[dim] = stride;
        if (view->size[dim] > 1 && __builtin_mul_overflow(stride, view->size[dim], &stride)) return false;
    }
    return true;
}

pxr_status pxr_mapped_file_view(pxr_tensor *view, const pxr_tensor *file, size_t offset, pxr_dtype dtype, int rank,
                                const int64_t *size, const int64_t *stride, pxr_error *error)
{
    *view = (pxr_tensor){0};
    if (rank < 0 || rank > PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%d dims, but a tensor has at most %d", rank, PXR_MAX_RANK);
    pxr_tensor made = {.dtype = dtype, .rank = rank, .storage = file->storage};
    for (int dim = 0; dim < rank; dim++) {
        made.size[dim] = size[dim];
        made.stride[dim] = stride ? stride[dim] : 0;
    }
    /* The count is checked as well as the span: a stride of 0 must not let it overflow. */
    const size_t bytes = (size_t)file->size[0], element = pxr_dtype_size(dtype);
    int64_t span = 0, count = 1;
    bool fits = stride || dense_strides(&made);
    for (int dim = 0; dim < rank; dim++)
        if (made.size[dim] > 1) fits = fits && !__builtin_mul_overflow(count, made.size[dim], &count);
    fits = fits && span_of(&made, &span) && offset <= bytes && (size_t)span <= (bytes - offset) / element;
    if (!fits) {
        char shape[PXR_SHAPE_TEXT];
        return pxr_fail(error, PXR_ERROR_FORMAT, "%s %s at byte %zu does not lie within %zu bytes",
                        pxr_dtype_name(dtype), pxr_tensor_shape_text(&made, shape), offset, bytes);
    }
    made.data = (unsigned char *)pxr_tensor_data(file) + offset;
    pxr_tensor_retain(&made);
    *view = made;
    return PXR_OK;
}

void pxr_mapped_file_forget(const pxr_tensor *view)
{
    if (!pxr_tensor_wraps(view, unmap) || !pxr_tensor_is_contiguous(view)) return;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)pxr_tensor_data(view);
    const uintptr_t end = begin + (size_t)pxr_tensor_count(view) * pxr_dtype_size(view->dtype);
    const uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}
