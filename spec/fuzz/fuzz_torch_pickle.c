/* Any bytes as a PyTorch file; inputs that begin with "pkl" are a bare pickle, which spares the fuzzer the zip. */
#include "bytes.h"
#include "io/pickle.h"
#include "io/torch_pickle.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_pickle(const uint8_t *data, size_t size)
{
    pxr_pickle machine;
    pxr_pickle_value result;
    pxr_error error = {0};
    pxr_pickle_run(&machine, data, size, &result, &error);
    pxr_pickle_close(&machine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 3 && memcmp(data, "pkl", 3) == 0) {
        run_pickle(data + 3, size - 3);
        return 0;
    }
    pxr_tensor file = fuzz_file(data, size);
    pxr_tensor_map *tensors = pxr_tensor_map_new();
    pxr_error error = {0};
    if (pxr_torch_read(&file, tensors, &error) == PXR_OK) fuzz_touch_all(tensors);
    pxr_tensor_map_free(tensors);
    pxr_tensor_release(&file);
    return 0;
}
