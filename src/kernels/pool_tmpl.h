/* pool_tmpl.h - pooling windows and the measuring loop, written once for every instruction set; see conv_tmpl.h. */

static void max_window(const struct pool_window *t) {
    uint32_t c = 0;
    for (; c + VL <= t->channels; c += VL) {
        vec best = vec_load(t->x + c);
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++)
                best = vec_max(best, vec_load(t->x + i * t->x_row + j * t->x_pixel + c));
        vec_store(t->y + c, best);
    }
    for (; c < t->channels; c++) {
        float best = t->x[c];
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++) {
                float a = t->x[i * t->x_row + j * t->x_pixel + c];
                best = best > a ? best : a;
            }
        t->y[c] = best;
    }
}

static void mean_window(const struct pool_window *t) {
    const float scale = 1.0F / ((float)t->rows * (float)t->columns);
    uint32_t c = 0;
    for (; c + VL <= t->channels; c += VL) {
        vec sum = vec_zero();
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++)
                sum = vec_add(sum, vec_load(t->x + i * t->x_row + j * t->x_pixel + c));
        vec_store(t->y + c, vec_mul(sum, vec_splat(scale)));
    }
    for (; c < t->channels; c++) {
        float sum = 0;
        for (uint32_t i = 0; i < t->rows; i++)
            for (uint32_t j = 0; j < t->columns; j++)
                sum += t->x[i * t->x_row + j * t->x_pixel + c];
        t->y[c] = sum * scale;
    }
}

/* Twelve chains hide the latency of the multiply-adds of every core that we know (4 or 5 cycles, two a cycle). */
#define CHAINS        12
#define FLOPS_A_ROUND (2.0 * CHAINS * VL)

static float fma_rounds(uint64_t rounds) {
    vec acc[CHAINS];
    const vec factor = vec_splat(0.5F), term = vec_splat(1.0F);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        acc[i] = vec_splat((float)i);
    for (; rounds > 0; rounds--) {
        UNROLL
        for (int i = 0; i < CHAINS; i++)
            acc[i] = vec_fma(acc[i], factor, term);
    }
    UNROLL
    for (int i = 1; i < CHAINS; i++)
        acc[0] = vec_add(acc[0], acc[i]);
    float sum[VL];
    vec_store(sum, acc[0]);
    return sum[0];
}
