/* Recorded work; see recording.h. */
#include "ops/recording.h"

#include "core/memory.h"
#include "ops/backend.h"

struct pxr_recording {
    pxr_device *device;
    void *work; /* the backend's own */
};

pxr_status pxr_recording_begin(pxr_device *device, pxr_error *error)
{
    if (!device->records) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s does not record", device->name);
    return device->backend->record(device, error);
}

pxr_status pxr_recording_end(pxr_recording **recording, pxr_device *device, pxr_status asked, pxr_error *error)
{
    pxr_error own = {0};
    void *work = NULL;
    *recording = NULL;
    const pxr_status ended = device->backend->end_record(device, &work, &own);
    if (asked == PXR_OK && ended == PXR_OK) {
        pxr_recording *made = pxr_malloc(sizeof *made);
        if (made) {
            *made = (pxr_recording){.device = device, .work = work};
            *recording = made;
            return PXR_OK;
        }
        asked = pxr_fail_memory(error, sizeof *made, "a recording");
    } else if (asked == PXR_OK) {
        *error = own;
        asked = ended;
    }
    if (work) device->backend->forget(device, work);
    return asked;
}

pxr_status pxr_recording_play(const pxr_recording *recording, bool *played, pxr_error *error)
{
    return recording->device->backend->play(recording->device, recording->work, played, error);
}

void pxr_recording_free(pxr_recording *recording)
{
    if (!recording) return;
    recording->device->backend->forget(recording->device, recording->work);
    pxr_free(recording);
}
