/* sessions.h - what the tests of sessions share: networks, images, and what each image alone gives. */
#ifndef SESSIONS_H
#define SESSIONS_H

#include <stdlib.h>
#include <string.h>

#include "support.h"

#define MOST_BATCH   8 /* different images */
#define MOST_SLOTS   16
#define MOST_CLASSES 1000

static resnet_isa isa; /* of this run */

static const resnet_precision precisions[] = {RESNET_PRECISION_F32, RESNET_PRECISION_BF16, RESNET_PRECISION_INT8};

/* ---- Networks and inputs ---- */

/* Bottlenecks in all four stages, with 3x3 layers that Winograd's method takes. */
static inline resnet_config deep_config(void) {
    resnet_config config = test_odd_config();
    config.block = RESNET_BLOCK_BOTTLENECK;
    memcpy(config.blocks, (uint32_t[]){1, 2, 1, 1}, sizeof config.blocks);
    config.base_width = 16;
    config.height = 24;
    config.width = 40;
    config.classes = 50;
    return config;
}

static inline resnet_model *model_of(resnet_config config, int no_winograd) {
    return test_model(&config, 1, &(resnet_load_options){.isa = isa, .no_winograd = no_winograd});
}

/* Images of numbers in [-1, 1), NHWC, one after the other; free them. */
static inline float *make_images(const resnet_session_options *size, uint32_t channels, uint32_t count) {
    size_t floats = (size_t)size->height * size->width * channels * count;
    struct test_random random = {size->height * 1000003ULL + size->width};
    float *images = malloc(floats * sizeof *images);
    assert_non_null(images);
    for (size_t i = 0; i < floats; i++)
        images[i] = test_float(&random, -1, 1);
    return images;
}

static inline resnet_session_options options_for(const resnet_model *model, uint32_t batch, uint32_t threads) {
    resnet_config config = resnet_model_describe(model).config;
    return (resnet_session_options){.batch = batch, .height = config.height, .width = config.width, .threads = threads};
}

static inline resnet_session *open_session(const resnet_model *model, const resnet_session_options *options) {
    resnet_session *session;
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_create(model, options, &session, &error), &error);
    return session;
}

static inline void set_slot(resnet_session *session, uint32_t slot, const float *image) {
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_set_floats(session, slot, image, RESNET_NHWC, &error), &error);
}

static inline void run(resnet_session *session, uint32_t count, float *logits) {
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_run(session, count, logits, &error), &error);
}

/* A model, images for it, and what each image alone gives in one thread. */
struct fixture {
    resnet_model *model;
    uint32_t classes;
    size_t image; /* floats of one */
    float *images;
    float logits[MOST_BATCH][MOST_CLASSES];
};

static inline void run_alone(struct fixture *f, const resnet_session_options *options) {
    resnet_session *session = open_session(f->model, options);
    for (uint32_t i = 0; i < MOST_BATCH; i++) {
        set_slot(session, 0, f->images + i * f->image);
        run(session, 1, f->logits[i]);
    }
    resnet_session_free(session);
}

/* Takes over the model. */
static inline struct fixture fixture_of(resnet_model *model, const resnet_session_options *size) {
    resnet_config config = resnet_model_describe(model).config;
    resnet_session_options options = size ? *size : options_for(model, 1, 1);
    struct fixture f = {.model = model, .classes = config.classes};
    f.image = (size_t)options.height * options.width * config.in_channels;
    f.images = make_images(&options, config.in_channels, MOST_BATCH);
    run_alone(&f, &options);
    return f;
}

static inline void free_fixture(struct fixture *f) {
    free(f->images);
    resnet_model_free(f->model);
}

/* `logits` holds, for slot i, what image (first + i) % MOST_BATCH gives alone. */
static inline void check_logits(const struct fixture *f, const float *logits, uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        assert_memory_equal(logits + i * f->classes, f->logits[(first + i) % MOST_BATCH], f->classes * sizeof *logits);
}

static inline void fill_slots(const struct fixture *f, resnet_session *session, uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        set_slot(session, i, f->images + (first + i) % MOST_BATCH * f->image);
}

/* All slots, then only some of them. */
static inline void check_session(const struct fixture *f, const resnet_session_options *options) {
    float logits[MOST_SLOTS * MOST_CLASSES];
    resnet_session *session = open_session(f->model, options);
    for (uint32_t first = 0; first < 6; first += 5) {
        fill_slots(f, session, first, options->batch);
        run(session, options->batch, logits);
        check_logits(f, logits, first, options->batch);
    }
    run(session, (options->batch + 1) / 2, logits);
    check_logits(f, logits, 5, (options->batch + 1) / 2);
    resnet_session_free(session);
}

/* A part of a run on a thread of a caller's pool, for pthread_create. */
struct job {
    void (*task)(void *argument, uint32_t i);
    void *argument;
    uint32_t index;
};

static inline void *do_job(void *argument) {
    const struct job *job = argument;
    job->task(job->argument, job->index);
    return NULL;
}

#endif
