/* kernels_neon_u8.c - u8 by s8 in NEON. */
#include "vec_neon.h"

#include "num_u8_neon.h"

#define KERNELS u8_neon
#define MR      8 /* output pixels a tile */
#define NV      2 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
