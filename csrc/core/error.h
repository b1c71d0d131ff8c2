/* Status and message of a failed call.
 *
 * Every fallible function of the core returns a pxr_status and, on failure, leaves one clear sentence in the caller's
 * pxr_error: what was wrong, where, what was expected, what was found. Nothing here prints, exits, aborts or jumps;
 * only the Lua binding (csrc/lua) turns an error into a raised one.
 *
 *     pxr_error error = {0};
 *     if (pxr_tensor_new(&x, device, PXR_F32, 2, size, &error) != PXR_OK) return error.status;
 */
#ifndef PXR_CORE_ERROR_H
#define PXR_CORE_ERROR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pxr_status {
    PXR_OK = 0,
    PXR_ERROR_ARGUMENT,    /* the caller asked for something that makes no sense (shape, range, option) */
    PXR_ERROR_MEMORY,      /* an allocation failed; the process stays usable */
    PXR_ERROR_IO,          /* the operating system refused: missing file, full disk */
    PXR_ERROR_FORMAT,      /* a file's content is not what its format demands */
    PXR_ERROR_UNSUPPORTED, /* well-formed, but this build, device or version cannot do it */
    PXR_ERROR_INTERRUPTED  /* the user pressed Ctrl-C; see interrupt.h */
} pxr_status;

typedef struct pxr_error {
    pxr_status status;
    char message[1024]; /* NUL-terminated UTF-8, truncated if longer */
} pxr_error;

#if defined(__GNUC__)
#define PXR_PRINTF(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))
#else
#define PXR_PRINTF(format_index, first_argument)
#endif

/** Fills `error` (which may be NULL) and returns `status`, so that a failing function can `return pxr_fail(...)`. */
pxr_status pxr_fail(pxr_error *error, pxr_status status, const char *format, ...) PXR_PRINTF(3, 4);

/** The message of an allocation of `bytes` bytes for `what` that failed; returns PXR_ERROR_MEMORY. */
pxr_status pxr_fail_memory(pxr_error *error, size_t bytes, const char *what);

/** As pxr_fail with PXR_ERROR_IO, followed by ": " and the text of the current errno. */
pxr_status pxr_fail_errno(pxr_error *error, const char *format, ...) PXR_PRINTF(2, 3);

/** Puts `format...: ` in front of the message that is already there (a file's name, a layer's); returns its status. */
pxr_status pxr_error_prefix(pxr_error *error, const char *format, ...) PXR_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
