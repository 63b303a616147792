/*
 * tile_amx.h - the vocabulary of tiles in AMX, for amx_tmpl.h: what each of the eight registers holds, and the steps
 * that a convolution is made of.
 *
 * Included with TILE_DOT defined: the intrinsic that adds the products of a format's words to a tile.
 */
#include <stdint.h>
#include <string.h>

#define TILE 16 /* rows of a tile, and words in a row */

/* Sums of two blocks of pixels by two of channels, the words of those pixels, the weights of those channels. Not an
 * enumeration: GCC's intrinsics print these names into the instruction. */
#define SUMS_00   0
#define SUMS_01   1
#define SUMS_10   2
#define SUMS_11   3
#define PIXELS_0  4
#define PIXELS_1  5
#define WEIGHTS_0 6
#define WEIGHTS_1 7

/* What the processor reads: the shape of each register. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* A register without rows must have no columns either. */
static inline void tile_shape(struct tile_config *config, uint32_t tile, uint32_t rows, uint32_t row_words) {
    config->rows[tile] = (uint8_t)rows;
    config->row_bytes[tile] = (uint16_t)(rows ? row_words * sizeof(float) : 0);
}

/* Shape the registers for `pixels` (1..32) and steps of `step` words (1..16), and zero them. */
static inline void tiles_configure(uint32_t pixels, uint32_t step) {
    struct tile_config config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (uint32_t block = 0; block < 2; block++) {
        uint32_t behind = pixels > block * TILE ? pixels - block * TILE : 0, rows = behind < TILE ? behind : TILE;
        tile_shape(&config, SUMS_00 + 2 * block, rows, TILE);
        tile_shape(&config, SUMS_01 + 2 * block, rows, TILE);
        tile_shape(&config, PIXELS_0 + block, rows, step);
        tile_shape(&config, WEIGHTS_0 + block, step, TILE);
    }
    __asm__ volatile("" : "+m"(config)); /* GCC's intrinsic says that it reads 8 bytes, and the rest would be dropped */
    _tile_loadconfig(&config);
}

static inline void tiles_release(void) {
    _tile_release();
}

/* Every pixel of the first block starts with the same sums: a row that is loaded again and again. */
static inline void sums_start_0(const float *sums) {
    _tile_loadd(SUMS_00, sums, 0);
    _tile_loadd(SUMS_01, sums + TILE, 0);
}
static inline void sums_start_1(const float *sums) {
    _tile_loadd(SUMS_10, sums, 0);
    _tile_loadd(SUMS_11, sums + TILE, 0);
}

/* Strides count words. The second block uses the weights that the first has loaded. */
static inline void multiply_0(const float *x, size_t x_stride, const float *w, size_t w_stride) {
    _tile_loadd(PIXELS_0, x, x_stride * sizeof(float));
    _tile_loadd(WEIGHTS_0, w, w_stride * sizeof(float));
    TILE_DOT(SUMS_00, PIXELS_0, WEIGHTS_0);
    _tile_loadd(WEIGHTS_1, w + TILE, w_stride * sizeof(float));
    TILE_DOT(SUMS_01, PIXELS_0, WEIGHTS_1);
}
static inline void multiply_1(const float *x, size_t x_stride) {
    _tile_loadd(PIXELS_1, x, x_stride * sizeof(float));
    TILE_DOT(SUMS_10, PIXELS_1, WEIGHTS_0);
    TILE_DOT(SUMS_11, PIXELS_1, WEIGHTS_1);
}
static inline void multiply_registers(void) {
    TILE_DOT(SUMS_00, PIXELS_0, WEIGHTS_0);
    TILE_DOT(SUMS_01, PIXELS_0, WEIGHTS_1);
    TILE_DOT(SUMS_10, PIXELS_1, WEIGHTS_0);
    TILE_DOT(SUMS_11, PIXELS_1, WEIGHTS_1);
}

static inline void sums_store_0(float *to, size_t stride) {
    _tile_stored(SUMS_00, to, stride * sizeof(float));
    _tile_stored(SUMS_01, to + TILE, stride * sizeof(float));
}
static inline void sums_store_1(float *to, size_t stride) {
    _tile_stored(SUMS_10, to, stride * sizeof(float));
    _tile_stored(SUMS_11, to + TILE, stride * sizeof(float));
}
