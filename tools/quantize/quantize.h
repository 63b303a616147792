/* quantize.h - one layer of a network in 8 bits: what quantizer_quantize does with each. */
#ifndef QUANTIZE_H
#define QUANTIZE_H

#include "pack.h"

/* Where a layer's own weights, rounded, leave a signal-to-noise ratio below this (dB), it is kept in f32: activations
 * of 8 bits leave some 20 to 30 in any case, and sound layers have 35 to 45. */
#define LEAST_WEIGHT_DB 20.0

/* Of each input channel, the mean of its numbers and of their squares. */
struct moments {
    double *mean, *power;
};

/* A layer on its way into 8 bits. */
struct quantized {
    int8_t *integers;     /* [out][in / groups][kernel][kernel] */
    float *scale;         /* [out] */
    float *bias;          /* [out]; with what rounding the weights shifts the output by, on average, taken back */
    double signal, noise; /* mean squares of the products' sum, and of what rounding the weights adds to it */
};

/* Turn weights and bias for normalised numbers into those for pixels. */
void fold_pixels(const struct node *node, const resnet_preprocess *how, float *weight, float *bias);

/*
 * Round a layer to 8 bits. `seen` is of its input, `input` the scale of that; what the result points to is there
 * already, its bias being the layer's own.
 */
void quantize_layer(const struct node *node, const float *weight, const struct moments *seen, float input,
                    struct quantized *result);

/* Whether the layer must stay in f32. */
bool quantized_badly(const struct node *node, const struct quantized *layer);

#endif
