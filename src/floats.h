/* floats.h - what floats may not be, told from their bits, so that the compiler makes vectors of the loops around. */
#ifndef FLOATS_H
#define FLOATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The nearest float, or 0 where that is denormal: denormal weights would slow the kernels down by a hundred times and
 * add nothing. */
static inline float without_denormals(double value) {
    float nearest = (float)value;
    uint32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    bits = bits & 0x7f800000 ? bits : 0;
    memcpy(&nearest, &bits, sizeof bits);
    return nearest;
}

/* Whether there is no NaN and no infinity among them. */
static inline bool all_finite(const float *values, size_t count) {
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bits &= INT32_MAX;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x7f800000;
}

#endif
