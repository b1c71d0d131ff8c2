/* JSON texts of others, parsed by jansson into one block of memory that is freed as a whole. */
#ifndef PXR_CORE_JSON_H
#define PXR_CORE_JSON_H

#include "core/error.h"

#include <jansson.h>

/** A parsed text; zeroed it holds nothing. The values are read with jansson's functions (and never changed, nor given to
 * json_decref); they and their strings end with pxr_json_free. */
typedef struct pxr_json {
    json_t *root;
    struct pxr_json_chunk *chunks;
} pxr_json;

/** Parses `length` bytes, an object or an array; an object with one key twice is refused, and so is nesting deeper than
 * jansson allows (2,048). The error says line, column and byte, or that there is no memory; nothing has to be freed then. */
pxr_status pxr_json_parse(pxr_json *json, const char *text, size_t length, pxr_error *error);

/** Frees the values; the zeroed one is fine. */
void pxr_json_free(pxr_json *json);

#endif
