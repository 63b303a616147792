/* quantize.c - one layer of a network in 8 bits: what quantizer_quantize does with each. */
#include "quantize.h"

#include <float.h>
#include <math.h>

#include "floats.h"

/* Half of what the bias may have of the int32 sums: the loader rounds it. */
#define MOST_BIAS 0x1p29

void fold_pixels(const struct node *node, const resnet_preprocess *how, float *weight, float *bias) {
    size_t area = (size_t)node->kernel * node->kernel, in = node->in.channels;
    for (uint32_t o = 0; o < node->out.channels; o++) {
        double shift = 0;
        for (size_t k = 0; k < in; k++)
            for (size_t tap = 0; tap < area; tap++) {
                float *w = weight + (o * in + k) * area + tap;
                shift += (double)*w * (double)how->mean[k] / (double)how->std[k];
                *w = without_denormals((double)*w / (255 * (double)how->std[k]));
            }
        bias[o] = without_denormals((double)bias[o] - shift);
    }
}

/* max |weight| / 127, or more, so that the bias fits into the sums. */
static float channel_scale(const float *weight, size_t count, float bias, float input) {
    float most = 0;
    for (size_t i = 0; i < count; i++)
        most = fabsf(weight[i]) > most ? fabsf(weight[i]) : most;
    double for_weights = (double)most / 127, for_bias = fabs((double)bias) / (MOST_BIAS * (double)input);
    double scale = for_weights > for_bias ? for_weights : for_bias;
    return scale == 0 ? 1 : scale > (double)FLT_MIN ? (float)scale : FLT_MIN;
}

static int8_t round_weight(float weight, float scale) {
    float whole = rintf(weight / scale);
    return (int8_t)(whole > 127 ? 127 : whole < -127 ? -127 : whole);
}

/* Output channel `channel`, whose weights and scale these are; returns the mean of what rounding adds to its output. */
static double quantize_channel(const struct node *node, uint32_t channel, const float *weight,
                               const struct moments *seen, struct quantized *result) {
    size_t area = (size_t)node->kernel * node->kernel;
    uint32_t inputs = node_group_inputs(node), first = channel / (node->out.channels / node->groups) * inputs;
    float scale = result->scale[channel];
    int8_t *integers = result->integers + channel * node_filter(node);
    double shift = 0;
    for (uint32_t k = 0; k < inputs; k++) {
        double square = 0, error_square = 0, error_sum = 0;
        for (size_t i = k * area; i < (k + 1) * area; i++) {
            integers[i] = round_weight(weight[i], scale);
            double error = (double)scale * integers[i] - (double)weight[i];
            square += (double)weight[i] * (double)weight[i];
            error_square += error * error;
            error_sum += error;
        }
        result->signal += square * seen->power[first + k];
        result->noise += error_square * seen->power[first + k];
        shift += error_sum * seen->mean[first + k];
    }
    return shift;
}

/* The bias without the shift, unless that is too large for the sums. */
static float corrected(float bias, double shift, double unit) {
    return fabs(bias - shift) < 2 * MOST_BIAS * unit ? without_denormals(bias - shift) : bias;
}

void quantize_layer(const struct node *node, const float *weight, const struct moments *seen, float input,
                    struct quantized *result) {
    size_t count = node_filter(node);
    result->signal = result->noise = 0;
    for (uint32_t o = 0; o < node->out.channels; o++) {
        const float *channel = weight + o * count;
        result->scale[o] = channel_scale(channel, count, result->bias[o], input);
        double shift = quantize_channel(node, o, channel, seen, result);
        result->bias[o] = corrected(result->bias[o], shift, (double)input * (double)result->scale[o]);
    }
}

bool quantized_badly(const struct node *node, const struct quantized *layer) {
    return node_filter(node) > MOST_PRODUCTS || layer->signal < layer->noise * pow(10, LEAST_WEIGHT_DB / 10);
}
