/* What stands at a path, and what a directory holds; see path.h. */
#include "io/path.h"

#include "core/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

pxr_path_kind pxr_path_kind_of(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0) return PXR_PATH_NOTHING;
    if (S_ISREG(about.st_mode)) return PXR_PATH_FILE;
    return S_ISDIR(about.st_mode) ? PXR_PATH_DIRECTORY : PXR_PATH_OTHER;
}

static int by_bytes(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static pxr_status add_name(pxr_names *names, const char *name, pxr_error *error)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return PXR_OK;
    if (!pxr_grow((void **)&names->names, &names->capacity, names->count + 1, sizeof *names->names))
        return pxr_fail_memory(error, names->count * sizeof *names->names, "a directory's names");
    char *copy = pxr_strndup(name, strlen(name));
    if (!copy) return pxr_fail_memory(error, strlen(name), "a directory's names");
    names->names[names->count++] = copy;
    return PXR_OK;
}

pxr_status pxr_directory_read(pxr_names *names, const char *path, pxr_error *error)
{
    *names = (pxr_names){0};
    pxr_status status = PXR_OK;
    DIR *directory = opendir(path);
    if (!directory) return pxr_fail_errno(error, "%s: cannot be listed", path);
    while (status == PXR_OK) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry) {
            if (errno != 0) status = pxr_fail_errno(error, "%s: cannot be listed", path);
            break;
        }
        status = add_name(names, entry->d_name, error);
    }
    closedir(directory);
    if (names->count > 1) qsort(names->names, names->count, sizeof *names->names, by_bytes);
    return status;
}

void pxr_names_free(pxr_names *names)
{
    for (size_t i = 0; i < names->count; i++) pxr_free(names->names[i]);
    pxr_free(names->names);
    *names = (pxr_names){0};
}
