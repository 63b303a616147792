/* kernels_scalar_u8.c - u8 by s8 in plain C. */
#include "vec_scalar.h"

#include "num_u8_scalar.h"

#define KERNELS u8_scalar
#define MR      4 /* output pixels a tile */
#define NV      2 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
