/* Angles of rotary positions, made on the host. */
#ifndef PXR_MODEL_ROTARY_H
#define PXR_MODEL_ROTARY_H

#include <stdint.h>

/** Inverse frequencies theta^(-2i/dim), i = 0 .. dim/2-1, in float32 as transformers' rotary embeddings have them. */
void pxr_rotary_frequencies(float *frequencies, int64_t dim, float theta);

/** cosines[i] and sines[i] of position * frequencies[i]; the product is float32, as the reference's is. */
void pxr_rotary_angles(float *cosines, float *sines, const float *frequencies, int64_t count, float position);

#endif
