/*
 * test_run.c - requests: each result alone and with any others, against the reference executor and against what it is
 * by definition; what is not needed is not run; the same bits for every thread count, batch, slot and pool.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "session.h"
#include "support.h"
#include "weights.h"

#define MOST_BATCH 5
#define GUARD      (-12345.0F) /* stands behind each result */

static resnet_isa isa; /* of this run */

static const resnet_precision precisions[] = {RESNET_PRECISION_F32, RESNET_PRECISION_BF16, RESNET_PRECISION_INT8};

/* ---- Networks ---- */

/* Bottlenecks in all four stages. */
static resnet_config deep_config(void) {
    resnet_config config = test_odd_config();
    config.block = RESNET_BLOCK_BOTTLENECK;
    memcpy(config.blocks, (uint32_t[]){1, 2, 1, 1}, sizeof config.blocks);
    config.base_width = 16;
    config.height = 37;
    config.width = 50;
    config.classes = 50;
    return config;
}

static resnet_config dilated_config(void) {
    resnet_config config = deep_config();
    config.output_stride = 8;
    return config;
}

static resnet_config v1_config(void) {
    resnet_config config = deep_config();
    config.stride_at = RESNET_STRIDE_AT_1X1;
    return config;
}

static resnet_config attention_config(void) {
    resnet_config config = test_odd_config();
    config.attention = RESNET_ATTENTION_SE;
    config.attention_width = 8;
    return config;
}

static resnet_config cifar_config(void) {
    resnet_config config = test_odd_config();
    config.stem = RESNET_STEM_CIFAR;
    config.shortcut = RESNET_SHORTCUT_ZEROS;
    config.base_width = 6;
    return config;
}

/* An activation of 2 MB, so that not all images go through the network together. */
static resnet_config large_config(void) {
    resnet_config config = test_odd_config();
    memcpy(config.blocks, (uint32_t[]){1, 0, 0, 0}, sizeof config.blocks);
    config.height = 420;
    config.width = 400;
    return config;
}

static resnet_config headless_config(void) {
    resnet_config config = test_odd_config();
    config.blocks[1] = config.blocks[2] = 0; /* 13 features */
    config.head = RESNET_HEAD_NONE;
    config.classes = 0;
    return config;
}

static resnet_config (*const networks[])(void) = {test_odd_config,  deep_config,  dilated_config, v1_config,
                                                  attention_config, cifar_config, headless_config};

static resnet_model *random_model(resnet_config config, resnet_isa on) {
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_random(&config, 7, &(resnet_load_options){.isa = on}, &model, &error),
                  &error);
    return model;
}

/* ---- Sessions ---- */

static resnet_session *open_session(const resnet_model *model, const resnet_session_options *options) {
    resnet_session *session;
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_create(model, options, &session, &error), &error);
    return session;
}

/* Image `image` of a series of numbers in [0, 1), where pixels of int8 have their place. */
static void fill_slot(resnet_session *session, uint32_t slot, const resnet_config *config, uint32_t image) {
    struct test_random random = {image + 1};
    size_t size = (size_t)config->height * config->width * config->in_channels;
    float *values = malloc(size * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < size; i++)
        values[i] = test_float(&random, 0, 1);
    assert_int_equal(resnet_session_set_floats(session, slot, values, RESNET_NHWC, NULL), RESNET_OK);
    free(values);
}

/* A session whose slots hold images first, first + 1, ... */
static resnet_session *filled_session(const resnet_model *model, resnet_session_options options, uint32_t first) {
    resnet_config config = resnet_model_describe(model).config;
    resnet_session *session = open_session(model, &options);
    for (uint32_t i = 0; i < options.batch; i++)
        fill_slot(session, i, &config, first + i);
    return session;
}

/* ---- Results ---- */

enum { LOGITS, EMBEDDING, CAM, MAPS, RESULTS = MAPS + RESNET_MAX_STAGES };
#define ALL ((1U << RESULTS) - 1)

/* Room for what a run can give, with a guard behind each. */
struct results {
    size_t size[RESULTS]; /* floats of an image; 0 where the network has no such result */
    float *values[RESULTS];
};

static struct results make_results(const resnet_session *session, const resnet_model *model) {
    resnet_model_info info = resnet_model_describe(model);
    struct results results = {.size = {info.config.classes, info.features}};
    for (uint32_t s = 0; s < RESNET_MAX_STAGES && info.config.blocks[s]; s++) {
        resnet_map map;
        assert_int_equal(resnet_session_map(session, s, &map, NULL), RESNET_OK);
        results.size[MAPS + s] = (size_t)map.channels * map.height * map.width;
        results.size[CAM] = info.config.classes ? (size_t)map.height * map.width : 0;
    }
    for (int i = 0; i < RESULTS; i++) {
        results.values[i] = malloc((MOST_BATCH * results.size[i] + 1) * sizeof(float));
        assert_non_null(results.values[i]);
    }
    return results;
}

static void free_results(struct results *results) {
    for (int i = 0; i < RESULTS; i++)
        free(results->values[i]);
}

/* Those of `which` that there are. */
static resnet_request request_of(const struct results *results, unsigned which) {
    float *wanted[RESULTS] = {NULL};
    for (int i = 0; i < RESULTS; i++)
        wanted[i] = which >> i & 1 && results->size[i] ? results->values[i] : NULL;
    resnet_request request = {.logits = wanted[LOGITS], .embedding = wanted[EMBEDDING], .cam = wanted[CAM]};
    memcpy(request.maps, wanted + MAPS, sizeof request.maps);
    return request;
}

/* Whether the network has any of them. */
static bool has_any(const struct results *results, unsigned which) {
    bool any = false;
    for (int i = 0; i < RESULTS; i++)
        any |= which >> i & 1 && results->size[i];
    return any;
}

/* Run and see that nothing is written behind the results. */
static void run(resnet_session *session, uint32_t count, const struct results *results, const resnet_request *request) {
    resnet_error error;
    for (int i = 0; i < RESULTS; i++)
        for (size_t k = 0; k <= MOST_BATCH * results->size[i]; k++)
            results->values[i][k] = GUARD;
    assert_status(RESNET_OK, resnet_run(session, count, request, &error), &error);
    for (int i = 0; i < RESULTS; i++)
        assert_true(results->values[i][count * results->size[i]] == GUARD);
}

static void run_all(resnet_session *session, uint32_t count, const struct results *results) {
    resnet_request request = request_of(results, ALL);
    run(session, count, results, &request);
}

/* What `got` has of images 0..count-1, of `which`, are the bits that `wanted` has from image `first` on. */
struct places {
    uint32_t first, count;
};

static void check_same(const struct results *got, const struct results *wanted, unsigned which, struct places at) {
    for (int i = 0; i < RESULTS; i++) {
        size_t size = got->size[i];
        if (which >> i & 1 && size)
            assert_memory_equal(got->values[i], wanted->values[i] + at.first * size, at.count * size * sizeof(float));
    }
}

/* ---- Each result with any others ---- */

/* What is asked for beside a result changes nothing; nor does naming the classes that are the best. */
static void check_combinations(resnet_config config) {
    resnet_model *model = random_model(config, isa);
    resnet_session *session = filled_session(model, (resnet_session_options){.batch = 3, .threads = 2}, 0);
    struct results full = make_results(session, model), some = make_results(session, model);
    uint32_t best[3] = {0};
    run_all(session, 3, &full);
    for (uint32_t i = 0; i < 3 && config.classes; i++)
        resnet_top_k(full.values[LOGITS] + i * config.classes, config.classes, 1, &best[i]);
    unsigned step = test_quick() ? 37 : config.precision == RESNET_PRECISION_F32 ? 1 : 3;
    for (unsigned which = 1; which <= ALL; which += step)
        for (int named = 0; named < 2; named++) {
            resnet_request request = request_of(&some, which);
            if (!has_any(&some, which))
                continue;
            request.cam_classes = named ? best : NULL;
            run(session, 3, &some, &request);
            check_same(&some, &full, which, (struct places){0, 3});
        }
    free_results(&full);
    free_results(&some);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_combinations(void **state) {
    (void)state;
    for (size_t n = 0; n < COUNT(networks); n++)
        for (size_t p = 0; p < COUNT(precisions); p++)
            check_combinations(test_stored_in(networks[n](), precisions[p]));
}

static void test_short_form(void **state) {
    (void)state;
    resnet_model *model = random_model(deep_config(), isa);
    resnet_session *session = filled_session(model, (resnet_session_options){.batch = 2, .threads = 2}, 0);
    struct results results = make_results(session, model);
    float logits[2 * 50];
    run_all(session, 2, &results);
    assert_int_equal(resnet_session_run(session, 2, logits, NULL), RESNET_OK);
    assert_memory_equal(logits, results.values[LOGITS], sizeof logits);
    free_results(&results);
    resnet_session_free(session);
    resnet_model_free(model);
}

/* ---- Against the reference executor ---- */

/* As a part of the largest number of a result; test_session.c says why for logits, and what comes before them is off by
 * less. Int8 on other instruction sets must give the bits of plain C. */
static float tolerance(resnet_precision precision) {
    if (precision == RESNET_PRECISION_INT8)
        return isa == RESNET_ISA_SCALAR ? 0.5F : 0;
    return precision == RESNET_PRECISION_BF16 ? 0.02F : 1e-4F;
}

static void check_close(const float *got, const float *wanted, size_t count, float part) {
    float largest = 0, error = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(isfinite(got[i]));
        largest = fmaxf(largest, fabsf(wanted[i]));
        error = fmaxf(error, fabsf(got[i] - wanted[i]));
    }
    if (error > part * largest)
        print_error("off by %g of a largest of %g\n", (double)error, (double)largest);
    assert_true(error <= part * largest);
}

static void check_against_reference(resnet_config config) {
    static const uint32_t classes[] = {3, 0};
    bool exact = config.precision == RESNET_PRECISION_INT8 && isa != RESNET_ISA_SCALAR;
    resnet_model *model = random_model(config, isa);
    resnet_model *oracle = random_model(config, exact ? RESNET_ISA_SCALAR : RESNET_ISA_REFERENCE);
    resnet_session *fast = filled_session(model, (resnet_session_options){.batch = 2, .threads = 3}, 0);
    resnet_session *slow = filled_session(oracle, (resnet_session_options){.batch = 2}, 0);
    struct results got = make_results(fast, model), wanted = make_results(slow, oracle);
    resnet_request request = request_of(&got, ALL), other = request_of(&wanted, ALL);
    request.cam_classes = other.cam_classes = classes; /* the best may be another one where two are near */
    run(fast, 2, &got, &request);
    run(slow, 2, &wanted, &other);
    for (int i = 0; i < RESULTS; i++)
        check_close(got.values[i], wanted.values[i], 2 * got.size[i], tolerance(config.precision));
    free_results(&got);
    free_results(&wanted);
    resnet_session_free(fast);
    resnet_session_free(slow);
    resnet_model_free(model);
    resnet_model_free(oracle);
}

static void test_against_reference(void **state) {
    (void)state;
    for (size_t n = 0; n < COUNT(networks); n++)
        for (size_t p = 0; p < COUNT(precisions); p++)
            check_against_reference(test_stored_in(networks[n](), precisions[p]));
}

/* ---- Shapes and layouts ---- */

static void check_shapes(resnet_config config, const resnet_map *expected, uint32_t stages) {
    resnet_model *model = random_model(config, isa);
    resnet_session *session = open_session(model, NULL);
    resnet_map map;
    resnet_error error;
    for (uint32_t s = 0; s < stages; s++) {
        assert_status(RESNET_OK, resnet_session_map(session, s, &map, &error), &error);
        assert_memory_equal(&map, &expected[s], sizeof map);
    }
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_map(session, stages, &map, &error), &error);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_shapes(void **state) {
    (void)state;
    check_shapes(test_odd_config(), (resnet_map[]){{13, 5, 8, 4}, {26, 3, 4, 8}, {52, 2, 2, 16}}, 3);
    check_shapes(deep_config(), (resnet_map[]){{64, 10, 13, 4}, {128, 5, 7, 8}, {256, 3, 4, 16}, {512, 2, 2, 32}}, 4);
    check_shapes(v1_config(), (resnet_map[]){{64, 10, 13, 4}, {128, 5, 7, 8}, {256, 3, 4, 16}, {512, 2, 2, 32}}, 4);
    check_shapes(dilated_config(), (resnet_map[]){{64, 10, 13, 4}, {128, 5, 7, 8}, {256, 5, 7, 8}, {512, 5, 7, 8}}, 4);
    check_shapes(attention_config(), (resnet_map[]){{13, 5, 8, 4}, {26, 3, 4, 8}, {52, 2, 2, 16}}, 3);
    check_shapes(cifar_config(), (resnet_map[]){{6, 19, 30, 1}, {12, 10, 15, 2}, {24, 5, 8, 4}}, 3);
    check_shapes(headless_config(), (resnet_map[]){{13, 5, 8, 4}}, 1);
}

static void test_shapes_at_another_size(void **state) {
    (void)state;
    resnet_map map;
    resnet_model *model = random_model(deep_config(), isa);
    resnet_session *session = open_session(model, &(resnet_session_options){.height = 513, .width = 1});
    assert_int_equal(resnet_session_map(session, 3, &map, NULL), RESNET_OK);
    assert_memory_equal(&map, (&(resnet_map){512, 17, 1, 32}), sizeof map);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void check_transposed(const float *nchw, const float *nhwc, const resnet_map *map, uint32_t images) {
    size_t area = (size_t)map->height * map->width, size = area * map->channels;
    for (size_t i = 0; i < images * size; i++) {
        size_t c = i % size / area, place = i % area;
        assert_true(nchw[i] == nhwc[i / size * size + place * map->channels + c]);
    }
}

static void check_layouts(resnet_config config) {
    resnet_model *model = random_model(config, isa);
    resnet_session *session = filled_session(model, (resnet_session_options){.batch = 2, .threads = 3}, 0);
    struct results nchw = make_results(session, model), nhwc = make_results(session, model);
    resnet_request request = request_of(&nhwc, ALL);
    request.layout = RESNET_NHWC;
    run_all(session, 2, &nchw);
    run(session, 2, &nhwc, &request);
    for (uint32_t s = 0; s < RESNET_MAX_STAGES && config.blocks[s]; s++) {
        resnet_map map;
        assert_int_equal(resnet_session_map(session, s, &map, NULL), RESNET_OK);
        check_transposed(nchw.values[MAPS + s], nhwc.values[MAPS + s], &map, 2);
    }
    check_same(&nhwc, &nchw, 1 << LOGITS | 1 << EMBEDDING | 1 << CAM, (struct places){0, 2});
    free_results(&nchw);
    free_results(&nhwc);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_layouts(void **state) {
    (void)state;
    for (size_t n = 0; n < COUNT(networks); n++)
        for (size_t p = 0; p < COUNT(precisions); p++)
            check_layouts(test_stored_in(networks[n](), precisions[p]));
}

/* ---- What the results are by definition ---- */

static uint32_t last_stage(const resnet_config *config) {
    uint32_t last = 0;
    while (last + 1 < RESNET_MAX_STAGES && config->blocks[last + 1])
        last++;
    return last;
}

static double mean_of(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i];
    return sum / (double)count;
}

/* The mean of the last map, to the rounding of a sum of at most 40 numbers in f32: 40 * 2^-24 of what is never
 * negative. An average that went through bf16 or u8 would be off by a thousand times that. */
static void check_embedding(resnet_config config) {
    resnet_model *model = random_model(config, isa);
    resnet_session *session = filled_session(model, (resnet_session_options){.batch = 2, .threads = 2}, 0);
    struct results results = make_results(session, model);
    run_all(session, 2, &results);
    size_t features = results.size[EMBEDDING], map = results.size[MAPS + last_stage(&config)], area = map / features;
    double largest = 0;
    for (size_t i = 0; i < 2 * features; i++) {
        double mean = mean_of(results.values[MAPS + last_stage(&config)] + i * area, area);
        assert_true(fabs((double)results.values[EMBEDDING][i] - mean) <= 40 * 0x1p-24 * mean);
        largest = fmax(largest, mean);
    }
    assert_true(largest > 0);
    free_results(&results);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_embeddings(void **state) {
    (void)state;
    for (size_t n = 0; n < COUNT(networks); n++)
        for (size_t p = 0; p < COUNT(precisions); p++)
            check_embedding(test_stored_in(networks[n](), precisions[p]));
}

/* The same network without its head has the same embedding and maps. */
static void test_headless(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        resnet_config config = test_stored_in(deep_config(), precisions[p]);
        resnet_model *whole = random_model(config, isa);
        config.head = RESNET_HEAD_NONE;
        config.classes = 0;
        resnet_model *headless = random_model(config, isa);
        resnet_session_options options = {.batch = 3, .threads = 2};
        resnet_session *session = filled_session(whole, options, 0), *other = filled_session(headless, options, 0);
        struct results wanted = make_results(session, whole), got = make_results(other, headless);
        run_all(session, 3, &wanted);
        run_all(other, 3, &got);
        assert_int_equal(got.size[EMBEDDING], 512);
        check_same(&got, &wanted, 1 << EMBEDDING | 15U << MAPS, (struct places){0, 3});
        free_results(&got);
        free_results(&wanted);
        resnet_session_free(session);
        resnet_session_free(other);
        resnet_model_free(whole);
        resnet_model_free(headless);
    }
}

/* ---- Class-activation maps ---- */

/* Zhou et al.: the mean of a class's map is its logit without the bias. */
struct cam_case {
    resnet_model *model;
    resnet_config config;
    double limit; /* as a part of what is added up in a logit, in magnitude */
};

/* weight . embedding, and the sum of the terms' magnitudes. */
static double logit_of(const float *weight, const float *embedding, size_t features, double *magnitude) {
    double sum = 0;
    *magnitude = 0;
    for (size_t k = 0; k < features; k++) {
        double term = (double)weight[k] * (double)embedding[k];
        sum += term;
        *magnitude += fabs(term);
    }
    return sum;
}

static void check_cam(const struct cam_case *c) {
    resnet_session *session = filled_session(c->model, (resnet_session_options){.batch = 2, .threads = 2}, 0);
    struct results results = make_results(session, c->model);
    size_t area = results.size[CAM], features = results.size[EMBEDDING];
    float *weight = malloc(features * sizeof *weight);
    assert_non_null(weight);
    for (uint32_t class = 0; class < c->config.classes; class ++) {
        uint32_t classes[2] = {class, (class + 1) % c->config.classes};
        resnet_request request = request_of(&results, ALL);
        request.cam_classes = classes;
        run(session, 2, &results, &request);
        for (uint32_t i = 0; i < 2; i++) {
            double magnitude;
            float bias = weights_of_channel(c->model, c->model->graph.count - 1, classes[i], weight);
            double logit = logit_of(weight, results.values[EMBEDDING] + i * features, features, &magnitude);
            double mean = mean_of(results.values[CAM] + i * area, area);
            double given = (double)results.values[LOGITS][i * c->config.classes + classes[i]] - (double)bias;
            assert_true(fabs(mean - logit) <= 0x1p-20 * magnitude); /* sums in f32 of 40 numbers, and in double */
            assert_true(fabs(mean - given) <= c->limit * (magnitude + fabs((double)bias)));
        }
    }
    free(weight);
    free_results(&results);
    resnet_session_free(session);
}

/*
 * What a logit is off by: in f32 its sum of 512 products by 512 * 2^-24 of their magnitude at most, 2^-16 with what
 * the averages are off; in bf16 the averages by 2^-9, and a product's weights are the same on both sides; in int8 the
 * averages by half a unit of up to 1/255 of the largest one, which is many times most of them, so a tenth.
 */
static double cam_limit(resnet_precision precision) {
    return precision == RESNET_PRECISION_F32 ? 0x1p-15 : precision == RESNET_PRECISION_BF16 ? 0x1p-8 : 0.1;
}

#define DEEP_LAYERS 21 /* with tensors, of deep_config; the classifier is the last */

static resnet_model *model_of_file(const resnet_config *config, bool keep_classifier, resnet_isa on) {
    struct test_random random = {11};
    struct test_content content = {.fill = test_fill_random, .context = &random};
    resnet_model *model;
    resnet_error error;
    if (keep_classifier)
        content.kept = 1U << (DEEP_LAYERS - 1);
    struct test_bytes file = test_model_file(config, &content);
    assert_status(RESNET_OK,
                  resnet_model_load_memory(file.data, file.size, &(resnet_load_options){.isa = on}, &model, &error),
                  &error);
    test_bytes_free(&file);
    return model;
}

static void test_cams(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++)
        for (int kept = 0; kept <= (precisions[p] == RESNET_PRECISION_INT8); kept++) {
            resnet_config config = test_stored_in(deep_config(), precisions[p]);
            struct cam_case c = {model_of_file(&config, kept, isa), config, cam_limit(precisions[p])};
            assert_int_equal(model_keeps(c.model, c.model->graph.count - 1), kept);
            check_cam(&c);
            resnet_model_free(c.model);
        }
}

/* The weights read back are those of the reference executor, which has the file's: to the bit, but for the scales of
 * int8, which went through the division and the multiplication by those of the activations. */
static void test_weights_of_channel(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        resnet_config config = test_stored_in(deep_config(), precisions[p]);
        resnet_model *model = model_of_file(&config, false, isa);
        resnet_model *oracle = model_of_file(&config, false, RESNET_ISA_REFERENCE);
        float got[512], wanted[512], limit = precisions[p] == RESNET_PRECISION_INT8 ? 0x1p-22F : 0;
        for (uint32_t c = 0; c < config.classes; c++) {
            float bias = weights_of_channel(model, model->graph.count - 1, c, got);
            float wanted_bias = weights_of_channel(oracle, model->graph.count - 1, c, wanted);
            for (size_t k = 0; k < COUNT(got); k++)
                assert_true(fabsf(got[k] - wanted[k]) <= limit * fabsf(wanted[k]));
            assert_true(fabsf(bias - wanted_bias) <= (limit > 0 ? 1e-3F : 0)); /* half a unit of the products */
        }
        resnet_model_free(model);
        resnet_model_free(oracle);
    }
}

/* ---- What is not needed is not run ---- */

struct watch {
    uint32_t calls, last; /* of the observer */
};

static void watch_nodes(void *context, const struct observation *seen) {
    struct watch *watch = context;
    assert_true(seen->node == (watch->calls ? watch->last + 1 : 0));
    watch->calls++;
    watch->last = seen->node;
}

/* The nodes that run are those up to `name`. */
static void check_last(const resnet_model *model, unsigned which, const uint32_t *classes, const char *name) {
    double seconds[64] = {0};
    struct watch watch = {0};
    resnet_session_options options = {.batch = 1, .threads = 2, .layer_seconds = seconds};
    resnet_session *session = filled_session(model, options, 0);
    struct results results = make_results(session, model);
    resnet_request request = request_of(&results, which);
    request.cam_classes = classes;
    session_observe(session, watch_nodes, &watch);
    run(session, 1, &results, &request);
    assert_string_equal(model->graph.nodes[watch.last].name, name);
    assert_int_equal(watch.calls, watch.last + 1);
    for (uint32_t i = 1; i < model->graph.count; i++)
        assert_true(i <= watch.last ? seconds[i - 1] >= 0 : seconds[i - 1] == 0);
    assert_true(seconds[0] > 0);
    free_results(&results);
    resnet_session_free(session);
}

static void test_last_layer(void **state) {
    (void)state;
    static const uint32_t class = 1;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        resnet_model *model = random_model(test_stored_in(deep_config(), precisions[p]), isa);
        check_last(model, 1 << MAPS, NULL, "layer1.0.conv3");
        check_last(model, 1 << (MAPS + 1), NULL, "layer2.1.conv3");
        check_last(model, 5 << MAPS, NULL, "layer3.0.conv3");
        check_last(model, 15 << MAPS, NULL, "layer4.0.conv3");
        check_last(model, 1 << CAM | 1 << MAPS, &class, "layer4.0.conv3");
        check_last(model, 1 << EMBEDDING, NULL, "avgpool");
        check_last(model, 1 << CAM | 1 << EMBEDDING, &class, "avgpool");
        check_last(model, 1 << CAM, NULL, "fc");
        check_last(model, 1 << LOGITS, NULL, "fc");
        check_last(model, ALL, NULL, "fc");
        resnet_model_free(model);
    }
    resnet_model *headless = random_model(headless_config(), isa);
    check_last(headless, 1 << MAPS, NULL, "layer1.1.conv2");
    check_last(headless, 1 << EMBEDDING, NULL, "avgpool");
    resnet_model_free(headless);
}

/* ---- The same bits ---- */

static void backwards(void *context, uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    ++*(uint32_t *)context;
    while (count-- > 0)
        task(argument, count);
}

/* Which class each image's map explains. */
static const uint32_t some_classes[MOST_BATCH] = {1, 0, 5, 3, 1};

/* Run images first, first + 1, ... in slots 0.. for all that there is; class-activation maps of those classes, or of
 * the best. */
static void run_images(resnet_session *session, uint32_t first, uint32_t count, const struct results *results,
                       bool named) {
    resnet_request request = request_of(results, ALL);
    request.cam_classes = named ? some_classes + first : NULL;
    run(session, count, results, &request);
}

/* Each of MOST_BATCH images alone, in one thread. */
static void run_alone(const resnet_model *model, const struct results *one, const struct results *alone, bool named) {
    for (uint32_t i = 0; i < MOST_BATCH; i++) {
        resnet_session *session = filled_session(model, (resnet_session_options){.batch = 1, .threads = 1}, i);
        run_images(session, i, 1, one, named);
        for (int k = 0; k < RESULTS; k++)
            memcpy(alone->values[k] + i * one->size[k], one->values[k], one->size[k] * sizeof(float));
        resnet_session_free(session);
    }
}

static void check_bits(resnet_config config, bool named) {
    resnet_model *model = random_model(config, isa);
    resnet_session *any = open_session(model, NULL);
    struct results got = make_results(any, model), alone = make_results(any, model);
    uint32_t calls = 0;
    run_alone(model, &got, &alone, named);
    for (uint32_t batch = 1; batch <= MOST_BATCH; batch += 2)
        for (uint32_t threads = 1; threads <= 7; threads += 3) {
            uint32_t first = MOST_BATCH - batch;
            resnet_session_options options = {.batch = batch, .threads = threads};
            options.parallel_for = threads == 4 ? backwards : NULL;
            options.parallel_context = &calls;
            resnet_session *session = filled_session(model, options, first);
            run_images(session, first, batch, &got, named);
            check_same(&got, &alone, ALL, (struct places){first, batch});
            run_images(session, first, (batch + 1) / 2, &got, named);
            check_same(&got, &alone, ALL, (struct places){first, (batch + 1) / 2});
            resnet_session_free(session);
        }
    assert_true(calls > 0 || isa == RESNET_ISA_REFERENCE);
    free_results(&got);
    free_results(&alone);
    resnet_session_free(any);
    resnet_model_free(model);
}

static void test_bits(void **state) {
    (void)state;
    for (size_t n = 0; n < COUNT(networks); n += test_quick() ? 3 : 1)
        for (size_t p = 0; p < COUNT(precisions); p++)
            check_bits(test_stored_in(networks[n](), precisions[p]), n % 2);
    for (int variant = 0; variant < 2 && !test_quick(); variant++)
        check_bits(large_config(), variant);
}

/* ---- Memory ---- */

/* What is announced is what is taken, and a run takes nothing. */
static void test_memory(void **state) {
    (void)state;
    resnet_config config = deep_config();
    struct test_memory memory;
    size_t announced;
    test_memory_init(&memory, 0xff); /* NaNs */
    resnet_model *model = test_model(&config, 1, &(resnet_load_options){.isa = isa, .allocator = &memory.allocator});
    size_t before = memory.live_bytes;
    resnet_session_options options = {.batch = 3, .threads = 2};
    assert_int_equal(resnet_session_memory(model, &options, &announced, NULL), RESNET_OK);
    resnet_session *session = filled_session(model, options, 0);
    assert_int_equal(memory.live_bytes - before, announced);
    struct results results = make_results(session, model);
    size_t calls = memory.calls;
    run_all(session, 3, &results);
    assert_int_equal(memory.calls, calls);
    free_results(&results);
    resnet_session_free(session);
    resnet_model_free(model);
    test_memory_check(&memory);
}

/* ---- Wrong calls ---- */

/* Refused with a message that has these words, and nothing is written. */
static void check_refused(resnet_session *session, uint32_t count, const resnet_request *request, const char *words) {
    resnet_error error = {RESNET_OK, ""};
    assert_status(RESNET_ERROR_ARGUMENT, resnet_run(session, count, request, &error), &error);
    if (!strstr(error.message, words))
        print_error("'%s' lacks '%s'\n", error.message, words);
    assert_non_null(strstr(error.message, words));
    assert_int_equal(resnet_run(session, count, request, NULL), RESNET_ERROR_ARGUMENT);
}

static void test_wrong_requests(void **state) {
    (void)state;
    float place[1] = {GUARD};
    resnet_model *model = random_model(test_odd_config(), isa);
    resnet_session *session = filled_session(model, (resnet_session_options){.batch = 2}, 0);
    const resnet_request good = {.embedding = place};
    check_refused(NULL, 1, &good, "session");
    check_refused(session, 1, NULL, "request");
    check_refused(session, 0, &good, "0 images");
    check_refused(session, 3, &good, "3 images; the session takes 1 to 2");
    check_refused(session, UINT32_MAX, &good, "images");
    check_refused(session, 1, &(resnet_request){.logits = NULL}, "nothing");
    check_refused(session, 1, &(resnet_request){.cam_classes = (uint32_t[]){0}}, "nothing");
    check_refused(session, 1, &(resnet_request){.embedding = place, .layout = (resnet_layout)2}, "layout 2");
    check_refused(session, 1, &(resnet_request){.maps = {NULL, NULL, NULL, place}}, "stage 3");
    check_refused(session, 2, &(resnet_request){.cam = place, .cam_classes = (uint32_t[]){6, 7}}, "class 7 of slot 1");
    resnet_session_free(session);
    resnet_model_free(model);
    model = random_model(headless_config(), isa);
    session = filled_session(model, (resnet_session_options){.batch = 1}, 0);
    check_refused(session, 1, &(resnet_request){.logits = place}, "no head");
    check_refused(session, 1, &(resnet_request){.cam = place, .embedding = place}, "no head");
    check_refused(session, 1, &(resnet_request){.cam = place, .cam_classes = (uint32_t[]){0}}, "no head");
    assert_true(place[0] == GUARD);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_other_wrong_calls(void **state) {
    (void)state;
    float place[1] = {GUARD};
    resnet_map map = {0};
    resnet_error error;
    resnet_model *model = random_model(headless_config(), isa);
    resnet_session *session = open_session(model, NULL);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_map(NULL, 0, &map, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_map(session, 0, NULL, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_map(session, 4, &map, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_map(session, UINT32_MAX, &map, &error), &error);
    assert_int_equal(map.channels, 0);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_run(session, 1, place, &error), &error);
    assert_non_null(strstr(error.message, "resnet_run"));
    assert_true(place[0] == GUARD);
    resnet_session_free(session);
    resnet_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_combinations),   cmocka_unit_test(test_short_form),
        cmocka_unit_test(test_shapes),         cmocka_unit_test(test_shapes_at_another_size),
        cmocka_unit_test(test_layouts),        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_headless),       cmocka_unit_test(test_cams),
        cmocka_unit_test(test_last_layer),     cmocka_unit_test(test_weights_of_channel),
        cmocka_unit_test(test_bits),           cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_wrong_requests), cmocka_unit_test(test_other_wrong_calls),
        cmocka_unit_test(test_memory),
    };
    isa = test_isa();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
