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

#define NR           (NV * VL)
#define MOST_SUMS    (MR * NV)
#define MOST_VECTORS 8
#include "finish_tmpl.h"

/* Whether a panel has several groups: see words_spread. All vectors of sums are then of the same VL channels, or fewer.
 */
enum spread { NO_GROUPS, WHOLE, PARTIAL };

/* Sums in registers: a constant wherever it appears. */
struct block {
    uint32_t pixels, vectors; /* the sums of pixel p are sums[p * vectors + 0..vectors) */
    enum spread spread;
};

/* Channels of a panel. */
ALWAYS_INLINE uint32_t width_of(const struct block b) {
    return b.spread ? VL : b.vectors * VL;
}

/* ---- Small groups ---- */

#if VL > 4
/* The input of a vector of channels, `run` words of each group: lane n gets word n % run of its group. */
ALWAYS_INLINE words words_spread(const float *x, const struct conv_tile *t, const struct block b) {
    const uint32_t run = b.vectors, numbers = word_numbers(FORMAT);
    const vec all = b.spread == WHOLE ? vec_load_whole(x, VL / numbers) : vec_load_first(x, t->channels / numbers);
    uint32_t from[VL];
    UNROLL
    for (uint32_t n = 0; n < VL; n++)
        from[n] = n / (run * numbers) * run + n % run;
    return words_of(FORMAT == FORMAT_F32 ? all : vec_permute(all, from));
}

/* sums[v][n] += sums[v + distance][n ^ distance] for every second row of `distance` vectors. */
ALWAYS_INLINE void fold(acc *sums, const uint32_t vectors, const uint32_t distance) {
    UNROLL
    for (uint32_t v = 0; v + distance < vectors; v += 2 * distance)
        sums[v] = acc_add(sums[v], acc_swap(sums[v + distance], distance));
}

/* sums[0][n] += sums[v][n ^ v] for all other vectors of each pixel. */
ALWAYS_INLINE void gather(acc *sums, const struct block b) {
    UNROLL
    for (uint32_t p = 0; p < b.pixels; p++) {
        fold(sums + p * b.vectors, b.vectors, 1);
        fold(sums + p * b.vectors, b.vectors, 2);
        fold(sums + p * b.vectors, b.vectors, 4);
    }
}
#endif

/* ---- Sums ---- */

/* Four pixels share a base pointer: one pixel stride and its multiples 2 and 3 then address all of them, and the
 * pointers of a whole tile stay in registers. */
#define SHARERS 4
#define BASES   ((MR + SHARERS - 1) / SHARERS)

ALWAYS_INLINE const float *pixel_input(const float *const base[], size_t pixel_stride, uint32_t p) {
    return base[p / SHARERS] + (p % SHARERS) * pixel_stride;
}

ALWAYS_INLINE words input_words(const float *x, const struct conv_tile *t, const struct block b) {
#if VL > 4
    if (b.spread)
        return words_spread(x, t, b);
#endif
    (void)t, (void)b;
    return words_splat(x);
}

/* sums[p] += x[p][0..run) . w[0..run) for the pixels of a block; returns the weights behind those used. */
ALWAYS_INLINE const float *accumulate(acc *sums, const float *x, const float *w, const float *ahead,
                                      const struct conv_tile *t, const struct block b) {
    const size_t stride = t->x_pixel;
    const float *base[BASES];
    UNROLL
    for (uint32_t g = 0; g < BASES; g++)
        base[g] = x + g * SHARERS * stride;
    for (uint32_t k = b.spread ? 1 : t->run; k > 0; k--) {
        words wv[MOST_VECTORS];
        UNROLL
        for (uint32_t v = 0; v < b.vectors; v++)
            wv[v] = words_load(w + v * VL);
        __builtin_prefetch(ahead, 0, 2);
        UNROLL
        for (uint32_t p = 0; p < b.pixels; p++) {
            const words xv = input_words(pixel_input(base, stride, p), t, b);
            UNROLL
            for (uint32_t v = 0; v < b.vectors; v++)
                sums[p * b.vectors + v] = dot(xv, wv[v], sums[p * b.vectors + v]);
        }
        UNROLL
        for (uint32_t g = 0; g < BASES; g++)
            base[g]++;
        w += b.vectors * VL;
        ahead += LINE_FLOATS;
    }
    return w;
}

#ifndef START_NEEDS_WEIGHTS
static inline acc acc_start(const float *bias, const float *w, size_t count, size_t step) {
    (void)w, (void)count, (void)step;
    return acc_load(bias);
}
#endif

/* The biases of vector v, and what a vocabulary that shifts its inputs gives back. */
ALWAYS_INLINE acc start_of(const struct conv_tile *t, uint32_t v, const uint32_t nr) {
    const float *column = t->panel + v * VL;
    return acc_start(column, column + (1 + HEAD_FLOATS) * nr, (size_t)t->rows * t->columns * t->run, nr);
}

/* One vector starts from the biases where all are of the same channels. */
ALWAYS_INLINE void start(acc *sums, const struct conv_tile *t, const struct block b) {
    static const float zeros[VL];
    UNROLL
    for (uint32_t v = 0; v < b.vectors; v++) {
        const acc from = b.spread && v > 0 ? acc_load(zeros) : start_of(t, v, width_of(b));
        UNROLL
        for (uint32_t p = 0; p < b.pixels; p++)
            sums[p * b.vectors + v] = from;
    }
}

/* ---- From sums to results ---- */

/* Scale, residual, activation and store of a whole block. */
ALWAYS_INLINE void finish(const acc *sums, const struct conv_tile *t, const struct block b) {
    const struct conv_tile own = *t; /* which the compiler knows that the stores leave alone */
    UNROLL
    for (uint32_t p = 0; p < b.pixels; p++) {
        UNROLL
        for (uint32_t n = 0; n < width_of(b); n += VL)
            finish_vector(&own, sums[p * b.vectors + n / VL], width_of(b), (struct spot){p, n});
    }
}

/* Instead of the finish: the sums as they are, of each pixel as many as a panel has channels. */
ALWAYS_INLINE void keep(const acc *sums, float *kept, const struct block b) {
    UNROLL
    for (uint32_t p = 0; p < b.pixels; p++) {
        UNROLL
        for (uint32_t n = 0; n < width_of(b); n += VL)
            acc_store(kept + p * width_of(b) + n, sums[p * b.vectors + n / VL]);
    }
}

/* Fetch the lines that finish will touch, so that it need not wait at the end: 3 % of a whole ResNet-50 in f32. The
 * other formats are small enough to be near; there it costs 1 %. */
ALWAYS_INLINE void fetch_output(const struct conv_tile *t, const struct block b) {
    const float *place = t->residual ? t->residual : t->y;
    UNROLL
    for (uint32_t p = 0; p < b.pixels; p++) {
        UNROLL
        for (uint32_t line = 0; line < width_of(b); line += LINE_FLOATS)
            __builtin_prefetch(place + p * t->y_pixel + line);
    }
}

/* Fetch the pixels of row i that the next tile will need and this one does not: half of the time of a layer whose map
 * is no near cache's, since so little is computed with each. */
ALWAYS_INLINE void fetch_input(const struct conv_tile *t, uint32_t i, const struct block b) {
    const float *next = t->x + i * t->x_row + (t->columns - 1) * t->x_column + b.pixels * t->x_pixel;
    UNROLL
    for (uint32_t p = 0; p < b.pixels; p++)
        __builtin_prefetch(next + p * t->x_pixel);
}

/* ---- Tiles ---- */

ALWAYS_INLINE void sum_up(acc *sums, const struct conv_tile *t, const struct block b) {
    const float *w = t->panel + (1 + HEAD_FLOATS) * width_of(b), *ahead = t->ahead;
    for (uint32_t i = 0; i < t->rows; i++) {
        if (b.spread == WHOLE)
            fetch_input(t, i, b);
        for (uint32_t j = 0; j < t->columns; j++, ahead += t->run * LINE_FLOATS)
            w = accumulate(sums, t->x + i * t->x_row + j * t->x_column, w, ahead, t, b);
    }
#if VL > 4
    if (b.spread)
        gather(sums, b);
#endif
}

/* Which counts of pixels are finished in registers: those that rows of 7, 14, 28, ... pixels are cut into. The others
 * go through memory, which costs little, and saves a quarter of the library: most of a tile's code is its finish. */
ALWAYS_INLINE bool in_registers(const uint32_t pixels) {
    return pixels == MR || pixels == MR / 2;
}

ALWAYS_INLINE void tile_of(const struct conv_tile *t, float *kept, const struct block b) {
    acc sums[MOST_SUMS];
    start(sums, t, b);
    if (FORMAT == FORMAT_F32 && !kept)
        fetch_output(t, b);
    sum_up(sums, t, b);
    if (kept || !in_registers(b.pixels))
        keep(sums, kept, b);
    else
        finish(sums, t, b);
}

/* The number of pixels must be a constant where the sums are to stay in registers. */
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        if (n <= MR)                                                                                                   \
            tile_of(t, kept, (struct block){n, NV, NO_GROUPS});                                                        \
        break;
static void tile(const struct conv_tile *t, float *kept) {
    switch (t->pixels) {
        CASE(14)
        CASE(13)
        CASE(12)
        CASE(11)
        CASE(10)
        CASE(9)
        CASE(8)
        CASE(7)
        CASE(6)
        CASE(5)
        CASE(4)
        CASE(3)
        CASE(2)
        CASE(1)
    }
}

static void conv_tile(const struct conv_tile *t) {
    _Alignas(64) float kept[MR * NR];
    if (t->channels == NR && !t->floats && in_registers(t->pixels)) {
        tile(t, NULL);
    } else {
        tile(t, kept);
        finish_kept(t, kept, NR);
    }
}

/* ---- Tiles of groups ---- */

ALWAYS_INLINE uint32_t part_of(const struct conv_tile *t, float *kept, const struct block b) {
    acc sums[MOST_SUMS];
    start(sums, t, b);
    if (FORMAT == FORMAT_F32)
        fetch_output(t, b);
    sum_up(sums, t, b);
    keep(sums, kept, b);
    return b.pixels;
}

/* The sums of the first pixels of a tile, as many as there are registers for; gives how many. Three counts and the
 * finish from memory keep this small: code for each count would be half as large as the library. */
ALWAYS_INLINE uint32_t part(const struct conv_tile *t, float *kept, const uint32_t vectors, const enum spread spread) {
    const uint32_t most = MR < MOST_SUMS / vectors ? MR : MOST_SUMS / vectors;
    if (spread && t->channels < VL)
        return part_of(t, kept, (struct block){1, vectors, PARTIAL});
    if (t->pixels >= most)
        return part_of(t, kept, (struct block){most, vectors, spread});
    if (t->pixels >= most / 2)
        return part_of(t, kept, (struct block){most / 2, vectors, spread});
    return part_of(t, kept, (struct block){1, vectors, spread});
}

typedef uint32_t part_kind(const struct conv_tile *t, float *kept);

static uint32_t narrow(const struct conv_tile *t, float *kept) {
    return part(t, kept, 1, NO_GROUPS);
}
#if VL > 4
static uint32_t spread_4(const struct conv_tile *t, float *kept) {
    return part(t, kept, 4 / word_numbers(FORMAT), WHOLE);
}
#endif
#if VL > 8
static uint32_t spread_8(const struct conv_tile *t, float *kept) {
    return part(t, kept, 8 / word_numbers(FORMAT), WHOLE);
}
#endif

static void group_tile(const struct conv_tile *t) {
    _Alignas(64) float kept[MR * VL];
    part_kind *kind = narrow;
#if VL > 4
    if (t->group == 4)
        kind = spread_4;
#endif
#if VL > 8
    if (t->group == 8)
        kind = spread_8;
#endif
    struct conv_tile next = *t;
    for (uint32_t left = t->pixels; left > 0; left -= next.pixels, move_on(&next)) {
        next.pixels = left;
        next.pixels = kind(&next, kept);
        finish_kept(&next, kept, VL);
    }
}
