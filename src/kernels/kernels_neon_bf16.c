/* kernels_neon_bf16.c - bf16 in NEON with the dot products of ARMv8.6. */
#include "vec_neon.h"

#include "num_bf16_neon.h"

#define KERNELS bf16_neon
#define MR      6 /* output pixels a tile */
#define NV      4 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
