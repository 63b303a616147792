/* num_u8.h - what every num_u8_<isa>.h shares: single numbers of u8 activations and their int32 sums. */
#include <stdint.h>
#include <string.h>

#define FORMAT      FORMAT_U8
#define HEAD_FLOATS 1 /* the scale */

static inline float acc_number(const float *p) {
    int32_t a;
    memcpy(&a, p, sizeof a);
    return (float)a;
}
static inline float number_get(const float *p, uint32_t i) {
    return ((const uint8_t *)p)[i];
}
/* Rounded to even between two, as the vectors do it: above 2^23 a float has no fraction. What is no number becomes 0.
 */
static inline void number_put(float *p, uint32_t i, float a) {
    const float whole = 8388608.0F;
    a = a > 0 ? a : 0;
    a = a < 255 ? a : 255;
    ((uint8_t *)p)[i] = (uint8_t)((a + whole) - whole);
}
