/* Tensors by name: what a checkpoint reader fills and a model part takes its weights from. Names keep their order. */
#ifndef PXR_CORE_TENSOR_MAP_H
#define PXR_CORE_TENSOR_MAP_H

#include "core/tensor.h"

typedef struct pxr_tensor_map pxr_tensor_map;

/** An empty map; NULL when there is no memory. */
pxr_tensor_map *pxr_tensor_map_new(void);

/** Releases the map and its holds on the tensors; NULL is fine. */
void pxr_tensor_map_free(pxr_tensor_map *map);

/** Adds a view (retained by the map) under a name of `length` bytes. Errors: a name that is already there, memory. */
pxr_status pxr_tensor_map_add(pxr_tensor_map *map, const char *name, size_t length, const pxr_tensor *tensor,
                              pxr_error *error);

/** The tensor of that name, borrowed; NULL when there is none. */
const pxr_tensor *pxr_tensor_map_find(const pxr_tensor_map *map, const char *name);

/** Number of entries. */
size_t pxr_tensor_map_count(const pxr_tensor_map *map);

/** Entry `index` (0-based, in order of addition): its name (NUL-terminated) and its tensor, both borrowed. */
const pxr_tensor *pxr_tensor_map_at(const pxr_tensor_map *map, size_t index, const char **name);

#endif
