/* kernels_avx512.c - the AVX512 kernel set. */
#include "vec_avx512.h"

#define MR 14 /* output pixels a tile */
#define NV 2  /* vectors of output channels a tile */
#include "conv_tmpl.h"
#include "pool_tmpl.h"
#include "winograd_tmpl.h"

const struct kernel_set kernels_avx512 = {
    .isa = RESNET_ISA_AVX512,
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
