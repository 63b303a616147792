/* model.c - load a network: check, fold, pack; and describe it. */
#include "model.h"

#include <math.h>
#include <string.h>

#include "error.h"
#include "fpenv.h"
#include "model_file.h"
#include "pack.h"
#include "winograd.h"

/* Where tensors come from: fill `count` finite numbers, in the model file's order. */
struct source {
    resnet_status (*fill)(void *context, float *values, size_t count, const struct node *node, const char *what,
                          resnet_error *error);
    void *context;
};

/* ---- Build ---- */

static resnet_status create(resnet_model **result, const resnet_load_options *options, resnet_error *error) {
    resnet_load_options chosen = options ? *options : (resnet_load_options){0};
    resnet_status status = resnet_isa_check(chosen.isa, error);
    if (status != RESNET_OK)
        return status;
    resnet_allocator allocator = memory_allocator(chosen.allocator);
    resnet_model *model = memory_get(&allocator, sizeof *model);
    if (!model)
        return fail_memory(error, "the model", sizeof *model);
    *model =
        (resnet_model){.allocator = allocator, .kernels = cpu_kernels(chosen.isa), .winograd = !chosen.no_winograd};
    *result = model;
    return RESNET_OK;
}

void resnet_model_free(resnet_model *model) {
    if (!model)
        return;
    resnet_allocator allocator = model->allocator;
    memory_put(&allocator, model->weights, model->weights_size * sizeof *model->weights);
    memory_put(&allocator, model->starts, model->graph.count * sizeof *model->starts);
    memory_put(&allocator, model->labels, model->labels_size);
    graph_free(&model->graph, &allocator);
    memory_put(&allocator, model, sizeof *model);
}

static resnet_status build_graph(resnet_model *model, resnet_error *error) {
    struct shape input = {model->config.height, model->config.width, model->config.in_channels};
    return graph_build(&model->graph, &model->config, input, &model->allocator, error);
}

bool model_uses_winograd(const resnet_model *model, const struct node *node) {
    return model->kernels && model->winograd && winograd_suits(node);
}

static size_t weights_of(const resnet_model *model, const struct node *node) {
    if (!model->kernels)
        return parameters_size(node);
    uint32_t nr = model->kernels->nr;
    return model_uses_winograd(model, node) ? winograd_size(node, nr) : panels_size(node, nr);
}

/* The graph's tensors take less than MODEL_FILE_MOST_BYTES in a file; panels add less than a tile of channels each. */
static resnet_status allocate_weights(resnet_model *model, resnet_error *error) {
    const struct graph *graph = &model->graph;
    model->starts = memory_get(&model->allocator, graph->count * sizeof *model->starts);
    if (!model->starts)
        return fail_memory(error, "the weights' places", graph->count * sizeof *model->starts);
    for (uint32_t i = 0; i < graph->count; i++) {
        model->starts[i] = model->weights_size;
        model->weights_size += align_up(weights_of(model, &graph->nodes[i]) * sizeof(float)) / sizeof(float);
    }
    model->weights = memory_get(&model->allocator, model->weights_size * sizeof *model->weights);
    return model->weights ? RESNET_OK : fail_memory(error, "the weights", model->weights_size * sizeof *model->weights);
}

/* The tensors of a node, in the model file's order, one after the other into `block`. */
static resnet_status fill_node(const struct node *node, float *block, const struct source *source,
                               resnet_error *error) {
    static const char *const conv[] = {"weight", "scale", "shift", "mean", "variance"};
    static const char *const linear[] = {"weight", "bias"};
    const char *const *names = node->op == OP_LINEAR ? linear : conv;
    size_t vectors = node->op == OP_LINEAR ? 1 : 4, channels = node->out.channels;
    size_t weights = parameters_size(node) - vectors * channels;
    resnet_status status = source->fill(source->context, block, weights, node, names[0], error);
    block += weights;
    for (size_t i = 1; status == RESNET_OK && i <= vectors; i++, block += channels)
        status = source->fill(source->context, block, channels, node, names[i], error);
    return status;
}

/* Room for one layer at a time: its tensors, and its panels where they are packed once more. */
struct scratch {
    float *block, *panels;
    size_t block_size, panels_size; /* bytes */
};

static struct scratch scratch_for(const resnet_model *model) {
    struct scratch scratch = {0};
    for (uint32_t i = 0; i < model->graph.count; i++) {
        const struct node *node = &model->graph.nodes[i];
        size_t block = parameters_size(node) * sizeof(float);
        size_t panels = model_uses_winograd(model, node) ? panels_size(node, model->kernels->nr) * sizeof(float) : 0;
        scratch.block_size = block > scratch.block_size ? block : scratch.block_size;
        scratch.panels_size = panels > scratch.panels_size ? panels : scratch.panels_size;
    }
    return scratch;
}

static resnet_status pack_node(const resnet_model *model, const struct node *node, const struct scratch *scratch,
                               float *place, resnet_error *error) {
    uint32_t nr = model->kernels->nr;
    bool twice = model_uses_winograd(model, node);
    resnet_status status =
        pack_panels(node, scratch->block, model->config.bn_epsilon, nr, twice ? scratch->panels : place, error);
    if (status == RESNET_OK && twice && !winograd_pack(node, scratch->panels, nr, place))
        status = fail(error, RESNET_ERROR_MODEL, "%s: a weight is not finite once it is transformed", node->name);
    return status;
}

static resnet_status fill_each(resnet_model *model, const struct source *source, const struct scratch *scratch,
                               resnet_error *error) {
    resnet_status status = RESNET_OK;
    for (uint32_t i = 0; status == RESNET_OK && i < model->graph.count; i++) {
        const struct node *node = &model->graph.nodes[i];
        float *place = model->weights + model->starts[i], *block = model->kernels ? scratch->block : place;
        if (!parameters_size(node))
            continue;
        status = fill_node(node, block, source, error);
        if (status == RESNET_OK)
            status = parameters_check(node, block, error);
        if (status == RESNET_OK && model->kernels)
            status = pack_node(model, node, scratch, place, error);
    }
    return status;
}

/* A layer at a time: memory stays near the size of the packed weights. */
static resnet_status fill_weights(resnet_model *model, const struct source *source, resnet_error *error) {
    struct scratch scratch = scratch_for(model);
    scratch.block = memory_get(&model->allocator, scratch.block_size);
    scratch.panels = memory_get(&model->allocator, scratch.panels_size);
    resnet_status status = scratch.block && scratch.panels
                               ? fill_each(model, source, &scratch, error)
                               : fail_memory(error, "one layer's tensors", scratch.block_size + scratch.panels_size);
    memory_put(&model->allocator, scratch.panels, scratch.panels_size);
    memory_put(&model->allocator, scratch.block, scratch.block_size);
    return status;
}

/* Denormals are kept while folding: times a large scale, one is a normal number. */
static resnet_status build_weights(resnet_model *model, const struct source *source, resnet_error *error) {
    resnet_status status = allocate_weights(model, error);
    if (status != RESNET_OK)
        return status;
    uint64_t before = fpenv_enter(false);
    status = fill_weights(model, source, error);
    fpenv_leave(before);
    return status;
}

/* ---- Load ---- */

static resnet_status fill_from_file(void *context, float *values, size_t count, const struct node *node,
                                    const char *what, resnet_error *error) {
    return model_file_tensor(context, values, count, node, what, error);
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

static resnet_status load_into(resnet_model *model, struct model_file *file, resnet_error *error) {
    model->config = file->config;
    model->preprocess = file->preprocess;
    resnet_status status = build_graph(model, error);
    if (status == RESNET_OK)
        status = model_file_check_size(file, &model->graph, error);
    if (status == RESNET_OK)
        status = read_labels(model, file, error);
    if (status == RESNET_OK)
        status = build_weights(model, &(struct source){fill_from_file, file}, error);
    return status == RESNET_OK ? model_file_finish(file, error) : status;
}

/* Hand a model that is ready to the caller, or free what there is of it. */
static resnet_status deliver(resnet_model *model, resnet_status status, resnet_model **result) {
    if (status == RESNET_OK)
        *result = model;
    else
        resnet_model_free(model);
    return status;
}

static resnet_status load_path(resnet_model *model, const char *path, resnet_error *error) {
    struct model_file file;
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = model_file_open(&file, path, &reason);
    if (status == RESNET_OK)
        status = load_into(model, &file, &reason);
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
    resnet_model *model = NULL;
    resnet_status status = create(&model, options, error);
    if (status == RESNET_OK)
        status = load_path(model, path, error);
    return deliver(model, status, result);
}

resnet_status resnet_model_load_memory(const void *data, size_t size, const resnet_load_options *options,
                                       resnet_model **result, resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_load_memory: model must not be NULL");
    *result = NULL;
    if (!data)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_load_memory: data must not be NULL");
    resnet_model *model = NULL;
    struct model_file file;
    resnet_status status = create(&model, options, error);
    if (status == RESNET_OK)
        status = model_file_open_memory(&file, data, size, error);
    if (status == RESNET_OK)
        status = load_into(model, &file, error);
    return deliver(model, status, result);
}

/* ---- Random weights ---- */

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (splitmix64); uniform in [-1, 1). */
static float next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    return (float)(int32_t)(z >> 32) / 2147483648.0F;
}

/* He initialisation; a block's last convolution at half of it, so that the sums along the shortcuts do not run away. */
static resnet_status fill_random(void *context, float *values, size_t count, const struct node *node, const char *what,
                                 resnet_error *error) {
    (void)error;
    bool ones = strcmp(what, "scale") == 0 || strcmp(what, "variance") == 0;
    bool weight = strcmp(what, "weight") == 0;
    float limit = sqrtf(6.0F / ((float)node->in.channels * (float)node->kernel * (float)node->kernel));
    if (node->residual != NO_NODE)
        limit /= 2;
    for (size_t i = 0; i < count; i++)
        values[i] = weight ? limit * next_random(context) : ones ? 1.0F : 0.0F;
    return RESNET_OK;
}

static resnet_status random_into(resnet_model *model, const resnet_config *config, uint64_t seed, resnet_error *error) {
    model->config = *config;
    model->preprocess = (resnet_preprocess){.resize = 256, .mean = {0}, .std = {0}};
    for (uint32_t c = 0; c < RESNET_MAX_CHANNELS; c++)
        model->preprocess.std[c] = 1;
    resnet_status status = build_graph(model, error);
    if (status != RESNET_OK)
        return status;
    if (model_file_size(&model->graph, 0) > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_ARGUMENT, "the network's weights take more than %llu bytes",
                    (unsigned long long)MODEL_FILE_MOST_BYTES);
    return build_weights(model, &(struct source){fill_random, &seed}, error);
}

resnet_status resnet_model_random(const resnet_config *config, uint64_t seed, const resnet_load_options *options,
                                  resnet_model **result, resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_random: model must not be NULL");
    *result = NULL;
    if (!config)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_model_random: config must not be NULL");
    resnet_model *model = NULL;
    resnet_status status = create(&model, options, error);
    if (status == RESNET_OK)
        status = random_into(model, config, seed, error);
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
        .memory = sizeof *model + graph->capacity * sizeof *graph->nodes + graph->count * sizeof *model->starts +
                  model->labels_size + model->weights_size * sizeof *model->weights,
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
    static const char *const kinds[] = {"input", "conv", "maxpool", "avgpool", "linear"};
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
