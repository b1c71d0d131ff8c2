/* Any bytes as a safetensors file. */
#include "bytes.h"
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pxr_tensor file = fuzz_file(data, size);
    pxr_tensor_map *tensors = pxr_tensor_map_new();
    pxr_metadata metadata = {0};
    pxr_error error = {0};
    if (pxr_safetensors_read(&file, tensors, &metadata, &error) == PXR_OK) fuzz_touch_all(tensors);
    pxr_metadata_free(&metadata);
    pxr_tensor_map_free(tensors);
    pxr_tensor_release(&file);
    return 0;
}
