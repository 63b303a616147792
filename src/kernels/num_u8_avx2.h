/*
 * num_u8_avx2.h - u8 by s8 in AVX2, for conv_tmpl.h and pool_tmpl.h; see num_f32.h.
 *
 * With AVX-VNNI (or AVX-512 VNNI and VL, for tests) one instruction adds the four products of each word. Without:
 * vpmaddubsw would saturate, so the bytes 0, 2 and 1, 3 of each word are widened to 16 bits and multiplied and added in
 * pairs by vpmaddwd, which cannot.
 */
#include "num_u8.h"

typedef __m256i acc;

static inline acc acc_load(const float *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline void acc_store(float *p, acc a) {
    _mm256_storeu_si256((__m256i *)p, a);
}
static inline acc acc_add(acc a, acc b) {
    return _mm256_add_epi32(a, b);
}
static inline acc acc_swap(acc a, const uint32_t distance) {
    return _mm256_castps_si256(vec_swap(_mm256_castsi256_ps(a), distance));
}

#if defined(__AVXVNNI__) || defined(__AVX512VNNI__)
typedef __m256i words;

static inline words words_load(const float *p) { /* signed */
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline words words_of(vec a) { /* unsigned */
    return _mm256_castps_si256(a);
}
static inline acc dot(words x, words w, acc a) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(a, x, w);
#else
    return _mm256_dpbusd_epi32(a, x, w);
#endif
}
#else
typedef struct {
    __m256i even, odd; /* bytes of each word, in 16 bits each */
} words;

static inline words words_load(const float *p) { /* signed */
    __m256i w = _mm256_loadu_si256((const __m256i *)p);
    return (words){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}
static inline words words_of(vec a) { /* unsigned */
    __m256i x = _mm256_castps_si256(a);
    return (words){_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
}
static inline acc dot(words x, words w, acc a) {
    __m256i products = _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
    return _mm256_add_epi32(a, products);
}
#endif

static inline words words_splat(const float *p) {
    return words_of(vec_splat(*p));
}
static inline vec acc_floats(acc a) {
    return _mm256_cvtepi32_ps(a);
}
static inline vec numbers_load(const float *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline void numbers_store(float *p, vec a) {
    a = _mm256_min_ps(vec_max(a, vec_zero()), vec_splat(255));
    __m256i whole = _mm256_cvtps_epi32(a);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(half, half));
}
