/*
 * test_plan.c - the memory plan: nothing that is needed at the same time lies in the same place.
 *
 * What is needed when is found out here by brute force: a tensor is needed from the step that makes it to the last
 * step that reads it, and the slots always.
 */
#include "plan.h"

#include <string.h>

#include "support.h"

/* ---- Graphs ---- */

/* Now and then with 512 channels: a wider pixel. */
static resnet_config random_config(struct test_random *random) {
    resnet_config config = test_any_config(random);
    if (config.groups == 1 && !test_below(random, 4))
        config.base_width = 128;
    return config;
}

static struct graph build(const resnet_config *config, uint32_t height, uint32_t width) {
    struct graph graph;
    resnet_error error;
    resnet_allocator allocator = memory_allocator(NULL);
    struct shape input = {height, width, config->in_channels};
    assert_status(RESNET_OK, graph_build(&graph, config, input, &allocator, &error), &error);
    return graph;
}

/* Any node so far but the averages. */
static uint32_t any_map(const struct graph *g, struct test_random *random) {
    uint32_t node = test_below(random, g->count);
    while (g->nodes[node].op == OP_GLOBAL_AVGPOOL)
        node = test_below(random, g->count);
    return node;
}

/* Maps of one size, each node reading any earlier one, adding any other and now and then scaled by any average: what no
 * ResNet asks for. */
static void tangle(struct graph *g, struct test_random *random, uint32_t nodes) {
    static const uint32_t kernels[] = {1, 3, 7};
    struct shape shape = {test_between(random, 1, 9), test_between(random, 1, 9), test_between(random, 1, 20)};
    graph_input(g, shape);
    while (g->count < nodes) {
        uint32_t input = any_map(g, random), residual = any_map(g, random);
        struct conv conv = {shape.channels,
                            kernels[test_below(random, 3)],
                            1,
                            test_below(random, 2) && residual != input ? residual : NO_NODE,
                            true,
                            1,
                            1};
        if (test_below(random, 3) || g->count + 2 > nodes) {
            graph_conv(g, input, conv, "node");
        } else {
            uint32_t gate = graph_global_avgpool(g, any_map(g, random), "mean");
            g->nodes[gate].floats = true;
            graph_scale(g, input, gate, conv.residual, "scale");
        }
    }
}

/* ---- What a plan must satisfy ---- */

static uint32_t widest_reader(const struct graph *graph, uint32_t tensor) {
    uint32_t border = 0;
    for (uint32_t i = 0; i < graph->count; i++)
        if (graph->nodes[i].input == tensor && graph->nodes[i].pad > border)
            border = graph->nodes[i].pad;
    return border;
}

/* What a tensor of this shape must look like, whose pixels take at least so many words. */
static void check_tensor(const struct tensor *t, struct shape shape, size_t words, size_t images) {
    size_t border = t->border;
    assert_memory_equal(&t->shape, &shape, sizeof shape);
    assert_true(t->pixel >= words && t->pixel <= words + 16);
    assert_int_equal(t->row, (shape.width + 2 * border) * t->pixel);
    assert_int_equal(t->image, (shape.height + 2 * border) * t->row);
    assert_true(t->size >= images * t->image && t->size < images * t->image + 16);
    assert_int_equal(t->start % 16, 0); /* a cache line */
    assert_int_equal(t->size % 16, 0);
    assert_int_equal(t->origin, t->start + border * t->row + border * t->pixel);
}

/* The caller's floats: the first tensor, or beside all of them where that has another format. */
static void check_slots(const struct plan *plan, const struct graph *graph, struct plan_options options) {
    struct shape shape = graph->nodes[0].out;
    if (options.format == FORMAT_F32) {
        assert_memory_equal(&plan->slots, &plan->tensors[0], sizeof plan->slots);
        return;
    }
    check_tensor(&plan->slots, shape, shape.channels, options.slots);
    assert_int_equal(plan->slots.border, 0);
    assert_true((plan->slots.start + plan->slots.size) * sizeof(float) <= plan->arena - options.scratch);
}

static void check_strides(const struct plan *plan, const struct graph *graph, struct plan_options options) {
    for (uint32_t i = 0; i + 1 < graph->count; i++) {
        const struct tensor *t = &plan->tensors[i];
        struct shape shape = graph->nodes[i].out;
        bool is_slots = i == 0 && options.format == FORMAT_F32;
        assert_int_equal(t->format, graph->nodes[i].floats ? FORMAT_F32 : options.format);
        uint32_t numbers = word_numbers(t->format);
        check_tensor(t, shape, (shape.channels + numbers - 1) / numbers, is_slots ? options.slots : options.group);
        assert_int_equal(t->border, widest_reader(graph, i));
        assert_true(t->pixel * sizeof(float) % 2048 != 0);
        assert_true((t->start + t->size) * sizeof(float) <= plan->arena - options.scratch);
    }
    check_slots(plan, graph, options);
    const struct tensor *logits = &plan->tensors[graph->count - 1]; /* packed: the caller's array of floats */
    assert_int_equal(logits->pixel, graph->nodes[graph->count - 1].out.channels);
    assert_int_equal(logits->format, graph->nodes[graph->count - 1].floats ? FORMAT_F32 : options.format);
    assert_int_equal(plan->scratch * sizeof(float) + options.scratch, plan->arena);
    assert_int_equal(plan->scratch % 16, 0);
}

static bool overlap(const struct tensor *a, const struct tensor *b) {
    return a->start < b->start + b->size && b->start < a->start + a->size;
}

static bool is_read_at_or_after(const struct graph *graph, uint32_t tensor, uint32_t step) {
    for (uint32_t i = step; i < graph->count; i++)
        if (graph->nodes[i].input == tensor || graph->nodes[i].residual == tensor || graph->nodes[i].gate == tensor)
            return true;
    return false;
}

static bool is_needed(const struct graph *graph, uint32_t tensor, uint32_t step) {
    if (tensor + 1 == graph->count)
        return false; /* in the caller's memory */
    return tensor == step || (tensor < step && is_read_at_or_after(graph, tensor, step));
}

/* A step may write its result over its residual, number by number, where nobody reads that later. */
static bool may_replace(const struct plan *plan, const struct graph *graph, uint32_t residual, uint32_t step) {
    const struct tensor *from = &plan->tensors[residual], *to = &plan->tensors[step];
    return graph->nodes[step].residual == residual && graph->nodes[step].input != residual &&
           !is_read_at_or_after(graph, residual, step + 1) && from->origin == to->origin && from->row == to->row &&
           from->pixel == to->pixel && from->image == to->image;
}

/* Returns how many results lie over their residuals. */
static uint32_t check_places(const struct plan *plan, const struct graph *graph, enum format format) {
    uint32_t replaced = 0;
    for (uint32_t step = 0; step + 1 < graph->count; step++)
        for (uint32_t a = 0; a <= step; a++)
            for (uint32_t b = a + 1; b <= step; b++) {
                if (!is_needed(graph, a, step) || !is_needed(graph, b, step) ||
                    !overlap(&plan->tensors[a], &plan->tensors[b]))
                    continue;
                assert_true(b == step && may_replace(plan, graph, a, step));
                replaced++;
            }
    for (uint32_t i = format == FORMAT_F32 ? 1 : 0; i + 1 < graph->count; i++) /* the slots outlive a run */
        assert_false(overlap(&plan->slots, &plan->tensors[i]));
    return replaced;
}

static size_t check_plan(const struct graph *graph, struct plan_options options) {
    struct test_memory memory;
    struct plan plan;
    resnet_error error;
    test_memory_init(&memory, 0xff);
    assert_status(RESNET_OK, plan_make(&plan, graph, options, &memory.allocator, &error), &error);
    assert_int_equal(plan.count, graph->count);
    check_strides(&plan, graph, options);
    uint32_t replaced = check_places(&plan, graph, options.format);
    for (uint32_t a = 0; !options.share && a + 1 < graph->count; a++)
        for (uint32_t b = 0; b < a; b++)
            assert_false(overlap(&plan.tensors[a], &plan.tensors[b]));
    assert_true(options.share || replaced == 0);
    size_t arena = plan.arena;
    plan_free(&plan, &memory.allocator);
    test_memory_check(&memory);
    return arena;
}

/* ---- Tests ---- */

static void test_random_networks(void **state) {
    (void)state;
    struct test_random random = {1};
    resnet_allocator allocator = memory_allocator(NULL);
    for (int i = 0; i < 300; i++) {
        resnet_config config = random_config(&random);
        struct graph graph = build(&config, test_between(&random, 1, 120), test_between(&random, 1, 120));
        struct plan_options options = {.format = (enum format)(i % FORMATS),
                                       .slots = test_between(&random, 1, 9),
                                       .group = test_between(&random, 1, 4),
                                       .scratch = 64 * test_below(&random, 100)};
        size_t apart = check_plan(&graph, options);
        options.share = true;
        assert_true(check_plan(&graph, options) < apart);
        graph_free(&graph, &allocator);
    }
}

static void test_tangles(void **state) {
    (void)state;
    struct test_random random = {2};
    for (int i = 0; i < 2000; i++) {
        struct node nodes[14];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        tangle(&graph, &random, test_between(&random, 2, COUNT(nodes)));
        for (int format = 0; format < FORMATS; format++) {
            check_plan(&graph, (struct plan_options){(enum format)format, .slots = 2, .group = 1, .share = true});
            check_plan(&graph, (struct plan_options){(enum format)format, .slots = 1, .group = 3, .share = false});
        }
    }
}

/* ResNet-50 holds 44 MB of activations; no more than the input and about three of the largest maps, of 3.2 MB each, are
 * needed at any time. In other formats they take half and a quarter of that, and the 0.6 MB of the input stay. */
static void test_sharing_saves(void **state) {
    (void)state;
    resnet_config config;
    assert_int_equal(resnet_config_preset("resnet50", &config, NULL), RESNET_OK);
    struct graph graph = build(&config, 224, 224);
    for (int format = 0; format < FORMATS; format++) {
        struct plan_options options = {.format = (enum format)format, .slots = 1, .group = 1};
        size_t apart = check_plan(&graph, options), input = format == FORMAT_F32 ? 0 : 224 * 224 * 3 * sizeof(float);
        options.share = true;
        size_t shared = check_plan(&graph, options);
        assert_true(apart > 40000000 / word_numbers((enum format)format) + input);
        assert_true(shared < 12000000 / word_numbers((enum format)format) + input);
    }
    resnet_allocator allocator = memory_allocator(NULL);
    graph_free(&graph, &allocator);
}

/* Sizes that wrap around in 32 or in 64 bits must be refused, not placed. */
static void test_too_large(void **state) {
    (void)state;
    static const struct {
        struct shape shape;
        uint32_t images;
    } cases[] = {
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX}, UINT32_MAX},
        {{1U << 31, 1U << 31, 4}, 1},
        {{1U << 20, 1U << 20, 1U << 12}, 1U << 12},
        {{UINT32_MAX, 1, UINT32_MAX}, 1},
    };
    for (size_t turn = 0; turn < COUNT(cases) * FORMATS; turn++) {
        size_t i = turn / FORMATS;
        struct node nodes[2];
        struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
        struct test_memory memory;
        struct plan plan;
        resnet_error error;
        test_memory_init(&memory, 0);
        graph_input(&graph, cases[i].shape);
        graph_global_avgpool(&graph, 0, "avgpool");
        struct plan_options options = {(enum format)(turn % FORMATS), .slots = cases[i].images, .group = 1,
                                       .share = true};
        assert_status(RESNET_ERROR_MEMORY, plan_make(&plan, &graph, options, &memory.allocator, &error), &error);
        assert_non_null(strstr(error.message, "input"));
        assert_null(plan.tensors);
        test_memory_check(&memory);
    }
}

static void test_no_memory(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    struct graph graph = build(&config, 8, 8);
    for (int later = 0; later < 2; later++)
        for (size_t call = 1; call <= 2; call++) {
            struct test_memory memory;
            struct plan plan;
            resnet_error error;
            test_memory_init(&memory, 0);
            memory.refuse = call;
            memory.refuse_later = later;
            struct plan_options options = {.slots = 1, .group = 1, .share = true};
            assert_status(RESNET_ERROR_MEMORY, plan_make(&plan, &graph, options, &memory.allocator, &error), &error);
            test_memory_check(&memory);
        }
    resnet_allocator allocator = memory_allocator(NULL);
    graph_free(&graph, &allocator);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_networks), cmocka_unit_test(test_tangles),   cmocka_unit_test(test_sharing_saves),
        cmocka_unit_test(test_too_large),       cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
