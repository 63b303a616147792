/* peak.c - measure what one core reaches in multiply-adds. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "clock.h"
#include "cpu.h"
#include "error.h"

#define TRIALS 5
#define ROUNDS 250000 /* about 2 ms a trial */

resnet_status resnet_fma_peak(resnet_isa isa, double *flops, resnet_error *error) {
    const struct kernel_set *kernels = cpu_kernels(isa);
    if (!flops)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_fma_peak: flops must not be NULL");
    if (!kernels)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "no multiply-adds to measure for instruction set %s here",
                    resnet_isa_name(isa));
    double best = 0;
    volatile float sink; /* or else the loop might be dropped */
    for (int i = 0; i < TRIALS; i++) {
        double start = seconds_now();
        sink = kernels->fma_rounds(ROUNDS);
        double rate = kernels->flops_a_round * ROUNDS / (seconds_now() - start);
        best = rate > best ? rate : best;
    }
    (void)sink;
    *flops = best;
    return RESNET_OK;
}
