/* compare.c - run two models of one network on the same images, and add up how far apart their layers are. */
#include "compare.h"

#include <string.h>

#include "error.h"
#include "observed.h"

uint32_t outputs_of(const resnet_model *model) {
    return model->graph.nodes[model->graph.count - 1].out.channels;
}

resnet_status run_outputs(resnet_session *session, const resnet_model *model, uint32_t count, float *outputs,
                          resnet_error *error) {
    bool headless = model->config.head == RESNET_HEAD_NONE;
    resnet_request request = {.logits = headless ? NULL : outputs, .embedding = headless ? outputs : NULL};
    return resnet_run(session, count, &request, error);
}

static size_t dense_size(struct shape shape) {
    return (size_t)shape.height * shape.width * shape.channels;
}

/* ---- Observers ---- */

static void remember(void *context, const struct observation *seen) {
    struct comparison *c = context;
    struct shape shape = seen->tensor->shape;
    float *to = c->maps + c->starts[seen->node];
    for (uint32_t y = 0; y < shape.height; y++)
        for (uint32_t x = 0; x < shape.width; x++, to += shape.channels)
            memcpy(to, pixel_of(seen, y, x), shape.channels * sizeof *to);
}

static void subtract(void *context, const struct observation *seen) {
    struct comparison *c = context;
    struct shape shape = seen->tensor->shape;
    const float *exact = c->maps + c->starts[seen->node];
    struct difference *sum = &c->differences[seen->node];
    struct decoder decoder = decoder_of(c->other, seen);
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

static size_t outputs_size(const struct comparison *c) {
    return outputs_of(c->exact) * sizeof(float);
}

static resnet_status allocate(struct comparison *c, resnet_error *error) {
    const struct graph *graph = &c->exact->graph;
    c->starts = memory_get(&c->allocator, graph->count * sizeof *c->starts);
    if (!c->starts)
        return fail_memory(error, "a comparison", graph->count * sizeof *c->starts);
    for (uint32_t i = 0; i < graph->count; i++) {
        c->starts[i] = c->maps_size;
        c->maps_size += dense_size(graph->nodes[i].out);
    }
    c->maps = memory_get(&c->allocator, c->maps_size * sizeof *c->maps);
    c->differences = memory_get(&c->allocator, graph->count * sizeof *c->differences);
    c->exact_outputs = memory_get(&c->allocator, outputs_size(c));
    c->outputs = memory_get(&c->allocator, outputs_size(c));
    if (!c->maps || !c->differences || !c->exact_outputs || !c->outputs)
        return fail_memory(error, "a comparison", c->maps_size * sizeof *c->maps);
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
    memory_put(&c->allocator, c->outputs, outputs_size(c));
    memory_put(&c->allocator, c->exact_outputs, outputs_size(c));
    memory_put(&c->allocator, c->differences, nodes * sizeof *c->differences);
    memory_put(&c->allocator, c->maps, c->maps_size * sizeof *c->maps);
    memory_put(&c->allocator, c->starts, nodes * sizeof *c->starts);
    *c = (struct comparison){0};
}

resnet_status comparison_add(struct comparison *c, const resnet_session *from, uint32_t slot, resnet_error *error) {
    uint32_t classes = c->exact->config.classes, exact_best, best;
    session_copy_slot(c->exact_session, 0, from, slot);
    session_copy_slot(c->session, 0, from, slot);
    resnet_status status = run_outputs(c->exact_session, c->exact, 1, c->exact_outputs, error);
    if (status == RESNET_OK)
        status = run_outputs(c->session, c->other, 1, c->outputs, error);
    if (status != RESNET_OK)
        return status;
    c->images++;
    if (!classes)
        return RESNET_OK;
    resnet_top_k(c->exact_outputs, classes, 1, &exact_best);
    resnet_top_k(c->outputs, classes, 1, &best);
    c->agreeing += best == exact_best;
    return RESNET_OK;
}
