/* oddities.c - what about a model file an engineer would want to be told before using it. */
#include "oddities.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "error.h"
#include "model.h"
#include "model_file.h"

/* Trained weights are below 10, and rarely above it. */
#define HUGE_WEIGHT 1000.0F

/* A variance that far below epsilon leaves nothing of what the channel saw. */
#define STILL_VARIANCE 1e-3F

static void tell(struct oddities *odd, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* All there is to tell has room. */
static void tell(struct oddities *odd, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(odd->text[odd->count++], sizeof odd->text[0], format, arguments);
    va_end(arguments);
}

/* ---- Header ---- */

static bool is_near(const float *a, const float *b, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (fabsf(a[i] - b[i]) > 1e-3F)
            return false;
    return true;
}

static void tell_of_normalisation(struct oddities *odd, const resnet_model *model) {
    static const float mean[3] = {0.485F, 0.456F, 0.406F}, std[3] = {0.229F, 0.224F, 0.225F};
    static const float ones[RESNET_MAX_CHANNELS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const resnet_preprocess *how = &model->preprocess;
    uint32_t channels = model->config.in_channels;
    if (is_near(how->std, ones, channels))
        tell(odd, "std is 1 in all channels: pixels are not divided by how far they vary");
    else if (channels == 3 && !(is_near(how->mean, mean, 3) && is_near(how->std, std, 3)))
        tell(odd, "mean and std are not ImageNet's, 0.485 0.456 0.406 and 0.229 0.224 0.225");
}

static void tell_of_resize(struct oddities *odd, const resnet_model *model) {
    uint32_t resize = model->preprocess.resize, height = model->config.height, width = model->config.width;
    if (!resize)
        tell(odd, "no resize: of a large image only the middle is seen");
    else if (resize < height || resize < width)
        tell(odd, "resize to %u is less than the crop, %u x %u: there will be a black border", resize, width, height);
}

static int compare_labels(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Of the labels in order, those that equal the one before. */
static void tell_of_repeats(struct oddities *odd, const char *const *labels, uint32_t count) {
    uint32_t repeats = 0;
    const char *first = NULL;
    for (uint32_t i = 1; i < count; i++)
        if (strcmp(labels[i], labels[i - 1]) == 0 && repeats++ == 0)
            first = labels[i];
    if (first)
        tell(odd, "labels that another class has, too: %u, the first in the alphabet %s", repeats, first);
}

static resnet_status look_at_labels(struct oddities *odd, const resnet_model *model, resnet_error *error) {
    uint32_t count = model->config.classes;
    if (!model->labels) {
        if (count)
            tell(odd, "no labels: classes have numbers only");
        return RESNET_OK;
    }
    size_t size = count * sizeof(char *);
    const char **labels = memory_get(&model->allocator, size);
    if (!labels)
        return fail_memory(error, "a list of the labels", size);
    const char *label = model->labels;
    for (uint32_t i = 0; i < count; i++, label += strlen(label) + 1)
        labels[i] = label;
    qsort(labels, count, sizeof *labels, compare_labels);
    tell_of_repeats(odd, labels, count);
    memory_put(&model->allocator, labels, size);
    return RESNET_OK;
}

/* ---- Tensors ---- */

enum trait { DEAD, STILL, UNTOUCHED, EMPTY_FILTER, EMPTY_CLASS, DENORMAL, LARGE, TRAITS };

/* How often a trait was seen. */
struct tally {
    uint64_t count;
    const char *first; /* layer */
};

/* The tensors of a layer: the weights, and behind them vectors as in the file. */
struct tensors {
    const struct node *node;
    float *weights, *vectors;
    bool normalised; /* scale, shift, mean, variance; else the first vector is no more than a bias or the like */
    float epsilon;
};

static void count_in(struct tally *tallies, enum trait trait, uint64_t count, const struct node *node) {
    struct tally *tally = &tallies[trait];
    tally->count += count;
    if (count && !tally->first)
        tally->first = node->name;
}

static void look_at_statistics(struct tally *tallies, const struct tensors *t) {
    uint32_t channels = t->node->out.channels, dead = 0, still = 0, untouched = 0;
    const float *scale = t->vectors, *mean = scale + 2 * (size_t)channels, *variance = mean + channels;
    for (uint32_t c = 0; c < channels; c++) {
        dead += scale[c] == 0;
        still += variance[c] < STILL_VARIANCE * t->epsilon;
        untouched += mean[c] == 0 && variance[c] == 1;
    }
    count_in(tallies, DEAD, dead, t->node);
    count_in(tallies, STILL, still, t->node);
    count_in(tallies, UNTOUCHED, untouched == channels, t->node);
}

static void look_at_weights(struct tally *tallies, const struct tensors *t) {
    size_t filter = node_filter(t->node);
    const float *weight = t->weights;
    uint64_t empty = 0, denormal = 0, large = 0;
    for (uint32_t c = 0; c < t->node->out.channels; c++) {
        size_t zeros = 0;
        for (size_t i = 0; i < filter; i++, weight++) {
            float size = fabsf(*weight);
            zeros += size == 0;
            denormal += size > 0 && size < FLT_MIN;
            large += size > HUGE_WEIGHT;
        }
        empty += zeros == filter;
    }
    count_in(tallies, t->node->op == OP_LINEAR ? EMPTY_CLASS : EMPTY_FILTER, empty, t->node);
    count_in(tallies, DENORMAL, denormal, t->node);
    count_in(tallies, LARGE, large, t->node);
}

/* From the last on, so that no number is overwritten before it is read. */
static void widen(float *values, size_t count, resnet_precision stored) {
    const uint8_t *bytes = (const uint8_t *)values;
    for (size_t i = count; i-- > 0 && stored != RESNET_PRECISION_F32;) {
        uint16_t number;
        memcpy(&number, bytes + (stored == RESNET_PRECISION_BF16 ? 2 * i : 0), sizeof number);
        values[i] = stored == RESNET_PRECISION_BF16 ? bf16_to_float(number) : (float)(int8_t)bytes[i];
    }
}

/* ---- File ---- */

/* A file whose tensors are looked at, one layer after the other. */
struct looking {
    const resnet_model *model;
    struct model_file file;
    struct tally tallies[TRAITS];
};

static resnet_status read_layer(struct looking *l, const struct stored *stored, struct tensors *t,
                                resnet_error *error) {
    size_t count = node_weights(stored->node);
    resnet_status status = model_file_weights(&l->file, stored, (struct weight_range){0, count}, t->weights, error);
    if (status == RESNET_OK)
        status = model_file_vectors(&l->file, stored, &l->model->allocator, t->vectors, error);
    if (status != RESNET_OK)
        return status;
    widen(t->weights, count, stored->precision);
    look_at_weights(l->tallies, t);
    if (t->normalised)
        look_at_statistics(l->tallies, t);
    return RESNET_OK;
}

static resnet_status look_at_layer(struct looking *l, const struct stored *stored, resnet_error *error) {
    const struct node *node = stored->node;
    size_t count = node_weights(node), vectors = (stored->end - stored->vectors) / sizeof(float);
    size_t size = (count + vectors) * sizeof(float);
    float *numbers = memory_get(&l->model->allocator, size);
    if (!numbers)
        return fail_memory(error, "a layer's tensors", size);
    struct tensors tensors = {
        .node = node,
        .weights = numbers,
        .vectors = numbers + count,
        .normalised = node->op == OP_CONV && l->model->config.precision == RESNET_PRECISION_F32,
        .epsilon = l->model->config.bn_epsilon,
    };
    resnet_status status = read_layer(l, stored, &tensors, error);
    memory_put(&l->model->allocator, numbers, size);
    return status;
}

static resnet_status look_at_file(struct looking *l, resnet_error *error) {
    const resnet_model *model = l->model;
    const struct graph *graph = &model->graph;
    resnet_precision precision = model->config.precision;
    resnet_status status = model_file_check_size(&l->file, graph, model->kept, error);
    uint64_t offset = model_file_tensors(graph, precision, l->file.labels_size);
    for (uint32_t i = 0; status == RESNET_OK && i < graph->count; i++) {
        struct stored stored = model_file_node(&graph->nodes[i], precision, model_keeps(model, i), offset);
        if (node_has_weights(stored.node))
            status = look_at_layer(l, &stored, error);
        offset = stored.end;
    }
    return status;
}

static void tell_of_tensors(struct oddities *odd, const struct tally *tallies) {
    static const char *const phrases[TRAITS] = {
        [DEAD] = "channels with a scale of 0, which give their shift alone",
        [STILL] = "channels with next to no variance, which gave one number in training",
        [UNTOUCHED] = "layers with means of 0 and variances of 1, which no training updated",
        [EMPTY_FILTER] = "filters of zeros",
        [EMPTY_CLASS] = "rows of zeros in a linear layer, such as a class that was not trained",
        [DENORMAL] = "denormal weights, taken as 0",
        [LARGE] = "weights beyond 1000",
    };
    for (int i = 0; i < TRAITS; i++)
        if (tallies[i].count)
            tell(odd, "%s: %llu, from %s on", phrases[i], (unsigned long long)tallies[i].count, tallies[i].first);
}

static resnet_status look_at_tensors(struct oddities *odd, const resnet_model *model, const char *path,
                                     resnet_error *error) {
    struct looking looking = {.model = model};
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = model_file_open(&looking.file, path, &reason);
    if (status == RESNET_OK && memcmp(&looking.file.config, &model->config, sizeof model->config) != 0)
        status = fail(&reason, RESNET_ERROR_MODEL, "has become another file since it was loaded");
    if (status == RESNET_OK)
        status = look_at_file(&looking, &reason);
    model_file_close(&looking.file);
    if (status != RESNET_OK)
        return fail_file(error, status, path, &reason);
    tell_of_tensors(odd, looking.tallies);
    return RESNET_OK;
}

resnet_status oddities_find(struct oddities *odd, const resnet_model *model, const char *path, resnet_error *error) {
    odd->count = 0;
    tell_of_normalisation(odd, model);
    tell_of_resize(odd, model);
    if (model->config.precision == RESNET_PRECISION_F32 && model->config.bn_epsilon != 1e-5F)
        tell(odd, "batch normalisation's epsilon is %g, where PyTorch's is 1e-05", (double)model->config.bn_epsilon);
    resnet_status status = look_at_labels(odd, model, error);
    return status == RESNET_OK ? look_at_tensors(odd, model, path, error) : status;
}
