/* model.h - a loaded network: immutable, shared by any number of sessions. */
#ifndef MODEL_H
#define MODEL_H

#include "cpu.h"
#include "graph.h"

struct resnet_model {
    resnet_allocator allocator;
    resnet_config config;
    resnet_preprocess preprocess;
    const struct kernel_set *kernels; /* NULL: the reference executor */
    bool winograd;                    /* for the layers that it suits */
    struct graph graph;               /* at the config's own input size */
    char *labels;                     /* terminated strings, one after the other; NULL where there are none */
    size_t labels_size;
    float *weights; /* panels, or, for the reference, the file's tensors */
    size_t *starts; /* of each node's part in weights, in floats */
    size_t weights_size;
};

/* Whether a layer is computed by Winograd's method. */
bool model_uses_winograd(const resnet_model *model, const struct node *node);

#endif
