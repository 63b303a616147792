/* pack.h - from the tensors of a model file to what the kernels read: fold batch normalisation, lay out in panels. */
#ifndef PACK_H
#define PACK_H

#include "graph.h"

/* The tensors of a convolution or of the classifier (then only weight and shift), row-major, in the model file's order.
 */
struct parameters {
    const float *weight;                          /* [out][in][kernel][kernel] */
    const float *scale, *shift, *mean, *variance; /* [out]; NULL where a node has none */
};

/* Floats in all tensors of a node; 0 for a node without any. */
size_t parameters_size(const struct node *node);

/* Where each tensor lies in a block of parameters_size floats. */
struct parameters parameters_at(const struct node *node, const float *block);

/* What every network must satisfy beyond finite numbers. Errors: MODEL, where a variance is negative. */
resnet_status parameters_check(const struct node *node, const float *block, resnet_error *error);

/* The nearest float, or 0 where that is denormal: denormal weights would slow the kernels down by a hundred times and
 * add nothing. */
float without_denormals(double value);

/* Floats of one panel: the biases and the weights of `nr` channels. */
size_t panel_size(const struct node *node, uint32_t nr);

/* Floats of a node's panels for kernels of `nr` channels a tile; see struct conv_tile. */
size_t panels_size(const struct node *node, uint32_t nr);

/* Fold and pack the tensors at `block`, laid out as parameters_at says, into `panels`. Errors: MODEL, where a folded
 * number is not finite. */
resnet_status pack_panels(const struct node *node, const float *block, double epsilon, uint32_t nr, float *panels,
                          resnet_error *error);

#endif
