/*
 * kernels.h - the contract between the executor and the instruction sets.
 *
 * A kernel set is one const table of functions with its own tile size. Activations are NHWC; a pixel is `channels`
 * floats, and neighbouring pixels may be further apart than that.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>

#include "resnet.h"

/*
 * One tile of a convolution's output: up to MR neighbouring pixels by NR channels.
 *
 *     y[p][n] = act(bias[n] + sum over i, j, k of x[p*x_pixel + i*x_row + j*x_column + k] * w[i][j][k][n] +
 * residual[p][n])
 *
 *                  NR channels
 *              +---------------+   The products are added in the order of i, j, k, one after the other, whatever the
 *    MR pixels |  accumulators |   tile's size and place: so a result does not depend on how work was split.
 *              +---------------+
 *
 * The panel of weights starts with the NR biases, then NR weights for each i, j, k; channels past the last are zeros.
 */
struct conv_tile {
    const float *x;
    size_t x_pixel, x_row, x_column; /* floats from one output pixel's, one i's, one j's input to the next */
    uint32_t rows, columns, run;     /* how far i, j and k go */
    const float *panel;              /* biases, then weights */
    float *y;                        /* written: `pixels` times `channels` floats, y_pixel apart */
    const float *residual;           /* NULL, or laid out as y */
    size_t y_pixel;
    uint32_t pixels, channels; /* 1..MR, 1..NR */
    bool relu;
};

/* One pixel of a 3x3 max pool's or of an average pool's output. The input's border, where it has one, is read as it is.
 */
struct pool_window {
    const float *x;
    size_t x_pixel, x_row;
    uint32_t rows, columns, channels;
    float *y; /* `channels` floats */
};

/* The end of a Winograd tile (winograd.h): y[i][j] = act((A' m A)[i][j] + bias + residual[i][j]) for i < rows, j <
 * columns. */
struct winograd_output {
    const float *products; /* 36 elements of `channels` floats, `element` floats apart */
    size_t element;
    const float *bias;     /* [channels] */
    const float *residual; /* NULL, or rows of pixels that are y_pixel apart */
    size_t residual_row;
    float *y;
    size_t y_row, y_pixel;
    uint32_t rows, columns; /* 1..4 */
    uint32_t channels;      /* a multiple of 16 */
    bool relu;
};

struct kernel_set {
    resnet_isa isa;
    uint32_t mr, nr;
    void (*conv_tile)(const struct conv_tile *tile);
    void (*max_window)(const struct pool_window *window);
    void (*mean_window)(const struct pool_window *window);
    /* v[e] = (B' d B)[e] for each of 36 elements, `element` floats apart; patch[e] is a pixel of `channels` (16 n)
     * floats. */
    void (*winograd_input)(const float *const patch[36], uint32_t channels, float *v, size_t element);
    void (*winograd_output)(const struct winograd_output *output);
    /* Rounds of independent multiply-adds in registers, to measure the peak; returns a sum so that they are not
     * dropped. */
    float (*fma_rounds)(uint64_t rounds);
    double flops_a_round;
};

extern const struct kernel_set kernels_scalar, kernels_neon, kernels_avx2, kernels_avx512;

#endif
