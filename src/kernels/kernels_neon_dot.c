/* kernels_neon_dot.c - u8 by s8 in NEON with the dot products of ARMv8.2. */
#include "vec_neon.h"

#include "num_u8_neon.h"

#define KERNELS u8_neon_dot
#define MR      6 /* output pixels a tile */
#define NV      4 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
