/* Reading a tokenizer's files.
 *
 * tokenizer.json holds tokens, merges and added tokens; without it vocab.json holds the tokens ({"Ġthe": 279}) and
 * merges.txt the merges (a line "Ġ t" each). Added tokens may also stand in tokenizer_config.json
 * (`added_tokens_decoder`) and in added_tokens.json ({"<REGION>": 151668}). A token is special when its entry says so,
 * or when tokenizer_config.json or special_tokens_map.json gives it a role (`eos_token`, `additional_special_tokens`).
 * A role whose token has no id anywhere is passed over.
 */
#include "text/tokenizer.h"

#include "core/json.h"
#include "core/memory.h"
#include "text/pre_tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_LIMIT = 256 << 20 /* bytes; Qwen2's largest file has 11 MB */ };

static pxr_status wrong_type(pxr_error *error, const char *what, const char *expected, const json_t *found)
{
    static const char *const names[] = {"an object",     "a list", "a string", "an integer",
                                        "a real number", "true",   "false",    "null"};
    return pxr_fail(error, PXR_ERROR_FORMAT, "%s must be %s, found %s", what, expected,
                    found ? names[json_typeof(found)] : "nothing");
}

/* ---- tokens and merges ------------------------------------------------------------------------------------------ */

static pxr_status read_tokens(pxr_vocabulary *vocabulary, json_t *tokens, pxr_error *error)
{
    const char *written;
    size_t length;
    json_t *id;
    json_object_keylen_foreach(tokens, written, length, id)
    {
        if (!json_is_integer(id)) return wrong_type(error, "a token's id", "an integer", id);
        const pxr_status status = pxr_vocabulary_add(vocabulary, json_integer_value(id), written, length, error);
        if (status != PXR_OK) return status;
    }
    return pxr_vocabulary_check_bytes(vocabulary, error);
}

/* One merge as text: two tokens with one blank between them. */
static pxr_status read_merge(pxr_vocabulary *vocabulary, const char *text, size_t length, pxr_error *error)
{
    const char *blank = memchr(text, ' ', length);
    const size_t left = blank ? (size_t)(blank - text) : 0;
    if (left == 0 || left + 1 == length || memchr(blank + 1, ' ', length - left - 1))
        return pxr_fail(error, PXR_ERROR_FORMAT, "'%.*s' is no merge, expected two tokens with a blank between",
                        (int)(length < 60 ? length : 60), text);
    return pxr_vocabulary_add_merge(vocabulary, text, left, blank + 1, length - left - 1, error);
}

static pxr_status read_merges_text(pxr_vocabulary *vocabulary, pxr_tokenizer_file file, pxr_error *error)
{
    size_t line = 1;
    for (size_t at = 0, end; at < file.length; at = end + 1, line++) {
        const char *text = file.data + at, *line_end = memchr(text, '\n', file.length - at);
        size_t length = line_end ? (size_t)(line_end - text) : file.length - at;
        end = at + length;
        while (length > 0 && (text[length - 1] == '\r' || text[length - 1] == ' ')) length--;
        if (length == 0 || (line == 1 && length >= 9 && memcmp(text, "#version:", 9) == 0)) continue;
        const pxr_status status = read_merge(vocabulary, text, length, error);
        if (status != PXR_OK) return pxr_error_prefix(error, "line %zu", line);
    }
    return PXR_OK;
}

/* A list of "a b", or of ["a", "b"] as newer files have it. */
static pxr_status read_merges_list(pxr_vocabulary *vocabulary, json_t *merges, pxr_error *error)
{
    size_t index;
    json_t *merge;
    json_array_foreach(merges, index, merge)
    {
        pxr_status status;
        const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
        if (json_is_string(merge))
            status = read_merge(vocabulary, json_string_value(merge), json_string_length(merge), error);
        else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
            status = pxr_vocabulary_add_merge(vocabulary, json_string_value(left), json_string_length(left),
                                              json_string_value(right), json_string_length(right), error);
        else
            status = wrong_type(error, "a merge", "a string or a list of two strings", merge);
        if (status != PXR_OK) return pxr_error_prefix(error, "model.merges[%zu]", index);
    }
    return PXR_OK;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

static pxr_status read_flag(const json_t *entry, const char *name, uint32_t flag, uint32_t *flags, pxr_error *error)
{
    const json_t *value = json_object_get(entry, name);
    if (value && !json_is_boolean(value)) return wrong_type(error, name, "true or false", value);
    if (json_is_true(value)) *flags |= flag;
    return PXR_OK;
}

/* {"content": "<REGION>", "special": true, "lstrip": false ...}. `normalized` says nothing here: the reference
 * normalises the whole text before it looks for added tokens. */
static pxr_status read_added(pxr_vocabulary *vocabulary, int64_t id, const json_t *entry, pxr_error *error)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } known[] = {{"special", PXR_TOKEN_SPECIAL},
                 {"lstrip", PXR_TOKEN_LSTRIP},
                 {"rstrip", PXR_TOKEN_RSTRIP},
                 {"single_word", PXR_TOKEN_SINGLE_WORD}};
    const json_t *content = json_object_get(entry, "content");
    uint32_t flags = 0;
    if (!json_is_object(entry)) return wrong_type(error, "an added token", "an object", entry);
    if (!json_is_string(content)) return wrong_type(error, "an added token's content", "a string", content);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const pxr_status status = read_flag(entry, known[i].name, known[i].flag, &flags, error);
        if (status != PXR_OK) return status;
    }
    return pxr_vocabulary_add_added(vocabulary, id, json_string_value(content), json_string_length(content), flags,
                                    error);
}

static bool read_decimal(const char *text, size_t length, int64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || i == 9) return false;
        *value = *value * 10 + (text[i] - '0');
    }
    return length > 0;
}

/* tokenizer_config.json's {"151668": {"content": "<REGION>", ...}} */
static pxr_status read_added_decoder(pxr_vocabulary *vocabulary, json_t *decoder, pxr_error *error)
{
    const char *key;
    size_t length;
    json_t *entry;
    if (!json_is_object(decoder)) return wrong_type(error, "added_tokens_decoder", "an object", decoder);
    json_object_keylen_foreach(decoder, key, length, entry)
    {
        int64_t id;
        if (!read_decimal(key, length, &id))
            return pxr_fail(error, PXR_ERROR_FORMAT, "added_tokens_decoder: '%.60s' is no token id", key);
        const pxr_status status = read_added(vocabulary, id, entry, error);
        if (status != PXR_OK) return pxr_error_prefix(error, "added_tokens_decoder");
    }
    return PXR_OK;
}

/* added_tokens.json's {"<REGION>": 151668} */
static pxr_status read_added_ids(pxr_vocabulary *vocabulary, json_t *ids, pxr_error *error)
{
    const char *content;
    size_t length;
    json_t *id;
    json_object_keylen_foreach(ids, content, length, id)
    {
        if (!json_is_integer(id)) return wrong_type(error, "an added token's id", "an integer", id);
        const pxr_status status = pxr_vocabulary_add_added(vocabulary, json_integer_value(id), content, length, 0,
                                                           error);
        if (status != PXR_OK) return status;
    }
    return PXR_OK;
}

/* Marks the token of a role as special: a string, or an object with `content`. */
static pxr_status read_role(pxr_vocabulary *vocabulary, const char *role, const json_t *token, pxr_error *error)
{
    const json_t *content = json_is_object(token) ? json_object_get(token, "content") : token;
    if (!content || json_is_null(content)) return PXR_OK;
    if (!json_is_string(content)) return wrong_type(error, role, "a string or an object with content", content);
    const char *text = json_string_value(content);
    const size_t length = json_string_length(content);
    int32_t id = pxr_vocabulary_find_added(vocabulary, text, length);
    if (id == PXR_NO_TOKEN) id = pxr_vocabulary_find(vocabulary, text, length);
    if (id == PXR_NO_TOKEN) return PXR_OK;
    return pxr_vocabulary_add_added(vocabulary, id, text, length, PXR_TOKEN_SPECIAL, error);
}

static pxr_status read_roles(pxr_vocabulary *vocabulary, const json_t *config, pxr_error *error)
{
    static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    const json_t *more = json_object_get(config, "additional_special_tokens");
    size_t index;
    json_t *token;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const pxr_status status = read_role(vocabulary, roles[i], json_object_get(config, roles[i]), error);
        if (status != PXR_OK) return status;
    }
    if (more && !json_is_null(more) && !json_is_array(more))
        return wrong_type(error, "additional_special_tokens", "a list", more);
    json_array_foreach(more, index, token)
    {
        const pxr_status status = read_role(vocabulary, "a token of additional_special_tokens", token, error);
        if (status != PXR_OK) return status;
    }
    return PXR_OK;
}

/* ---- the files -------------------------------------------------------------------------------------------------- */

/* Refuses a tokenizer.json that cuts words in another way than this library: other ids would come out, silently. */
static pxr_status check_pipeline(const json_t *root, pxr_error *error)
{
    const json_t *normalizer = json_object_get(root, "normalizer"), *kind = json_object_get(normalizer, "type");
    const json_t *steps = json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    const char *form = json_string_value(kind);
    size_t index;
    json_t *step;
    if (normalizer && !json_is_null(normalizer) && (!form || strcmp(form, "NFC") != 0))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "normalizer is '%.60s', expected Qwen2's NFC", form ? form : "");
    json_array_foreach(steps, index, step)
    {
        const json_t *pattern = json_object_get(json_object_get(step, "pattern"), "Regex");
        if (pattern && (!json_is_string(pattern) || strcmp(json_string_value(pattern), PXR_WORD_PATTERN) != 0))
            return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "the pre_tokenizer's pattern is not Qwen2's");
    }
    return PXR_OK;
}

static pxr_status read_tokenizer(pxr_vocabulary *vocabulary, json_t *root, pxr_error *error)
{
    json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    json_t *tokens = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges"), *entry;
    const char *type = json_string_value(json_object_get(model, "type"));
    size_t index;
    if (!json_is_object(model)) return wrong_type(error, "model", "an object", model);
    if (type && strcmp(type, "BPE") != 0)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "model.type is '%.60s', expected 'BPE'", type);
    if (!json_is_object(tokens)) return wrong_type(error, "model.vocab", "an object", tokens);
    if (!json_is_array(merges)) return wrong_type(error, "model.merges", "a list", merges);
    if (added && !json_is_array(added)) return wrong_type(error, "added_tokens", "a list", added);
    pxr_status status = check_pipeline(root, error);
    if (status == PXR_OK && (status = read_tokens(vocabulary, tokens, error)) != PXR_OK)
        pxr_error_prefix(error, "model.vocab");
    if (status == PXR_OK) status = read_merges_list(vocabulary, merges, error);
    if (status != PXR_OK) return status;
    json_array_foreach(added, index, entry)
    {
        const json_t *id = json_object_get(entry, "id");
        status = json_is_integer(id) ? read_added(vocabulary, json_integer_value(id), entry, error)
                                     : wrong_type(error, "id", "an integer", id);
        if (status != PXR_OK) return pxr_error_prefix(error, "added_tokens[%zu]", index);
    }
    return PXR_OK;
}

static pxr_status read_vocab(pxr_vocabulary *vocabulary, json_t *root, pxr_error *error)
{
    return read_tokens(vocabulary, root, error);
}

static pxr_status read_config(pxr_vocabulary *vocabulary, json_t *root, pxr_error *error)
{
    json_t *decoder = json_object_get(root, "added_tokens_decoder");
    return decoder ? read_added_decoder(vocabulary, decoder, error) : PXR_OK;
}

static pxr_status read_special(pxr_vocabulary *vocabulary, json_t *root, pxr_error *error)
{
    return read_roles(vocabulary, root, error);
}

typedef pxr_status (*reader)(pxr_vocabulary *vocabulary, json_t *root, pxr_error *error);

/* Parses a JSON file and hands it to its reader; a file that is not there is passed over. */
static pxr_status read_file(pxr_vocabulary *vocabulary, const char *name, pxr_tokenizer_file file, reader read,
                            pxr_error *error)
{
    pxr_json json;
    if (!file.data) return PXR_OK;
    pxr_status status = pxr_json_parse(&json, file.data, file.length, error);
    if (status == PXR_OK)
        status = json_is_object(json.root) ? read(vocabulary, json.root, error)
                                           : wrong_type(error, "the file", "a JSON object", json.root);
    pxr_json_free(&json);
    return status == PXR_OK ? PXR_OK : pxr_error_prefix(error, "%s", name);
}

static pxr_status read_all(pxr_vocabulary *vocabulary, const pxr_tokenizer_files *files, pxr_error *error)
{
    pxr_status status;
    if (files->tokenizer.data) {
        status = read_file(vocabulary, "tokenizer.json", files->tokenizer, read_tokenizer, error);
    } else if (files->vocab.data && files->merges.data) {
        status = read_file(vocabulary, "vocab.json", files->vocab, read_vocab, error);
        if (status == PXR_OK && (status = read_merges_text(vocabulary, files->merges, error)) != PXR_OK)
            pxr_error_prefix(error, "merges.txt");
    } else {
        const char *found = files->vocab.data    ? "vocab.json alone"
                            : files->merges.data ? "merges.txt alone"
                                                 : "neither";
        return pxr_fail(error, PXR_ERROR_IO,
                        "no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, found %s", found);
    }
    if (status == PXR_OK) status = read_file(vocabulary, "tokenizer_config.json", files->config, read_config, error);
    if (status == PXR_OK)
        status = read_file(vocabulary, "added_tokens.json", files->added_tokens, read_added_ids, error);
    if (status == PXR_OK) status = read_file(vocabulary, "tokenizer_config.json", files->config, read_special, error);
    if (status == PXR_OK)
        status = read_file(vocabulary, "special_tokens_map.json", files->special_tokens_map, read_special, error);
    return status;
}

pxr_status pxr_tokenizer_new(pxr_tokenizer **tokenizer, const pxr_tokenizer_files *files, pxr_error *error)
{
    pxr_tokenizer *made = *tokenizer = NULL;
    made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "a tokenizer");
    pxr_vocabulary_init(&made->vocabulary);
    const pxr_status status = read_all(&made->vocabulary, files, error);
    if (status != PXR_OK) {
        pxr_tokenizer_free(made);
        return status;
    }
    *tokenizer = made;
    return PXR_OK;
}

/* ---- the directory ---------------------------------------------------------------------------------------------- */

/* Reads the whole file into a block for pxr_free; no data when it does not exist. */
static pxr_status load(const char *directory, const char *name, pxr_tokenizer_file *file, pxr_error *error)
{
    char path[4096];
    struct stat info;
    pxr_status status = PXR_OK;
    char *data = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "the path '%.60s...' is too long", directory);
    /* O_NONBLOCK: opening a fifo must not wait for a writer before it can be refused. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return errno == ENOENT ? PXR_OK : pxr_fail_errno(error, "%s", path);
    FILE *stream = fdopen(descriptor, "rb");
    if (!stream) {
        status = pxr_fail_errno(error, "%s", path);
        close(descriptor);
        return status;
    }
    if (fstat(descriptor, &info) != 0) {
        status = pxr_fail_errno(error, "%s", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = pxr_fail(error, PXR_ERROR_IO, "%s: not a regular file", path);
    } else if (info.st_size > FILE_LIMIT) {
        status = pxr_fail(error, PXR_ERROR_FORMAT, "%s: %lld bytes, expected at most %d", path, (long long)info.st_size,
                          FILE_LIMIT);
    } else {
        const size_t size = (size_t)info.st_size;
        data = pxr_malloc(size);
        if (!data)
            status = pxr_fail_memory(error, size, path);
        else if (fread(data, 1, size, stream) != size)
            status = pxr_fail(error, PXR_ERROR_IO, "%s: could not read its %zu bytes", path, size);
        *file = (pxr_tokenizer_file){data, size};
    }
    fclose(stream);
    return status;
}

pxr_status pxr_tokenizer_open(pxr_tokenizer **tokenizer, const char *directory, pxr_error *error)
{
    pxr_tokenizer_files files = {0};
    struct {
        const char *name;
        pxr_tokenizer_file *file;
    } parts[] = {{"tokenizer.json", &files.tokenizer},
                 {"vocab.json", &files.vocab},
                 {"merges.txt", &files.merges},
                 {"added_tokens.json", &files.added_tokens},
                 {"tokenizer_config.json", &files.config},
                 {"special_tokens_map.json", &files.special_tokens_map}};
    const size_t count = sizeof parts / sizeof *parts;
    struct stat info;
    pxr_status status = PXR_OK;
    *tokenizer = NULL;
    if (stat(directory, &info) != 0) return pxr_fail_errno(error, "%s", directory);
    if (!S_ISDIR(info.st_mode)) return pxr_fail(error, PXR_ERROR_IO, "%s: not a directory", directory);
    for (size_t i = 0; i < count && status == PXR_OK; i++) {
        const bool superseded = files.tokenizer.data && i > 0 && i < 3; /* vocab.json and merges.txt */
        if (!superseded) status = load(directory, parts[i].name, parts[i].file, error);
    }
    if (status == PXR_OK && (status = pxr_tokenizer_new(tokenizer, &files, error)) != PXR_OK)
        pxr_error_prefix(error, "%s", directory);
    for (size_t i = 0; i < count; i++) pxr_free((void *)(uintptr_t)parts[i].file->data);
    return status;
}
