/* acc_f32.h - sums in f32, which num_f32.h and num_bf16_<isa>.h share: an accumulator is a vector of the sums of VL
 * channels. Include after a vector vocabulary. */
#include <stdint.h>

#define HEAD_FLOATS 0 /* in a panel, behind the biases, for each channel */

typedef vec acc;

static inline acc acc_load(const float *p) {
    return vec_load(p);
}
static inline void acc_store(float *p, acc a) {
    vec_store(p, a);
}
static inline acc acc_add(acc a, acc b) {
    return vec_add(a, b);
}
#if VL > 4
static inline acc acc_swap(acc a, const uint32_t distance) {
    return vec_swap(a, distance);
}
#endif
static inline vec acc_floats(acc a) {
    return a;
}
static inline float acc_number(const float *p) {
    return *p;
}
