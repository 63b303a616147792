/*
 * finish_tmpl.h - the end of a convolution tile, from sums to stored activations, for every instruction set and format.
 *
 * Included by conv_tmpl.h and amx_tmpl.h after a vector vocabulary and a number vocabulary.
 */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define LINE_FLOATS 16 /* of a cache line */

/* A number of a tile: channel n of pixel p. */
struct spot {
    uint32_t p, n;
};

/* a * scale + residual * residual_scale + offset, for VL channels of u8. */
ALWAYS_INLINE vec finish_u8(const struct conv_tile *t, acc sum, const float *scale, const float *residual) {
    vec a = vec_mul(acc_floats(sum), vec_load(scale));
    if (residual)
        a = vec_add(a, vec_mul(numbers_load(residual), vec_splat(t->residual_scale)));
    return vec_add(a, vec_splat(t->offset));
}

/* act(a + residual), for VL channels of f32 or bf16. */
ALWAYS_INLINE vec finish_float(const struct conv_tile *t, acc sum, const float *residual) {
    vec a = acc_floats(sum);
    if (residual)
        a = vec_add(a, numbers_load(residual));
    return t->relu ? vec_max(vec_zero(), a) : a;
}

/* Scale, residual, activation and store of a vector, from `at` on, whose panel has `nr` channels. */
ALWAYS_INLINE void finish_vector(const struct conv_tile *t, acc sum, uint32_t nr, struct spot at) {
    const size_t place = at.p * t->y_pixel + at.n / word_numbers(FORMAT);
    const float *residual = t->residual ? t->residual + place : NULL;
    numbers_store(t->y + place, FORMAT == FORMAT_U8 ? finish_u8(t, sum, t->panel + nr + at.n, residual)
                                                    : finish_float(t, sum, residual));
}

/* The same for one number, whose sum is `kept`, without the store. */
static float finish_number(const struct conv_tile *t, const float *kept, uint32_t nr, struct spot at) {
    float a = acc_number(kept);
    if (FORMAT == FORMAT_U8)
        a *= t->panel[nr + at.n];
    if (t->floats)
        return a;
    if (t->residual) {
        float r = number_get(t->residual + at.p * t->y_pixel, at.n);
        a += FORMAT == FORMAT_U8 ? r * t->residual_scale : r;
    }
    if (FORMAT == FORMAT_U8)
        return a + t->offset;
    return t->relu && a < 0 ? 0 : a;
}

/* Channels from `first` on, a number at a time, of sums that lie in memory, `nr` of each pixel. */
static void finish_numbers(const struct conv_tile *t, const float *kept, uint32_t nr, uint32_t first) {
    for (uint32_t p = 0; p < t->pixels; p++)
        for (uint32_t n = first; n < t->channels; n++) {
            float a = finish_number(t, kept + p * nr + n, nr, (struct spot){p, n});
            if (t->floats)
                t->y[p * t->y_pixel + n] = a;
            else
                number_put(t->y + p * t->y_pixel, n, a);
        }
}

/* All channels of sums that lie in memory: vectors as long as there are whole ones; the rest, and floats, by numbers.
 */
static void finish_kept(const struct conv_tile *t, const float *kept, uint32_t nr) {
    const uint32_t whole = t->floats ? 0 : t->channels / VL * VL;
    for (uint32_t p = 0; p < t->pixels; p++)
        for (uint32_t n = 0; n < whole; n += VL)
            finish_vector(t, acc_load(kept + p * nr + n), nr, (struct spot){p, n});
    finish_numbers(t, kept, nr, whole);
}

/* From a part of a tile to the pixels behind it. */
ALWAYS_INLINE void move_on(struct conv_tile *part) {
    part->x += part->pixels * part->x_pixel;
    part->y += part->pixels * part->y_pixel;
    if (part->residual)
        part->residual += part->pixels * part->y_pixel;
}
