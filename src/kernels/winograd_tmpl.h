/*
 * winograd_tmpl.h - Winograd's F(4x4, 3x3) transforms, written once for every instruction set; see conv_tmpl.h.
 *
 *          | 4  0 -5  0  1  0 |         | 1  1  1  1  1  0 |
 *          | 0 -4 -4  1  1  0 |    A' = | 0  1 -1  2 -2  0 |
 *     B' = | 0  4 -4 -1  1  0 |         | 0  1  1  4  4  0 |
 *          | 0 -2 -1  2  1  0 |         | 0  1 -1  8 -8  1 |
 *          | 0  2 -1 -2  1  0 |
 *          | 0  4  0 -5  0  1 |         (Lavin and Gray, from the points 0, 1, -1, 2, -2)
 */

/* to = B' from, six numbers `step` apart */
ALWAYS_INLINE void transform_input(const vec *from, vec *to, const int step) {
    const vec two = vec_splat(2), four = vec_splat(4), minus_four = vec_splat(-4), minus_five = vec_splat(-5);
    const vec d0 = from[0], d1 = from[step], d2 = from[2 * step], d3 = from[3 * step], d4 = from[4 * step];
    const vec even = vec_fma(minus_four, d2, d4), odd = vec_fma(minus_four, d1, d3);
    const vec difference = vec_sub(d4, d2), slope = vec_mul(two, vec_sub(d3, d1));
    to[0] = vec_fma(four, d0, vec_fma(minus_five, d2, d4));
    to[step] = vec_add(even, odd);
    to[2 * step] = vec_sub(even, odd);
    to[3 * step] = vec_add(difference, slope);
    to[4 * step] = vec_sub(difference, slope);
    to[5 * step] = vec_fma(four, d1, vec_fma(minus_five, d3, from[5 * step]));
}

static void transform_patch(const float *const patch[36], uint32_t channels, float *v, size_t element) {
    for (uint32_t c = 0; c < channels; c += VL) {
        vec d[36], t[36];
        UNROLL
        for (int j = 0; j < 6; j++) {
            UNROLL
            for (int i = 0; i < 6; i++)
                d[6 * i + j] = numbers_load(patch[6 * i + j] + c / word_numbers(FORMAT));
            transform_input(d + j, t + j, 6);
        }
        UNROLL
        for (int i = 0; i < 6; i++) {
            transform_input(t + 6 * i, d + 6 * i, 1);
            UNROLL
            for (int j = 0; j < 6; j++)
                vec_store(v + (size_t)(6 * i + j) * element + c, d[6 * i + j]);
        }
    }
}

/* to = A' from: six numbers `step` apart to four */
ALWAYS_INLINE void transform_output(const vec *from, vec *to, const int step) {
    const vec two = vec_splat(2), four = vec_splat(4), eight = vec_splat(8);
    const vec sum1 = vec_add(from[step], from[2 * step]), difference1 = vec_sub(from[step], from[2 * step]);
    const vec sum2 = vec_add(from[3 * step], from[4 * step]), difference2 = vec_sub(from[3 * step], from[4 * step]);
    to[0] = vec_add(vec_add(from[0], sum1), sum2);
    to[step] = vec_fma(two, difference2, difference1);
    to[2 * step] = vec_fma(four, sum2, sum1);
    to[3 * step] = vec_add(vec_fma(eight, difference2, difference1), from[5 * step]);
}

/* Bias, residual, activation and store of a row of a tile. */
ALWAYS_INLINE void finish_row(const struct winograd_output *t, const vec *row, uint32_t i, uint32_t c) {
    for (uint32_t j = 0; j < t->columns; j++) {
        const size_t place = j * t->y_pixel + c / word_numbers(FORMAT);
        vec a = vec_add(row[j], vec_load(t->bias + c));
        if (t->residual)
            a = vec_add(a, numbers_load(t->residual + i * t->residual_row + place));
        if (t->relu)
            a = vec_max(vec_zero(), a);
        numbers_store(t->y + i * t->y_row + place, a);
    }
}

static void transform_products(const struct winograd_output *t) {
    for (uint32_t c = 0; c < t->channels; c += VL) {
        vec m[36], s[24], y[16];
        UNROLL
        for (int j = 0; j < 6; j++) {
            UNROLL
            for (int i = 0; i < 6; i++)
                m[6 * i + j] = vec_load(t->products + (size_t)(6 * i + j) * t->element + c);
            transform_output(m + j, s + j, 6);
        }
        UNROLL
        for (int i = 0; i < 4; i++)
            transform_output(s + 6 * i, y + 4 * i, 1);
        for (uint32_t i = 0; i < t->rows; i++)
            finish_row(t, y + 4 * i, i, c);
    }
}
