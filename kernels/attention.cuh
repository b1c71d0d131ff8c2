/* What the attention kernels share: where rows lie, and the segments of a launch. */
#ifndef PXR_KERNELS_ATTENTION_CUH
#define PXR_KERNELS_ATTENTION_CUH

#include "device.h"

enum { PXR_GPU_SEGMENTS = 64 /* of one launch: they travel as the kernel's argument */ };

struct pxr_gpu_segment {
    int query_begin, query_count, key_begin, key_count, batch;
};

struct pxr_gpu_segments {
    pxr_gpu_segment at[PXR_GPU_SEGMENTS];
};

/* Strides in elements. */
struct pxr_gpu_attention_job {
    void *out;         /* [n,heads,head_dim] */
    const float *q;    /* [n,heads,head_dim] */
    const void *k, *v; /* [batch,m,kv_heads,head_dim] */
    pxr_dtype out_type, k_type, v_type;
    int64_t out_stride, out_head_stride, q_stride, q_head_stride;
    int64_t k_batch_stride, k_stride, k_head_stride, v_batch_stride, v_stride, v_head_stride;
    const int64_t *places;      /* [segments] or NULL: as in ops.h, from the launch's first segment on */
    int64_t batches, m;         /* of k and v */
    int heads, group, head_dim; /* group: query heads that share a key head */
    float scale;
    bool causal;
};

/** Float32, head dims up to 160. attention.cu */
pxr_status pxr_gpu_attention_plain(pxr_device *device, const pxr_gpu_attention_job *job,
                                   const pxr_gpu_segments *segments, int count, int longest, pxr_error *error);

/** Tensor cores, head dims 72 and 128, bfloat16 operands. flash.cu */
bool pxr_gpu_attention_flash_takes(const pxr_gpu_attention_job *job);
pxr_status pxr_gpu_attention_flash(pxr_device *device, const pxr_gpu_attention_job *job,
                                   const pxr_gpu_segments *segments, int count, int longest, pxr_error *error);

#endif
