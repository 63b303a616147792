/* vec_avx2.h - the vector vocabulary in AVX2 with FMA. */
#include <immintrin.h>
#include <stdint.h>

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

/* Floats that are the whole vector or a quarter; what stands in the rest is unknown. */
static inline vec vec_load_whole(const float *p, const uint32_t count) {
    return count == VL ? vec_load(p) : _mm256_castpd_ps(_mm256_castpd128_pd256(_mm_load_sd((const double *)p)));
}
/* The first `count` floats, and zeros. (Not a masked load: emulators read past its mask.) */
static inline vec vec_load_first(const float *p, uint32_t count) {
    float first[VL] = {0};
    for (uint32_t i = 0; i < count; i++)
        first[i] = p[i];
    return vec_load(first);
}
static inline vec vec_permute(vec a, const uint32_t from[VL]) {
    return _mm256_permutevar8x32_ps(a, _mm256_loadu_si256((const __m256i *)from));
}
/* Lane i gets lane i ^ distance; 1 or 2. */
static inline vec vec_swap(vec a, const uint32_t distance) {
    return distance == 1 ? _mm256_permute_ps(a, 0xb1) : _mm256_permute_ps(a, 0x4e);
}
