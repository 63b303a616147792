/* preprocess.c - an 8-bit RGB image to a network's input: Pillow's resize, torchvision's crop and normalisation, to the
 * bit. */
#include "preprocess.h"

#include <math.h>
#include <string.h>

#include "error.h"

#define CHANNELS   3
#define MAX_SIDE   65535
#define MAX_RESIZE 16384

/* Pillow's fixed point (Resample.c): a weight is a multiple of 2^-22, which leaves 8 bits for the pixel and 2 for what
 * bicubic weights overshoot, so that a sum fits an int32_t. */
#define WEIGHT_BITS 22
#define HALF        (1 << (WEIGHT_BITS - 1))

/*
 * One axis: `in` pixels become `out`, of which the crop sees `count` from `first` on, `pad` pixels inside the target.
 * Only these are ever computed, so that a 1 x 65535 image costs no more than its crop.
 *
 *   result[o] = sum over k < taps[o] of source[start[o] + k] * weights[o * reach + k], for 0 <= o < count
 */
struct axis {
    uint32_t in, out, first, count, pad;
    uint32_t reach; /* the most taps that one output can have */
    uint32_t *start, *taps;
    int32_t *weights;
};

/* What one call works with; all arrays are parts of one block of memory. */
struct work {
    struct axis x, y;
    uint8_t *rows; /* the rows that the vertical pass reads, resized: [y source rows][x.count][3] */
    int32_t *sums; /* [x.count][3] */
    void *memory;
    size_t size;
    float table[CHANNELS][256]; /* a pixel's value, normalised */
    size_t pixel_stride;        /* of the target */
};

/* ---- Sizes ---- */

/* torchvision: int(size * long / short), in double. */
static uint32_t long_side(uint32_t request, uint32_t short_side, uint32_t side) {
    return (uint32_t)((double)((uint64_t)request * side) / (double)short_side);
}

/* n / 2, half to even: Python's round. */
static uint32_t half_to_even(uint32_t n) {
    return n / 2 + (n % 4 == 3);
}

/* torchvision's center_crop: a smaller image is padded, the odd pixel behind it; a larger one is cut. */
static void crop_axis(struct axis *axis, uint32_t target) {
    bool larger = axis->out > target;
    axis->first = larger ? half_to_even(axis->out - target) : 0;
    axis->pad = larger ? 0 : (target - axis->out) / 2;
    axis->count = larger ? target : axis->out;
}

static double support_of(resnet_interpolation interpolation) {
    return interpolation == RESNET_BICUBIC ? 2.0 : 1.0;
}

/* A filter is stretched by the scale when an image shrinks (antialias), never squeezed. */
static double stretch_of(const struct axis *axis) {
    double scale = (double)axis->in / axis->out;
    return scale < 1.0 ? 1.0 : scale;
}

static void plan_sizes(struct work *work, const struct pixels *source, const resnet_preprocess *how,
                       const struct preprocess_target *target) {
    struct axis *x = &work->x, *y = &work->y;
    x->in = x->out = source->width;
    y->in = y->out = source->height;
    if (how->resize) {
        bool upright = x->in <= y->in;
        x->out = upright ? how->resize : long_side(how->resize, y->in, x->in);
        y->out = upright ? long_side(how->resize, x->in, y->in) : how->resize;
    }
    crop_axis(x, target->width);
    crop_axis(y, target->height);
    x->reach = 2 * (uint32_t)ceil(support_of(how->interpolation) * stretch_of(x)) + 1;
    y->reach = 2 * (uint32_t)ceil(support_of(how->interpolation) * stretch_of(y)) + 1;
}

void preprocess_window(const struct pixels *source, const resnet_preprocess *how,
                       const struct preprocess_target *target, struct preprocess_window *window) {
    struct work work = {.size = 0};
    plan_sizes(&work, source, how, target);
    window->scale_x = (double)work.x.in / work.x.out;
    window->scale_y = (double)work.y.in / work.y.out;
    window->left = ((double)work.x.first - work.x.pad) * window->scale_x;
    window->top = ((double)work.y.first - work.y.pad) * window->scale_y;
}

/* ---- Weights ---- */

/* The Keys cubic with a = -0.5, in the order in which Pillow evaluates it: another order rounds differently. */
static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

static double filter_at(resnet_interpolation interpolation, double x) {
    if (interpolation == RESNET_BICUBIC)
        return bicubic(x);
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static int32_t to_fixed(double weight) {
    return (int32_t)(weight * (1 << WEIGHT_BITS) + (weight < 0 ? -0.5 : 0.5));
}

static void weigh_output(struct axis *axis, uint32_t o, resnet_interpolation interpolation) {
    double stretch = stretch_of(axis), squeeze = 1.0 / stretch;
    double support = support_of(interpolation) * stretch;
    double center = (axis->first + o + 0.5) * ((double)axis->in / axis->out);
    double low = center - support + 0.5, high = center + support + 0.5;
    uint32_t start = low < 0 ? 0 : (uint32_t)low;
    uint32_t end = high > axis->in ? axis->in : (uint32_t)high;
    int32_t *weights = axis->weights + (size_t)o * axis->reach;
    double sum = 0;

    for (uint32_t i = start; i < end; i++)
        sum += filter_at(interpolation, (i - center + 0.5) * squeeze);
    for (uint32_t i = start; i < end; i++)
        weights[i - start] = to_fixed(filter_at(interpolation, (i - center + 0.5) * squeeze) / sum);
    axis->start[o] = start;
    axis->taps[o] = end - start;
}

/* Where a size does not change the weights come out as a single 1, which gives every pixel back exactly. */
static void weigh_axis(struct axis *axis, resnet_interpolation interpolation) {
    for (uint32_t o = 0; o < axis->count; o++)
        weigh_output(axis, o, interpolation);
}

/* ---- Memory ---- */

/* The source rows between the first and the last output row, counted generously: exact starts come with the weights. */
static size_t rows_between(const struct axis *axis) {
    double rows = axis->count * ((double)axis->in / axis->out) + axis->reach;
    return rows < axis->in ? (size_t)rows + 1 : axis->in;
}

static resnet_status get_memory(struct work *work, const resnet_allocator *allocator, resnet_error *error) {
    struct axis *x = &work->x, *y = &work->y;
    size_t width = (size_t)CHANNELS * x->count;
    const struct array arrays[] = {
        {&x->start, x->count, sizeof *x->start},
        {&x->taps, x->count, sizeof *x->taps},
        {&x->weights, x->count, x->reach * sizeof *x->weights},
        {&y->start, y->count, sizeof *y->start},
        {&y->taps, y->count, sizeof *y->taps},
        {&y->weights, y->count, y->reach * sizeof *y->weights},
        {&work->sums, width, sizeof *work->sums},
        {&work->rows, width, rows_between(y)},
    };
    work->memory = memory_get_arrays(allocator, arrays, sizeof arrays / sizeof *arrays, &work->size);
    return work->memory ? RESNET_OK : fail_memory(error, "resizing an image", work->size);
}

/* ---- Passes ---- */

static inline uint8_t clip8(int32_t sum) {
    int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* source [x.in][3] to out [x.count][3] */
static void resize_row(const uint8_t *source, const struct axis *x, uint8_t *out) {
    for (uint32_t o = 0; o < x->count; o++, out += CHANNELS) {
        const uint8_t *pixel = source + (size_t)CHANNELS * x->start[o];
        const int32_t *weights = x->weights + (size_t)o * x->reach;
        int32_t r = HALF, g = HALF, b = HALF;
        for (uint32_t k = 0; k < x->taps[o]; k++, pixel += CHANNELS) {
            r += pixel[0] * weights[k];
            g += pixel[1] * weights[k];
            b += pixel[2] * weights[k];
        }
        out[0] = clip8(r);
        out[1] = clip8(g);
        out[2] = clip8(b);
    }
}

/* The horizontal pass comes first and rounds to 8 bits, as in Pillow; it does only the rows that the crop needs. */
static void resize_rows(struct work *work, const struct pixels *source) {
    const struct axis *y = &work->y;
    uint32_t first = y->start[0], end = y->start[y->count - 1] + y->taps[y->count - 1];
    for (uint32_t row = first; row < end; row++)
        resize_row(source->rows + row * source->stride, &work->x,
                   work->rows + (size_t)(row - first) * CHANNELS * work->x.count);
}

/* The vertical pass of output row `o`, left in work->sums. */
static void sum_column(struct work *work, uint32_t o) {
    const struct axis *y = &work->y;
    size_t width = (size_t)CHANNELS * work->x.count;
    const uint8_t *row = work->rows + (y->start[o] - y->start[0]) * width;
    const int32_t *weights = y->weights + (size_t)o * y->reach;
    int32_t *restrict sums = work->sums;

    for (size_t i = 0; i < width; i++)
        sums[i] = HALF;
    for (uint32_t k = 0; k < y->taps[o]; k++, row += width) {
        int32_t weight = weights[k];
        for (size_t i = 0; i < width; i++)
            sums[i] += row[i] * weight;
    }
}

/* ---- Normalisation ---- */

/* (u / 255 - mean) / std in float32, in torch's order: u * scale + bias would change 155 of the 256 values. */
static void make_table(float table[CHANNELS][256], const resnet_preprocess *how) {
    for (int c = 0; c < CHANNELS; c++)
        for (int u = 0; u < 256; u++)
            table[c][u] = ((float)u / 255.0f - how->mean[c]) / how->std[c];
}

/* `count` pixels that hold 0: torchvision pads before it normalises. */
static float *write_padding(struct work *work, float *out, uint32_t count) {
    for (uint32_t i = 0; i < count; i++, out += work->pixel_stride)
        for (int c = 0; c < CHANNELS; c++)
            out[c] = work->table[c][0];
    return out;
}

static void write_row(struct work *work, float *out, uint32_t width) {
    const struct axis *x = &work->x;
    const int32_t *sums = work->sums;
    out = write_padding(work, out, x->pad);
    for (uint32_t i = 0; i < x->count; i++, out += work->pixel_stride, sums += CHANNELS)
        for (int c = 0; c < CHANNELS; c++)
            out[c] = work->table[c][clip8(sums[c])];
    write_padding(work, out, width - x->pad - x->count);
}

static void write_target(struct work *work, const struct preprocess_target *target) {
    const struct axis *y = &work->y;
    work->pixel_stride = target->pixel_stride;
    for (uint32_t row = 0; row < target->height; row++) {
        float *out = target->values + row * target->row_stride;
        if (row < y->pad || row - y->pad >= y->count) {
            write_padding(work, out, target->width);
            continue;
        }
        sum_column(work, row - y->pad);
        write_row(work, out, target->width);
    }
}

/* ---- The whole ---- */

static resnet_status check(const struct pixels *source, const resnet_preprocess *how, resnet_error *error) {
    if (source->width < 1 || source->width > MAX_SIDE || source->height < 1 || source->height > MAX_SIDE)
        return fail(error, RESNET_ERROR_ARGUMENT, "an image of %u x %u pixels: each side must be 1..%d",
                    (unsigned)source->width, (unsigned)source->height, MAX_SIDE);
    if (how->resize > MAX_RESIZE)
        return fail(error, RESNET_ERROR_ARGUMENT, "resize to %u pixels: 0..%d are allowed", (unsigned)how->resize,
                    MAX_RESIZE);
    if (how->interpolation != RESNET_BILINEAR && how->interpolation != RESNET_BICUBIC)
        return fail(error, RESNET_ERROR_ARGUMENT, "interpolation %d: neither RESNET_BILINEAR nor RESNET_BICUBIC",
                    (int)how->interpolation);
    for (int c = 0; c < CHANNELS; c++)
        if (!isfinite(how->mean[c]) || !isfinite(how->std[c]) || how->std[c] == 0)
            return fail(error, RESNET_ERROR_ARGUMENT,
                        "channel %d is normalised with mean %g and std %g: finite numbers and a std other than 0 "
                        "were expected",
                        c, (double)how->mean[c], (double)how->std[c]);
    return RESNET_OK;
}

resnet_status preprocess(const struct pixels *source, const resnet_preprocess *how, const resnet_allocator *allocator,
                         const struct preprocess_target *target, resnet_error *error) {
    struct work work = {.size = 0};
    resnet_status status = check(source, how, error);
    if (status != RESNET_OK)
        return status;
    plan_sizes(&work, source, how, target);
    status = get_memory(&work, allocator, error);
    if (status != RESNET_OK)
        return status;
    weigh_axis(&work.x, how->interpolation);
    weigh_axis(&work.y, how->interpolation);
    make_table(work.table, how);
    resize_rows(&work, source);
    write_target(&work, target);
    memory_put(allocator, work.memory, work.size);
    return RESNET_OK;
}
