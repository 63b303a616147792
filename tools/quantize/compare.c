/* compare.c - run two models of one network on the same images, and add up how far apart their layers are. */
#include "compare.h"

#include <string.h>

#include "bf16.h"
#include "error.h"

static size_t dense_size(struct shape shape) {
    return (size_t)shape.height * shape.width * shape.channels;
}

/* ---- Numbers of all formats ---- */

/* Where the numbers of a pixel come from. */
struct decoder {
    enum format format;
    float scale, zero; /* of u8 */
};

static float decode(const struct decoder *decoder, const float *pixel, uint32_t channel) {
    switch (decoder->format) {
    case FORMAT_U8:
        return decoder->scale * (((const uint8_t *)pixel)[channel] - decoder->zero);
    case FORMAT_BF16:
        return bf16_to_float(((const uint16_t *)pixel)[channel]);
    default:
        return pixel[channel];
    }
}

static const float *pixel_of(const struct observation *seen, uint32_t y, uint32_t x) {
    return seen->values + y * seen->tensor->row + x * seen->tensor->pixel;
}

/* ---- Observers ---- */

static void remember(void *context, const struct observation *seen) {
    struct comparison *c = context;
    struct shape shape = seen->tensor->shape;
    float *to = c->outputs + c->starts[seen->node];
    for (uint32_t y = 0; y < shape.height; y++)
        for (uint32_t x = 0; x < shape.width; x++, to += shape.channels)
            memcpy(to, pixel_of(seen, y, x), shape.channels * sizeof *to);
}

static void subtract(void *context, const struct observation *seen) {
    struct comparison *c = context;
    struct shape shape = seen->tensor->shape;
    const float *exact = c->outputs + c->starts[seen->node];
    struct difference *sum = &c->differences[seen->node];
    struct decoder decoder = {.format = seen->format};
    if (seen->format == FORMAT_U8) {
        decoder.scale = c->other->scales[seen->node];
        decoder.zero = node_zero(&c->other->graph.nodes[seen->node]);
    }
    for (uint32_t y = 0; y < shape.height; y++)
        for (uint32_t x = 0; x < shape.width; x++, exact += shape.channels)
            for (uint32_t k = 0; k < shape.channels; k++) {
                double signal = (double)exact[k];
                double noise = (double)decode(&decoder, pixel_of(seen, y, x), k) - signal;
                sum->signal += signal * signal;
                sum->noise += noise * noise;
            }
}

/* ---- Create, free, add ---- */

static size_t logits_size(const struct comparison *c) {
    return c->exact->config.classes * sizeof(float);
}

static resnet_status allocate(struct comparison *c, resnet_error *error) {
    const struct graph *graph = &c->exact->graph;
    c->starts = memory_get(&c->allocator, graph->count * sizeof *c->starts);
    if (!c->starts)
        return fail_memory(error, "a comparison", graph->count * sizeof *c->starts);
    for (uint32_t i = 0; i < graph->count; i++) {
        c->starts[i] = c->outputs_size;
        c->outputs_size += dense_size(graph->nodes[i].out);
    }
    c->outputs = memory_get(&c->allocator, c->outputs_size * sizeof *c->outputs);
    c->differences = memory_get(&c->allocator, graph->count * sizeof *c->differences);
    c->exact_logits = memory_get(&c->allocator, logits_size(c));
    c->logits = memory_get(&c->allocator, logits_size(c));
    if (!c->outputs || !c->differences || !c->exact_logits || !c->logits)
        return fail_memory(error, "a comparison", c->outputs_size * sizeof *c->outputs);
    memset(c->differences, 0, graph->count * sizeof *c->differences);
    return RESNET_OK;
}

resnet_status comparison_create(struct comparison *c, const resnet_model *exact, const resnet_model *other,
                                uint32_t threads, resnet_error *error) {
    resnet_session_options options = {.batch = 1, .threads = threads};
    *c = (struct comparison){.allocator = exact->allocator, .exact = exact, .other = other};
    resnet_status status = allocate(c, error);
    if (status == RESNET_OK)
        status = resnet_session_create(exact, &options, &c->exact_session, error);
    if (status == RESNET_OK)
        status = resnet_session_create(other, &options, &c->session, error);
    if (status != RESNET_OK)
        return status;
    session_observe(c->exact_session, remember, c);
    session_observe(c->session, subtract, c);
    return RESNET_OK;
}

void comparison_free(struct comparison *c) {
    if (!c->exact)
        return;
    uint32_t nodes = c->exact->graph.count;
    resnet_session_free(c->session);
    resnet_session_free(c->exact_session);
    memory_put(&c->allocator, c->logits, logits_size(c));
    memory_put(&c->allocator, c->exact_logits, logits_size(c));
    memory_put(&c->allocator, c->differences, nodes * sizeof *c->differences);
    memory_put(&c->allocator, c->outputs, c->outputs_size * sizeof *c->outputs);
    memory_put(&c->allocator, c->starts, nodes * sizeof *c->starts);
    *c = (struct comparison){0};
}

resnet_status comparison_add(struct comparison *c, const resnet_session *from, uint32_t slot, resnet_error *error) {
    uint32_t classes = c->exact->config.classes, exact_best, best;
    session_copy_slot(c->exact_session, 0, from, slot);
    session_copy_slot(c->session, 0, from, slot);
    resnet_status status = resnet_session_run(c->exact_session, 1, c->exact_logits, error);
    if (status == RESNET_OK)
        status = resnet_session_run(c->session, 1, c->logits, error);
    if (status != RESNET_OK)
        return status;
    resnet_top_k(c->exact_logits, classes, 1, &exact_best);
    resnet_top_k(c->logits, classes, 1, &best);
    c->images++;
    c->agreeing += best == exact_best;
    return RESNET_OK;
}
