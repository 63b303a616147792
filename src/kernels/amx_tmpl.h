/*
 * amx_tmpl.h - the convolution tile in AMX, written once for bf16 and u8.
 *
 * Included by kernels_amx_<format>.c after a vector vocabulary, a number vocabulary and tile_amx.h, with the
 * name of the table (KERNELS) and VECTORS defined: the kernels of the same format in AVX-512, whose panels are as wide.
 *
 * Two blocks of 16 pixels meet two blocks of 16 channels. Both operands are loaded where they lie: a row of a tile is
 * up to 16 words of one pixel, or the same word's weights of 16 channels.
 */
#include "kernels.h"

#define MR (2 * TILE) /* output pixels a tile */
#define NR (2 * TILE) /* output channels a tile */
#include "finish_tmpl.h"

/* Four products take 64 cycles, however few words there are in a step, and vectors take 32 a word: with fewer than
 * these there is nothing to gain. */
#define FEWEST_WORDS 4

/* A run is taken in equal steps, so that one configuration does for all of it: the most words, TILE at most, that it is
 * a multiple of. */
static uint32_t step_words(uint32_t run) {
    uint32_t step = run < TILE ? run : TILE;
    while (run % step)
        step--;
    return step;
}

/* What is to be in the cache later. Beyond a step's share come lines of the next: to ask again is cheaper than to
 * count. */
ALWAYS_INLINE void fetch_ahead(const float *ahead) {
    UNROLL
    for (uint32_t i = 0; i < TILE; i++)
        __builtin_prefetch(ahead + i * LINE_FLOATS, 0, 2);
}

/* One i and j of struct conv_tile, whose weights start with word `first`: sums += x[p][0..run) . w[0..run). */
ALWAYS_INLINE void accumulate(const struct conv_tile *t, const float *x, size_t first, const uint32_t step,
                              const bool both) {
    const float *w = t->panel + (1 + HEAD_FLOATS + first) * NR, *ahead = t->ahead + first * LINE_FLOATS;
    for (uint32_t k = 0; k < t->run; k += step) {
        multiply_0(x, t->x_pixel, w, NR);
        if (both)
            multiply_1(x + TILE * t->x_pixel, t->x_pixel);
        fetch_ahead(ahead);
        x += step;
        w += step * NR;
        ahead += step * LINE_FLOATS;
    }
}

/* The sums of a tile, NR of each pixel; `both`: there are pixels of the second block. */
ALWAYS_INLINE void sums_of(const struct conv_tile *t, float *kept, const uint32_t step, const bool both) {
    size_t first = 0;
    tiles_configure(t->pixels, step);
    sums_start_0(t->panel);
    if (both)
        sums_start_1(t->panel);
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++, first += t->run)
            accumulate(t, t->x + i * t->x_row + j * t->x_column, first, step, both);
    sums_store_0(kept, NR);
    if (both)
        sums_store_1(kept + TILE * NR, NR);
}

/* The same tile in AVX-512, as many pixels at a time as it takes. */
static void tile_by_vectors(const struct conv_tile *t, void (*tile)(const struct conv_tile *)) {
    struct conv_tile part = *t;
    for (uint32_t left = t->pixels; left > 0; left -= part.pixels, move_on(&part)) {
        part.pixels = left < VECTORS.mr ? left : VECTORS.mr;
        tile(&part);
    }
}

/* Which way a layer goes must depend on the layer alone: in bf16 the two add in another order. */
static void conv_tile(const struct conv_tile *t) {
    _Alignas(64) float kept[MR * NR];
    const uint32_t step = step_words(t->run);
    if (step < FEWEST_WORDS) {
        tile_by_vectors(t, VECTORS.conv_tile);
        return;
    }
    if (t->pixels > TILE)
        sums_of(t, kept, step, true);
    else
        sums_of(t, kept, step, false);
    finish_kept(t, kept, NR);
}

/* ---- What tiles do not help with ---- */

static void group_tile(const struct conv_tile *t) {
    tile_by_vectors(t, VECTORS.group_tile);
}

static void max_window(const struct pool_window *window) {
    VECTORS.max_window(window);
}
static void mean_window(const struct pool_window *window) {
    VECTORS.mean_window(window);
}
static void gate_row(const struct gated_row *row) {
    VECTORS.gate_row(row);
}

static void convert(const float *x, float *y, uint32_t count, const float factor[16], const float term[16]) {
    VECTORS.convert(x, y, count, factor, term);
}

/* ---- The peak ---- */

#define OPS_A_ROUND (2.0 * MR * NR * TILE * (1 << FORMAT))

static float dot_rounds(uint64_t rounds) {
    _Alignas(64) float kept[MR * NR];
    tiles_configure(MR, TILE); /* to zeros */
    for (; rounds > 0; rounds--)
        multiply_registers();
    sums_store_0(kept, NR);
    tiles_release();
    return kept[0];
}

const struct format_kernels KERNELS = {
    .mr = MR,
    .nr = NR,
    .group_nr = VL,
    .conv_tile = conv_tile,
    .group_tile = group_tile,
    .leave = tiles_release,
    .max_window = max_window,
    .mean_window = mean_window,
    .gate_row = gate_row,
    .convert = convert,
    .dot_rounds = dot_rounds,
    .ops_a_round = OPS_A_ROUND,
};
