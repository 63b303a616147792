/* run.c - run the network as far as a request needs it, and hand out what it asks for. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "bf16.h"
#include "clock.h"
#include "error.h"
#include "execute.h"
#include "fpenv.h"
#include "reference.h"
#include "session_parts.h"
#include "split.h"
#include "weights.h"

/* Images that go through the network together: `first` of the slots and `count` of them. */
struct group {
    uint32_t first, count;
    const resnet_request *request;
    float *output; /* of the network's last node, where that runs */
};

/* ---- One node ---- */

static struct scale scale_of(const resnet_model *model, uint32_t node) {
    return (struct scale){model->scales[node], node_zero(&model->graph.nodes[node])};
}

/* `input` is room for the slots of this group as a tensor of their own. */
static struct step step_of(const resnet_session *session, uint32_t node, const struct group *group,
                           struct tensor *input) {
    const resnet_model *model = session->model;
    const struct node *n = &session->graph.nodes[node];
    const struct tensor *tensors = session->plan.tensors;
    bool reads_slots = node == 0 || (n->input == 0 && model->format == FORMAT_F32);
    *input = reads_slots ? session->plan.slots : tensors[n->input];
    if (reads_slots)
        input->origin += group->first * input->image;
    enum format format = node ? input->format : model->format;
    struct step step = {
        .format = format,
        .kernels = model->kernels ? model->kernels->formats[format] : NULL,
        .winograd = model_uses_winograd(model, n) ? model->kernels->winograd[model->format] : NULL,
        .node = n,
        .input = input,
        .output = &tensors[node],
        .residual = n->residual == NO_NODE ? NULL : &tensors[n->residual],
        .gate = n->gate == NO_NODE ? NULL : &tensors[n->gate],
        .preprocess = &model->preprocess,
        .panels = model->weights + model->starts[node],
        .arena = session->arena,
        .logits = node + 1 == session->graph.count ? group->output : NULL,
        .images = group->count,
        .scratch = session->arena + session->plan.scratch,
        .scratch_size = session->scratch_size,
    };
    if (format == FORMAT_U8) {
        step.kept = model_keeps(model, node) ? model->kernels->formats[FORMAT_F32] : NULL;
        step.input_scale = scale_of(model, reads_slots ? 0 : n->input);
        step.output_scale = scale_of(model, node);
        if (step.residual)
            step.residual_scale = scale_of(model, n->residual);
    }
    return step;
}

static void execute_part(void *argument, uint32_t index, uint32_t count) {
    uint64_t before = fpenv_enter(true);
    execute(argument, index, count);
    fpenv_leave(before);
}

static void run_step(const resnet_session *session, struct step *step) {
    if (session->model->kernels) {
        pool_run(session->pool, execute_part, step);
        return;
    }
    uint64_t before = fpenv_enter(true);
    reference_execute(step, session->model->config.bn_epsilon);
    fpenv_leave(before);
}

static void observe(const resnet_session *session, uint32_t node, const struct step *step,
                    const struct tensor *tensor) {
    bool is_last = node + 1 == session->graph.count;
    struct observation seen = {node, step->images, tensor->format, tensor,
                               is_last ? step->logits : session->arena + tensor->origin};
    session->observer(session->observer_context, &seen);
}

static void run_node(const resnet_session *session, uint32_t node, const struct group *group) {
    struct tensor input;
    struct step step = step_of(session, node, group, &input);
    run_step(session, &step);
    if (session->observer && node == 1 && session->model->format == FORMAT_F32)
        observe(session, 0, &step, &input); /* the slots, which no node has computed */
    if (session->observer)
        observe(session, node, &step, &session->plan.tensors[node]);
}

/* ---- Maps and embeddings ---- */

/* A node's output as real numbers. */
struct numbers {
    const struct tensor *tensor;
    const float *values; /* of pixel (0, 0) of the first image */
    struct scale scale;  /* of u8 */
};

static struct numbers numbers_of(const resnet_session *session, uint32_t node) {
    const struct tensor *tensor = &session->plan.tensors[node];
    struct numbers numbers = {.tensor = tensor, .values = session->arena + tensor->origin};
    if (tensor->format == FORMAT_U8)
        numbers.scale = scale_of(session->model, node);
    return numbers;
}

static inline float number_at(const struct numbers *numbers, const float *pixel, uint32_t channel) {
    switch (numbers->tensor->format) {
    case FORMAT_BF16:
        return bf16_to_float(((const uint16_t *)pixel)[channel]);
    case FORMAT_U8:
        return numbers->scale.scale * (((const uint8_t *)pixel)[channel] - numbers->scale.zero);
    default:
        return pixel[channel];
    }
}

/* Maps on their way to the caller. */
struct copy {
    struct numbers from;
    uint32_t images;
    float *to;
    size_t row, pixel, channel; /* from one to the next there; an image has as many numbers as the map */
};

static void copy_part(void *argument, uint32_t index, uint32_t count) {
    const struct copy *copy = argument;
    const struct tensor *x = copy->from.tensor;
    struct span rows = part_of(copy->images * x->shape.height, index, count);
    uint64_t before = fpenv_enter(true);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        size_t image = i / x->shape.height, row = i % x->shape.height;
        const float *from = copy->from.values + image * x->image + row * x->row;
        float *to = copy->to + image * x->shape.height * x->shape.width * x->shape.channels + row * copy->row;
        for (uint32_t column = 0; column < x->shape.width; column++, from += x->pixel, to += copy->pixel)
            for (uint32_t c = 0; c < x->shape.channels; c++)
                to[c * copy->channel] = number_at(&copy->from, from, c);
    }
    fpenv_leave(before);
}

static void copy_map(const resnet_session *session, uint32_t node, const struct group *group, float *maps) {
    struct shape shape = session->graph.nodes[node].out;
    size_t area = (size_t)shape.height * shape.width;
    struct copy copy = {.from = numbers_of(session, node),
                        .images = group->count,
                        .to = maps + group->first * area * shape.channels,
                        .row = shape.width,
                        .pixel = 1,
                        .channel = area};
    if (group->request->layout == RESNET_NHWC) {
        copy.row *= shape.channels;
        copy.pixel = shape.channels;
        copy.channel = 1;
    }
    pool_run(session->pool, copy_part, &copy);
}

/* The network's average pool once more, since the classifier has it rounded to the format. */
static void average(const resnet_session *session, const struct group *group) {
    uint32_t pool = model_pool(session->model);
    struct node node = session->graph.nodes[pool];
    struct tensor input, output = {.shape = node.out, .image = node.out.channels};
    struct step step = step_of(session, pool, group, &input);
    node.floats = true;
    step.node = &node;
    step.output = &output;
    step.output_scale = (struct scale){1, 0};
    step.logits = group->request->embedding + (size_t)group->first * node.out.channels;
    run_step(session, &step);
}

/* ---- Class-activation maps ---- */

/* Of one image. */
struct cam {
    struct numbers map; /* of the last stage */
    const float *weight;
    float *to;
};

/* to[y][x] = sum over c of weight[c] * map[y][x][c] */
static void cam_part(void *argument, uint32_t index, uint32_t count) {
    const struct cam *cam = argument;
    const struct tensor *x = cam->map.tensor;
    struct span places = part_of(x->shape.height * x->shape.width, index, count);
    uint64_t before = fpenv_enter(true);
    for (uint32_t i = places.begin; i < places.end; i++) {
        const float *pixel = cam->map.values + i / x->shape.width * x->row + i % x->shape.width * x->pixel;
        double sum = 0;
        for (uint32_t c = 0; c < x->shape.channels; c++)
            sum += (double)cam->weight[c] * (double)number_at(&cam->map, pixel, c);
        cam->to[i] = (float)sum;
    }
    fpenv_leave(before);
}

/* The logits that are made only to know which class is the largest, and behind them one class's weights. */
static float *cam_scratch(const resnet_session *session) {
    return session->arena + session->plan.scratch + session->options.threads * session->scratch_size;
}

/* The classifier's weights of the class that image `image` of the group is explained by. */
static const float *cam_weight(const resnet_session *session, const struct group *group, uint32_t image) {
    const resnet_model *model = session->model;
    uint32_t classes = model->config.classes, best;
    float *weight = cam_scratch(session) + (size_t)session->group * classes;
    uint64_t before = fpenv_enter(true);
    if (group->request->cam_classes)
        best = group->request->cam_classes[group->first + image];
    else
        resnet_top_k(group->output + (size_t)image * classes, classes, 1, &best);
    weights_of_channel(model, model->graph.count - 1, best, weight);
    fpenv_leave(before);
    return weight;
}

/* After the network has run: nothing that runs behind the last stage writes to the arena where its map still has a
 * reader, and the classifier does not write there at all. */
static void map_classes(const resnet_session *session, const struct group *group) {
    struct cam cam = {.map = numbers_of(session, session->graph.nodes[model_pool(session->model)].input)};
    size_t area = (size_t)cam.map.tensor->shape.height * cam.map.tensor->shape.width;
    for (uint32_t i = 0; i < group->count; i++) {
        cam.weight = cam_weight(session, group, i);
        cam.to = group->request->cam + (group->first + i) * area;
        pool_run(session->pool, cam_part, &cam);
        cam.map.values += cam.map.tensor->image;
    }
}

/* ---- All nodes ---- */

/* Add the time since `start`. This arithmetic, too, leaves no mark in the caller's floating-point environment: it needs
 * the clock, which is read behind the entrance, and its result goes to memory that others see, before the exit; so no
 * compiler may move it out. */
static void add_time(double *seconds, int64_t start) {
    uint64_t before = fpenv_enter(true);
    *seconds += 1e-9 * (double)(nanoseconds_now() - start);
    fpenv_leave(before);
}

/* What a request wants of a node's output, which is there for a short time only. */
static void hand_out(const resnet_session *session, uint32_t node, const struct group *group) {
    const resnet_request *request = group->request;
    for (uint32_t s = 0; s < RESNET_MAX_STAGES; s++)
        if (request->maps[s] && session->graph.stages[s] == node)
            copy_map(session, node, group, request->maps[s]);
    bool has_classifier = session->model->config.head != RESNET_HEAD_NONE;
    if (request->embedding && has_classifier && node == model_pool(session->model))
        average(session, group);
}

/* A conversion of the input is counted with the first layer. */
static void run_layer(const resnet_session *session, uint32_t node, const struct group *group) {
    double *seconds = session->options.layer_seconds;
    int64_t start = seconds ? nanoseconds_now() : 0;
    if (node == 1 && session->model->format != FORMAT_F32)
        run_node(session, 0, group);
    run_node(session, node, group);
    if (seconds)
        add_time(&seconds[node - 1], start);
}

/* Where the last node's output goes: to the caller, if he wants it. */
static float *output_of(const resnet_session *session, const struct group *group) {
    const resnet_request *request = group->request;
    bool has_classifier = session->model->config.head != RESNET_HEAD_NONE;
    float *wanted = has_classifier ? request->logits : request->embedding;
    size_t size = session->graph.nodes[session->graph.count - 1].out.channels;
    return wanted ? wanted + group->first * size : cam_scratch(session);
}

static uint32_t later(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* The last node that the request needs. */
static uint32_t last_needed(const resnet_session *session, const resnet_request *request) {
    uint32_t classifier = session->graph.count - 1, pool = model_pool(session->model), last = 0;
    if (request->logits || (request->cam && !request->cam_classes))
        return classifier;
    if (request->embedding)
        return pool;
    if (request->cam)
        return session->graph.nodes[pool].input;
    for (uint32_t s = 0; s < RESNET_MAX_STAGES; s++)
        if (request->maps[s])
            last = later(last, session->graph.stages[s]);
    return last;
}

static void run_group(const resnet_session *session, const struct group *group) {
    uint32_t last = last_needed(session, group->request);
    for (uint32_t node = 1; node <= last; node++) {
        run_layer(session, node, group);
        hand_out(session, node, group);
    }
    if (group->request->cam)
        map_classes(session, group);
}

/* ---- Requests ---- */

static resnet_status check_stage(const resnet_session *session, uint32_t stage, resnet_error *error) {
    uint32_t stages = 0;
    while (stages < RESNET_MAX_STAGES && session->graph.stages[stages] != NO_NODE)
        stages++;
    if (stage < stages)
        return RESNET_OK;
    return fail(error, RESNET_ERROR_ARGUMENT, "stage %u (counted from 0) does not exist: the network has %u", stage,
                stages);
}

resnet_status resnet_session_map(const resnet_session *session, uint32_t stage, resnet_map *map, resnet_error *error) {
    if (!session || !map)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_session_map: session and map must not be NULL");
    resnet_status status = check_stage(session, stage, error);
    if (status != RESNET_OK)
        return status;
    const struct node *nodes = session->graph.nodes;
    struct shape out = nodes[session->graph.stages[stage]].out;
    *map = (resnet_map){out.channels, out.height, out.width, 1};
    for (uint32_t node = session->graph.stages[stage]; node != 0; node = nodes[node].input)
        map->stride *= nodes[node].stride;
    return RESNET_OK;
}

static resnet_status check_classes(const resnet_session *session, uint32_t count, const resnet_request *request,
                                   resnet_error *error) {
    uint32_t classes = session->model->config.classes;
    if (session->model->config.head == RESNET_HEAD_NONE && (request->logits || request->cam))
        return fail(error, RESNET_ERROR_ARGUMENT,
                    "resnet_run: the network has no head, so no logits or class-activation maps");
    for (uint32_t i = 0; request->cam && request->cam_classes && i < count; i++)
        if (request->cam_classes[i] >= classes)
            return fail(error, RESNET_ERROR_ARGUMENT, "class %u of slot %u does not exist: there are %u",
                        request->cam_classes[i], i, classes);
    return RESNET_OK;
}

static resnet_status check_results(const resnet_session *session, const resnet_request *request, resnet_error *error) {
    bool wants = request->logits || request->embedding || request->cam;
    for (uint32_t s = 0; s < RESNET_MAX_STAGES; s++) {
        resnet_status status = request->maps[s] ? check_stage(session, s, error) : RESNET_OK;
        if (status != RESNET_OK)
            return status;
        wants |= request->maps[s] != NULL;
    }
    return wants ? check_layout(request->layout, error)
                 : fail(error, RESNET_ERROR_ARGUMENT, "resnet_run: the request asks for nothing: all of it is NULL");
}

resnet_status resnet_run(resnet_session *session, uint32_t count, const resnet_request *request, resnet_error *error) {
    if (!session || !request)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_run: session and request must not be NULL");
    if (count == 0 || count > session->options.batch)
        return fail(error, RESNET_ERROR_ARGUMENT, "a run of %u images; the session takes 1 to %u", count,
                    session->options.batch);
    resnet_status status = check_results(session, request, error);
    if (status == RESNET_OK)
        status = check_classes(session, count, request, error);
    if (status != RESNET_OK)
        return status;
    for (uint32_t first = 0; first < count; first += session->group) {
        struct group group = {.first = first, .count = smaller(session->group, count - first), .request = request};
        group.output = output_of(session, &group);
        run_group(session, &group);
    }
    return RESNET_OK;
}

resnet_status resnet_session_run(resnet_session *session, uint32_t count, float *logits, resnet_error *error) {
    if (!session || !logits)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_session_run: session and logits must not be NULL");
    if (session->model->config.head == RESNET_HEAD_NONE)
        return fail(error, RESNET_ERROR_ARGUMENT,
                    "resnet_session_run: the network has no head, so no logits; resnet_run gives its embedding");
    return resnet_run(session, count, &(resnet_request){.logits = logits}, error);
}
