/*
 * weights.h - from a network's tensors to what its executor reads: fold, round, quantise and pack, on several threads.
 *
 * Weights come in units of some output channels of a layer, small enough for a core's own cache: a thread takes one
 * unit after the other through all steps. So memory beside the weights stays small, and the result does not depend on
 * the number of threads; nor does an error, which is that of the first unit that has one.
 */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "model.h"

/* Output channels first..first + count - 1 of a node. */
struct unit {
    uint32_t node, first, count;
};

/* Where tensors come from. */
struct source {
    resnet_precision stored; /* what the weights are; in a layer that the model keeps, f32 */
    void *context;
    /* All of a node's tensors but the weights, in the model file's order. */
    resnet_status (*vectors)(void *context, uint32_t node, float *vectors, resnet_error *error);
    /* A unit's weights, finite: floats, bf16 or int8_t. Called by several threads at once. */
    resnet_status (*weights)(void *context, struct unit unit, void *weights, resnet_error *error);
};

/* Fill in the model's weights, starts and scales; all else is there. `threads` 0: as many as are useful here. Errors:
 * MODEL, MEMORY, THREAD, and the source's. */
resnet_status weights_build(resnet_model *model, const struct source *source, uint32_t threads, resnet_error *error);

/* Give a model, whose graph is that of `from` up to the classifier, the weights of `from` and this classifier. Errors:
 * ARGUMENT, where it is not finite once it is rounded; MEMORY. */
resnet_status weights_with_classifier(resnet_model *model, const resnet_model *from,
                                      const struct classifier *classifier, resnet_error *error);

/* The weights of an output channel of a linear layer [in] as the executor has them; returns its bias.
 * See unpack_channel. */
float weights_of_channel(const resnet_model *model, uint32_t node, uint32_t channel, float *weight);

#endif
