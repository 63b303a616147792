/* pool_tmpl.h - pooling, conversion, the measuring loop, and the table of all that the templates make; see conv_tmpl.h.
 */

/* Channel c of tap (i, j). */
ALWAYS_INLINE const float *tap(const struct pool_window *t, uint32_t i, uint32_t j, uint32_t c) {
    return t->x + i * t->x_row + j * t->x_pixel + c / word_numbers(FORMAT);
}

static void max_window(const struct pool_window *t) {
    uint32_t c = 0;
    for (; c + VL <= t->channels; c += VL) {
        vec best = numbers_load(tap(t, 0, 0, c));
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++)
                best = vec_max(best, numbers_load(tap(t, i, j, c)));
        numbers_store(t->y + c / word_numbers(FORMAT), best);
    }
    for (; c < t->channels; c++) {
        float best = number_get(t->x, c);
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++) {
                float a = number_get(tap(t, i, j, 0), c);
                best = best > a ? best : a;
            }
        number_put(t->y, c, best);
    }
}

static void mean_window(const struct pool_window *t) {
    uint32_t c = 0;
    for (; c + VL <= t->channels; c += VL) {
        vec sum = vec_zero();
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++)
                sum = vec_add(sum, numbers_load(tap(t, i, j, c)));
        vec mean = vec_add(vec_mul(sum, vec_splat(t->scale)), vec_splat(t->offset));
        if (t->floats)
            vec_store(t->y + c, mean);
        else
            numbers_store(t->y + c / word_numbers(FORMAT), mean);
    }
    for (; c < t->channels; c++) {
        float sum = 0;
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++)
                sum += number_get(tap(t, i, j, 0), c);
        if (t->floats)
            t->y[c] = sum * t->scale + t->offset;
        else
            number_put(t->y, c, sum * t->scale + t->offset);
    }
}

/* VL channels from c on of pixel p. */
ALWAYS_INLINE void gate_vector(const struct gated_row *t, uint32_t p, uint32_t c) {
    const uint32_t word = c / word_numbers(FORMAT);
    vec x = numbers_load(t->x + p * t->x_pixel + word), gate = vec_load(t->gate + c);
    vec residual = numbers_load(t->residual + p * t->residual_pixel + word);
    if (FORMAT == FORMAT_U8) {
        x = vec_sub(x, vec_splat(t->x_zero));
        gate = vec_mul(gate, vec_splat(t->scale));
        residual = vec_mul(residual, vec_splat(t->residual_scale));
    }
    vec sum = vec_add(vec_mul(x, gate), residual);
    sum = FORMAT == FORMAT_U8 ? vec_add(sum, vec_splat(t->offset)) : vec_max(vec_zero(), sum);
    numbers_store(t->y + p * t->y_pixel + word, sum);
}

static float gate_number(const struct gated_row *t, uint32_t p, uint32_t c) {
    float x = number_get(t->x + p * t->x_pixel, c), residual = number_get(t->residual + p * t->residual_pixel, c);
    if (FORMAT == FORMAT_U8)
        return (x - t->x_zero) * (t->gate[c] * t->scale) + residual * t->residual_scale + t->offset;
    float sum = x * t->gate[c] + residual;
    return sum < 0 ? 0 : sum;
}

static void gate_row(const struct gated_row *t) {
    for (uint32_t p = 0; p < t->pixels; p++) {
        uint32_t c = 0;
        for (; c + VL <= t->channels; c += VL)
            gate_vector(t, p, c);
        for (; c < t->channels; c++)
            number_put(t->y + p * t->y_pixel, c, gate_number(t, p, c));
    }
}

static void convert(const float *x, float *y, uint32_t count, const float factor[16], const float term[16]) {
    uint32_t i = 0;
    for (; i + VL <= count; i += VL) {
        vec product = vec_mul(vec_load(x + i), vec_load(factor + i % 16));
        numbers_store(y + i / word_numbers(FORMAT), vec_add(product, vec_load(term + i % 16)));
    }
    for (; i < count; i++)
        number_put(y, i, x[i] * factor[i % 16] + term[i % 16]);
}

/* Twelve chains hide the latency of the multiply-adds of every core that we know (4 or 5 cycles, two a cycle). As in a
 * tile, each has another pair of operands, so that no product serves twice. */
#define CHAINS      12
#define OPS_A_ROUND (2.0 * CHAINS * VL * (1 << FORMAT))

static float dot_rounds(uint64_t rounds) {
    float numbers[7][VL] = {{0}}, result[VL];
    acc sums[CHAINS];
    words x[3], w[4];
    __asm__ volatile("" : "+m"(numbers)); /* the compiler must not know them */
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        sums[i] = acc_load(numbers[i % 7]);
    for (; rounds > 0; rounds--) {
        UNROLL
        for (int i = 0; i < 7; i++)
            *(i < 3 ? &x[i] : &w[i - 3]) = words_load(numbers[i]);
#if VL == 16 /* in registers, or else GCC loads w for each product, and a core may do one such load a cycle */
        UNROLL
        for (int i = 0; i < 4; i++)
            __asm__("" : "+v"(w[i]));
#endif
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            sums[i] = dot(x[i % 3], w[i / 3], sums[i]);
        __asm__ volatile("" : : : "memory");
    }
    UNROLL
    for (int i = 1; i < CHAINS; i++)
        sums[0] = acc_add(sums[0], sums[i]);
    acc_store(result, sums[0]);
    return result[0];
}

const struct format_kernels KERNELS = {
    .mr = MR,
    .nr = NR,
    .group_nr = VL,
    .conv_tile = conv_tile,
    .group_tile = group_tile,
    .max_window = max_window,
    .mean_window = mean_window,
    .gate_row = gate_row,
    .convert = convert,
    .dot_rounds = dot_rounds,
    .ops_a_round = OPS_A_ROUND,
};
