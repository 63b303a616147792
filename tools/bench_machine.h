/* bench_machine.h - what the machine can do at most: products a second, and bytes read a second from each cache. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include "resnet.h"

enum level { LEVEL_L1, LEVEL_L2, LEVEL_L3, LEVEL_MEMORY, LEVELS };

/* Of all threads at once, as far as there are cores for them: they share units, caches and a power budget. NaN: not
 * known, or there is none. */
struct machine {
    double operations[RESNET_PRECISION_BF16X3 + 1]; /* a second, a multiply-add is two; by resnet_precision */
    double capacity[LEVELS];                        /* bytes that lie in the caches of this level; memory: infinity */
    double read[LEVELS];                            /* bytes a second */
};

/* Measure, with the products of `isa`; takes about half a second. */
void machine_measure(struct machine *machine, resnet_isa isa, uint32_t threads);

/* Bytes a second that are read from the nearest level that has room for `bytes`; NaN where it is not known. */
double machine_bandwidth(const struct machine *machine, double bytes);

#endif
