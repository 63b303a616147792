/* kernels_scalar.c - f32 in plain C. */
#include "vec_scalar.h"

#include "num_f32.h"

#define KERNELS f32_scalar
#define MR      6 /* output pixels a tile */
#define NV      2 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct winograd_kernels winograd_scalar = {&f32_scalar, {WINOGRAD_ALL}};
