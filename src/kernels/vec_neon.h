/* vec_neon.h - the vector vocabulary in AArch64 NEON. */
#include <arm_neon.h>

#define VL 4 /* floats a vector */
typedef float32x4_t vec;

static inline vec vec_load(const float *p) {
    return vld1q_f32(p);
}
static inline void vec_store(float *p, vec a) {
    vst1q_f32(p, a);
}
static inline vec vec_splat(float a) {
    return vdupq_n_f32(a);
}
static inline vec vec_zero(void) {
    return vdupq_n_f32(0);
}
static inline vec vec_add(vec a, vec b) {
    return vaddq_f32(a, b);
}
static inline vec vec_sub(vec a, vec b) {
    return vsubq_f32(a, b);
}
static inline vec vec_mul(vec a, vec b) {
    return vmulq_f32(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return vfmaq_f32(c, a, b);
}
static inline vec vec_max(vec a, vec b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
} /* b where either is NaN */
