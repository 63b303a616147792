/* pack.h - from the tensors of a layer to what the kernels read: fold batch normalisation, round, lay out in panels. */
#ifndef PACK_H
#define PACK_H

#include "graph.h"
#include "kernels/kernels.h"

/* The tensors of a convolution or of a linear layer (then only weight and shift), row-major, in the order of an f32
 * model file. */
struct parameters {
    const float *weight;                          /* [out][in / groups][kernel][kernel] */
    const float *scale, *shift, *mean, *variance; /* [out]; NULL where a node has none */
};

/* Floats in all tensors of a node; 0 for a node without any. */
size_t parameters_size(const struct node *node);

/* Where each tensor lies in a block of parameters_size floats. */
struct parameters parameters_at(const struct node *node, const float *block);

/* Products of u8 and s8 that an int32 sum has room for, beside a bias below 2^30. */
#define MOST_PRODUCTS 32768U

/* A convolution or a linear layer with batch normalisation folded in: y = bias + sum of weight * x. */
struct layer {
    const float *weight;    /* [out][in / groups][kernel][kernel] */
    const float *bias;      /* [out] */
    const int8_t *integers; /* of int8, instead of weight */
    const float *scale;     /* of int8: [out], weight = scale * integer */
    float input, output;    /* of int8: scales of the activations; output is 1 for floats */
};

/* Fold in place: the weights of a block laid out as parameters_at says, and the bias in place of its shift. Errors:
 * MODEL, where a folded number is not finite. */
resnet_status fold(const struct node *node, float *block, double epsilon, struct layer *layer, resnet_error *error);

/* Each number to the nearest bf16. A large one may become infinite. */
void round_to_bf16(float *values, size_t count);

/* The nearest integers to weight / scale, -127 to 127, with a scale for each output channel: the largest magnitude /
 * 127, and 1 for a channel of zeros (or of numbers so small that their scale would be denormal). */
void quantize_weights(const struct node *node, const float *weight, int8_t *integers, float *scale);

/* Whether a node is a convolution for group_tile, and so the channels of its panels. */
bool takes_group_tile(const struct node *node, const struct format_kernels *kernels);
uint32_t panel_channels(const struct node *node, const struct format_kernels *kernels);

/* Words of a node's panels, and of one of them, for kernels of `nr` channels a tile; see struct conv_tile. */
size_t panels_size(const struct node *node, enum format format, uint32_t nr);
size_t panel_size(const struct node *node, enum format format, uint32_t nr);

/* Lay a layer out in panels. Errors: MODEL, where a bias of int8 does not fit into its int32 sum, or a number of int8
 * becomes 2^60 units of the output or more. */
resnet_status pack_panels(const struct node *node, const struct layer *layer, enum format format, uint32_t nr,
                          float *panels, resnet_error *error);

/* A layer of one group in panels that pack_panels has made; of int8 with the scales of its activations, as in struct
 * layer. */
struct packed {
    const struct node *node;
    enum format format;
    uint32_t nr;
    const float *panels;
    float input, output;
};

/* Read an output channel back: its weights [in][kernel][kernel] as floats, which of int8 are scale * integer,
 * and its bias, which is returned, as they were packed: rounded to bf16, or of int8 to units of the products. */
float unpack_channel(const struct packed *packed, uint32_t channel, float *weight);

#endif
