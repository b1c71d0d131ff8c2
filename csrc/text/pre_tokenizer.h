/* Cutting text into words, the units inside which byte pairs are merged. */
#ifndef PXR_TEXT_PRE_TOKENIZER_H
#define PXR_TEXT_PRE_TOKENIZER_H

#include <stddef.h>

/* Qwen2's pattern, as tokenizer.json states it; pxr_word_end is this expression and no other. */
#define PXR_WORD_PATTERN                                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/** Where the word that begins at byte `start` of `text` ends: valid UTF-8 of `length` bytes, start < length. Words
 * follow each other without gaps, and finding them all takes time in proportion to the length. */
size_t pxr_word_end(const char *text, size_t length, size_t start);

#endif
