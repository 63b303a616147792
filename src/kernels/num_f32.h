/*
 * num_f32.h - numbers in f32, for conv_tmpl.h and pool_tmpl.h.
 * Include after a vector vocabulary; num_<format>.h all define the same names.
 */
#include "acc_f32.h"

#define FORMAT FORMAT_F32

typedef vec words; /* VL words of weights, or of the input: one in every place, or those of a vector */

static inline words words_load(const float *p) {
    return vec_load(p);
}
static inline words words_of(vec a) {
    return a;
}
static inline words words_splat(const float *p) {
    return vec_splat(*p);
}
static inline acc dot(words x, words w, acc a) {
    return vec_fma(x, w, a);
}

/* VL numbers from VL / word_numbers words; and back. */
static inline vec numbers_load(const float *p) {
    return vec_load(p);
}
static inline void numbers_store(float *p, vec a) {
    vec_store(p, a);
}

/* One number. */
static inline float number_get(const float *p, uint32_t i) {
    return p[i];
}
static inline void number_put(float *p, uint32_t i, float a) {
    p[i] = a;
}
