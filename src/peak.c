/* peak.c - measure what one core reaches in multiply-adds. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "clock.h"
#include "cpu.h"
#include "error.h"

#define TRIALS 5
#define ROUNDS 250000 /* about 2 ms a trial */

resnet_status resnet_peak(resnet_isa isa, resnet_precision precision, double *operations, resnet_error *error) {
    const struct kernel_set *set = cpu_kernels(isa);
    if (!operations)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_peak: operations must not be NULL");
    if (!set)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "no multiply-adds to measure for instruction set %s here",
                    resnet_isa_name(isa));
    const struct format_kernels *kernels = set->formats[cpu_format(set, precision)];
    double best = 0;
    volatile float sink; /* or else the loop might be dropped */
    for (int i = 0; i < TRIALS; i++) {
        int64_t start = nanoseconds_now();
        sink = kernels->dot_rounds(ROUNDS);
        double rate = kernels->ops_a_round * ROUNDS / (1e-9 * (double)(nanoseconds_now() - start));
        best = rate > best ? rate : best;
    }
    (void)sink;
    *operations = best;
    return RESNET_OK;
}
