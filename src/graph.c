/* graph.c - the layer-graph builder: nodes in execution order, shapes inferred as they are added. */
#include "graph.h"

#include <stdio.h>

#include "split.h"

void graph_free(struct graph *graph, const resnet_allocator *allocator) {
    memory_put(allocator, graph->nodes, graph->capacity * sizeof *graph->nodes);
    *graph = (struct graph){0};
}

static uint32_t append(struct graph *graph, struct node node, const char *name) {
    snprintf(node.name, sizeof node.name, "%s", name);
    graph->nodes[graph->count] = node;
    return graph->count++;
}

/* PyTorch's output size in floor mode; at least 1 for every size >= 1, since the window spans at most 2 * pad + 1. */
static uint32_t window_count(uint32_t size, uint32_t span, uint32_t stride, uint32_t pad) {
    return (size + 2 * pad - span) / stride + 1;
}

/* A node over all of its input's map, which it leaves as it is. */
static struct node node_over(const struct graph *graph, enum op op, uint32_t input) {
    struct shape in = graph->nodes[input].out;
    return (struct node){.op = op,
                         .input = input,
                         .residual = NO_NODE,
                         .gate = NO_NODE,
                         .kernel = 1,
                         .stride = 1,
                         .groups = 1,
                         .dilation = 1,
                         .in = in,
                         .out = in};
}

/* A window slid over the map of `input`, padded by half its size. */
static struct node window(const struct graph *graph, enum op op, uint32_t input, struct conv conv) {
    struct node node = node_over(graph, op, input);
    node.residual = conv.residual;
    node.kernel = conv.kernel;
    node.stride = conv.stride;
    node.groups = conv.groups;
    node.dilation = conv.dilation;
    node.pad = conv.kernel / 2 * node.dilation;
    node.relu = conv.relu;
    uint32_t span = (conv.kernel - 1) * node.dilation + 1;
    node.out = (struct shape){window_count(node.in.height, span, conv.stride, node.pad),
                              window_count(node.in.width, span, conv.stride, node.pad), conv.channels};
    return node;
}

uint32_t graph_input(struct graph *graph, struct shape shape) {
    return append(graph, (struct node){.input = NO_NODE, .residual = NO_NODE, .gate = NO_NODE, .out = shape}, "input");
}

uint32_t graph_conv(struct graph *graph, uint32_t input, struct conv conv, const char *name) {
    return append(graph, window(graph, OP_CONV, input, conv), name);
}

uint32_t graph_maxpool(struct graph *graph, uint32_t input, uint32_t kernel, uint32_t stride) {
    struct conv pool = {graph->nodes[input].out.channels, kernel, stride, NO_NODE, false, 1, 1};
    return append(graph, window(graph, OP_MAXPOOL, input, pool), "maxpool");
}

uint32_t graph_avgpool(struct graph *graph, uint32_t input, uint32_t size, const char *name) {
    struct node node = node_over(graph, OP_AVGPOOL, input);
    node.kernel = node.stride = size;
    node.out.height = divide_up(node.in.height, size);
    node.out.width = divide_up(node.in.width, size);
    return append(graph, node, name);
}

uint32_t graph_global_avgpool(struct graph *graph, uint32_t input, const char *name) {
    struct node node = node_over(graph, OP_GLOBAL_AVGPOOL, input);
    node.out.height = node.out.width = 1;
    return append(graph, node, name);
}

uint32_t graph_linear(struct graph *graph, uint32_t input, uint32_t channels, const char *name) {
    return append(graph, window(graph, OP_LINEAR, input, (struct conv){channels, 1, 1, NO_NODE, false, 1, 1}), name);
}

uint32_t graph_subsample(struct graph *graph, uint32_t input, struct conv conv, const char *name) {
    struct node node = node_over(graph, OP_SUBSAMPLE, input);
    node.stride = conv.stride;
    node.out =
        (struct shape){divide_up(node.in.height, conv.stride), divide_up(node.in.width, conv.stride), conv.channels};
    return append(graph, node, name);
}

uint32_t graph_scale(struct graph *graph, uint32_t input, uint32_t gate, uint32_t residual, const char *name) {
    struct node node = node_over(graph, OP_SCALE, input);
    node.gate = gate;
    node.residual = residual;
    node.relu = true;
    return append(graph, node, name);
}

bool node_has_weights(const struct node *node) {
    return node->op == OP_CONV || node->op == OP_LINEAR;
}

bool node_reads_floats(const struct graph *graph, const struct node *node) {
    return node->input != NO_NODE && graph->nodes[node->input].floats;
}

uint32_t node_group_inputs(const struct node *node) {
    return node->in.channels / node->groups;
}

size_t node_filter(const struct node *node) {
    return (size_t)node_group_inputs(node) * node->kernel * node->kernel;
}

uint64_t node_weights(const struct node *node) {
    return (uint64_t)node->out.channels * node_filter(node);
}

uint64_t node_parameters(const struct node *node) {
    if (!node_has_weights(node))
        return 0;
    uint64_t vectors = node->op == OP_CONV ? 2 : 1; /* scale and shift of batch normalisation, or a bias */
    return node_weights(node) + vectors * node->out.channels;
}

uint64_t node_macs(const struct node *node) {
    return node_has_weights(node) ? node_weights(node) * node->out.height * node->out.width : 0;
}
