/*
 * num_u8_neon.h - u8 by s8 in NEON, for conv_tmpl.h and pool_tmpl.h; see num_f32.h.
 *
 * Three ways, by what the CPU has: usdot multiplies unsigned by signed. sdot is signed by signed: 128 is taken from
 * each input, and 128 times the sum of the weights added to the bias. Without either, products of 16 bits are added up.
 */
#include <arm_neon.h>

#include "num_u8.h"

typedef int32x4_t acc;

static inline acc acc_load(const float *p) {
    return vreinterpretq_s32_f32(vld1q_f32(p));
}
static inline void acc_store(float *p, acc a) {
    vst1q_f32(p, vreinterpretq_f32_s32(a));
}
static inline acc acc_add(acc a, acc b) {
    return vaddq_s32(a, b);
}

#if defined(__ARM_FEATURE_MATMUL_INT8) || defined(__ARM_FEATURE_DOTPROD)
typedef int8x16_t words;

static inline words words_load(const float *p) { /* signed */
    return vreinterpretq_s8_f32(vld1q_f32(p));
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
static inline words words_splat(const float *p) { /* unsigned */
    return vreinterpretq_s8_f32(vld1q_dup_f32(p));
}
static inline acc dot(words x, words w, acc a) {
    return vusdotq_s32(a, vreinterpretq_u8_s8(x), w);
}
#elif defined(__ARM_FEATURE_DOTPROD)
static inline words words_splat(const float *p) { /* unsigned, less 128 */
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_f32(vld1q_dup_f32(p)), vdupq_n_u8(0x80)));
}
static inline acc dot(words x, words w, acc a) {
    return vdotq_s32(a, x, w);
}
#define START_NEEDS_WEIGHTS
/* The bias, and what words_splat took from `count` words, whose weights lie `step` apart. */
static inline acc acc_start(const float *bias, const float *w, size_t count, size_t step) {
    acc sum = vdupq_n_s32(0);
    for (; count > 0; count--, w += step)
        sum = vdotq_s32(sum, words_load(w), vdupq_n_s8(1));
    return vmlaq_n_s32(acc_load(bias), sum, 128);
}
#else
typedef struct {
    int16x8_t first, second; /* bytes 0 and 1, 2 and 3 of four words; or of one word, from `first` on */
} words;

static inline words words_load(const float *p) { /* signed */
    int8x16_t w = vreinterpretq_s8_f32(vld1q_f32(p));
    int16x8_t low = vmovl_s8(vget_low_s8(w)), high = vmovl_high_s8(w);
    int16x8_t even = vuzp1q_s16(low, high), odd = vuzp2q_s16(low, high);
    return (words){vuzp1q_s16(even, odd), vuzp2q_s16(even, odd)};
}
static inline words words_splat(const float *p) { /* unsigned */
    int16x8_t x = vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_f32(vld1_dup_f32(p))));
    return (words){x, x};
}
static inline acc dot(words x, words w, acc a) {
    a = vmlal_laneq_s16(a, vget_low_s16(w.first), x.first, 0);
    a = vmlal_high_laneq_s16(a, w.first, x.first, 1);
    a = vmlal_laneq_s16(a, vget_low_s16(w.second), x.first, 2);
    return vmlal_high_laneq_s16(a, w.second, x.first, 3);
}
#endif

static inline vec acc_floats(acc a) {
    return vcvtq_f32_s32(a);
}
static inline vec numbers_load(const float *p) {
    uint16x8_t wide = vmovl_u8(vreinterpret_u8_f32(vld1_dup_f32(p)));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}
/* Conversions to integers saturate, and make 0 of what is no number. */
static inline void numbers_store(float *p, vec a) {
    uint16x4_t wide = vqmovn_u32(vcvtnq_u32_f32(a));
    vst1_lane_f32(p, vreinterpret_f32_u8(vqmovn_u16(vcombine_u16(wide, wide))), 0);
}
