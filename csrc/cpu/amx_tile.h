/* The processor's tile registers: eight, of 16 rows of 64 bytes, and products of two of them. With PXR_AMX_EMULATED they
 * are plain C, so that what is computed with them can be tested on machines that have none. Included by
 * *_amx_kernel.h only.
 *
 * Registers 0 .. 3 hold sums, 4 and 5 first operands, 6 and 7 second ones. Their numbers must be literals.
 */
#ifndef PXR_CPU_AMX_TILE_H
#define PXR_CPU_AMX_TILE_H

#include "cpu/v16.h"

#include <stdint.h>
#include <string.h>

enum {
    TILE_SIDE = 16,  /* rows and columns of sums in a tile */
    TILE_BYTES = 64, /* of k in a row of a first operand */
    TILE_SIZE = TILE_SIDE * TILE_BYTES,
};

/* As LDTILECFG reads it. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

#if defined(PXR_AMX_EMULATED)

typedef union tile_data {
    char bytes[16][64];
    uint32_t pairs[16][16];
    int32_t integers[16][16];
    float floats[16][16];
} tile_data;

static _Thread_local tile_config tiles_config;
static _Thread_local tile_data tile_registers[8];

static void tile_load(int tile, const char *from, int64_t stride)
{
    memset(&tile_registers[tile], 0, sizeof tile_registers[tile]);
    for (int row = 0; row < tiles_config.rows[tile]; row++)
        memcpy(tile_registers[tile].bytes[row], from + row * stride, tiles_config.row_bytes[tile]);
}

static void tile_store(int tile, char *to, int64_t stride)
{
    for (int row = 0; row < tiles_config.rows[tile]; row++)
        memcpy(to + row * stride, tile_registers[tile].bytes[row], tiles_config.row_bytes[tile]);
}

/* Only tiles are touched here: sanitizers would find nothing, and make it a hundred times slower. */
#define TILE_ARITHMETIC __attribute__((noinline, optimize("O3"), no_sanitize("address", "undefined", "thread")))

/* The first of a bfloat16 pair. */
PXR_INLINE float first_of(uint32_t pair)
{
    const union {
        uint32_t bits;
        float value;
    } wide = {.bits = pair << 16};
    return wide.value;
}

/* As TDPBF16PS: the sums of the pairs' firsts and of their seconds, then both together; numbers below 2^-126 are not
 * taken for zero here. */
static TILE_ARITHMETIC void tile_dot_bf16(int sums, int a, int b)
{
    for (int row = 0; row < tiles_config.rows[a]; row++) {
        float first[16] = {0}, second[16] = {0};
        for (int k = 0; k < tiles_config.row_bytes[a] / 4; k++) {
            const uint32_t x = tile_registers[a].pairs[row][k];
            for (int column = 0; column < 16; column++) {
                const uint32_t y = tile_registers[b].pairs[k][column];
                first[column] = fmaf(first_of(x), first_of(y), first[column]);
                second[column] = fmaf(first_of(x >> 16), first_of(y >> 16), second[column]);
            }
        }
        for (int column = 0; column < 16; column++)
            tile_registers[sums].floats[row][column] += first[column] + second[column];
    }
}

/* As TDPBSSD and TDPBUSD. */
static TILE_ARITHMETIC void tile_dot_i8(int sums, int a, int b, bool is_signed)
{
    for (int row = 0; row < tiles_config.rows[a]; row++)
        for (int k = 0; k < tiles_config.row_bytes[a]; k++) {
            const char byte = tile_registers[a].bytes[row][k];
            const int x = is_signed ? (signed char)byte : (unsigned char)byte;
            for (int column = 0; column < 16; column++)
                tile_registers[sums].integers[row][column] += x * (signed char)tile_registers[b]
                                                                      .bytes[k / 4][4 * column + k % 4];
        }
}

#define TILE_CONFIGURE(config) (tiles_config = *(config))
#define TILE_RELEASE() ((void)0)
#define TILE_ZERO(tile) memset(&tile_registers[tile], 0, sizeof tile_registers[tile])
#define TILE_LOAD(tile, from, stride) tile_load(tile, from, stride)
#define TILE_STORE(tile, to, stride) tile_store(tile, (char *)(to), stride)
#define TILE_DOT_BF16(sums, a, b) tile_dot_bf16(sums, a, b)
#define TILE_DOT_SIGNED(sums, a, b) tile_dot_i8(sums, a, b, true)
#define TILE_DOT_UNSIGNED(sums, a, b) tile_dot_i8(sums, a, b, false)

#else

/* Not the compiler's intrinsics: GCC's do not say that they read memory, so that what is copied for them may be dropped. */
#define TILE_CONFIGURE(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(config)))
#define TILE_RELEASE() __asm__ volatile("tilerelease" ::)
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)
#define TILE_LOAD(tile, from, stride)                                                                                  \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(tile, to, stride)                                                                                   \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride)) : "memory")
#define TILE_DOT_BF16(sums, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sums ::)
#define TILE_DOT_SIGNED(sums, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sums ::)
#define TILE_DOT_UNSIGNED(sums, a, b) __asm__ volatile("tdpbusd %%tmm" #b ", %%tmm" #a ", %%tmm" #sums ::)

#endif

/* Sums of 16 x 16; first operands of 16 rows of `bytes` of k, second ones of as many bytes of 16 columns. */
static void configure_tiles(int bytes)
{
    tile_config config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.rows[tile] = (uint8_t)(tile < 6 ? 16 : bytes / 4);
        config.row_bytes[tile] = (uint16_t)(tile == 4 || tile == 5 ? bytes : 64);
    }
    TILE_CONFIGURE(&config);
}

#endif
