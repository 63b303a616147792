/* vec_scalar.h - the vector vocabulary without intrinsics: the compiler's own vectors of four floats, on any machine.
 */
#include <string.h>

#define VL 4 /* floats a vector */
typedef float vec __attribute__((vector_size(16)));

static inline vec vec_load(const float *p) {
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline void vec_store(float *p, vec a) {
    memcpy(p, &a, sizeof a);
}
static inline vec vec_splat(float a) {
    return (vec){a, a, a, a};
}
static inline vec vec_zero(void) {
    return (vec){0, 0, 0, 0};
}
static inline vec vec_add(vec a, vec b) {
    return a + b;
}
static inline vec vec_sub(vec a, vec b) {
    return a - b;
}
static inline vec vec_mul(vec a, vec b) {
    return a * b;
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return a * b + c;
} /* rounds twice: no contraction in this build */
static inline vec vec_max(vec a, vec b) { /* b where either is NaN */
    return (vec){a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1], a[2] > b[2] ? a[2] : b[2],
                 a[3] > b[3] ? a[3] : b[3]};
}
