/* bench_layers.h - what each layer took, and the least that it can take on this machine. */
#ifndef BENCH_LAYERS_H
#define BENCH_LAYERS_H

#include <stdbool.h>

#include "bench_compare.h"
#include "bench_machine.h"
#include "bench_run.h"
#include "report.h"

/*
 * The limit is the longer of two times:
 * - its operations (two for each multiply-add of the convolution's sum) at the measured peak of the precision;
 * - the bytes that it cannot do without, at the measured read bandwidth of where they come from: its weights, once a
 * run, from the nearest cache that has room for the weights of all layers, since all of them pass between two uses;
 * its input, its residual and its output, from the nearest that has room for these.
 */
struct bench_layer {
    resnet_layer about;
    double seconds; /* median of the runs; 0 unless they were measured by layer */
    double operations, weight_bytes, map_bytes;
    double limit;      /* seconds; NaN where the machine's peak is not known */
    bool bytes_decide; /* the second time is the longer */
};

/* One for each layer of the network, for a run of the whole batch; the caller frees it. NULL after a complaint. */
struct bench_layer *bench_layers(const struct bench_run *run, const struct machine *machine);

/* The layers in the order in which they run; for people, with where the time over the limits goes. `before` is NULL, or
 * what to set beside them. */
void report_layers(struct report *report, const struct bench_run *run, const struct bench_layer *layers,
                   const struct bench_result *before);

#endif
