/* The op API: what can be computed on tensors, on any device.
 *
 * Every op takes one struct of named arguments (zeroed members are absent options) and is called as
 *
 *     pxr_linear(&(pxr_linear_args){.out = &y, .x = &x, .weight = &w, .bias = &b}, error)
 *
 * The call checks shapes, types and devices once, here, and hands the work to the backend of the device that holds
 * `out`; backends may rely on what is checked. Outputs are written into tensors the caller made; they must not overlap
 * inputs unless the op says so. "rows dense" means that the last dim has stride 1. Float arithmetic is float32 with
 * float32 accumulation; a row of a result never depends on how many rows are computed with it.
 *
 * The structs are plain C: kernels/ includes this file too.
 */
#ifndef PXR_OPS_OPS_H
#define PXR_OPS_OPS_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ==== fused ops ================================================================================================= */
/* "activations" below: float32; where the memory is not the host's bfloat16 too, each argument as it likes. */

typedef enum pxr_activation {
    PXR_ACTIVATION_NONE = 0,
    PXR_ACTIVATION_GELU_TANH, /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the vision encoder's */
    PXR_ACTIVATION_GELU_ERF,  /* 0.5 x (1 + erf(x / sqrt 2)): the projector's and feat_linear's */
    PXR_ACTIVATION_COUNT
} pxr_activation;

/* Quantised matrices. A weight is an integer times the scale of its group: 2^s neighbours of a row, at least 16, the
 * last group of a row may be short. The integers are int8 [N,K], or uint8 [N,ceil(K/2)] with two values q of four bits in
 * a byte, stored as q + 8, the earlier one in the low half; the scales are float16 [N,ceil(K/2^s)]. A product is
 * float32, as if the matrix had been widened first. */

enum { PXR_GROUP_SHIFT_MIN = 4, PXR_GROUP_SHIFT_MAX = 10 };

/** The s with which rows of `columns` weights have `groups` scales; -1 when there is none. */
int pxr_group_shift(int64_t columns, int64_t groups);

/* out = activation(x weight^T + bias) + residual. `residual` may be `out`. */
typedef struct pxr_linear_args {
    const pxr_tensor *out;      /* [n,N] activations, rows dense */
    const pxr_tensor *x;        /* [n,K] activations, rows dense */
    const pxr_tensor *weight;   /* [N,K] float32, float16 or bfloat16, rows dense, at any byte; or integers */
    const pxr_tensor *scales;   /* of integers, rows dense, at any byte; else NULL */
    const pxr_tensor *bias;     /* [N] any float type, dense, or NULL */
    const pxr_tensor *residual; /* [n,N] float32, rows dense, or NULL */
    pxr_activation activation;
    bool constant; /* weight and scales are a loaded model's: a device may read them before earlier work is done */
} pxr_linear_args;

/* Rows of `x` normalised to mean 0 and variance 1 (biased), times weight, plus bias. `out` may be `x`. */
typedef struct pxr_layer_norm_args {
    const pxr_tensor *out;    /* [n,D] activations, rows dense */
    const pxr_tensor *x;      /* [n,D] float32, rows dense */
    const pxr_tensor *weight; /* [D] any float type, dense */
    const pxr_tensor *bias;   /* [D] any float type, dense */
    float epsilon;
} pxr_layer_norm_args;

/* Rows of `x` divided by the root of their mean square, times weight. `out` may be `x`. */
typedef struct pxr_rms_norm_args {
    const pxr_tensor *out;    /* [n,D] activations, rows dense */
    const pxr_tensor *x;      /* [n,D] float32, rows dense */
    const pxr_tensor *weight; /* [D] any float type, dense */
    float epsilon;
} pxr_rms_norm_args;

/* Rotary positions, rotate-half form, in place on `out`: with h = head_dim/2,
 * (a, b) = (x[i], x[i+h]) becomes (a cos[i] - b sin[i], b cos[i] + a sin[i]). */
typedef struct pxr_rope_args {
    const pxr_tensor *out; /* [n,heads,head_dim] float32, rows dense, head_dim even */
    const pxr_tensor *cos; /* [n,head_dim/2] float32, rows dense */
    const pxr_tensor *sin; /* [n,head_dim/2] float32, rows dense */
} pxr_rope_args;

/* What fresh queries, keys and values go through before they meet a past: rope on q and k, in place, then row i of k and
 * of v goes to position places[i] % m of sequence places[i] / m, converted to the past's type. */
typedef struct pxr_rope_store_args {
    const pxr_tensor *q;             /* [n,heads,head_dim] float32, rows dense, head_dim even; in place */
    const pxr_tensor *k;             /* [n,kv_heads,head_dim] float32, rows dense; in place */
    const pxr_tensor *v;             /* [n,kv_heads,head_dim] float32, rows dense */
    const pxr_tensor *cos, *sin;     /* [n,head_dim/2] float32, rows dense */
    const pxr_tensor *keys, *values; /* [batch,m,kv_heads,head_dim] one float type, rows dense: the past */
    const pxr_tensor *places;        /* [n] int64, contiguous, all different. One outside of the past is an error where
                                        the memory is the host's; elsewhere that row is not stored. */
} pxr_rope_store_args;

/* One sequence of a packed attention call: query rows and key rows that see each other. */
typedef struct pxr_attention_segment {
    int64_t query_begin, query_count; /* rows of q and out */
    int64_t key_begin, key_count;     /* rows of k and v */
    int64_t batch;                    /* index into the leading dim of k and v when they have four dims, else 0 */
} pxr_attention_segment;

/* softmax(scale q k^T) v for each segment on its own. With `causal`, the last query of a segment sees all its keys, the
 * one before it all but the last, and so on (key_count >= query_count). Query head h uses key head h*kv_heads/heads.
 * Keys are visited in order, in blocks counted from the segment's first key, so that a query row's result does not
 * depend on the other rows of the call.
 *
 * With `places` each segment has one query and the keys 0 .. places[i] % m of batch places[i] / m. `segments` says what
 * holds now; a device whose work is recorded reads the places when the work is done. */
typedef struct pxr_attention_args {
    const pxr_tensor *out; /* [n,heads,head_dim] activations, rows dense */
    const pxr_tensor *q;   /* [n,heads,head_dim] float32, rows dense */
    const pxr_tensor *k;   /* [m,kv_heads,head_dim] or [batch,m,kv_heads,head_dim] float32 or float16 (any float type
                              where the memory is not the host's), rows dense */
    const pxr_tensor *v;   /* as k */
    const pxr_attention_segment *segments; /* host memory; in order of their queries, which none shares */
    int64_t segment_count;
    const pxr_tensor *places; /* [segment_count] int64, contiguous, or NULL */
    float scale;
    bool causal;
} pxr_attention_args;

/* What attention multiplies v with and never keeps, for looking inside: softmax(scale q k^T) of one sequence. With
 * `causal` the queries are the last of the keys, as in attention; what a query does not see has weight 0. */
typedef struct pxr_attention_weights_args {
    const pxr_tensor *out; /* [heads,n,m] float32, rows dense */
    const pxr_tensor *q;   /* [n,heads,head_dim] float32, rows dense */
    const pxr_tensor *k;   /* [m,kv_heads,head_dim] float32, rows dense */
    float scale;
    bool causal;
} pxr_attention_weights_args;

/* out = silu(gate) * up, silu(x) = x / (1 + exp(-x)). `out` may be `gate`. */
typedef struct pxr_silu_mul_args {
    const pxr_tensor *out, *gate, *up; /* [n,F] activations, rows dense */
} pxr_silu_mul_args;

/* Several products of the same rows (queries, keys and values), each to the bit what linear gives, and what stands around
 * them in a layer. What can be done once is: rows are rounded, and where they are few the weights are read in one go. No
 * `out` is another's residual. What only passes something on (x behind a norm, gate and up before silu_mul) a device may
 * leave unwritten. */
enum { PXR_LINEARS_MAX = 4 };
typedef struct pxr_linears_args {
    const pxr_linear_args *each;       /* [count], of one and the same x */
    int64_t count;                     /* 1 .. PXR_LINEARS_MAX */
    const pxr_rms_norm_args *norm;     /* done first, or NULL: its `out` is x */
    const pxr_silu_mul_args *silu_mul; /* done last, or NULL: of two products, whose `out`s are its gate and up */
} pxr_linears_args;

/* Row ids[i] of the table, widened to float32, becomes row i of `out`. */
typedef struct pxr_embedding_args {
    const pxr_tensor *out;    /* [n,D] float32, rows dense */
    const pxr_tensor *table;  /* [V,D] any float type, rows dense; or integers */
    const pxr_tensor *scales; /* of integers, rows dense; else NULL */
    const pxr_tensor *ids;    /* [n] int64, contiguous; each 0 <= id < V, else an error names it */
    bool checked;             /* the caller has seen to that: a device need not wait to tell */
} pxr_embedding_args;

/* The quantised matrix nearest to `x`. int8: a group's largest magnitude becomes 127. Four bits: of some scales that map
 * the group's extreme near -8 the one with the least squared error. Errors: a weight that is not finite. */
typedef struct pxr_quantize_args {
    const pxr_tensor *out;    /* int8 [N,K] or uint8 [N,ceil(K/2)], contiguous */
    const pxr_tensor *scales; /* float16 [N,groups], contiguous */
    const pxr_tensor *x;      /* [N,K] any float type, rows dense */
} pxr_quantize_args;

/* k-means as SAOT merges cells (REFERENCE 7.8): starts from points[start[j]]; squared Euclidean distance as
 * pairwise_distance, the first minimum wins, an empty cluster keeps its centroid; stops early when no centroid moved
 * by more than 1e-6 + 1e-5*|new|. */
typedef struct pxr_kmeans_args {
    const pxr_tensor *out;        /* [k,E] float32, contiguous: the centroids */
    const pxr_tensor *points;     /* [n,E] float32, contiguous, n >= k */
    const pxr_tensor *start;      /* [k] int64, contiguous: rows of `points` */
    const pxr_tensor *assignment; /* [n] int64, contiguous, or NULL: receives each point's cluster (0-based) */
    int rounds;                   /* at most, > 0 */
} pxr_kmeans_args;

/* Draws one token id a row: penalty, temperature, top-k, top-p, in that order, as transformers' processors do, then a
 * draw by inverse distribution over ids in ascending order with Philox(seed, step, row's stream). temperature 0 means
 * greedy: the largest logit after the penalty, the lowest id on ties. */
typedef struct pxr_sample_args {
    const pxr_tensor *out;           /* [n] int64, contiguous: the ids */
    const pxr_tensor *logits;        /* [n,V] float32, rows dense */
    const pxr_tensor *probabilities; /* [n,V] float32, contiguous, or NULL: receives what was drawn from */
    const int64_t *const *generated; /* host: for each row the ids the penalty applies to, or NULL */
    const int64_t *generated_count;  /* host: [n], or NULL */
    float temperature;               /* 0: greedy */
    int64_t top_k;                   /* 0: off */
    float top_p;                     /* 1: off; 0 keeps the most probable one */
    float repetition_penalty;        /* 1 (or 0): off */
    uint64_t seed, step;             /* Philox key and counter */
    const uint64_t *streams;         /* host: [n] a stream number for each row, or NULL (all 0) */
} pxr_sample_args;

/* ==== tensor primitives ========================================================================================= */
/* Any strides; sizes of 1 and stride 0 broadcast only where said. Integer arithmetic wraps. */

/* Elements of `x` converted to the type of `out` (same shape, or `x` broadcasts to it). Float to integer truncates
 * towards zero and saturates (NaN gives 0); integer to integer keeps the low bits. The two may be on different devices
 * (then both contiguous and of one type). */
typedef struct pxr_copy_args {
    const pxr_tensor *out, *x;
} pxr_copy_args;

/* All elements = value (converted). */
typedef struct pxr_fill_args {
    const pxr_tensor *out;
    double value;
    int64_t integer; /* used instead of value for integer types */
} pxr_fill_args;

/* out[i] = start + i*step, computed in float64 (integer types: in int64 from the truncated start and step). */
typedef struct pxr_sequence_args {
    const pxr_tensor *out; /* [n] */
    double start, step;
} pxr_sequence_args;

/* clang-format off */
typedef enum pxr_unary_kind {
    PXR_UNARY_NEG,
    PXR_UNARY_ABS,
    PXR_UNARY_EXP,
    PXR_UNARY_LOG,
    PXR_UNARY_SQRT,
    PXR_UNARY_RSQRT,
    PXR_UNARY_SQUARE,
    PXR_UNARY_FLOOR,
    PXR_UNARY_CEIL,
    PXR_UNARY_ROUND,
    PXR_UNARY_SIGN,
    PXR_UNARY_SIN,
    PXR_UNARY_COS,
    PXR_UNARY_TANH,
    PXR_UNARY_ERF,
    PXR_UNARY_SIGMOID,
    PXR_UNARY_SILU,
    PXR_UNARY_RELU,
    PXR_UNARY_GELU,
    PXR_UNARY_GELU_TANH,
    PXR_UNARY_NOT,
    PXR_UNARY_COUNT
} pxr_unary_kind;
/* clang-format on */

/* out = kind(x), same shape and type; `out` may be `x`. Integers: neg, abs, square, sign, not; the rest need floats
 * (float16 and bfloat16 are computed in float32). ROUND is to nearest even; NOT gives uint8 (x == 0). */
typedef struct pxr_unary_args {
    const pxr_tensor *out, *x;
    pxr_unary_kind kind;
} pxr_unary_args;

/* clang-format off */
typedef enum pxr_binary_kind {
    PXR_BINARY_ADD,
    PXR_BINARY_SUB,
    PXR_BINARY_MUL,
    PXR_BINARY_DIV,
    PXR_BINARY_POW,
    PXR_BINARY_MOD,
    PXR_BINARY_MAX,
    PXR_BINARY_MIN,
    PXR_BINARY_LT, /* comparisons: out is uint8 */
    PXR_BINARY_LE,
    PXR_BINARY_GT,
    PXR_BINARY_GE,
    PXR_BINARY_EQ,
    PXR_BINARY_NE,
    PXR_BINARY_AND, /* of truth values, out is uint8 */
    PXR_BINARY_OR,
    PXR_BINARY_XOR,
    PXR_BINARY_COUNT
} pxr_binary_kind;
/* clang-format on */

/* out = a kind b; a and b have one type and broadcast to the shape of `out`, which has that type (uint8 for the
 * comparisons and truth ops) and may be a or b when it is not broadcast. Integer DIV and MOD round towards minus
 * infinity (MOD of floats too, as torch.remainder); a zero divisor is an error for integers. */
typedef struct pxr_binary_args {
    const pxr_tensor *out, *a, *b;
    pxr_binary_kind kind;
} pxr_binary_args;

/* out = condition ? a : b; all broadcast to `out`; condition is uint8, the others one type. */
typedef struct pxr_where_args {
    const pxr_tensor *out, *condition, *a, *b;
} pxr_where_args;

/* clang-format off */
typedef enum pxr_reduce_kind {
    PXR_REDUCE_SUM,
    PXR_REDUCE_PROD,
    PXR_REDUCE_MEAN,
    PXR_REDUCE_MAX,
    PXR_REDUCE_MIN,
    PXR_REDUCE_ARGMAX,
    PXR_REDUCE_ARGMIN,
    PXR_REDUCE_ANY,
    PXR_REDUCE_ALL,
    PXR_REDUCE_COUNT
} pxr_reduce_kind;
/* clang-format on */

/* Reduces dim `dim` (0-based), which has size 1 in `out`. SUM and PROD of integers give int64, ARGMAX and ARGMIN the
 * 0-based index (int64) of the first extremum, ANY and ALL uint8, else the type of x (floats accumulate in float32, in
 * a fixed order). MAX, MIN and ARG* of an empty dim are errors; NaN is an extremum that wins. */
typedef struct pxr_reduce_args {
    const pxr_tensor *out, *x;
    int dim;
    pxr_reduce_kind kind;
} pxr_reduce_args;

/** The type that a reduction of a tensor of type `x` gives (a cumulative sum: PXR_REDUCE_SUM). */
pxr_dtype pxr_reduced_type(pxr_reduce_kind kind, pxr_dtype x);

/* Running sums along dim `dim`; floats keep their type (float32 sums), integers give int64. */
typedef struct pxr_cumsum_args {
    const pxr_tensor *out, *x;
    int dim;
} pxr_cumsum_args;

/* out[...] = a[...] b[...] over the last two dims, [n,K] x [K,m]; leading dims equal after broadcasting. Float types
 * (one type; float32 accumulation in order of K's 16 partial sums, as linear). */
typedef struct pxr_matmul_args {
    const pxr_tensor *out, *a, *b;
} pxr_matmul_args;

/* Softmax (or its logarithm) along dim `dim`, float types, `out` may be `x`. */
typedef struct pxr_softmax_args {
    const pxr_tensor *out, *x;
    int dim;
    bool logarithm;
} pxr_softmax_args;

/* The first size(out, dim) elements of `x` sorted along `dim`, stably (equal elements keep their order; NaN is
 * largest), and where they came from. With a smaller `out` this is top-k. */
typedef struct pxr_sort_args {
    const pxr_tensor *out;     /* as x, but dim `dim` may be shorter */
    const pxr_tensor *indices; /* int64, shape of out: 0-based */
    const pxr_tensor *x;
    int dim;
    bool descending;
} pxr_sort_args;

/* out[i][j] = x[index[i][j]][j] for dim 0, and so on for other dims, as torch.gather; index is int64, 0-based, the
 * shape of `out`; sizes of the other dims do not exceed x's. An index out of range is an error naming it. */
typedef struct pxr_gather_args {
    const pxr_tensor *out, *x, *index;
    int dim;
} pxr_gather_args;

/* Slices index[0], index[1], ... of dim `dim` of x. */
typedef struct pxr_index_select_args {
    const pxr_tensor *out, *x;
    const pxr_tensor *index; /* [n] int64, 0-based */
    int dim;
} pxr_index_select_args;

/* out[index[i]] += source[i] along dim `dim`, in order of i; in place on `out`, one type. */
typedef struct pxr_index_add_args {
    const pxr_tensor *out;
    const pxr_tensor *index; /* [n] int64, 0-based */
    const pxr_tensor *source;
    int dim;
} pxr_index_add_args;

/* Indices of the elements that are not zero, in row-major order. Call once with `out` NULL for the count. */
typedef struct pxr_nonzero_args {
    const pxr_tensor *out; /* [count,rank(x)] int64, 0-based, or NULL */
    const pxr_tensor *x;
    int64_t *count; /* host: receives the number */
} pxr_nonzero_args;

/* out[i][j] = sum over d of (a[i][d] - b[j][d])^2, summed in order of d in 16 partial sums (as linear): the distance
 * that kmeans uses, to the bit. */
typedef struct pxr_pairwise_distance_args {
    const pxr_tensor *out; /* [n,m] float32 */
    const pxr_tensor *a;   /* [n,D] float32 */
    const pxr_tensor *b;   /* [m,D] float32 */
} pxr_pairwise_distance_args;

/* torch's bilinear interpolate, align_corners = false, no antialias. */
typedef struct pxr_resize_bilinear_args {
    const pxr_tensor *out; /* [H,W,C] float32 */
    const pxr_tensor *x;   /* [h,w,C] float32 */
} pxr_resize_bilinear_args;

/* Bilinear samples at points (y, x) in units of cells of x: 0 is the centre of the first cell. Outside is clamped to
 * the border, or zero with `zeros` (torch.grid_sample's padding modes). */
typedef struct pxr_grid_sample_args {
    const pxr_tensor *out;    /* [n,C] float32 */
    const pxr_tensor *x;      /* [h,w,C] float32 */
    const pxr_tensor *points; /* [n,2] float32: (y, x) */
    bool zeros;
} pxr_grid_sample_args;

typedef enum pxr_random_kind { PXR_RANDOM_UNIFORM, PXR_RANDOM_NORMAL } pxr_random_kind;

/* Element i (row-major) from Philox(seed, i / 4): uniform in [0,1) or standard normal (Box-Muller). Float types. */
typedef struct pxr_random_fill_args {
    const pxr_tensor *out;
    uint64_t seed;
    pxr_random_kind kind;
} pxr_random_fill_args;

/* ==== entry points ============================================================================================== */

/** Each op of ops.def as `pxr_status pxr_NAME(const pxr_NAME_args *args, pxr_error *error)`: checks the arguments,
 * then computes on the device of `out`. Errors: PXR_ERROR_ARGUMENT naming op, argument and shapes;
 * PXR_ERROR_UNSUPPORTED when the device lacks the op. */
#define PXR_OP(name) pxr_status pxr_##name(const pxr_##name##_args *args, pxr_error *error);
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE

#ifdef __cplusplus
}
#endif
#endif
