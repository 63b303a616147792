/*
 * topology.c - what a ResNet is: the five networks as a table, and the function that builds a block.
 *
 * He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, table 1; details as in torchvision.
 */
#include "graph.h"

#include "error.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    resnet_block block;
    uint32_t blocks[RESNET_MAX_STAGES];
} presets[] = {
    {"resnet18", RESNET_BLOCK_BASIC, {2, 2, 2, 2}},        {"resnet34", RESNET_BLOCK_BASIC, {3, 4, 6, 3}},
    {"resnet50", RESNET_BLOCK_BOTTLENECK, {3, 4, 6, 3}},   {"resnet101", RESNET_BLOCK_BOTTLENECK, {3, 4, 23, 3}},
    {"resnet152", RESNET_BLOCK_BOTTLENECK, {3, 8, 36, 3}},
};
#define PRESETS     (sizeof presets / sizeof *presets)
#define MOST_PIXELS 16384U /* of an input's side */

resnet_status resnet_config_preset(const char *name, resnet_config *config, resnet_error *error) {
    if (!name || !config)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_config_preset: name and config must not be NULL");
    for (size_t i = 0; i < PRESETS; i++) {
        if (strcmp(name, presets[i].name) != 0)
            continue;
        *config = (resnet_config){.block = presets[i].block,
                                  .base_width = 64,
                                  .groups = 1,
                                  .width_per_group = 64,
                                  .in_channels = 3,
                                  .height = 224,
                                  .width = 224,
                                  .classes = 1000,
                                  .bn_epsilon = 1e-5F};
        memcpy(config->blocks, presets[i].blocks, sizeof config->blocks);
        return RESNET_OK;
    }
    return fail(error, RESNET_ERROR_ARGUMENT,
                "no network is called '%s'; there are resnet18, resnet34, resnet50, resnet101 and resnet152", name);
}

const char *config_name(const resnet_config *config) {
    bool standard = config->base_width == 64 && config->width_per_group == 64 && config->groups == 1 &&
                    config->stride_at == RESNET_STRIDE_AT_3X3;
    for (size_t i = 0; standard && i < PRESETS; i++)
        if (config->block == presets[i].block && memcmp(config->blocks, presets[i].blocks, sizeof config->blocks) == 0)
            return presets[i].name;
    return "resnet";
}

static uint32_t block_channels(const resnet_config *config, uint32_t planes) {
    return config->block == RESNET_BLOCK_BASIC ? planes : 4 * planes;
}

static uint32_t inner_width(const resnet_config *config, uint32_t planes) {
    return (uint32_t)((uint64_t)planes * config->width_per_group / 64) * config->groups;
}

/* Where a block stands: stage and position in it, from 0, and what it makes of its input. */
struct place {
    uint32_t stage, index, planes, stride;
};

static uint32_t basic_branch(struct graph *g, uint32_t x, uint32_t shortcut, struct place at) {
    x = graph_conv(g, x, (struct conv){at.planes, 3, at.stride, NO_NODE, true}, "layer%u.%u.conv1", at.stage + 1,
                   at.index);
    return graph_conv(g, x, (struct conv){at.planes, 3, 1, shortcut, true}, "layer%u.%u.conv2", at.stage + 1, at.index);
}

static uint32_t bottleneck_branch(struct graph *g, const resnet_config *config, uint32_t x, uint32_t shortcut,
                                  struct place at) {
    uint32_t inner = inner_width(config, at.planes);
    uint32_t first = config->stride_at == RESNET_STRIDE_AT_1X1 ? at.stride : 1;
    uint32_t second = at.stride / first;
    x = graph_conv(g, x, (struct conv){inner, 1, first, NO_NODE, true}, "layer%u.%u.conv1", at.stage + 1, at.index);
    x = graph_conv(g, x, (struct conv){inner, 3, second, NO_NODE, true}, "layer%u.%u.conv2", at.stage + 1, at.index);
    return graph_conv(g, x, (struct conv){4 * at.planes, 1, 1, shortcut, true}, "layer%u.%u.conv3", at.stage + 1,
                      at.index);
}

/* relu(branch(x) + shortcut(x)): the add and the relu ride on the branch's last convolution. */
static uint32_t block(struct graph *g, const resnet_config *config, uint32_t x, struct place at) {
    uint32_t channels = block_channels(config, at.planes);
    uint32_t shortcut = x;
    if (at.stride != 1 || g->nodes[x].out.channels != channels)
        shortcut = graph_conv(g, x, (struct conv){channels, 1, at.stride, NO_NODE, false}, "layer%u.%u.downsample",
                              at.stage + 1, at.index);
    return config->block == RESNET_BLOCK_BASIC ? basic_branch(g, x, shortcut, at)
                                               : bottleneck_branch(g, config, x, shortcut, at);
}

static void network(struct graph *g, const resnet_config *config, struct shape input) {
    uint32_t x = graph_input(g, input);
    x = graph_conv(g, x, (struct conv){config->base_width, 7, 2, NO_NODE, true}, "conv1");
    x = graph_maxpool(g, x, 3, 2);
    for (uint32_t stage = 0; stage < RESNET_MAX_STAGES; stage++)
        for (uint32_t i = 0; i < config->blocks[stage]; i++)
            x = block(g, config, x, (struct place){stage, i, config->base_width << stage, stage && !i ? 2 : 1});
    graph_linear(g, graph_avgpool(g, x), config->classes);
}

/* input, stem and pool, up to four convolutions a block, average pool and classifier */
static uint32_t most_nodes(const resnet_config *config) {
    uint32_t blocks = 0;
    for (uint32_t stage = 0; stage < RESNET_MAX_STAGES; stage++)
        blocks += config->blocks[stage];
    return 5 + 4 * blocks;
}

resnet_status graph_build(struct graph *graph, const resnet_config *config, struct shape input,
                          const resnet_allocator *allocator, resnet_error *error) {
    *graph = (struct graph){0};
    resnet_status status = config_check(config, error);
    if (status != RESNET_OK)
        return status;
    if (!input.height || input.height > MOST_PIXELS || !input.width || input.width > MOST_PIXELS)
        return fail(error, RESNET_ERROR_ARGUMENT, "an input of %u x %u pixels; each side is 1 to %u", input.height,
                    input.width, MOST_PIXELS);
    uint32_t capacity = most_nodes(config);
    graph->nodes = memory_get(allocator, capacity * sizeof *graph->nodes);
    if (!graph->nodes)
        return fail_memory(error, "the layer graph", capacity * sizeof *graph->nodes);
    graph->capacity = capacity;
    network(graph, config, input);
    return RESNET_OK;
}

struct range {
    const char *name;
    uint32_t value, low, high;
};

static resnet_status check_ranges(const resnet_config *config, resnet_error *error) {
    const struct range ranges[] = {
        {"blocks in the first stage", config->blocks[0], 1, 1024},
        {"blocks in the second stage", config->blocks[1], 0, 1024},
        {"blocks in the third stage", config->blocks[2], 0, 1024},
        {"blocks in the fourth stage", config->blocks[3], 0, 1024},
        {"base width", config->base_width, 1, 4096},
        {"width per group", config->width_per_group, 1, 4096},
        {"groups", config->groups, 1, 4096},
        {"input channels", config->in_channels, 1, RESNET_MAX_CHANNELS},
        {"input height", config->height, 1, MOST_PIXELS},
        {"input width", config->width, 1, MOST_PIXELS},
        {"classes", config->classes, 1, 1U << 20},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return fail(error, RESNET_ERROR_ARGUMENT, "%s: %u is not between %u and %u", ranges[i].name,
                        ranges[i].value, ranges[i].low, ranges[i].high);
    return RESNET_OK;
}

static resnet_status check_choices(const resnet_config *config, resnet_error *error) {
    if (config->block != RESNET_BLOCK_BASIC && config->block != RESNET_BLOCK_BOTTLENECK)
        return fail(error, RESNET_ERROR_ARGUMENT, "block kind %u is neither basic (1) nor bottleneck (2)",
                    (unsigned)config->block);
    if (config->stride_at != RESNET_STRIDE_AT_3X3 && config->stride_at != RESNET_STRIDE_AT_1X1)
        return fail(error, RESNET_ERROR_ARGUMENT, "stride place %u is neither the 3x3 (0) nor the first 1x1 (1)",
                    (unsigned)config->stride_at);
    if (config->stem != RESNET_STEM_7X7)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "stem kind %u is not supported yet; only 7x7 (0) is",
                    (unsigned)config->stem);
    if ((unsigned)config->precision > RESNET_PRECISION_INT8)
        return fail(error, RESNET_ERROR_ARGUMENT, "weights are stored as f32, bf16 or int8, not as %s",
                    resnet_precision_name(config->precision));
    if (config->groups != 1)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "%u groups are not supported yet; only 1 is", config->groups);
    return RESNET_OK;
}

resnet_status config_check(const resnet_config *config, resnet_error *error) {
    resnet_status status = check_choices(config, error);
    if (status == RESNET_OK)
        status = check_ranges(config, error);
    if (status != RESNET_OK)
        return status;
    for (uint32_t stage = 1; stage < RESNET_MAX_STAGES; stage++)
        if (config->blocks[stage] && !config->blocks[stage - 1])
            return fail(error, RESNET_ERROR_ARGUMENT, "stage %u has blocks after a stage without", stage + 1);
    for (uint32_t stage = 0; stage < RESNET_MAX_STAGES; stage++)
        if (config->block == RESNET_BLOCK_BOTTLENECK && !inner_width(config, config->base_width << stage))
            return fail(error, RESNET_ERROR_ARGUMENT, "base width %u and width per group %u leave a bottleneck empty",
                        config->base_width, config->width_per_group);
    if (!isfinite(config->bn_epsilon) || config->bn_epsilon <= 0 || config->bn_epsilon > 1)
        return fail(error, RESNET_ERROR_ARGUMENT, "batch normalisation's epsilon %g is not above 0 and at most 1",
                    (double)config->bn_epsilon);
    return RESNET_OK;
}
