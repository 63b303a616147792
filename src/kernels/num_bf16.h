/* num_bf16.h - what every num_bf16_<isa>.h shares: single numbers of bf16 activations and their f32 sums. */
#include "../bf16.h"
#include "acc_f32.h"

#define FORMAT FORMAT_BF16

static inline float number_get(const float *p, uint32_t i) {
    uint16_t a;
    memcpy(&a, (const char *)p + i * sizeof a, sizeof a);
    return bf16_to_float(a);
}
static inline void number_put(float *p, uint32_t i, float a) {
    uint16_t narrow = bf16_from_float(a);
    memcpy((char *)p + i * sizeof narrow, &narrow, sizeof narrow);
}
