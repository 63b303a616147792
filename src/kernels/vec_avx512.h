/* vec_avx512.h - the vector vocabulary in AVX-512F. */
#include <immintrin.h>

#define VL 16 /* floats a vector */
typedef __m512 vec;

static inline vec vec_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec a) {
    _mm512_storeu_ps(p, a);
}
static inline vec vec_splat(float a) {
    return _mm512_set1_ps(a);
}
static inline vec vec_zero(void) {
    return _mm512_setzero_ps();
}
static inline vec vec_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec vec_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
} /* b where either is NaN */
