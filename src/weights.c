/* weights.c - from a network's tensors to what its executor reads: fold, round, quantise and pack, on several threads.
 */
#include "weights.h"

#include <stdatomic.h>
#include <string.h>

#include "bf16.h"
#include "error.h"
#include "floats.h"
#include "fpenv.h"
#include "pack.h"
#include "split.h"
#include "threads.h"
#include "winograd.h"

#define UNIT_BYTES       (256 * 1024) /* of a unit's weights in f32: they, and what they become, stay in a cache */
#define THREAD_BYTES     (1 << 20)    /* of weights that are worth a thread */
#define REFERENCE_COLUMN 16           /* channels that a unit of the reference executor is a multiple of */
#define ANY_SCALE        0.1F         /* of activations that nobody has calibrated */

struct failure {
    uint32_t unit;
    resnet_error error;
};

struct job {
    resnet_model *model;
    const struct source *source;
    float *vectors; /* of all nodes */
    size_t vectors_size, *vector_starts;
    struct unit *units;
    uint32_t unit_count, unit_capacity;
    atomic_uint next; /* unit that nobody has taken */
    uint8_t *scratch; /* of each thread: its failure, then a struct scratch's parts */
    size_t scratch_size, block_size, raw_size;
    uint32_t threads;
};

/* ---- Sizes ---- */

/* Of a node's panels: Winograd's are f32 whatever the activations are. */
static enum format node_format(const resnet_model *model, uint32_t node) {
    const struct node *n = &model->graph.nodes[node];
    bool floats = model_keeps(model, node) || model_uses_winograd(model, n) || node_reads_floats(&model->graph, n);
    return floats ? FORMAT_F32 : model->format;
}

static uint32_t node_nr(const resnet_model *model, uint32_t node) {
    return model->kernels ? panel_channels(&model->graph.nodes[node], model->kernels->formats[node_format(model, node)])
                          : REFERENCE_COLUMN;
}

static size_t weights_of(const resnet_model *model, uint32_t i) {
    const struct node *node = &model->graph.nodes[i];
    if (!model->kernels)
        return parameters_size(node);
    uint32_t nr = node_nr(model, i);
    return model_uses_winograd(model, node) ? winograd_size(node, nr) : panels_size(node, node_format(model, i), nr);
}

/* The graph's tensors take less than MODEL_FILE_MOST_BYTES in a file; panels, and Winograd's weights, at most a small
 * multiple. */
static resnet_status allocate_weights(resnet_model *model, resnet_error *error) {
    const struct graph *graph = &model->graph;
    model->starts = memory_get(&model->allocator, graph->count * sizeof *model->starts);
    if (!model->starts)
        return fail_memory(error, "the weights' places", graph->count * sizeof *model->starts);
    for (uint32_t i = 0; i < graph->count; i++) {
        model->starts[i] = model->weights_size;
        model->weights_size += align_up(weights_of(model, i) * sizeof(float)) / sizeof(float);
    }
    model->weights = memory_get(&model->allocator, model->weights_size * sizeof *model->weights);
    return model->weights ? RESNET_OK : fail_memory(error, "the weights", model->weights_size * sizeof *model->weights);
}

static resnet_status check_sums(const resnet_model *model, resnet_error *error) {
    for (uint32_t i = 0; i < model->graph.count; i++) {
        const struct node *node = &model->graph.nodes[i];
        bool is_int8 = node_has_weights(node) && !model_keeps(model, i) && !node_reads_floats(&model->graph, node);
        if (is_int8 && node_filter(node) > MOST_PRODUCTS)
            return fail(error, RESNET_ERROR_MODEL, "%s: %zu products in a sum; int8 takes at most %u", node->name,
                        node_filter(node), MOST_PRODUCTS);
    }
    return RESNET_OK;
}

/* ---- Vectors and scales ---- */

static size_t vectors_of(const struct job *job, uint32_t i) {
    const struct node *node = &job->model->graph.nodes[i];
    size_t out = node->out.channels;
    if (!parameters_size(node))
        return 0;
    if (job->source->stored == RESNET_PRECISION_INT8)
        return (model_keeps(job->model, i) ? out : 2 * out) + 1;
    return job->source->stored == RESNET_PRECISION_F32 && node->op == OP_CONV ? 4 * out : out;
}

static const float *bias_of(const struct job *job, uint32_t i) {
    bool scaled = job->source->stored == RESNET_PRECISION_INT8 && !model_keeps(job->model, i);
    return job->vectors + job->vector_starts[i] + (scaled ? job->model->graph.nodes[i].out.channels : 0);
}

static resnet_status read_vectors(struct job *job, resnet_error *error) {
    const struct graph *graph = &job->model->graph;
    job->vector_starts = memory_get(&job->model->allocator, graph->count * sizeof *job->vector_starts);
    if (!job->vector_starts)
        return fail_memory(error, "the vectors' places", graph->count * sizeof *job->vector_starts);
    for (uint32_t i = 0; i < graph->count; i++) {
        job->vector_starts[i] = job->vectors_size;
        job->vectors_size += vectors_of(job, i);
    }
    job->vectors = memory_get(&job->model->allocator, job->vectors_size * sizeof *job->vectors);
    if (!job->vectors)
        return fail_memory(error, "the layers' vectors", job->vectors_size * sizeof *job->vectors);
    resnet_status status = RESNET_OK;
    for (uint32_t i = 0; status == RESNET_OK && i < graph->count; i++)
        if (parameters_size(&graph->nodes[i]))
            status = job->source->vectors(job->source->context, i, job->vectors + job->vector_starts[i], error);
    return status;
}

/* The file's, which stands behind the bias. */
static float activation_of(const struct job *job, uint32_t node) {
    return job->source->stored == RESNET_PRECISION_INT8 ? bias_of(job, node)[job->model->graph.nodes[node].out.channels]
                                                        : ANY_SCALE;
}

/* The input is pixels. Pooling keeps the scale of its input but for the averages of the whole map, whose the classifier
 * names; a block's whose branch is scaled, the gates' layer. */
static float scale_of(const struct job *job, const struct node *node, uint32_t i) {
    const struct graph *graph = &job->model->graph;
    switch (node->op) {
    case OP_CONV:
        return activation_of(job, i);
    case OP_SCALE:
        return activation_of(job, node->gate);
    case OP_MAXPOOL:
    case OP_AVGPOOL:
    case OP_SUBSAMPLE:
        return job->model->scales[node->input];
    case OP_GLOBAL_AVGPOOL:
        return node->floats ? 1 : activation_of(job, graph->count - 1);
    default:
        return 1;
    }
}

static resnet_status set_scales(const struct job *job, resnet_error *error) {
    resnet_model *model = job->model;
    const struct graph *graph = &model->graph;
    model->scales = memory_get(&model->allocator, graph->count * sizeof *model->scales);
    if (!model->scales)
        return fail_memory(error, "the activations' scales", graph->count * sizeof *model->scales);
    for (uint32_t i = 0; i < graph->count; i++) {
        const struct node *node = &graph->nodes[i];
        model->scales[i] = scale_of(job, node, i);
    }
    return RESNET_OK;
}

/* ---- One unit ---- */

/* A thread's own memory. */
struct scratch {
    float *block;  /* a unit's tensors, as parameters_at has them */
    void *raw;     /* its weights as bf16 or int8_t */
    float *panels; /* where those are packed once more */
    float *scale;  /* of what is quantised here */
};

/* A unit as a layer of fewer channels. */
struct part {
    const struct job *job;
    struct unit unit;
    struct node node;
    struct scratch scratch;
};

static bool is_unfolded(const struct job *job) {
    resnet_precision precision = job->model->precision;
    return !job->model->kernels && job->source->stored == RESNET_PRECISION_F32 &&
           (precision == RESNET_PRECISION_F32 || precision == RESNET_PRECISION_BF16X3);
}

static resnet_status read_weights(const struct part *part, void *to, resnet_error *error) {
    const struct source *source = part->job->source;
    return source->weights(source->context, part->unit, to, error);
}

static resnet_status round_part(const struct part *part, resnet_error *error) {
    size_t count = (size_t)node_weights(&part->node);
    round_to_bf16(part->scratch.block, count);
    return all_finite(part->scratch.block, count)
               ? RESNET_OK
               : fail(error, RESNET_ERROR_MODEL, "%s: a weight is not finite once it is rounded", part->node.name);
}

/* Random weights, for normalised numbers; the first layer gets pixels. */
static void quantize_part(const struct part *part, struct layer *layer) {
    quantize_weights(&part->node, layer->weight, part->scratch.raw, part->scratch.scale);
    for (uint32_t c = 0; part->node.input == 0 && c < part->node.out.channels; c++)
        part->scratch.scale[c] /= 255;
    layer->integers = part->scratch.raw;
    layer->scale = part->scratch.scale;
}

static resnet_status read_f32(const struct part *part, struct layer *layer, resnet_error *error) {
    const struct job *job = part->job;
    uint32_t count = part->unit.count, all = job->model->graph.nodes[part->unit.node].out.channels;
    const float *from = job->vectors + job->vector_starts[part->unit.node] + part->unit.first;
    float *block = part->scratch.block, *vectors = block + node_weights(&part->node);
    resnet_status status = read_weights(part, block, error);
    if (status != RESNET_OK)
        return status;
    for (size_t v = 0; v < vectors_of(job, part->unit.node) / all; v++)
        memcpy(vectors + v * count, from + v * all, count * sizeof *vectors);
    if (is_unfolded(job))
        return RESNET_OK;
    status = fold(&part->node, block, job->model->config.bn_epsilon, layer, error);
    if (status == RESNET_OK && job->model->precision == RESNET_PRECISION_BF16)
        status = round_part(part, error);
    if (status == RESNET_OK && job->model->precision == RESNET_PRECISION_INT8 &&
        !node_reads_floats(&job->model->graph, &part->node))
        quantize_part(part, layer);
    return status;
}

static resnet_status read_bf16(const struct part *part, struct layer *layer, resnet_error *error) {
    const uint16_t *raw = part->scratch.raw;
    float *block = part->scratch.block;
    size_t count = (size_t)node_weights(&part->node);
    resnet_status status = read_weights(part, part->scratch.raw, error);
    for (size_t i = 0; status == RESNET_OK && i < count; i++)
        block[i] = bf16_to_float(raw[i] & 0x7f80 ? raw[i] : 0); /* no denormals */
    *layer = (struct layer){.weight = block, .bias = bias_of(part->job, part->unit.node) + part->unit.first};
    return status;
}

static resnet_status read_int8(const struct part *part, struct layer *layer, resnet_error *error) {
    const struct job *job = part->job;
    bool kept = model_keeps(job->model, part->unit.node);
    *layer = (struct layer){.bias = bias_of(job, part->unit.node) + part->unit.first};
    if (kept) {
        layer->weight = part->scratch.block;
        resnet_status status = read_weights(part, part->scratch.block, error);
        for (size_t i = 0; status == RESNET_OK && i < node_weights(&part->node); i++)
            part->scratch.block[i] = without_denormals((double)part->scratch.block[i]);
        return status;
    }
    layer->integers = part->scratch.raw;
    layer->scale = job->vectors + job->vector_starts[part->unit.node] + part->unit.first;
    return read_weights(part, part->scratch.raw, error);
}

static resnet_status read_layer(const struct part *part, struct layer *layer, resnet_error *error) {
    const resnet_model *model = part->job->model;
    resnet_precision stored = part->job->source->stored;
    resnet_status status = (stored == RESNET_PRECISION_INT8   ? read_int8
                            : stored == RESNET_PRECISION_BF16 ? read_bf16
                                                              : read_f32)(part, layer, error);
    layer->input = model->scales ? model->scales[part->node.input] : 1;
    layer->output = model->scales ? model->scales[part->unit.node] : 1;
    return status;
}

/* ---- For the kernels ---- */

static resnet_status pack_part(const struct part *part, const struct layer *layer, resnet_error *error) {
    const resnet_model *model = part->job->model;
    const struct node *node = &model->graph.nodes[part->unit.node];
    enum format format = node_format(model, part->unit.node);
    uint32_t nr = node_nr(model, part->unit.node), panel = part->unit.first / nr;
    float *place = model->weights + model->starts[part->unit.node];
    if (!model_uses_winograd(model, node))
        return pack_panels(&part->node, layer, format, nr, place + panel * panel_size(node, format, nr), error);
    struct span which = {panel, panel + divide_up(part->unit.count, nr)};
    resnet_status status = pack_panels(&part->node, layer, format, nr, part->scratch.panels, error);
    if (status == RESNET_OK)
        winograd_pack(node, part->scratch.panels, which, nr, place);
    return status;
}

/* ---- For the reference executor ---- */

/* Weights and bias for pixels u = 255 * (std * x + mean) as weights and bias for x. */
static void undo_pixels(const struct part *part, float *shift) {
    const resnet_preprocess *how = &part->job->model->preprocess;
    size_t area = (size_t)part->node.kernel * part->node.kernel;
    float *weight = part->scratch.block;
    for (uint32_t c = 0; c < part->node.out.channels; c++) {
        double sum = 0;
        for (uint32_t k = 0; k < part->node.in.channels; k++)
            for (size_t tap = 0; tap < area; tap++, weight++) {
                sum += (double)*weight * 255 * (double)how->mean[k];
                *weight = (float)((double)*weight * 255 * (double)how->std[k]);
            }
        shift[c] = (float)((double)shift[c] + sum);
    }
}

/* Unfold: floats, with a batch normalisation that only adds the bias. */
static void unfold(const struct part *part, const struct layer *layer) {
    const resnet_model *model = part->job->model;
    float *block = part->scratch.block, *vectors = block + node_weights(&part->node);
    size_t filter = node_filter(&part->node), count = part->node.out.channels;
    for (size_t i = 0; layer->integers && i < node_weights(&part->node); i++)
        block[i] = layer->scale[i / filter] * (float)layer->integers[i];
    float *shift = vectors + (part->node.op == OP_CONV ? count : 0);
    memmove(shift, layer->bias, count * sizeof *shift);
    for (size_t c = 0; part->node.op == OP_CONV && c < count; c++) {
        vectors[c] = 1;                                        /* scale */
        vectors[2 * count + c] = 0;                            /* mean */
        vectors[3 * count + c] = 1 - model->config.bn_epsilon; /* variance */
    }
    if (model->precision == RESNET_PRECISION_INT8 && part->node.input == 0)
        undo_pixels(part, shift);
}

/* The tensors of the whole layer, as parameters_at has them. */
static void keep_part(const struct part *part) {
    const resnet_model *model = part->job->model;
    const struct node *node = &model->graph.nodes[part->unit.node];
    size_t weights = (size_t)node_weights(&part->node), first = part->unit.first, count = part->unit.count;
    float *place = model->weights + model->starts[part->unit.node];
    const float *block = part->scratch.block;
    memcpy(place + first * node_filter(node), block, weights * sizeof *place);
    place += node_weights(node);
    block += weights;
    for (size_t v = 0; v < (node->op == OP_CONV ? 4 : 1); v++)
        memcpy(place + v * node->out.channels + first, block + v * count, count * sizeof *place);
}

static resnet_status load_part(const struct part *part, resnet_error *error) {
    struct layer layer;
    resnet_status status = read_layer(part, &layer, error);
    if (status != RESNET_OK)
        return status;
    if (part->job->model->kernels)
        return pack_part(part, &layer, error);
    if (!is_unfolded(part->job))
        unfold(part, &layer);
    keep_part(part);
    return RESNET_OK;
}

/* ---- All units ---- */

static struct part part_of_job(const struct job *job, uint32_t unit, uint32_t thread) {
    struct part part = {.job = job, .unit = job->units[unit]};
    part.node = job->model->graph.nodes[part.unit.node];
    part.node.out.channels = part.unit.count;
    uint8_t *memory = job->scratch + thread * job->scratch_size + align_up(sizeof(struct failure));
    part.scratch.block = (float *)memory;
    part.scratch.raw = memory + job->block_size;
    part.scratch.panels = (float *)(memory + job->block_size + job->raw_size);
    part.scratch.scale = part.scratch.panels; /* a layer that is quantised needs no panels twice */
    return part;
}

static struct failure *failure_of(const struct job *job, uint32_t thread) {
    return (struct failure *)(job->scratch + thread * job->scratch_size);
}

/* Units are taken in order, so the first bad one is met whatever the other threads do. */
static void load_units(void *argument, uint32_t thread, uint32_t count) {
    struct job *job = argument;
    struct failure *failure = failure_of(job, thread);
    (void)count;
    uint64_t before = fpenv_enter(false); /* denormals are kept while folding: times a large scale, one is normal */
    failure->unit = UINT32_MAX;
    for (uint32_t unit; failure->unit == UINT32_MAX && (unit = atomic_fetch_add(&job->next, 1)) < job->unit_count;) {
        struct part part = part_of_job(job, unit, thread);
        if (load_part(&part, &failure->error) != RESNET_OK)
            failure->unit = unit;
    }
    fpenv_leave(before);
}

static resnet_status first_failure(const struct job *job, resnet_error *error) {
    const struct failure *first = failure_of(job, 0);
    for (uint32_t t = 1; t < job->threads; t++)
        if (failure_of(job, t)->unit < first->unit)
            first = failure_of(job, t);
    return first->unit == UINT32_MAX ? RESNET_OK : fail(error, first->error.status, "%s", first->error.message);
}

/* Channels of a unit: whole panels. */
static uint32_t unit_channels(const struct job *job, uint32_t node) {
    size_t nr = node_nr(job->model, node);
    size_t panel = nr * node_filter(&job->model->graph.nodes[node]) * sizeof(float);
    return (uint32_t)(panel < UNIT_BYTES ? UNIT_BYTES / panel * nr : nr);
}

static uint32_t count_units(const struct job *job, uint32_t node) {
    const struct node *n = &job->model->graph.nodes[node];
    return parameters_size(n) ? divide_up(n->out.channels, unit_channels(job, node)) : 0;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Add a unit, and see to it that it has room. */
static void add_unit(struct job *job, struct unit unit) {
    struct node node = job->model->graph.nodes[unit.node];
    uint32_t nr = node_nr(job->model, unit.node);
    node.out.channels = unit.count;
    job->units[job->unit_count++] = unit;
    job->block_size = larger(job->block_size, align_up(parameters_size(&node) * sizeof(float)));
    job->raw_size = larger(job->raw_size, align_up((size_t)node_weights(&node) * sizeof(uint16_t)));
    job->scratch_size = larger(job->scratch_size, align_up(panels_size(&node, FORMAT_F32, nr) * sizeof(float)));
}

static resnet_status list_units(struct job *job, resnet_error *error) {
    const struct graph *graph = &job->model->graph;
    for (uint32_t i = 0; i < graph->count; i++)
        job->unit_capacity += count_units(job, i);
    job->units = memory_get(&job->model->allocator, job->unit_capacity * sizeof *job->units);
    if (!job->units)
        return fail_memory(error, "the list of weights to load", job->unit_capacity * sizeof *job->units);
    for (uint32_t i = 0; i < graph->count; i++)
        for (uint32_t u = 0; u < count_units(job, i); u++) {
            uint32_t channels = unit_channels(job, i), first = u * channels;
            add_unit(job, (struct unit){i, first, smaller(channels, graph->nodes[i].out.channels - first)});
        }
    job->scratch_size += align_up(sizeof(struct failure)) + job->block_size + job->raw_size;
    return RESNET_OK;
}

static uint32_t useful_threads(const struct job *job) {
    size_t useful = 1 + job->model->weights_size * sizeof *job->model->weights / THREAD_BYTES;
    uint32_t here = cpu_threads();
    return here < useful ? here : (uint32_t)useful;
}

static resnet_status run_units(struct job *job, resnet_error *error) {
    const resnet_allocator *allocator = &job->model->allocator;
    size_t size = job->threads * job->scratch_size;
    job->scratch = memory_get(allocator, size);
    if (!job->scratch)
        return fail_memory(error, "a part of a layer for each thread", size);
    struct pool *pool = NULL;
    struct pool_options options = {.parts = job->threads, .threads = cpu_threads()};
    resnet_status status = pool_create(&pool, &options, allocator, error);
    if (status == RESNET_OK) {
        pool_run(pool, load_units, job);
        status = first_failure(job, error);
    }
    pool_free(pool, allocator);
    memory_put(allocator, job->scratch, size);
    return status;
}

static void release(struct job *job) {
    const resnet_allocator *allocator = &job->model->allocator;
    memory_put(allocator, job->units, job->unit_capacity * sizeof *job->units);
    memory_put(allocator, job->vectors, job->vectors_size * sizeof *job->vectors);
    memory_put(allocator, job->vector_starts, job->model->graph.count * sizeof *job->vector_starts);
}

resnet_status weights_build(resnet_model *model, const struct source *source, uint32_t threads, resnet_error *error) {
    struct job job = {.model = model, .source = source};
    bool int8 = model->precision == RESNET_PRECISION_INT8;
    resnet_status status = int8 ? check_sums(model, error) : RESNET_OK;
    if (status == RESNET_OK)
        status = allocate_weights(model, error);
    if (status == RESNET_OK)
        status = read_vectors(&job, error);
    if (status == RESNET_OK && int8 && model->kernels)
        status = set_scales(&job, error);
    if (status == RESNET_OK)
        status = list_units(&job, error);
    if (status == RESNET_OK) {
        job.threads = smaller(threads ? threads : useful_threads(&job), job.unit_count);
        status = run_units(&job, error);
    }
    release(&job);
    return status;
}

/* Where the CPU has no products of bf16, its panels are f32 and do not round. */
static resnet_status round_classifier(const resnet_model *model, const struct classifier *classifier, size_t count,
                                      resnet_error *error) {
    if (model->precision == RESNET_PRECISION_BF16)
        round_to_bf16(classifier->weight, count);
    return all_finite(classifier->weight, count) && all_finite(classifier->bias, classifier->classes)
               ? RESNET_OK
               : fail(error, RESNET_ERROR_ARGUMENT, "the new classifier has weights that are not finite");
}

resnet_status weights_with_classifier(resnet_model *model, const resnet_model *from,
                                      const struct classifier *classifier, resnet_error *error) {
    uint32_t last = model->graph.count - 1;
    const struct node *node = &model->graph.nodes[last];
    size_t count = (size_t)node_weights(node);
    const struct layer layer = {.weight = classifier->weight, .bias = classifier->bias, .input = 1, .output = 1};
    resnet_status status = round_classifier(model, classifier, count, error);
    if (status == RESNET_OK)
        status = allocate_weights(model, error);
    if (status != RESNET_OK)
        return status;
    float *place = model->weights + model->starts[last];
    memcpy(model->weights, from->weights, model->starts[last] * sizeof *place);
    if (model->kernels)
        return pack_panels(node, &layer, node_format(model, last), node_nr(model, last), place, error);
    memcpy(place, layer.weight, count * sizeof *place);
    memcpy(place + count, layer.bias, node->out.channels * sizeof *place);
    return RESNET_OK;
}

float weights_of_channel(const resnet_model *model, uint32_t node, uint32_t channel, float *weight) {
    const struct node *n = &model->graph.nodes[node];
    const float *place = model->weights + model->starts[node];
    if (!model->kernels) {
        struct parameters p = parameters_at(n, place);
        memcpy(weight, p.weight + channel * node_filter(n), node_filter(n) * sizeof *weight);
        return p.shift[channel];
    }
    struct packed packed = {.node = n, .format = node_format(model, node), .nr = node_nr(model, node), .panels = place};
    if (packed.format == FORMAT_U8) {
        packed.input = model->scales[n->input];
        packed.output = model->scales[node];
    }
    return unpack_channel(&packed, channel, weight);
}
