/* kernels_neon.c - the NEON kernel set. */
#include "vec_neon.h"

#define MR 8 /* output pixels a tile */
#define NV 3 /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct kernel_set kernels_neon = {
    .isa = RESNET_ISA_NEON,
    .mr = MR,
    .nr = NR,
    .conv_tile = conv_tile,
    .max_window = max_window,
    .mean_window = mean_window,
    .winograd_input = winograd_input,
    .winograd_output = winograd_output,
    .fma_rounds = fma_rounds,
    .flops_a_round = FLOPS_A_ROUND,
};
