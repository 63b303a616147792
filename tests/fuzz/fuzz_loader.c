/* fuzz_loader.c - any bytes as a model file, read to the end but neither packed nor run: many times faster than
 * fuzz_model.c, and of the same format, with the same mutator. */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include "fuzz.h"
#include "model_file.h"

#define MOST_MEMORY ((size_t)16 << 20)

static size_t vector_floats(const struct stored *stored, resnet_precision file) {
    size_t out = stored->node->out.channels;
    if (file == RESNET_PRECISION_INT8)
        return (stored->precision == RESNET_PRECISION_INT8 ? 2 * out : out) + 1;
    return file == RESNET_PRECISION_F32 && stored->node->op == OP_CONV ? 4 * out : out;
}

static size_t weight_bytes(resnet_precision precision) {
    return precision == RESNET_PRECISION_F32 ? 4 : precision == RESNET_PRECISION_BF16 ? 2 : 1;
}

/* A node's vectors, then its weights in two parts, each into a block of its own size. */
static resnet_status read_node(struct model_file *file, const struct stored *stored, resnet_error *error) {
    uint64_t count = node_weights(stored->node);
    const struct weight_range parts[] = {{0, (size_t)(count / 2)}, {count / 2, (size_t)(count - count / 2)}};
    resnet_allocator allocator = memory_allocator(NULL);
    float *vectors = malloc(vector_floats(stored, file->config.precision) * sizeof *vectors);
    REQUIRE(vectors);
    resnet_status status = model_file_vectors(file, stored, &allocator, vectors, error);
    free(vectors);
    for (int i = 0; status == RESNET_OK && i < 2; i++) {
        void *weights = malloc(parts[i].count * weight_bytes(stored->precision) + 1);
        REQUIRE(weights);
        status = model_file_weights(file, stored, parts[i], weights, error);
        free(weights);
    }
    return status;
}

static resnet_status read_nodes(struct model_file *file, const struct graph *graph, const bool *kept,
                                resnet_error *error) {
    resnet_status status = RESNET_OK;
    uint64_t offset = model_file_tensors(graph, file->config.precision, file->labels_size);
    for (uint32_t i = 0; status == RESNET_OK && i < graph->count; i++) {
        struct stored stored = model_file_node(&graph->nodes[i], file->config.precision, kept && kept[i], offset);
        offset = stored.end;
        REQUIRE(offset <= file->size);
        if (node_has_weights(&graph->nodes[i]))
            status = read_node(file, &stored, error);
    }
    REQUIRE(status != RESNET_OK || offset == file->size);
    return status == RESNET_OK ? model_file_finish(file, error) : status;
}

/* What model.c does of it, in the same order. */
static resnet_status read_file(struct model_file *file, const struct graph *graph, resnet_error *error) {
    bool *kept = file->config.precision == RESNET_PRECISION_INT8 ? calloc(graph->count, sizeof *kept) : NULL;
    char *labels = malloc((size_t)file->labels_size + 1);
    REQUIRE(labels);
    resnet_status status = kept ? model_file_kinds(file, graph, kept, error) : RESNET_OK;
    if (status == RESNET_OK)
        status = model_file_check_size(file, graph, kept, error);
    if (status == RESNET_OK)
        status = model_file_labels(file, labels, error);
    if (status == RESNET_OK)
        status = read_nodes(file, graph, kept, error);
    free(labels);
    free(kept);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_memory memory;
    struct model_file file = {0};
    struct graph graph;
    resnet_error error = {RESNET_OK, ""};
    uint8_t *copy = fuzz_copy(data, size);
    fuzz_memory_init(&memory, MOST_MEMORY, 0xa5);
    resnet_status status = model_file_open_memory(&file, copy, size, &error);
    if (status == RESNET_OK) {
        struct shape input = {file.config.height, file.config.width, file.config.in_channels};
        status = graph_build(&graph, &file.config, input, &memory.allocator, &error);
        if (status == RESNET_OK) {
            status = read_file(&file, &graph, &error);
            graph_free(&graph, &memory.allocator);
        }
    }
    fuzz_check_error(status, &error);
    model_file_close(&file);
    free(copy);
    fuzz_memory_check(&memory);
    return 0;
}
