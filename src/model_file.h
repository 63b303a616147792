/*
 * model_file.h - read a model file (models/FORMAT.md), front to back, from a file or from memory.
 *
 * Open, then labels, then each tensor in turn, then finish. Every function checks what it reads; nothing that was read
 * may be trusted before model_file_finish has compared the checksum.
 */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include "graph.h"

#define MODEL_FILE_MOST_BYTES ((uint64_t)1 << 30)

struct model_file {
    int descriptor; /* -1: read from `data` */
    const uint8_t *data;
    uint64_t size, position;

    uint32_t crc, payload_crc; /* of what was read so far; what the header says */
    uint32_t crc_table[8][256];

    resnet_config config;
    resnet_preprocess preprocess;
    uint32_t labels_size;
};

/* Open and check the header. `file` must be closed with model_file_close whether this succeeds or not. Errors: IO,
 * MODEL, UNSUPPORTED. */
resnet_status model_file_open(struct model_file *file, const char *path, resnet_error *error);
resnet_status model_file_open_memory(struct model_file *file, const void *data, size_t size, resnet_error *error);
void model_file_close(struct model_file *file);

/* Bytes of the file that holds this network; where it is more than MODEL_FILE_MOST_BYTES, some number above that. */
uint64_t model_file_size(const struct graph *graph, uint32_t labels_size);

/* Compare the size that the network computes with the file's. Errors: MODEL. */
resnet_status model_file_check_size(const struct model_file *file, const struct graph *graph, resnet_error *error);

/* Read the label block into `text`, labels_size bytes: line feeds become terminators. Errors: IO, MODEL. */
resnet_status model_file_labels(struct model_file *file, char *text, resnet_error *error);

/* Read the next tensor: `count` finite numbers. `what` and `node` name it in a message. Errors: IO, MODEL. */
resnet_status model_file_tensor(struct model_file *file, float *values, size_t count, const struct node *node,
                                const char *what, resnet_error *error);

/* Compare the checksum, after the last tensor. Errors: MODEL. */
resnet_status model_file_finish(const struct model_file *file, resnet_error *error);

#endif
