/* session.c - what a run needs, made once: one memory plan, one pool of threads, and the slots with the images. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "fpenv.h"
#include "image.h"
#include "kept.h"
#include "preprocess.h"
#include "session_parts.h"
#include "split.h"
#include "winograd.h"

#define MOST_IMAGES  65536
#define MOST_THREADS 1024

/* Images go through the network together as long as their largest activation stays in a shared cache: small images gain
 * from larger matrices, large ones would only wait for memory (ResNet-50 at 224: 29 images a second one by one, 27 in
 * eights). */
#define GROUP_BYTES (4U << 20)

/* ---- Create ---- */

static resnet_status fill_in_defaults(resnet_session_options *options, const resnet_model *model, resnet_error *error) {
    options->batch = options->batch ? options->batch : 1;
    options->height = options->height ? options->height : model->config.height;
    options->width = options->width ? options->width : model->config.width;
    options->threads = options->threads ? options->threads : cpu_threads();
    if (!model->kernels)
        options->threads = 1; /* the reference executor does one thing at a time */
    if (options->batch > MOST_IMAGES)
        return fail(error, RESNET_ERROR_ARGUMENT, "a batch of %u images; at most %d", options->batch, MOST_IMAGES);
    if (options->threads > MOST_THREADS)
        return fail(error, RESNET_ERROR_ARGUMENT, "%u threads; at most %d", options->threads, MOST_THREADS);
    return RESNET_OK;
}

static size_t scratch_of(const resnet_session *session, uint32_t node) {
    const struct node *n = &session->graph.nodes[node];
    if (model_keeps(session->model, node) && session->model->format == FORMAT_U8 &&
        !node_reads_floats(&session->graph, n))
        return kept_scratch(n, session->group);
    return model_uses_winograd(session->model, n) ? winograd_scratch(n, session->model->kernels->formats[FORMAT_F32])
                                                  : 0;
}

/* Floats that a thread needs besides the tensors, rounded up so that threads do not share a cache line. */
static size_t largest_scratch(const resnet_session *session) {
    size_t most = 0;
    for (uint32_t i = 0; i < session->graph.count; i++)
        most = scratch_of(session, i) > most ? scratch_of(session, i) : most;
    return align_up(most * sizeof(float)) / sizeof(float);
}

/* Floats for what a class-activation map needs and nobody may have asked for: a group's logits, a class's weights. */
static size_t cam_size(const resnet_session *session) {
    const resnet_model *model = session->model;
    if (model->config.head == RESNET_HEAD_NONE)
        return 0;
    return (size_t)session->group * model->config.classes + model->graph.nodes[model_pool(model)].out.channels;
}

static uint32_t group_size(const resnet_session *session) {
    uint64_t most = 1;
    for (uint32_t i = 1; i < session->graph.count; i++) {
        struct shape out = session->graph.nodes[i].out;
        uint64_t bytes =
            (uint64_t)out.height * out.width * out.channels * sizeof(float) / word_numbers(session->model->format);
        most = bytes > most ? bytes : most;
    }
    uint32_t fitting = most < GROUP_BYTES ? (uint32_t)(GROUP_BYTES / most) : 1;
    return smaller(session->options.batch, fitting);
}

/* Everything that has no threads and no arena yet. */
static resnet_status prepare(resnet_session *session, const resnet_model *model, const resnet_session_options *options,
                             resnet_error *error) {
    *session = (resnet_session){.model = model, .options = options ? *options : (resnet_session_options){0}};
    resnet_status status = fill_in_defaults(&session->options, model, error);
    if (status != RESNET_OK)
        return status;
    struct shape input = {session->options.height, session->options.width, model->config.in_channels};
    status = graph_build(&session->graph, &model->config, input, &model->allocator, error);
    if (status != RESNET_OK)
        return status;
    session->group = group_size(session);
    session->scratch_size = largest_scratch(session);
    struct plan_options plan = {
        .format = model->format,
        .slots = session->options.batch,
        .group = session->group,
        .scratch = (session->options.threads * session->scratch_size + cam_size(session)) * sizeof(float),
        .share = model->kernels != NULL,
    };
    return plan_make(&session->plan, &session->graph, plan, &model->allocator, error);
}

/* The work is cut into as many parts as threads were asked for, whatever there is to run them: more threads than
 * processors would only wait for each other. */
static struct pool_options pool_options_of(const resnet_session_options *options) {
    return (struct pool_options){options->threads, cpu_threads(), options->parallel_for, options->parallel_context};
}

static void release(resnet_session *session) {
    const resnet_allocator *allocator = &session->model->allocator;
    pool_free(session->pool, allocator);
    memory_put(allocator, session->arena, session->plan.arena);
    plan_free(&session->plan, allocator);
    graph_free(&session->graph, allocator);
}

resnet_status resnet_session_memory(const resnet_model *model, const resnet_session_options *options, size_t *bytes,
                                    resnet_error *error) {
    if (!model || !bytes)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_session_memory: model and bytes must not be NULL");
    resnet_session session;
    resnet_status status = prepare(&session, model, options, error);
    struct pool_options pool = pool_options_of(&session.options);
    if (status == RESNET_OK)
        *bytes = sizeof session + session.graph.capacity * sizeof *session.graph.nodes +
                 session.plan.count * sizeof *session.plan.tensors + session.plan.arena + pool_memory(&pool);
    release(&session);
    return status;
}

/* The slots, and the zeros around them that no run touches. */
static void clear_slots(resnet_session *session) {
    const struct tensor *input = &session->plan.slots;
    memset(session->arena + input->start, 0, input->size * sizeof(float));
}

static resnet_status start(resnet_session *session, resnet_error *error) {
    const resnet_allocator *allocator = &session->model->allocator;
    session->arena = memory_get(allocator, session->plan.arena);
    if (!session->arena)
        return fail_memory(error, "the activations", session->plan.arena);
    clear_slots(session);
    struct pool_options pool = pool_options_of(&session->options);
    return pool_create(&session->pool, &pool, allocator, error);
}

resnet_status resnet_session_create(const resnet_model *model, const resnet_session_options *options,
                                    resnet_session **result, resnet_error *error) {
    if (!result)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_session_create: session must not be NULL");
    *result = NULL;
    if (!model)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_session_create: model must not be NULL");
    resnet_session *session = memory_get(&model->allocator, sizeof *session);
    if (!session)
        return fail_memory(error, "the session", sizeof *session);
    resnet_status status = prepare(session, model, options, error);
    if (status == RESNET_OK)
        status = start(session, error);
    if (status != RESNET_OK) {
        resnet_session_free(session);
        return status;
    }
    *result = session;
    return RESNET_OK;
}

void resnet_session_free(resnet_session *session) {
    if (!session)
        return;
    const resnet_allocator *allocator = &session->model->allocator;
    release(session);
    memory_put(allocator, session, sizeof *session);
}

uint32_t resnet_session_threads(const resnet_session *session) {
    return session->options.threads;
}

void session_observe(resnet_session *session, session_observer *observer, void *context) {
    session->observer = observer;
    session->observer_context = context;
}

/* ---- Input ---- */

static resnet_status check_slot(const resnet_session *session, uint32_t slot, const void *data, resnet_error *error) {
    if (!session || !data)
        return fail(error, RESNET_ERROR_ARGUMENT, "session and input must not be NULL");
    if (slot >= session->options.batch)
        return fail(error, RESNET_ERROR_ARGUMENT, "slot %u does not exist: the session has %u", slot,
                    session->options.batch);
    return RESNET_OK;
}

static float *slot_values(const resnet_session *session, uint32_t slot) {
    const struct tensor *input = &session->plan.slots;
    return session->arena + input->origin + slot * input->image;
}

/* A map whose rows and pixels are that many floats apart, into a slot. */
static void copy_pixels(float *to, const struct tensor *t, const float *from, size_t row, size_t pixel) {
    for (uint32_t y = 0; y < t->shape.height; y++)
        for (uint32_t x = 0; x < t->shape.width; x++)
            memcpy(to + y * t->row + x * t->pixel, from + y * row + x * pixel, t->shape.channels * sizeof *to);
}

void session_copy_slot(resnet_session *to, uint32_t slot, const resnet_session *from, uint32_t from_slot) {
    const struct tensor *source = &from->plan.slots;
    copy_pixels(slot_values(to, slot), &to->plan.slots, slot_values(from, from_slot), source->row, source->pixel);
}

void session_mirror_slot(resnet_session *session, uint32_t slot) {
    const struct tensor *t = &session->plan.slots;
    for (uint32_t y = 0; y < t->shape.height; y++) {
        float *left = slot_values(session, slot) + y * t->row, *right = left + (t->shape.width - 1) * t->pixel;
        for (; left < right; left += t->pixel, right -= t->pixel)
            for (uint32_t c = 0; c < t->shape.channels; c++) {
                float value = left[c];
                left[c] = right[c];
                right[c] = value;
            }
    }
}

static void copy_nhwc(float *to, const struct tensor *t, const float *from) {
    copy_pixels(to, t, from, (size_t)t->shape.width * t->shape.channels, t->shape.channels);
}

static void copy_nchw(float *to, const struct tensor *t, const float *from) {
    for (uint32_t c = 0; c < t->shape.channels; c++)
        for (uint32_t y = 0; y < t->shape.height; y++)
            for (uint32_t x = 0; x < t->shape.width; x++)
                to[y * t->row + x * t->pixel + c] = *from++;
}

resnet_status check_layout(resnet_layout layout, resnet_error *error) {
    if (layout == RESNET_NCHW || layout == RESNET_NHWC)
        return RESNET_OK;
    return fail(error, RESNET_ERROR_ARGUMENT, "layout %u is neither NCHW (0) nor NHWC (1)", (unsigned)layout);
}

resnet_status resnet_session_set_floats(resnet_session *session, uint32_t slot, const float *values,
                                        resnet_layout layout, resnet_error *error) {
    resnet_status status = check_slot(session, slot, values, error);
    if (status != RESNET_OK)
        return status;
    status = check_layout(layout, error);
    if (status != RESNET_OK)
        return status;
    const struct tensor *input = &session->plan.slots;
    (layout == RESNET_NCHW ? copy_nchw : copy_nhwc)(slot_values(session, slot), input, values);
    return RESNET_OK;
}

resnet_status resnet_session_set_rgb(resnet_session *session, uint32_t slot, const uint8_t *pixels, uint32_t width,
                                     uint32_t height, size_t stride, const resnet_preprocess *how,
                                     resnet_error *error) {
    resnet_status status = check_slot(session, slot, pixels, error);
    if (status != RESNET_OK)
        return status;
    const struct tensor *input = &session->plan.slots;
    if (input->shape.channels != 3)
        return fail(error, RESNET_ERROR_UNSUPPORTED,
                    "RGB pixels for a network of %u input channels; fill it with floats", input->shape.channels);
    struct pixels source = {width, height, stride ? stride : 3 * (size_t)width, pixels};
    struct preprocess_target target = {input->shape.height, input->shape.width, input->row, input->pixel,
                                       slot_values(session, slot)};
    uint64_t before = fpenv_enter(false);
    status = preprocess(&source, how ? how : &session->model->preprocess, &session->model->allocator, &target, error);
    fpenv_leave(before);
    return status;
}

/* Takes over the image. */
static resnet_status set_decoded(resnet_session *session, uint32_t slot, struct image *image,
                                 const resnet_preprocess *how, resnet_error *error) {
    resnet_status status =
        resnet_session_set_rgb(session, slot, image->pixels, image->width, image->height, 0, how, error);
    image_free(image, &session->model->allocator);
    return status;
}

resnet_status resnet_session_set_image_file(resnet_session *session, uint32_t slot, const char *path,
                                            const resnet_preprocess *how, resnet_error *error) {
    struct image image;
    resnet_status status = check_slot(session, slot, path, error);
    if (status == RESNET_OK)
        status = image_decode_file(path, &session->model->allocator, &image, error);
    return status == RESNET_OK ? set_decoded(session, slot, &image, how, error) : status;
}

resnet_status resnet_session_set_image_memory(resnet_session *session, uint32_t slot, const void *data, size_t size,
                                              const resnet_preprocess *how, resnet_error *error) {
    struct image image;
    resnet_status status = check_slot(session, slot, data, error);
    if (status == RESNET_OK)
        status = image_decode(data, size, &session->model->allocator, &image, error);
    return status == RESNET_OK ? set_decoded(session, slot, &image, how, error) : status;
}
