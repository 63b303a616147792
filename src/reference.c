/*
 * reference.c - the reference executor: plain C, one naive kernel per operation, nothing folded, packed or fused.
 *
 * This is the network as the paper has it, and the oracle that the fast executor is tested against. Shapes:
 * x [height][width][channels] of one image, as strided by its tensor; window borders are checked, never read.
 */
#include "reference.h"

#include <math.h>

#include "pack.h"

/* One image of a tensor. */
struct map {
    struct shape shape;
    size_t row, pixel;
    float *values;
};

static float *at(const struct map *map, uint32_t y, uint32_t x) {
    return map->values + y * map->row + x * map->pixel;
}

static struct map map_of(const struct tensor *tensor, float *base, uint32_t image) {
    return (struct map){tensor->shape, tensor->row, tensor->pixel, base + image * tensor->image};
}

/* A window over a map: position (i, j) of output pixel (y, x), or NULL where that is outside. */
static const float *window_at(const struct map *in, const struct node *node, uint32_t y, uint32_t x, uint32_t tap) {
    int64_t row = (int64_t)y * node->stride + tap / node->kernel - node->pad;
    int64_t column = (int64_t)x * node->stride + tap % node->kernel - node->pad;
    bool inside = row >= 0 && row < in->shape.height && column >= 0 && column < in->shape.width;
    return inside ? at(in, (uint32_t)row, (uint32_t)column) : NULL;
}

/* y[c] = sum over i, j, k of x[i][j][k] * weight[c][k][i][j] */
static float conv2d_at(const struct map *in, const struct node *node, const float *weight, uint32_t y, uint32_t x) {
    uint32_t area = node->kernel * node->kernel;
    double sum = 0;
    for (uint32_t tap = 0; tap < area; tap++) {
        const float *pixel = window_at(in, node, y, x, tap);
        for (uint32_t k = 0; pixel && k < node->in.channels; k++)
            sum += (double)pixel[k] * (double)weight[k * area + tap];
    }
    return (float)sum;
}

static void conv2d(const struct map *in, const struct node *node, const float *weight, const struct map *out) {
    size_t filter = (size_t)node->in.channels * node->kernel * node->kernel;
    for (uint32_t y = 0; y < out->shape.height; y++)
        for (uint32_t x = 0; x < out->shape.width; x++)
            for (uint32_t c = 0; c < out->shape.channels; c++)
                at(out, y, x)[c] = conv2d_at(in, node, weight + c * filter, y, x);
}

/* y = (x - mean) / sqrt(variance + epsilon) * scale + shift */
static void batchnorm(const struct map *map, const struct parameters *bn, float epsilon) {
    for (uint32_t y = 0; y < map->shape.height; y++)
        for (uint32_t x = 0; x < map->shape.width; x++)
            for (uint32_t c = 0; c < map->shape.channels; c++) {
                float *value = at(map, y, x) + c;
                *value = (*value - bn->mean[c]) / sqrtf(bn->variance[c] + epsilon) * bn->scale[c] + bn->shift[c];
            }
}

static void add_residual(const struct map *map, struct map other) {
    for (uint32_t y = 0; y < map->shape.height; y++)
        for (uint32_t x = 0; x < map->shape.width; x++)
            for (uint32_t c = 0; c < map->shape.channels; c++)
                at(map, y, x)[c] += at(&other, y, x)[c];
}

static void relu(const struct map *map) {
    for (uint32_t y = 0; y < map->shape.height; y++)
        for (uint32_t x = 0; x < map->shape.width; x++)
            for (uint32_t c = 0; c < map->shape.channels; c++)
                if (at(map, y, x)[c] < 0)
                    at(map, y, x)[c] = 0;
}

static float maxpool_at(const struct map *in, const struct node *node, uint32_t y, uint32_t x, uint32_t c) {
    float best = -INFINITY;
    for (uint32_t tap = 0; tap < node->kernel * node->kernel; tap++) {
        const float *pixel = window_at(in, node, y, x, tap);
        if (pixel && pixel[c] > best)
            best = pixel[c];
    }
    return best;
}

static void maxpool(const struct map *in, const struct node *node, const struct map *out) {
    for (uint32_t y = 0; y < out->shape.height; y++)
        for (uint32_t x = 0; x < out->shape.width; x++)
            for (uint32_t c = 0; c < out->shape.channels; c++)
                at(out, y, x)[c] = maxpool_at(in, node, y, x, c);
}

/* y[c] = mean over y, x of x[y][x][c] */
static void avgpool(const struct map *in, const struct map *out) {
    double area = (double)in->shape.height * in->shape.width;
    for (uint32_t c = 0; c < in->shape.channels; c++) {
        double sum = 0;
        for (uint32_t y = 0; y < in->shape.height; y++)
            for (uint32_t x = 0; x < in->shape.width; x++)
                sum += (double)at(in, y, x)[c];
        at(out, 0, 0)[c] = (float)(sum / area);
    }
}

/* y[c] = bias[c] + sum over k of weight[c][k] * x[k] */
static void linear(const struct map *in, const struct parameters *p, const struct map *out) {
    for (uint32_t c = 0; c < out->shape.channels; c++) {
        double sum = (double)p->shift[c];
        for (uint32_t k = 0; k < in->shape.channels; k++)
            sum += (double)in->values[k] * (double)p->weight[(size_t)c * in->shape.channels + k];
        out->values[c] = (float)sum;
    }
}

static void execute_image(const struct step *step, const struct parameters *p, float epsilon, uint32_t image) {
    const struct node *node = step->node;
    struct map in = map_of(step->input, step->arena + step->input->origin, image);
    struct map out = map_of(step->output, step->logits ? step->logits : step->arena + step->output->origin, image);
    switch (node->op) {
    case OP_CONV:
        conv2d(&in, node, p->weight, &out);
        batchnorm(&out, p, epsilon);
        if (step->residual)
            add_residual(&out, map_of(step->residual, step->arena + step->residual->origin, image));
        if (node->relu)
            relu(&out);
        break;
    case OP_MAXPOOL:
        maxpool(&in, node, &out);
        break;
    case OP_AVGPOOL:
        avgpool(&in, &out);
        break;
    case OP_LINEAR:
        linear(&in, p, &out);
        break;
    case OP_INPUT:
        break;
    }
}

void reference_execute(const struct step *step, float epsilon) {
    struct parameters p = {0}; /* a pool has none */
    if (parameters_size(step->node))
        p = parameters_at(step->node, step->panels);
    for (uint32_t image = 0; image < step->images; image++)
        execute_image(step, &p, epsilon, image);
}
