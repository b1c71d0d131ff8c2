/* Files written whole or not at all; see output_file.h. */
#include "io/output_file.h"

#include "core/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 /* bytes gathered before they are written */ };

/* The path behind links, so that the file is replaced and not the link; what is not there yet keeps its path. */
static pxr_status resolve_target(char **target, const char *path, pxr_error *error)
{
    struct stat about;
    const bool exists = stat(path, &about) == 0;
    if (exists && !S_ISREG(about.st_mode))
        return pxr_fail(error, PXR_ERROR_IO, "%s: cannot be written: %s", path,
                        S_ISDIR(about.st_mode) ? "it is a directory" : "it is not a regular file");
    char followed[PATH_MAX];
    if (exists && realpath(path, followed)) path = followed;
    *target = pxr_strndup(path, strlen(path));
    return *target ? PXR_OK : pxr_fail_memory(error, strlen(path) + 1, "a path");
}

/* Reserves the bytes, so that a full disk is known before hours of writing. Where the file system cannot, writing will
 * tell. */
static pxr_status reserve(const pxr_output_file *file, uint64_t bytes, pxr_error *error)
{
    if (bytes == 0 || fallocate(file->descriptor, 0, 0, (off_t)bytes) == 0) return PXR_OK;
    if (errno != ENOSPC && errno != EFBIG && errno != EDQUOT) return PXR_OK;
    return pxr_fail_errno(error, "%s: %llu bytes cannot be written", file->target, (unsigned long long)bytes);
}

pxr_status pxr_output_file_create(pxr_output_file *file, const char *path, uint64_t bytes, pxr_error *error)
{
    *file = (pxr_output_file){.descriptor = -1};
    pxr_status status = resolve_target(&file->target, path, error);
    if (status != PXR_OK) goto failed;
    const size_t room = strlen(file->target) + 32;
    file->temporary = pxr_malloc(room);
    if (!file->temporary) {
        status = pxr_fail_memory(error, room, "a path");
        goto failed;
    }
    static unsigned number; /* distinguishes two files under way for one target; a clash only costs a round */
    do {
        snprintf(file->temporary, room, "%s.%ld-%u.tmp", file->target, (long)getpid(), number++);
        file->descriptor = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (file->descriptor < 0 && errno == EEXIST);
    if (file->descriptor < 0) {
        status = pxr_fail_errno(error, "%s: cannot be written", path);
        pxr_free(file->temporary);
        file->temporary = NULL;
        goto failed;
    }
    status = reserve(file, bytes, error);
    if (status == PXR_OK) return PXR_OK;
failed:
    pxr_output_file_abandon(file);
    return status;
}

pxr_status pxr_output_file_write(pxr_output_file *file, uint64_t offset, const void *data, size_t bytes,
                                 pxr_error *error)
{
    const char *from = data;
    while (bytes > 0) {
        const ssize_t written = pwrite(file->descriptor, from, bytes < CHUNK ? bytes : CHUNK, (off_t)offset);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            if (written == 0) errno = ENOSPC;
            return pxr_fail_errno(error, "%s: writing failed", file->target);
        }
        from += written;
        offset += (uint64_t)written;
        bytes -= (size_t)written;
    }
    return PXR_OK;
}

/* Dense bytes on a device, by way of a host buffer [CHUNK]. */
static pxr_status write_from_device(pxr_output_file *file, uint64_t offset, const pxr_tensor *tensor, char *buffer,
                                    pxr_error *error)
{
    pxr_device *device = pxr_tensor_device(tensor);
    const char *from = tensor->data;
    size_t left = (size_t)pxr_tensor_count(tensor) * pxr_dtype_size(tensor->dtype);
    while (left > 0) {
        const size_t part = left < CHUNK ? left : CHUNK;
        pxr_status status = device->download(device, buffer, from, part, error);
        if (status == PXR_OK) status = pxr_output_file_write(file, offset, buffer, part, error);
        if (status != PXR_OK) return status;
        from += part;
        offset += part;
        left -= part;
    }
    return PXR_OK;
}

/* Any strides on the host, gathered element by element in row-major order through a buffer [CHUNK]. */
static pxr_status write_gathered(pxr_output_file *file, uint64_t offset, const pxr_tensor *tensor, char *buffer,
                                 pxr_error *error)
{
    const size_t element = pxr_dtype_size(tensor->dtype);
    int64_t index[PXR_MAX_RANK] = {0};
    const char *from = tensor->data;
    size_t used = 0;
    for (int64_t left = pxr_tensor_count(tensor); left > 0; left--) {
        memcpy(buffer + used, from, element);
        used += element;
        if (used + element > CHUNK || left == 1) {
            const pxr_status status = pxr_output_file_write(file, offset, buffer, used, error);
            if (status != PXR_OK) return status;
            offset += used;
            used = 0;
        }
        for (int dim = tensor->rank - 1; dim >= 0; dim--) {
            from += tensor->stride[dim] * (int64_t)element;
            if (++index[dim] < tensor->size[dim]) break;
            from -= tensor->size[dim] * tensor->stride[dim] * (int64_t)element;
            index[dim] = 0;
        }
    }
    return PXR_OK;
}

pxr_status pxr_output_file_write_tensor(pxr_output_file *file, uint64_t offset, const pxr_tensor *tensor,
                                        pxr_error *error)
{
    const bool host = pxr_tensor_device(tensor)->is_host, dense = pxr_tensor_is_contiguous(tensor);
    if (host && dense)
        return pxr_output_file_write(file, offset, tensor->data,
                                     (size_t)pxr_tensor_count(tensor) * pxr_dtype_size(tensor->dtype), error);
    if (!dense && !host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a strided tensor on %s cannot be written: call contiguous() first",
                        pxr_tensor_device(tensor)->name);
    char *buffer = pxr_malloc(CHUNK);
    if (!buffer) return pxr_fail_memory(error, CHUNK, "writing a tensor");
    const pxr_status status = host ? write_gathered(file, offset, tensor, buffer, error)
                                   : write_from_device(file, offset, tensor, buffer, error);
    pxr_free(buffer);
    return status;
}

pxr_status pxr_output_file_commit(pxr_output_file *file, pxr_error *error)
{
    pxr_status status = PXR_OK;
    if (fsync(file->descriptor) != 0) status = pxr_fail_errno(error, "%s: writing failed", file->target);
    /* Some file systems report a full disk only here. */
    if (close(file->descriptor) != 0 && status == PXR_OK)
        status = pxr_fail_errno(error, "%s: writing failed", file->target);
    file->descriptor = -1;
    if (status == PXR_OK && rename(file->temporary, file->target) != 0)
        status = pxr_fail_errno(error, "%s: cannot be given its name", file->target);
    if (status == PXR_OK) {
        pxr_free(file->temporary);
        file->temporary = NULL;
    }
    pxr_output_file_abandon(file);
    return status;
}

void pxr_output_file_abandon(pxr_output_file *file)
{
    if (file->temporary) {
        if (file->descriptor >= 0) close(file->descriptor);
        unlink(file->temporary);
    }
    pxr_free(file->temporary);
    pxr_free(file->target);
    *file = (pxr_output_file){.descriptor = -1};
}
