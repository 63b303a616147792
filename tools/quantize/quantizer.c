/* quantizer.c - make a smaller model file: see what the network computes, round it, compare the two. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "calibrate.h"
#include "compare.h"
#include "error.h"
#include "file.h"
#include "floats.h"
#include "fpenv.h"
#include "model_file.h"
#include "model_image.h"
#include "quantize.h"
#include "quantizer.h"

/* What became of a node. */
struct outcome {
    float scale; /* of its output in 8 bits */
    bool kept;
    double signal, noise; /* see struct quantized */
};

struct quantizer {
    resnet_allocator allocator;
    uint32_t threads;
    uint64_t file_size;
    resnet_model *source;    /* of the reference: it holds the file's tensors as they are */
    resnet_model *exact;     /* the same, to run */
    resnet_session *session; /* of exact, for the caller */
    float *outputs;          /* [batch] of it */
    uint32_t batch;
    struct statistics *statistics; /* of each node's output */
    uint64_t observed;

    /* After quantize: */
    struct model_image image;
    resnet_model *made;
    struct comparison comparison;
    struct outcome *outcomes; /* of each node */
};

/* Both models are made from the same bytes, so that they cannot differ. */
static resnet_status load_both(struct quantizer *q, const void *bytes, resnet_error *error) {
    resnet_load_options options = {.isa = RESNET_ISA_REFERENCE,
                                   .precision = RESNET_PRECISION_F32,
                                   .threads = q->threads,
                                   .allocator = &q->allocator};
    resnet_status status = resnet_model_load_memory(bytes, q->file_size, &options, &q->source, error);
    if (status == RESNET_OK && q->source->config.precision > RESNET_PRECISION_F32)
        status = fail(error, RESNET_ERROR_UNSUPPORTED, "is in %s; only a file in f32 can be quantized",
                      resnet_precision_name(q->source->config.precision));
    options.isa = RESNET_ISA_AUTO;
    return status == RESNET_OK ? resnet_model_load_memory(bytes, q->file_size, &options, &q->exact, error) : status;
}

static resnet_status read_and_load(struct quantizer *q, int descriptor, resnet_error *error) {
    if (q->file_size > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes; a model file has at most %llu",
                    (unsigned long long)q->file_size, (unsigned long long)MODEL_FILE_MOST_BYTES);
    void *bytes = memory_get(&q->allocator, q->file_size);
    if (!bytes)
        return fail_memory(error, "the model file", q->file_size);
    resnet_status status = file_read(descriptor, 0, bytes, q->file_size, error);
    if (status == RESNET_OK)
        status = load_both(q, bytes, error);
    memory_put(&q->allocator, bytes, q->file_size);
    return status;
}

static resnet_status read_file(struct quantizer *q, const char *path, resnet_error *error) {
    int descriptor = -1;
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = file_open(path, &descriptor, &q->file_size, &reason);
    if (status == RESNET_OK)
        status = read_and_load(q, descriptor, &reason);
    if (descriptor >= 0)
        close(descriptor);
    return status == RESNET_OK ? status : fail_file(error, status, path, &reason);
}

static uint32_t nodes_of(const struct quantizer *q) {
    return q->source ? q->source->graph.count : 0;
}

static resnet_status create_statistics(struct quantizer *q, resnet_error *error) {
    uint32_t nodes = nodes_of(q);
    q->outcomes = memory_get(&q->allocator, nodes * sizeof *q->outcomes);
    q->statistics = memory_get(&q->allocator, nodes * sizeof *q->statistics);
    if (q->statistics)
        memset(q->statistics, 0, nodes * sizeof *q->statistics);
    if (!q->statistics || !q->outcomes)
        return fail_memory(error, "the statistics", nodes * sizeof *q->statistics);
    resnet_status status = RESNET_OK;
    for (uint32_t i = 0; status == RESNET_OK && i < nodes; i++)
        status = statistics_create(&q->statistics[i], q->source->graph.nodes[i].out.channels, &q->allocator, error);
    return status;
}

static void observe(void *context, const struct observation *seen) {
    struct quantizer *q = context;
    statistics_add(&q->statistics[seen->node], seen);
}

static size_t outputs_size(const struct quantizer *q) {
    return q->exact ? q->batch * (size_t)outputs_of(q->exact) * sizeof *q->outputs : 0;
}

static resnet_status create_session(struct quantizer *q, resnet_error *error) {
    resnet_session_options options = {.batch = q->batch, .threads = q->threads};
    resnet_status status = resnet_session_create(q->exact, &options, &q->session, error);
    if (status != RESNET_OK)
        return status;
    session_observe(q->session, observe, q);
    q->outputs = memory_get(&q->allocator, outputs_size(q));
    return q->outputs ? RESNET_OK : fail_memory(error, "the logits", outputs_size(q));
}

resnet_status quantizer_create(const char *path, const struct quantizer_options *options, struct quantizer **result,
                               resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "quantizer_create: quantizer must not be NULL");
    *result = NULL;
    if (!path)
        return fail(error, RESNET_ERROR_ARGUMENT, "quantizer_create: path must not be NULL");
    struct quantizer_options chosen = options ? *options : (struct quantizer_options){0};
    resnet_allocator allocator = memory_allocator(chosen.allocator);
    struct quantizer *q = memory_get(&allocator, sizeof *q);
    if (!q)
        return fail_memory(error, "the quantizer", sizeof *q);
    *q = (struct quantizer){.allocator = allocator,
                            .threads = chosen.threads,
                            .batch = chosen.batch ? chosen.batch : 1,
                            .image = {.allocator = allocator}};
    resnet_status status = read_file(q, path, error);
    if (status == RESNET_OK)
        status = create_statistics(q, error);
    if (status == RESNET_OK)
        status = create_session(q, error);
    if (status == RESNET_OK)
        *result = q;
    else
        quantizer_free(q);
    return status;
}

/* Forget the quantized network. */
static void unmake(struct quantizer *q) {
    comparison_free(&q->comparison);
    resnet_model_free(q->made);
    q->made = NULL;
    model_image_free(&q->image);
}

void quantizer_free(struct quantizer *q) {
    if (!q)
        return;
    resnet_allocator allocator = q->allocator;
    uint32_t nodes = nodes_of(q);
    unmake(q);
    for (uint32_t i = 0; q->statistics && i < nodes; i++)
        statistics_free(&q->statistics[i], &allocator);
    memory_put(&allocator, q->statistics, nodes * sizeof *q->statistics);
    memory_put(&allocator, q->outcomes, nodes * sizeof *q->outcomes);
    memory_put(&allocator, q->outputs, outputs_size(q));
    resnet_session_free(q->session);
    resnet_model_free(q->exact);
    resnet_model_free(q->source);
    memory_put(&allocator, q, sizeof *q);
}

/* ---- Observe ---- */

resnet_session *quantizer_session(struct quantizer *q) {
    return q->session;
}

resnet_status quantizer_observe(struct quantizer *q, uint32_t count, resnet_error *error) {
    if (!q)
        return fail(error, RESNET_ERROR_ARGUMENT, "quantizer_observe: quantizer must not be NULL");
    uint64_t before = fpenv_enter(false);
    resnet_status status = run_outputs(q->session, q->exact, count, q->outputs, error);
    fpenv_leave(before);
    if (status == RESNET_OK)
        q->observed += count;
    return status;
}

/* ---- Quantize ---- */

/* Room for one layer at a time. */
struct work {
    float *block; /* its tensors as in the file */
    size_t most_block, most_weights, most_channels;
    struct quantized layer;
    struct moments moments; /* of its input */
};

static resnet_status work_create(struct work *work, const struct quantizer *q, resnet_error *error) {
    *work = (struct work){0};
    for (uint32_t i = 0; i < nodes_of(q); i++) {
        const struct node *node = &q->source->graph.nodes[i];
        size_t block = parameters_size(node), weights = block ? (size_t)node_weights(node) : 0;
        work->most_block = block > work->most_block ? block : work->most_block;
        work->most_weights = weights > work->most_weights ? weights : work->most_weights;
        work->most_channels = node->out.channels > work->most_channels ? node->out.channels : work->most_channels;
    }
    work->block = memory_get(&q->allocator, work->most_block * sizeof *work->block);
    work->layer.integers = memory_get(&q->allocator, work->most_weights);
    work->layer.scale = memory_get(&q->allocator, work->most_channels * sizeof(float));
    work->layer.bias = memory_get(&q->allocator, work->most_channels * sizeof(float));
    work->moments.mean = memory_get(&q->allocator, work->most_channels * sizeof(double));
    work->moments.power = memory_get(&q->allocator, work->most_channels * sizeof(double));
    bool good = work->block && work->layer.integers && work->layer.scale && work->layer.bias && work->moments.mean &&
                work->moments.power;
    if (!good)
        return fail_memory(error, "one layer's tensors", work->most_block * sizeof *work->block);
    return RESNET_OK;
}

static void work_free(struct work *work, const resnet_allocator *allocator) {
    memory_put(allocator, work->moments.power, work->most_channels * sizeof(double));
    memory_put(allocator, work->moments.mean, work->most_channels * sizeof(double));
    memory_put(allocator, work->layer.bias, work->most_channels * sizeof(float));
    memory_put(allocator, work->layer.scale, work->most_channels * sizeof(float));
    memory_put(allocator, work->layer.integers, work->most_weights);
    memory_put(allocator, work->block, work->most_block * sizeof *work->block);
}

static bool is_layer(const struct node *node) {
    return parameters_size(node) > 0;
}

/* The layer's tensors with batch normalisation folded in, into the work's block. */
static resnet_status load_layer(const struct quantizer *q, uint32_t node, struct work *work, struct layer *layer,
                                resnet_error *error) {
    const struct node *n = &q->source->graph.nodes[node];
    memcpy(work->block, q->source->weights + q->source->starts[node], parameters_size(n) * sizeof *work->block);
    return fold(n, work->block, (double)q->source->config.bn_epsilon, layer, error);
}

static resnet_status add_bf16_layer(struct quantizer *q, uint32_t node, struct work *work, resnet_error *error) {
    const struct node *n = &q->source->graph.nodes[node];
    struct layer layer;
    resnet_status status = load_layer(q, node, work, &layer, error);
    if (status != RESNET_OK)
        return status;
    model_image_bf16(&q->image, layer.weight, (size_t)node_weights(n));
    model_image_f32(&q->image, layer.bias, n->out.channels);
    return RESNET_OK;
}

static resnet_status check_statistics(const struct quantizer *q, resnet_error *error) {
    for (uint32_t i = 0; i < nodes_of(q); i++)
        if (!statistics_finite(&q->statistics[i]))
            return fail(error, RESNET_ERROR_MODEL, "%s: for some image the output is not finite",
                        q->source->graph.nodes[i].name);
    return RESNET_OK;
}

/* The input is pixels; what only selects or averages some of its input's numbers passes their scale on. */
static float scale_of(const struct quantizer *q, uint32_t node) {
    const struct node *n = &q->source->graph.nodes[node];
    switch (n->op) {
    case OP_INPUT:
        return 1;
    case OP_MAXPOOL:
    case OP_AVGPOOL:
    case OP_SUBSAMPLE:
        return q->outcomes[n->input].scale;
    default:
        return statistics_scale(&q->statistics[node], node_zero(n));
    }
}

static void choose_scales(struct quantizer *q) {
    for (uint32_t i = 0; i < nodes_of(q); i++)
        q->outcomes[i].scale = scale_of(q, i);
}

/* What stands behind a layer's bias: the scale of its output; of the classifier, that of its input; of attention, 1, or
 * behind the last of its layers that of the map that it scales. */
static float activation_of(const struct quantizer *q, uint32_t node) {
    const struct graph *graph = &q->source->graph;
    const struct node *n = &graph->nodes[node];
    if (node_reads_floats(graph, n))
        return graph->nodes[node + 1].op == OP_SCALE ? q->outcomes[node + 1].scale : 1;
    return q->outcomes[n->op == OP_LINEAR ? n->input : node].scale;
}

/* Of a node's output; of the input as pixels, u = 255 * (std * x + mean). */
static void moments_of(const struct quantizer *q, uint32_t node, struct moments *moments) {
    const struct statistics *seen = &q->statistics[node];
    const resnet_preprocess *how = &q->source->preprocess;
    for (uint32_t c = 0; c < seen->channels; c++) {
        double factor = node ? 1 : 255 * (double)how->std[c], offset = node ? 0 : 255 * (double)how->mean[c];
        double mean = statistics_mean(seen, c), power = statistics_power(seen, c);
        moments->mean[c] = factor * mean + offset;
        moments->power[c] = factor * factor * power + 2 * factor * mean * offset + offset * offset;
    }
}

static void add_int8_tensors(struct quantizer *q, uint32_t node, const struct layer *layer,
                             const struct quantized *rounded) {
    const struct node *n = &q->source->graph.nodes[node];
    size_t weights = (size_t)node_weights(n), channels = n->out.channels;
    if (q->outcomes[node].kept) {
        model_image_f32(&q->image, layer->weight, weights);
        model_image_f32(&q->image, layer->bias, channels);
    } else {
        model_image_bytes(&q->image, rounded->integers, weights);
        model_image_f32(&q->image, rounded->scale, channels);
        model_image_f32(&q->image, rounded->bias, channels);
    }
    float activation = activation_of(q, node);
    model_image_f32(&q->image, &activation, 1);
}

static resnet_status add_int8_layer(struct quantizer *q, uint32_t node, struct work *work, resnet_error *error) {
    const struct node *n = &q->source->graph.nodes[node];
    struct layer layer;
    struct outcome *outcome = &q->outcomes[node];
    resnet_status status = load_layer(q, node, work, &layer, error);
    if (status != RESNET_OK)
        return status;
    if (n->input == 0)
        fold_pixels(n, &q->source->preprocess, work->block, work->block + (layer.bias - work->block));
    if (!all_finite(layer.weight, (size_t)node_weights(n)) || !all_finite(layer.bias, n->out.channels))
        return fail(error, RESNET_ERROR_MODEL, "%s: a weight is not finite with the standard deviation folded in",
                    n->name);
    outcome->kept = node_reads_floats(&q->source->graph, n);
    if (!outcome->kept) {
        memcpy(work->layer.bias, layer.bias, n->out.channels * sizeof *layer.bias);
        moments_of(q, n->input, &work->moments);
        quantize_layer(n, layer.weight, &work->moments, q->outcomes[n->input].scale, &work->layer);
        outcome->signal = work->layer.signal;
        outcome->noise = work->layer.noise;
        outcome->kept = quantized_badly(n, &work->layer);
    }
    add_int8_tensors(q, node, &layer, &work->layer);
    return RESNET_OK;
}

/* The byte of each layer, in front of their tensors. */
static void add_kept(struct quantizer *q, size_t place) {
    for (uint32_t i = 0; i < nodes_of(q); i++)
        if (is_layer(&q->source->graph.nodes[i]))
            q->image.bytes[place++] = q->outcomes[i].kept;
}

static uint32_t count_layers(const struct quantizer *q) {
    uint32_t layers = 0;
    for (uint32_t i = 0; i < nodes_of(q); i++)
        layers += is_layer(&q->source->graph.nodes[i]);
    return layers;
}

static resnet_status add_layers(struct quantizer *q, bool int8, struct work *work, resnet_error *error) {
    size_t kept = q->image.size;
    resnet_status status = RESNET_OK;
    if (int8) {
        status = check_statistics(q, error);
        choose_scales(q);
        model_image_zeros(&q->image, count_layers(q));
    }
    for (uint32_t i = 0; status == RESNET_OK && i < nodes_of(q); i++)
        if (is_layer(&q->source->graph.nodes[i]))
            status = (int8 ? add_int8_layer : add_bf16_layer)(q, i, work, error);
    if (status == RESNET_OK)
        status = model_image_check(&q->image, error);
    if (status == RESNET_OK && int8)
        add_kept(q, kept);
    return status;
}

static resnet_status compose(struct quantizer *q, resnet_precision precision, resnet_error *error) {
    const resnet_model *source = q->source;
    resnet_config config = source->config;
    struct work work;
    config.precision = precision;
    resnet_status status = work_create(&work, q, error);
    if (status == RESNET_OK) {
        model_image_header(&q->image, &config, &source->preprocess, source->labels, source->labels_size);
        status = add_layers(q, precision == RESNET_PRECISION_INT8, &work, error);
    }
    if (status == RESNET_OK)
        model_image_finish(&q->image);
    work_free(&work, &q->allocator);
    return status;
}

static resnet_status make(struct quantizer *q, resnet_precision precision, resnet_error *error) {
    resnet_load_options options = {.threads = q->threads, .allocator = &q->allocator};
    uint64_t before = fpenv_enter(false);
    resnet_status status = compose(q, precision, error);
    fpenv_leave(before);
    if (status == RESNET_OK)
        status = resnet_model_load_memory(q->image.bytes, q->image.size, &options, &q->made, error);
    if (status == RESNET_OK)
        status = comparison_create(&q->comparison, q->exact, q->made, q->threads, error);
    return status;
}

resnet_status quantizer_quantize(struct quantizer *q, resnet_precision precision, resnet_error *error) {
    if (!q)
        return fail(error, RESNET_ERROR_ARGUMENT, "quantizer_quantize: quantizer must not be NULL");
    if (precision != RESNET_PRECISION_BF16 && precision != RESNET_PRECISION_INT8)
        return fail(error, RESNET_ERROR_ARGUMENT, "a file can be made in bf16 or int8, not in %s",
                    resnet_precision_name(precision));
    if (precision == RESNET_PRECISION_INT8 && !q->observed)
        return fail(error, RESNET_ERROR_ARGUMENT, "int8 needs images to be observed first");
    unmake(q);
    memset(q->outcomes, 0, nodes_of(q) * sizeof *q->outcomes);
    resnet_status status = make(q, precision, error);
    if (status != RESNET_OK)
        unmake(q);
    return status;
}

/* ---- Compare ---- */

static resnet_status check_made(const struct quantizer *q, const char *function, resnet_error *error) {
    if (!q)
        return fail(error, RESNET_ERROR_ARGUMENT, "%s: quantizer must not be NULL", function);
    if (!q->made)
        return fail(error, RESNET_ERROR_ARGUMENT, "%s: nothing is quantized yet", function);
    return RESNET_OK;
}

resnet_status quantizer_compare(struct quantizer *q, uint32_t count, resnet_error *error) {
    resnet_status status = check_made(q, "quantizer_compare", error);
    if (status == RESNET_OK && (count == 0 || count > q->batch))
        status =
            fail(error, RESNET_ERROR_ARGUMENT, "a comparison of %u images; the session takes 1 to %u", count, q->batch);
    uint64_t before = fpenv_enter(false);
    for (uint32_t slot = 0; status == RESNET_OK && slot < count; slot++)
        status = comparison_add(&q->comparison, q->session, slot, error);
    fpenv_leave(before);
    return status;
}

const void *quantizer_file(const struct quantizer *q, size_t *size) {
    *size = q->made ? q->image.size : 0;
    return q->made ? q->image.bytes : NULL;
}

/* ---- Report ---- */

struct quantizer_info quantizer_describe(const struct quantizer *q) {
    return (struct quantizer_info){
        .file_size = q->file_size,
        .quantized_size = q->image.size,
        .observed = q->observed,
        .compared = q->comparison.images,
        .agreeing = q->comparison.agreeing,
        .model = resnet_model_describe(q->exact),
    };
}

static double decibels(double signal, double noise) {
    return signal > 0 ? 10 * log10(signal / noise) : (double)NAN;
}

resnet_status quantizer_layer(const struct quantizer *q, uint32_t index, struct quantized_layer *layer,
                              resnet_error *error) {
    resnet_status status = check_made(q, "quantizer_layer", error);
    if (status != RESNET_OK)
        return status;
    if (!layer || index >= nodes_of(q) - 1)
        return fail(error, RESNET_ERROR_ARGUMENT, "layer %u of %u, or nowhere to write it", index, nodes_of(q) - 1);
    const struct outcome *outcome = &q->outcomes[index + 1];
    const struct difference *difference = &q->comparison.differences[index + 1];
    *layer = (struct quantized_layer){
        .kept = outcome->kept,
        .weight_db = outcome->kept ? (double)NAN : decibels(outcome->signal, outcome->noise),
        .output_db = decibels(difference->signal, difference->noise),
    };
    memcpy(layer->name, q->source->graph.nodes[index + 1].name, sizeof layer->name);
    return RESNET_OK;
}
