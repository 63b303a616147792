/* kernels_avx512_bf16.c - bf16 in AVX-512 BF16. */
#include "vec_avx512.h"

#include "num_bf16_avx512.h"

#define KERNELS bf16_avx512
#define MR      14 /* output pixels a tile */
#define NV      2  /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct winograd_kernels winograd_bf16_avx512 = {&f32_avx512, {WINOGRAD_LARGEST}};
