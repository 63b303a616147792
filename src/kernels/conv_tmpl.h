/*
 * conv_tmpl.h - the convolution tile, written once for every instruction set.
 *
 * Included by kernels_<isa>.c after a vector vocabulary (VL, vec, vec_*) and with the tile defined:
 *     MR   output pixels a tile
 *     NV   vectors of output channels a tile
 */
#include "kernels.h"

#define NR (NV * VL)
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Four pixels share a base pointer: one pixel stride and its multiples 2 and 3 then address all of them, and the
 * pointers of a whole tile stay in registers. */
#define GROUP  4
#define GROUPS ((MR + GROUP - 1) / GROUP)

ALWAYS_INLINE const float *pixel_input(const float *const base[], size_t pixel_stride, uint32_t p) {
    return base[p / GROUP] + (p % GROUP) * pixel_stride;
}

/* acc[p] += x[p][0..run) * w[0..run) for the pixels of a tile; returns the weights behind those used. */
ALWAYS_INLINE const float *accumulate(vec acc[][NV], const float *x, const float *w, const struct conv_tile *t,
                                      const uint32_t pixels) {
    const size_t stride = t->x_pixel;
    const float *base[GROUPS];
    UNROLL
    for (uint32_t g = 0; g < GROUPS; g++)
        base[g] = x + g * GROUP * stride;
    for (uint32_t k = t->run; k > 0; k--) {
        vec wv[NV];
        UNROLL
        for (uint32_t v = 0; v < NV; v++)
            wv[v] = vec_load(w + v * VL);
        UNROLL
        for (uint32_t p = 0; p < pixels; p++) {
            const vec xv = vec_splat(*pixel_input(base, stride, p));
            UNROLL
            for (uint32_t v = 0; v < NV; v++)
                acc[p][v] = vec_fma(xv, wv[v], acc[p][v]);
        }
        UNROLL
        for (uint32_t g = 0; g < GROUPS; g++)
            base[g]++;
        w += NR;
    }
    return w;
}

/* Residual, activation and store. */
ALWAYS_INLINE void finish(vec acc[][NV], const struct conv_tile *t, const uint32_t pixels) {
    UNROLL
    for (uint32_t p = 0; p < pixels; p++) {
        UNROLL
        for (uint32_t v = 0; v < NV; v++) {
            vec a = acc[p][v];
            if (t->residual)
                a = vec_add(a, vec_load(t->residual + p * t->y_pixel + v * VL));
            if (t->relu)
                a = vec_max(vec_zero(), a);
            vec_store(t->y + p * t->y_pixel + v * VL, a);
        }
    }
}

ALWAYS_INLINE void tile_of(const struct conv_tile *t, const uint32_t pixels) {
    vec acc[MR][NV];
    const float *w = t->panel;
    UNROLL
    for (uint32_t p = 0; p < pixels; p++) {
        UNROLL
        for (uint32_t v = 0; v < NV; v++)
            acc[p][v] = vec_load(w + v * VL);
    }
    w += NR;
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++)
            w = accumulate(acc, t->x + i * t->x_row + j * t->x_column, w, t, pixels);
    finish(acc, t, pixels);
}

/* The number of pixels must be a constant where the accumulators are to stay in registers. */
static void full_tile(const struct conv_tile *t) {
    switch (t->pixels) {
#if MR >= 14
    case 14:
        tile_of(t, 14);
        break;
    case 13:
        tile_of(t, 13);
        break;
    case 12:
        tile_of(t, 12);
        break;
    case 11:
        tile_of(t, 11);
        break;
    case 10:
        tile_of(t, 10);
        break;
    case 9:
        tile_of(t, 9);
        break;
#endif
#if MR >= 8
    case 8:
        tile_of(t, 8);
        break;
    case 7:
        tile_of(t, 7);
        break;
#endif
    case 6:
        tile_of(t, 6);
        break;
    case 5:
        tile_of(t, 5);
        break;
    case 4:
        tile_of(t, 4);
        break;
    case 3:
        tile_of(t, 3);
        break;
    case 2:
        tile_of(t, 2);
        break;
    default:
        tile_of(t, 1);
    }
}

/* The last panel may have fewer channels than a tile: then it goes through memory, a channel at a time. */
static void narrow_tile(const struct conv_tile *t) {
    float sums[MR * NR];
    struct conv_tile full = *t;
    full.y = sums;
    full.y_pixel = NR;
    full.residual = NULL;
    full.relu = false;
    full_tile(&full);
    for (uint32_t p = 0; p < t->pixels; p++)
        for (uint32_t n = 0; n < t->channels; n++) {
            float a = sums[p * NR + n];
            if (t->residual)
                a += t->residual[p * t->y_pixel + n];
            t->y[p * t->y_pixel + n] = t->relu && a < 0 ? 0 : a;
        }
}

static void conv_tile(const struct conv_tile *t) {
    (t->channels == NR ? full_tile : narrow_tile)(t);
}
