/* Tokens, merges and added tokens; see vocabulary.h. Both hash tables use open addressing and are at most half full. */
#include "text/vocabulary.h"

#include "core/memory.h"
#include "text/utf8.h"

#include <string.h>

enum { SHOWN = 60 /* bytes of a token that a message shows */ };

/* ---- the alphabet: one printable character for each byte (GPT-2's bytes_to_unicode) ----------------------------- */

enum { FIRST_SUBSTITUTE = 256, CONTROLS = 33, UPPER_CONTROLS = 34, SOFT_HYPHEN = 0xAD };

static int32_t written_byte(unsigned char byte)
{
    if (byte < CONTROLS) return FIRST_SUBSTITUTE + byte;
    if (byte >= 0x7F && byte < 0x7F + UPPER_CONTROLS) return FIRST_SUBSTITUTE + CONTROLS + (byte - 0x7F);
    return byte == SOFT_HYPHEN ? FIRST_SUBSTITUTE + CONTROLS + UPPER_CONTROLS : byte;
}

/* The byte that a character stands for, -1 when for none. */
static int byte_of(int32_t character)
{
    if (character < 0) return -1;
    if (character < FIRST_SUBSTITUTE) return written_byte((unsigned char)character) == character ? character : -1;
    const int32_t index = character - FIRST_SUBSTITUTE;
    if (index < CONTROLS) return index;
    if (index < CONTROLS + UPPER_CONTROLS) return 0x7F + index - CONTROLS;
    return index == CONTROLS + UPPER_CONTROLS ? SOFT_HYPHEN : -1;
}

/* Turns a written token into its bytes (no more than `length` of them); false when a character stands for no byte. */
static bool read_written(const char *written, size_t length, char *bytes, size_t *count)
{
    *count = 0;
    for (size_t at = 0; at < length;) {
        int32_t character;
        at += pxr_utf8_read(written + at, length - at, &character);
        const int byte = byte_of(character);
        if (byte < 0) return false;
        bytes[(*count)++] = (char)byte;
    }
    return true;
}

static int shown(size_t length)
{
    return (int)(length < SHOWN ? length : SHOWN);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

void pxr_vocabulary_init(pxr_vocabulary *vocabulary)
{
    *vocabulary = (pxr_vocabulary){0};
    for (int i = 0; i < 256; i++) vocabulary->byte_tokens[i] = PXR_NO_TOKEN;
}

void pxr_vocabulary_free(pxr_vocabulary *vocabulary)
{
    pxr_free(vocabulary->tokens);
    pxr_free(vocabulary->pool);
    pxr_free(vocabulary->slots);
    pxr_free(vocabulary->merges);
    pxr_free(vocabulary->merge_slots);
    pxr_free(vocabulary->nodes);
    pxr_vocabulary_init(vocabulary);
}

static pxr_status no_memory(pxr_error *error)
{
    return pxr_fail(error, PXR_ERROR_MEMORY, "out of memory for a vocabulary");
}

/* Room for `length` more bytes at the pool's end; offsets are 32 bits wide. */
static char *pool_room(pxr_vocabulary *vocabulary, size_t length)
{
    size_t total;
    if (!pxr_add_size(vocabulary->pool_used, length, &total) || total > UINT32_MAX) return NULL;
    if (!pxr_grow((void **)&vocabulary->pool, &vocabulary->pool_capacity, total, 1)) return NULL;
    return vocabulary->pool + vocabulary->pool_used;
}

/* Makes `id` a token whose bytes are the next `length` ones of the pool. */
static bool put_token(pxr_vocabulary *vocabulary, size_t id, size_t length, uint32_t flags)
{
    if (!pxr_grow((void **)&vocabulary->tokens, &vocabulary->token_capacity, id + 1, sizeof *vocabulary->tokens))
        return false;
    if (id >= vocabulary->size) {
        memset(vocabulary->tokens + vocabulary->size, 0, (id + 1 - vocabulary->size) * sizeof *vocabulary->tokens);
        vocabulary->size = id + 1;
    }
    vocabulary->tokens[id] = (pxr_token){(uint32_t)vocabulary->pool_used, (uint32_t)length, flags | PXR_TOKEN_USED};
    vocabulary->pool_used += length;
    return true;
}

/* ---- tokens by their bytes -------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash)
{
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93u;
    return hash ^ hash >> 32;
}

static uint64_t hash_bytes(const char *bytes, size_t length)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001B3u;
    return mix(hash);
}

/* The slot of the token with these bytes, or the empty one where it belongs; there is always an empty one. */
static size_t find_slot(const pxr_vocabulary *vocabulary, const char *bytes, size_t length)
{
    const size_t mask = vocabulary->slot_count - 1;
    size_t slot = (size_t)hash_bytes(bytes, length) & mask;
    for (; vocabulary->slots[slot] != 0; slot = (slot + 1) & mask) {
        const pxr_token *token = &vocabulary->tokens[vocabulary->slots[slot] - 1];
        if (token->length == length && memcmp(vocabulary->pool + token->offset, bytes, length) == 0) break;
    }
    return slot;
}

static bool grow_slots(pxr_vocabulary *vocabulary)
{
    if (vocabulary->slots && vocabulary->slots_used * 2 < vocabulary->slot_count) return true;
    const size_t old_count = vocabulary->slot_count, count = old_count ? old_count * 2 : 1024;
    uint32_t *old = vocabulary->slots, *slots = pxr_calloc(count, sizeof *slots);
    if (!slots) return false;
    vocabulary->slots = slots, vocabulary->slot_count = count;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i] == 0) continue;
        const pxr_token *token = &vocabulary->tokens[old[i] - 1];
        slots[find_slot(vocabulary, vocabulary->pool + token->offset, token->length)] = old[i];
    }
    pxr_free(old);
    return true;
}

static int32_t find_bytes(const pxr_vocabulary *vocabulary, const char *bytes, size_t length)
{
    if (!vocabulary->slots) return PXR_NO_TOKEN;
    return (int32_t)vocabulary->slots[find_slot(vocabulary, bytes, length)] - 1;
}

static pxr_status check_id(const pxr_vocabulary *vocabulary, int64_t id, const char *text, size_t length,
                           pxr_error *error)
{
    if (id < 0 || id >= PXR_TOKEN_ID_LIMIT)
        return pxr_fail(error, PXR_ERROR_FORMAT, "token '%.*s' has id %lld, expected 0 to %d", shown(length), text,
                        (long long)id, PXR_TOKEN_ID_LIMIT - 1);
    if (pxr_vocabulary_token(vocabulary, id))
        return pxr_fail(error, PXR_ERROR_FORMAT, "id %lld of token '%.*s' is another token's, too", (long long)id,
                        shown(length), text);
    return PXR_OK;
}

pxr_status pxr_vocabulary_add(pxr_vocabulary *vocabulary, int64_t id, const char *written, size_t length,
                              pxr_error *error)
{
    size_t count;
    const pxr_status status = check_id(vocabulary, id, written, length, error);
    if (status != PXR_OK) return status;
    if (length == 0) return pxr_fail(error, PXR_ERROR_FORMAT, "the token of id %lld is empty", (long long)id);
    char *bytes = pool_room(vocabulary, length);
    if (!bytes || !grow_slots(vocabulary)) return no_memory(error);
    if (!read_written(written, length, bytes, &count))
        return pxr_fail(error, PXR_ERROR_FORMAT, "token '%.*s' (id %lld) has a character that stands for no byte",
                        shown(length), written, (long long)id);
    const size_t slot = find_slot(vocabulary, bytes, count);
    if (vocabulary->slots[slot] != 0)
        return pxr_fail(error, PXR_ERROR_FORMAT, "token '%.*s' has two ids, %lld and %lld", shown(length), written,
                        (long long)vocabulary->slots[slot] - 1, (long long)id);
    if (count == 1) vocabulary->byte_tokens[(unsigned char)bytes[0]] = (int32_t)id;
    if (!put_token(vocabulary, (size_t)id, count, 0)) return no_memory(error);
    vocabulary->slots[slot] = (uint32_t)id + 1;
    vocabulary->slots_used++;
    return PXR_OK;
}

pxr_status pxr_vocabulary_check_bytes(pxr_vocabulary *vocabulary, pxr_error *error)
{
    for (int byte = 0; byte < 256; byte++) {
        char written[PXR_UTF8_MAX];
        if (vocabulary->byte_tokens[byte] != PXR_NO_TOKEN) continue;
        const size_t length = pxr_utf8_write(written_byte((unsigned char)byte), written);
        return pxr_fail(error, PXR_ERROR_FORMAT, "no token for byte 0x%02X ('%.*s'), expected one for each byte", byte,
                        (int)length, written);
    }
    return PXR_OK;
}

int32_t pxr_vocabulary_find(const pxr_vocabulary *vocabulary, const char *written, size_t length)
{
    char bytes[256], *room = length <= sizeof bytes ? bytes : pxr_malloc(length);
    size_t count;
    int32_t id = PXR_NO_TOKEN;
    if (room && read_written(written, length, room, &count)) id = find_bytes(vocabulary, room, count);
    if (room != bytes) pxr_free(room);
    return id;
}

/* ---- merges ----------------------------------------------------------------------------------------------------- */

static size_t find_merge_slot(const pxr_vocabulary *vocabulary, int32_t left, int32_t right)
{
    const size_t mask = vocabulary->merge_slot_count - 1;
    size_t slot = (size_t)mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & mask;
    for (; vocabulary->merge_slots[slot] != 0; slot = (slot + 1) & mask) {
        const pxr_merge *merge = &vocabulary->merges[vocabulary->merge_slots[slot] - 1];
        if (merge->left == left && merge->right == right) break;
    }
    return slot;
}

static bool grow_merge_slots(pxr_vocabulary *vocabulary)
{
    if (vocabulary->merge_slots && vocabulary->merge_slots_used * 2 < vocabulary->merge_slot_count) return true;
    const size_t old_count = vocabulary->merge_slot_count, count = old_count ? old_count * 2 : 1024;
    uint32_t *old = vocabulary->merge_slots, *slots = pxr_calloc(count, sizeof *slots);
    if (!slots) return false;
    vocabulary->merge_slots = slots, vocabulary->merge_slot_count = count;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i] == 0) continue;
        const pxr_merge *merge = &vocabulary->merges[old[i] - 1];
        slots[find_merge_slot(vocabulary, merge->left, merge->right)] = old[i];
    }
    pxr_free(old);
    return true;
}

int32_t pxr_vocabulary_rank(const pxr_vocabulary *vocabulary, int32_t left, int32_t right)
{
    if (!vocabulary->merge_slots) return PXR_NO_TOKEN;
    return (int32_t)vocabulary->merge_slots[find_merge_slot(vocabulary, left, right)] - 1;
}

pxr_status pxr_vocabulary_add_merge(pxr_vocabulary *vocabulary, const char *left, size_t left_length, const char *right,
                                    size_t right_length, pxr_error *error)
{
    const char *const sides[2] = {left, right};
    const size_t lengths[2] = {left_length, right_length};
    int32_t ids[2];
    size_t total, used = 0;
    char *joined = pxr_add_size(left_length, right_length, &total) ? pool_room(vocabulary, total) : NULL;
    if (!joined) return no_memory(error);
    for (int side = 0; side < 2; side++) {
        size_t count;
        ids[side] = PXR_NO_TOKEN;
        if (read_written(sides[side], lengths[side], joined + used, &count))
            ids[side] = find_bytes(vocabulary, joined + used, count);
        if (ids[side] == PXR_NO_TOKEN)
            return pxr_fail(error, PXR_ERROR_FORMAT, "merge of '%.*s' and '%.*s': '%.*s' is no token of the vocabulary",
                            shown(left_length), left, shown(right_length), right, shown(lengths[side]), sides[side]);
        used += count;
    }
    const int32_t merged = find_bytes(vocabulary, joined, used);
    if (merged == PXR_NO_TOKEN)
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "merge of '%.*s' and '%.*s': what they make together is no token of the vocabulary",
                        shown(left_length), left, shown(right_length), right);
    if (vocabulary->merge_count >= INT32_MAX - 1 || !grow_merge_slots(vocabulary) ||
        !pxr_grow((void **)&vocabulary->merges, &vocabulary->merge_capacity, vocabulary->merge_count + 1,
                  sizeof *vocabulary->merges))
        return no_memory(error);
    const size_t slot = find_merge_slot(vocabulary, ids[0], ids[1]);
    if (vocabulary->merge_slots[slot] == 0) vocabulary->merge_slots_used++;
    vocabulary->merges[vocabulary->merge_count++] = (pxr_merge){ids[0], ids[1], merged};
    vocabulary->merge_slots[slot] = (uint32_t)vocabulary->merge_count;
    return PXR_OK;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

/* The child of `node` for a byte, 0 when there is none. */
static int32_t child_of(const pxr_vocabulary *vocabulary, int32_t node, char byte)
{
    int32_t child = vocabulary->nodes[node].child;
    while (child != 0 && vocabulary->nodes[child].byte != (unsigned char)byte) child = vocabulary->nodes[child].sibling;
    return child;
}

static bool insert_added(pxr_vocabulary *vocabulary, int32_t id, const char *content, size_t length)
{
    int32_t node = 0;
    if (!pxr_grow((void **)&vocabulary->nodes, &vocabulary->node_capacity, vocabulary->node_count + length + 1,
                  sizeof *vocabulary->nodes))
        return false;
    if (vocabulary->node_count == 0) vocabulary->nodes[vocabulary->node_count++] = (pxr_added_node){.id = PXR_NO_TOKEN};
    for (size_t i = 0; i < length; i++) {
        int32_t child = child_of(vocabulary, node, content[i]);
        if (child == 0) {
            child = (int32_t)vocabulary->node_count++;
            vocabulary->nodes[child] = (pxr_added_node){.sibling = vocabulary->nodes[node].child,
                                                        .id = PXR_NO_TOKEN,
                                                        .byte = (unsigned char)content[i]};
            vocabulary->nodes[node].child = child;
        }
        node = child;
    }
    vocabulary->nodes[node].id = id;
    return true;
}

int32_t pxr_vocabulary_match_added(const pxr_vocabulary *vocabulary, const char *text, size_t length, size_t *matched)
{
    int32_t id = PXR_NO_TOKEN, node = 0;
    *matched = 0;
    if (vocabulary->node_count == 0) return PXR_NO_TOKEN;
    for (size_t i = 0; i < length; i++) {
        node = child_of(vocabulary, node, text[i]);
        if (node == 0) break;
        if (vocabulary->nodes[node].id != PXR_NO_TOKEN) id = vocabulary->nodes[node].id, *matched = i + 1;
    }
    return id;
}

int32_t pxr_vocabulary_find_added(const pxr_vocabulary *vocabulary, const char *content, size_t length)
{
    size_t matched;
    const int32_t id = pxr_vocabulary_match_added(vocabulary, content, length, &matched);
    return length > 0 && matched == length ? id : PXR_NO_TOKEN;
}

pxr_status pxr_vocabulary_add_added(pxr_vocabulary *vocabulary, int64_t id, const char *content, size_t length,
                                    uint32_t flags, pxr_error *error)
{
    if (length == 0 || length > PXR_ADDED_LENGTH_LIMIT)
        return pxr_fail(error, PXR_ERROR_FORMAT, "added token of id %lld has %zu bytes, expected 1 to %d",
                        (long long)id, length, PXR_ADDED_LENGTH_LIMIT);
    int32_t known = pxr_vocabulary_find_added(vocabulary, content, length);
    const bool again = known != PXR_NO_TOKEN;
    if (!again) known = pxr_vocabulary_find(vocabulary, content, length);
    if (known != PXR_NO_TOKEN && known != id)
        return pxr_fail(error, PXR_ERROR_FORMAT, "added token '%.*s' has two ids, %lld and %lld", shown(length),
                        content, (long long)known, (long long)id);
    if (again) {
        vocabulary->tokens[known].flags |= flags & PXR_TOKEN_SPECIAL;
        return PXR_OK;
    }
    if (known == PXR_NO_TOKEN) {
        const pxr_status status = check_id(vocabulary, id, content, length, error);
        if (status != PXR_OK) return status;
    }
    char *bytes = pool_room(vocabulary, length);
    if (!bytes || !insert_added(vocabulary, (int32_t)id, content, length)) return no_memory(error);
    memcpy(bytes, content, length);
    if (!put_token(vocabulary, (size_t)id, length, flags | PXR_TOKEN_ADDED)) return no_memory(error);
    vocabulary->added_flags |= flags;
    return PXR_OK;
}

/* ---- tokens by id ----------------------------------------------------------------------------------------------- */

const pxr_token *pxr_vocabulary_token(const pxr_vocabulary *vocabulary, int64_t id)
{
    if (id < 0 || (uint64_t)id >= vocabulary->size || vocabulary->tokens[id].flags == 0) return NULL;
    return &vocabulary->tokens[id];
}

size_t pxr_vocabulary_write(const pxr_vocabulary *vocabulary, const pxr_token *token, char *written)
{
    const char *bytes = vocabulary->pool + token->offset;
    size_t length = 0;
    if (token->flags & PXR_TOKEN_ADDED) {
        memcpy(written, bytes, token->length);
        return token->length;
    }
    for (size_t i = 0; i < token->length; i++)
        length += pxr_utf8_write(written_byte((unsigned char)bytes[i]), written + length);
    return length;
}
