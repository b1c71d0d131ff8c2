/* Status and message of a failed call; see error.h. */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

pxr_status pxr_fail(pxr_error *error, pxr_status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

pxr_status pxr_fail_memory(pxr_error *error, size_t bytes, const char *what)
{
    return pxr_fail(error, PXR_ERROR_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

pxr_status pxr_fail_errno(pxr_error *error, const char *format, ...)
{
    const int number = errno;
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        error->status = PXR_ERROR_IO;
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        const size_t used = strlen(error->message);
        snprintf(error->message + used, sizeof error->message - used, ": %s", strerror(number));
    }
    return PXR_ERROR_IO;
}

pxr_status pxr_error_prefix(pxr_error *error, const char *format, ...)
{
    if (!error) return PXR_ERROR_ARGUMENT;
    char rest[sizeof error->message];
    memcpy(rest, error->message, sizeof rest);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    const size_t used = strlen(error->message);
    snprintf(error->message + used, sizeof error->message - used, ": %s", rest);
    return error->status;
}
