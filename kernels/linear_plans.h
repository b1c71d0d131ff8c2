/* Which of cuBLASLt's proposals computes a product, where the first one is not the fastest: measured by `make plans`,
 * which writes this file. Nothing is timed when a model runs, so that the same card and library give the same bits.
 */
#ifndef PXR_KERNELS_LINEAR_PLANS_H
#define PXR_KERNELS_LINEAR_PLANS_H

struct pxr_gpu_plan {
    int card;           /* compute capability: 90 is 9.0 */
    int rows;           /* more than half of these and no more */
    int columns, depth; /* of the product */
    int proposal;       /* 0: the first */
};

static const pxr_gpu_plan pxr_gpu_plans[] = {
    {0, 0, 0, 0, 0}, /* the end */
};

#endif
