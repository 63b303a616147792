/* split.h - cut a row of things into equal parts. */
#ifndef SPLIT_H
#define SPLIT_H

#include <stdint.h>

struct span {
    uint32_t begin, end;
};

/* Part `index` of `count` parts of 0..total-1, whose sizes differ by at most one. */
static inline struct span part_of(uint32_t total, uint32_t index, uint32_t count) {
    return (struct span){(uint32_t)((uint64_t)total * index / count),
                         (uint32_t)((uint64_t)total * (index + 1) / count)};
}

static inline uint32_t divide_up(uint32_t a, uint32_t b) {
    return (a + b - 1) / b;
}

static inline uint32_t smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

#endif
