/* What is compiled once for each instruction set: plain functions over rows and widened weights. The drivers (linear.c,
 * attention.c, rows.c, kmeans.c, sample.c) cut an op into pieces of work and call these. All sets give the same bits. */
#ifndef PXR_CPU_KERNELS_H
#define PXR_CPU_KERNELS_H

#include "cpu/cpu.h"

/* A vector of any float type, dense, at any byte; `data` NULL: absent. */
typedef struct pxr_any_row {
    const char *data;
    pxr_dtype dtype;
} pxr_any_row;

/* The scales of a quantised matrix's rows; all zero for a matrix of floats. */
typedef struct pxr_scales {
    const char *data; /* float16, at any byte */
    int64_t stride;   /* bytes from row to row */
    int group_shift;  /* 2^group_shift weights share a scale */
} pxr_scales;

/** Of an op's argument `scales`, which may be NULL, for rows of `columns` weights. */
pxr_scales pxr_cpu_scales_of(const pxr_tensor *scales, int64_t columns);

/* Rows of x in eight bits, for weights in eight or four: a chunk of at most 128 columns, which lie in one group of the
 * weights, shares a scale. Integer units multiply signed by unsigned bytes, so the weights are read with an offset
 * (128, or 8 as they are kept) and the sums corrected by it. */
typedef struct pxr_chunks {
    float *scales;        /* [rows][count] */
    int32_t *corrections; /* [rows][count]: minus the offset times the sum of the chunk's integers */
    int64_t count;        /* of a row */
    int shift;            /* 2^shift columns are a chunk: 5 .. 7 */
} pxr_chunks;

enum { PXR_CHUNK_SHIFT_MIN = 5, PXR_CHUNK_SHIFT_MAX = 7, PXR_CHUNK_BLOCK = 1 << PXR_CHUNK_SHIFT_MAX };

/* out = activation(x weight^T + bias) + residual; strides in elements unless said otherwise. Rows of x are float32;
 * bfloat16 where the weights are, with zeros behind their end up to a multiple of 64 bytes; or int8 with `chunks`, with
 * zeros up to a multiple of PXR_CHUNK_BLOCK, the columns of a chunk ordered as kernels->quantize_x leaves them.
 *
 * Tiled rows of fewer bits lie as the second operands of tiles: [rows / 16][x_stride / 4][16 rows][4 bytes], the chunks'
 * scales and corrections as [rows / 16][count][16 rows]; what rows behind the last hold is of no consequence. */
typedef struct pxr_linear_job {
    float *out;
    const float *residual; /* may be NULL, or `out` */
    pxr_any_row x, weight, bias;
    int64_t out_row, out_column; /* of what lies at `out` */
    int64_t out_stride, residual_stride;
    int64_t x_stride, weight_stride; /* bytes */
    pxr_scales scales;
    pxr_chunks chunks;
    int64_t depth; /* K */
    pxr_activation activation;
    bool is_tiled;
} pxr_linear_job;

/* Up to PXR_LINEAR_FEW rows are one part; more are cut into parts of so many rows and columns. */
enum { PXR_LINEAR_FEW = 16, PXR_LINEAR_ROWS = 192, PXR_LINEAR_COLUMNS = 24 };
enum { PXR_LINEAR_INT8_ROWS = 384, PXR_LINEAR_INT8_COLUMNS = 32 }; /* where they are int8 and not tiled */
enum { PXR_LINEAR_TILE_ROWS = 16, PXR_LINEAR_TILE_COLUMNS = 32 };  /* a tile's, and a tiled part's */
enum { PXR_LINEAR_ROWS_MAX = 384, PXR_LINEAR_COLUMNS_MAX = 32 };   /* of any part of many */

/* Rows row_begin .. row_end-1 and columns column_begin .. column_end-1 of `out`: any number of columns for at most
 * PXR_LINEAR_FEW rows, else at most the rows and columns of their kind. */
typedef struct pxr_linear_part {
    int64_t row_begin, row_end, column_begin, column_end;
} pxr_linear_part;

typedef struct pxr_attention_job {
    float *out;
    const float *q;
    const char *k, *v; /* of the segment's batch entry */
    pxr_dtype kv_dtype;
    int64_t out_stride, out_head_stride, q_stride, q_head_stride;
    int64_t k_stride, k_head_stride, v_stride, v_head_stride; /* bytes */
    int64_t head_dim, group;                                  /* group: query heads that share a key head */
    float scale;
    bool causal;
    bool narrow; /* operands of products are rounded to bfloat16 */
} pxr_attention_job;

/* One key head of one segment, and a range of its query rows. Query row i is query i / group of the segment under its
 * head key_head * group + i % group. */
typedef struct pxr_attention_part {
    pxr_attention_segment segment;
    int64_t key_head;
    int64_t row_begin, row_end; /* at most PXR_ATTENTION_ROWS */
} pxr_attention_part;

enum { PXR_ATTENTION_ROWS = 192, PXR_ATTENTION_SPAN = 512 /* keys */, PXR_HEAD_DIM_MAX = 160 };

/* What a part's rows sum up over one span of keys, whose scores are weighed as exp(score - largest). */
typedef struct pxr_attention_sums {
    float *values;     /* [rows][PXR_HEAD_DIM_MAX], weighted */
    float *largest;    /* [rows] */
    float *weight_sum; /* [rows] */
} pxr_attention_sums;

typedef struct pxr_kernels {
    bool has_tiles; /* rows of x of fewer bits are tiled: always of bfloat16, of int8 above PXR_LINEAR_FEW */
    void (*linear)(const pxr_linear_job *job, const pxr_linear_part *part);
    void (*linear_int8)(const pxr_linear_job *job, const pxr_linear_part *part); /* rows of int8 */

    /* A part's rows over all their keys; or over span number `span` alone; or of sums over each of `spans` spans. */
    void (*attention)(const pxr_attention_job *job, const pxr_attention_part *part);
    void (*attention_span)(const pxr_attention_job *job, const pxr_attention_part *part, int64_t span,
                           pxr_attention_sums sums);
    void (*attention_merge)(const pxr_attention_job *job, const pxr_attention_part *part,
                            const pxr_attention_sums *sums, int64_t spans);

    /* Rows of `count` elements. */
    void (*layer_norm)(float *out, const float *x, pxr_any_row weight, pxr_any_row bias, int64_t count, float epsilon);
    void (*rms_norm)(float *out, const float *x, pxr_any_row weight, int64_t count, float epsilon);
    void (*rope)(float *row, const float *cos, const float *sin, int64_t half);
    void (*silu_mul)(float *out, const float *gate, const float *up, int64_t count);
    void (*widen)(float *out, pxr_any_row row, int64_t count);

    /* Quantised rows: widened to float32; made of a row of any float type (false: it is not finite). */
    void (*dequantize)(float *out, const char *row, pxr_dtype dtype, const char *scales, int group_shift,
                       int64_t count);
    bool (*quantize)(char *out, pxr_dtype dtype, uint16_t *scales, int group_shift, pxr_any_row row, int64_t count);

    /* Rows of x as products read them (see pxr_linear_job), `padded` elements. */
    void (*round_x)(uint16_t *out, const float *x, int64_t count, int64_t padded);
    void (*quantize_x)(int8_t *out, const pxr_chunks *chunks, int64_t row, pxr_dtype weights, const float *x,
                       int64_t count, int64_t padded);

    /* out[i] = exp(x[i] - largest); returns their sum. */
    float (*exp_minus)(float *out, const float *x, int64_t count, float largest);

    /* Squared Euclidean distances of one row to `rows` rows. */
    void (*distances)(float *out, const float *row, const float *rows, int64_t row_count, int64_t row_stride,
                      int64_t count);
} pxr_kernels;

/** The kernels of the instruction set in use. */
const pxr_kernels *pxr_cpu_kernels(void);

extern const pxr_kernels pxr_kernels_scalar;
#if defined(__x86_64__)
extern const pxr_kernels pxr_kernels_avx2, pxr_kernels_avx512, pxr_kernels_avx512_vnni, pxr_kernels_avx512_bf16,
    pxr_kernels_amx;
#endif

/** Runs `work(context, i)` for i = 0 .. count-1 on the pool, handing out the next number to whoever is free: for pieces
 * of unequal size. */
void pxr_parallel_tasks(int64_t count, void (*work)(void *context, int64_t task), void *context);

#endif
