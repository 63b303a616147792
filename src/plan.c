/* plan.c - where every activation of a session lies: its strides, and its place in one arena. */
#include "plan.h"

#include "error.h"
#include "split.h"

#define VECTOR_FLOATS (ALIGNMENT / sizeof(float))

void plan_free(struct plan *plan, const resnet_allocator *allocator) {
    memory_put(allocator, plan->tensors, plan->count * sizeof *plan->tensors);
    *plan = (struct plan){0};
}

/* Pixels a multiple of 2 KB apart would put the rows of a tile into one or two sets of the first-level cache, where
 * they push each other out: a line more spreads them (ResNet-50's 1024-channel 1x1: 90 before, 117 GFLOP/s after). */
static size_t pixel_stride(uint32_t channels, enum format format) {
    size_t words = divide_up(channels, word_numbers(format));
    return words % 512 ? words : words + VECTOR_FLOATS;
}

/* Numbers of an input pixel that is converted: 4, 8 or 16 (a config has no more channels), so that vectors meet the
 * same channels again and again. */
static size_t converted_channels(uint32_t channels) {
    return channels <= 4 ? 4 : channels <= 8 ? 8 : ((size_t)channels + 15) / 16 * 16;
}

static void set_borders(struct plan *plan, const struct graph *graph) {
    for (uint32_t i = 1; i < graph->count; i++) {
        struct tensor *input = &plan->tensors[graph->nodes[i].input];
        if (input->border < graph->nodes[i].pad)
            input->border = graph->nodes[i].pad;
    }
}

static bool set_strides(struct tensor *t, uint32_t images) {
    size_t border = t->border, height = t->shape.height + 2 * border, width = t->shape.width + 2 * border;
    bool fits = multiply(width, t->pixel, &t->row) && multiply(height, t->row, &t->image) &&
                multiply(t->image, images, &t->size) && t->size < SIZE_MAX / 64;
    t->size = align_up(t->size * sizeof(float)) / sizeof(float);
    return fits;
}

/* The last node that needs each tensor. */
static void last_uses(uint32_t *last, const struct graph *graph, struct plan_options options) {
    bool share = options.share;
    for (uint32_t i = 0; i < graph->count; i++) {
        const struct node *node = &graph->nodes[i];
        last[i] = share ? i : graph->count;
        if (share && node->input != NO_NODE)
            last[node->input] = i;
        if (share && node->residual != NO_NODE)
            last[node->residual] = i;
        if (share && node->gate != NO_NODE)
            last[node->gate] = i;
    }
    if (options.format == FORMAT_F32)
        last[0] = graph->count; /* the slots */
}

/* The lowest place where `size` floats touch none of the tensors before `node` that are still needed when it runs. */
static size_t lowest_gap(const struct plan *plan, const uint32_t *last, uint32_t node, size_t size) {
    size_t start = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t i = 0; i < node; i++) {
            const struct tensor *t = &plan->tensors[i];
            if (last[i] >= node && start < t->start + t->size && t->start < start + size) {
                start = t->start + t->size;
                moved = true;
            }
        }
    }
    return start;
}

/* A tile reads the residual where it then writes the result: where nobody else needs the residual, one block serves
 * both. */
static bool residual_can_be_overwritten(const struct plan *plan, const struct graph *graph, const uint32_t *last,
                                        uint32_t node) {
    uint32_t residual = graph->nodes[node].residual;
    return residual != NO_NODE && last[residual] == node &&
           plan->tensors[residual].border == plan->tensors[node].border &&
           plan->tensors[residual].pixel == plan->tensors[node].pixel;
}

static void place_at(struct tensor *t, size_t start, struct plan *plan) {
    t->start = start;
    t->origin = start + t->border * (t->row + t->pixel);
    if (plan->arena < (start + t->size) * sizeof(float))
        plan->arena = (start + t->size) * sizeof(float);
}

static void place(struct plan *plan, const struct graph *graph, const uint32_t *last) {
    for (uint32_t i = 0; i + 1 < graph->count; i++) {
        struct tensor *t = &plan->tensors[i];
        place_at(t,
                 residual_can_be_overwritten(plan, graph, last, i) ? plan->tensors[graph->nodes[i].residual].start
                                                                   : lowest_gap(plan, last, i, t->size),
                 plan);
    }
}

static resnet_status lay_out_tensor(struct tensor *t, const struct node *node, uint32_t images, resnet_error *error) {
    if (set_strides(t, images))
        return RESNET_OK;
    return fail(error, RESNET_ERROR_MEMORY, "%s: %u maps of %u x %u x %u do not fit into memory", node->name, images,
                t->shape.height, t->shape.width, t->shape.channels);
}

static resnet_status lay_out(struct plan *plan, const struct graph *graph, struct plan_options options,
                             resnet_error *error) {
    uint32_t last = graph->count - 1;
    for (uint32_t i = 0; i <= last; i++) {
        const struct node *node = &graph->nodes[i];
        enum format format = node->floats ? FORMAT_F32 : options.format;
        plan->tensors[i] =
            (struct tensor){.shape = node->out,
                            .format = format,
                            .pixel = i == last ? node->out.channels : pixel_stride(node->out.channels, format)};
    }
    size_t input = converted_channels(graph->nodes[0].out.channels);
    if (options.format != FORMAT_F32)
        plan->tensors[0].pixel = input / word_numbers(options.format);
    set_borders(plan, graph);
    resnet_status status = RESNET_OK;
    for (uint32_t i = 0; status == RESNET_OK && i <= last; i++) {
        bool is_slots = i == 0 && options.format == FORMAT_F32;
        status = lay_out_tensor(&plan->tensors[i], &graph->nodes[i], is_slots ? options.slots : options.group, error);
    }
    plan->slots = (struct tensor){.shape = graph->nodes[0].out, .pixel = input}; /* in FORMAT_F32 */
    if (status == RESNET_OK && options.format != FORMAT_F32)
        status = lay_out_tensor(&plan->slots, &graph->nodes[0], options.slots, error);
    return status;
}

resnet_status plan_make(struct plan *plan, const struct graph *graph, struct plan_options options,
                        const resnet_allocator *allocator, resnet_error *error) {
    *plan = (struct plan){.count = graph->count};
    plan->tensors = memory_get(allocator, graph->count * sizeof *plan->tensors);
    uint32_t *last = memory_get(allocator, graph->count * sizeof *last);
    resnet_status status = plan->tensors && last
                               ? lay_out(plan, graph, options, error)
                               : fail_memory(error, "the memory plan", graph->count * sizeof *plan->tensors);
    if (status == RESNET_OK) {
        last_uses(last, graph, options);
        place(plan, graph, last);
        if (options.format == FORMAT_F32)
            plan->slots = plan->tensors[0];
        else
            place_at(&plan->slots, plan->arena / sizeof(float), plan);
        plan->scratch = plan->arena / sizeof(float);
        plan->arena += options.scratch;
    } else {
        plan_free(plan, allocator);
    }
    memory_put(allocator, last, graph->count * sizeof *last);
    return status;
}
