/* pack.c - from the tensors of a model file to what the kernels read: fold batch normalisation, lay out in panels. */
#include "pack.h"

#include <float.h>
#include <math.h>

#include "error.h"
#include "split.h"

size_t parameters_size(const struct node *node) {
    switch (node->op) {
    case OP_CONV:
        return (size_t)node_weights(node) + 4 * (size_t)node->out.channels;
    case OP_LINEAR:
        return (size_t)node_weights(node) + node->out.channels;
    default:
        return 0;
    }
}

struct parameters parameters_at(const struct node *node, const float *block) {
    size_t out = node->out.channels;
    const float *vectors = block + (size_t)node_weights(node);
    if (node->op == OP_LINEAR)
        return (struct parameters){.weight = block, .shift = vectors};
    return (struct parameters){block, vectors, vectors + out, vectors + 2 * out, vectors + 3 * out};
}

size_t panel_size(const struct node *node, uint32_t nr) {
    return (1 + (size_t)node->in.channels * node->kernel * node->kernel) * nr;
}

size_t panels_size(const struct node *node, uint32_t nr) {
    if (!parameters_size(node))
        return 0;
    return divide_up(node->out.channels, nr) * panel_size(node, nr);
}

/* Batch normalisation as y = factor * x + offset: scale * (x - mean) / sqrt(variance + epsilon) + shift. */
struct affine {
    double factor, offset;
};

static struct affine fold(const struct parameters *from, double epsilon, uint32_t channel) {
    if (!from->scale)
        return (struct affine){1, from->shift[channel]};
    double factor = from->scale[channel] / sqrt(from->variance[channel] + epsilon);
    return (struct affine){factor, from->shift[channel] - factor * from->mean[channel]};
}

float without_denormals(double value) {
    return fabs(value) < FLT_MIN ? 0.0F : (float)value;
}

/* One output channel into column n of its panel: rows of nr floats, the bias first, then (i, j, k) as struct conv_tile.
 */
static bool pack_channel(const struct node *node, const float *weight, struct affine bn, float *panel, uint32_t nr) {
    size_t area = (size_t)node->kernel * node->kernel, in = node->in.channels;
    bool finite = isfinite(panel[0] = without_denormals(bn.offset));
    for (size_t tap = 0; tap < area; tap++)
        for (size_t k = 0; k < in; k++) {
            float value = without_denormals(weight[k * area + tap] * bn.factor);
            panel[(1 + tap * in + k) * nr] = value;
            finite &= isfinite(value) != 0;
        }
    return finite;
}

static void clear_channel(float *panel, size_t rows, uint32_t nr) {
    for (size_t i = 0; i < rows; i++)
        panel[i * nr] = 0;
}

resnet_status parameters_check(const struct node *node, const float *block, resnet_error *error) {
    struct parameters p = parameters_at(node, block);
    for (uint32_t c = 0; p.variance && c < node->out.channels; c++)
        if (p.variance[c] < 0)
            return fail(error, RESNET_ERROR_MODEL, "%s variance: channel %u is %g; it cannot be negative", node->name,
                        c, (double)p.variance[c]);
    return RESNET_OK;
}

resnet_status pack_panels(const struct node *node, const float *block, double epsilon, uint32_t nr, float *panels,
                          resnet_error *error) {
    struct parameters from = parameters_at(node, block);
    size_t size = panel_size(node, nr), rows = size / nr;
    uint32_t columns = divide_up(node->out.channels, nr) * nr;
    for (uint32_t c = 0; c < columns; c++) {
        float *panel = panels + c / nr * size + c % nr;
        if (c >= node->out.channels)
            clear_channel(panel, rows, nr);
        else if (!pack_channel(node, from.weight + c * (rows - 1), fold(&from, epsilon, c), panel, nr))
            return fail(error, RESNET_ERROR_MODEL, "%s: channel %u is not finite once batch normalisation is folded in",
                        node->name, c);
    }
    return RESNET_OK;
}
