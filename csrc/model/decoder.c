/* Qwen2; see decoder.h for the layer recipe. */
#include "model/decoder.h"

#include "core/arena.h"
#include "core/interrupt.h"
#include "core/memory.h"
#include "model/rotary.h"
#include "model/views.h"
#include "model/weights.h"
#include "ops/recording.h"

#include <math.h>
#include <stdio.h>

enum { CHUNK_ROWS = 512 /* rows of a prefill that go through the layers together */ };

typedef struct layer {
    pxr_tensor input_norm, post_attention_norm; /* [D] */
    pxr_linear_weights q, k, v, o;     /* [heads*head_dim,D], [kv_heads*head_dim,D] twice, [D,heads*head_dim] */
    pxr_linear_weights gate, up, down; /* [F,D] twice, [D,F] */
} layer;

/* A step of one token a sequence as work that a device plays: one launch instead of one for each kernel of each layer. It
 * holds for one number of sequences and one cache's memory. */
typedef struct recorded_step {
    pxr_arena arena; /* stays where it is while longer chunks move the other one */
    int64_t sequences, rows, capacity;
    const void *keys, *values;
    pxr_recording *recording; /* NULL after the first such step, which allocates what the ops need */
} recorded_step;

struct pxr_decoder {
    pxr_decoder_config config;
    pxr_device *device;
    pxr_linear_weights embed_tokens; /* [V,D] */
    pxr_linear_weights lm_head;      /* [V,D]; the embedding's tensors when tied */
    pxr_tensor norm;                 /* [D] */
    layer *layers;                   /* [config.layers] */
    float *frequencies;              /* [head_dim/2] */
    float *angles;                   /* host: cosines, then sines of a chunk, [2,host_rows,head_dim/2] */
    int64_t *places;                 /* host: where a chunk's rows go in the cache, [host_rows] */
    int64_t host_rows;
    pxr_attention_segment *segments; /* [segment_capacity] */
    size_t segment_capacity;
    pxr_arena arena;
    recorded_step step;
};

/* ---- weights --------------------------------------------------------------------------------------------------- */

static pxr_status take_layer(pxr_decoder *decoder, layer *l, int64_t index, const pxr_tensor_map *weights,
                             pxr_error *error)
{
    const pxr_decoder_config *c = &decoder->config;
    const int64_t q_width = c->heads * c->head_dim, kv_width = c->kv_heads * c->head_dim;
    const struct {
        const char *name;
        pxr_linear_weights *linear;
        int64_t out, in;
        bool bias;
    } linears[] = {
        {"self_attn.q_proj", &l->q, q_width, c->hidden, true},
        {"self_attn.k_proj", &l->k, kv_width, c->hidden, true},
        {"self_attn.v_proj", &l->v, kv_width, c->hidden, true},
        {"self_attn.o_proj", &l->o, c->hidden, q_width, false},
        {"mlp.gate_proj", &l->gate, c->intermediate, c->hidden, false},
        {"mlp.up_proj", &l->up, c->intermediate, c->hidden, false},
        {"mlp.down_proj", &l->down, c->hidden, c->intermediate, false},
    };
    pxr_status status = PXR_OK;
    for (size_t i = 0; status == PXR_OK && i < sizeof linears / sizeof *linears; i++) {
        char prefix[96];
        snprintf(prefix, sizeof prefix, "layers.%lld.%s", (long long)index, linears[i].name);
        status = pxr_linear_weights_take(linears[i].linear, weights, decoder->device, linears[i].out, linears[i].in,
                                         linears[i].bias, error, prefix);
    }
    if (status == PXR_OK)
        status = pxr_weight(&l->input_norm, weights, decoder->device, 1, &c->hidden, error,
                            "layers.%lld.input_layernorm.weight", (long long)index);
    if (status == PXR_OK)
        status = pxr_weight(&l->post_attention_norm, weights, decoder->device, 1, &c->hidden, error,
                            "layers.%lld.post_attention_layernorm.weight", (long long)index);
    return status;
}

/* Whether the head is the table of embeddings itself. */
static bool is_tied(const pxr_tensor_map *weights)
{
    static const char *const names[][2] = {{"embed_tokens.weight", "lm_head.weight"},
                                           {"embed_tokens.qweight", "lm_head.qweight"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const pxr_tensor *table = pxr_tensor_map_find(weights, names[i][0]);
        const pxr_tensor *head = pxr_tensor_map_find(weights, names[i][1]);
        if (table && head && table->data == head->data) return true;
    }
    return false;
}

static pxr_status take_weights(pxr_decoder *decoder, const pxr_tensor_map *weights, pxr_error *error)
{
    const pxr_decoder_config *c = &decoder->config;
    pxr_linear_weights *table = &decoder->embed_tokens, *head = &decoder->lm_head;
    pxr_status status = pxr_matrix_take(table, weights, decoder->device, c->vocab, c->hidden, error,
                                        "embed_tokens.weight");
    if (status == PXR_OK && is_tied(weights)) { /* uploaded once */
        pxr_tensor_alias(&head->weight, &table->weight);
        if (table->scales.storage) pxr_tensor_alias(&head->scales, &table->scales);
    } else if (status == PXR_OK) {
        status = pxr_matrix_take(head, weights, decoder->device, c->vocab, c->hidden, error, "lm_head.weight");
    }
    if (status == PXR_OK)
        status = pxr_weight(&decoder->norm, weights, decoder->device, 1, &c->hidden, error, "norm.weight");
    for (int64_t i = 0; status == PXR_OK && i < c->layers; i++)
        status = take_layer(decoder, &decoder->layers[i], i, weights, error);
    return status;
}

static pxr_status check_config(const pxr_decoder_config *c, pxr_error *error)
{
    if (c->hidden < 1 || c->intermediate < 1 || c->layers < 0 || c->heads < 1 || c->kv_heads < 1 || c->vocab < 1 ||
        c->heads % c->kv_heads != 0 || c->head_dim < 2 || c->head_dim % 2 != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "decoder: %lld heads, %lld kv heads and head size %lld do not make a decoder",
                        (long long)c->heads, (long long)c->kv_heads, (long long)c->head_dim);
    return PXR_OK;
}

pxr_status pxr_decoder_new(pxr_decoder **decoder, const pxr_decoder_config *config, const pxr_tensor_map *weights,
                           pxr_device *device, pxr_error *error)
{
    *decoder = NULL;
    pxr_status status = check_config(config, error);
    if (status != PXR_OK) return status;
    pxr_decoder *made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "a decoder");
    made->config = *config;
    made->device = device;
    made->layers = pxr_calloc((size_t)config->layers, sizeof *made->layers);
    made->frequencies = pxr_calloc((size_t)config->head_dim / 2, sizeof *made->frequencies);
    if (!made->layers || !made->frequencies) {
        status = pxr_fail_memory(error, (size_t)config->layers * sizeof *made->layers, "a decoder");
    } else {
        pxr_rotary_frequencies(made->frequencies, config->head_dim, config->rope_theta);
        status = take_weights(made, weights, error);
    }
    if (status != PXR_OK) {
        pxr_decoder_free(made);
        return status;
    }
    *decoder = made;
    return PXR_OK;
}

void pxr_decoder_free(pxr_decoder *decoder)
{
    if (!decoder) return;
    for (int64_t i = 0; decoder->layers && i < decoder->config.layers; i++) {
        layer *l = &decoder->layers[i];
        pxr_linear_weights *linears[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++) pxr_linear_weights_release(linears[j]);
        pxr_tensor_release(&l->input_norm);
        pxr_tensor_release(&l->post_attention_norm);
    }
    pxr_linear_weights_release(&decoder->embed_tokens);
    pxr_tensor_release(&decoder->norm);
    pxr_linear_weights_release(&decoder->lm_head);
    pxr_recording_free(decoder->step.recording);
    pxr_arena_free(&decoder->step.arena);
    pxr_arena_free(&decoder->arena);
    pxr_free(decoder->layers);
    pxr_free(decoder->frequencies);
    pxr_free(decoder->angles);
    pxr_free(decoder->places);
    pxr_free(decoder->segments);
    pxr_free(decoder);
}

const pxr_decoder_config *pxr_decoder_get_config(const pxr_decoder *decoder)
{
    return &decoder->config;
}

pxr_device *pxr_decoder_device(const pxr_decoder *decoder)
{
    return decoder->device;
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

typedef struct buffers {
    pxr_tensor x;        /* [n,D]: of a recorded step */
    pxr_tensor normed;   /* [n,D], in the operand type */
    pxr_tensor q, mixed; /* [n,heads*head_dim]: queries, attention's result (in the operand type) */
    pxr_tensor k, v;     /* [n,kv_heads*head_dim] */
    pxr_tensor gate, up; /* [n,F], in the operand type */
    pxr_tensor angles;   /* [2n,head_dim/2] */
    pxr_tensor cos, sin; /* [n,head_dim/2]: its halves */
    pxr_tensor places;   /* [n] int64: row * capacity + position of the cache */
} buffers;

static void cut_buffers(buffers *b, pxr_arena *arena, const pxr_decoder *decoder, int64_t n)
{
    const pxr_decoder_config *c = &decoder->config;
    const pxr_dtype operand = c->layers > 0 ? pxr_operand_type(&decoder->layers->q.weight) : PXR_F32;
    const int64_t model[2] = {n, c->hidden}, queries[2] = {n, c->heads * c->head_dim};
    const int64_t keys[2] = {n, c->kv_heads * c->head_dim}, wide[2] = {n, c->intermediate};
    const int64_t angles[2] = {2 * n, c->head_dim / 2};
    if (arena == &decoder->step.arena) b->x = pxr_arena_tensor(arena, PXR_F32, 2, model);
    b->normed = pxr_arena_tensor(arena, operand, 2, model);
    b->q = pxr_arena_tensor(arena, PXR_F32, 2, queries);
    b->mixed = pxr_arena_tensor(arena, operand, 2, queries);
    b->k = pxr_arena_tensor(arena, PXR_F32, 2, keys);
    b->v = pxr_arena_tensor(arena, PXR_F32, 2, keys);
    b->gate = pxr_arena_tensor(arena, operand, 2, wide);
    b->up = pxr_arena_tensor(arena, operand, 2, wide);
    b->angles = pxr_arena_tensor(arena, PXR_F32, 2, angles);
    b->cos = pxr_rows(&b->angles, 0, n);
    b->sin = pxr_rows(&b->angles, n, n);
    b->places = pxr_arena_tensor(arena, PXR_I64, 1, &n);
}

/* The buffers of n rows, from an arena that holds them. */
static pxr_status take_buffers(buffers *b, pxr_arena *arena, const pxr_decoder *decoder, int64_t n, pxr_error *error)
{
    pxr_arena_plan(arena);
    cut_buffers(b, arena, decoder, n);
    const pxr_status status = pxr_arena_reserve(arena, decoder->device, error);
    if (status == PXR_OK) cut_buffers(b, arena, decoder, n);
    return status;
}

/* Room for the host's tables of a call; nothing is allocated when an earlier call was as large. */
static pxr_status reserve_host(pxr_decoder *decoder, int64_t rows, int64_t sequence_count, pxr_error *error)
{
    const int64_t half = decoder->config.head_dim / 2;
    if (rows > decoder->host_rows) {
        float *angles = pxr_calloc((size_t)rows, (size_t)(2 * half) * sizeof *angles);
        int64_t *places = pxr_calloc((size_t)rows, sizeof *places);
        if (!angles || !places) {
            pxr_free(angles);
            pxr_free(places);
            return pxr_fail_memory(error, (size_t)(rows * 2 * half) * sizeof *angles, "rotary angles");
        }
        pxr_free(decoder->angles);
        pxr_free(decoder->places);
        decoder->angles = angles;
        decoder->places = places;
        decoder->host_rows = rows;
    }
    if (!pxr_grow((void **)&decoder->segments, &decoder->segment_capacity, (size_t)sequence_count,
                  sizeof *decoder->segments))
        return pxr_fail_memory(error, (size_t)sequence_count * sizeof *decoder->segments, "attention segments");
    return PXR_OK;
}

/* Host angles of positions past .. past+count-1 become rows begin .. of `rows`. */
static void fill_angles(pxr_decoder *decoder, int64_t rows, int64_t begin, int64_t past, int64_t count)
{
    const int64_t half = decoder->config.head_dim / 2;
    float *cosines = decoder->angles + begin * half, *sines = cosines + rows * half;
    for (int64_t i = 0; i < count; i++)
        pxr_rotary_angles(cosines + i * half, sines + i * half, decoder->frequencies, half, (float)(past + i));
}

static pxr_status upload(const pxr_tensor *to, const void *from, pxr_error *error)
{
    pxr_device *device = pxr_tensor_device(to);
    return device->upload(device, to->data, from, (size_t)pxr_tensor_count(to) * pxr_dtype_size(to->dtype), error);
}

/* Angles and places of the rows, and the segments: a row sees its cache row up to itself. */
static pxr_status lay_out(pxr_decoder *decoder, const buffers *b, const pxr_kv_cache *cache,
                          const pxr_decoder_sequence *sequences, int64_t sequence_count, pxr_error *error)
{
    int64_t begin = 0;
    for (int64_t s = 0; s < sequence_count; s++) {
        const int64_t past = cache->length[sequences[s].row], count = sequences[s].count;
        fill_angles(decoder, b->cos.size[0], begin, past, count);
        for (int64_t i = 0; i < count; i++) decoder->places[begin + i] = sequences[s].row * cache->capacity + past + i;
        decoder->segments[s] = (pxr_attention_segment){.query_begin = begin,
                                                       .query_count = count,
                                                       .key_begin = 0,
                                                       .key_count = past + count,
                                                       .batch = sequences[s].row};
        begin += count;
    }
    const pxr_status status = upload(&b->angles, decoder->angles, error);
    return status == PXR_OK ? upload(&b->places, decoder->places, error) : status;
}

/* x += o_proj(attention(RMSNorm(x))) */
static pxr_status attention_sublayer(pxr_decoder *decoder, const layer *l, const buffers *b, const pxr_tensor *x,
                                     const pxr_tensor *keys, const pxr_tensor *values, int64_t sequence_count,
                                     pxr_error *error)
{
    const pxr_decoder_config *c = &decoder->config;
    const pxr_tensor q = pxr_heads(&b->q, c->heads), mixed = pxr_heads(&b->mixed, c->heads);
    const pxr_tensor k = pxr_heads(&b->k, c->kv_heads), v = pxr_heads(&b->v, c->kv_heads);
    const pxr_rms_norm_args norm = {.out = &b->normed, .x = x, .weight = &l->input_norm, .epsilon = c->epsilon};
    const pxr_attention_args attention = {.out = &mixed,
                                          .q = &q,
                                          .k = keys,
                                          .v = values,
                                          .segments = decoder->segments,
                                          .segment_count = sequence_count,
                                          .places = sequence_count == x->size[0] ? &b->places : NULL,
                                          .scale = 1.0f / sqrtf((float)c->head_dim),
                                          .causal = true};
    const pxr_rope_store_args turn = {.q = &q,
                                      .k = &k,
                                      .v = &v,
                                      .cos = &b->cos,
                                      .sin = &b->sin,
                                      .keys = keys,
                                      .values = values,
                                      .places = &b->places};
    const pxr_tensor *const qkv[] = {&b->q, &b->k, &b->v};
    const pxr_linear_weights *const to_qkv[] = {&l->q, &l->k, &l->v};
    pxr_status status = pxr_linear_layers(qkv, &b->normed, to_qkv, 3, &norm, NULL, error);
    if (status == PXR_OK) status = pxr_rope_store(&turn, error);
    if (status == PXR_OK) status = pxr_attention(&attention, error);
    if (status == PXR_OK) status = pxr_linear_layer(x, &b->mixed, &l->o, PXR_ACTIVATION_NONE, x, error);
    return status;
}

/* x += down_proj(silu(gate_proj(h)) * up_proj(h)), h = RMSNorm(x) */
static pxr_status mlp_sublayer(pxr_decoder *decoder, const layer *l, const buffers *b, const pxr_tensor *x,
                               pxr_error *error)
{
    const pxr_rms_norm_args norm = {.out = &b->normed,
                                    .x = x,
                                    .weight = &l->post_attention_norm,
                                    .epsilon = decoder->config.epsilon};
    const pxr_silu_mul_args silu_mul = {.out = &b->gate, .gate = &b->gate, .up = &b->up};
    const pxr_tensor *const wide[] = {&b->gate, &b->up};
    const pxr_linear_weights *const to_wide[] = {&l->gate, &l->up};
    pxr_status status = pxr_linear_layers(wide, &b->normed, to_wide, 2, &norm, &silu_mul, error);
    if (status == PXR_OK) status = pxr_linear_layer(x, &b->gate, &l->down, PXR_ACTIVATION_NONE, x, error);
    return status;
}

/* Layers first .. last-1 over what is laid out. */
static pxr_status run_layers(pxr_decoder *decoder, const buffers *b, const pxr_kv_cache *cache, const pxr_tensor *x,
                             int64_t sequence_count, int64_t first, int64_t last, pxr_error *error)
{
    pxr_status status = PXR_OK;
    for (int64_t i = first; status == PXR_OK && i < last; i++) {
        const pxr_tensor keys = pxr_kv_cache_layer(&cache->keys, i), values = pxr_kv_cache_layer(&cache->values, i);
        status = pxr_interrupt_check(error);
        if (status == PXR_OK)
            status = attention_sublayer(decoder, &decoder->layers[i], b, x, &keys, &values, sequence_count, error);
        if (status == PXR_OK) status = mlp_sublayer(decoder, &decoder->layers[i], b, x, error);
    }
    return status;
}

static pxr_status check_sequences(const pxr_decoder *decoder, const pxr_kv_cache *cache, const pxr_tensor *x,
                                  const pxr_decoder_sequence *sequences, int64_t sequence_count, pxr_error *error)
{
    const pxr_decoder_config *c = &decoder->config;
    char shape[PXR_SHAPE_TEXT];
    int64_t rows = 0;
    if (cache->layers != c->layers || cache->kv_heads != c->kv_heads || cache->head_dim != c->head_dim ||
        cache->device != decoder->device)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "decoder: the KV cache belongs to another decoder");
    for (int64_t s = 0; s < sequence_count; s++) {
        if (sequences[s].row < 0 || sequences[s].row >= cache->rows || sequences[s].count < 1 ||
            __builtin_add_overflow(rows, sequences[s].count, &rows))
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "decoder: sequence %lld has row %lld and %lld tokens",
                            (long long)s + 1, (long long)sequences[s].row + 1, (long long)sequences[s].count);
        for (int64_t t = 0; t < s; t++)
            if (sequences[t].row == sequences[s].row)
                return pxr_fail(error, PXR_ERROR_ARGUMENT, "decoder: row %lld of the KV cache is used twice",
                                (long long)sequences[s].row + 1);
    }
    if (x->rank != 2 || x->size[0] != rows || x->size[1] != c->hidden || x->dtype != PXR_F32 ||
        !pxr_tensor_is_contiguous(x))
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "decoder: expected a contiguous float32 tensor [%lldx%lld], found %s %s", (long long)rows,
                        (long long)c->hidden, pxr_tensor_shape_text(x, shape), pxr_dtype_name(x->dtype));
    return PXR_OK;
}

pxr_status pxr_decoder_check_ids(const pxr_decoder *decoder, const pxr_tensor *ids, pxr_error *error)
{
    const int64_t *data = pxr_tensor_data(ids), vocab = decoder->config.vocab;
    for (int64_t i = 0; i < ids->size[0]; i++)
        if (data[i * ids->stride[0]] < 0 || data[i * ids->stride[0]] >= vocab)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "embedding: id %lld at place %lld is not in 0 .. %lld",
                            (long long)data[i * ids->stride[0]], (long long)i, (long long)vocab - 1);
    return PXR_OK;
}

pxr_status pxr_decoder_embed(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *ids, bool checked,
                             pxr_error *error)
{
    const pxr_linear_weights *table = &decoder->embed_tokens;
    const pxr_embedding_args embedding = {.out = out,
                                          .table = &table->weight,
                                          .scales = table->scales.storage ? &table->scales : NULL,
                                          .ids = ids,
                                          .checked = checked};
    return pxr_embedding(&embedding, error);
}

pxr_status pxr_decoder_layers(pxr_decoder *decoder, pxr_kv_cache *cache, const pxr_tensor *x,
                              const pxr_decoder_sequence *sequences, int64_t sequence_count, int64_t first,
                              int64_t last, pxr_error *error)
{
    const pxr_decoder_config *c = &decoder->config;
    buffers b;
    pxr_status status = check_sequences(decoder, cache, x, sequences, sequence_count, error);
    if (status != PXR_OK) return status;
    if (first < 0 || last > c->layers || first > last)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "decoder: layers %lld to %lld do not exist, it has %lld",
                        (long long)first + 1, (long long)last, (long long)c->layers);
    for (int64_t s = 0; s < sequence_count; s++)
        if (sequences[s].count > cache->capacity - cache->length[sequences[s].row])
            return pxr_fail(error, PXR_ERROR_ARGUMENT,
                            "decoder: row %lld of the KV cache holds %lld of %lld positions, %lld more do not fit",
                            (long long)sequences[s].row + 1, (long long)cache->length[sequences[s].row],
                            (long long)cache->capacity, (long long)sequences[s].count);

    status = take_buffers(&b, &decoder->arena, decoder, x->size[0], error);
    if (status == PXR_OK) status = reserve_host(decoder, x->size[0], sequence_count, error);
    if (status == PXR_OK) status = lay_out(decoder, &b, cache, sequences, sequence_count, error);
    return status == PXR_OK ? run_layers(decoder, &b, cache, x, sequence_count, first, last, error) : status;
}

pxr_status pxr_decoder_queries(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *x, int64_t index,
                               int64_t past, pxr_error *error)
{
    const pxr_decoder_config *c = &decoder->config;
    if (index < 0 || index >= c->layers || past < 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "decoder: queries of layer %lld at position %lld, it has %lld layers", (long long)index + 1,
                        (long long)past, (long long)c->layers);
    const layer *l = &decoder->layers[index];
    buffers b;
    pxr_status status = take_buffers(&b, &decoder->arena, decoder, x->size[0], error);
    if (status == PXR_OK) status = reserve_host(decoder, x->size[0], 0, error);
    if (status != PXR_OK) return status;
    fill_angles(decoder, x->size[0], 0, past, x->size[0]);
    const pxr_tensor q = pxr_heads(&b.q, c->heads);
    const pxr_rms_norm_args norm = {.out = &b.normed, .x = x, .weight = &l->input_norm, .epsilon = c->epsilon};
    status = upload(&b.angles, decoder->angles, error);
    if (status == PXR_OK) status = pxr_rms_norm(&norm, error);
    if (status == PXR_OK) status = pxr_linear_layer(&b.q, &b.normed, &l->q, PXR_ACTIVATION_NONE, NULL, error);
    if (status == PXR_OK) status = pxr_rope(&(pxr_rope_args){.out = &q, .cos = &b.cos, .sin = &b.sin}, error);
    if (status == PXR_OK) status = pxr_copy(&(pxr_copy_args){.out = out, .x = &q}, error);
    return status;
}

/* ---- a step of one token a sequence, recorded ------------------------------------------------------------------ */

/* Whether the recording, if there is one, is of such a step; else what there is is given up. */
static bool is_same_step(recorded_step *step, const pxr_kv_cache *cache, int64_t sequences)
{
    if (step->sequences == sequences && step->rows == cache->rows && step->capacity == cache->capacity &&
        step->keys == cache->keys.data && step->values == cache->values.data)
        return true;
    pxr_recording_free(step->recording);
    *step = (recorded_step){.arena = step->arena,
                            .sequences = sequences,
                            .rows = cache->rows,
                            .capacity = cache->capacity,
                            .keys = cache->keys.data,
                            .values = cache->values.data};
    return false;
}

static pxr_status record_step(pxr_decoder *decoder, const buffers *b, const pxr_kv_cache *cache, int64_t sequences,
                              pxr_error *error)
{
    pxr_recording_free(decoder->step.recording);
    decoder->step.recording = NULL;
    pxr_status status = pxr_recording_begin(decoder->device, error);
    if (status != PXR_OK) return status;
    status = run_layers(decoder, b, cache, &b->x, sequences, 0, decoder->config.layers, error);
    return pxr_recording_end(&decoder->step.recording, decoder->device, status, error);
}

/* The layers over b->x: played; recorded first where there was such a step before; else run. */
static pxr_status do_step(pxr_decoder *decoder, const buffers *b, const pxr_kv_cache *cache, int64_t sequences,
                          bool is_same, pxr_error *error)
{
    bool played = false;
    pxr_status status = PXR_OK;
    if (decoder->step.recording) status = pxr_recording_play(decoder->step.recording, &played, error);
    if (status != PXR_OK || played) return status;
    if (!is_same || decoder->step.recording) { /* what a recording needs is allocated by a run */
        pxr_recording_free(decoder->step.recording);
        decoder->step.recording = NULL;
        return run_layers(decoder, b, cache, &b->x, sequences, 0, decoder->config.layers, error);
    }
    status = record_step(decoder, b, cache, sequences, error);
    return status == PXR_OK ? pxr_recording_play(decoder->step.recording, &played, error) : status;
}

static pxr_status forward_step(pxr_decoder *decoder, const pxr_kv_cache *cache, const pxr_tensor *x,
                               const pxr_decoder_sequence *sequences, int64_t sequence_count, pxr_error *error)
{
    buffers b;
    const void *before = decoder->step.arena.block.data;
    pxr_status status = take_buffers(&b, &decoder->step.arena, decoder, sequence_count, error);
    if (status == PXR_OK) status = reserve_host(decoder, sequence_count, sequence_count, error);
    if (status != PXR_OK) return status;
    if (before != decoder->step.arena.block.data) decoder->step.sequences = 0; /* nothing is the same */
    const bool is_same = is_same_step(&decoder->step, cache, sequence_count);
    status = lay_out(decoder, &b, cache, sequences, sequence_count, error);
    if (status == PXR_OK) status = pxr_copy(&(pxr_copy_args){.out = &b.x, .x = x}, error);
    if (status == PXR_OK) status = do_step(decoder, &b, cache, sequence_count, is_same, error);
    if (status == PXR_OK) status = pxr_copy(&(pxr_copy_args){.out = x, .x = &b.x}, error);
    if (status != PXR_OK) decoder->step.sequences = 0; /* nor has it allocated all that it needs */
    return status;
}

/* ---- all layers ------------------------------------------------------------------------------------------------ */

/* A long sequence on its own, a chunk of rows at a time; its length has advanced by what is done. */
static pxr_status forward_in_chunks(pxr_decoder *decoder, pxr_kv_cache *cache, const pxr_tensor *x,
                                    const pxr_decoder_sequence *sequence, pxr_error *error)
{
    pxr_status status = PXR_OK;
    for (int64_t begin = 0; status == PXR_OK && begin < sequence->count; begin += CHUNK_ROWS) {
        const int64_t left = sequence->count - begin;
        const pxr_decoder_sequence chunk = {sequence->row, left < CHUNK_ROWS ? left : CHUNK_ROWS};
        const pxr_tensor rows = pxr_rows(x, begin, chunk.count);
        status = pxr_decoder_layers(decoder, cache, &rows, &chunk, 1, 0, decoder->config.layers, error);
        if (status == PXR_OK) cache->length[sequence->row] += chunk.count;
    }
    return status;
}

pxr_status pxr_decoder_forward(pxr_decoder *decoder, pxr_kv_cache *cache, const pxr_tensor *x,
                               const pxr_decoder_sequence *sequences, int64_t sequence_count, pxr_error *error)
{
    pxr_status status = check_sequences(decoder, cache, x, sequences, sequence_count, error);
    if (status != PXR_OK) return status;
    int64_t needed = 0;
    for (int64_t s = 0; s < sequence_count; s++) {
        int64_t end;
        if (__builtin_add_overflow(cache->length[sequences[s].row], sequences[s].count, &end)) end = INT64_MAX;
        if (end > needed) needed = end;
    }
    if (needed > cache->capacity) /* some room ahead, so that steps of one token do not grow it each time */
        status = pxr_kv_cache_reserve(cache, needed < INT64_MAX / 2 ? needed + needed / 4 + 64 : needed, error);
    if (status != PXR_OK) return status;
    if (x->size[0] <= CHUNK_ROWS) {
        status = sequence_count == x->size[0] && decoder->device->records
                     ? forward_step(decoder, cache, x, sequences, sequence_count, error)
                     : pxr_decoder_layers(decoder, cache, x, sequences, sequence_count, 0, decoder->config.layers,
                                          error);
        for (int64_t s = 0; status == PXR_OK && s < sequence_count; s++)
            cache->length[sequences[s].row] += sequences[s].count;
        return status;
    }
    int64_t begin = 0, done = 0;
    for (; status == PXR_OK && done < sequence_count; done++) {
        const pxr_tensor rows = pxr_rows(x, begin, sequences[done].count);
        const int64_t before = cache->length[sequences[done].row];
        status = forward_in_chunks(decoder, cache, &rows, &sequences[done], error);
        if (status != PXR_OK) cache->length[sequences[done].row] = before;
        begin += sequences[done].count;
    }
    for (int64_t s = 0; status != PXR_OK && s + 1 < done; s++) cache->length[sequences[s].row] -= sequences[s].count;
    return status;
}

pxr_status pxr_decoder_norm(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    const pxr_rms_norm_args norm = {.out = out, .x = x, .weight = &decoder->norm, .epsilon = decoder->config.epsilon};
    return pxr_rms_norm(&norm, error);
}

pxr_status pxr_decoder_logits(pxr_decoder *decoder, const pxr_tensor *out, const pxr_tensor *hidden, pxr_error *error)
{
    return pxr_linear_layer(out, hidden, &decoder->lm_head, PXR_ACTIVATION_NONE, NULL, error);
}
