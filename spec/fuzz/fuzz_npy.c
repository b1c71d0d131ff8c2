/* Any bytes as a .npy file. */
#include "bytes.h"
#include "io/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pxr_tensor file = fuzz_file(data, size), tensor;
    pxr_error error = {0};
    if (pxr_npy_read(&tensor, &file, &error) == PXR_OK) fuzz_touch(&tensor);
    pxr_tensor_release(&tensor);
    pxr_tensor_release(&file);
    return 0;
}
