/* kept.c - a layer of an int8 network whose weights are f32: widen its input, convolve in f32, round the output. */
#include "kept.h"

#include <math.h>

#include "split.h"

/* One output row at a time: the input rows from the first to the last under its window in f32, their borders included,
 * and the row itself. */
struct strip {
    struct node node; /* as if the map were that row */
    struct tensor input, output;
};

static uint32_t strip_rows(const struct node *node) {
    return (node->kernel - 1) * node->dilation + 1;
}

static struct strip strip_of(const struct node *node) {
    struct strip strip = {.node = *node};
    size_t width = node->in.width + 2 * (size_t)node->pad, in = node->in.channels, out = node->out.channels;
    strip.node.in.height = strip.node.out.height = 1;
    strip.node.relu = false; /* comes behind the residual */
    strip.input = (struct tensor){.shape = strip.node.in,
                                  .border = node->pad,
                                  .pixel = in,
                                  .row = width * in,
                                  .origin = node->pad * (width + 1) * in};
    strip.output = (struct tensor){.shape = strip.node.out,
                                   .pixel = out,
                                   .row = node->out.width * out,
                                   .origin = align_up(strip_rows(node) * width * in * sizeof(float)) / sizeof(float)};
    return strip;
}

size_t kept_scratch(const struct node *node, uint32_t images) {
    if (node->op == OP_LINEAR)
        return (size_t)images * node->in.channels;
    struct strip strip = strip_of(node);
    return strip.output.origin + strip.output.row;
}

static void widen_pixel(const struct step *step, const float *pixel, float *to) {
    const uint8_t *from = (const uint8_t *)pixel;
    for (uint32_t c = 0; c < step->node->in.channels; c++)
        to[c] = step->input_scale.scale * (from[c] - step->input_scale.zero);
}

static void widen_rows(const struct step *step, uint32_t image, uint32_t row, float *to) {
    const struct node *node = step->node;
    const struct tensor *x = step->input;
    ptrdiff_t top = (ptrdiff_t)row * node->stride - node->pad;
    const float *from =
        step->arena + x->origin + image * x->image + top * (ptrdiff_t)x->row - (ptrdiff_t)(node->pad * x->pixel);
    for (uint32_t i = 0; i < strip_rows(node); i++, from += x->row)
        for (uint32_t j = 0; j < node->in.width + 2 * node->pad; j++, to += node->in.channels)
            widen_pixel(step, from + j * x->pixel, to);
}

/* ReLU is the cut at 0, as in the kernels. */
static void round_pixel(const struct step *step, const float *from, const float *residual, float *pixel) {
    struct scale out = step->output_scale, r = step->residual_scale;
    for (uint32_t c = 0; c < step->node->out.channels; c++) {
        float value = from[c];
        if (residual)
            value += r.scale * (((const uint8_t *)residual)[c] - r.zero);
        value = value / out.scale + out.zero;
        value = value > 0 ? value : 0; /* NaN, too */
        ((uint8_t *)pixel)[c] = (uint8_t)rintf(value < 255 ? value : 255);
    }
}

static void round_row(const struct step *step, uint32_t image, uint32_t row, const float *from) {
    const struct tensor *y = step->output, *r = step->residual;
    for (uint32_t j = 0; j < step->node->out.width; j++, from += step->node->out.channels)
        round_pixel(step, from, r ? step->arena + r->origin + image * r->image + row * r->row + j * r->pixel : NULL,
                    step->arena + y->origin + image * y->image + row * y->row + j * y->pixel);
}

static void convolve(const struct step *step, uint32_t index, uint32_t count) {
    struct strip strip = strip_of(step->node);
    float *scratch = step->scratch + index * step->scratch_size;
    struct step inner = {.format = FORMAT_F32,
                         .kernels = step->kept,
                         .node = &strip.node,
                         .input = &strip.input,
                         .output = &strip.output,
                         .panels = step->panels,
                         .arena = scratch,
                         .images = 1};
    struct span rows = part_of(step->images * step->node->out.height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        uint32_t image = i / step->node->out.height, row = i % step->node->out.height;
        widen_rows(step, image, row, scratch);
        execute(&inner, 0, 1);
        round_row(step, image, row, scratch + strip.output.origin);
    }
}

/* The averages of all images, which every thread widens for itself. */
static void classify(const struct step *step, uint32_t index, uint32_t count) {
    size_t in = step->node->in.channels;
    float *scratch = step->scratch + index * step->scratch_size;
    struct tensor input = {.shape = step->node->in, .pixel = in, .row = in, .image = in};
    struct step inner = *step;
    for (uint32_t i = 0; i < step->images; i++)
        widen_pixel(step, step->arena + step->input->origin + i * step->input->image, scratch + i * in);
    inner.format = FORMAT_F32;
    inner.kernels = step->kept;
    inner.kept = NULL;
    inner.input = &input;
    inner.arena = scratch;
    execute(&inner, index, count);
}

void kept_execute(const struct step *step, uint32_t index, uint32_t count) {
    (step->node->op == OP_LINEAR ? classify : convolve)(step, index, count);
}
