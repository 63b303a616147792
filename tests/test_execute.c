/*
 * test_execute.c - whole layers through the fast executor, with every table of kernels that this CPU can run, against
 * the sums written out one number at a time.
 *
 * A case is one node with tensors laid out at random as a plan might (borders, gaps between pixels, residual in place
 * or apart). It is split into parts that run in shuffled order over an output full of NaNs, and must come out the same
 * each time.
 */
#include "execute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "candidates.h"
#include "kept.h"
#include "numbers.h"
#include "pack.h"
#include "split.h"
#include "support.h"
#include "winograd.h"

#define MOST_PARTS 64
#define NOTHING    16 /* words around each tensor that no one may touch */

static struct test_random generator;

static uint32_t pick(uint32_t low, uint32_t high) {
    return test_between(&generator, low, high);
}

/* ---- Memory ---- */

/* At a multiple of 64 bytes. */
static float *floats(size_t count) {
    float *memory = aligned_alloc(64, (count * sizeof *memory + 63) / 64 * 64);
    assert_non_null(memory);
    return memory;
}

static float *copy_of(const float *values, size_t count) {
    return memcpy(floats(count), values, count * sizeof *values);
}

/* NaNs that differ from place to place, so that one which was moved is found. */
static void poison(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = 0x7fc00001U + (uint32_t)(i % 0x3fff00);
        memcpy(values + i, &bits, sizeof bits);
    }
}

/* ---- A case ---- */

enum where { NO_RESIDUAL, APART, IN_PLACE };

/* What to lay out. Gaps and borders come on top of what the node needs. */
struct test_layer {
    struct node node; /* in, out, kernel, stride, pad as the graph builder sets them */
    uint32_t images;
    uint32_t in_border, in_gap, out_border, out_gap, residual_border;
    enum where residual;
    bool winograd;                     /* where it suits the node */
    bool last;                         /* its output are the logits */
    const struct format_kernels *kept; /* of f32, of a layer of int8 whose weights are */
};

struct layer_case {
    struct test_layer layer;
    const struct candidate *candidate;
    struct tensor input, output;
    struct tensor residual;           /* apart; where it is used in place, the output starts as a copy of it */
    struct tensor gate;               /* of a scaling */
    size_t words;                     /* of the arena */
    float *arena;                     /* as it is before the node runs */
    struct layer weights;             /* folded */
    float *panels;                    /* the same, packed */
    struct scale scales[3];           /* of u8: input, output, residual */
    resnet_preprocess preprocess;     /* of an input in u8 */
    float *logits;                    /* as it is before: for the last node */
    float *scratch;                   /* for MOST_PARTS threads */
    size_t scratch_size, logit_count; /* floats a thread; floats of all images */
};

static enum format format_of(const struct layer_case *c) {
    return c->candidate->format;
}

static bool is_last(const struct layer_case *c) {
    return c->layer.last;
}

/* What a node reads: the slots are f32 in every format. */
static enum format input_format(const struct layer_case *c) {
    return c->layer.node.op == OP_INPUT ? FORMAT_F32 : format_of(c);
}

/* What the result is stored in. */
static enum format stored(const struct layer_case *c) {
    return c->layer.node.floats ? FORMAT_F32 : format_of(c);
}

/* Numbers of an input pixel that is converted. */
static uint32_t converted_channels(uint32_t channels) {
    return channels <= 4 ? 4 : channels <= 8 ? 8 : 16;
}

static uint32_t words_for(enum format format, uint32_t channels) {
    return divide_up(channels, word_numbers(format));
}

static struct tensor lay_out(struct layer_case *c, enum format format, struct shape shape, uint32_t border,
                             uint32_t gap) {
    uint32_t channels = c->layer.node.op == OP_INPUT ? converted_channels(shape.channels) : shape.channels;
    struct tensor t = {.shape = shape, .border = border, .pixel = words_for(format, channels) + gap};
    t.row = (shape.width + 2 * border) * t.pixel;
    t.image = (shape.height + 2 * border) * t.row;
    t.size = (t.image * c->layer.images + 15) / 16 * 16;
    t.start = c->words + NOTHING;
    t.origin = t.start + border * (t.row + t.pixel);
    c->words = t.start + t.size + NOTHING;
    return t;
}

/* Pixel (y, x) of an image in an arena; the border has places of its own, below 0 and above the size. */
static float *pixel_at(const struct tensor *t, float *arena, uint32_t image, int64_t y, int64_t x) {
    return arena + ((int64_t)(t->origin + image * t->image) + y * (int64_t)t->row + x * (int64_t)t->pixel);
}

static bool is_inside(const struct tensor *t, int64_t y, int64_t x) {
    return y >= 0 && y < t->shape.height && x >= 0 && x < t->shape.width;
}

/* Whole words: channels past the last hold numbers, too. */
static void fill_pixel(enum format format, float *pixel, uint32_t words, float low) {
    for (uint32_t i = 0; i < words * word_numbers(format); i++)
        set_number(format, pixel, i, format == FORMAT_U8 ? (float)pick(0, 255) : test_float(&generator, low, 1));
}

/* A tensor as the node before leaves it: numbers, zeros in the border, and whatever between the pixels. */
static void fill_tensor(const struct layer_case *c, const struct tensor *t, enum format format, float low) {
    int64_t border = t->border, height = t->shape.height, width = t->shape.width;
    uint32_t words = words_for(format, t->shape.channels);
    for (uint32_t image = 0; image < c->layer.images; image++)
        for (int64_t y = -border; y < height + border; y++)
            for (int64_t x = -border; x < width + border; x++)
                if (is_inside(t, y, x))
                    fill_pixel(format, pixel_at(t, c->arena, image, y, x), words, low);
                else
                    memset(pixel_at(t, c->arena, image, y, x), 0, t->pixel * sizeof(float));
}

/* The input as preprocessing leaves it: pixels, normalised; and here and there what a caller's own floats may hold. */
static void fill_slots(struct layer_case *c) {
    static const float strange[] = {NAN, INFINITY, -INFINITY, 1e30F, -1e30F, 1000, -1000};
    const struct shape in = c->layer.node.in;
    for (uint32_t k = 0; k < in.channels; k++) {
        c->preprocess.mean[k] = test_float(&generator, 0, 1);
        c->preprocess.std[k] = test_float(&generator, 0.1F, 0.5F);
    }
    for (uint32_t i = 0; i < c->layer.images * in.height * in.width; i++)
        for (uint32_t k = 0; k < in.channels; k++) {
            float pixel = ((float)pick(0, 255) / 255 - c->preprocess.mean[k]) / c->preprocess.std[k];
            float *at =
                pixel_at(&c->input, c->arena, i / (in.height * in.width), i / in.width % in.height, i % in.width);
            at[k] = pick(0, 19) ? pixel : strange[pick(0, COUNT(strange) - 1)];
            for (size_t rest = in.channels; rest < c->input.pixel; rest++)
                at[rest] = 0;
        }
}

/* Of u8, for results that are mostly smaller than `spread`. */
static void set_output_scales(struct layer_case *c, float spread) {
    c->scales[1] = (struct scale){spread / 100, c->layer.node.relu ? 0 : 128};
    if (c->layer.residual != NO_RESIDUAL)
        c->scales[2] = (struct scale){c->scales[1].scale * test_float(&generator, 0.5F, 2), (float)(128 * pick(0, 1))};
}

static void fill_integers(struct layer_case *c, size_t count, size_t channels) {
    int8_t *integers = (int8_t *)floats(count / sizeof(float) + 1);
    float *scale = floats(channels), *bias = floats(channels);
    for (size_t i = 0; i < count; i++)
        integers[i] = (int8_t)(pick(0, 255) - 128);
    for (size_t i = 0; i < channels; i++) {
        scale[i] = test_float(&generator, 0.001F, 0.01F);
        bias[i] = test_float(&generator, -1, 1);
    }
    set_output_scales(c, sqrtf((float)count / (float)channels) * 74 * 150 * 0.005F * c->scales[0].scale);
    c->weights = (struct layer){.integers = integers, .scale = scale, .bias = bias, .input = c->scales[0].scale};
    c->weights.output = c->layer.node.floats ? 1 : c->scales[1].scale;
}

static void fill_weights(struct layer_case *c) {
    const struct node *node = &c->layer.node;
    size_t count = parameters_size(node) ? node_weights(node) : 0, channels = node->out.channels;
    c->scales[0] = (struct scale){test_float(&generator, 0.01F, 0.1F), 0};
    c->scales[1] = (struct scale){test_float(&generator, 0.01F, 0.1F), 0};
    if (node->op == OP_SCALE || (node->op == OP_GLOBAL_AVGPOOL && node->floats))
        c->scales[0].zero = 128; /* no ReLU stands before */
    if (node->op == OP_SCALE)
        set_output_scales(c, 150 * c->scales[0].scale);
    if (c->layer.kept)
        set_output_scales(c, sqrtf((float)count / (float)channels) * 0.58F * 150 * c->scales[0].scale);
    if (count && format_of(c) == FORMAT_U8 && !c->layer.kept) {
        fill_integers(c, count, channels);
    } else if (count) {
        float *weight = floats(count), *bias = floats(channels);
        for (size_t i = 0; i < count; i++)
            weight[i] = test_float(&generator, -1, 1);
        for (size_t i = 0; i < channels; i++)
            bias[i] = test_float(&generator, -1, 1);
        c->weights = (struct layer){.weight = weight, .bias = bias};
    }
}

/* Winograd's weights are f32 in every format, and those that are kept. */
static enum format weight_format(const struct layer_case *c) {
    return c->layer.winograd || c->layer.kept ? FORMAT_F32 : format_of(c);
}

static void pack(struct layer_case *c) {
    const struct node *node = &c->layer.node;
    uint32_t nr = panel_channels(node, c->layer.kept ? c->layer.kept : c->candidate->kernels);
    if (!parameters_size(node))
        return;
    c->panels = floats(panels_size(node, weight_format(c), nr));
    assert_int_equal(pack_panels(node, &c->weights, weight_format(c), nr, c->panels, NULL), RESNET_OK);
    if (c->layer.winograd) {
        float *packed = floats(winograd_size(node, nr));
        winograd_pack(node, c->panels, (struct span){0, divide_up(node->out.channels, nr)}, nr, packed);
        free(c->panels);
        c->panels = packed;
        c->scratch_size = winograd_scratch(node, c->candidate->winograd->products);
    }
    if (c->layer.kept)
        c->scratch_size = kept_scratch(node, c->layer.images);
    if (c->scratch_size)
        c->scratch = floats(MOST_PARTS * c->scratch_size);
}

static void lay_out_case(struct layer_case *c) {
    const struct test_layer *layer = &c->layer;
    bool in_place = layer->residual == IN_PLACE;
    c->input = lay_out(c, input_format(c), layer->node.in, layer->node.pad + layer->in_border, layer->in_gap);
    c->output = lay_out(c, stored(c), layer->node.out, layer->out_border, layer->out_gap);
    c->residual = lay_out(c, format_of(c), layer->node.out, in_place ? layer->out_border : layer->residual_border,
                          layer->out_gap);
    if (layer->node.op == OP_SCALE)
        c->gate = lay_out(c, FORMAT_F32, (struct shape){1, 1, layer->node.out.channels}, 0, 0);
    c->arena = floats(c->words);
    poison(c->arena, c->words);
}

static struct layer_case make_case(const struct candidate *candidate, const struct test_layer *layer) {
    struct layer_case c = {.layer = *layer, .candidate = candidate};
    const struct node *node = &layer->node;
    lay_out_case(&c);
    if (node->op == OP_INPUT)
        fill_slots(&c);
    else /* pools stand behind a ReLU */
        fill_tensor(&c, &c.input, format_of(&c), node->op == OP_MAXPOOL ? 0 : -1);
    if (node->op == OP_SCALE)
        fill_tensor(&c, &c.gate, FORMAT_F32, 0);
    if (layer->residual != NO_RESIDUAL)
        fill_tensor(&c, &c.residual, format_of(&c), -1);
    if (layer->residual == IN_PLACE)
        memcpy(c.arena + c.output.start, c.arena + c.residual.start, c.output.size * sizeof(float));
    fill_weights(&c);
    pack(&c);
    c.logit_count = (size_t)node->out.channels * layer->images;
    c.logits = floats(c.logit_count + NOTHING);
    poison(c.logits, c.logit_count + NOTHING);
    return c;
}

static void free_case(struct layer_case *c) {
    free(c->arena);
    free((void *)(uintptr_t)c->weights.weight);
    free((void *)(uintptr_t)c->weights.integers);
    free((void *)(uintptr_t)c->weights.scale);
    free((void *)(uintptr_t)c->weights.bias);
    free(c->panels);
    free(c->logits);
    free(c->scratch);
}

/* ---- Run ---- */

/* Where a run has left its results. */
struct outcome {
    float *arena, *logits;
};

static struct outcome start_of(const struct layer_case *c) {
    return (struct outcome){copy_of(c->arena, c->words), copy_of(c->logits, c->logit_count + NOTHING)};
}

static void free_outcome(struct outcome *outcome) {
    free(outcome->arena);
    free(outcome->logits);
}

static const struct tensor *residual_of(const struct layer_case *c) {
    const struct tensor *const choice[] = {[NO_RESIDUAL] = NULL, [APART] = &c->residual, [IN_PLACE] = &c->output};
    return choice[c->layer.residual];
}

static struct step step_on(const struct layer_case *c, const struct outcome *outcome) {
    return (struct step){
        .format = format_of(c),
        .kernels = c->candidate->kernels,
        .node = &c->layer.node,
        .input = &c->input,
        .output = &c->output,
        .residual = residual_of(c),
        .gate = c->layer.node.op == OP_SCALE ? &c->gate : NULL,
        .input_scale = c->scales[0],
        .output_scale = c->scales[1],
        .residual_scale = c->scales[2],
        .preprocess = &c->preprocess,
        .panels = c->panels,
        .arena = outcome->arena,
        .logits = is_last(c) ? outcome->logits : NULL,
        .images = c->layer.images,
        .winograd = c->layer.winograd ? c->candidate->winograd : NULL,
        .kept = c->layer.kept,
        .scratch = c->scratch,
        .scratch_size = c->scratch_size,
    };
}

static void shuffle(uint32_t *order, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t j = test_below(&generator, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

static struct outcome run_in_parts(const struct layer_case *c, uint32_t parts) {
    uint32_t order[MOST_PARTS] = {0};
    struct outcome outcome = start_of(c);
    struct step step = step_on(c, &outcome);
    shuffle(order, parts);
    for (uint32_t i = 0; i < parts; i++)
        execute(&step, order[i], parts);
    return outcome;
}

/* ---- What should come out ---- */

/* Of one result: pixel (y, x) of an image, and its channel. */
struct place {
    uint32_t image, channel;
    int64_t y, x;
};

/* Channel k of tap (i, j) of a window; beyond the edge, of the border. */
static double tap_at(const struct layer_case *c, const struct place *at, uint32_t tap, uint32_t k) {
    const struct node *node = &c->layer.node;
    int64_t y = at->y * node->stride + (int64_t)(tap / node->kernel) * node->dilation - node->pad;
    int64_t x = at->x * node->stride + (int64_t)(tap % node->kernel) * node->dilation - node->pad;
    return number_at(input_format(c), pixel_at(&c->input, c->arena, at->image, y, x), k);
}

static double residual_at(const struct layer_case *c, const struct place *at) {
    return number_at(format_of(c), pixel_at(&c->residual, c->arena, at->image, at->y, at->x), at->channel);
}

/* Weight (channel, k, tap), k counting the channels of the group. */
static size_t weight_index(const struct node *node, uint32_t channel, uint32_t k, uint32_t tap) {
    return ((size_t)channel * node_group_inputs(node) + k) * node->kernel * node->kernel + tap;
}

/* The first channel that this output channel sees. */
static uint32_t first_input(const struct node *node, uint32_t channel) {
    return channel / (node->out.channels / node->groups) * node_group_inputs(node);
}

static struct sum sum_of_products(const struct layer_case *c, const struct place *at) {
    const struct node *node = &c->layer.node;
    struct sum sum = {0};
    add_term(&sum, (double)c->weights.bias[at->channel]);
    for (uint32_t tap = 0; tap < node->kernel * node->kernel; tap++)
        for (uint32_t k = 0; k < node_group_inputs(node); k++) {
            double weight = (double)c->weights.weight[weight_index(node, at->channel, k, tap)];
            double x = tap_at(c, at, tap, first_input(node, at->channel) + k);
            add_term(&sum, x * (weight_format(c) == FORMAT_BF16 ? nearest_bf16(weight) : weight));
        }
    return sum;
}

/* Every operation behind the integer sum rounds to f32, as kernels.h prescribes. */
static double integer_result(const struct layer_case *c, const struct place *at) {
    const struct node *node = &c->layer.node;
    double unit = (double)c->weights.input * (double)c->weights.scale[at->channel];
    int64_t sum = lrint((double)c->weights.bias[at->channel] / unit);
    for (uint32_t tap = 0; tap < node->kernel * node->kernel; tap++)
        for (uint32_t k = 0; k < node_group_inputs(node); k++)
            sum += (int64_t)tap_at(c, at, tap, first_input(node, at->channel) + k) *
                   c->weights.integers[weight_index(node, at->channel, k, tap)];
    float result = (float)sum * (float)(unit / (double)c->weights.output);
    if (node->floats)
        return (double)result;
    float offset = c->scales[1].zero;
    if (c->layer.residual != NO_RESIDUAL) {
        float ratio = c->scales[2].scale / c->scales[1].scale;
        result += (float)residual_at(c, at) * ratio;
        offset -= c->scales[2].zero * ratio;
    }
    return round_to_u8(result + offset);
}

static double largest_tap(const struct layer_case *c, const struct place *at) {
    double largest = 0;
    for (uint32_t tap = 0; tap < c->layer.node.kernel * c->layer.node.kernel; tap++)
        if (tap_at(c, at, tap, at->channel) > largest)
            largest = tap_at(c, at, tap, at->channel);
    return largest;
}

/* Of all pixels of a map. */
static struct sum sum_of_map(const struct layer_case *c, const struct place *at) {
    struct sum sum = {0};
    for (uint32_t i = 0; i < c->input.shape.height * c->input.shape.width; i++) {
        const float *pixel =
            pixel_at(&c->input, c->arena, at->image, i / c->input.shape.width, i % c->input.shape.width);
        add_term(&sum, number_at(format_of(c), pixel, at->channel));
    }
    return sum;
}

/* The pixel that a normalised number came from, or the nearest. */
static double pixel_of(const struct layer_case *c, double number, uint32_t channel) {
    double pixel = number * (double)c->preprocess.std[channel] + (double)c->preprocess.mean[channel];
    return round_to_u8((float)(pixel * 255));
}

static double converted(const struct layer_case *c, const struct place *at) {
    double number = is_inside(&c->input, at->y, at->x) ? tap_at(c, at, 0, at->channel) : 0;
    return format_of(c) == FORMAT_U8 ? pixel_of(c, number, at->channel) : number;
}

/* What should stand at a place before it is stored: exactly, or with an error. */
struct wanted {
    double value, magnitude, limit;
};

/* A sigmoid is nowhere steeper than 1 / 4, and rounds a few times by 2^-24 of no more than 1. */
static struct wanted wanted_sum(const struct layer_case *c, const struct place *at) {
    struct sum sum = sum_of_products(c, at);
    if (c->layer.residual != NO_RESIDUAL)
        add_term(&sum, residual_at(c, at));
    double value = c->layer.node.relu && sum.value < 0 ? 0 : sum.value, limit = sum_bound(format_of(c), sum);
    if (c->layer.node.sigmoid)
        return (struct wanted){1 / (1 + exp(-value)), 1, limit / 4 + 4 * UNIT};
    return (struct wanted){value, sum.magnitude, limit};
}

/* A number in units of the output, before it is rounded, which is off by up to half of one. */
static struct wanted wanted_byte(const struct layer_case *c, double number, double limit) {
    double unit = (double)c->scales[1].scale, value = number / unit + (double)c->scales[1].zero;
    return (struct wanted){fmin(fmax(value, 0), 255), 0, 0.5 + limit / unit + 512 * UNIT};
}

/* Of a layer of int8 that is kept in f32: bytes are numbers at first. */
static struct wanted wanted_kept(const struct layer_case *c, const struct place *at) {
    struct sum sum = sum_of_products(c, at);
    const double in = (double)c->scales[0].scale, bias = (double)c->weights.bias[at->channel];
    double value = (sum.value - bias) * in + bias;
    sum.magnitude = (sum.magnitude - fabs(bias)) * in + fabs(bias);
    sum.terms += 2; /* the products by scales */
    if (c->layer.node.floats)
        return (struct wanted){value, 0, sum_bound(FORMAT_F32, sum)};
    if (c->layer.residual != NO_RESIDUAL)
        value += (double)c->scales[2].scale * (residual_at(c, at) - (double)c->scales[2].zero);
    return wanted_byte(c, value, sum_bound(FORMAT_F32, sum));
}

/* The gate's product and a sum, rounded once each. Of u8, as kernels.h prescribes. */
static struct wanted wanted_gated(const struct layer_case *c, const struct place *at) {
    double x = tap_at(c, at, 0, at->channel), residual = residual_at(c, at);
    float gate = pixel_at(&c->gate, c->arena, at->image, 0, 0)[at->channel];
    if (format_of(c) == FORMAT_U8) {
        float ratio = c->scales[2].scale / c->scales[1].scale, offset = c->scales[1].zero - c->scales[2].zero * ratio;
        float product = ((float)x - c->scales[0].zero) * (gate * (c->scales[0].scale / c->scales[1].scale));
        float scaled = (float)residual * ratio, sum = product + scaled;
        return (struct wanted){.value = round_to_u8(sum + offset)};
    }
    double value = x * (double)gate + residual;
    return (struct wanted){value < 0 ? 0 : value, 0, 2 * UNIT * (fabs(x * (double)gate) + fabs(value))};
}

/* Of the part of a window that lies inside the map. */
static struct wanted wanted_window_mean(const struct layer_case *c, const struct place *at) {
    const struct node *node = &c->layer.node;
    struct sum sum = {0};
    for (uint32_t tap = 0; tap < node->kernel * node->kernel; tap++)
        if (is_inside(&c->input, at->y * node->stride + tap / node->kernel, at->x * node->stride + tap % node->kernel))
            add_term(&sum, tap_at(c, at, tap, at->channel));
    uint32_t area = sum.terms;
    if (format_of(c) == FORMAT_U8)
        return (struct wanted){.value = round_to_u8((float)sum.value * (1 / (float)area))};
    sum.terms += 2;
    return (struct wanted){sum.value / area, 0, sum_bound(format_of(c), sum) / area};
}

static double subsampled(const struct layer_case *c, struct place at) {
    const struct shape in = c->layer.node.in, out = c->layer.node.out;
    uint32_t before = (out.channels - in.channels) / 2;
    bool inside = at.channel >= before && at.channel - before < in.channels;
    return inside ? tap_at(c, &at, 0, at.channel - before) : 0;
}

/* The scale is rounded, and its product. Of u8, the sum is exact, and the product is rounded to f32. */
static struct wanted wanted_mean(const struct layer_case *c, const struct place *at) {
    struct sum sum = sum_of_map(c, at);
    uint32_t area = sum.terms;
    float scale = 1 / (float)area;
    scale *= c->scales[0].scale / c->scales[1].scale;
    if (format_of(c) == FORMAT_U8) {
        float product = (float)sum.value * scale;
        float value = product - c->scales[0].zero * (c->scales[0].scale / c->scales[1].scale);
        return (struct wanted){.value = c->layer.node.floats ? (double)value : round_to_u8(value)};
    }
    sum.terms += 2;
    return (struct wanted){sum.value / area, 0, sum_bound(format_of(c), sum) / area};
}

static struct wanted wanted_at(const struct layer_case *c, const struct place *at) {
    switch (c->layer.node.op) {
    case OP_INPUT:
        return (struct wanted){.value = converted(c, at)};
    case OP_MAXPOOL:
        return (struct wanted){.value = largest_tap(c, at)};
    case OP_AVGPOOL:
        return wanted_window_mean(c, at);
    case OP_GLOBAL_AVGPOOL:
        return wanted_mean(c, at);
    case OP_SUBSAMPLE:
        return (struct wanted){.value = subsampled(c, *at)};
    case OP_SCALE:
        return wanted_gated(c, at);
    default:
        if (c->layer.kept)
            return wanted_kept(c, at);
        return format_of(c) == FORMAT_U8 ? (struct wanted){.value = integer_result(c, at)} : wanted_sum(c, at);
    }
}

/* ---- Check ---- */

static uint32_t result_pixels(const struct layer_case *c) {
    return c->layer.images * c->output.shape.height * c->output.shape.width;
}

/* Words that a pixel's channels take. */
static uint32_t result_words(const struct layer_case *c) {
    return words_for(stored(c), c->output.shape.channels);
}

static struct place place_of(const struct layer_case *c, uint32_t pixel, uint32_t channel) {
    uint32_t width = c->output.shape.width, area = c->output.shape.height * width;
    return (struct place){pixel / area, channel, pixel % area / width, pixel % width};
}

static float *result_at(const struct layer_case *c, const struct outcome *outcome, uint32_t pixel) {
    struct place at = place_of(c, pixel, 0);
    if (is_last(c))
        return outcome->logits + (size_t)at.image * c->output.shape.channels;
    return pixel_at(&c->output, outcome->arena, at.image, at.y, at.x);
}

/* All of a node's results, channels innermost; to be freed. */
static struct wanted *all_wanted(const struct layer_case *c) {
    uint32_t channels = c->output.shape.channels;
    struct wanted *all = malloc((size_t)result_pixels(c) * channels * sizeof *all);
    assert_non_null(all);
    for (uint32_t i = 0; i < result_pixels(c) * channels; i++) {
        struct place at = place_of(c, i / channels, i % channels);
        all[i] = wanted_at(c, &at);
    }
    return all;
}

/* Winograd's method has no bound for each output, since its sums run over neighbours too: there, the largest magnitude
 * of the layer stands in. */
static void raise_limits(struct wanted *all, size_t count) {
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, all[i].magnitude);
    for (size_t i = 0; i < count; i++)
        all[i].limit *= largest / all[i].magnitude;
}

static void check_values(const struct layer_case *c, const struct outcome *got) {
    uint32_t channels = c->output.shape.channels, count = result_pixels(c) * channels;
    struct wanted *wanted = all_wanted(c);
    if (c->layer.winograd)
        raise_limits(wanted, count);
    for (uint32_t i = 0; i < count; i++) {
        double value = number_at(stored(c), result_at(c, got, i / channels), i % channels);
        bool good =
            is_near(stored(c), value, wanted[i].value, wanted[i].limit) || (isnan(value) && isnan(wanted[i].value));
        if (!good)
            print_error("%s, op %d, kernel %u: pixel %u, channel %u: %.9g, not %.9g\n", c->candidate->name,
                        (int)c->layer.node.op, c->layer.node.kernel, i / channels, i % channels, value,
                        wanted[i].value);
        assert_true(good);
    }
    free(wanted);
}

/* One pixel of the border: zeros, but for the input in u8, where it is the pixel that stands for zero. */
static void check_border_pixel(const struct layer_case *c, const float *pixel, const struct place *at) {
    bool pixels = c->layer.node.op == OP_INPUT && format_of(c) == FORMAT_U8;
    struct place place = *at;
    for (uint32_t n = 0; n < result_words(c) * word_numbers(format_of(c)); n++) {
        place.channel = n;
        double wanted = pixels && n < c->output.shape.channels ? converted(c, &place) : 0;
        assert_true(number_at(format_of(c), pixel, n) == wanted);
    }
}

static void check_border(const struct layer_case *c, const struct outcome *outcome) {
    const struct tensor *t = &c->output;
    int64_t border = t->border;
    for (uint32_t image = 0; !is_last(c) && image < c->layer.images; image++)
        for (int64_t y = -border; y < t->shape.height + border; y++)
            for (int64_t x = -border; x < t->shape.width + border; x++)
                if (!is_inside(t, y, x))
                    check_border_pixel(c, pixel_at(t, outcome->arena, image, y, x),
                                       &(struct place){.image = image, .y = y, .x = x});
}

/* Nothing but the output has changed. */
static void check_rest(const struct layer_case *c, const struct outcome *outcome) {
    size_t begin = is_last(c) ? c->words : c->output.start, end = is_last(c) ? c->words : begin + c->output.size;
    assert_memory_equal(outcome->arena, c->arena, begin * sizeof(float));
    if (end < c->words)
        assert_memory_equal(outcome->arena + end, c->arena + end, (c->words - end) * sizeof(float));
    size_t first = is_last(c) ? c->logit_count : 0;
    assert_memory_equal(outcome->logits + first, c->logits + first, (c->logit_count + NOTHING - first) * sizeof(float));
}

static void check_equal(const struct layer_case *c, const struct outcome *got, const struct outcome *wanted) {
    for (uint32_t i = 0; i < result_pixels(c); i++)
        assert_memory_equal(result_at(c, got, i), result_at(c, wanted, i), result_words(c) * sizeof(float));
}

/* How many words differ, bit by bit. */
static size_t count_changed(const float *a, const float *b, uint32_t count) {
    size_t changed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            changed++;
    return changed;
}

/* How many words of results a part has written over their poison. */
static size_t count_written(const struct layer_case *c, const struct outcome *after) {
    const struct outcome before = {c->arena, c->logits};
    size_t written = 0;
    for (uint32_t i = 0; i < result_pixels(c); i++)
        written += count_changed(result_at(c, after, i), result_at(c, &before, i), result_words(c));
    return written;
}

/* Each part alone: together they write every result once. (In place there is no poison to look for. A layer that is
 * kept writes single bytes, and one of them may be its word's poison.) */
static void check_disjoint(const struct layer_case *c, uint32_t parts) {
    size_t written = 0;
    if (c->layer.residual == IN_PLACE || (c->layer.kept && c->layer.node.out.channels % 4 != 0))
        return;
    for (uint32_t i = 0; i < parts; i++) {
        struct outcome outcome = start_of(c);
        struct step step = step_on(c, &outcome);
        execute(&step, i, parts);
        written += count_written(c, &outcome);
        free_outcome(&outcome);
    }
    assert_int_equal(written, (size_t)result_pixels(c) * result_words(c));
}

static void check_layer(const struct candidate *candidate, const struct test_layer *layer) {
    static const uint32_t parts[] = {2, 3, 8, MOST_PARTS};
    struct layer_case c = make_case(candidate, layer);
    struct outcome whole = run_in_parts(&c, 1);
    check_values(&c, &whole);
    check_border(&c, &whole);
    check_rest(&c, &whole);
    for (size_t i = test_quick() ? pick(0, COUNT(parts) - 1) : 0; i < COUNT(parts);
         i += test_quick() ? COUNT(parts) : 1) {
        struct outcome split = run_in_parts(&c, parts[i]);
        check_equal(&c, &split, &whole);
        check_border(&c, &split);
        check_rest(&c, &split);
        free_outcome(&split);
    }
    check_disjoint(&c, parts[pick(0, COUNT(parts) - 1)]);
    free_outcome(&whole);
    free_case(&c);
}

/* ---- Which layers ---- */

/* Of so many random layers, how many there is time for. */
static uint32_t some_of(uint32_t count) {
    return test_quick() ? count / 12 : count;
}

/* The node that the graph builder makes of it, behind an input of this shape. */
static struct node conv_node(struct shape in, struct conv conv) {
    struct node nodes[2];
    struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
    graph_conv(&graph, graph_input(&graph, in), conv, "conv");
    return nodes[1];
}

/* Borders, gaps and batch that a plan could have chosen. */
static void pick_layout(struct test_layer *layer) {
    layer->images = pick(1, 3);
    layer->in_border = pick(0, 3) == 0;
    layer->in_gap = pick(0, 2) == 0 ? pick(1, 20) : 0;
    layer->out_border = pick(0, 1) * pick(1, 3);
    layer->out_gap = pick(0, 2) == 0 ? pick(1, 20) : 0;
    layer->residual_border = pick(0, 1);
}

/* Mostly small: the sums written out take their time. */
static struct shape pick_shape(uint32_t most_side, uint32_t most_channels) {
    return (struct shape){pick(1, most_side), pick(1, most_side), pick(1, pick(1, most_channels))};
}

/* Where Winograd's method suits the layer, it is checked that way and by the direct sum. */
static void check_both_ways(const struct candidate *candidate, struct test_layer *layer) {
    check_layer(candidate, layer);
    layer->winograd = candidate->winograd && winograd_suits(&layer->node, candidate->format);
    if (layer->winograd)
        check_layer(candidate, layer);
}

static void random_convolutions(const struct candidate *candidate) {
    static const uint32_t kernels[] = {1, 1, 3, 3, 7};
    const int layers = (int)some_of(300);
    for (int i = 0; i < layers; i++) {
        uint32_t kernel = kernels[pick(0, COUNT(kernels) - 1)];
        struct conv conv = {pick(1, pick(1, 70)), kernel, pick(1, 2), NO_NODE, pick(0, 1), 1, 1};
        struct test_layer layer = {.node = conv_node(pick_shape(13, kernel == 7 ? 6 : 60), conv),
                                   .residual = (enum where)pick(NO_RESIDUAL, IN_PLACE)};
        pick_layout(&layer);
        check_both_ways(candidate, &layer);
    }
}

/* Groups of all widths that a network may have, and last panels of every width. */
static struct node pick_groups(uint32_t turn) {
    static const uint32_t widths[] = {4, 8, 16, 32, 48};
    uint32_t width = widths[turn % COUNT(widths)], groups = pick(2, width < 16 ? 14 : 4), channels = width * groups;
    struct conv conv = {channels, 1 + 2 * pick(0, 1), pick(1, 2), NO_NODE, pick(0, 1), groups, pick(1, 2)};
    return conv_node((struct shape){pick(1, 9), pick(1, 17), channels}, conv);
}

static void grouped_convolutions(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(100); i++) {
        struct test_layer layer = {.node = pick_groups(i), .residual = (enum where)pick(NO_RESIDUAL, IN_PLACE)};
        pick_layout(&layer);
        check_layer(candidate, &layer);
    }
}

/* By 4 in the last stage of a network that is dilated for an output stride of 8. */
static void dilated_convolutions(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(60); i++) {
        struct conv conv = {pick(1, 70), 3, 1, NO_NODE, pick(0, 1), 1, 1 + i % 4};
        struct test_layer layer = {.node = conv_node(pick_shape(13, 60), conv),
                                   .residual = (enum where)pick(NO_RESIDUAL, IN_PLACE)};
        pick_layout(&layer);
        check_both_ways(candidate, &layer);
    }
}

/* Layers of int8 networks in f32, by each of its kernels. */
static void kept_layers(const struct candidate *candidate) {
    const struct candidate bytes = {candidate->name, FORMAT_U8, &u8_scalar, NULL};
    for (uint32_t i = 0; candidate->format == FORMAT_F32 && i < some_of(60); i++) {
        struct conv conv = {pick(1, 70), 1 + 2 * pick(0, 1), pick(1, 2), NO_NODE, pick(0, 1), 1, pick(1, 2)};
        struct node node = i % 2 ? pick_groups(i / 2) : conv_node(pick_shape(9, 60), conv);
        struct test_layer layer = {
            .node = node, .residual = (enum where)pick(NO_RESIDUAL, IN_PLACE), .kept = candidate->kernels};
        pick_layout(&layer);
        check_layer(&bytes, &layer);
    }
}

static struct test_layer winograd_layer(struct shape in, uint32_t out, enum where residual) {
    struct test_layer layer = {.node = conv_node(in, (struct conv){out, 3, 1, NO_NODE, pick(0, 1), 1, 1}),
                               .residual = residual};
    pick_layout(&layer);
    return layer;
}

/* So many channels that the sum written out takes its time: in f32 and Winograd's way only. */
static void wide_winograd_convolution(const struct candidate *candidate, struct shape in, uint32_t out,
                                      enum where residual) {
    struct test_layer layer = winograd_layer(in, out, residual);
    layer.winograd = true;
    assert_true(winograd_suits(&layer.node, candidate->format));
    check_layer(candidate, &layer);
}

/* 3x3 layers that Winograd's method takes, with every remainder of a 4x4 tile; of a 4x2 and a 2x2 one, which take more
 * channels. */
static void winograd_convolutions(const struct candidate *candidate) {
    for (uint32_t i = 0; i < 48; i++) {
        struct shape in = {1 + i % 9, 1 + i / 4 % 9, 16 * pick(1, 2)};
        struct test_layer layer = winograd_layer(in, 16 * pick(1, 4), (enum where)(i % 3));
        check_both_ways(candidate, &layer);
    }
    for (uint32_t i = 0; candidate->winograd && candidate->format == FORMAT_F32 && i < 5; i++) {
        wide_winograd_convolution(candidate, (struct shape){5 - i, 1 + i / 2, 32}, 16 * 33, (enum where)(i % 3));
        wide_winograd_convolution(candidate, (struct shape){1 + i / 2, 1 + i % 4, 256}, 16 * 17, (enum where)(i % 3));
    }
}

/* Sizes at which work is divided in another way: much weight and few pixels, much input and many tiles. */
static void large_convolutions(const struct candidate *candidate) {
    static const struct {
        struct shape in;
        struct conv conv;
        uint32_t images, in_gap, out_border;
        enum where residual;
    } cases[] = {
        {{3, 3, 130}, {150, 3, 1, NO_NODE, true, 1, 1}, 1, 0, 0, IN_PLACE},
        {{2, 2, 512}, {300, 1, 1, NO_NODE, true, 1, 1}, 3, 16, 1, APART},
        {{1, 1, 512}, {300, 1, 1, NO_NODE, false, 1, 1}, 1, 16, 0, NO_RESIDUAL},
        {{17, 23, 512}, {40, 1, 1, NO_NODE, true, 1, 1}, 1, 16, 0, IN_PLACE},
        {{19, 31, 256}, {33, 1, 2, NO_NODE, false, 1, 1}, 2, 0, 1, NO_RESIDUAL},
        {{30, 26, 3}, {64, 7, 2, NO_NODE, true, 1, 1}, 2, 0, 0, NO_RESIDUAL},
        {{1, 200, 8}, {8, 3, 1, NO_NODE, true, 1, 1}, 1, 0, 1, APART},
        {{200, 1, 8}, {8, 3, 2, NO_NODE, true, 1, 1}, 2, 0, 1, NO_RESIDUAL},
        {{28, 28, 48}, {32, 3, 1, NO_NODE, true, 1, 1}, 2, 0, 1, IN_PLACE},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct test_layer layer = {.node = conv_node(cases[i].in, cases[i].conv),
                                   .images = cases[i].images,
                                   .in_gap = cases[i].in_gap,
                                   .out_border = cases[i].out_border,
                                   .residual_border = cases[i].out_border,
                                   .residual = cases[i].residual};
        check_both_ways(candidate, &layer);
    }
}

static void linear_layers(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(40); i++) {
        struct node nodes[2];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        uint32_t in = i == 0 ? 512 : pick(1, 300), out = i == 0 ? 1000 : pick(1, 300);
        graph_linear(&graph, graph_input(&graph, (struct shape){1, 1, in}), out, "fc");
        nodes[1].floats = true;
        check_layer(candidate,
                    &(struct test_layer){.node = nodes[1], .images = pick(1, 3), .in_gap = i % 2 * 16, .last = true});
        if (candidate->format != FORMAT_F32)
            continue;
        nodes[1].relu = i % 2; /* the layers of squeeze-and-excitation */
        nodes[1].sigmoid = !nodes[1].relu;
        check_layer(candidate, &(struct test_layer){.node = nodes[1], .images = pick(1, 3)});
    }
}

static void pool_layers(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(150); i++) {
        struct node nodes[2];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        struct shape in = pick_shape(15, 300);
        uint32_t input = graph_input(&graph, in);
        if (i % 3)
            graph_maxpool(&graph, input, 3, pick(1, 2));
        else
            graph_global_avgpool(&graph, input, "avgpool");
        struct test_layer layer = {.node = nodes[1]};
        pick_layout(&layer);
        check_layer(candidate, &layer);
    }
}

/* Averages that are floats in every format: of squeeze-and-excitation, and the last of a network without a head. */
static void float_means(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(40); i++) {
        struct node nodes[2];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        graph_global_avgpool(&graph, graph_input(&graph, pick_shape(15, 300)), "mean");
        nodes[1].floats = true;
        struct test_layer layer = {.node = nodes[1], .images = pick(1, 3), .last = i % 2};
        check_layer(candidate, &layer);
    }
}

/* The shortcuts of networks with average pools, and of those with zeros. */
static void shortcut_layers(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(60); i++) {
        struct node nodes[2];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        struct shape in = pick_shape(15, 150);
        uint32_t input = graph_input(&graph, in);
        if (i % 2)
            graph_avgpool(&graph, input, pick(1, 3), "pool");
        else
            graph_subsample(&graph, input,
                            (struct conv){in.channels + pick(0, 70), 1, pick(1, 2), NO_NODE, false, 1, 1}, "shortcut");
        struct test_layer layer = {.node = nodes[1]};
        pick_layout(&layer);
        check_layer(candidate, &layer);
    }
}

static void scale_layers(const struct candidate *candidate) {
    for (uint32_t i = 0; i < some_of(60); i++) {
        struct node nodes[2];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        uint32_t input = graph_input(&graph, pick_shape(15, 150));
        graph_scale(&graph, input, input, NO_NODE, "se");
        struct test_layer layer = {.node = nodes[1], .residual = i % 2 ? APART : IN_PLACE};
        pick_layout(&layer);
        check_layer(candidate, &layer);
    }
}

/* The caller's floats into the format of the first layer. */
static void input_layers(const struct candidate *candidate) {
    for (uint32_t i = 0; candidate->format != FORMAT_F32 && i < some_of(60); i++) {
        struct node node;
        struct graph graph = {.nodes = &node, .capacity = 1};
        graph_input(&graph, (struct shape){pick(1, 20), pick(1, 20), pick(1, RESNET_MAX_CHANNELS)});
        node.in = node.out;
        node.kernel = node.stride = 1;
        struct test_layer layer = {.node = node, .images = pick(1, 3), .out_border = pick(0, 3)};
        check_layer(candidate, &layer);
    }
}

static void test_random_convolutions(void **state) {
    (void)state;
    each_candidate(random_convolutions);
}

static void test_winograd_convolutions(void **state) {
    (void)state;
    each_candidate(winograd_convolutions);
}

static void test_large_convolutions(void **state) {
    (void)state;
    each_candidate(large_convolutions);
}

static void test_linear_layers(void **state) {
    (void)state;
    each_candidate(linear_layers);
}

static void test_pool_layers(void **state) {
    (void)state;
    each_candidate(pool_layers);
}

static void test_grouped_convolutions(void **state) {
    (void)state;
    each_candidate(grouped_convolutions);
}

static void test_dilated_convolutions(void **state) {
    (void)state;
    each_candidate(dilated_convolutions);
}

static void test_kept_layers(void **state) {
    (void)state;
    each_candidate(kept_layers);
}

static void test_float_means(void **state) {
    (void)state;
    each_candidate(float_means);
}

static void test_shortcut_layers(void **state) {
    (void)state;
    each_candidate(shortcut_layers);
}

static void test_scale_layers(void **state) {
    (void)state;
    each_candidate(scale_layers);
}

static void test_input_layers(void **state) {
    (void)state;
    each_candidate(input_layers);
}

/* ---- Packing ---- */

/* Weights that the transform makes denormal become zeros, as in other layers (test_pack.c). */
static void pack_denormals(const struct candidate *candidate) {
    struct node node = conv_node((struct shape){4, 4, 16}, (struct conv){96, 3, 1, NO_NODE, false, 1, 1});
    uint32_t nr = candidate->kernels->nr;
    if (!candidate->winograd)
        return;
    size_t count = panels_size(&node, FORMAT_F32, nr), packed_count = winograd_size(&node, nr);
    float *panels = floats(count), *packed = floats(packed_count);
    for (size_t i = 0; i < count; i++)
        panels[i] = ldexpf(test_float(&generator, -1, 1), -124);
    winograd_pack(&node, panels, (struct span){0, divide_up(96, nr)}, nr, packed);
    for (size_t i = node.out.channels; i < packed_count; i++) /* behind the biases: 96 are whole panels */
        assert_true(fpclassify(packed[i]) != FP_SUBNORMAL);
    free(panels);
    free(packed);
}

static void test_winograd_drops_denormals(void **state) {
    (void)state;
    each_candidate(pack_denormals);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_convolutions),
        cmocka_unit_test(test_winograd_convolutions),
        cmocka_unit_test(test_large_convolutions),
        cmocka_unit_test(test_grouped_convolutions),
        cmocka_unit_test(test_dilated_convolutions),
        cmocka_unit_test(test_kept_layers),
        cmocka_unit_test(test_linear_layers),
        cmocka_unit_test(test_pool_layers),
        cmocka_unit_test(test_float_means),
        cmocka_unit_test(test_shortcut_layers),
        cmocka_unit_test(test_scale_layers),
        cmocka_unit_test(test_input_layers),
        cmocka_unit_test(test_winograd_drops_denormals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
