/*
 * winograd_tmpl.h - Winograd's transforms, written once for every instruction set; see conv_tmpl.h.
 *
 * A tile of 4 outputs along one side takes 6 inputs, F(4, 3), one of 2 takes 4, F(2, 3):
 *
 *          | 4  0 -5  0  1  0 |         | 1  1  1  1  1  0 |
 *          | 0 -4 -4  1  1  0 |    A' = | 0  1 -1  2 -2  0 |        | 1  0 -1  0 |
 *     B' = | 0  4 -4 -1  1  0 |         | 0  1  1  4  4  0 |   B' = | 0  1  1  0 |   A' = | 1  2  2  0 |
 *          | 0 -2 -1  2  1  0 |         | 0  1 -1  8 -8  1 |        | 0 -1  1  0 |        | 0  2 -2  1 |
 *          | 0  2 -1 -2  1  0 |                                     | 0 -1  0  1 |
 *          | 0  4  0 -5  0  1 |
 *
 * From the points 0, 1, -1, 2, -2 and 0, 1, -1, as Lavin and Gray have them, but for factors of two and a sign that G
 * and these share otherwise, so that no filter grows.
 */

/* to = B' from, six numbers `step` apart */
ALWAYS_INLINE void input_of_4(const vec *from, vec *to, const int step) {
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

/* The same for four numbers. */
ALWAYS_INLINE void input_of_2(const vec *from, vec *to, const int step) {
    const vec d0 = from[0], d1 = from[step], d2 = from[2 * step], d3 = from[3 * step];
    to[0] = vec_sub(d0, d2);
    to[step] = vec_add(d1, d2);
    to[2 * step] = vec_sub(d2, d1);
    to[3 * step] = vec_sub(d3, d1);
}

ALWAYS_INLINE void transform_input(const vec *from, vec *to, const int step, const int side) {
    (side == 4 ? input_of_4 : input_of_2)(from, to, step);
}

ALWAYS_INLINE void transform_patch(const float *const patch[], uint32_t channels, float *v, size_t element,
                                   const int rows, const int columns) {
    const int height = rows + 2, width = columns + 2;
    for (uint32_t c = 0; c < channels; c += VL) {
        vec d[WINOGRAD_ELEMENTS], t[WINOGRAD_ELEMENTS];
        UNROLL
        for (int j = 0; j < width; j++) {
            UNROLL
            for (int i = 0; i < height; i++)
                d[width * i + j] = numbers_load(patch[width * i + j] + c / word_numbers(FORMAT));
            transform_input(d + j, t + j, width, rows);
        }
        UNROLL
        for (int i = 0; i < height; i++) {
            transform_input(t + width * i, d + width * i, 1, columns);
            UNROLL
            for (int j = 0; j < width; j++)
                vec_store(v + (size_t)(width * i + j) * element + c, d[width * i + j]);
        }
    }
}

/* to = A' from: six numbers `step` apart to four */
ALWAYS_INLINE void output_of_4(const vec *from, vec *to, const int step) {
    const vec two = vec_splat(2), four = vec_splat(4), eight = vec_splat(8);
    const vec sum1 = vec_add(from[step], from[2 * step]), difference1 = vec_sub(from[step], from[2 * step]);
    const vec sum2 = vec_add(from[3 * step], from[4 * step]), difference2 = vec_sub(from[3 * step], from[4 * step]);
    to[0] = vec_add(vec_add(from[0], sum1), sum2);
    to[step] = vec_fma(two, difference2, difference1);
    to[2 * step] = vec_fma(four, sum2, sum1);
    to[3 * step] = vec_add(vec_fma(eight, difference2, difference1), from[5 * step]);
}

/* The same for four numbers to two. */
ALWAYS_INLINE void output_of_2(const vec *from, vec *to, const int step) {
    const vec two = vec_splat(2);
    to[0] = vec_fma(two, vec_add(from[step], from[2 * step]), from[0]);
    to[step] = vec_fma(two, vec_sub(from[step], from[2 * step]), from[3 * step]);
}

ALWAYS_INLINE void transform_output(const vec *from, vec *to, const int step, const int side) {
    (side == 4 ? output_of_4 : output_of_2)(from, to, step);
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

ALWAYS_INLINE void transform_products(const struct winograd_output *t, const int rows, const int columns) {
    const int height = rows + 2, width = columns + 2;
    for (uint32_t c = 0; c < t->channels; c += VL) {
        vec m[WINOGRAD_ELEMENTS], s[24], y[16]; /* at most */
        UNROLL
        for (int j = 0; j < width; j++) {
            UNROLL
            for (int i = 0; i < height; i++)
                m[width * i + j] = vec_load(t->products + (size_t)(width * i + j) * t->element + c);
            transform_output(m + j, s + j, width, rows);
        }
        UNROLL
        for (int i = 0; i < rows; i++)
            transform_output(s + width * i, y + columns * i, 1, columns);
        for (uint32_t i = 0; i < t->rows; i++)
            finish_row(t, y + columns * (int)i, i, c);
    }
}

#define TRANSFORMS(rows, columns)                                                                                      \
    static inline void input_##rows##x##columns(const float *const patch[], uint32_t channels, float *v,               \
                                                size_t element) {                                                      \
        transform_patch(patch, channels, v, element, rows, columns);                                                   \
    }                                                                                                                  \
    static inline void output_##rows##x##columns(const struct winograd_output *output) {                               \
        transform_products(output, rows, columns);                                                                     \
    }
TRANSFORMS(4, 4)
TRANSFORMS(4, 2)
TRANSFORMS(2, 2)

#define WINOGRAD_LARGEST [WINOGRAD_4X4] = {input_4x4, output_4x4}
#define WINOGRAD_ALL                                                                                                   \
    WINOGRAD_LARGEST, [WINOGRAD_4X2] = {input_4x2, output_4x2}, [WINOGRAD_2X2] = {input_2x2, output_2x2}
