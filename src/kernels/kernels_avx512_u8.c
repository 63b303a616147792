/* kernels_avx512_u8.c - u8 by s8 in AVX-512 VNNI. */
#include "vec_avx512.h"

#include "num_u8_avx512.h"

#define KERNELS u8_avx512
#define MR      14 /* output pixels a tile */
#define NV      2  /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
