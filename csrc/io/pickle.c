/* A pickle machine for state dicts; see pickle.h. Opcodes as in CPython's Lib/pickletools.py. */
#include "io/pickle.h"

#include "core/memory.h"

#include <string.h>

enum {
    MAX_PICKLE_BYTES = 16 << 20, /* a state dict needs about 150 bytes a tensor */
    PROTOCOL = 2
};

typedef pxr_pickle_value value;

/* ---- opcodes --------------------------------------------------------------------------------------------------- */

enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_NONE = 'N',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_LONG1 = 0x8a,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_BINUNICODE = 'X',
    OP_EMPTY_TUPLE = ')',
    OP_TUPLE = 't',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_EMPTY_DICT = '}',
    OP_SETITEM = 's',
    OP_SETITEMS = 'u',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_GLOBAL = 'c',
    OP_REDUCE = 'R',
    OP_BUILD = 'b',
    OP_BINPERSID = 'Q',
    OP_PROTO = 0x80
};

/* Names of all opcodes, for messages. */
/* clang-format off */
static const char *const opcode_names[256] = {
    ['('] = "MARK", ['.'] = "STOP", ['0'] = "POP", ['1'] = "POP_MARK", ['2'] = "DUP", ['F'] = "FLOAT",
    ['I'] = "INT", ['J'] = "BININT", ['K'] = "BININT1", ['L'] = "LONG", ['M'] = "BININT2", ['N'] = "NONE",
    ['P'] = "PERSID", ['Q'] = "BINPERSID", ['R'] = "REDUCE", ['S'] = "STRING", ['T'] = "BINSTRING",
    ['U'] = "SHORT_BINSTRING", ['V'] = "UNICODE", ['X'] = "BINUNICODE", ['a'] = "APPEND", ['b'] = "BUILD",
    ['c'] = "GLOBAL", ['d'] = "DICT", ['}'] = "EMPTY_DICT", ['e'] = "APPENDS", ['g'] = "GET", ['h'] = "BINGET",
    ['i'] = "INST", ['j'] = "LONG_BINGET", ['l'] = "LIST", [']'] = "EMPTY_LIST", ['o'] = "OBJ", ['p'] = "PUT",
    ['q'] = "BINPUT", ['r'] = "LONG_BINPUT", ['s'] = "SETITEM", ['t'] = "TUPLE", [')'] = "EMPTY_TUPLE",
    ['u'] = "SETITEMS", ['G'] = "BINFLOAT", ['B'] = "BINBYTES", ['C'] = "SHORT_BINBYTES", [0x80] = "PROTO",
    [0x81] = "NEWOBJ", [0x82] = "EXT1", [0x83] = "EXT2", [0x84] = "EXT4", [0x85] = "TUPLE1", [0x86] = "TUPLE2",
    [0x87] = "TUPLE3", [0x88] = "NEWTRUE", [0x89] = "NEWFALSE", [0x8a] = "LONG1", [0x8b] = "LONG4",
    [0x8c] = "SHORT_BINUNICODE", [0x8d] = "BINUNICODE8", [0x8e] = "BINBYTES8", [0x8f] = "EMPTY_SET",
    [0x90] = "ADDITEMS", [0x91] = "FROZENSET", [0x92] = "NEWOBJ_EX", [0x93] = "STACK_GLOBAL", [0x94] = "MEMOIZE",
    [0x95] = "FRAME", [0x96] = "BYTEARRAY8", [0x97] = "NEXT_BUFFER", [0x98] = "READONLY_BUFFER"
};
/* clang-format on */

static const char *opcode_name(unsigned char code)
{
    return opcode_names[code] ? opcode_names[code] : "unknown";
}

/* ---- reading arguments ----------------------------------------------------------------------------------------- */

static pxr_status fail(const pxr_pickle *machine, pxr_error *error, const char *what)
{
    return pxr_fail(error, PXR_ERROR_FORMAT, "pickle: %s (byte %zu)", what, machine->at);
}

/* `count` bytes of the code; NULL when it ends before. */
static const unsigned char *take(pxr_pickle *machine, size_t count)
{
    if (machine->bytes - machine->at < count) return NULL;
    const unsigned char *from = machine->code + machine->at;
    machine->at += count;
    return from;
}

/* A little-endian unsigned number of `count` bytes, at most 4. */
static pxr_status take_number(pxr_pickle *machine, size_t count, uint32_t *number, pxr_error *error)
{
    const unsigned char *from = take(machine, count);
    *number = 0;
    if (!from) return fail(machine, error, "it ends within an opcode's argument");
    for (size_t i = count; i-- > 0;) *number = *number << 8 | from[i];
    return PXR_OK;
}

/* Text up to a newline, which is skipped. */
static pxr_status take_line(pxr_pickle *machine, const char **line, size_t *length, pxr_error *error)
{
    const unsigned char *from = machine->code + machine->at;
    const unsigned char *newline = memchr(from, '\n', machine->bytes - machine->at);
    if (!newline) return fail(machine, error, "a global's name does not end");
    *line = (const char *)from;
    *length = (size_t)(newline - from);
    machine->at += *length + 1;
    return PXR_OK;
}

/* ---- stack and memo -------------------------------------------------------------------------------------------- */

static pxr_status push(pxr_pickle *machine, value pushed, pxr_error *error)
{
    if (!pxr_grow((void **)&machine->stack, &machine->stack_capacity, machine->stack_count + 1, sizeof(value)))
        return pxr_fail_memory(error, machine->stack_count * sizeof(value), "a pickle's stack");
    machine->stack[machine->stack_count++] = pushed;
    return PXR_OK;
}

static pxr_status push_kind(pxr_pickle *machine, pxr_pickle_kind kind, int64_t integer, pxr_error *error)
{
    return push(machine, (value){.kind = kind, .integer = integer}, error);
}

/* The value `depth` below the top (0: the top); NULL when there is none above the last mark. */
static value *peek(const pxr_pickle *machine, size_t depth)
{
    if (machine->stack_count <= depth) return NULL;
    for (size_t i = 0; i <= depth; i++)
        if (machine->stack[machine->stack_count - 1 - i].kind == PXR_PICKLE_MARK) return NULL;
    return &machine->stack[machine->stack_count - 1 - depth];
}

/* Index of the first value above the last mark; false without a mark. */
static bool find_mark(const pxr_pickle *machine, size_t *first)
{
    for (*first = machine->stack_count; *first > 0; --*first)
        if (machine->stack[*first - 1].kind == PXR_PICKLE_MARK) return true;
    return false;
}

static pxr_status put(pxr_pickle *machine, uint32_t index, pxr_error *error)
{
    const value *top = peek(machine, 0);
    if (!top) return fail(machine, error, "nothing to put into the memo");
    if (index > machine->bytes) return fail(machine, error, "a memo index without measure");
    if (!pxr_grow((void **)&machine->memo, &machine->memo_capacity, (size_t)index + 1, sizeof(value)))
        return pxr_fail_memory(error, index * sizeof(value), "a pickle's memo");
    for (; machine->memo_count <= index; machine->memo_count++)
        machine->memo[machine->memo_count] = (value){.kind = PXR_PICKLE_ABSENT};
    machine->memo[index] = *top;
    return PXR_OK;
}

static pxr_status get(pxr_pickle *machine, uint32_t index, pxr_error *error)
{
    if (index >= machine->memo_count || machine->memo[index].kind == PXR_PICKLE_ABSENT)
        return fail(machine, error, "nothing was put at that memo index");
    return push(machine, machine->memo[index], error);
}

/* ---- containers ------------------------------------------------------------------------------------------------ */

/* Replaces the values from stack index `first` on by a tuple of them. */
static pxr_status make_tuple(pxr_pickle *machine, size_t first, bool marked, pxr_error *error)
{
    const size_t count = machine->stack_count - first;
    if (!pxr_grow((void **)&machine->items, &machine->item_capacity, machine->item_count + count, sizeof(value)))
        return pxr_fail_memory(error, count * sizeof(value), "a pickle's tuple");
    if (count > 0) memcpy(machine->items + machine->item_count, machine->stack + first, count * sizeof(value));
    const value tuple = {.kind = PXR_PICKLE_TUPLE, .length = (uint32_t)count, .index = machine->item_count};
    machine->item_count += count;
    machine->stack_count = first - (marked ? 1 : 0);
    return push(machine, tuple, error);
}

static pxr_status make_short_tuple(pxr_pickle *machine, size_t count, pxr_error *error)
{
    if (!peek(machine, count - 1)) return fail(machine, error, "too few values for a tuple");
    return make_tuple(machine, machine->stack_count - count, false, error);
}

static pxr_status make_marked_tuple(pxr_pickle *machine, pxr_error *error)
{
    size_t first;
    if (!find_mark(machine, &first)) return fail(machine, error, "a tuple without a mark");
    return make_tuple(machine, first, true, error);
}

static pxr_status make_dict(pxr_pickle *machine, pxr_error *error)
{
    if (!pxr_grow((void **)&machine->dicts, &machine->dict_capacity, machine->dict_count + 1, sizeof(pxr_pickle_dict)))
        return pxr_fail_memory(error, sizeof(pxr_pickle_dict), "a pickle's dict");
    machine->dicts[machine->dict_count] = (pxr_pickle_dict){0};
    return push(machine, (value){.kind = PXR_PICKLE_DICT, .index = machine->dict_count++}, error);
}

/* Moves the pairs from stack index `first` on into the dict, whose stack index is `dict`. */
static pxr_status set_items(pxr_pickle *machine, size_t dict, size_t first, pxr_error *error)
{
    const size_t count = machine->stack_count - first;
    if (count % 2 != 0 || machine->stack[dict].kind != PXR_PICKLE_DICT)
        return fail(machine, error, "pairs for something that is no dict, or a key without a value");
    pxr_pickle_dict *target = &machine->dicts[machine->stack[dict].index];
    if (!pxr_grow((void **)&machine->pairs, &machine->pair_capacity, machine->pair_count + count / 2,
                  sizeof(pxr_pickle_pair)))
        return pxr_fail_memory(error, count * sizeof(value), "a pickle's dict");
    for (size_t i = first; i < machine->stack_count; i += 2) {
        machine->pairs[machine->pair_count++] = (pxr_pickle_pair){.key = machine->stack[i],
                                                                  .value = machine->stack[i + 1]};
        if (target->last)
            machine->pairs[target->last - 1].next = machine->pair_count;
        else
            target->first = machine->pair_count;
        target->last = machine->pair_count;
    }
    machine->stack_count = dict + 1;
    return PXR_OK;
}

static pxr_status set_item(pxr_pickle *machine, pxr_error *error)
{
    if (!peek(machine, 2)) return fail(machine, error, "too few values for a dict's pair");
    return set_items(machine, machine->stack_count - 3, machine->stack_count - 2, error);
}

static pxr_status set_marked_items(pxr_pickle *machine, pxr_error *error)
{
    size_t first;
    if (!find_mark(machine, &first) || first < 2) return fail(machine, error, "pairs without a mark or a dict");
    return set_items(machine, first - 2, first, error);
}

/* Attributes of an OrderedDict (a state dict carries `_metadata` there): read and dropped. */
static pxr_status build(pxr_pickle *machine, pxr_error *error)
{
    const value *state = peek(machine, 0), *object = peek(machine, 1);
    if (!object || object->kind != PXR_PICKLE_DICT || state->kind != PXR_PICKLE_DICT)
        return fail(machine, error, "attributes for something that is no dict");
    machine->stack_count--;
    return PXR_OK;
}

/* ---- globals, storages, tensors -------------------------------------------------------------------------------- */

static bool is_text(const char *text, size_t length, const char *expected)
{
    return length == strlen(expected) && memcmp(text, expected, length) == 0;
}

static bool value_is_text(const value *tested, const char *expected)
{
    return tested->kind == PXR_PICKLE_TEXT && is_text(tested->text, tested->length, expected);
}

static bool value_is_global(const value *tested, pxr_pickle_global which)
{
    return tested->kind == PXR_PICKLE_GLOBAL && tested->index == (size_t)which;
}

static pxr_status push_global(pxr_pickle *machine, pxr_error *error)
{
    static const struct {
        const char *module, *name;
        pxr_pickle_global global;
    } known[] = {{"collections", "OrderedDict", PXR_PICKLE_ORDERED_DICT},
                 {"torch._utils", "_rebuild_tensor_v2", PXR_PICKLE_REBUILD_TENSOR},
                 {"torch._utils", "_rebuild_parameter", PXR_PICKLE_REBUILD_PARAMETER}};
    static const char suffix[] = "Storage";
    const char *module, *name;
    size_t module_length, length;
    pxr_status status = take_line(machine, &module, &module_length, error);
    if (status == PXR_OK) status = take_line(machine, &name, &length, error);
    if (status != PXR_OK) return status;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is_text(module, module_length, known[i].module) && is_text(name, length, known[i].name))
            return push_kind(machine, PXR_PICKLE_GLOBAL, (int64_t)known[i].global, error);
    if (is_text(module, module_length, "torch") && length > strlen(suffix) && length < 64 &&
        memcmp(name + length - strlen(suffix), suffix, strlen(suffix)) == 0)
        return push(machine,
                    (value){.kind = PXR_PICKLE_GLOBAL,
                            .text = name,
                            .length = (uint32_t)length,
                            .index = PXR_PICKLE_STORAGE_TYPE},
                    error);
    return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                    "pickle: it asks for the global %.*s.%.*s (byte %zu); a state dict needs only tensors, so this was "
                    "refused",
                    (int)(module_length < 100 ? module_length : 100), module, (int)(length < 100 ? length : 100), name,
                    machine->at);
}

/* The persistent id of a storage: ('storage', type, key, location, elements). */
static pxr_status push_storage(pxr_pickle *machine, pxr_error *error)
{
    const value *id = peek(machine, 0);
    const value *part = id && id->kind == PXR_PICKLE_TUPLE && id->length == 5 ? machine->items + id->index : NULL;
    if (!part || !value_is_text(&part[0], "storage") || !value_is_global(&part[1], PXR_PICKLE_STORAGE_TYPE) ||
        part[2].kind != PXR_PICKLE_TEXT || part[3].kind != PXR_PICKLE_TEXT || part[4].kind != PXR_PICKLE_INTEGER)
        return fail(machine, error, "a persistent id that is no storage");
    if (!pxr_grow((void **)&machine->storages, &machine->storage_capacity, machine->storage_count + 1,
                  sizeof(pxr_pickle_storage)))
        return pxr_fail_memory(error, sizeof(pxr_pickle_storage), "a pickle's storage");
    machine->storages[machine->storage_count] = (pxr_pickle_storage){.type = part[1],
                                                                     .key = part[2],
                                                                     .elements = part[4].integer};
    machine->stack_count--;
    return push(machine, (value){.kind = PXR_PICKLE_STORAGE, .index = machine->storage_count++}, error);
}

static bool read_integers(const pxr_pickle *machine, const value *tuple, int64_t *integers)
{
    for (uint32_t i = 0; i < tuple->length; i++) {
        const value *item = &machine->items[tuple->index + i];
        if (item->kind != PXR_PICKLE_INTEGER) return false;
        integers[i] = item->integer;
    }
    return true;
}

/* torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks[, metadata]). */
static pxr_status rebuild_tensor(pxr_pickle *machine, const value *arguments, uint32_t count, value *made,
                                 pxr_error *error)
{
    if ((count != 6 && count != 7) || arguments[0].kind != PXR_PICKLE_STORAGE ||
        arguments[1].kind != PXR_PICKLE_INTEGER || arguments[2].kind != PXR_PICKLE_TUPLE ||
        arguments[3].kind != PXR_PICKLE_TUPLE || arguments[2].length != arguments[3].length)
        return fail(machine, error, "_rebuild_tensor_v2 with other arguments than a tensor has");
    if (arguments[2].length > PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "pickle: a tensor of %u dims; at most %d are supported (byte %zu)", arguments[2].length,
                        PXR_MAX_RANK, machine->at);
    pxr_pickle_tensor tensor = {.storage = arguments[0].index,
                                .offset = arguments[1].integer,
                                .rank = (int)arguments[2].length};
    if (!read_integers(machine, &arguments[2], tensor.size) || !read_integers(machine, &arguments[3], tensor.stride))
        return fail(machine, error, "a tensor's size or stride is not made of integers");
    if (!pxr_grow((void **)&machine->tensors, &machine->tensor_capacity, machine->tensor_count + 1,
                  sizeof(pxr_pickle_tensor)))
        return pxr_fail_memory(error, sizeof(pxr_pickle_tensor), "a pickle's tensor");
    machine->tensors[machine->tensor_count] = tensor;
    *made = (value){.kind = PXR_PICKLE_TENSOR, .index = machine->tensor_count++};
    return PXR_OK;
}

/* callable, arguments -> callable(arguments), for the callables that exist here. */
static pxr_status reduce(pxr_pickle *machine, pxr_error *error)
{
    const value *tuple = peek(machine, 0), *callable = peek(machine, 1);
    value made;
    if (!callable || callable->kind != PXR_PICKLE_GLOBAL || tuple->kind != PXR_PICKLE_TUPLE)
        return fail(machine, error, "a call without a callable and its arguments");
    const uint32_t count = tuple->length;
    const value *arguments = count ? machine->items + tuple->index : NULL;
    switch ((pxr_pickle_global)callable->index) {
    case PXR_PICKLE_ORDERED_DICT:
        if (count != 0) return fail(machine, error, "OrderedDict with arguments");
        machine->stack_count -= 2;
        return make_dict(machine, error);
    case PXR_PICKLE_REBUILD_TENSOR: {
        const pxr_status status = rebuild_tensor(machine, arguments, count, &made, error);
        if (status != PXR_OK) return status;
        break;
    }
    case PXR_PICKLE_REBUILD_PARAMETER: /* (tensor, requires_grad, backward_hooks): the tensor */
        if (count != 3 || arguments[0].kind != PXR_PICKLE_TENSOR)
            return fail(machine, error, "_rebuild_parameter with other arguments than a parameter has");
        made = arguments[0];
        break;
    default:
        return fail(machine, error, "a call of a storage type");
    }
    machine->stack_count -= 2;
    return push(machine, made, error);
}

/* ---- scalars --------------------------------------------------------------------------------------------------- */

static pxr_status push_integer(pxr_pickle *machine, size_t bytes, pxr_error *error)
{
    uint32_t number = 0;
    const pxr_status status = take_number(machine, bytes, &number, error);
    if (status != PXR_OK) return status;
    return push_kind(machine, PXR_PICKLE_INTEGER, bytes == 4 ? (int64_t)(int32_t)number : (int64_t)number, error);
}

/* LONG1: a length byte, then a little-endian number in two's complement. */
static pxr_status push_long(pxr_pickle *machine, pxr_error *error)
{
    uint32_t length = 0;
    const pxr_status status = take_number(machine, 1, &length, error);
    if (status != PXR_OK) return status;
    const unsigned char *from = take(machine, length);
    if (!from) return fail(machine, error, "it ends within an opcode's argument");
    if (length > 8) return fail(machine, error, "an integer of more than 64 bits");
    uint64_t number = length > 0 && from[length - 1] & 0x80 ? UINT64_MAX : 0;
    for (uint32_t i = length; i-- > 0;) number = number << 8 | from[i];
    return push_kind(machine, PXR_PICKLE_INTEGER, (int64_t)number, error);
}

static pxr_status push_text(pxr_pickle *machine, pxr_error *error)
{
    uint32_t length = 0;
    const pxr_status status = take_number(machine, 4, &length, error);
    if (status != PXR_OK) return status;
    const unsigned char *from = take(machine, length);
    if (!from) return fail(machine, error, "a string runs beyond the end");
    return push(machine, (value){.kind = PXR_PICKLE_TEXT, .length = length, .text = (const char *)from}, error);
}

static pxr_status memo_access(pxr_pickle *machine, size_t bytes,
                              pxr_status (*access)(pxr_pickle *, uint32_t, pxr_error *), pxr_error *error)
{
    uint32_t index = 0;
    const pxr_status status = take_number(machine, bytes, &index, error);
    return status == PXR_OK ? access(machine, index, error) : status;
}

/* ---- the machine ----------------------------------------------------------------------------------------------- */

static pxr_status step(pxr_pickle *machine, unsigned char code, pxr_error *error)
{
    switch (code) {
    case OP_MARK:
        return push_kind(machine, PXR_PICKLE_MARK, 0, error);
    case OP_NONE:
        return push_kind(machine, PXR_PICKLE_NONE, 0, error);
    case OP_NEWTRUE:
        return push_kind(machine, PXR_PICKLE_BOOL, 1, error);
    case OP_NEWFALSE:
        return push_kind(machine, PXR_PICKLE_BOOL, 0, error);
    case OP_BININT:
        return push_integer(machine, 4, error);
    case OP_BININT1:
        return push_integer(machine, 1, error);
    case OP_BININT2:
        return push_integer(machine, 2, error);
    case OP_LONG1:
        return push_long(machine, error);
    case OP_BINUNICODE:
        return push_text(machine, error);
    case OP_EMPTY_TUPLE:
        return make_tuple(machine, machine->stack_count, false, error);
    case OP_TUPLE:
        return make_marked_tuple(machine, error);
    case OP_TUPLE1:
        return make_short_tuple(machine, 1, error);
    case OP_TUPLE2:
        return make_short_tuple(machine, 2, error);
    case OP_TUPLE3:
        return make_short_tuple(machine, 3, error);
    case OP_EMPTY_DICT:
        return make_dict(machine, error);
    case OP_SETITEM:
        return set_item(machine, error);
    case OP_SETITEMS:
        return set_marked_items(machine, error);
    case OP_BINPUT:
        return memo_access(machine, 1, put, error);
    case OP_LONG_BINPUT:
        return memo_access(machine, 4, put, error);
    case OP_BINGET:
        return memo_access(machine, 1, get, error);
    case OP_LONG_BINGET:
        return memo_access(machine, 4, get, error);
    case OP_GLOBAL:
        return push_global(machine, error);
    case OP_BINPERSID:
        return push_storage(machine, error);
    case OP_REDUCE:
        return reduce(machine, error);
    case OP_BUILD:
        return build(machine, error);
    default:
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "pickle: the opcode %s (0x%02x) at byte %zu has no place in a state dict, so it was refused",
                        opcode_name(code), code, machine->at - 1);
    }
}

pxr_status pxr_pickle_run(pxr_pickle *machine, const void *code, size_t bytes, pxr_pickle_value *result,
                          pxr_error *error)
{
    *machine = (pxr_pickle){.code = code, .bytes = bytes};
    if (bytes > MAX_PICKLE_BYTES)
        return pxr_fail(error, PXR_ERROR_FORMAT, "pickle: %zu bytes; at most %d are allowed", bytes, MAX_PICKLE_BYTES);
    const unsigned char *start = take(machine, 2);
    if (!start || start[0] != OP_PROTO) return fail(machine, error, "it does not begin with a protocol number");
    if (start[1] != PROTOCOL)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "pickle: protocol %d; only %d is read", start[1], PROTOCOL);
    for (;;) {
        const unsigned char *opcode = take(machine, 1);
        if (!opcode) return fail(machine, error, "it ends without STOP");
        if (*opcode == OP_STOP) break;
        const pxr_status status = step(machine, *opcode, error);
        if (status != PXR_OK) return status;
    }
    if (machine->stack_count != 1 || machine->stack[0].kind == PXR_PICKLE_MARK)
        return fail(machine, error, "it leaves more or less than one value");
    *result = machine->stack[0];
    return PXR_OK;
}

void pxr_pickle_close(pxr_pickle *machine)
{
    pxr_free(machine->stack);
    pxr_free(machine->memo);
    pxr_free(machine->items);
    pxr_free(machine->pairs);
    pxr_free(machine->dicts);
    pxr_free(machine->storages);
    pxr_free(machine->tensors);
    *machine = (pxr_pickle){0};
}
