/* taught.c - a model that resnet_teach made: its classifier, and a model file of it. */
#include "taught.h"

#include "crc.h"
#include "error.h"
#include "file.h"
#include "model.h"
#include "model_file.h"
#include "model_image.h"
#include "weights.h"

#define HEADER_SIZE 256
#define CHUNK_BYTES ((size_t)64 * 1024) /* that are copied at a time */

void taught_classifier(const resnet_model *model, float *weight, float *bias) {
    size_t features = model->graph.nodes[model_pool(model)].out.channels;
    for (uint32_t k = 0; k < model->config.classes; k++)
        bias[k] = weights_of_channel(model, model_pool(model) + 1, k, weight + k * features);
}

static uint64_t identity_of(const struct model_file *file) {
    return (uint64_t)file->size << 32 | file->payload_crc;
}

resnet_status taught_identity(const char *path, uint64_t *identity, resnet_error *error) {
    struct model_file file;
    resnet_status status = model_file_open(&file, path, error);
    if (status == RESNET_OK)
        *identity = identity_of(&file);
    model_file_close(&file);
    return status;
}

/* A file while it is written: what is ahead of and behind the tensors that are copied. */
struct writing {
    const struct taught *taught;
    FILE *out;
    struct model_file file; /* the backbone's */
    struct model_image front, tail;
    uint64_t begin, end; /* in the backbone's file, of what is copied */
    uint32_t old,
        payload; /* checksums: of what the backbone's file turned out to hold, and of the new file's payload */
    uint8_t chunk[CHUNK_BYTES];
};

/* ---- Ahead of and behind the copy ---- */

static void add_front(struct writing *w) {
    const resnet_model *model = w->taught->model;
    model_image_header(&w->front, &model->config, &w->taught->how, model->labels, model->labels_size);
    size_t place = w->front.size;
    model_image_zeros(&w->front,
                      model_file_tensors(&model->graph, model->config.precision, (uint32_t)model->labels_size) - place);
    for (uint32_t i = 0; !w->front.refused && model->kept && i < model->graph.count; i++)
        if (node_has_weights(&model->graph.nodes[i]))
            w->front.bytes[place++] = model_keeps(model, i);
}

/* In an int8 file the classifier is kept in f32. */
static resnet_status add_tail(struct writing *w, resnet_error *error) {
    const resnet_model *model = w->taught->model;
    uint32_t pool = model_pool(model), classes = model->config.classes;
    size_t count = (size_t)classes * model->graph.nodes[pool].out.channels;
    float *weight = memory_get(&w->tail.allocator, (count + classes) * sizeof *weight);
    if (!weight)
        return fail_memory(error, "the classifier", (count + classes) * sizeof *weight);
    taught_classifier(model, weight, weight + count);
    (model->config.precision == RESNET_PRECISION_BF16 ? model_image_bf16 : model_image_f32)(&w->tail, weight, count);
    model_image_f32(&w->tail, weight + count, classes);
    if (model->config.precision == RESNET_PRECISION_INT8)
        model_image_f32(&w->tail, &model->scales[pool], 1);
    memory_put(&w->tail.allocator, weight, (count + classes) * sizeof *weight);
    return model_image_check(&w->tail, error);
}

/* Where the backbone's file has what is copied: all tensors but the classifier's. */
static void find_copy(struct writing *w) {
    const resnet_model *backbone = w->taught->backbone;
    resnet_precision precision = backbone->config.precision;
    w->begin = w->end = model_file_tensors(&backbone->graph, precision, w->file.labels_size);
    for (uint32_t i = 0; i <= model_pool(backbone); i++)
        w->end = model_file_node(&backbone->graph.nodes[i], precision, model_keeps(backbone, i), w->end).end;
}

/* ---- Write ---- */

static uint64_t size_of(const struct writing *w) {
    return w->front.size + (w->end - w->begin) + w->tail.size;
}

/* Read a part of the backbone's file and, if it is to be copied, write it at the end of the new one. */
static resnet_status pass_on(struct writing *w, uint64_t begin, uint64_t end, bool copied, resnet_error *error) {
    for (uint64_t at = begin; at < end;) {
        size_t size = end - at < CHUNK_BYTES ? (size_t)(end - at) : CHUNK_BYTES;
        resnet_status status = file_read(w->file.descriptor, at, w->chunk, size, error);
        if (status != RESNET_OK)
            return status;
        uint32_t crc = crc_of(&w->file.crc, w->chunk, size);
        at += size;
        w->old ^= crc_share(crc, w->file.size - at);
        if (copied) {
            w->payload ^= crc_share(crc, w->end - at + w->tail.size);
            fwrite(w->chunk, 1, size, w->out);
        }
    }
    return RESNET_OK;
}

static resnet_status write_parts(struct writing *w, resnet_error *error) {
    fwrite(w->front.bytes, 1, w->front.size, w->out);
    resnet_status status = pass_on(w, HEADER_SIZE, w->begin, false, error);
    if (status == RESNET_OK)
        status = pass_on(w, w->begin, w->end, true, error);
    if (status == RESNET_OK)
        status = pass_on(w, w->end, w->file.size, false, error);
    if (status == RESNET_OK && w->old != w->file.payload_crc)
        status = fail(error, RESNET_ERROR_MODEL, "the file is damaged: its checksum does not match");
    if (status != RESNET_OK)
        return status;
    fwrite(w->tail.bytes, 1, w->tail.size, w->out);
    size_t ahead = w->front.size - HEADER_SIZE;
    w->payload ^= crc_share(crc_of(&w->file.crc, w->front.bytes + HEADER_SIZE, ahead), size_of(w) - w->front.size) ^
                  crc_of(&w->file.crc, w->tail.bytes, w->tail.size);
    model_image_seal(w->front.bytes, size_of(w), w->payload);
    rewind(w->out);
    fwrite(w->front.bytes, 1, HEADER_SIZE, w->out); /* the stream remembers what fails */
    return RESNET_OK;
}

static resnet_status compose(struct writing *w, resnet_error *error) {
    const resnet_model *backbone = w->taught->backbone;
    resnet_status status = model_file_open(&w->file, w->taught->path, error);
    if (status == RESNET_OK && identity_of(&w->file) != w->taught->identity)
        status = fail(error, RESNET_ERROR_MODEL, "the file has changed since it was loaded");
    if (status == RESNET_OK)
        status = model_file_check_size(&w->file, &backbone->graph, backbone->kept, error);
    if (status != RESNET_OK)
        return status;
    find_copy(w);
    add_front(w);
    status = model_image_check(&w->front, error);
    if (status == RESNET_OK)
        status = add_tail(w, error);
    if (status == RESNET_OK && size_of(w) > MODEL_FILE_MOST_BYTES)
        status = fail(error, RESNET_ERROR_UNSUPPORTED, "the new model takes more than %llu bytes",
                      (unsigned long long)MODEL_FILE_MOST_BYTES);
    return status == RESNET_OK ? write_parts(w, error) : status;
}

resnet_status taught_write(const struct taught *taught, FILE *out, resnet_error *error) {
    const resnet_allocator allocator = memory_allocator(NULL);
    struct writing *w = memory_get(&allocator, sizeof *w);
    if (!w)
        return fail_memory(error, "the new model's file", sizeof *w);
    *w = (struct writing){.taught = taught,
                          .out = out,
                          .file = {.descriptor = -1},
                          .front = {.allocator = allocator},
                          .tail = {.allocator = allocator}};
    resnet_status status = compose(w, error);
    model_file_close(&w->file);
    model_image_free(&w->front);
    model_image_free(&w->tail);
    memory_put(&allocator, w, sizeof *w);
    return status;
}
