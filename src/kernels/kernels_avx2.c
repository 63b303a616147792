/* kernels_avx2.c - f32 in AVX2 with FMA. */
#include "vec_avx2.h"

#include "num_f32.h"

#define KERNELS f32_avx2
#define MR      6 /* output pixels a tile */
#define NV      2 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct winograd_kernels winograd_avx2 = {&f32_avx2, {WINOGRAD_ALL}};
