/* numbers.h - what tests of several formats need: single numbers of each, their rounding, and how near is near. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

#define UNIT 0x1p-24 /* half of the last place of an f32 in [0.5, 1) */

static inline uint16_t upper_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static inline float from_upper_half(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Number i behind `from`. */
static inline double number_at(enum format format, const float *from, size_t i) {
    if (format == FORMAT_U8)
        return ((const uint8_t *)from)[i];
    return (double)(format == FORMAT_BF16 ? from_upper_half(((const uint16_t *)from)[i]) : from[i]);
}

/* Write it; a bf16 is cut off, not rounded. */
static inline void set_number(enum format format, float *to, size_t i, float value) {
    if (format == FORMAT_U8)
        ((uint8_t *)to)[i] = (uint8_t)value;
    else if (format == FORMAT_BF16)
        ((uint16_t *)to)[i] = upper_half(value);
    else
        to[i] = value;
}

/* The nearest number of 8 binary places, to even between two. */
static inline double nearest_bf16(double value) {
    int exponent;
    frexp(value, &exponent);
    return ldexp(rint(ldexp(value, 8 - exponent)), exponent - 8);
}

/* The nearest byte, to even between two. */
static inline uint8_t round_to_u8(float value) {
    return value > 0 ? (uint8_t)rintf(value < 255 ? value : 255) : 0;
}

struct sum {
    double value, magnitude; /* of what is added, and of its absolute values */
    uint32_t terms;
};

static inline void add_term(struct sum *sum, double term) {
    sum->value += term;
    sum->magnitude += fabs(term);
    sum->terms++;
}

/*
 * How far off a sum in f32 may be: each term is rounded once by every addition after it, and once more where multiply
 * and add are two instructions: at most terms + 1 times by 2^-24 of what stands there, which is no more than the
 * magnitude. Twice that leaves room for the higher orders. A ReLU brings two numbers no further apart.
 *
 * Products of bf16 are exact in f32; but some CPUs round their sums to odd, which is off by up to 2^-23.
 */
static inline double sum_bound(enum format format, struct sum sum) {
    return 2 * sum.terms * (format == FORMAT_BF16 ? 2 * UNIT : UNIT) * sum.magnitude;
}

/* Whether `got` is `wanted` computed with an error of at most `limit` and then stored in this format: bf16 rounds by
 * half of its last place, a 2^-8th. Without an error there is one right answer. */
static inline bool is_near(enum format stored, double got, double wanted, double limit) {
    if (stored == FORMAT_BF16 && limit == 0)
        return got == nearest_bf16(wanted);
    if (stored == FORMAT_BF16)
        limit += (fabs(wanted) + limit) * 0x1p-8;
    return fabs(got - wanted) <= limit;
}

#endif
