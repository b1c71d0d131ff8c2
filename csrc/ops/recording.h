/* Work that is asked for once and done many times: a device that records queues ops without doing them, and plays them
 * again on whatever lies in their tensors then. What the host decides between ops (segments, scales) stays as it was;
 * what changes from time to time is read by the ops from tensors (attention's and rope_store's `places`).
 *
 *     if (pxr_recording_begin(device, error) == PXR_OK) {
 *         status = ask_for_ops(error);                                 // nothing is done yet
 *         status = pxr_recording_end(&recording, device, status, error);
 *     }
 *     ... pxr_recording_play(recording, &played, error) ...
 *     pxr_recording_free(recording);
 *
 * The ops must have run once without being recorded: then all that they need is allocated, which it cannot be here.
 */
#ifndef PXR_OPS_RECORDING_H
#define PXR_OPS_RECORDING_H

#include "core/device.h"

typedef struct pxr_recording pxr_recording;

/** Ops of `device`, which `records`, are kept from now on. */
pxr_status pxr_recording_begin(pxr_device *device, pxr_error *error);

/** Ends that. `asked` is what came of asking: where it is no success it comes back, and there is no recording. */
pxr_status pxr_recording_end(pxr_recording **recording, pxr_device *device, pxr_status asked, pxr_error *error);

/** Queues the recorded work; its tensors must live. `*played` is false, and nothing was done, where memory that the device
 * had lent to the ops has moved since: record anew. */
pxr_status pxr_recording_play(const pxr_recording *recording, bool *played, pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_recording_free(pxr_recording *recording);

#endif
