/* vec_avx512.h - the vector vocabulary in AVX-512F. */
#include <immintrin.h>
#include <stdint.h>

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

/* Floats that are the whole vector, a half of it or a quarter; what stands in the rest is unknown. */
static inline vec vec_load_whole(const float *p, const uint32_t count) {
    return count == VL       ? vec_load(p)
           : count == VL / 2 ? _mm512_castps256_ps512(_mm256_loadu_ps(p))
                             : _mm512_castps128_ps512(_mm_loadu_ps(p));
}
/* The first `count` floats, and zeros. */
static inline vec vec_load_first(const float *p, uint32_t count) {
    return _mm512_maskz_loadu_ps((__mmask16)((1U << count) - 1), p);
}
static inline vec vec_permute(vec a, const uint32_t from[VL]) {
    return _mm512_permutexvar_ps(_mm512_loadu_si512(from), a);
}
/* Lane i gets lane i ^ distance; 1, 2 or 4. */
static inline vec vec_swap(vec a, const uint32_t distance) {
    return distance == 1   ? _mm512_permute_ps(a, 0xb1)
           : distance == 2 ? _mm512_permute_ps(a, 0x4e)
                           : _mm512_shuffle_f32x4(a, a, 0xb1);
}
