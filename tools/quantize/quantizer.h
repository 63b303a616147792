/* quantizer.h - make a smaller model file of one in f32: see what the network computes, round it, compare the two. */
#ifndef QUANTIZER_H
#define QUANTIZER_H

#include "resnet.h"

/*
 * Make a smaller model file of one in f32: in bf16, a half of its size, or in int8, a quarter, for which the numbers
 * that the network computes must be seen first.
 *
 *     quantizer_create("resnet50.resnet", NULL, &quantizer, &error);
 *     session = quantizer_session(quantizer);
 *     for every few of some 256 images like those that will be classified:
 *         fill slots 0..count-1 of the session; quantizer_observe(quantizer, count, &error);
 *     quantizer_quantize(quantizer, RESNET_PRECISION_INT8, &error);
 *     quantizer_file(quantizer, &size);
 *
 * Weights are rounded to 8 bits with a scale for each output channel; activations with one scale for each layer, the
 * one whose square error over all that was seen is least. A quantizer belongs to one thread at a time.
 */
struct quantizer;

struct quantizer_options {
    uint32_t batch;                    /* images that its session takes at a time; 0 means 1 */
    uint32_t threads;                  /* 0: as many as the CPU affinity and the cgroup quota give */
    const resnet_allocator *allocator; /* copied; NULL: the system's memory */
};

/* Read the file. Errors: as resnet_model_load_file and resnet_session_create; UNSUPPORTED where it is not in f32. */
resnet_status quantizer_create(const char *path, const struct quantizer_options *options, struct quantizer **quantizer,
                               resnet_error *error);

/* Free a quantizer with its session. NULL is allowed. */
void quantizer_free(struct quantizer *quantizer);

/* A session of the f32 network, whose slots are to be filled. Belongs to the quantizer. */
resnet_session *quantizer_session(struct quantizer *quantizer);

/* Run slots 0..count-1 and take in all activations. Errors: ARGUMENT. */
resnet_status quantizer_observe(struct quantizer *quantizer, uint32_t count, resnet_error *error);

/* Make the network of `precision`, BF16 or INT8, in place of one made before. Errors: ARGUMENT, also for INT8 before
 * anything was observed; MODEL, where a number that was observed is not finite; MEMORY, THREAD. */
resnet_status quantizer_quantize(struct quantizer *quantizer, resnet_precision precision, resnet_error *error);

/* Run slots 0..count-1 through both networks and add up how far they differ. Errors: ARGUMENT, before quantize. */
resnet_status quantizer_compare(struct quantizer *quantizer, uint32_t count, resnet_error *error);

/* The model file of the quantized network, which belongs to the quantizer; NULL before quantize. */
const void *quantizer_file(const struct quantizer *quantizer, size_t *size);

struct quantizer_info {
    uint64_t file_size, quantized_size;    /* of model files, in bytes */
    uint64_t observed, compared, agreeing; /* images; agreeing: those compared that get the same class from both;
                                              none without a head */
    resnet_model_info model;               /* of the file; model.layers is how many quantizer_layer knows */
};

struct quantizer_info quantizer_describe(const struct quantizer *quantizer);

/* Signal-to-noise ratios are in dB: 10 log10 of mean square over mean square error; NaN where nothing was measured. */
struct quantized_layer {
    char name[32];    /* as in resnet_layer */
    int kept;         /* 1: its weights stay f32, since 8 bits would not do */
    double weight_db; /* of int8: of what it computes, as far as rounding its own weights disturbs it */
    double output_db; /* of its output over all images compared, with the errors of all layers before */
};

/* Layer 0 <= index < layers, after quantize. Errors: ARGUMENT. */
resnet_status quantizer_layer(const struct quantizer *quantizer, uint32_t index, struct quantized_layer *layer,
                              resnet_error *error);

#endif
