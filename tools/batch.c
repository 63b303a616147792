/* batch.c - take a few images at a time through a session: decode them on all threads, then run. */
#include "batch.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "model.h"
#include "options.h"
#include "system.h"
#include "text.h"

int batch_open_model(struct batch *batch, const struct batch_settings *settings) {
    const char *path = settings->model;
    memset(batch, 0, sizeof *batch);
    const resnet_load_options load = {.isa = settings->isa, .precision = settings->precision};
    int code = model_open(&path, &load, &batch->model);
    if (code != EXIT_FINE)
        return code;
    batch->path = path;
    batch->info = resnet_model_describe(batch->model);
    if (batch->info.config.in_channels != 3) {
        complain("%s: the network takes %" PRIu32 " channels, and an image has 3", path,
                 batch->info.config.in_channels);
        return EXIT_MODEL;
    }
    batch->preprocess = batch->info.preprocess;
    if (settings->resize != RESIZE_AS_MODEL)
        batch->preprocess.resize = settings->resize;
    return EXIT_FINE;
}

int batch_open(struct batch *batch, const struct batch_settings *settings) {
    resnet_error error;
    int code = batch_open_model(batch, settings);
    if (code != EXIT_FINE)
        return code;
    resnet_session_options options = {.batch = settings->size, .threads = settings->threads};
    if (resnet_session_create(batch->model, &options, &batch->session, &error) != RESNET_OK)
        return library_failure(batch->path, &error);
    batch->size = settings->size;
    batch->pictures = allocate(batch->size, sizeof *batch->pictures);
    batch->logits = allocate((size_t)batch->size * batch->info.config.classes, sizeof *batch->logits);
    return EXIT_FINE;
}

void batch_close(struct batch *batch) {
    batch_clear(batch);
    free(batch->pictures);
    free(batch->logits);
    resnet_session_free(batch->session);
    resnet_model_free(batch->model);
}

void batch_add(struct batch *batch, struct picture picture) {
    batch->pictures[batch->count++] = picture;
}

void batch_clear(struct batch *batch) {
    while (batch->count)
        free(batch->pictures[--batch->count].path);
}

bool batch_fill(struct batch *batch, struct inputs *inputs) {
    struct input input;
    batch_clear(batch);
    while (batch->count < batch->size && inputs_next(inputs, &input))
        batch_add(batch, (struct picture){.path = input.name, .is_stdin = input.kind == INPUT_STDIN});
    return batch->count > 0;
}

static void set_from_stdin(struct batch *batch, uint32_t slot, resnet_error *error) {
    size_t size;
    uint8_t *data = inputs_read_stdin(&size, error);
    if (data)
        resnet_session_set_image_memory(batch->session, slot, data, size, &batch->preprocess, error);
    free(data);
}

static void set_slot(struct batch *batch, uint32_t slot) {
    struct picture *picture = &batch->pictures[slot];
    resnet_error *error = &picture->error;
    error->status = RESNET_OK;
    if (picture->is_stdin)
        set_from_stdin(batch, slot, error);
    else
        resnet_session_set_image_file(batch->session, slot, picture->path, &batch->preprocess, error);
}

/* The threads that decode share this: each takes the next slot when it is free. */
struct decoding {
    struct batch *batch;
    atomic_uint next;
};

static void decode(void *argument, uint32_t thread) {
    struct decoding *decoding = argument;
    uint32_t slot;
    (void)thread;
    while ((slot = atomic_fetch_add(&decoding->next, 1)) < decoding->batch->count)
        set_slot(decoding->batch, slot);
}

uint32_t batch_decode(struct batch *batch) {
    struct decoding decoding = {.batch = batch};
    uint32_t threads = resnet_session_threads(batch->session), good = 0;
    run_on_threads(threads < batch->count ? threads : batch->count, decode, &decoding);
    for (uint32_t i = 0; i < batch->count; i++)
        good += batch->pictures[i].error.status == RESNET_OK;
    return good;
}

/* A slot whose picture failed is run with whatever it holds, and nobody looks at its results. */
void batch_request(struct batch *batch, const resnet_request *request) {
    resnet_error error;
    if (batch_decode(batch) == 0 || resnet_run(batch->session, batch->count, request, &error) == RESNET_OK)
        return;
    for (uint32_t i = 0; i < batch->count; i++)
        batch->pictures[i].error = error;
}

void batch_run(struct batch *batch) {
    batch_request(batch, &(resnet_request){.logits = batch->logits});
}
