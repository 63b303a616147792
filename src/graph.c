/* graph.c - the layer-graph builder: nodes in execution order, shapes inferred as they are added. */
#include "graph.h"

#include <stdarg.h>
#include <stdio.h>

void graph_free(struct graph *graph, const resnet_allocator *allocator) {
    memory_put(allocator, graph->nodes, graph->capacity * sizeof *graph->nodes);
    *graph = (struct graph){0};
}

static uint32_t append(struct graph *graph, struct node node, const char *name, va_list arguments) {
    vsnprintf(node.name, sizeof node.name, name, arguments);
    graph->nodes[graph->count] = node;
    return graph->count++;
}

static uint32_t append_named(struct graph *graph, struct node node, const char *name, ...)
    __attribute__((format(printf, 3, 4)));
static uint32_t append_named(struct graph *graph, struct node node, const char *name, ...) {
    va_list arguments;
    va_start(arguments, name);
    uint32_t id = append(graph, node, name, arguments);
    va_end(arguments);
    return id;
}

/* PyTorch's output size in floor mode; at least 1 for every size >= 1, since kernel <= 2 * pad + 1. */
static uint32_t window_count(uint32_t size, uint32_t kernel, uint32_t stride, uint32_t pad) {
    return (size + 2 * pad - kernel) / stride + 1;
}

/* A window slid over the map of `input`, padded by half its size. */
static struct node window(const struct graph *graph, enum op op, uint32_t input, struct conv conv) {
    struct shape in = graph->nodes[input].out;
    uint32_t pad = conv.kernel / 2;
    return (struct node){
        .op = op,
        .input = input,
        .residual = conv.residual,
        .kernel = conv.kernel,
        .stride = conv.stride,
        .pad = pad,
        .relu = conv.relu,
        .in = in,
        .out = {window_count(in.height, conv.kernel, conv.stride, pad),
                window_count(in.width, conv.kernel, conv.stride, pad), conv.channels},
    };
}

uint32_t graph_input(struct graph *graph, struct shape shape) {
    struct node node = {.op = OP_INPUT, .input = NO_NODE, .residual = NO_NODE, .out = shape};
    return append_named(graph, node, "input");
}

uint32_t graph_conv(struct graph *graph, uint32_t input, struct conv conv, const char *name, ...) {
    va_list arguments;
    va_start(arguments, name);
    uint32_t id = append(graph, window(graph, OP_CONV, input, conv), name, arguments);
    va_end(arguments);
    return id;
}

uint32_t graph_maxpool(struct graph *graph, uint32_t input, uint32_t kernel, uint32_t stride) {
    struct conv pool = {graph->nodes[input].out.channels, kernel, stride, NO_NODE, false};
    return append_named(graph, window(graph, OP_MAXPOOL, input, pool), "maxpool");
}

uint32_t graph_avgpool(struct graph *graph, uint32_t input) {
    struct shape in = graph->nodes[input].out;
    struct node node = {.op = OP_AVGPOOL, .input = input, .residual = NO_NODE, .in = in, .out = {1, 1, in.channels}};
    return append_named(graph, node, "avgpool");
}

uint32_t graph_linear(struct graph *graph, uint32_t input, uint32_t channels) {
    struct conv linear = {channels, 1, 1, NO_NODE, false};
    return append_named(graph, window(graph, OP_LINEAR, input, linear), "fc");
}

uint64_t node_weights(const struct node *node) {
    return (uint64_t)node->out.channels * node->in.channels * node->kernel * node->kernel;
}

size_t node_filter(const struct node *node) {
    return (size_t)node->in.channels * node->kernel * node->kernel;
}

uint64_t node_parameters(const struct node *node) {
    switch (node->op) {
    case OP_CONV: /* and the scale and shift of batch normalisation */
        return node_weights(node) + 2 * (uint64_t)node->out.channels;
    case OP_LINEAR:
        return node_weights(node) + node->out.channels;
    default:
        return 0;
    }
}

uint64_t node_macs(const struct node *node) {
    if (node->op != OP_CONV && node->op != OP_LINEAR)
        return 0;
    return node_weights(node) * node->out.height * node->out.width;
}
