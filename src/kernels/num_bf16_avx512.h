/* num_bf16_avx512.h - bf16 in AVX-512 BF16, for conv_tmpl.h and pool_tmpl.h; see num_f32.h. */
#include "num_bf16.h"

typedef __m512bh words;

static inline words words_load(const float *p) {
    return (words)_mm512_loadu_si512(p);
}
static inline words words_of(vec a) {
    return (words)_mm512_castps_si512(a);
}
static inline words words_splat(const float *p) {
    return words_of(vec_splat(*p));
}
static inline acc dot(words x, words w, acc a) {
    return _mm512_dpbf16_ps(a, x, w);
}
static inline vec numbers_load(const float *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline void numbers_store(float *p, vec a) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(a));
}
