/* kernels_neon.c - f32 in NEON. */
#include "vec_neon.h"

#include "num_f32.h"

#define KERNELS f32_neon
#define MR      8 /* output pixels a tile */
#define NV      3 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct winograd_kernels winograd_neon = {&f32_neon, {WINOGRAD_ALL}};
