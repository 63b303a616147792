/* kernels_neon_i8mm.c - u8 by s8 in NEON with the mixed dot products of ARMv8.6. */
#include "vec_neon.h"

#include "num_u8_neon.h"

#define KERNELS u8_neon_i8mm
#define MR      6 /* output pixels a tile */
#define NV      4 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
