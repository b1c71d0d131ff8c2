/* PyTorch's `.bin` and `.pt` state dicts: a zip of stored entries, of which `<root>/data.pkl` (pickle, protocol 2) says
 * how tensors are laid over the storages `<root>/data/<key>`.
 *
 * Nothing is executed: a small machine knows the opcodes that a state dict is made of and a handful of globals, and
 * refuses everything else by name.
 */
#ifndef PXR_IO_TORCH_PICKLE_H
#define PXR_IO_TORCH_PICKLE_H

#include "core/tensor_map.h"

/** Adds every tensor of the state dict in `file` (uint8 [bytes], see mapped_file.h) to `tensors`, as views of the file
 * with the strides that were saved. The state dict is the file's object itself, or lies under "state_dict", "model" or
 * "module" in it. Bool becomes uint8. Errors name the opcode, global, entry or tensor; on failure `tensors` may hold a
 * part. */
pxr_status pxr_torch_read(const pxr_tensor *file, pxr_tensor_map *tensors, pxr_error *error);

#endif
