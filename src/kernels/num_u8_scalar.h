/* num_u8_scalar.h - u8 by s8 without intrinsics, for conv_tmpl.h and pool_tmpl.h; see num_f32.h. */
#include "num_u8.h"

typedef int32_t acc __attribute__((vector_size(16)));
typedef int16_t halves __attribute__((vector_size(16)));
typedef uint16_t unsigned_halves __attribute__((vector_size(16)));
typedef uint32_t bits __attribute__((vector_size(16)));
typedef struct {
    halves even, odd; /* bytes of each word, in 16 bits each */
} words;

static inline acc acc_load(const float *p) {
    acc a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline void acc_store(float *p, acc a) {
    memcpy(p, &a, sizeof a);
}
static inline acc acc_add(acc a, acc b) {
    return a + b;
}
static inline words words_load(const float *p) { /* signed */
    unsigned_halves w;
    memcpy(&w, p, sizeof w);
    return (words){(halves)(w << 8) >> 8, (halves)w >> 8};
}
static inline words words_splat(const float *p) { /* unsigned */
    uint32_t word;
    memcpy(&word, p, sizeof word);
    int32_t even = (int32_t)(word & 0x00ff00ff), odd = (int32_t)(word >> 8 & 0x00ff00ff);
    return (words){(halves)(acc){even, even, even, even}, (halves)(acc){odd, odd, odd, odd}};
}
/* The sum of the two halves of each word. */
static inline acc pair_sums(halves a) {
    return ((acc)((bits)a << 16) >> 16) + ((acc)a >> 16);
}
/* 255 times -128 still fits into 16 bits. */
static inline acc dot(words x, words w, acc a) {
    return a + pair_sums(x.even * w.even) + pair_sums(x.odd * w.odd);
}
static inline vec acc_floats(acc a) {
    return __builtin_convertvector(a, vec);
}
static inline vec numbers_load(const float *p) {
    return (vec){number_get(p, 0), number_get(p, 1), number_get(p, 2), number_get(p, 3)};
}
static inline void numbers_store(float *p, vec a) {
    for (uint32_t i = 0; i < VL; i++)
        number_put(p, i, a[i]);
}
