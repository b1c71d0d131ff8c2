/* Angles of rotary positions; see rotary.h. */
#include "model/rotary.h"

#include <math.h>

void pxr_rotary_frequencies(float *frequencies, int64_t dim, float theta)
{
    for (int64_t i = 0; i < dim / 2; i++)
        frequencies[i] = 1.0f / (float)pow((double)theta, (double)((float)(2 * i) / (float)dim));
}

void pxr_rotary_angles(float *cosines, float *sines, const float *frequencies, int64_t count, float position)
{
    for (int64_t i = 0; i < count; i++) {
        const double angle = (double)(position * frequencies[i]);
        cosines[i] = (float)cos(angle);
        sines[i] = (float)sin(angle);
    }
}
