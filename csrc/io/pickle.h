/* The pickle machine behind torch_pickle.h: runs `data.pkl` and leaves plain values.
 *
 * It knows what protocol 2 needs for dicts, tuples, strings, integers and PyTorch's tensors. A global is one of the few
 * in its table and never looked up; a tensor is only described (storage, offset, sizes, strides), nothing is checked
 * against a storage here. Every array grows with the opcodes read, so memory stays proportional to the input.
 */
#ifndef PXR_IO_PICKLE_H
#define PXR_IO_PICKLE_H

#include "core/tensor.h"

typedef enum pxr_pickle_kind {
    PXR_PICKLE_ABSENT = 0, /* a memo slot that nothing was put into */
    PXR_PICKLE_MARK,
    PXR_PICKLE_NONE,
    PXR_PICKLE_BOOL,    /* integer */
    PXR_PICKLE_INTEGER, /* integer */
    PXR_PICKLE_TEXT,    /* text, length */
    PXR_PICKLE_TUPLE,   /* index of its first item in `items`, length */
    PXR_PICKLE_DICT,    /* index in `dicts` */
    PXR_PICKLE_GLOBAL,  /* index: a pxr_pickle_global; a storage type also has its name as text, length */
    PXR_PICKLE_STORAGE, /* index in `storages` */
    PXR_PICKLE_TENSOR   /* index in `tensors` */
} pxr_pickle_kind;

typedef enum pxr_pickle_global {
    PXR_PICKLE_ORDERED_DICT,
    PXR_PICKLE_REBUILD_TENSOR,
    PXR_PICKLE_REBUILD_PARAMETER,
    PXR_PICKLE_STORAGE_TYPE
} pxr_pickle_global;

typedef struct pxr_pickle_value {
    pxr_pickle_kind kind;
    uint32_t length;  /* bytes of a text, items of a tuple */
    const char *text; /* in the pickle, not NUL-terminated */
    union {
        int64_t integer;
        size_t index;
    };
} pxr_pickle_value;

/* One pair of a dict; the pairs of a dict are chained in the order of insertion. */
typedef struct pxr_pickle_pair {
    pxr_pickle_value key, value;
    size_t next; /* index + 1 of the next pair, 0: the last */
} pxr_pickle_pair;

typedef struct pxr_pickle_dict {
    size_t first, last; /* index + 1 of a pair, 0: empty */
} pxr_pickle_dict;

/* A storage by reference: the persistent id ('storage', type, key, location, elements). */
typedef struct pxr_pickle_storage {
    pxr_pickle_value type; /* a global of kind PXR_PICKLE_STORAGE_TYPE: text is "FloatStorage" ... */
    pxr_pickle_value key;  /* text */
    int64_t elements;
} pxr_pickle_storage;

typedef struct pxr_pickle_tensor {
    size_t storage; /* index in `storages` */
    int64_t offset; /* elements */
    int rank;
    int64_t size[PXR_MAX_RANK], stride[PXR_MAX_RANK]; /* elements; unchecked */
} pxr_pickle_tensor;

/* The machine, and after pxr_pickle_run what it made. Each array: [count] of [capacity]. */
typedef struct pxr_pickle {
    const unsigned char *code; /* borrowed */
    size_t bytes, at;
    pxr_pickle_value *stack, *memo, *items;
    size_t stack_count, stack_capacity, memo_count, memo_capacity, item_count, item_capacity;
    pxr_pickle_pair *pairs;
    size_t pair_count, pair_capacity;
    pxr_pickle_dict *dicts;
    size_t dict_count, dict_capacity;
    pxr_pickle_storage *storages;
    size_t storage_count, storage_capacity;
    pxr_pickle_tensor *tensors;
    size_t tensor_count, tensor_capacity;
} pxr_pickle;

/** Runs a pickle of `bytes` bytes, which must outlive `machine`; `result` is what it leaves. Errors name the opcode and
 * its byte, or the global. Close the machine in any case. */
pxr_status pxr_pickle_run(pxr_pickle *machine, const void *code, size_t bytes, pxr_pickle_value *result,
                          pxr_error *error);

/** Releases everything; a zeroed struct is fine. */
void pxr_pickle_close(pxr_pickle *machine);

#endif
