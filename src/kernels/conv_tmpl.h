/*
 * conv_tmpl.h - the convolution tile, written once for every instruction set and format.
 *
 * Included by kernels_<isa>.c after a vector vocabulary (VL, vec, vec_*) and a number vocabulary (FORMAT, acc, words,
 * dot, ...), and with the tile defined:
 *     KERNELS   the name of the table that pool_tmpl.h makes of it all
 *     MR        output pixels a tile
 *     NV        vectors of output channels a tile
 */
#include "kernels.h"

#define NR (NV * VL)
#include "finish_tmpl.h"

/* Four pixels share a base pointer: one pixel stride and its multiples 2 and 3 then address all of them, and the
 * pointers of a whole tile stay in registers. */
#define GROUP  4
#define GROUPS ((MR + GROUP - 1) / GROUP)

ALWAYS_INLINE const float *pixel_input(const float *const base[], size_t pixel_stride, uint32_t p) {
    return base[p / GROUP] + (p % GROUP) * pixel_stride;
}

/* acc[p] += x[p][0..run) . w[0..run) for the pixels of a tile; returns the weights behind those used. */
ALWAYS_INLINE const float *accumulate(acc sums[][NV], const float *x, const float *w, const float *ahead,
                                      const struct conv_tile *t, const uint32_t pixels) {
    const size_t stride = t->x_pixel;
    const float *base[GROUPS];
    UNROLL
    for (uint32_t g = 0; g < GROUPS; g++)
        base[g] = x + g * GROUP * stride;
    for (uint32_t k = t->run; k > 0; k--) {
        words wv[NV];
        UNROLL
        for (uint32_t v = 0; v < NV; v++)
            wv[v] = words_load(w + v * VL);
        __builtin_prefetch(ahead, 0, 2);
        UNROLL
        for (uint32_t p = 0; p < pixels; p++) {
            const words xv = words_splat(pixel_input(base, stride, p));
            UNROLL
            for (uint32_t v = 0; v < NV; v++)
                sums[p][v] = dot(xv, wv[v], sums[p][v]);
        }
        UNROLL
        for (uint32_t g = 0; g < GROUPS; g++)
            base[g]++;
        w += NR;
        ahead += LINE_FLOATS;
    }
    return w;
}

/* Scale, residual, activation and store of a whole tile. */
ALWAYS_INLINE void finish(acc sums[][NV], const struct conv_tile *t, const uint32_t pixels) {
    const struct conv_tile own = *t; /* which the compiler knows that the stores leave alone */
    UNROLL
    for (uint32_t p = 0; p < pixels; p++) {
        UNROLL
        for (uint32_t v = 0; v < NV; v++)
            finish_vector(&own, sums[p][v], p, v * VL);
    }
}

/* Instead of the finish: the accumulators as they are, NR of each pixel. */
ALWAYS_INLINE void keep(acc sums[][NV], float *kept, const uint32_t pixels) {
    UNROLL
    for (uint32_t p = 0; p < pixels; p++) {
        UNROLL
        for (uint32_t v = 0; v < NV; v++)
            acc_store(kept + p * NR + v * VL, sums[p][v]);
    }
}

/* Fetch the lines that finish will touch, so that it need not wait at the end: 3 % of a whole ResNet-50 in f32. The
 * other formats are small enough to be near; there it costs 1 %. */
ALWAYS_INLINE void fetch_output(const struct conv_tile *t, const uint32_t pixels) {
    const float *place = t->residual ? t->residual : t->y;
    UNROLL
    for (uint32_t p = 0; p < pixels; p++) {
        UNROLL
        for (uint32_t line = 0; line < NR; line += LINE_FLOATS)
            __builtin_prefetch(place + p * t->y_pixel + line);
    }
}

/* What the accumulators of a vector of channels start from: the biases, and what a vocabulary that shifts its inputs
 * gives back. */
ALWAYS_INLINE acc start_of(const struct conv_tile *t, uint32_t v) {
    const float *column = t->panel + v * VL;
#ifdef START_NEEDS_WEIGHTS
    return acc_start(column, column + (1 + HEAD_FLOATS) * NR, (size_t)t->rows * t->columns * t->run, NR);
#else
    return acc_load(column);
#endif
}

ALWAYS_INLINE void tile_of(const struct conv_tile *t, float *kept, const uint32_t pixels) {
    acc sums[MR][NV];
    const float *w = t->panel, *ahead = t->ahead;
    UNROLL
    for (uint32_t v = 0; v < NV; v++) {
        const acc start = start_of(t, v);
        UNROLL
        for (uint32_t p = 0; p < pixels; p++)
            sums[p][v] = start;
    }
    w += (1 + HEAD_FLOATS) * NR;
    if (FORMAT == FORMAT_F32 && !kept)
        fetch_output(t, pixels);
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++, ahead += t->run * LINE_FLOATS)
            w = accumulate(sums, t->x + i * t->x_row + j * t->x_column, w, ahead, t, pixels);
    if (kept)
        keep(sums, kept, pixels);
    else
        finish(sums, t, pixels);
}

/* The number of pixels must be a constant where the accumulators are to stay in registers. */
static void tile(const struct conv_tile *t, float *kept) {
    switch (t->pixels) {
#if MR >= 14
    case 14:
        tile_of(t, kept, 14);
        break;
    case 13:
        tile_of(t, kept, 13);
        break;
    case 12:
        tile_of(t, kept, 12);
        break;
    case 11:
        tile_of(t, kept, 11);
        break;
    case 10:
        tile_of(t, kept, 10);
        break;
    case 9:
        tile_of(t, kept, 9);
        break;
#endif
#if MR >= 8
    case 8:
        tile_of(t, kept, 8);
        break;
    case 7:
        tile_of(t, kept, 7);
        break;
#endif
#if MR >= 6
    case 6:
        tile_of(t, kept, 6);
        break;
    case 5:
        tile_of(t, kept, 5);
        break;
#endif
    case 4:
        tile_of(t, kept, 4);
        break;
    case 3:
        tile_of(t, kept, 3);
        break;
    case 2:
        tile_of(t, kept, 2);
        break;
    default:
        tile_of(t, kept, 1);
    }
}

/* Where a tile has fewer channels than the kernel, or gives floats, it goes through memory, a number at a time. */
static void tile_by_number(const struct conv_tile *t) {
    float kept[MR * NR];
    tile(t, kept);
    finish_numbers(t, kept, 0);
}

static void conv_tile(const struct conv_tile *t) {
    if (t->channels == NR && !t->floats)
        tile(t, NULL);
    else
        tile_by_number(t);
}
