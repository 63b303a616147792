/* kernels_avx512.c - f32 in AVX-512. */
#include "vec_avx512.h"

#include "num_f32.h"

#define KERNELS f32_avx512
#define MR      14 /* output pixels a tile */
#define NV      2  /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct winograd_kernels winograd_avx512 = {&f32_avx512, {WINOGRAD_ALL}};
