/* pack.c - from the tensors of a layer to what the kernels read: fold batch normalisation, round, lay out in panels. */
#include "pack.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "bf16.h"
#include "error.h"
#include "floats.h"
#include "split.h"

size_t parameters_size(const struct node *node) {
    if (!node_has_weights(node))
        return 0;
    return (size_t)node_weights(node) + (node->op == OP_CONV ? 4 : 1) * (size_t)node->out.channels;
}

struct parameters parameters_at(const struct node *node, const float *block) {
    size_t out = node->out.channels;
    const float *vectors = block + (size_t)node_weights(node);
    if (node->op == OP_LINEAR)
        return (struct parameters){.weight = block, .shift = vectors};
    return (struct parameters){block, vectors, vectors + out, vectors + 2 * out, vectors + 3 * out};
}

/* Batch normalisation as y = factor * x + offset: scale * (x - mean) / sqrt(variance + epsilon) + shift. */
struct affine {
    double factor, offset;
};

static struct affine batchnorm(const struct parameters *from, double epsilon, uint32_t channel) {
    if (!from->scale)
        return (struct affine){1, from->shift[channel]};
    double factor = from->scale[channel] / sqrt(from->variance[channel] + epsilon);
    return (struct affine){factor, from->shift[channel] - factor * from->mean[channel]};
}

resnet_status fold(const struct node *node, float *block, double epsilon, struct layer *layer, resnet_error *error) {
    struct parameters from = parameters_at(node, block);
    size_t weights = (size_t)node_weights(node), count = weights / node->out.channels;
    float *bias = block + (from.shift - block);
    for (uint32_t c = 0; c < node->out.channels; c++) {
        struct affine bn = batchnorm(&from, epsilon, c);
        bias[c] = without_denormals(bn.offset);
        for (size_t i = c * count; i < (c + 1) * count; i++)
            block[i] = without_denormals((double)block[i] * bn.factor);
    }
    if (!all_finite(block, weights) || !all_finite(bias, node->out.channels))
        return fail(error, RESNET_ERROR_MODEL,
                    "%s: a weight or a bias is not finite once batch normalisation is folded in", node->name);
    *layer = (struct layer){.weight = block, .bias = bias, .input = 1, .output = 1};
    return RESNET_OK;
}

/* bf16_from_float for numbers, in a form that the compiler makes vectors of. */
void round_to_bf16(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        bits = bits & 0x7f800000 ? rounded : bits & 0x80000000;
        memcpy(values + i, &bits, sizeof bits);
    }
}

static float largest_magnitude(const float *values, size_t count) {
    float largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
    return largest;
}

void quantize_weights(const struct node *node, const float *weight, int8_t *integers, float *scale) {
    const float shift = 0x1.8p23F; /* where the next float is 1 away: adding it rounds to the nearest integer */
    size_t count = node_filter(node);
    for (uint32_t c = 0; c < node->out.channels; c++, weight += count, integers += count) {
        scale[c] = largest_magnitude(weight, count) / 127;
        float unit = scale[c] >= FLT_MIN ? scale[c] : INFINITY; /* all of it becomes 0 */
        for (size_t i = 0; i < count; i++)
            integers[i] = (int8_t)(int32_t)(weight[i] / unit + shift - shift);
        scale[c] = scale[c] >= FLT_MIN ? scale[c] : 1;
    }
}

/* ---- Panels ---- */

/* Words of one tap: of all input channels of a group, whole words. */
static size_t tap_words(const struct node *node, enum format format) {
    return divide_up(node_group_inputs(node), word_numbers(format));
}

bool takes_group_tile(const struct node *node, const struct format_kernels *kernels) {
    return node->groups > 1 && node_group_inputs(node) % kernels->nr != 0;
}

uint32_t panel_channels(const struct node *node, const struct format_kernels *kernels) {
    return takes_group_tile(node, kernels) ? kernels->group_nr : kernels->nr;
}

size_t panel_size(const struct node *node, enum format format, uint32_t nr) {
    size_t head = format == FORMAT_U8 ? 2 : 1; /* biases and scales */
    return (head + tap_words(node, format) * node->kernel * node->kernel) * nr;
}

size_t panels_size(const struct node *node, enum format format, uint32_t nr) {
    if (!parameters_size(node))
        return 0;
    return divide_up(node->out.channels, nr) * panel_size(node, format, nr);
}

/* Words of each tap, of one output channel. */
struct words {
    const void *weight; /* floats, or int8_t: [in][kernel][kernel] */
    size_t in, area;    /* input channels, taps */
    size_t begin, end;  /* of the words of a tap */
    size_t tap;         /* words of a tap */
    uint32_t nr, lane;  /* channels of a panel, and which of them */
    bool mixed;         /* as group_place has them */
};

static size_t place_of(const struct words *w, size_t tap, size_t word) {
    size_t place = w->mixed ? group_place((uint32_t)word, w->lane, (uint32_t)w->tap, w->nr) : word * w->nr + w->lane;
    return tap * w->tap * w->nr + place;
}

/* Into the rows of a panel, in the order (i, j, k) of struct conv_tile. */
static void pack_f32(const struct words *w, float *rows) {
    const float *weight = w->weight;
    for (size_t tap = 0; tap < w->area; tap++)
        for (size_t word = w->begin; word < w->end; word++)
            rows[place_of(w, tap, word)] = weight[word * w->area + tap];
}

static void pack_bf16(const struct words *w, float *rows) {
    for (size_t tap = 0; tap < w->area; tap++) {
        const float *weight = (const float *)w->weight + tap;
        for (size_t word = w->begin; word < w->end; word++) {
            uint16_t pair[2] = {bf16_from_float(weight[2 * word * w->area]), 0};
            if (2 * word + 1 < w->in)
                pair[1] = bf16_from_float(weight[(2 * word + 1) * w->area]);
            memcpy(rows + place_of(w, tap, word), pair, sizeof pair);
        }
    }
}

static void pack_s8(const struct words *w, float *rows) {
    size_t whole = w->in / 4 < w->end ? w->in / 4 : w->end, area = w->area;
    for (size_t tap = 0; tap < area; tap++) {
        const int8_t *weight = (const int8_t *)w->weight + tap;
        for (size_t word = w->begin; word < w->end; word++) {
            const int8_t *p = weight + 4 * word * area;
            int8_t four[4] = {p[0], 0, 0, 0};
            if (word < whole)
                four[1] = p[area], four[2] = p[2 * area], four[3] = p[3 * area];
            else
                for (size_t i = 1; i < w->in % 4; i++)
                    four[i] = p[i * area];
            memcpy(rows + place_of(w, tap, word), four, sizeof four);
        }
    }
}

/* The bias in units of the products, and what makes units of the output of them; within limits that keep every step of
 * a tile finite. */
static bool pack_u8_head(const struct layer *layer, uint32_t channel, float *column, uint32_t nr) {
    double unit = (double)layer->input * (double)layer->scale[channel];
    double bias = rint((double)layer->bias[channel] / unit), factor = unit / (double)layer->output;
    bool good = fabs(bias) < 0x1p30 && factor < 0x1p60;
    int32_t whole = (int32_t)(good ? bias : 0);
    memcpy(column, &whole, sizeof whole);
    column[nr] = without_denormals(good ? factor : 0);
    return good;
}

static bool pack_heads(const struct layer *layer, enum format format, struct span channels, float *panel, uint32_t nr) {
    bool good = true;
    for (uint32_t c = channels.begin; c < channels.end; c++) {
        float *column = panel + (c - channels.begin);
        if (format == FORMAT_U8)
            good &= pack_u8_head(layer, c, column, nr);
        else
            *column = layer->bias[c];
    }
    return good;
}

#define BLOCK_WORDS 64 /* of each tap and channel: what a block writes stays in a first-level cache */

/* The words behind the heads. Columns are written in blocks: each is a line of every row, and whole rows would push
 * each other out of the cache. */
static void pack_words(const struct node *node, const struct layer *layer, enum format format, struct span channels,
                       float *rows, uint32_t nr) {
    void (*const pack[])(const struct words *, float *) = {pack_f32, pack_bf16, pack_s8};
    size_t filter = node_filter(node), tap = tap_words(node, format);
    size_t area = (size_t)node->kernel * node->kernel, step = area == 1 ? BLOCK_WORDS : BLOCK_WORDS / 4;
    struct words words = {.in = node_group_inputs(node), .area = area, .tap = tap, .nr = nr};
    words.mixed = node->groups > 1 && words.in < nr; /* a group has as many outputs */
    for (words.begin = 0; words.begin < tap; words.begin = words.end) {
        words.end = words.begin + step < tap ? words.begin + step : tap;
        for (uint32_t c = channels.begin; c < channels.end; c++) {
            words.weight = format == FORMAT_U8 ? (const void *)(layer->integers + c * filter)
                                               : (const void *)(layer->weight + c * filter);
            words.lane = c - channels.begin;
            pack[format](&words, rows);
        }
    }
}

resnet_status pack_panels(const struct node *node, const struct layer *layer, enum format format, uint32_t nr,
                          float *panels, resnet_error *error) {
    size_t size = panel_size(node, format, nr), heads = format == FORMAT_U8 ? 2 : 1;
    for (uint32_t first = 0; first < node->out.channels; first += nr, panels += size) {
        struct span channels = {first, smaller(node->out.channels, first + nr)};
        if (channels.end - first < nr)
            memset(panels, 0, size * sizeof *panels);
        if (!pack_heads(layer, format, channels, panels, nr))
            return fail(error, RESNET_ERROR_MODEL, "%s: a bias or a scale is out of range", node->name);
        pack_words(node, layer, format, channels, panels + heads * nr, nr);
    }
    return RESNET_OK;
}

static double packed_number(enum format format, const float *word, size_t i) {
    switch (format) {
    case FORMAT_BF16:
        return (double)bf16_to_float(((const uint16_t *)word)[i]);
    case FORMAT_U8:
        return ((const int8_t *)word)[i];
    default:
        return (double)*word;
    }
}

float unpack_channel(const struct packed *packed, uint32_t channel, float *weight) {
    const struct node *node = packed->node;
    uint32_t nr = packed->nr, numbers = word_numbers(packed->format);
    const float *column = packed->panels + channel / nr * panel_size(node, packed->format, nr) + channel % nr;
    const float *words = column + nr;
    double bias = (double)*column, scale = 1;
    if (packed->format == FORMAT_U8) { /* the inverse of pack_u8_head */
        int32_t whole;
        memcpy(&whole, column, sizeof whole);
        double unit = (double)column[nr] * (double)packed->output;
        bias = whole * unit;
        scale = unit / (double)packed->input;
        words += nr;
    }
    size_t tap = tap_words(node, packed->format), area = (size_t)node->kernel * node->kernel;
    for (size_t i = 0; i < node_filter(node); i++) {
        size_t k = i / area, word = i % area * tap + k / numbers;
        weight[i] = (float)(scale * packed_number(packed->format, words + word * nr, k % numbers));
    }
    return (float)bias;
}
