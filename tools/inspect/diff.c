/* diff.c - compare a network, layer by layer, with what another program computed from the same input. */
#include "diff.h"

#include <math.h>
#include <string.h>

#include "error.h"
#include "npz.h"
#include "observed.h"

/* A comparison while the network runs. */
struct comparing {
    struct diff *diff;
    const resnet_model *model;
    struct npz npz;
    resnet_session *session;
    resnet_error error; /* the first, of an observer, which cannot return it */
};

/* On photographs, rounding alone made at most 6e-6, 0.04 and 0.18 in any layer of ResNet-18 and -50. */
double diff_tolerance(const resnet_model *model) {
    switch (model->precision) {
    case RESNET_PRECISION_INT8:
        return 0.4;
    case RESNET_PRECISION_BF16:
        return 0.1;
    default:
        return 1e-4;
    }
}

/* ---- Layers ---- */

/* Channels, height and width of an array of one image; false where it is of another kind. */
static bool array_shape(const struct npy_shape *array, uint32_t shape[3]) {
    for (uint32_t d = 0; d < 3; d++)
        shape[d] = d + 1 < array->dimensions ? (uint32_t)array->sizes[d + 1] : 1; /* below the file's size, 2^31 */
    return array->dimensions > 1 && array->sizes[0] == 1;
}

/* Infinity where one of them is not finite: nothing agrees with that. */
static double distance(float ours, float theirs) {
    double difference = fabs((double)ours - (double)theirs);
    return isfinite(difference) ? difference : (double)INFINITY;
}

/* Sums of squares over a layer. */
struct sums {
    double signal, noise; /* of the dump's numbers, and of the differences */
};

/* Whether they differ more than all numbers before. */
static bool compare_number(struct layer_difference *layer, struct sums *sums, float ours, float theirs) {
    double difference = distance(ours, theirs);
    sums->signal += (double)theirs * (double)theirs;
    sums->noise += difference * difference;
    layer->largest = fmax(layer->largest, fabs((double)theirs));
    if (difference <= layer->difference)
        return false;
    layer->difference = difference;
    layer->ours = ours;
    layer->theirs = theirs;
    return true;
}

/* `theirs` is [channels][height][width]. */
static void compare_all(struct layer_difference *layer, const struct decoder *decoder, const struct observation *seen,
                        const float *theirs) {
    struct sums sums = {0};
    for (uint32_t c = 0; c < layer->shape[0]; c++)
        for (uint32_t y = 0; y < layer->shape[1]; y++)
            for (uint32_t x = 0; x < layer->shape[2]; x++)
                if (compare_number(layer, &sums, decode(decoder, pixel_of(seen, y, x), c), *theirs++))
                    memcpy(layer->place, (uint32_t[]){c, y, x}, sizeof layer->place);
    layer->relative = sums.noise > 0 ? sqrt(sums.noise / sums.signal) : 0;
}

static resnet_status compare_numbers(struct comparing *c, struct layer_difference *layer,
                                     const struct observation *seen, const struct npz_member *member) {
    struct decoder decoder = decoder_of(c->model, seen);
    size_t size = member->count * sizeof(float);
    float *theirs = memory_get(&c->diff->allocator, size);
    if (!theirs)
        return fail_memory(&c->error, "a layer of the dump", size);
    resnet_status status = npz_read(&c->npz, member, theirs, &c->error);
    if (status == RESNET_OK) {
        compare_all(layer, &decoder, seen, theirs);
        layer->state = layer->relative <= c->diff->tolerance ? LAYER_AGREES : LAYER_DEPARTS;
    }
    memory_put(&c->diff->allocator, theirs, size);
    return status;
}

static void compare_layer(void *context, const struct observation *seen) {
    struct comparing *c = context;
    if (seen->node == 0 || c->error.status != RESNET_OK)
        return;
    struct layer_difference *layer = &c->diff->layers[seen->node - 1];
    struct shape here = seen->tensor->shape;
    const struct npz_member *member = npz_find(&c->npz, layer->name);
    if (!member)
        return;
    memcpy(layer->shape, (uint32_t[]){here.channels, here.height, here.width}, sizeof layer->shape);
    c->diff->compared++;
    if (!array_shape(&member->shape, layer->dumped) || memcmp(layer->shape, layer->dumped, sizeof layer->shape) != 0)
        layer->state = LAYER_MISSHAPEN;
    else
        compare_numbers(c, layer, seen, member);
    bool departs = layer->state == LAYER_MISSHAPEN || layer->state == LAYER_DEPARTS;
    if (departs && c->diff->first == c->diff->count)
        c->diff->first = seen->node - 1;
}

/* ---- Run ---- */

static resnet_status start(struct comparing *c, resnet_error *error) {
    struct diff *diff = c->diff;
    const struct graph *graph = &c->model->graph;
    size_t size = (graph->count - 1) * sizeof *diff->layers;
    diff->layers = memory_get(&diff->allocator, size);
    if (!diff->layers)
        return fail_memory(error, "the list of layers", size);
    memset(diff->layers, 0, size);
    diff->count = diff->first = graph->count - 1;
    for (uint32_t i = 0; i < diff->count; i++)
        memcpy(diff->layers[i].name, graph->nodes[i + 1].name, sizeof diff->layers[i].name);
    return RESNET_OK;
}

/* Arrays that nothing here will be compared with. */
static void count_unknown(struct comparing *c) {
    struct diff *diff = c->diff;
    for (uint32_t m = 0; m < c->npz.count; m++) {
        const char *name = c->npz.members[m].name;
        bool known = strcmp(name, "input") == 0;
        for (uint32_t i = 0; i < diff->count && !known; i++)
            known = strcmp(name, diff->layers[i].name) == 0;
        if (!known && diff->unknown++ == 0)
            memcpy(diff->unknown_name, name, sizeof diff->unknown_name);
    }
}

static resnet_status fill_input(struct comparing *c, const struct npz_member *input, resnet_error *error) {
    size_t size = input->count * sizeof(float);
    float *values = memory_get(&c->diff->allocator, size);
    if (!values)
        return fail_memory(error, "the dump's input", size);
    resnet_status status = npz_read(&c->npz, input, values, error);
    if (status == RESNET_OK)
        status = resnet_session_set_floats(c->session, 0, values, RESNET_NCHW, error);
    memory_put(&c->diff->allocator, values, size);
    return status;
}

/* A session of the input's size, with the input in it. */
static resnet_status open_session(struct comparing *c, resnet_error *error) {
    const struct npz_member *input = npz_find(&c->npz, "input");
    uint32_t shape[3], channels = c->model->config.in_channels;
    if (!input)
        return fail(error, RESNET_ERROR_IO, "has no array \"input\"; tools/dump_torch.py writes one");
    if (!array_shape(&input->shape, shape) || shape[0] != channels)
        return fail(error, RESNET_ERROR_IO, "array input: its shape is not 1 x %u x height x width", channels);
    resnet_session_options options = {.height = shape[1], .width = shape[2]};
    resnet_status status = resnet_session_create(c->model, &options, &c->session, error);
    return status == RESNET_OK ? fill_input(c, input, error) : status;
}

/* All layers, whether they end in a classifier or not. */
static resnet_status run_session(struct comparing *c, resnet_error *error) {
    const struct graph *graph = &c->model->graph;
    size_t size = graph->nodes[graph->count - 1].out.channels * sizeof(float);
    float *last = memory_get(&c->diff->allocator, size);
    if (!last)
        return fail_memory(error, "the scores", size);
    bool has_head = c->model->config.head != RESNET_HEAD_NONE;
    const resnet_request request = {.logits = has_head ? last : NULL, .embedding = has_head ? NULL : last};
    session_observe(c->session, compare_layer, c);
    resnet_status status = resnet_run(c->session, 1, &request, error);
    memory_put(&c->diff->allocator, last, size);
    if (status == RESNET_OK && c->error.status != RESNET_OK)
        status = fail(error, c->error.status, "%s", c->error.message);
    if (status == RESNET_OK && !c->diff->compared)
        status = fail(error, RESNET_ERROR_IO, "has none of the network's layers, such as %s", c->diff->layers[0].name);
    return status;
}

static resnet_status compare(struct comparing *c, resnet_error *error) {
    resnet_status status = start(c, error);
    if (status != RESNET_OK)
        return status;
    count_unknown(c);
    status = open_session(c, error);
    return status == RESNET_OK ? run_session(c, error) : status;
}

resnet_status diff_run(struct diff *diff, const resnet_model *model, const char *dump, double tolerance,
                       resnet_error *error) {
    struct comparing c = {.diff = diff, .model = model};
    resnet_error reason = {RESNET_OK, ""};
    *diff = (struct diff){.allocator = memory_allocator(NULL), .tolerance = tolerance};
    resnet_status status = npz_open(&c.npz, dump, error);
    if (status == RESNET_OK && (status = compare(&c, &reason)) != RESNET_OK)
        fail_file(error, status, dump, &reason);
    resnet_session_free(c.session);
    npz_close(&c.npz);
    return status;
}

void diff_free(struct diff *diff) {
    memory_put(&diff->allocator, diff->layers, diff->count * sizeof *diff->layers);
    diff->layers = NULL;
}
