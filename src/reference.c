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
    int64_t row = (int64_t)y * node->stride + (int64_t)(tap / node->kernel) * node->dilation - node->pad;
    int64_t column = (int64_t)x * node->stride + (int64_t)(tap % node->kernel) * node->dilation - node->pad;
    bool inside = row >= 0 && row < in->shape.height && column >= 0 && column < in->shape.width;
    return inside ? at(in, (uint32_t)row, (uint32_t)column) : NULL;
}

/* y[c] = sum over i, j, k of x[i][j][first + k] * weight[c][k][i][j], first being where the group of c starts */
static float conv2d_at(const struct map *in, const struct node *node, const float *weight, uint32_t channel,
                       const uint32_t place[2]) {
    uint32_t area = node->kernel * node->kernel, inputs = node_group_inputs(node);
    uint32_t first = channel / (node->out.channels / node->groups) * inputs;
    double sum = 0;
    for (uint32_t tap = 0; tap < area; tap++) {
        const float *pixel = window_at(in, node, place[0], place[1], tap);
        for (uint32_t k = 0; pixel && k < inputs; k++)
            sum += (double)pixel[first + k] * (double)weight[k * area + tap];
    }
    return (float)sum;
}

static void conv2d(const struct map *in, const struct node *node, const float *weight, const struct map *out) {
    for (uint32_t y = 0; y < out->shape.height; y++)
        for (uint32_t x = 0; x < out->shape.width; x++)
            for (uint32_t c = 0; c < out->shape.channels; c++)
                at(out, y, x)[c] = conv2d_at(in, node, weight + c * node_filter(node), c, (const uint32_t[2]){y, x});
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

/* The mean of a window's pixels that lie inside the map. */
static float avgpool_at(const struct map *in, const struct node *node, uint32_t y, uint32_t x, uint32_t c) {
    double sum = 0, inside = 0;
    for (uint32_t tap = 0; tap < node->kernel * node->kernel; tap++) {
        const float *pixel = window_at(in, node, y, x, tap);
        sum += pixel ? (double)pixel[c] : 0;
        inside += pixel != NULL;
    }
    return (float)(sum / inside);
}

static void avgpool(const struct map *in, const struct node *node, const struct map *out) {
    for (uint32_t y = 0; y < out->shape.height; y++)
        for (uint32_t x = 0; x < out->shape.width; x++)
            for (uint32_t c = 0; c < out->shape.channels; c++)
                at(out, y, x)[c] = avgpool_at(in, node, y, x, c);
}

/* y[c] = mean over y, x of x[y][x][c] */
static void global_avgpool(const struct map *in, const struct map *out) {
    double area = (double)in->shape.height * in->shape.width;
    for (uint32_t c = 0; c < in->shape.channels; c++) {
        double sum = 0;
        for (uint32_t y = 0; y < in->shape.height; y++)
            for (uint32_t x = 0; x < in->shape.width; x++)
                sum += (double)at(in, y, x)[c];
        at(out, 0, 0)[c] = (float)(sum / area);
    }
}

/* Every stride-th pixel, with zeros on both sides of its channels. */
static void subsample(const struct map *in, uint32_t stride, const struct map *out) {
    uint32_t before = (out->shape.channels - in->shape.channels) / 2;
    for (uint32_t y = 0; y < out->shape.height; y++)
        for (uint32_t x = 0; x < out->shape.width; x++)
            for (uint32_t c = 0; c < out->shape.channels; c++) {
                bool inside = c >= before && c < before + in->shape.channels;
                at(out, y, x)[c] = inside ? at(in, y * stride, x * stride)[c - before] : 0;
            }
}

/* y[y][x][c] = x[y][x][c] * gate[c] */
static void scale(const struct map *in, const float *gate, const struct map *out) {
    for (uint32_t y = 0; y < out->shape.height; y++)
        for (uint32_t x = 0; x < out->shape.width; x++)
            for (uint32_t c = 0; c < out->shape.channels; c++)
                at(out, y, x)[c] = at(in, y, x)[c] * gate[c];
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

static void sigmoid(const struct map *map) {
    for (uint32_t c = 0; c < map->shape.channels; c++)
        at(map, 0, 0)[c] = 1 / (1 + expf(-at(map, 0, 0)[c]));
}

static void execute_image(const struct step *step, const struct parameters *p, float epsilon, uint32_t image) {
    const struct node *node = step->node;
    struct map in = map_of(step->input, step->arena + step->input->origin, image);
    struct map out = map_of(step->output, step->logits ? step->logits : step->arena + step->output->origin, image);
    switch (node->op) {
    case OP_CONV:
        conv2d(&in, node, p->weight, &out);
        batchnorm(&out, p, epsilon);
        break;
    case OP_MAXPOOL:
        maxpool(&in, node, &out);
        break;
    case OP_AVGPOOL:
        avgpool(&in, node, &out);
        break;
    case OP_GLOBAL_AVGPOOL:
        global_avgpool(&in, &out);
        break;
    case OP_LINEAR:
        linear(&in, p, &out);
        break;
    case OP_SUBSAMPLE:
        subsample(&in, node->stride, &out);
        break;
    case OP_SCALE:
        scale(&in, map_of(step->gate, step->arena + step->gate->origin, image).values, &out);
        break;
    case OP_INPUT:
        break;
    }
    if (step->residual)
        add_residual(&out, map_of(step->residual, step->arena + step->residual->origin, image));
    if (node->relu)
        relu(&out);
    if (node->sigmoid)
        sigmoid(&out);
}

void reference_execute(const struct step *step, float epsilon) {
    struct parameters p = {0}; /* a pool has none */
    if (node_has_weights(step->node))
        p = parameters_at(step->node, step->panels);
    for (uint32_t image = 0; image < step->images; image++)
        execute_image(step, &p, epsilon, image);
}
