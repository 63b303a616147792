/* num_bf16_neon.h - bf16 in NEON, for conv_tmpl.h and pool_tmpl.h; see num_f32.h. */
#include <arm_neon.h>

#include "num_bf16.h"

typedef bfloat16x8_t words;

static inline words words_load(const float *p) {
    return vreinterpretq_bf16_f32(vld1q_f32(p));
}
static inline words words_splat(const float *p) {
    return vreinterpretq_bf16_f32(vld1q_dup_f32(p));
}
static inline acc dot(words x, words w, acc a) {
    return vbfdotq_f32(a, x, w);
}
static inline vec numbers_load(const float *p) {
    return vcvt_f32_bf16(vreinterpret_bf16_f32(vld1_f32(p)));
}
static inline void numbers_store(float *p, vec a) {
    vst1_f32(p, vreinterpret_f32_bf16(vcvt_bf16_f32(a)));
}
