/* model.c - load a network: check, fold, pack; and describe it. */
#include "model.h"

#include <math.h>
#include <string.h>

#include "error.h"
#include "model_file.h"
#include "random.h"
#include "weights.h"
#include "winograd.h"

#define MOST_THREADS 1024

/* ---- Build ---- */

static resnet_status check_options(const resnet_load_options *options, resnet_error *error) {
    if ((unsigned)options->precision > RESNET_PRECISION_BF16X3)
        return fail(error, RESNET_ERROR_ARGUMENT, "precision %u does not exist", (unsigned)options->precision);
    if (options->threads > MOST_THREADS)
        return fail(error, RESNET_ERROR_ARGUMENT, "%u threads; at most %d", options->threads, MOST_THREADS);
    return resnet_isa_check(options->isa, error);
}

static resnet_status create(resnet_model **result, const resnet_load_options *chosen, resnet_error *error) {
    resnet_status status = check_options(chosen, error);
    if (status != RESNET_OK)
        return status;
    resnet_allocator allocator = memory_allocator(chosen->allocator);
    resnet_model *model = memory_get(&allocator, sizeof *model);
    if (!model)
        return fail_memory(error, "the model", sizeof *model);
    *model = (resnet_model){.allocator = allocator,
                            .precision = chosen->precision,
                            .kernels = cpu_kernels(chosen->isa),
                            .winograd = !chosen->no_winograd};
    *result = model;
    return RESNET_OK;
}

void resnet_model_free(resnet_model *model) {
    if (!model)
        return;
    resnet_allocator allocator = model->allocator;
    memory_put(&allocator, model->weights, model->weights_size * sizeof *model->weights);
    memory_put(&allocator, model->starts, model->graph.count * sizeof *model->starts);
    memory_put(&allocator, model->scales, model->graph.count * sizeof *model->scales);
    memory_put(&allocator, model->kept, model->graph.count * sizeof *model->kept);
    memory_put(&allocator, model->labels, model->labels_size);
    graph_free(&model->graph, &allocator);
    memory_put(&allocator, model, sizeof *model);
}

static resnet_status build_graph(resnet_model *model, resnet_error *error) {
    struct shape input = {model->config.height, model->config.width, model->config.in_channels};
    return graph_build(&model->graph, &model->config, input, &model->allocator, error);
}

bool model_uses_winograd(const resnet_model *model, const struct node *node) {
    return model->kernels && model->winograd && model->kernels->winograd[model->format] &&
           winograd_suits(node, model->format);
}

uint32_t model_pool(const resnet_model *model) {
    return model->graph.count - (model->config.head == RESNET_HEAD_NONE ? 1 : 2);
}

float node_zero(const struct node *node) {
    return node->op == OP_CONV && !node->relu ? 128 : 0;
}

bool model_keeps(const resnet_model *model, uint32_t node) {
    return model->kept && model->kept[node];
}

/* ---- Load ---- */

/* What a model computes in: what was asked for, or what the weights are stored in. */
static resnet_status choose_precision(resnet_model *model, resnet_precision stored, resnet_error *error) {
    resnet_precision wanted = model->precision ? model->precision : stored;
    if (wanted != stored && stored == RESNET_PRECISION_INT8)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "its weights are int8, from which %s cannot be had",
                    resnet_precision_name(wanted));
    if (wanted != stored && wanted == RESNET_PRECISION_INT8)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "its weights are %s, not int8; resnet quantize makes such a file",
                    resnet_precision_name(stored));
    model->precision = wanted;
    model->format = model->kernels ? cpu_format(model->kernels, wanted) : FORMAT_F32;
    return RESNET_OK;
}

/* A file while it is loaded. */
struct loading {
    resnet_model *model;
    struct model_file *file;
    struct stored *nodes; /* where each node's tensors lie */
};

static resnet_status place_nodes(struct loading *loading, resnet_error *error) {
    const resnet_model *model = loading->model;
    const struct graph *graph = &model->graph;
    resnet_precision precision = loading->file->config.precision;
    loading->nodes = memory_get(&model->allocator, graph->count * sizeof *loading->nodes);
    if (!loading->nodes)
        return fail_memory(error, "the tensors' places", graph->count * sizeof *loading->nodes);
    uint64_t offset = model_file_tensors(graph, precision, loading->file->labels_size);
    for (uint32_t i = 0; i < graph->count; i++) {
        loading->nodes[i] = model_file_node(&graph->nodes[i], precision, model_keeps(model, i), offset);
        offset = loading->nodes[i].end;
    }
    return RESNET_OK;
}

static resnet_status vectors_from_file(void *context, uint32_t node, float *vectors, resnet_error *error) {
    const struct loading *loading = context;
    return model_file_vectors(loading->file, &loading->nodes[node], &loading->model->allocator, vectors, error);
}

static resnet_status weights_from_file(void *context, struct unit unit, void *weights, resnet_error *error) {
    const struct loading *loading = context;
    const struct node *node = &loading->model->graph.nodes[unit.node];
    size_t filter = node_filter(node);
    struct weight_range range = {(uint64_t)unit.first * filter, unit.count * filter};
    return model_file_weights(loading->file, &loading->nodes[unit.node], range, weights, error);
}

static resnet_status read_kinds(resnet_model *model, struct model_file *file, resnet_error *error) {
    size_t size = model->graph.count * sizeof *model->kept;
    if (file->config.precision != RESNET_PRECISION_INT8)
        return RESNET_OK;
    model->kept = memory_get(&model->allocator, size);
    return model->kept ? model_file_kinds(file, &model->graph, model->kept, error)
                       : fail_memory(error, "the kinds of the layers", size);
}

static resnet_status read_labels(resnet_model *model, struct model_file *file, resnet_error *error) {
    if (file->labels_size) {
        model->labels = memory_get(&model->allocator, file->labels_size);
        if (!model->labels)
            return fail_memory(error, "the labels", file->labels_size);
        model->labels_size = file->labels_size;
    }
    return model_file_labels(file, model->labels, error);
}

static resnet_status read_tensors(resnet_model *model, struct model_file *file, uint32_t threads, resnet_error *error) {
    struct loading loading = {.model = model, .file = file};
    const struct source source = {file->config.precision, &loading, vectors_from_file, weights_from_file};
    resnet_status status = place_nodes(&loading, error);
    if (status == RESNET_OK)
        status = weights_build(model, &source, threads, error);
    memory_put(&model->allocator, loading.nodes, model->graph.count * sizeof *loading.nodes);
    return status == RESNET_OK ? model_file_finish(file, error) : status;
}

static resnet_status load_into(resnet_model *model, struct model_file *file, uint32_t threads, resnet_error *error) {
    model->config = file->config;
    model->preprocess = file->preprocess;
    resnet_status status = choose_precision(model, file->config.precision, error);
    if (status == RESNET_OK)
        status = build_graph(model, error);
    if (status == RESNET_OK)
        status = read_kinds(model, file, error);
    if (status == RESNET_OK)
        status = model_file_check_size(file, &model->graph, model->kept, error);
    if (status == RESNET_OK)
        status = read_labels(model, file, error);
    return status == RESNET_OK ? read_tensors(model, file, threads, error) : status;
}

/* Hand a model that is ready to the caller, or free what there is of it. */
static resnet_status deliver(resnet_model *model, resnet_status status, resnet_model **result) {
    if (status == RESNET_OK)
        *result = model;
    else
        resnet_model_free(model);
    return status;
}

static resnet_status load_path(resnet_model *model, const char *path, uint32_t threads, resnet_error *error) {
    struct model_file file;
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = model_file_open(&file, path, &reason);
    if (status == RESNET_OK)
        status = load_into(model, &file, threads, &reason);
    model_file_close(&file);
    return status == RESNET_OK ? status : fail_file(error, status, path, &reason);
}

resnet_status resnet_model_load_file(const char *path, const resnet_load_options *options, resnet_model **result,
                                     resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_load_file: model must not be NULL");
    *result = NULL;
    if (!path)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_load_file: path must not be NULL");
    resnet_load_options chosen = options ? *options : (resnet_load_options){0};
    resnet_model *model = NULL;
    resnet_status status = create(&model, &chosen, error);
    if (status == RESNET_OK)
        status = load_path(model, path, chosen.threads, error);
    return deliver(model, status, result);
}

resnet_status resnet_model_load_memory(const void *data, size_t size, const resnet_load_options *options,
                                       resnet_model **result, resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_load_memory: model must not be NULL");
    *result = NULL;
    if (!data)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_load_memory: data must not be NULL");
    resnet_load_options chosen = options ? *options : (resnet_load_options){0};
    resnet_model *model = NULL;
    struct model_file file;
    resnet_status status = create(&model, &chosen, error);
    if (status == RESNET_OK)
        status = model_file_open_memory(&file, data, size, error);
    if (status == RESNET_OK)
        status = load_into(model, &file, chosen.threads, error);
    return deliver(model, status, result);
}

/* ---- Another classifier ---- */

/* As many labels as classes, each a line of its own in a file. */
static resnet_status measure_labels(const struct classifier *classifier, size_t *size, resnet_error *error) {
    *size = 0;
    for (uint32_t k = 0; classifier->labels && k < classifier->classes; k++) {
        const char *label = classifier->labels[k];
        size_t length = label ? strlen(label) : 0;
        bool good = length > 0;
        for (size_t i = 0; i < length; i++)
            good &= (unsigned char)label[i] >= 0x20 && label[i] != 0x7f;
        if (!good)
            return fail(error, RESNET_ERROR_ARGUMENT, "the label of class %u is empty or has a control byte", k);
        *size += length + 1;
    }
    return *size <= MODEL_FILE_MOST_LABELS
               ? RESNET_OK
               : fail(error, RESNET_ERROR_ARGUMENT, "%zu bytes of labels; at most %u", *size, MODEL_FILE_MOST_LABELS);
}

static resnet_status copy_labels(resnet_model *model, const struct classifier *classifier, resnet_error *error) {
    resnet_status status = measure_labels(classifier, &model->labels_size, error);
    if (status != RESNET_OK || !model->labels_size)
        return status;
    char *end = model->labels = memory_get(&model->allocator, model->labels_size);
    if (!end)
        return fail_memory(error, "the labels", model->labels_size);
    for (uint32_t k = 0; k < classifier->classes; k++) {
        strcpy(end, classifier->labels[k]);
        end += strlen(end) + 1;
    }
    return RESNET_OK;
}

/* What int8 has for each node: of those up to the classifier a copy. */
static resnet_status copy_int8(resnet_model *model, const resnet_model *from, float activation, resnet_error *error) {
    uint32_t count = model->graph.count, pool = count - 2;
    if (model->precision != RESNET_PRECISION_INT8)
        return RESNET_OK;
    model->kept = memory_get(&model->allocator, count * sizeof *model->kept);
    if (!model->kept)
        return fail_memory(error, "the kinds of the layers", count * sizeof *model->kept);
    for (uint32_t i = 0; i < count; i++)
        model->kept[i] = i > pool || model_keeps(from, i);
    if (!from->scales)
        return RESNET_OK;
    model->scales = memory_get(&model->allocator, count * sizeof *model->scales);
    if (!model->scales)
        return fail_memory(error, "the activations' scales", count * sizeof *model->scales);
    memcpy(model->scales, from->scales, (pool + 1) * sizeof *model->scales);
    if (from->config.head == RESNET_HEAD_NONE)
        model->scales[pool] = activation;
    model->scales[pool + 1] = 1;
    return RESNET_OK;
}

static resnet_status with_classifier(resnet_model *model, const resnet_model *from, const struct classifier *classifier,
                                     resnet_error *error) {
    resnet_status status = build_graph(model, error);
    if (status == RESNET_OK)
        status = copy_labels(model, classifier, error);
    if (status == RESNET_OK)
        status = copy_int8(model, from, classifier->activation, error);
    return status == RESNET_OK ? weights_with_classifier(model, from, classifier, error) : status;
}

resnet_status model_with_classifier(const resnet_model *backbone, const struct classifier *classifier,
                                    resnet_model **result, resnet_error *error) {
    resnet_model *model = memory_get(&backbone->allocator, sizeof *model);
    *result = NULL;
    if (!model)
        return fail_memory(error, "the model", sizeof *model);
    *model = (resnet_model){.allocator = backbone->allocator,
                            .config = backbone->config,
                            .preprocess = backbone->preprocess,
                            .precision = backbone->precision,
                            .kernels = backbone->kernels,
                            .format = backbone->format,
                            .winograd = backbone->winograd};
    model->config.classes = classifier->classes;
    model->config.head = classifier->head;
    return deliver(model, with_classifier(model, backbone, classifier, error), result);
}

/* ---- Random weights ---- */

/* Numbers made from a seed, and how many of them come before each node's. */
struct random {
    const struct graph *graph;
    uint64_t seed;
    uint64_t *starts;
};

/* Number `index` of those that follow a seed, uniform in [-1, 1). */
static float uniform_at(uint64_t seed, uint64_t index) {
    return (float)(int32_t)(random_at(seed, index) >> 32) / 2147483648.0F;
}

static resnet_status start_random(struct random *random, const resnet_allocator *allocator, resnet_error *error) {
    uint64_t start = 0;
    random->starts = memory_get(allocator, random->graph->count * sizeof *random->starts);
    if (!random->starts)
        return fail_memory(error, "the numbers' places", random->graph->count * sizeof *random->starts);
    for (uint32_t i = 0; i < random->graph->count; i++) {
        const struct node *node = &random->graph->nodes[i];
        random->starts[i] = start;
        start += node_has_weights(node) ? node_weights(node) : 0;
    }
    return RESNET_OK;
}

/* Batch normalisation that changes nothing, and no bias. */
static resnet_status random_vectors(void *context, uint32_t node, float *vectors, resnet_error *error) {
    const struct random *random = context;
    const struct node *n = &random->graph->nodes[node];
    uint32_t channels = n->out.channels;
    (void)error;
    for (uint32_t i = 0; i < (n->op == OP_CONV ? 4 : 1) * channels; i++)
        vectors[i] = n->op == OP_CONV && (i < channels || i >= 3 * channels) ? 1 : 0; /* scale and variance */
    return RESNET_OK;
}

/* He initialisation; a block's last convolution at half of it, so that the sums along the shortcuts do not run away. */
static resnet_status random_weights(void *context, struct unit unit, void *weights, resnet_error *error) {
    const struct random *random = context;
    const struct node *node = &random->graph->nodes[unit.node];
    size_t filter = node_filter(node);
    uint64_t first = random->starts[unit.node] + (uint64_t)unit.first * filter;
    float *values = weights, limit = sqrtf(6.0F / (float)filter);
    (void)error;
    if (node->residual != NO_NODE)
        limit /= 2;
    for (size_t i = 0; i < unit.count * filter; i++)
        values[i] = limit * uniform_at(random->seed, first + i);
    return RESNET_OK;
}

static resnet_status make_random(resnet_model *model, uint64_t seed, uint32_t threads, resnet_error *error) {
    struct random random = {.graph = &model->graph, .seed = seed};
    const struct source source = {RESNET_PRECISION_F32, &random, random_vectors, random_weights};
    resnet_status status = start_random(&random, &model->allocator, error);
    if (status == RESNET_OK)
        status = weights_build(model, &source, threads, error);
    memory_put(&model->allocator, random.starts, model->graph.count * sizeof *random.starts);
    return status == RESNET_ERROR_MODEL
               ? fail(error, RESNET_ERROR_ARGUMENT, "the network cannot be made in int8: a sum has too many products")
               : status;
}

static resnet_status random_into(resnet_model *model, const resnet_config *config, uint64_t seed, uint32_t threads,
                                 resnet_error *error) {
    model->config = *config;
    model->preprocess = (resnet_preprocess){.resize = 256, .mean = {0}, .std = {0}};
    for (uint32_t c = 0; c < RESNET_MAX_CHANNELS; c++)
        model->preprocess.std[c] = 1;
    resnet_status status = build_graph(model, error);
    if (status != RESNET_OK)
        return status;
    model->config.precision = config->precision ? config->precision : RESNET_PRECISION_F32;
    if (!model->precision)
        model->precision = model->config.precision;
    model->format = model->kernels ? cpu_format(model->kernels, model->precision) : FORMAT_F32;
    if (model_file_size(&model->graph, RESNET_PRECISION_F32, NULL, 0) > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_ARGUMENT, "the network's weights take more than %llu bytes",
                    (unsigned long long)MODEL_FILE_MOST_BYTES);
    return make_random(model, seed, threads, error);
}

resnet_status resnet_model_random(const resnet_config *config, uint64_t seed, const resnet_load_options *options,
                                  resnet_model **result, resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_random: model must not be NULL");
    *result = NULL;
    if (!config)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_random: config must not be NULL");
    resnet_load_options chosen = options ? *options : (resnet_load_options){0};
    resnet_model *model = NULL;
    resnet_status status = create(&model, &chosen, error);
    if (status == RESNET_OK)
        status = random_into(model, config, seed, chosen.threads, error);
    return deliver(model, status, result);
}

/* ---- Describe ---- */

resnet_model_info resnet_model_describe(const resnet_model *model) {
    const struct graph *graph = &model->graph;
    resnet_model_info info = {
        .architecture = config_name(&model->config),
        .config = model->config,
        .preprocess = model->preprocess,
        .isa = model->kernels ? model->kernels->isa : RESNET_ISA_REFERENCE,
        .precision = model->precision,
        .memory = sizeof *model + graph->capacity * sizeof *graph->nodes + graph->count * sizeof *model->starts +
                  model->labels_size + model->weights_size * sizeof *model->weights +
                  (model->scales ? graph->count * sizeof *model->scales : 0) +
                  (model->kept ? graph->count * sizeof *model->kept : 0),
        .features = graph->nodes[model_pool(model)].out.channels,
        .layers = graph->count - 1,
    };
    for (uint32_t i = 0; i < graph->count; i++) {
        info.parameters += node_parameters(&graph->nodes[i]);
        info.macs += node_macs(&graph->nodes[i]);
    }
    return info;
}

const char *resnet_model_label(const resnet_model *model, uint32_t index) {
    if (!model->labels || index >= model->config.classes)
        return NULL;
    const char *label = model->labels;
    for (; index > 0; index--)
        label += strlen(label) + 1;
    return label;
}

static resnet_layer describe_node(const struct node *node) {
    static const char *const kinds[] = {"input",   "conv",   "maxpool",   "avgpool",
                                        "avgpool", "linear", "subsample", "scale"};
    resnet_layer layer = {
        .kind = kinds[node->op],
        .in_channels = node->in.channels,
        .out_channels = node->out.channels,
        .kernel = node->kernel,
        .stride = node->stride,
        .out_height = node->out.height,
        .out_width = node->out.width,
        .relu = node->relu,
        .residual = node->residual != NO_NODE,
        .parameters = node_parameters(node),
        .macs = node_macs(node),
    };
    memcpy(layer.name, node->name, sizeof layer.name);
    return layer;
}

resnet_status resnet_model_layer(const resnet_model *model, uint32_t index, uint32_t height, uint32_t width,
                                 resnet_layer *layer, resnet_error *error) {
    if (!model || !layer)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_layer: model and layer must not be NULL");
    if (index >= model->graph.count - 1)
        return fail(error, RESNET_ERROR_ARGUMENT, "layer %u does not exist: there are %u", index,
                    model->graph.count - 1);
    struct graph graph;
    struct shape input = {height ? height : model->config.height, width ? width : model->config.width,
                          model->config.in_channels};
    resnet_status status = graph_build(&graph, &model->config, input, &model->allocator, error);
    if (status != RESNET_OK)
        return status;
    *layer = describe_node(&graph.nodes[index + 1]);
    graph_free(&graph, &model->allocator);
    return RESNET_OK;
}
