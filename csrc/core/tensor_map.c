/* Tensors by name: an array in order of addition and an open-addressing index over it; see tensor_map.h. */
#include "core/tensor_map.h"

#include "core/memory.h"

#include <string.h>

typedef struct entry {
    char *name;
    pxr_tensor tensor;
} entry;

struct pxr_tensor_map {
    entry *entries; /* [count] of [capacity] */
    size_t count, capacity;
    uint32_t *slots; /* [slot_count], a power of two: index of an entry + 1, or 0 */
    size_t slot_count;
};

static uint64_t hash(const char *name, size_t length) /* FNV-1a */
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) h = (h ^ (unsigned char)name[i]) * 1099511628211u;
    return h ^ (h >> 32);
}

/* The slot that holds the name, or the empty one where it would go. */
static uint32_t *slot_of(const pxr_tensor_map *map, const char *name, size_t length)
{
    for (size_t i = hash(name, length);; i++) {
        uint32_t *slot = &map->slots[i & (map->slot_count - 1)];
        if (*slot == 0) return slot;
        const char *other = map->entries[*slot - 1].name;
        if (strlen(other) == length && memcmp(other, name, length) == 0) return slot;
    }
}

static bool grow_index(pxr_tensor_map *map)
{
    const size_t old_count = map->slot_count;
    uint32_t *old = map->slots;
    uint32_t *slots = pxr_calloc(old_count ? 2 * old_count : 64, sizeof *slots);
    if (!slots) return false;
    map->slots = slots;
    map->slot_count = old_count ? 2 * old_count : 64;
    for (size_t i = 0; i < map->count; i++)
        *slot_of(map, map->entries[i].name, strlen(map->entries[i].name)) = (uint32_t)i + 1;
    pxr_free(old);
    return true;
}

pxr_tensor_map *pxr_tensor_map_new(void)
{
    return pxr_calloc(1, sizeof(pxr_tensor_map));
}

void pxr_tensor_map_free(pxr_tensor_map *map)
{
    if (!map) return;
    for (size_t i = 0; i < map->count; i++) {
        pxr_free(map->entries[i].name);
        pxr_tensor_release(&map->entries[i].tensor);
    }
    pxr_free(map->entries);
    pxr_free(map->slots);
    pxr_free(map);
}

pxr_status pxr_tensor_map_add(pxr_tensor_map *map, const char *name, size_t length, const pxr_tensor *tensor,
                              pxr_error *error)
{
    if (memchr(name, '\0', length))
        return pxr_fail(error, PXR_ERROR_FORMAT, "a tensor's name holds a NUL byte: \"%.*s\"", (int)length, name);
    if (map->slot_count < 2 * (map->count + 1) && !grow_index(map))
        return pxr_fail_memory(error, 8 * map->count, "an index of tensor names");
    uint32_t *slot = slot_of(map, name, length);
    if (*slot)
        return pxr_fail(error, PXR_ERROR_FORMAT, "the tensor \"%.*s\" is there twice",
                        (int)(length < 200 ? length : 200), name);
    if (!pxr_grow((void **)&map->entries, &map->capacity, map->count + 1, sizeof *map->entries))
        return pxr_fail_memory(error, sizeof *map->entries, "a tensor's name");
    char *copy = pxr_strndup(name, length);
    if (!copy) return pxr_fail_memory(error, length, "a tensor's name");
    map->entries[map->count].name = copy;
    pxr_tensor_alias(&map->entries[map->count].tensor, tensor);
    *slot = (uint32_t)++map->count;
    return PXR_OK;
}

const pxr_tensor *pxr_tensor_map_find(const pxr_tensor_map *map, const char *name)
{
    if (map->count == 0) return NULL;
    const uint32_t slot = *slot_of(map, name, strlen(name));
    return slot ? &map->entries[slot - 1].tensor : NULL;
}

size_t pxr_tensor_map_count(const pxr_tensor_map *map)
{
    return map->count;
}

const pxr_tensor *pxr_tensor_map_at(const pxr_tensor_map *map, size_t index, const char **name)
{
    *name = map->entries[index].name;
    return &map->entries[index].tensor;
}
