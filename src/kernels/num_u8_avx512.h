/* num_u8_avx512.h - u8 by s8 in AVX-512 VNNI, for conv_tmpl.h and pool_tmpl.h; see num_f32.h. */
#include "num_u8.h"

typedef __m512i acc;
typedef __m512i words;

static inline acc acc_load(const float *p) {
    return _mm512_loadu_si512(p);
}
static inline void acc_store(float *p, acc a) {
    _mm512_storeu_si512(p, a);
}
static inline acc acc_add(acc a, acc b) {
    return _mm512_add_epi32(a, b);
}
static inline acc acc_swap(acc a, const uint32_t distance) {
    return _mm512_castps_si512(vec_swap(_mm512_castsi512_ps(a), distance));
}
static inline words words_load(const float *p) {
    return _mm512_loadu_si512(p);
}
static inline words words_of(vec a) {
    return _mm512_castps_si512(a);
}
static inline words words_splat(const float *p) {
    return words_of(vec_splat(*p));
}
static inline acc dot(words x, words w, acc a) {
    return _mm512_dpbusd_epi32(a, x, w);
}
static inline vec acc_floats(acc a) {
    return _mm512_cvtepi32_ps(a);
}
static inline vec numbers_load(const float *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* A number too large for int32 converts to 2^31, which saturates as it should. */
static inline void numbers_store(float *p, vec a) {
    __m512i whole = _mm512_cvtps_epi32(vec_max(a, vec_zero()));
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(whole));
}
