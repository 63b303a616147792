/*
 * finish_tmpl.h - the end of a convolution tile, from sums to stored activations, for every instruction set and format.
 *
 * Included by conv_tmpl.h and amx_tmpl.h after a vector vocabulary and a number vocabulary, with NR defined.
 */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define LINE_FLOATS 16 /* of a cache line */

/* a * scale + residual * residual_scale + offset, for VL channels of u8 from channel n on. */
ALWAYS_INLINE vec finish_u8(const struct conv_tile *t, acc sum, const float *residual, uint32_t n) {
    vec a = vec_mul(acc_floats(sum), vec_load(t->panel + NR + n));
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

/* Scale, residual, activation and store of a vector: channels n..n+VL of pixel p. */
ALWAYS_INLINE void finish_vector(const struct conv_tile *t, acc sum, uint32_t p, uint32_t n) {
    const size_t place = p * t->y_pixel + n / word_numbers(FORMAT);
    const float *residual = t->residual ? t->residual + place : NULL;
    numbers_store(t->y + place, FORMAT == FORMAT_U8 ? finish_u8(t, sum, residual, n) : finish_float(t, sum, residual));
}

/* The same for one number, whose sum is `kept`. */
static float finish_number(const struct conv_tile *t, const float *kept, uint32_t p, uint32_t n) {
    float a = acc_number(kept);
    if (FORMAT == FORMAT_U8)
        a *= t->panel[NR + n];
    if (t->floats)
        return a;
    if (t->residual) {
        float r = number_get(t->residual + p * t->y_pixel, n);
        a += FORMAT == FORMAT_U8 ? r * t->residual_scale : r;
    }
    if (FORMAT == FORMAT_U8)
        return a + t->offset;
    return t->relu && a < 0 ? 0 : a;
}

/* Channels from `first` on, a number at a time, of sums that lie in memory, NR of each pixel. */
static void finish_numbers(const struct conv_tile *t, const float *kept, uint32_t first) {
    for (uint32_t p = 0; p < t->pixels; p++)
        for (uint32_t n = first; n < t->channels; n++) {
            float a = finish_number(t, kept + p * NR + n, p, n);
            if (t->floats)
                t->y[p * t->y_pixel + n] = a;
            else
                number_put(t->y + p * t->y_pixel, n, a);
        }
}
