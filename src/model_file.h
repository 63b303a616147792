/*
 * model_file.h - read a model file (models/FORMAT.md), piece by piece, from a file or from memory.
 *
 * Open, then kinds, size and labels, then every node's vectors and weights, in any order and by several threads, each
 * byte once; then finish. Every function checks what it reads; nothing that was read may be trusted before
 * model_file_finish has compared the checksum.
 */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include <stdatomic.h>

#include "crc.h"
#include "graph.h"

#define MODEL_FILE_MOST_BYTES  ((uint64_t)1 << 30)
#define MODEL_FILE_MOST_LABELS (1U << 24) /* bytes */

struct model_file {
    int descriptor; /* -1: read from `data` */
    const uint8_t *data;
    uint64_t size;

    struct crc crc;
    atomic_uint payload;  /* the checksum of what was read so far, as if zeros were in place of the rest */
    uint32_t payload_crc; /* what the header says of all */

    resnet_config config; /* its precision is what weights are stored in */
    resnet_preprocess preprocess;
    uint32_t labels_size;
};

/* Open and check the header. `file` must be closed with model_file_close whether this succeeds or not. Errors: IO,
 * MODEL, UNSUPPORTED. */
resnet_status model_file_open(struct model_file *file, const char *path, resnet_error *error);
resnet_status model_file_open_memory(struct model_file *file, const void *data, size_t size, resnet_error *error);
void model_file_close(struct model_file *file);

/* Where a node's tensors lie in a file, in bytes: the weights from `weights` on, the other tensors from `vectors` on.
 */
struct stored {
    const struct node *node;
    resnet_precision precision; /* of the weights */
    const struct vector_kind *kinds;
    uint64_t weights, vectors, end;
};

/* The tensors of a node, which start at `offset`; of a node without any, nothing. `kept`: in f32, in an int8 file. */
struct stored model_file_node(const struct node *node, resnet_precision precision, bool kept, uint64_t offset);

/* Where the first node's tensors start. */
uint64_t model_file_tensors(const struct graph *graph, resnet_precision precision, uint32_t labels_size);

/* Bytes of the file that holds this network; where it is more than MODEL_FILE_MOST_BYTES, some number above that.
 * `kept` says which nodes an int8 file keeps in f32; NULL: none. */
uint64_t model_file_size(const struct graph *graph, resnet_precision precision, const bool *kept, uint32_t labels_size);

/* Of an int8 file, which nodes are kept in f32: kept[node], for each node of the graph. Errors: IO, MODEL. */
resnet_status model_file_kinds(struct model_file *file, const struct graph *graph, bool *kept, resnet_error *error);

/* Compare the size that the network computes with the file's; before it, no offset may be read. Errors: MODEL. */
resnet_status model_file_check_size(const struct model_file *file, const struct graph *graph, const bool *kept,
                                    resnet_error *error);

/* Read the label block into `text`, labels_size bytes: line feeds become terminators. Errors: IO, MODEL. */
resnet_status model_file_labels(struct model_file *file, char *text, resnet_error *error);

/* Read all vectors of a node, one after the other, and the padding around them. Errors: IO, MODEL, MEMORY. */
resnet_status model_file_vectors(struct model_file *file, const struct stored *stored,
                                 const resnet_allocator *allocator, float *vectors, resnet_error *error);

/* Some of a node's weights, counted from 0. */
struct weight_range {
    uint64_t first;
    size_t count;
};

/* Read weights as they are stored, in the machine's byte order: floats, bf16 or int8_t. Errors: IO; MODEL, where a
 * float is not finite. */
resnet_status model_file_weights(struct model_file *file, const struct stored *stored, struct weight_range range,
                                 void *weights, resnet_error *error);

/* Compare the checksum, after all has been read. Errors: MODEL. */
resnet_status model_file_finish(const struct model_file *file, resnet_error *error);

#endif
