/* kernels_avx2_u8.c - u8 by s8 in AVX2, by products of 16 bits that cannot saturate. */
#include "vec_avx2.h"

#include "num_u8_avx2.h"

#define KERNELS u8_avx2
#define MR      6 /* output pixels a tile */
#define NV      2 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
