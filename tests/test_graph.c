/* test_graph.c - the layer-graph builder: shapes, order, what a config may say, and its names. */
#include "graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support.h"

static struct graph build(const resnet_config *config, uint32_t height, uint32_t width) {
    struct graph graph;
    resnet_error error;
    resnet_allocator allocator = memory_allocator(NULL);
    struct shape input = {height, width, config->in_channels};
    assert_status(RESNET_OK, graph_build(&graph, config, input, &allocator, &error), &error);
    return graph;
}

static void free_graph(struct graph *graph) {
    resnet_allocator allocator = memory_allocator(NULL);
    graph_free(graph, &allocator);
    assert_null(graph->nodes);
    assert_int_equal(graph->count, 0);
}

static bool shapes_equal(struct shape a, struct shape b) {
    return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

/* ---- By hand ---- */

/* How often a window fits, counted one by one. */
static uint32_t count_windows(uint32_t size, uint32_t kernel, uint32_t stride) {
    uint32_t padded = size + kernel / 2 * 2, count = 0;
    for (uint32_t at = 0; at + kernel <= padded; at += stride)
        count++;
    return count;
}

static void test_shapes(void **state) {
    (void)state;
    struct test_random random = {1};
    for (int i = 0; i < 2000; i++) {
        struct node nodes[5];
        struct graph g = {.nodes = nodes, .capacity = COUNT(nodes)};
        struct shape in = {test_between(&random, 1, 70), test_between(&random, 1, 70), test_between(&random, 1, 16)};
        uint32_t kernel = 1 + 2 * test_below(&random, 4), stride = test_between(&random, 1, 3);
        uint32_t channels = test_between(&random, 1, 99);
        uint32_t x = graph_input(&g, in);
        x = graph_conv(&g, x, (struct conv){channels, kernel, stride, NO_NODE, true, 1, 1}, "layer3.12.conv1");
        struct shape out = {count_windows(in.height, kernel, stride), count_windows(in.width, kernel, stride),
                            channels};
        assert_int_equal(x, 1);
        assert_true(shapes_equal(nodes[1].in, in) && shapes_equal(nodes[1].out, out));
        assert_true(nodes[1].op == OP_CONV && nodes[1].relu && nodes[1].residual == NO_NODE && nodes[1].input == 0);
        assert_string_equal(nodes[1].name, "layer3.12.conv1");
        x = graph_maxpool(&g, x, 3, 2);
        struct shape pooled = {count_windows(out.height, 3, 2), count_windows(out.width, 3, 2), channels};
        assert_true(nodes[x].op == OP_MAXPOOL && shapes_equal(nodes[x].out, pooled));
        x = graph_global_avgpool(&g, x, "avgpool");
        assert_true(nodes[x].op == OP_GLOBAL_AVGPOOL && shapes_equal(nodes[x].out, (struct shape){1, 1, channels}));
        x = graph_linear(&g, x, 7, "fc");
        assert_true(nodes[x].op == OP_LINEAR && shapes_equal(nodes[x].out, (struct shape){1, 1, 7}));
        assert_int_equal(nodes[x].pad, 0);
        assert_int_equal(g.count, 5);
    }
}

static void test_counts(void **state) {
    (void)state;
    struct node conv = {.op = OP_CONV, .kernel = 3, .groups = 1, .in = {9, 9, 5}, .out = {4, 6, 7}};
    assert_int_equal(node_parameters(&conv), 7 * 5 * 9 + 2 * 7);
    assert_int_equal(node_macs(&conv), 7 * 5 * 9 * 4 * 6);
    struct node linear = {.op = OP_LINEAR, .kernel = 1, .groups = 1, .in = {1, 1, 5}, .out = {1, 1, 7}};
    assert_int_equal(node_parameters(&linear), 5 * 7 + 7);
    assert_int_equal(node_macs(&linear), 5 * 7);
    struct node pool = {.op = OP_MAXPOOL, .kernel = 3, .in = {9, 9, 5}, .out = {5, 5, 5}};
    assert_int_equal(node_parameters(&pool) + node_macs(&pool), 0);
    struct node huge = {
        .op = OP_CONV, .kernel = 7, .groups = 1, .in = {1, 1, 1U << 17}, .out = {1U << 13, 1U << 13, 1U << 15}};
    assert_true(node_macs(&huge) == (uint64_t)49 << 58); /* beyond 32 bits in every factor's product */
}

/* ---- Whole networks ---- */

/* Every node reads what was made before it; a residual has the shape of what it is added to, a gate one number for each
 * channel; names are unique. */
static void check_graph(const struct graph *graph) {
    assert_true(graph->count <= graph->capacity);
    assert_int_equal(graph->nodes[0].op, OP_INPUT);
    assert_int_equal(graph->nodes[0].input, NO_NODE);
    for (uint32_t i = 1; i < graph->count; i++) {
        const struct node *node = &graph->nodes[i];
        assert_true(node->input < i);
        assert_true(shapes_equal(node->in, graph->nodes[node->input].out));
        assert_true(node->residual == NO_NODE || node->residual < i);
        if (node->residual != NO_NODE)
            assert_true(shapes_equal(node->out, graph->nodes[node->residual].out));
        assert_int_equal(node->gate != NO_NODE, node->op == OP_SCALE);
        if (node->gate != NO_NODE)
            assert_true(shapes_equal(graph->nodes[node->gate].out, (struct shape){1, 1, node->out.channels}));
        assert_true(node->groups && node->out.channels % node->groups == 0 && node->in.channels % node->groups == 0);
        assert_true(node->out.height && node->out.width && node->out.channels);
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(node->name, graph->nodes[j].name);
    }
    assert_true(graph->nodes[graph->count - 1].floats);
}

static void test_random_networks(void **state) {
    (void)state;
    struct test_random random = {2};
    for (int i = 0; i < 300; i++) {
        resnet_config config = test_any_config(&random);
        struct graph graph = build(&config, test_between(&random, 1, 300), test_between(&random, 1, 300));
        uint32_t blocks = config.blocks[0] + config.blocks[1] + config.blocks[2] + config.blocks[3], ends = 0;
        check_graph(&graph);
        for (uint32_t n = 0; n < graph.count; n++)
            ends += graph.nodes[n].residual != NO_NODE && graph.nodes[n].relu;
        assert_int_equal(ends, blocks); /* each block ends with an add and a ReLU */
        assert_int_equal(graph.nodes[graph.count - 1].op,
                         config.head == RESNET_HEAD_NONE ? OP_GLOBAL_AVGPOOL : OP_LINEAR);
        free_graph(&graph);
    }
}

/* Longest names and most nodes that a config can ask for. */
static void test_largest_graph(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    config.block = RESNET_BLOCK_BOTTLENECK;
    config.base_width = 8;
    config.stem = RESNET_STEM_DEEP;
    config.shortcut = RESNET_SHORTCUT_AVERAGE;
    config.attention = RESNET_ATTENTION_SE;
    config.attention_width = 1;
    for (int stage = 0; stage < 4; stage++)
        config.blocks[stage] = 1024;
    struct graph graph = build(&config, 16384, 1);
    assert_true(graph.count <= graph.capacity);
    assert_string_equal(graph.nodes[graph.count - 6].name, "layer4.1023.se.mean");
    assert_string_equal(graph.nodes[graph.count - 7].name, "layer4.1023.conv3");
    free_graph(&graph);
}

/* The stride of a bottleneck sits in the 3x3, or in the first 1x1; the shortcut has the same. */
static void test_stride_place(void **state) {
    (void)state;
    for (int v1 = 0; v1 < 2; v1++) {
        resnet_config config = test_tiny_config();
        config.block = RESNET_BLOCK_BOTTLENECK;
        config.blocks[1] = 1;
        config.stride_at = v1 ? RESNET_STRIDE_AT_1X1 : RESNET_STRIDE_AT_3X3;
        struct graph graph = build(&config, 64, 64);
        for (uint32_t i = 0; i < graph.count; i++) {
            const struct node *node = &graph.nodes[i];
            if (strncmp(node->name, "layer2.0.", 9) != 0)
                continue;
            const char *part = node->name + 9;
            bool strides = strcmp(part, "downsample") == 0 || strcmp(part, v1 ? "conv1" : "conv2") == 0;
            assert_int_equal(node->stride, strides ? 2 : 1);
        }
        free_graph(&graph);
    }
}

/* "name < input": what a node reads, then "+ residual", "* gate", and what comes behind it: relu, sigmoid; f32 where it
 * is in a network of any format. */
static void check_wiring(const resnet_config *config, const char *const *expected, uint32_t count) {
    struct graph graph = build(config, 32, 32);
    assert_int_equal(graph.count, count + 1);
    for (uint32_t i = 1; i < graph.count; i++) {
        const struct node *node = &graph.nodes[i], *nodes = graph.nodes;
        char line[160];
        snprintf(line, sizeof line, "%s < %s%s%s%s%s%s%s%s", node->name, nodes[node->input].name,
                 node->gate == NO_NODE ? "" : " * ", node->gate == NO_NODE ? "" : nodes[node->gate].name,
                 node->residual == NO_NODE ? "" : " + ", node->residual == NO_NODE ? "" : nodes[node->residual].name,
                 node->relu ? " relu" : "", node->sigmoid ? " sigmoid" : "", node->floats ? " f32" : "");
        assert_string_equal(line, expected[i - 1]);
    }
    free_graph(&graph);
}

/* test_topology.c has every layer of every network; here is what they read. */
static void test_wiring(void **state) {
    (void)state;
    static const char *const deep[] = {
        "conv1.0 < input relu",
        "conv1.3 < conv1.0 relu",
        "conv1.6 < conv1.3 relu",
        "maxpool < conv1.6",
        "layer1.0.conv1 < maxpool relu",
        "layer1.0.conv2 < layer1.0.conv1",
        "layer1.0.se.mean < layer1.0.conv2 f32",
        "layer1.0.se.fc1 < layer1.0.se.mean relu f32",
        "layer1.0.se.fc2 < layer1.0.se.fc1 sigmoid f32",
        "layer1.0.se < layer1.0.conv2 * layer1.0.se.fc2 + maxpool relu",
        "layer2.0.downsample.0 < layer1.0.se",
        "layer2.0.downsample < layer2.0.downsample.0",
        "layer2.0.conv1 < layer1.0.se relu",
        "layer2.0.conv2 < layer2.0.conv1",
        "layer2.0.se.mean < layer2.0.conv2 f32",
        "layer2.0.se.fc1 < layer2.0.se.mean relu f32",
        "layer2.0.se.fc2 < layer2.0.se.fc1 sigmoid f32",
        "layer2.0.se < layer2.0.conv2 * layer2.0.se.fc2 + layer2.0.downsample relu",
        "avgpool < layer2.0.se",
        "fc < avgpool f32",
    };
    static const char *const zeros[] = {
        "conv1 < input relu",
        "layer1.0.conv1 < conv1 relu",
        "layer1.0.conv2 < layer1.0.conv1 + conv1 relu",
        "layer2.0.shortcut < layer1.0.conv2",
        "layer2.0.conv1 < layer1.0.conv2 relu",
        "layer2.0.conv2 < layer2.0.conv1 + layer2.0.shortcut relu",
        "avgpool < layer2.0.conv2 f32",
    };
    resnet_config config = test_tiny_config();
    config.blocks[1] = 1;
    config.stem = RESNET_STEM_CIFAR;
    config.shortcut = RESNET_SHORTCUT_ZEROS;
    config.head = RESNET_HEAD_NONE;
    config.classes = 0;
    check_wiring(&config, zeros, COUNT(zeros));
    config.base_width = 8;
    config.stem = RESNET_STEM_DEEP;
    config.shortcut = RESNET_SHORTCUT_AVERAGE;
    config.attention = RESNET_ATTENTION_SE;
    config.attention_width = 8;
    config.head = RESNET_HEAD_SIGMOID;
    config.classes = 2;
    check_wiring(&config, deep, COUNT(deep));
}

static void test_input_size(void **state) {
    (void)state;
    static const uint32_t sizes[][2] = {{0, 1}, {1, 0}, {16385, 1}, {1, 16385}, {UINT32_MAX, UINT32_MAX}};
    resnet_config config = test_tiny_config();
    resnet_allocator allocator = memory_allocator(NULL);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct graph graph;
        resnet_error error;
        struct shape input = {sizes[i][0], sizes[i][1], 3};
        assert_status(RESNET_ERROR_ARGUMENT, graph_build(&graph, &config, input, &allocator, &error), &error);
        assert_null(graph.nodes);
    }
}

static void test_no_memory(void **state) {
    (void)state;
    struct test_memory memory;
    test_memory_init(&memory, 0);
    memory.refuse = 1;
    resnet_config config = test_tiny_config();
    struct graph graph;
    resnet_error error;
    struct shape input = {8, 8, 3};
    assert_status(RESNET_ERROR_MEMORY, graph_build(&graph, &config, input, &memory.allocator, &error), &error);
    assert_null(graph.nodes);
    graph_free(&graph, &memory.allocator); /* allowed on what a failure leaves */
    test_memory_check(&memory);
}

/* ---- Configs ---- */

static const char *const names[] = {
    "resnet18",         "resnet34",         "resnet50",        "resnet101",        "resnet152",  "resnext50_32x4d",
    "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "resnet18d",  "resnet34d",
    "resnet50d",        "resnet101d",       "resnet152d",      "seresnet18",       "seresnet34", "seresnet50",
    "seresnet101",      "seresnet152",      "resnet20",        "resnet32",         "resnet44",   "resnet56",
    "resnet110",        "resnet1202"};

static resnet_config preset(const char *name) {
    resnet_config config;
    resnet_error error;
    assert_status(RESNET_OK, resnet_config_preset(name, &config, &error), &error);
    return config;
}

static void test_presets(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        resnet_config config = preset(names[i]);
        resnet_error error;
        assert_status(RESNET_OK, config_check(&config, &error), &error);
        assert_string_equal(config_name(&config), names[i]);
        bool cifar = config.stem == RESNET_STEM_CIFAR;
        uint32_t size = cifar ? 32 : 224;
        assert_true(config.height == size && config.width == size && config.in_channels == 3);
        assert_int_equal(config.classes, cifar ? 10 : 1000);
        assert_true(config.bn_epsilon == 1e-5F && config.stride_at == RESNET_STRIDE_AT_3X3);
        config.classes = 0; /* still that network */
        config.head = RESNET_HEAD_NONE;
        config.in_channels = 1;
        config.output_stride = 8;
        assert_string_equal(config_name(&config), names[i]);
        config.base_width = 32; /* no longer */
        assert_string_equal(config_name(&config), "resnet");
    }
}

/* A name says how many layers have weights: convolutions but for those of shortcuts, with a classifier. Deep stems have
 * two more, which do not count. */
static void test_depths(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        resnet_config config = preset(names[i]);
        struct graph graph = build(&config, 32, 32);
        unsigned depth = 0, layers = config.stem == RESNET_STEM_DEEP ? 0 - 2U : 0;
        assert_int_equal(sscanf(strpbrk(names[i], "0123456789"), "%u", &depth), 1);
        for (uint32_t n = 0; n < graph.count; n++)
            layers += node_has_weights(&graph.nodes[n]) && !strstr(graph.nodes[n].name, "downsample") &&
                      !strstr(graph.nodes[n].name, ".se.");
        assert_int_equal(layers, depth);
        free_graph(&graph);
    }
}

static void test_names_of_others(void **state) {
    (void)state;
    const resnet_config fifty = preset("resnet50");
    resnet_config wide = fifty, v1 = fifty, longer = fifty, basic = fifty, grouped = fifty, tiered = fifty;
    wide.width_per_group = 128;
    v1.stride_at = RESNET_STRIDE_AT_1X1;
    longer.blocks[2]++;
    basic.block = RESNET_BLOCK_BASIC;
    grouped.groups = 32;
    grouped.width_per_group = 4;
    tiered.stem = RESNET_STEM_TIERED;
    assert_string_equal(config_name(&wide), "wide_resnet50_2");
    assert_string_equal(config_name(&v1), "resnet");
    assert_string_equal(config_name(&longer), "resnet");
    assert_string_equal(config_name(&basic), "resnet34");
    assert_string_equal(config_name(&grouped), "resnext50_32x4d");
    assert_string_equal(config_name(&tiered), "resnet");
    resnet_config average = fifty, squeezed = preset("seresnet50");
    average.shortcut = RESNET_SHORTCUT_AVERAGE;
    squeezed.attention_width = 16;
    assert_string_equal(config_name(&average), "resnet");
    assert_string_equal(config_name(&squeezed), "resnet");
}

static void test_unknown_presets(void **state) {
    (void)state;
    static const char *const others[] = {"",           "resnet",     "resnet19",    "ResNet50",  "resnet50 ",
                                         "resnet50_d", "seresnet20", "resnetv2_50", "resnet1520"};
    resnet_config config = {.classes = 42};
    resnet_error error;
    for (size_t i = 0; i < COUNT(others); i++)
        assert_status(RESNET_ERROR_ARGUMENT, resnet_config_preset(others[i], &config, &error), &error);
    assert_non_null(strstr(error.message, "'resnet1520'"));
    assert_non_null(strstr(error.message, "resnet1202")); /* the last of those that there are */
    assert_status(RESNET_ERROR_ARGUMENT, resnet_config_preset(NULL, &config, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_config_preset("resnet50", NULL, &error), &error);
    assert_int_equal(config.classes, 42);
}

#define FIELD(name) offsetof(resnet_config, name)

static void test_config_check(void **state) {
    (void)state;
    static const struct {
        size_t field;
        uint32_t value;
        resnet_status status;
    } cases[] = {
        {FIELD(block), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(block), 2, RESNET_OK},
        {FIELD(block), 3, RESNET_ERROR_ARGUMENT},
        {FIELD(block), UINT32_MAX, RESNET_ERROR_ARGUMENT},
        {FIELD(blocks[0]), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(blocks[0]), 1024, RESNET_OK},
        {FIELD(blocks[0]), 1025, RESNET_ERROR_ARGUMENT},
        {FIELD(blocks[1]), 1024, RESNET_OK},
        {FIELD(blocks[1]), 1025, RESNET_ERROR_ARGUMENT},
        {FIELD(blocks[2]), 1, RESNET_ERROR_ARGUMENT}, /* after a stage without */
        {FIELD(blocks[3]), 1, RESNET_ERROR_ARGUMENT},
        {FIELD(base_width), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(base_width), 1, RESNET_OK},
        {FIELD(base_width), 4096, RESNET_OK},
        {FIELD(base_width), 4097, RESNET_ERROR_ARGUMENT},
        {FIELD(width_per_group), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(width_per_group), 1, RESNET_OK}, /* basic blocks do not use it */
        {FIELD(width_per_group), 4097, RESNET_ERROR_ARGUMENT},
        {FIELD(groups), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(groups), 2, RESNET_ERROR_UNSUPPORTED}, /* in basic blocks */
        {FIELD(groups), 4097, RESNET_ERROR_ARGUMENT},
        {FIELD(stride_at), 1, RESNET_OK},
        {FIELD(stride_at), 2, RESNET_ERROR_ARGUMENT},
        {FIELD(stem), RESNET_STEM_DEEP, RESNET_ERROR_UNSUPPORTED}, /* of base width 4 */
        {FIELD(stem), RESNET_STEM_TIERED, RESNET_ERROR_UNSUPPORTED},
        {FIELD(stem), RESNET_STEM_CIFAR, RESNET_OK},
        {FIELD(stem), 4, RESNET_ERROR_ARGUMENT},
        {FIELD(shortcut), RESNET_SHORTCUT_AVERAGE, RESNET_OK},
        {FIELD(shortcut), RESNET_SHORTCUT_ZEROS, RESNET_OK},
        {FIELD(shortcut), 3, RESNET_ERROR_ARGUMENT},
        {FIELD(attention), RESNET_ATTENTION_SE, RESNET_ERROR_ARGUMENT}, /* without a width */
        {FIELD(attention), 2, RESNET_ERROR_ARGUMENT},
        {FIELD(attention_width), 1, RESNET_ERROR_ARGUMENT}, /* without attention */
        {FIELD(head), RESNET_HEAD_SIGMOID, RESNET_OK},
        {FIELD(head), RESNET_HEAD_NONE, RESNET_ERROR_ARGUMENT}, /* with classes */
        {FIELD(head), 3, RESNET_ERROR_ARGUMENT},
        {FIELD(output_stride), 8, RESNET_ERROR_UNSUPPORTED}, /* of one stage */
        {FIELD(output_stride), 32, RESNET_ERROR_ARGUMENT},
        {FIELD(output_stride), UINT32_MAX, RESNET_ERROR_ARGUMENT},
        {FIELD(precision), RESNET_PRECISION_AUTO, RESNET_OK},
        {FIELD(precision), RESNET_PRECISION_BF16, RESNET_OK},
        {FIELD(precision), RESNET_PRECISION_INT8, RESNET_OK},
        {FIELD(precision), RESNET_PRECISION_BF16X3, RESNET_ERROR_ARGUMENT}, /* nothing is stored so */
        {FIELD(precision), UINT32_MAX, RESNET_ERROR_ARGUMENT},
        {FIELD(in_channels), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(in_channels), 16, RESNET_OK},
        {FIELD(in_channels), 17, RESNET_ERROR_ARGUMENT},
        {FIELD(height), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(height), 16384, RESNET_OK},
        {FIELD(height), 16385, RESNET_ERROR_ARGUMENT},
        {FIELD(width), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(width), 16385, RESNET_ERROR_ARGUMENT},
        {FIELD(classes), 0, RESNET_ERROR_ARGUMENT},
        {FIELD(classes), 1U << 20, RESNET_OK},
        {FIELD(classes), (1U << 20) + 1, RESNET_ERROR_ARGUMENT},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        resnet_config config = test_tiny_config();
        resnet_error error;
        memcpy((char *)&config + cases[i].field, &cases[i].value, sizeof cases[i].value);
        assert_status(cases[i].status, config_check(&config, &error), &error);
    }
}

static void test_epsilon(void **state) {
    (void)state;
    static const float wrong[] = {0, -1e-5F, 1.0000001F, NAN, INFINITY, -INFINITY}, right[] = {1e-30F, 1e-3F, 1};
    resnet_config config = test_tiny_config();
    resnet_error error;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        config.bn_epsilon = wrong[i];
        assert_status(RESNET_ERROR_ARGUMENT, config_check(&config, &error), &error);
    }
    for (size_t i = 0; i < COUNT(right); i++) {
        config.bn_epsilon = right[i];
        assert_status(RESNET_OK, config_check(&config, &error), &error);
    }
}

/* floor(planes * width_per_group / 64) must leave a channel in each stage. */
static void test_empty_bottlenecks(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    resnet_error error;
    config.block = RESNET_BLOCK_BOTTLENECK;
    config.base_width = 4;
    config.width_per_group = 15;
    assert_status(RESNET_ERROR_ARGUMENT, config_check(&config, &error), &error);
    config.width_per_group = 16;
    assert_status(RESNET_OK, config_check(&config, &error), &error);
}

/* Each kind of network with what it cannot be combined with. */
static void test_combinations(void **state) {
    (void)state;
    static const struct {
        const char *preset;
        size_t field;
        uint32_t value;
        resnet_status status;
        const char *message;
    } cases[] = {
        {"resnext50_32x4d", FIELD(width_per_group), 8, RESNET_OK, ""},
        {"resnext50_32x4d", FIELD(width_per_group), 16, RESNET_OK, ""},
        {"resnext50_32x4d", FIELD(width_per_group), 12, RESNET_ERROR_UNSUPPORTED, "groups of 12 channels in stage 1"},
        {"resnext50_32x4d", FIELD(width_per_group), 2, RESNET_ERROR_UNSUPPORTED, "groups of 2 channels in stage 1"},
        {"resnext50_32x4d", FIELD(base_width), 96, RESNET_ERROR_UNSUPPORTED, "groups of 6 channels in stage 1"},
        {"resnext50_32x4d", FIELD(base_width), 1, RESNET_ERROR_ARGUMENT, "leave a bottleneck empty"},
        {"resnext50_32x4d", FIELD(groups), 1, RESNET_OK, ""}, /* then any width will do */
        {"resnext50_32x4d", FIELD(groups), 4096, RESNET_OK, ""},
        {"wide_resnet50_2", FIELD(groups), 4096, RESNET_ERROR_ARGUMENT, "at most 2097152 channels"},
        {"resnext50_32x4d", FIELD(output_stride), 8, RESNET_OK, ""},
        {"resnet50", FIELD(output_stride), 16, RESNET_OK, ""},
        {"resnet50", FIELD(output_stride), 4, RESNET_ERROR_ARGUMENT, "output stride 4"},
        {"seresnet50", FIELD(output_stride), 8, RESNET_OK, ""},
        {"resnet34", FIELD(output_stride), 16, RESNET_ERROR_UNSUPPORTED, "output stride 16: only"},
        {"resnet50d", FIELD(output_stride), 8, RESNET_ERROR_UNSUPPORTED, "output stride 8: only"},
        {"resnet20", FIELD(output_stride), 8, RESNET_ERROR_UNSUPPORTED, "output stride 8: only"},
        {"resnet50", FIELD(shortcut), RESNET_SHORTCUT_ZEROS, RESNET_ERROR_UNSUPPORTED, "between basic blocks only"},
        {"resnet50d", FIELD(base_width), 60, RESNET_ERROR_UNSUPPORTED, "a deep stem of base width 60"},
        {"resnet50d", FIELD(stem), RESNET_STEM_TIERED, RESNET_OK, ""},
        {"seresnet50", FIELD(attention_width), 0, RESNET_ERROR_ARGUMENT, "attention width: 0"},
        {"seresnet50", FIELD(attention_width), 4097, RESNET_ERROR_ARGUMENT, "attention width: 4097"},
        {"seresnet50", FIELD(attention), RESNET_ATTENTION_NONE, RESNET_ERROR_ARGUMENT, "attention width: 8"},
        {"resnet50", FIELD(head), RESNET_HEAD_NONE, RESNET_ERROR_ARGUMENT, "classes of a network without a head: 1000"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        resnet_config config = preset(cases[i].preset);
        resnet_error error = {RESNET_OK, ""};
        memcpy((char *)&config + cases[i].field, &cases[i].value, sizeof cases[i].value);
        assert_status(cases[i].status, config_check(&config, &error), &error);
        if (!strstr(error.message, cases[i].message))
            fail_msg("%s: '%s' instead of '...%s...'", cases[i].preset, error.message, cases[i].message);
    }
    resnet_config without_pool = preset("resnet50");
    without_pool.stem = RESNET_STEM_CIFAR;
    without_pool.output_stride = 8;
    assert_int_equal(config_check(&without_pool, NULL), RESNET_ERROR_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_random_networks),
        cmocka_unit_test(test_largest_graph),
        cmocka_unit_test(test_stride_place),
        cmocka_unit_test(test_wiring),
        cmocka_unit_test(test_input_size),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_depths),
        cmocka_unit_test(test_names_of_others),
        cmocka_unit_test(test_unknown_presets),
        cmocka_unit_test(test_config_check),
        cmocka_unit_test(test_epsilon),
        cmocka_unit_test(test_empty_bottlenecks),
        cmocka_unit_test(test_combinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
