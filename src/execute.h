/* execute.h - the fast executor: one node at a time, its output split between threads. */
#ifndef EXECUTE_H
#define EXECUTE_H

#include "kernels/kernels.h"
#include "plan.h"

/* One node of a run. Tensors lie in the arena; the last node's output goes to `logits`. */
struct step {
    const struct kernel_set *kernels;
    const struct node *node;
    const struct tensor *input, *output, *residual; /* residual: NULL where there is none */
    const float *panels;
    float *arena;
    float *logits; /* NULL but for the last node */
    uint32_t images;
    bool winograd;  /* panels come from winograd_pack */
    float *scratch; /* of all threads, scratch_size floats each */
    size_t scratch_size;
};

/* Compute part `index` of `count` of a node's output. The parts are disjoint, and no sum is ever split. */
void execute(const struct step *step, uint32_t index, uint32_t count);

#endif
