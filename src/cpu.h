/* cpu.h - what this machine can do, and how much of it this process may use. */
#ifndef CPU_H
#define CPU_H

#include "kernels/kernels.h"

/* The kernel set for `isa`; the best one here for RESNET_ISA_AUTO; NULL for RESNET_ISA_REFERENCE and what is absent.
 * Where the CPU has AMX, AUTO and AMX ask Linux to let the process use its tiles. */
const struct kernel_set *cpu_kernels(resnet_isa isa);

/* The format that a model of this precision has its activations in, with these kernels. */
enum format cpu_format(const struct kernel_set *kernels, resnet_precision precision);

/* Threads that run at once: the affinity mask, cut down to the cgroup's quota (rounded up). At least 1. */
uint32_t cpu_threads(void);

#endif
