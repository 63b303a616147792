/*
 * kernels.h - the contract between the executor and the instruction sets.
 *
 * Activations are NHWC. They lie in words of four bytes, and every stride here counts words: a word holds one number of
 * a channel in f32, two neighbouring channels in bf16, four in u8. A pixel has whole words (channels past the last are
 * multiplied by zeros), and neighbouring pixels may be further apart than that.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>

#include "resnet.h"

/* How activations are stored, and so how they are multiplied: f32 by f32, bf16 by bf16, u8 by s8 weights. */
enum format { FORMAT_F32, FORMAT_BF16, FORMAT_U8, FORMATS };

/* Numbers in a word. */
static inline uint32_t word_numbers(enum format format) {
    return 1U << format;
}

/*
 * One tile of a convolution's output: up to MR neighbouring pixels by NR channels.
 *
 *     y[p][n] = finish(bias[n] + sum over i, j, k of x[p*x_pixel + i*x_row + j*x_column + k] . w[i][j][k][n], p, n)
 *
 *                  NR channels      where a . b multiplies the numbers of two words pair by pair and adds the products.
 *              +---------------+
 *    MR pixels |  accumulators |    The order in which they are added depends on rows, columns and run alone, whatever
 *              +---------------+    the tile's size and place: so a result does not depend on how work was split.
 *
 * The panel of weights starts with the NR biases, then has NR words for each i, j, k; channels past the last are zeros.
 *
 *     f32, bf16:  accumulators and biases are f32;  finish(a, p, n) = act(a + residual[p][n])
 *     u8:         they are int32, and the panel has NR floats `scale` behind the biases;
 *                 finish(a, p, n) = a * scale[n] + residual[p][n] * residual_scale + offset, rounded into 0..255,
 *                 where each of the operations rounds to f32; ReLU is the cut at 0
 *
 * Of a grouped convolution, conv_tile computes panels of one group. Where groups are no multiple of NR, group_tile has
 * panels of GROUP_NR channels: of one group, or of as many whole groups as are as wide; a group then has 4 or 8
 * channels, and as many inputs, of which channel n sees the words
 *
 *     x[p*x_pixel + i*x_row + j*x_column + n / group * run + k]
 *
 * So that each word is multiplied where it lies, those weights stand in another order: see group_place.
 */
struct conv_tile {
    const float *x;
    size_t x_pixel, x_row, x_column; /* from one output pixel's, one i's, one j's input to the next */
    uint32_t rows, columns, run;     /* how far i, j and k go */
    uint32_t group;                  /* of group_tile: channels a group */
    const float *panel;
    const float *ahead;    /* memory to fetch into the cache meanwhile, a line for each i, j, k; or any that is there */
    float *y;              /* written: `pixels` times `channels` numbers, y_pixel apart */
    const float *residual; /* NULL, or laid out as y */
    size_t y_pixel;
    uint32_t pixels, channels; /* 1..MR, 1..NR; whole words of channels */
    bool relu;
    bool floats;                  /* y is f32 whatever the format: a * scale[n] in u8; then there is no residual */
    float residual_scale, offset; /* of u8 */
};

/* Where the weight of word k and channel n of a panel lies, in the tap's first row of words, for groups of `run` words
 * that are narrower than the panel: word k takes the lane of the group's k-th channel, or that of each run-th behind
 * it, and channel n gets the sum of lane n ^ r from row r. */
static inline size_t group_place(uint32_t k, uint32_t n, uint32_t run, uint32_t nr) {
    return (k ^ n % run) * (size_t)nr + n / run * run + k;
}

/* One pixel of a 3x3 max pool's or of an average pool's output. The input's border, where it has one, is read as it is.
 */
struct pool_window {
    const float *x;
    size_t x_pixel, x_row;
    uint32_t rows, columns, channels; /* whole words of channels, but with `floats` any number */
    float *y;
    /* Of an average: y = scale * sum + offset; rounded into 0..255 in u8, but f32 whatever the format with `floats`. */
    float scale, offset;
    bool floats;
};

/* Pixels that squeeze-and-excitation ends with: y = max(0, x * gate + residual); in u8, where each operation rounds to
 * f32, y = (x - x_zero) * (gate * scale) + residual * residual_scale + offset, rounded into 0..255. */
struct gated_row {
    const float *x;
    const float *gate; /* [channels], f32 */
    const float *residual;
    float *y;
    size_t x_pixel, residual_pixel, y_pixel;
    uint32_t pixels, channels; /* whole words of channels */
    float x_zero, scale, residual_scale, offset;
};

/* Winograd's tiles of rows x columns outputs; their elements are as many as the pixels of a patch, (rows + 2) x
 * (columns + 2). */
enum winograd_tile { WINOGRAD_4X4, WINOGRAD_4X2, WINOGRAD_2X2, WINOGRAD_TILES };
#define WINOGRAD_ELEMENTS 36 /* of the largest tile */

/* The end of a Winograd tile (winograd.h): y[i][j] = act((A' m A)[i][j] + bias + residual[i][j]) for i < rows, j <
 * columns. */
struct winograd_output {
    const float *products; /* elements of `channels` floats, `element` floats apart */
    size_t element;
    const float *bias;     /* [channels] */
    const float *residual; /* NULL, or rows of pixels that are y_pixel apart */
    size_t residual_row;
    float *y;
    size_t y_row, y_pixel;
    uint32_t rows, columns; /* 1 to those of a whole tile */
    uint32_t channels;      /* a multiple of 16 */
    bool relu;
};

/* What computes on one format. */
struct format_kernels {
    uint32_t mr, nr, group_nr; /* multiples of 4 but mr */
    void (*conv_tile)(const struct conv_tile *tile);
    void (*group_tile)(const struct conv_tile *tile);
    /* Gives back the registers that conv_tile leaves set up in a thread; after a part of a layer. NULL: none. */
    void (*leave)(void);
    void (*max_window)(const struct pool_window *window);
    void (*mean_window)(const struct pool_window *window);
    void (*gate_row)(const struct gated_row *row);
    /* `count` numbers (a multiple of 4) from f32: y[i] = x[i] * factor[i % 16] + term[i % 16], in u8 rounded into
     * 0..255. */
    void (*convert)(const float *x, float *y, uint32_t count, const float factor[16], const float term[16]);
    /* Rounds of independent multiply-adds in registers, to measure the peak; returns a sum so that they are not
     * dropped. */
    float (*dot_rounds)(uint64_t rounds);
    double ops_a_round; /* a multiply-add is two */
};

/* The transforms of one of Winograd's tiles, for activations in f32 or bf16; what lies between them is f32. */
struct winograd_transforms {
    /* v[e] = (B' d B)[e] for each element, `element` floats apart; patch[e] is a pixel of `channels` (16 n) numbers. */
    void (*input)(const float *const patch[], uint32_t channels, float *v, size_t element);
    void (*output)(const struct winograd_output *output);
};

struct winograd_kernels {
    const struct format_kernels *products; /* of f32 */
    struct winograd_transforms tiles[WINOGRAD_TILES];
};

/* All that one instruction set has. */
struct kernel_set {
    resnet_isa isa;
    const struct format_kernels *formats[FORMATS]; /* NULL for bf16 where f32 is as fast: then bf16 computes in f32 */
    const struct winograd_kernels *winograd[FORMATS]; /* NULL where the sum itself is as fast */
};

extern const struct format_kernels f32_scalar, f32_neon, f32_avx2, f32_avx512;
extern const struct format_kernels bf16_neon, bf16_avx512, bf16_amx;
extern const struct format_kernels u8_scalar, u8_neon, u8_neon_dot, u8_neon_i8mm;
extern const struct format_kernels u8_avx2, u8_avx2_vnni, u8_avx512, u8_amx;
extern const struct winograd_kernels winograd_scalar, winograd_neon, winograd_avx2, winograd_avx512;
extern const struct winograd_kernels winograd_bf16_avx512;

#endif
