/* execute.h - the fast executor: one node at a time, its output split between threads. */
#ifndef EXECUTE_H
#define EXECUTE_H

#include "kernels/kernels.h"
#include "plan.h"

/* u8 activations as real numbers: number = scale * (u - zero). */
struct scale {
    float scale, zero;
};

/* One node of a run. Tensors lie in the arena, but for an output that goes to `logits`. */
struct step {
    enum format format; /* that the node computes in: its input's, or that which the input is converted to */
    const struct format_kernels *kernels;
    const struct winograd_kernels *winograd; /* NULL, or panels come from winograd_pack */
    const struct format_kernels *kept;       /* of int8: NULL, or those of f32, which the panels are for */
    const struct node *node;
    const struct tensor *input, *output, *residual, *gate;  /* the last two: NULL where there is none */
    struct scale input_scale, output_scale, residual_scale; /* of int8 */
    const resnet_preprocess *preprocess;                    /* of int8: whose mean and std make pixels of the input */
    const float *panels;
    float *arena;
    float *logits; /* where the network's last output goes, or an embedding; NULL for all others */
    uint32_t images;
    float *scratch; /* of all threads, scratch_size floats each */
    size_t scratch_size;
};

/* Compute part `index` of `count` of a node's output. The parts are disjoint, and no sum is ever split. The input node
 * of a format other than f32 converts `input`, the slots, to it. */
void execute(const struct step *step, uint32_t index, uint32_t count);

#endif
