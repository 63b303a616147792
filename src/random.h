/* random.h - numbers that a seed and an index make, the same everywhere. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (splitmix64); number `index` after a seed. */
static inline uint64_t random_at(uint64_t seed, uint64_t index) {
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

#endif
