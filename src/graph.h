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

enum op {
    OP_INPUT,
    OP_CONV,
    OP_MAXPOOL,
    OP_AVGPOOL,        /* over windows, of which only what lies inside the map counts */
    OP_GLOBAL_AVGPOOL, /* over the whole map */
    OP_LINEAR,
    OP_SUBSAMPLE, /* every stride-th pixel, its channels in the middle of the new ones, which are zeros */
    OP_SCALE      /* each channel times its gate */
};

#define NO_NODE UINT32_MAX

struct shape {
    uint32_t height, width, channels;
};

struct node {
    enum op op;
    uint32_t input;               /* id; NO_NODE for OP_INPUT */
    uint32_t residual;            /* id of a tensor of the output's shape, or NO_NODE */
    uint32_t gate;                /* of OP_SCALE: id of a factor for each channel */
    uint32_t kernel, stride, pad; /* square; 1, 1, 0 for OP_LINEAR */
    uint32_t groups, dilation;    /* of a convolution; 1 elsewhere */
    bool relu, sigmoid;
    bool floats; /* its output is f32 in a network of any format: squeeze-and-excitation's vectors, and what is last */
    struct shape in, out;
    char name[32]; /* torchvision's */
};

struct graph {
    struct node *nodes;
    uint32_t count, capacity;
    uint32_t stages[RESNET_MAX_STAGES]; /* the node that each stage ends with; NO_NODE where there is none */
};

/* The network that `config` names, for an input of height x width pixels. The last node is the classifier, or, without
 * a head, the average pool. Errors: ARGUMENT (a field out of range), UNSUPPORTED, MEMORY. Owned by the caller until
 * graph_free. */
resnet_status graph_build(struct graph *graph, const resnet_config *config, struct shape input,
                          const resnet_allocator *allocator, resnet_error *error);
void graph_free(struct graph *graph, const resnet_allocator *allocator);

/* How to add a convolution: kernel is square and odd, padded by kernel / 2 * dilation. */
struct conv {
    uint32_t channels, kernel, stride, residual;
    bool relu;
    uint32_t groups, dilation;
};

/* Add a node and return its id; graph->capacity must leave room. The windows of an average pool are `size` apart, too,
 * and its output is rounded up; a subsampling takes channels and stride from `conv`; a scaling ends with a ReLU. */
uint32_t graph_input(struct graph *graph, struct shape shape);
uint32_t graph_conv(struct graph *graph, uint32_t input, struct conv conv, const char *name);
uint32_t graph_maxpool(struct graph *graph, uint32_t input, uint32_t kernel, uint32_t stride);
uint32_t graph_avgpool(struct graph *graph, uint32_t input, uint32_t size, const char *name);
uint32_t graph_global_avgpool(struct graph *graph, uint32_t input, const char *name);
uint32_t graph_linear(struct graph *graph, uint32_t input, uint32_t channels, const char *name);
uint32_t graph_subsample(struct graph *graph, uint32_t input, struct conv conv, const char *name);
uint32_t graph_scale(struct graph *graph, uint32_t input, uint32_t gate, uint32_t residual, const char *name);

/* Whether a node has weights: a convolution or a linear layer. */
bool node_has_weights(const struct node *node);

/* Whether a node computes in f32 in a network of any format, since what it reads is. */
bool node_reads_floats(const struct graph *graph, const struct node *node);

/* Input channels that an output channel sees. */
uint32_t node_group_inputs(const struct node *node);

/* Weights of a convolution or of a linear layer, without its vectors: out * in / groups * kernel * kernel. */
uint64_t node_weights(const struct node *node);

/* Of these, what one output channel has: in / groups * kernel * kernel. */
size_t node_filter(const struct node *node);

/* Numbers in the tensors of a node, counted as PyTorch counts parameters; multiply-adds of one image. */
uint64_t node_parameters(const struct node *node);
uint64_t node_macs(const struct node *node);

/* A config is sound where every field is in the range that models/FORMAT.md gives and this version supports it. */
resnet_status config_check(const resnet_config *config, resnet_error *error);

/* "resnet50" and the like, or "resnet" where no network of that shape is known by name. */
const char *config_name(const resnet_config *config);

#endif
