/*
 * topology.c - what a ResNet is: the networks known by name as a table, and the function that builds a block.
 *
 * He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, table 1; details as in torchvision, and for what
 * torchvision does not have (deep stems, average pool shortcuts, squeeze-and-excitation) as in timm.
 */
#include "graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

#define MOST_PIXELS 16384U     /* of an input's side */
#define MOST_INNER  (1U << 21) /* channels of a bottleneck's 3x3 */

/* ---- Networks known by name ---- */

/* What sets a row of the table apart from the paper's ImageNet networks. */
enum variant { PLAIN, DEEP, SE, CIFAR };

#define BASIC      RESNET_BLOCK_BASIC
#define BOTTLENECK RESNET_BLOCK_BOTTLENECK

static const struct preset {
    const char *name;
    resnet_block block;
    uint32_t blocks[RESNET_MAX_STAGES];
    uint32_t groups, width_per_group;
    enum variant variant;
} presets[] = {
    {"resnet18", BASIC, {2, 2, 2, 2}, 1, 64, PLAIN},
    {"resnet34", BASIC, {3, 4, 6, 3}, 1, 64, PLAIN},
    {"resnet50", BOTTLENECK, {3, 4, 6, 3}, 1, 64, PLAIN},
    {"resnet101", BOTTLENECK, {3, 4, 23, 3}, 1, 64, PLAIN},
    {"resnet152", BOTTLENECK, {3, 8, 36, 3}, 1, 64, PLAIN},
    {"resnext50_32x4d", BOTTLENECK, {3, 4, 6, 3}, 32, 4, PLAIN},
    {"resnext101_32x8d", BOTTLENECK, {3, 4, 23, 3}, 32, 8, PLAIN},
    {"resnext101_64x4d", BOTTLENECK, {3, 4, 23, 3}, 64, 4, PLAIN},
    {"wide_resnet50_2", BOTTLENECK, {3, 4, 6, 3}, 1, 128, PLAIN},
    {"wide_resnet101_2", BOTTLENECK, {3, 4, 23, 3}, 1, 128, PLAIN},
    {"resnet18d", BASIC, {2, 2, 2, 2}, 1, 64, DEEP},
    {"resnet34d", BASIC, {3, 4, 6, 3}, 1, 64, DEEP},
    {"resnet50d", BOTTLENECK, {3, 4, 6, 3}, 1, 64, DEEP},
    {"resnet101d", BOTTLENECK, {3, 4, 23, 3}, 1, 64, DEEP},
    {"resnet152d", BOTTLENECK, {3, 8, 36, 3}, 1, 64, DEEP},
    {"seresnet18", BASIC, {2, 2, 2, 2}, 1, 64, SE},
    {"seresnet34", BASIC, {3, 4, 6, 3}, 1, 64, SE},
    {"seresnet50", BOTTLENECK, {3, 4, 6, 3}, 1, 64, SE},
    {"seresnet101", BOTTLENECK, {3, 4, 23, 3}, 1, 64, SE},
    {"seresnet152", BOTTLENECK, {3, 8, 36, 3}, 1, 64, SE},
    {"resnet20", BASIC, {3, 3, 3}, 1, 64, CIFAR},
    {"resnet32", BASIC, {5, 5, 5}, 1, 64, CIFAR},
    {"resnet44", BASIC, {7, 7, 7}, 1, 64, CIFAR},
    {"resnet56", BASIC, {9, 9, 9}, 1, 64, CIFAR},
    {"resnet110", BASIC, {18, 18, 18}, 1, 64, CIFAR},
    {"resnet1202", BASIC, {200, 200, 200}, 1, 64, CIFAR},
};
#define PRESETS (sizeof presets / sizeof *presets)

static resnet_config config_of(const struct preset *preset) {
    bool cifar = preset->variant == CIFAR;
    resnet_config config = {.block = preset->block,
                            .base_width = cifar ? 16 : 64,
                            .groups = preset->groups,
                            .width_per_group = preset->width_per_group,
                            .in_channels = 3,
                            .height = cifar ? 32 : 224,
                            .width = cifar ? 32 : 224,
                            .classes = cifar ? 10 : 1000,
                            .bn_epsilon = 1e-5F};
    memcpy(config.blocks, preset->blocks, sizeof config.blocks);
    if (preset->variant == DEEP) {
        config.stem = RESNET_STEM_DEEP;
        config.shortcut = RESNET_SHORTCUT_AVERAGE;
    } else if (preset->variant == SE) {
        config.attention = RESNET_ATTENTION_SE;
        config.attention_width = 8;
    } else if (cifar) {
        config.stem = RESNET_STEM_CIFAR;
        config.shortcut = RESNET_SHORTCUT_ZEROS;
    }
    return config;
}

resnet_status resnet_config_preset(const char *name, resnet_config *config, resnet_error *error) {
    if (!name || !config)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_config_preset: name and config must not be NULL");
    for (size_t i = 0; i < PRESETS; i++) {
        if (strcmp(name, presets[i].name) != 0)
            continue;
        *config = config_of(&presets[i]);
        return RESNET_OK;
    }
    return fail(error, RESNET_ERROR_ARGUMENT,
                "no network is called '%s'; there are resnet18 to resnet152, these with a d or se (resnet50d, "
                "seresnet50), resnext50_32x4d and wide_resnet50_2 with their larger kin, and resnet20 to resnet1202",
                name);
}

/* Whether they have the same layers, but for the input's channels, the head, and what a stage has for its stride. */
static bool is_same_network(const resnet_config *a, const resnet_config *b) {
    return a->block == b->block && memcmp(a->blocks, b->blocks, sizeof a->blocks) == 0 &&
           a->base_width == b->base_width && a->groups == b->groups && a->width_per_group == b->width_per_group &&
           a->stride_at == b->stride_at && a->stem == b->stem && a->shortcut == b->shortcut &&
           a->attention == b->attention && a->attention_width == b->attention_width;
}

const char *config_name(const resnet_config *config) {
    for (size_t i = 0; i < PRESETS; i++) {
        resnet_config known = config_of(&presets[i]);
        if (is_same_network(config, &known))
            return presets[i].name;
    }
    return "resnet";
}

/* ---- Layers ---- */

static uint32_t block_channels(const resnet_config *config, uint32_t planes) {
    return config->block == BASIC ? planes : 4 * planes;
}

/* Channels of each group of a bottleneck's 3x3. */
static uint32_t group_width(const resnet_config *config, uint32_t planes) {
    return (uint32_t)((uint64_t)planes * config->width_per_group / 64);
}

/* Where a block stands: stage and position in it, from 0, and what it makes of its input. */
struct place {
    uint32_t stage, index, planes, stride, dilation;
};

struct name {
    char text[sizeof((struct node *)0)->name];
};

static struct name name_of(struct place at, const char *layer) {
    struct name name;
    snprintf(name.text, sizeof name.text, "layer%u.%u.%s", at.stage + 1, at.index, layer);
    return name;
}

/* What a block adds to its branch: its input, in the shape of the branch's output. */
static uint32_t shortcut(struct graph *g, const resnet_config *config, uint32_t x, struct place at) {
    struct conv conv = {block_channels(config, at.planes), 1, at.stride, NO_NODE, false, 1, 1};
    if (at.stride == 1 && g->nodes[x].out.channels == conv.channels)
        return x;
    if (config->shortcut == RESNET_SHORTCUT_ZEROS)
        return graph_subsample(g, x, conv, name_of(at, "shortcut").text);
    if (config->shortcut == RESNET_SHORTCUT_AVERAGE && at.stride != 1) {
        x = graph_avgpool(g, x, at.stride, name_of(at, "downsample.0").text);
        conv.stride = 1;
    }
    return graph_conv(g, x, conv, name_of(at, "downsample").text);
}

/* A block's last convolution, `last`, without what comes behind the batch normalisation. */
static uint32_t branch(struct graph *g, const resnet_config *config, uint32_t x, struct place at, struct conv last) {
    if (config->block == BASIC) {
        x = graph_conv(g, x, (struct conv){at.planes, 3, at.stride, NO_NODE, true, 1, 1}, name_of(at, "conv1").text);
        last.kernel = 3;
        return graph_conv(g, x, last, name_of(at, "conv2").text);
    }
    uint32_t inner = group_width(config, at.planes) * config->groups;
    uint32_t first = config->stride_at == RESNET_STRIDE_AT_1X1 ? at.stride : 1, second = at.stride / first;
    x = graph_conv(g, x, (struct conv){inner, 1, first, NO_NODE, true, 1, 1}, name_of(at, "conv1").text);
    x = graph_conv(g, x, (struct conv){inner, 3, second, NO_NODE, true, config->groups, at.dilation},
                   name_of(at, "conv2").text);
    return graph_conv(g, x, last, name_of(at, "conv3").text);
}

/* x times what a small network makes of x's averages, as timm has it. */
static uint32_t squeeze_and_excite(struct graph *g, const resnet_config *config, uint32_t x, uint32_t residual,
                                   struct place at) {
    uint32_t channels = g->nodes[x].out.channels, squeezed = channels / 16;
    squeezed = squeezed > config->attention_width ? squeezed : config->attention_width;
    uint32_t mean = graph_global_avgpool(g, x, name_of(at, "se.mean").text);
    uint32_t inner = graph_linear(g, mean, squeezed, name_of(at, "se.fc1").text);
    uint32_t gate = graph_linear(g, inner, channels, name_of(at, "se.fc2").text);
    g->nodes[mean].floats = g->nodes[inner].floats = g->nodes[gate].floats = true;
    g->nodes[inner].relu = g->nodes[gate].sigmoid = true;
    return graph_scale(g, x, gate, residual, name_of(at, "se").text);
}

/* relu(branch(x) + shortcut(x)): the sum and the ReLU ride on the last step of the branch. */
static uint32_t block(struct graph *g, const resnet_config *config, uint32_t x, struct place at) {
    uint32_t residual = shortcut(g, config, x, at);
    bool has_attention = config->attention == RESNET_ATTENTION_SE;
    struct conv last = {
        block_channels(config, at.planes), 1, 1, has_attention ? NO_NODE : residual, !has_attention, 1, 1};
    x = branch(g, config, x, at, last);
    return has_attention ? squeeze_and_excite(g, config, x, residual, at) : x;
}

static uint32_t stem(struct graph *g, const resnet_config *config, uint32_t x) {
    uint32_t width = config->base_width;
    if (config->stem == RESNET_STEM_CIFAR)
        return graph_conv(g, x, (struct conv){width, 3, 1, NO_NODE, true, 1, 1}, "conv1");
    if (config->stem == RESNET_STEM_7X7) {
        x = graph_conv(g, x, (struct conv){width, 7, 2, NO_NODE, true, 1, 1}, "conv1");
    } else {
        uint32_t first = config->stem == RESNET_STEM_TIERED ? width / 8 * 3 : width / 2;
        x = graph_conv(g, x, (struct conv){first, 3, 2, NO_NODE, true, 1, 1}, "conv1.0");
        x = graph_conv(g, x, (struct conv){width / 2, 3, 1, NO_NODE, true, 1, 1}, "conv1.3");
        x = graph_conv(g, x, (struct conv){width, 3, 1, NO_NODE, true, 1, 1}, "conv1.6");
    }
    return graph_maxpool(g, x, 3, 2);
}

/* The blocks of a stage. Where it dilates, its first block still has the dilation of the stage before, as in
 * torchvision. */
static uint32_t stage(struct graph *g, const resnet_config *config, uint32_t x, struct place *at) {
    bool dilates = config->output_stride && (at->stage == 3 || (at->stage == 2 && config->output_stride == 8));
    uint32_t dilation = at->dilation;
    at->planes = config->base_width << at->stage;
    at->stride = at->stage && !dilates ? 2 : 1;
    if (dilates)
        dilation *= 2;
    for (at->index = 0; at->index < config->blocks[at->stage]; at->index++) {
        x = block(g, config, x, *at);
        at->stride = 1;
        at->dilation = dilation;
    }
    return x;
}

static void network(struct graph *g, const resnet_config *config, struct shape input) {
    uint32_t x = stem(g, config, graph_input(g, input));
    struct place at = {.dilation = 1};
    for (at.stage = 0; at.stage < RESNET_MAX_STAGES; at.stage++) {
        x = stage(g, config, x, &at);
        g->stages[at.stage] = config->blocks[at.stage] ? x : NO_NODE;
    }
    x = graph_global_avgpool(g, x, "avgpool");
    if (config->head != RESNET_HEAD_NONE)
        x = graph_linear(g, x, config->classes, "fc");
    g->nodes[x].floats = true;
}

/* The input; up to four layers of a stem; of a block, two of a shortcut, three convolutions and four of attention;
 * average pool and classifier. */
static uint32_t most_nodes(const resnet_config *config) {
    uint32_t blocks = 0;
    for (uint32_t s = 0; s < RESNET_MAX_STAGES; s++)
        blocks += config->blocks[s];
    return 7 + (config->attention ? 9 : 5) * blocks;
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

/* ---- Which configs are sound ---- */

struct range {
    const char *name;
    uint32_t value, low, high;
};

static resnet_status check_ranges(const resnet_config *config, resnet_error *error) {
    const uint32_t classes = config->head != RESNET_HEAD_NONE, squeezed = config->attention != RESNET_ATTENTION_NONE;
    const struct range ranges[] = {
        {"block kind (1 basic, 2 bottleneck)", config->block, 1, 2},
        {"stride place (0 the 3x3, 1 the first 1x1)", config->stride_at, 0, 1},
        {"stem kind", config->stem, 0, RESNET_STEM_CIFAR},
        {"shortcut kind", config->shortcut, 0, RESNET_SHORTCUT_ZEROS},
        {"attention kind", config->attention, 0, RESNET_ATTENTION_SE},
        {"head kind", config->head, 0, RESNET_HEAD_NONE},
        {"blocks in the first stage", config->blocks[0], 1, 1024},
        {"blocks in the second stage", config->blocks[1], 0, 1024},
        {"blocks in the third stage", config->blocks[2], 0, 1024},
        {"blocks in the fourth stage", config->blocks[3], 0, 1024},
        {"base width", config->base_width, 1, 4096},
        {"width per group", config->width_per_group, 1, 4096},
        {"groups", config->groups, 1, 4096},
        {"attention width", config->attention_width, squeezed, squeezed * 4096},
        {"input channels", config->in_channels, 1, RESNET_MAX_CHANNELS},
        {"input height", config->height, 1, MOST_PIXELS},
        {"input width", config->width, 1, MOST_PIXELS},
        {classes ? "classes" : "classes of a network without a head", config->classes, classes, classes << 20},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return fail(error, RESNET_ERROR_ARGUMENT, "%s: %u is not between %u and %u", ranges[i].name,
                        ranges[i].value, ranges[i].low, ranges[i].high);
    if ((unsigned)config->precision > RESNET_PRECISION_INT8)
        return fail(error, RESNET_ERROR_ARGUMENT, "weights are stored as f32, bf16 or int8, not as %s",
                    resnet_precision_name(config->precision));
    if (!isfinite(config->bn_epsilon) || config->bn_epsilon <= 0 || config->bn_epsilon > 1)
        return fail(error, RESNET_ERROR_ARGUMENT, "batch normalisation's epsilon %g is not above 0 and at most 1",
                    (double)config->bn_epsilon);
    return RESNET_OK;
}

static resnet_status check_stages(const resnet_config *config, resnet_error *error) {
    for (uint32_t s = 1; s < RESNET_MAX_STAGES; s++)
        if (config->blocks[s] && !config->blocks[s - 1])
            return fail(error, RESNET_ERROR_ARGUMENT, "stage %u has blocks after a stage without", s + 1);
    return RESNET_OK;
}

static resnet_status check_bottlenecks(const resnet_config *config, resnet_error *error) {
    for (uint32_t s = 0; s < RESNET_MAX_STAGES && config->blocks[s] && config->block == BOTTLENECK; s++) {
        uint32_t width = group_width(config, config->base_width << s);
        if (!width)
            return fail(error, RESNET_ERROR_ARGUMENT, "base width %u and width per group %u leave a bottleneck empty",
                        config->base_width, config->width_per_group);
        if (width > MOST_INNER / config->groups)
            return fail(error, RESNET_ERROR_ARGUMENT,
                        "%u groups of %u channels in stage %u; at most %u channels in all", config->groups, width,
                        s + 1, MOST_INNER);
        if (config->groups > 1 && width != 4 && width != 8 && width % 16 != 0)
            return fail(error, RESNET_ERROR_UNSUPPORTED,
                        "groups of %u channels in stage %u are not supported; 4, 8 and multiples of 16 are", width,
                        s + 1);
    }
    return RESNET_OK;
}

static resnet_status check_dilation(const resnet_config *config, resnet_error *error) {
    uint32_t stride = config->output_stride;
    if (!stride)
        return RESNET_OK;
    if (stride != 8 && stride != 16)
        return fail(error, RESNET_ERROR_ARGUMENT, "output stride %u is neither 0 (as it comes) nor 8 or 16", stride);
    if (!config->blocks[3] || config->block != BOTTLENECK || config->stem == RESNET_STEM_CIFAR ||
        config->shortcut != RESNET_SHORTCUT_PROJECTION)
        return fail(error, RESNET_ERROR_UNSUPPORTED,
                    "output stride %u: only networks of four stages of bottlenecks with projection shortcuts dilate",
                    stride);
    return RESNET_OK;
}

resnet_status config_check(const resnet_config *config, resnet_error *error) {
    resnet_status status = check_ranges(config, error);
    if (status == RESNET_OK)
        status = check_stages(config, error);
    if (status == RESNET_OK)
        status = check_bottlenecks(config, error);
    if (status == RESNET_OK)
        status = check_dilation(config, error);
    if (status != RESNET_OK)
        return status;
    if (config->block == BASIC && config->groups != 1)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "%u groups in basic blocks are not supported; only 1 is",
                    config->groups);
    if (config->block != BASIC && config->shortcut == RESNET_SHORTCUT_ZEROS)
        return fail(error, RESNET_ERROR_UNSUPPORTED, "shortcuts of zeros are supported between basic blocks only");
    bool is_deep = config->stem == RESNET_STEM_DEEP || config->stem == RESNET_STEM_TIERED;
    if (is_deep && config->base_width % 8 != 0)
        return fail(error, RESNET_ERROR_UNSUPPORTED,
                    "a deep stem of base width %u is not supported; multiples of 8 are", config->base_width);
    return RESNET_OK;
}
