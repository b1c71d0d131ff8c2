/* Unicode normalisation form C, which the tokenizer applies before anything else. */
#ifndef PXR_TEXT_NORMALIZE_H
#define PXR_TEXT_NORMALIZE_H

#include "core/error.h"

/** The NFC form of `length` bytes of UTF-8, as valid UTF-8 in a block that the caller frees with pxr_free; broken bytes
 * become U+FFFD as in utf8.h. Takes time in proportion to the length, whatever the text. */
pxr_status pxr_normalize_nfc(const char *text, size_t length, char **normal, size_t *normal_length, pxr_error *error);

#endif
