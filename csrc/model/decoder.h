/* Qwen2: the decoder of both models (REFERENCE section 9).
 *
 *   embed_tokens [V,D]
 *   layers x { x += o_proj(attention(rope(q), rope(k), v))   of RMSNorm(x), causal, grouped heads, biases on q, k, v
 *              x += down_proj(silu(gate_proj(h)) * up_proj(h))   of h = RMSNorm(x) }
 *   norm -> lm_head [V,D]
 *
 * Inputs are embeddings, so that visual and object tokens can take the place of `<image>` and `<REGION>` rows. Several
 * sequences, each a row of the KV cache, go through together; a row's bits do not depend on the others.
 */
#ifndef PXR_MODEL_DECODER_H
#define PXR_MODEL_DECODER_H

#include "core/tensor_map.h"
#include "model/kv_cache.h"

typedef struct pxr_decoder pxr_decoder;

typedef struct pxr_decoder_config {
    int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
    float epsilon; /* rms_norm_eps */
    float rope_theta;
    pxr_dtype cache_dtype; /* of its KV caches: float32 or float16 */
} pxr_decoder_config;

/* `count` consecutive rows of x that continue row `row` (0-based) of the cache. */
typedef struct pxr_decoder_sequence {
    int64_t row, count;
} pxr_decoder_sequence;

/** A decoder from weights `embed_tokens.weight`, `layers.0. ...`, `norm.weight`, `lm_head.weight`. */
pxr_status pxr_decoder_new(pxr_decoder **decoder, const pxr_decoder_config *config, const pxr_tensor_map *weights,
                           pxr_device *device, pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_decoder_free(pxr_decoder *decoder);

/** Its sizes, and where it computes. */
const pxr_decoder_config *pxr_decoder_get_config(const pxr_decoder *decoder);
pxr_device *pxr_decoder_device(const pxr_decoder *decoder);

/** Errors: an id that is not in the vocabulary; `ids` [n] int64 lies on the host. */
pxr_status pxr_decoder_check_ids(const pxr_decoder *decoder, const pxr_tensor *ids, pxr_error *error);

/** out [n,D] float32 = rows of embed_tokens; ids [n] int64. `checked` as in ops.h: a step of decoding does not wait. */
pxr_status pxr_decoder_embed(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *ids, bool checked,
                             pxr_error *error);

/** Layers first .. last-1 (0-based) on x [n,D] float32, contiguous, in place: the sequences lie one behind the other
 * and start at their cache rows' lengths, which the caller advances when all layers have run. Errors: capacity. */
pxr_status pxr_decoder_layers(pxr_decoder *decoder, pxr_kv_cache *cache, const pxr_tensor *x,
                              const pxr_decoder_sequence *sequences, int64_t sequence_count, int64_t first,
                              int64_t last, pxr_error *error);

/** All layers in chunks of rows, then the lengths advance; x is not normed. The cache grows as needed. On failure or
 * interruption the lengths are as before. */
pxr_status pxr_decoder_forward(pxr_decoder *decoder, pxr_kv_cache *cache, const pxr_tensor *x,
                               const pxr_decoder_sequence *sequences, int64_t sequence_count, pxr_error *error);

/** The rotated queries with which layer `index` (0-based) looks at the cache: out [n,heads,head_dim] float32 of x [n,D],
 * what goes into that layer at positions past .. past+n-1. For looking inside: with the cache's keys they give the
 * layer's attention. */
pxr_status pxr_decoder_queries(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *x, int64_t index,
                               int64_t past, pxr_error *error);

/** out [n,D] = final RMSNorm of x; out may be x. */
pxr_status pxr_decoder_norm(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

/** out [n,V] = logits of normed hidden states [n,D]. */
pxr_status pxr_decoder_logits(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *hidden, pxr_error *error);

#endif
