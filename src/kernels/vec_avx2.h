/* vec_avx2.h - the vector vocabulary in AVX2 with FMA. */
#include <immintrin.h>

#define VL 8 /* floats a vector */
typedef __m256 vec;

static inline vec vec_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void vec_store(float *p, vec a) {
    _mm256_storeu_ps(p, a);
}
static inline vec vec_splat(float a) {
    return _mm256_set1_ps(a);
}
static inline vec vec_zero(void) {
    return _mm256_setzero_ps();
}
static inline vec vec_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec vec_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
} /* b where either is NaN */
