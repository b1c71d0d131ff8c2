/* The tokenizer. The first byte of the input says what the rest is: one of a tokenizer's files, the others being the
 * tiny vocabulary's; a text to encode; or ids to decode. A tokenizer that could be made is tried on a text. */
#include "core/memory.h"
#include "text/normalize.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILE_COUNT = 6, TEXT = FILE_COUNT, IDS, MODES };

static pxr_tokenizer_file vocab, merges, config;
static pxr_tokenizer *tiny;

static pxr_tokenizer_file load(const char *path)
{
    FILE *stream = fopen(path, "rb");
    char *data = pxr_malloc(1 << 16);
    if (!stream || !data) __builtin_trap();
    const size_t length = fread(data, 1, 1 << 16, stream);
    fclose(stream);
    return (pxr_tokenizer_file){data, length};
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    pxr_error error = {0};
    vocab = load("spec/fixtures/golden/media/tokenizer_tiny/vocab.json");
    merges = load("spec/fixtures/golden/media/tokenizer_tiny/merges.txt");
    config = load("spec/fixtures/golden/media/tokenizer_tiny/tokenizer_config.json");
    const pxr_tokenizer_files files = {.vocab = vocab, .merges = merges, .config = config};
    if (pxr_tokenizer_new(&tiny, &files, &error) != PXR_OK) __builtin_trap();
    return 0;
}

static void require(bool holds)
{
    if (!holds) __builtin_trap();
}

/* Decoding at once and one by one must agree, where every id stands for a token: of others a stream makes nothing. */
static void decode(const pxr_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special, char **text,
                   size_t *length)
{
    pxr_error error = {0};
    pxr_token_stream stream = {.skip_special = skip_special};
    pxr_text_buffer joined = {0};
    pxr_status status = PXR_OK;
    const pxr_status whole = pxr_tokenizer_decode(tokenizer, ids, count, skip_special, text, length, &error);
    for (size_t i = 0; i < count && status == PXR_OK; i++)
        status = pxr_token_stream_push(&stream, tokenizer, ids[i], &joined, &error);
    if (status == PXR_OK) status = pxr_token_stream_finish(&stream, &joined, &error);
    require(status == PXR_OK);
    if (whole == PXR_OK)
        require(joined.length == *length && (*length == 0 || memcmp(joined.data, *text, *length) == 0));
    pxr_free(joined.data);
}

/* Encoding and decoding; with `is_exact` the NFC form of the text must come back. */
static void try_text(const pxr_tokenizer *tokenizer, const char *text, size_t length, bool is_exact)
{
    pxr_error error = {0};
    int32_t *ids = NULL;
    char *normal = NULL, *decoded = NULL;
    size_t count, normal_length, decoded_length;
    require(pxr_tokenizer_encode(tokenizer, text, length, &ids, &count, &error) == PXR_OK);
    require(pxr_normalize_nfc(text, length, &normal, &normal_length, &error) == PXR_OK);
    decode(tokenizer, ids, count, true, &decoded, &decoded_length);
    pxr_free(decoded);
    decode(tokenizer, ids, count, false, &decoded, &decoded_length);
    if (is_exact)
        require(decoded_length == normal_length && (normal_length == 0 || memcmp(decoded, normal, normal_length) == 0));
    pxr_free(decoded);
    pxr_free(normal);
    pxr_free(ids);
}

static void try_files(int which, pxr_tokenizer_file input)
{
    static const char sample[] = "ab abab <l> <w>x <|im_end|> \xc3\xa9 e\xcc\x81\xff 12\r\n the<REGION>";
    pxr_tokenizer_files files = {.vocab = vocab, .merges = merges, .config = config};
    pxr_tokenizer_file *const places[FILE_COUNT] = {&files.tokenizer,    &files.vocab,  &files.merges,
                                                    &files.added_tokens, &files.config, &files.special_tokens_map};
    pxr_tokenizer *tokenizer = NULL;
    pxr_error error = {0};
    *places[which] = input;
    if (which <= 1) files.config = (pxr_tokenizer_file){0}; /* its ids would clash with most vocabularies */
    if (which == 1) files.merges = (pxr_tokenizer_file){"", 0};
    const pxr_status status = pxr_tokenizer_new(&tokenizer, &files, &error);
    require(status == PXR_OK ? tokenizer != NULL : tokenizer == NULL && error.message[0] != '\0');
    if (tokenizer) try_text(tokenizer, sample, sizeof sample - 1, false);
    pxr_tokenizer_free(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    char *input = pxr_malloc(size - 1), *text = NULL; /* of its exact size, so that a byte too far is seen */
    size_t length;
    if (!input) return 0;
    memcpy(input, data + 1, size - 1);
    const int mode = data[0] % MODES;
    if (mode < FILE_COUNT) {
        try_files(mode, (pxr_tokenizer_file){input, size - 1});
    } else if (mode == TEXT) {
        try_text(tiny, input, size - 1, true);
    } else {
        const size_t count = (size - 1) / 2;
        int32_t *ids = pxr_malloc(count * sizeof *ids);
        for (size_t i = 0; i < count; i++)
            ids[i] = ((unsigned char)input[2 * i] << 8 | (unsigned char)input[2 * i + 1]) % 512;
        decode(tiny, ids, count, data[0] & 128, &text, &length);
        pxr_free(text);
        pxr_free(ids);
    }
    pxr_free(input);
    return 0;
}
