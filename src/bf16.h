/* bf16.h - bfloat16: the upper half of an f32. */
#ifndef BF16_H
#define BF16_H

#include <stdint.h>
#include <string.h>

static inline float bf16_to_float(uint16_t a) {
    uint32_t bits = (uint32_t)a << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The nearest bf16, to even between two; denormal results and what is below become 0, as the hardware has it. `a` is
 * not a NaN, or becomes a quiet one. */
static inline uint16_t bf16_from_float(float a) {
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    if ((bits & 0x7f800000) == 0)
        return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
