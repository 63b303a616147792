/* model.h - a loaded network: immutable, shared by any number of sessions. */
#ifndef MODEL_H
#define MODEL_H

#include "cpu.h"
#include "graph.h"

struct resnet_model {
    resnet_allocator allocator;
    resnet_config config;
    resnet_preprocess preprocess;
    resnet_precision precision;       /* what it computes in: never AUTO */
    const struct kernel_set *kernels; /* NULL: the reference executor */
    enum format format;               /* of activations */
    bool winograd;                    /* for the layers that it suits */
    struct graph graph;               /* at the config's own input size */
    char *labels;                     /* terminated strings, one after the other; NULL where there are none */
    size_t labels_size;
    float *weights; /* panels, or, for the reference, the file's tensors */
    size_t *starts; /* of each node's part in weights, in floats */
    size_t weights_size;
    float *scales; /* of int8: each node's output is scale * (u - zero), u in 0..255 and zero as node_zero has it; NULL
                      for the reference */
    bool *kept;    /* of an int8 file: which nodes are kept in f32; NULL: none */
};

/* What a network may end with. */
struct classifier {
    resnet_head head; /* SOFTMAX or SIGMOID */
    uint32_t classes;
    const char *const *labels; /* [classes], or NULL */
    float *weight, *bias;      /* [classes][features], [classes] */
    float activation;          /* of int8, where the network had no classifier: the scale of the embeddings */
};

/* A new model that ends with this classifier, in f32 where the network is int8; its weights are rounded in place to the
 * network's bf16. Errors: ARGUMENT, MEMORY. */
resnet_status model_with_classifier(const resnet_model *backbone, const struct classifier *classifier,
                                    resnet_model **model, resnet_error *error);

/* The node whose output is the embedding: the average pool that the network ends with, or that its classifier reads. */
uint32_t model_pool(const resnet_model *model);

/* The u8 that stands for 0 in the output of a node: 0 behind a ReLU, else the middle. */
float node_zero(const struct node *node);

/* Whether a layer of an int8 model is kept in f32: its panels are FORMAT_F32, its activations u8 as all. */
bool model_keeps(const resnet_model *model, uint32_t node);

/* Whether a layer is computed by Winograd's method. */
bool model_uses_winograd(const resnet_model *model, const struct node *node);

#endif
