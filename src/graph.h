/*
 * graph.h - the layer-graph builder: nodes in execution order, shapes inferred as they are added.
 *
 * A node's id is its index, and names the tensor that it produces. A convolution carries its batch normalisation, its
 * optional residual and its optional ReLU, so that nothing has to discover fusion later:
 *
 *     y = relu(bn(conv(x)) + residual)
 */
#ifndef GRAPH_H
#define GRAPH_H

#include <stdbool.h>

#include "memory.h"
#include "resnet.h"

enum op { OP_INPUT, OP_CONV, OP_MAXPOOL, OP_AVGPOOL, OP_LINEAR };

#define NO_NODE UINT32_MAX

struct shape {
    uint32_t height, width, channels;
};

struct node {
    enum op op;
    uint32_t input;               /* id; NO_NODE for OP_INPUT */
    uint32_t residual;            /* id of a tensor of the output's shape, or NO_NODE */
    uint32_t kernel, stride, pad; /* square; 1, 1, 0 for OP_LINEAR */
    bool relu;
    struct shape in, out;
    char name[32]; /* torchvision's */
};

struct graph {
    struct node *nodes;
    uint32_t count, capacity;
};

/* The network that `config` names, for an input of height x width pixels. The last node is the classifier. Errors:
 * ARGUMENT (a field out of range), UNSUPPORTED, MEMORY. Owned by the caller until graph_free. */
resnet_status graph_build(struct graph *graph, const resnet_config *config, struct shape input,
                          const resnet_allocator *allocator, resnet_error *error);
void graph_free(struct graph *graph, const resnet_allocator *allocator);

/* How to add a convolution: kernel is square and odd, padded by kernel / 2. */
struct conv {
    uint32_t channels, kernel, stride, residual;
    bool relu;
};

/* Add a node; returns its id. graph->capacity must leave room, the name is printf's. */
uint32_t graph_input(struct graph *graph, struct shape shape);
uint32_t graph_conv(struct graph *graph, uint32_t input, struct conv conv, const char *name, ...)
    __attribute__((format(printf, 4, 5)));
uint32_t graph_maxpool(struct graph *graph, uint32_t input, uint32_t kernel, uint32_t stride);
uint32_t graph_avgpool(struct graph *graph, uint32_t input);
uint32_t graph_linear(struct graph *graph, uint32_t input, uint32_t channels);

/* Weights of a convolution or of the classifier, without its vectors: out * in * kernel * kernel. */
uint64_t node_weights(const struct node *node);

/* Of these, what one output channel has: in * kernel * kernel. */
size_t node_filter(const struct node *node);

/* Numbers in the tensors of a node, counted as PyTorch counts parameters; multiply-adds of one image. */
uint64_t node_parameters(const struct node *node);
uint64_t node_macs(const struct node *node);

/* A config is sound where every field is in the range that models/FORMAT.md gives and this version supports it. */
resnet_status config_check(const resnet_config *config, resnet_error *error);

/* "resnet50" and the like, or "resnet" where the config is none of the five. */
const char *config_name(const resnet_config *config);

#endif
