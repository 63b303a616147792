/*
 * test_model.c - models and the memory of models and sessions: what a load gives, costs and refuses, and that every
 * allocation may fail.
 */
#define _GNU_SOURCE /* mkstemp, CPU_SET */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "model.h"
#include "support.h"
#include "system_calls.h"

/* Two stages, with channels that suit every way a layer can be computed. */
static resnet_config small_config(void) {
    resnet_config config = test_tiny_config();
    config.base_width = 16;
    config.blocks[1] = 1;
    config.height = 40;
    config.width = 36;
    config.classes = 5;
    return config;
}

static struct test_bytes small_file_in(resnet_precision precision) {
    resnet_config config = small_config();
    config.precision = precision;
    return test_model_file(&config, &(struct test_content){.labels = "a\nb\nc\nd\ne\n"});
}

static struct test_bytes small_file(void) {
    return small_file_in(RESNET_PRECISION_F32);
}

static resnet_model *load(const struct test_bytes *bytes, resnet_load_options options) {
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes->data, bytes->size, &options, &model, &error), &error);
    return model;
}

/* Logits of slot 0 for an input made from a seed. */
static void run(const resnet_model *model, const resnet_session_options *options, float *logits) {
    struct test_random random = {7};
    resnet_session *session;
    resnet_error error;
    float input[3 * 40 * 36];
    for (size_t i = 0; i < COUNT(input); i++)
        input[i] = test_float(&random, -2, 2);
    assert_status(RESNET_OK, resnet_session_create(model, options, &session, &error), &error);
    assert_status(RESNET_OK, resnet_session_set_floats(session, 0, input, RESNET_NHWC, &error), &error);
    assert_status(RESNET_OK, resnet_session_run(session, 1, logits, &error), &error);
    resnet_session_free(session);
}

static resnet_model *random_model(uint64_t seed, resnet_isa isa, resnet_precision precision) {
    resnet_config config = small_config();
    resnet_load_options options = {.isa = isa, .precision = precision};
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_random(&config, seed, &options, &model, &error), &error);
    return model;
}

/* ---- Random models ---- */

static void check_seeds(resnet_precision precision) {
    float logits[3][5];
    for (int i = 0; i < 3; i++) {
        resnet_model *model = random_model(i == 2 ? 2 : 1, RESNET_ISA_AUTO, precision);
        assert_int_equal(resnet_model_describe(model).precision, precision);
        run(model, NULL, logits[i]);
        resnet_model_free(model);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    assert_memory_not_equal(logits[0], logits[2], sizeof logits[0]);
    for (int c = 0; c < 5; c++)
        assert_true(isfinite(logits[0][c]) && logits[0][c] != logits[0][(c + 1) % 5]);
}

static void test_same_seed_same_model(void **state) {
    (void)state;
    for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_BF16X3; p++)
        check_seeds(p);
}

static float largest_of(const float *logits) {
    float largest = 0;
    for (int c = 0; c < 5; c++)
        largest = fmaxf(largest, fabsf(logits[c]));
    return largest;
}

static void check_close(const float *logits, const float *expected, float tolerance) {
    for (int c = 0; c < 5; c++)
        if (!(fabsf(logits[c] - expected[c]) <= tolerance * largest_of(expected)))
            fail_msg("logit %d is %g, not %g, of up to %g", c, (double)logits[c], (double)expected[c],
                     (double)largest_of(expected));
}

static void check_everywhere(resnet_precision precision, resnet_isa against, float tolerance) {
    float expected[5], logits[5];
    resnet_model *model = random_model(3, against, precision);
    run(model, NULL, expected);
    resnet_model_free(model);
    for (unsigned isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AVX512; isa++) {
        if (resnet_isa_check((resnet_isa)isa, NULL) != RESNET_OK)
            continue;
        model = random_model(3, (resnet_isa)isa, precision);
        run(model, NULL, logits);
        resnet_model_free(model);
        check_close(logits, expected, tolerance);
    }
}

/* The weights are the same for every instruction set; 1e-5 is the room that test_topology gives whole networks. In bf16
 * the reference has the same weights, but activations in f32. In int8 it takes numbers that are no pixels; but there,
 * the instruction sets do the same operations. */
static void test_same_model_everywhere(void **state) {
    (void)state;
    check_everywhere(RESNET_PRECISION_F32, RESNET_ISA_REFERENCE, 1e-5F);
    check_everywhere(RESNET_PRECISION_BF16, RESNET_ISA_REFERENCE, 0.02F);
    check_everywhere(RESNET_PRECISION_INT8, RESNET_ISA_SCALAR, 1e-6F);
}

#define MOST_RESULTS 512

/* What a member gives for an input made from a seed: logits or, without a head, an embedding. */
static uint32_t run_member(const resnet_config *config, resnet_load_options options, float *results) {
    resnet_model *model;
    resnet_session *session;
    resnet_error error;
    struct test_random random = {7};
    float input[24 * 24 * RESNET_MAX_CHANNELS];
    for (size_t i = 0; i < COUNT(input); i++)
        input[i] = test_float(&random, -2, 2);
    assert_status(RESNET_OK, resnet_model_random(config, 5, &options, &model, &error), &error);
    resnet_model_info info = resnet_model_describe(model);
    resnet_request request = {.logits = config->classes ? results : NULL,
                              .embedding = config->classes ? NULL : results};
    assert_status(RESNET_OK, resnet_session_create(model, NULL, &session, &error), &error);
    assert_status(RESNET_OK, resnet_session_set_floats(session, 0, input, RESNET_NHWC, &error), &error);
    assert_status(RESNET_OK, resnet_run(session, 1, &request, &error), &error);
    resnet_session_free(session);
    resnet_model_free(model);
    return config->classes ? config->classes : info.features;
}

static float difference(const float *a, const float *b, uint32_t count) {
    float most = 0, largest = 0;
    for (uint32_t i = 0; i < count; i++) {
        float d = fabsf(a[i] - b[i]);
        most = d <= most ? most : d; /* NaN is kept */
        largest = fmaxf(largest, fabsf(b[i]));
    }
    return most / largest;
}

/* Any member of the family: as the reference has it in f32 (to what test_topology allows) and in bf16; in int8, where
 * nothing is calibrated, the same in every instruction set. */
static void test_random_members(void **state) {
    (void)state;
    struct test_random random = {11};
    for (int i = 0; i < (test_quick() ? 15 : 60); i++) {
        resnet_config config = test_any_config(&random);
        float expected[MOST_RESULTS], results[MOST_RESULTS];
        for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_INT8; p++) {
            bool int8 = p == RESNET_PRECISION_INT8;
            resnet_isa against = int8 ? RESNET_ISA_SCALAR : RESNET_ISA_REFERENCE;
            uint32_t count = run_member(&config, (resnet_load_options){.isa = against, .precision = p}, expected);
            assert_int_equal(run_member(&config, (resnet_load_options){.precision = p}, results), count);
            float far = difference(results, expected, count);
            if (!(far <= (int8 ? 1e-6F : p == RESNET_PRECISION_F32 ? 1e-5F : 0.05F)))
                fail_msg("member %d in %s is off by %g", i, resnet_precision_name(p), (double)far);
        }
    }
}

static void test_random_refuses(void **state) {
    (void)state;
    resnet_config empty = {.classes = 1}, huge = small_config(), grouped = small_config(), long_sum = small_config();
    huge.base_width = 4096;
    long_sum.base_width = 3641; /* times 3 x 3 is more than 32768 */
    long_sum.blocks[1] = 0;
    long_sum.precision = RESNET_PRECISION_INT8;
    grouped.groups = 2;
    const struct {
        const resnet_config *config;
        resnet_status status;
    } cases[] = {
        {NULL, RESNET_ERROR_ARGUMENT},        {&empty, RESNET_ERROR_ARGUMENT},
        {&huge, RESNET_ERROR_ARGUMENT}, /* more than a model file may have */
        {&grouped, RESNET_ERROR_UNSUPPORTED}, {&long_sum, RESNET_ERROR_ARGUMENT},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct test_memory memory;
        test_memory_init(&memory, 0);
        resnet_load_options options = {.allocator = &memory.allocator};
        resnet_model *model = (resnet_model *)&memory;
        resnet_error error;
        assert_status(cases[i].status, resnet_model_random(cases[i].config, 1, &options, &model, &error), &error);
        assert_null(model);
        test_memory_check(&memory);
    }
}

/* ---- Arguments ---- */

static void test_wrong_arguments(void **state) {
    (void)state;
    struct test_bytes bytes = small_file();
    resnet_config config = small_config();
    resnet_model *model = (resnet_model *)&bytes;
    resnet_error error;
    const resnet_status wrong = RESNET_ERROR_ARGUMENT;
    resnet_load_options strange = {.isa = (resnet_isa)99}, imprecise = {.precision = (resnet_precision)5};
    resnet_load_options crowded = {.threads = 1025};
    assert_status(wrong, resnet_model_load_memory(NULL, 10, NULL, &model, &error), &error);
    assert_null(model);
    assert_status(wrong, resnet_model_load_memory(bytes.data, bytes.size, NULL, NULL, &error), &error);
    assert_status(wrong, resnet_model_load_file(NULL, NULL, &model, &error), &error);
    assert_status(wrong, resnet_model_load_file("x", NULL, NULL, &error), &error);
    assert_status(wrong, resnet_model_random(&config, 1, NULL, NULL, &error), &error);
    model = (resnet_model *)&bytes;
    assert_status(wrong, resnet_model_load_memory(bytes.data, bytes.size, &strange, &model, &error), &error);
    assert_null(model);
    assert_status(wrong, resnet_model_load_file("x", &strange, &model, &error), &error);
    assert_null(model);
    assert_status(wrong, resnet_model_load_memory(bytes.data, bytes.size, &imprecise, &model, &error), &error);
    assert_status(wrong, resnet_model_load_memory(bytes.data, bytes.size, &crowded, &model, &error), &error);
    assert_status(wrong, resnet_model_random(&config, 1, &imprecise, &model, &error), &error);
    assert_int_equal(resnet_model_load_memory(NULL, 0, NULL, NULL, NULL), wrong);
    assert_int_equal(resnet_model_random(NULL, 0, NULL, &model, NULL), wrong);
    assert_status(RESNET_ERROR_MODEL, resnet_model_load_memory(bytes.data, 0, NULL, &model, &error), &error);
    resnet_model_free(NULL);
    test_bytes_free(&bytes);
}

/* An instruction set that is not here is refused by the load as by the check; one that is here is what loads. */
static void test_instruction_sets(void **state) {
    (void)state;
    struct test_bytes bytes = small_file();
    for (unsigned isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_AVX512; isa++) {
        resnet_load_options options = {.isa = (resnet_isa)isa};
        resnet_model *model;
        resnet_error error;
        resnet_status check = resnet_isa_check((resnet_isa)isa, NULL);
        assert_status(check, resnet_model_load_memory(bytes.data, bytes.size, &options, &model, &error), &error);
        if (check != RESNET_OK)
            continue;
        resnet_isa became = resnet_model_describe(model).isa;
        assert_true(isa == RESNET_ISA_AUTO ? became != RESNET_ISA_AUTO : became == isa);
        assert_int_equal(resnet_isa_check(became, NULL), RESNET_OK);
        resnet_model_free(model);
    }
    test_bytes_free(&bytes);
}

/* ---- Precisions ---- */

/* What each kind of file gives when each precision is asked for; 0 where it is refused. */
static void test_precisions_of_files(void **state) {
    (void)state;
    enum { AUTO, F32, BF16, INT8, BF16X3, PRECISIONS };
    static const int gives[][PRECISIONS] = {
        [F32] = {F32, F32, BF16, 0, BF16X3}, [BF16] = {BF16, F32, BF16, 0, BF16X3}, [INT8] = {INT8, 0, 0, INT8, 0}};
    for (int stored = F32; stored <= INT8; stored++) {
        struct test_bytes bytes = small_file_in((resnet_precision)stored);
        for (int wanted = AUTO; wanted < PRECISIONS; wanted++)
            for (unsigned isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_REFERENCE; isa++) {
                resnet_load_options options = {.isa = (resnet_isa)isa, .precision = (resnet_precision)wanted};
                resnet_model *model;
                resnet_error error;
                int expected = gives[stored][wanted];
                resnet_status status = resnet_model_load_memory(bytes.data, bytes.size, &options, &model, &error);
                assert_status(expected ? RESNET_OK : RESNET_ERROR_UNSUPPORTED, status, &error);
                if (!expected) {
                    assert_non_null(strstr(error.message, wanted == INT8 ? "quantize makes" : "weights are int8"));
                    continue;
                }
                assert_int_equal(resnet_model_describe(model).precision, expected);
                assert_int_equal(resnet_model_describe(model).config.precision, stored);
                resnet_model_free(model);
            }
        test_bytes_free(&bytes);
    }
}

/* A bf16 file, and the f32 file that it was made from, computed in bf16, give the same bits; widened to f32 they give
 * those of neither. */
static void test_bf16_is_rounded_once(void **state) {
    (void)state;
    struct test_bytes f32 = small_file(), bf16 = small_file_in(RESNET_PRECISION_BF16);
    for (unsigned isa = RESNET_ISA_REFERENCE; isa <= RESNET_ISA_AVX512; isa++) {
        float logits[4][5];
        if (resnet_isa_check((resnet_isa)isa, NULL) != RESNET_OK)
            continue;
        for (int i = 0; i < 4; i++) {
            resnet_load_options options = {.isa = (resnet_isa)isa,
                                           .precision = i % 2 ? RESNET_PRECISION_BF16 : RESNET_PRECISION_F32};
            resnet_model *model = load(i < 2 ? &f32 : &bf16, options);
            run(model, NULL, logits[i]);
            resnet_model_free(model);
        }
        assert_memory_equal(logits[1], logits[3], sizeof logits[1]);
        assert_memory_not_equal(logits[0], logits[1], sizeof logits[0]);
        check_close(logits[2], logits[0], 0.02F); /* weights of 8 bits */
    }
    test_bytes_free(&f32);
    test_bytes_free(&bf16);
}

/* The scale of each node's output as the file has it, and which layers are kept. */
static void test_scales_of_int8(void **state) {
    (void)state;
    resnet_config config = small_config();
    config.precision = RESNET_PRECISION_INT8;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.kept = 1 << 1 | 1 << 6});
    resnet_model *model = load(&bytes, (resnet_load_options){0});
    const struct graph *graph = &model->graph;
    assert_int_equal(model->format, FORMAT_U8);
    for (uint32_t i = 0, layer = 0; i < graph->count; i++) {
        bool ones = graph->nodes[i].op == OP_INPUT || graph->nodes[i].op == OP_LINEAR;
        assert_true(model->scales[i] == (ones ? 1 : TEST_ACTIVATION));
        bool tensors = graph->nodes[i].op == OP_CONV || graph->nodes[i].op == OP_LINEAR;
        assert_int_equal(model_keeps(model, i), tensors && (layer == 1 || layer == 6));
        layer += tensors;
    }
    resnet_model_free(model);
    model = load(&bytes, (resnet_load_options){.isa = RESNET_ISA_REFERENCE}); /* computes in real numbers */
    assert_null(model->scales);
    resnet_model_free(model);
    test_bytes_free(&bytes);
}

/* The reference executor's logits of int8 files are near those of the f32 file: 127 steps to a weight, and nothing
 * else. Kept layers have none. */
static void test_reference_of_int8(void **state) {
    (void)state;
    static const uint64_t kept[] = {0, 1, 1 << 2, 0x7f};
    static const float tolerances[] = {0.02F, 0.02F, 0.02F, 1e-5F};
    struct test_bytes f32 = small_file();
    float expected[5], logits[5];
    resnet_model *model = load(&f32, (resnet_load_options){.isa = RESNET_ISA_REFERENCE});
    run(model, NULL, expected);
    resnet_model_free(model);
    for (size_t i = 0; i < COUNT(kept); i++) {
        resnet_config config = small_config();
        config.precision = RESNET_PRECISION_INT8;
        struct test_bytes bytes = test_model_file(&config, &(struct test_content){.kept = kept[i]});
        model = load(&bytes, (resnet_load_options){.isa = RESNET_ISA_REFERENCE});
        run(model, NULL, logits);
        resnet_model_free(model);
        check_close(logits, expected, tolerances[i]);
        test_bytes_free(&bytes);
    }
    test_bytes_free(&f32);
}

/* ---- Threads that load ---- */

/* Layers of several units, some narrower than a panel of the widest vectors. */
static resnet_config wide_config(resnet_precision precision) {
    resnet_config config = test_tiny_config();
    config.base_width = 104;
    config.blocks[1] = 1;
    config.precision = precision;
    return config;
}

/* The packed weights are the same for every number of threads. What is behind a layer's, up to a line, nobody writes:
 * the allocator makes it the same. */
static void check_loading_threads(const struct test_bytes *bytes, resnet_isa isa) {
    static const uint32_t threads[] = {1, 2, 3, 16};
    resnet_model *models[COUNT(threads)];
    struct test_memory memory;
    test_memory_init(&memory, 0);
    for (size_t i = 0; i < COUNT(threads); i++) {
        resnet_load_options options = {.isa = isa, .threads = threads[i], .allocator = &memory.allocator};
        models[i] = load(bytes, options);
        assert_int_equal(models[i]->weights_size, models[0]->weights_size);
        assert_memory_equal(models[i]->weights, models[0]->weights, models[0]->weights_size * sizeof(float));
    }
    for (size_t i = 0; i < COUNT(threads); i++)
        resnet_model_free(models[i]);
    test_memory_check(&memory);
}

static void test_threads_that_load(void **state) {
    (void)state;
    for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_INT8; p++) {
        resnet_config config = wide_config(p);
        struct test_bytes bytes = test_model_file(&config, &(struct test_content){.kept = 1 << 2});
        for (unsigned isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_SCALAR; isa++)
            check_loading_threads(&bytes, (resnet_isa)isa);
        test_bytes_free(&bytes);
    }
}

struct two_faults {
    uint8_t *data;
    int tensor;
};

/* An infinity at the end of every weight from the second on: the first of them must be the one that is told. */
static void spoil(void *context, const struct test_tensor *tensor) {
    struct two_faults *faults = context;
    if (strcmp(tensor->name, "weight") == 0 && faults->tensor++ > 0)
        test_put_f32(faults->data + tensor->offset + 4 * (tensor->count - 1), INFINITY);
}

static void test_the_first_fault_is_told(void **state) {
    (void)state;
    resnet_config config = wide_config(RESNET_PRECISION_F32);
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){0});
    struct two_faults faults = {bytes.data, 0};
    resnet_allocator allocator = memory_allocator(NULL);
    struct graph graph;
    assert_int_equal(graph_build(&graph, &config, (struct shape){8, 8, 3}, &allocator, NULL), RESNET_OK);
    test_each_tensor(&(struct test_layout){.graph = &graph, .precision = RESNET_PRECISION_F32}, spoil, &faults);
    test_seal(&bytes);
    for (int i = 0; i < 100; i++) {
        resnet_load_options options = {.threads = 1 + (uint32_t)i % 8};
        resnet_model *model;
        resnet_error error;
        assert_status(RESNET_ERROR_MODEL, resnet_model_load_memory(bytes.data, bytes.size, &options, &model, &error),
                      &error);
        assert_string_equal(error.message, "layer1.0.conv1 weight: number 97343 is not finite"); /* 104 * 104 * 9 - 1 */
    }
    graph_free(&graph, &allocator);
    test_bytes_free(&bytes);
}

/* ---- Sessions' arguments ---- */

static void test_session_arguments(void **state) {
    (void)state;
    static const resnet_session_options wrong[] = {
        {.batch = 65537}, {.batch = UINT32_MAX}, {.threads = 1025}, {.height = 16385}, {.width = UINT32_MAX},
    };
    struct test_memory memory;
    test_memory_init(&memory, 0);
    resnet_config config = small_config();
    resnet_load_options load = {.allocator = &memory.allocator};
    resnet_model *model = test_model(&config, 1, &load);
    size_t before = memory.live_bytes, bytes = 42;
    resnet_session *session;
    resnet_error error;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        session = (resnet_session *)&memory;
        assert_status(RESNET_ERROR_ARGUMENT, resnet_session_create(model, &wrong[i], &session, &error), &error);
        assert_null(session);
        assert_status(RESNET_ERROR_ARGUMENT, resnet_session_memory(model, &wrong[i], &bytes, &error), &error);
    }
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_create(NULL, NULL, &session, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_create(model, NULL, NULL, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_memory(NULL, NULL, &bytes, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_session_memory(model, NULL, NULL, &error), &error);
    assert_int_equal(bytes, 42);
    assert_int_equal(memory.live_bytes, before);
    resnet_session_free(NULL);
    resnet_model_free(model);
    test_memory_check(&memory);
}

static void test_thread_counts(void **state) {
    (void)state;
    static const uint32_t counts[] = {1, 2, 7, 33};
    resnet_config config = small_config();
    resnet_model *model = test_model(&config, 1, NULL);
    for (size_t i = 0; i <= COUNT(counts); i++) {
        resnet_session_options options = {.threads = i < COUNT(counts) ? counts[i] : 0};
        resnet_session *session;
        assert_int_equal(resnet_session_create(model, &options, &session, NULL), RESNET_OK);
        assert_int_equal(resnet_session_threads(session), options.threads ? options.threads : cpu_threads());
        resnet_session_free(session);
    }
    resnet_model_free(model);
}

/* ---- Description ---- */

static void test_describe(void **state) {
    (void)state;
    struct test_memory memory;
    test_memory_init(&memory, 0);
    for (unsigned i = 0; i < 6; i++) {
        resnet_config config = small_config();
        config.precision = (resnet_precision)(1 + i / 2);
        struct test_bytes bytes = small_file_in(config.precision);
        resnet_load_options options = {.isa = (resnet_isa)(i % 2), .allocator = &memory.allocator};
        resnet_model *model = load(&bytes, options);
        resnet_model_info info = resnet_model_describe(model);
        assert_string_equal(info.architecture, "resnet");
        assert_memory_equal(&info.config, &config, sizeof config);
        assert_int_equal(info.preprocess.resize, 256);
        assert_true(info.preprocess.mean[2] == 0.5F && info.preprocess.std[2] == 0.25F);
        assert_int_equal(info.memory, memory.live_bytes);
        assert_int_equal(info.layers, 2 + 2 + 3 + 2);
        resnet_model_free(model);
        test_bytes_free(&bytes);
    }
    test_memory_check(&memory);
}

static void test_layers(void **state) {
    (void)state;
    static const struct {
        const char *name, *kind;
        uint32_t in, out, kernel, stride, height, width;
        int relu, residual;
    } expected[] = {
        {"conv1", "conv", 3, 16, 7, 2, 20, 18, 1, 0},
        {"maxpool", "maxpool", 16, 16, 3, 2, 10, 9, 0, 0},
        {"layer1.0.conv1", "conv", 16, 16, 3, 1, 10, 9, 1, 0},
        {"layer1.0.conv2", "conv", 16, 16, 3, 1, 10, 9, 1, 1},
        {"layer2.0.downsample", "conv", 16, 32, 1, 2, 5, 5, 0, 0},
        {"layer2.0.conv1", "conv", 16, 32, 3, 2, 5, 5, 1, 0},
        {"layer2.0.conv2", "conv", 32, 32, 3, 1, 5, 5, 1, 1},
        {"avgpool", "avgpool", 32, 32, 1, 1, 1, 1, 0, 0},
        {"fc", "linear", 32, 5, 1, 1, 1, 1, 0, 0},
    };
    resnet_config config = small_config();
    resnet_model *model = test_model(&config, 1, NULL);
    resnet_model_info info = resnet_model_describe(model);
    uint64_t parameters = 0, macs = 0;
    assert_int_equal(info.layers, COUNT(expected));
    for (uint32_t i = 0; i < info.layers; i++) {
        resnet_layer layer;
        resnet_error error;
        assert_status(RESNET_OK, resnet_model_layer(model, i, 0, 0, &layer, &error), &error);
        assert_string_equal(layer.name, expected[i].name);
        assert_string_equal(layer.kind, expected[i].kind);
        assert_int_equal(layer.in_channels, expected[i].in);
        assert_int_equal(layer.out_channels, expected[i].out);
        assert_int_equal(layer.kernel, expected[i].kernel);
        assert_int_equal(layer.stride, expected[i].stride);
        assert_int_equal(layer.out_height, expected[i].height);
        assert_int_equal(layer.out_width, expected[i].width);
        assert_int_equal(layer.relu, expected[i].relu);
        assert_int_equal(layer.residual, expected[i].residual);
        parameters += layer.parameters;
        macs += layer.macs;
    }
    assert_int_equal(parameters, info.parameters);
    assert_int_equal(macs, info.macs);
    resnet_model_free(model);
}

static void test_layer_at_another_size(void **state) {
    (void)state;
    struct test_memory memory;
    test_memory_init(&memory, 0);
    resnet_config config = small_config();
    resnet_load_options load = {.allocator = &memory.allocator};
    resnet_model *model = test_model(&config, 1, &load);
    resnet_layer layer = {.in_channels = 42};
    resnet_error error;
    const resnet_status wrong = RESNET_ERROR_ARGUMENT;
    assert_status(wrong, resnet_model_layer(model, 9, 0, 0, &layer, &error), &error);
    assert_status(wrong, resnet_model_layer(model, UINT32_MAX, 0, 0, &layer, &error), &error);
    assert_status(wrong, resnet_model_layer(model, UINT32_MAX - 1, 0, 0, &layer, &error), &error);
    assert_status(wrong, resnet_model_layer(model, 0, 16385, 0, &layer, &error), &error);
    assert_status(wrong, resnet_model_layer(model, 0, 0, UINT32_MAX, &layer, &error), &error);
    assert_status(wrong, resnet_model_layer(NULL, 0, 0, 0, &layer, &error), &error);
    assert_status(wrong, resnet_model_layer(model, 0, 0, 0, NULL, &error), &error);
    assert_int_equal(layer.in_channels, 42);
    memory.refuse = memory.calls + 1;
    assert_status(RESNET_ERROR_MEMORY, resnet_model_layer(model, 0, 0, 0, &layer, &error), &error);
    memory.refuse = 0;
    assert_status(RESNET_OK, resnet_model_layer(model, 0, 101, 0, &layer, &error), &error);
    assert_int_equal(layer.out_height, 51);
    assert_int_equal(layer.out_width, 18);
    resnet_model_free(model);
    test_memory_check(&memory);
}

static void test_labels(void **state) {
    (void)state;
    struct test_bytes bytes = small_file();
    resnet_model *model;
    assert_int_equal(resnet_model_load_memory(bytes.data, bytes.size, NULL, &model, NULL), RESNET_OK);
    for (uint32_t i = 0; i < 5; i++)
        assert_string_equal(resnet_model_label(model, i), ((const char *[]){"a", "b", "c", "d", "e"})[i]);
    assert_null(resnet_model_label(model, 5));
    assert_null(resnet_model_label(model, UINT32_MAX));
    resnet_model_free(model);
    test_bytes_free(&bytes);
    resnet_config config = small_config();
    model = test_model(&config, 1, NULL); /* without labels */
    assert_null(resnet_model_label(model, 0));
    resnet_model_free(model);
}

/* ---- What memory is taken ---- */

/* Under 1.25 times the file; Winograd's weights, four times as many for the layers that use them, within 40 MB more.
 * ResNet-50 is where it counts; ResNet-18 takes a sanitizer less time. */
static void test_peak_of_a_load(void **state) {
    (void)state;
    resnet_config config;
    assert_int_equal(resnet_config_preset(test_quick() ? "resnet18" : "resnet50", &config, NULL), RESNET_OK);
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){0});
    for (int no_winograd = 0; no_winograd < 2; no_winograd++) {
        struct test_memory memory;
        test_memory_init(&memory, 0);
        resnet_load_options options = {.no_winograd = no_winograd, .allocator = &memory.allocator};
        resnet_model *model;
        assert_int_equal(resnet_model_load_memory(bytes.data, bytes.size, &options, &model, NULL), RESNET_OK);
        print_message("file %zu, peak %zu, kept %zu bytes\n", bytes.size, memory.peak_bytes, memory.live_bytes);
        assert_true(memory.peak_bytes < bytes.size / 4 * 5 + (no_winograd ? 0 : 40000000));
        resnet_model_free(model);
        test_memory_check(&memory);
    }
    test_bytes_free(&bytes);
}

/* create takes exactly what resnet_session_memory says; filling and running takes nothing that stays. */
static void test_memory_of_a_session(void **state) {
    (void)state;
    static const resnet_session_options options[] = {
        {.threads = 1},
        {.threads = 3, .batch = 5},
        {.threads = 2, .batch = 64, .height = 33, .width = 70},
        {.threads = 16, .height = 1, .width = 1},
    };
    resnet_config config = small_config();
    for (unsigned isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_REFERENCE; isa++)
        for (size_t i = 0; i < COUNT(options); i++) {
            struct test_memory memory;
            test_memory_init(&memory, 0xff);
            resnet_load_options load = {.isa = (resnet_isa)isa, .allocator = &memory.allocator};
            resnet_model *model = test_model(&config, 1, &load);
            size_t before = memory.live_bytes, said;
            resnet_session *session;
            resnet_error error;
            assert_status(RESNET_OK, resnet_session_memory(model, &options[i], &said, &error), &error);
            assert_int_equal(memory.live_bytes, before);
            assert_status(RESNET_OK, resnet_session_create(model, &options[i], &session, &error), &error);
            assert_int_equal(memory.live_bytes, before + said);
            float input[3 * 40 * 70] = {0}, logits[64 * 5];
            uint8_t pixels[3 * 9 * 9] = {0};
            size_t calls = memory.calls;
            assert_status(RESNET_OK, resnet_session_set_floats(session, 0, input, RESNET_NCHW, &error), &error);
            assert_status(RESNET_OK, resnet_session_run(session, options[i].batch + !options[i].batch, logits, &error),
                          &error);
            assert_int_equal(memory.calls, calls);
            assert_status(RESNET_OK, resnet_session_set_rgb(session, 0, pixels, 9, 9, 0, NULL, &error), &error);
            assert_int_equal(memory.live_bytes, before + said);
            resnet_session_free(session);
            assert_int_equal(memory.live_bytes, before);
            resnet_model_free(model);
            test_memory_check(&memory);
        }
}

/* Whatever fresh memory holds, NaN among it, must not show. */
static void test_fresh_memory_does_not_show(void **state) {
    (void)state;
    static const uint8_t patterns[] = {0x00, 0xff, 0x7f, 0x3f};
    resnet_config config = small_config();
    for (unsigned isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_AVX512; isa++) {
        float logits[COUNT(patterns)][5];
        if (resnet_isa_check((resnet_isa)isa, NULL) != RESNET_OK)
            continue;
        for (size_t i = 0; i < COUNT(patterns); i++) {
            struct test_memory memory;
            test_memory_init(&memory, patterns[i]);
            resnet_load_options load = {.isa = (resnet_isa)isa, .allocator = &memory.allocator};
            resnet_model *model = test_model(&config, 1, &load);
            run(model, &(resnet_session_options){.threads = 2}, logits[i]);
            resnet_model_free(model);
            test_memory_check(&memory);
            assert_memory_equal(logits[i], logits[0], sizeof logits[0]);
        }
    }
}

/* ---- Every allocation fails once ---- */

/* Load, open a session, fill it and run; whatever is refused on the way must be said and cleaned up. */
static resnet_status whole_life(const struct test_bytes *bytes, struct test_memory *memory, resnet_isa isa) {
    resnet_load_options load = {.isa = isa, .threads = 3, .allocator = &memory->allocator};
    resnet_session_options options = {.threads = 2, .batch = 2};
    resnet_model *model;
    resnet_session *session = NULL;
    resnet_error error;
    uint8_t pixels[3 * 50 * 60] = {0};
    float logits[10];
    resnet_status status = resnet_model_load_memory(bytes->data, bytes->size, &load, &model, &error);
    if (status == RESNET_OK) {
        size_t said;
        status = resnet_session_memory(model, &options, &said, &error);
        if (status == RESNET_OK)
            status = resnet_session_create(model, &options, &session, &error);
        for (uint32_t slot = 0; status == RESNET_OK && slot < 2; slot++)
            status = resnet_session_set_rgb(session, slot, pixels, 60, 50, 0, NULL, &error);
        if (status == RESNET_OK)
            status = resnet_session_run(session, 2, logits, &error);
    } else {
        assert_null(model);
    }
    assert_status(status, status, &error);
    resnet_session_free(session);
    resnet_model_free(model);
    return status;
}

static void fail_each(const struct test_bytes *bytes, resnet_isa isa, bool later) {
    struct test_memory memory;
    resnet_status status = RESNET_ERROR_MEMORY;
    size_t call = 1;
    for (; status != RESNET_OK; call++) {
        test_memory_init(&memory, 0xff);
        memory.refuse = call;
        memory.refuse_later = later;
        status = whole_life(bytes, &memory, isa);
        assert_true(status == RESNET_OK || status == RESNET_ERROR_MEMORY);
        test_memory_check(&memory);
    }
    assert_true(call > 12); /* model, graph, places, labels, weights, scratch, ..., session, ..., pixels */
    assert_true(memory.calls < call);
}

static void test_every_allocation_fails(void **state) {
    (void)state;
    for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_INT8; p++) {
        struct test_bytes bytes = small_file_in(p);
        for (int later = 0; later < 2; later++) {
            fail_each(&bytes, RESNET_ISA_AUTO, later);
            fail_each(&bytes, RESNET_ISA_REFERENCE, later);
        }
        test_bytes_free(&bytes);
    }
}

static void test_random_model_without_options(void **state) {
    (void)state;
    resnet_config config = small_config();
    resnet_model *model;
    resnet_error error;
    float logits[2][5];
    assert_status(RESNET_OK, resnet_model_random(&config, 1, NULL, &model, &error), &error);
    run(model, NULL, logits[0]);
    resnet_model_free(model);
    model = random_model(1, RESNET_ISA_AUTO, RESNET_PRECISION_AUTO);
    run(model, NULL, logits[1]);
    resnet_model_free(model);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
}

static void test_random_model_without_memory(void **state) {
    (void)state;
    resnet_config config = small_config();
    resnet_status status = RESNET_ERROR_MEMORY;
    for (size_t call = 1; status != RESNET_OK; call++) {
        struct test_memory memory;
        test_memory_init(&memory, 0);
        memory.refuse = call;
        resnet_load_options load = {.allocator = &memory.allocator};
        resnet_model *model;
        resnet_error error;
        status = resnet_model_random(&config, 1, &load, &model, &error);
        assert_true(status == RESNET_OK || status == RESNET_ERROR_MEMORY);
        assert_status(status, status, &error);
        assert_int_equal(model == NULL, status != RESNET_OK);
        resnet_model_free(model);
        test_memory_check(&memory);
    }
}

/* A session whose slot could not be filled for want of memory is as good as before. */
static void test_session_survives(void **state) {
    (void)state;
    struct test_memory memory;
    test_memory_init(&memory, 0);
    resnet_config config = small_config();
    resnet_load_options load = {.allocator = &memory.allocator};
    resnet_model *model = test_model(&config, 1, &load);
    resnet_session *session;
    resnet_error error;
    uint8_t pixels[3 * 50 * 60];
    float before[5], after[5];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37);
    assert_status(RESNET_OK, resnet_session_create(model, NULL, &session, &error), &error);
    assert_status(RESNET_OK, resnet_session_set_rgb(session, 0, pixels, 60, 50, 0, NULL, &error), &error);
    assert_status(RESNET_OK, resnet_session_run(session, 1, before, &error), &error);
    size_t refusals = 0;
    resnet_status status = RESNET_ERROR_MEMORY;
    for (size_t call = 1; status != RESNET_OK; call++) {
        memory.refuse = memory.calls + call;
        status = resnet_session_set_rgb(session, 0, pixels, 60, 50, 0, NULL, &error);
        assert_true(status == RESNET_OK || status == RESNET_ERROR_MEMORY);
        refusals += status != RESNET_OK;
    }
    assert_true(refusals > 0);
    assert_status(RESNET_OK, resnet_session_run(session, 1, after, &error), &error);
    assert_memory_equal(before, after, sizeof before);
    resnet_session_free(session);
    resnet_model_free(model);
    test_memory_check(&memory);
}

/* ---- Every read fails ---- */

/* What the disk does at its `broken_at`-th call, and after it where it stays broken: it says EIO, or that the file
 * ends. */
static struct disk {
    atomic_int calls;
    int broken_at;
    bool stays_broken, ends;
} disk;

static ssize_t read_broken(int descriptor, void *bytes, size_t size, off_t offset) {
    int call = atomic_fetch_add(&disk.calls, 1) + 1;
    if (call != disk.broken_at && !(disk.stays_broken && call > disk.broken_at))
        return __real_pread(descriptor, bytes, size, offset);
    errno = EIO;
    return disk.ends ? 0 : -1;
}

/* Interrupted every other time, and never more than a few bytes. */
static ssize_t read_slowly(int descriptor, void *bytes, size_t size, off_t offset) {
    int call = atomic_fetch_add(&disk.calls, 1);
    size_t most = 1 + (size_t)call % 1000;
    errno = EINTR;
    return call % 2 ? -1 : __real_pread(descriptor, bytes, size < most ? size : most, offset);
}

/* On a disk of that kind. */
static resnet_status load_from(const char *path, uint32_t threads, struct test_memory *memory, resnet_model **model) {
    resnet_error error;
    test_memory_init(memory, 0);
    resnet_load_options options = {.threads = threads, .allocator = &memory->allocator};
    disk.calls = 0;
    resnet_status status = resnet_model_load_file(path, &options, model, &error);
    assert_status(status, status, &error);
    const char *reason = disk.ends ? "became shorter" : "Input/output error";
    if (status != RESNET_OK)
        assert_true(strncmp(error.message, path, strlen(path)) == 0 && strstr(error.message, reason));
    return status;
}

static void break_each_read(const char *path, uint32_t threads) {
    struct test_memory memory;
    resnet_model *model;
    resnet_status status = RESNET_ERROR_IO;
    for (disk.broken_at = 1; status != RESNET_OK; disk.broken_at++) {
        status = load_from(path, threads, &memory, &model);
        assert_true(status == RESNET_OK || status == RESNET_ERROR_IO);
        assert_int_equal(model == NULL, status != RESNET_OK);
        resnet_model_free(model);
        test_memory_check(&memory);
    }
    assert_true(disk.broken_at > 10); /* header, labels, vectors and weights of seven layers */
}

static void check_slow_disk(const char *path, const struct test_bytes *bytes) {
    struct test_memory memory;
    resnet_model *model, *expected = load(bytes, (resnet_load_options){0});
    float logits[2][5];
    system_calls.pread = read_slowly;
    assert_int_equal(load_from(path, 3, &memory, &model), RESNET_OK);
    assert_true(disk.calls > 100);
    run(model, NULL, logits[0]);
    run(expected, NULL, logits[1]);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    resnet_model_free(model);
    resnet_model_free(expected);
    test_memory_check(&memory);
}

static void test_every_read_fails(void **state) {
    (void)state;
    for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_INT8; p++) {
        char path[] = "/tmp/test_model_XXXXXX";
        struct test_bytes bytes = small_file_in(p);
        int descriptor = mkstemp(path);
        assert_true(descriptor >= 0 && write(descriptor, bytes.data, bytes.size) == (ssize_t)bytes.size);
        close(descriptor);
        system_calls.pread = read_broken;
        for (int i = 0; i < 8; i += test_quick() ? 3 : 1) {
            disk.stays_broken = i % 2;
            disk.ends = i / 2 % 2;
            break_each_read(path, i < 4 ? 1 : 3);
        }
        check_slow_disk(path, &bytes);
        system_calls.pread = NULL;
        test_bytes_free(&bytes);
        assert_int_equal(unlink(path), 0);
    }
}

/* ---- Every thread fails to start ---- */

static uint32_t startable; /* threads, before the system has no more */

static int start_some(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (startable == 0)
        return EAGAIN;
    startable--;
    return __real_pthread_create(thread, attributes, start, argument);
}

static int allow_16(pid_t process, size_t size, cpu_set_t *set) {
    (void)process;
    memset(set, 0, size);
    for (size_t cpu = 0; cpu < 16; cpu++)
        CPU_SET(cpu, set);
    return 0;
}

/* Loading takes a thread for every MB of weights, a session as many as it is told; neither does with fewer. */
static void test_every_thread_fails(void **state) {
    (void)state;
    resnet_config config = wide_config(RESNET_PRECISION_F32);
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){0});
    struct test_memory memory;
    test_memory_init(&memory, 0);
    resnet_load_options options = {.threads = 8, .allocator = &memory.allocator};
    resnet_model *model;
    resnet_session *session = NULL;
    resnet_error error;
    uint32_t refusals = 0;
    system_calls.pthread_create = start_some;
    system_calls.sched_getaffinity = allow_16;
    resnet_status status = RESNET_ERROR_THREAD;
    for (; status != RESNET_OK; refusals++) {
        startable = refusals;
        status = resnet_model_load_memory(bytes.data, bytes.size, &options, &model, &error);
        assert_status(status == RESNET_OK ? status : RESNET_ERROR_THREAD, status, &error);
        assert_true(status == RESNET_OK || (!model && !memory.live_blocks));
    }
    assert_true(refusals > 1);
    size_t before = memory.live_bytes;
    for (uint32_t i = 0; i < 7; i++) {
        startable = i;
        status = resnet_session_create(model, &(resnet_session_options){.threads = 8}, &session, &error);
        assert_status(RESNET_ERROR_THREAD, status, &error);
        assert_null(session);
        assert_int_equal(memory.live_bytes, before);
    }
    system_calls = (struct system_calls){0};
    resnet_model_free(model);
    test_memory_check(&memory);
    test_bytes_free(&bytes);
}

/* ---- Version ---- */

static void test_version(void **state) {
    (void)state;
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", RESNET_VERSION_MAJOR, RESNET_VERSION_MINOR, RESNET_VERSION_PATCH);
    assert_string_equal(resnet_version(), expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed_same_model),
        cmocka_unit_test(test_same_model_everywhere),
        cmocka_unit_test(test_random_members),
        cmocka_unit_test(test_random_refuses),
        cmocka_unit_test(test_random_model_without_options),
        cmocka_unit_test(test_wrong_arguments),
        cmocka_unit_test(test_instruction_sets),
        cmocka_unit_test(test_precisions_of_files),
        cmocka_unit_test(test_bf16_is_rounded_once),
        cmocka_unit_test(test_scales_of_int8),
        cmocka_unit_test(test_reference_of_int8),
        cmocka_unit_test(test_threads_that_load),
        cmocka_unit_test(test_the_first_fault_is_told),
        cmocka_unit_test(test_session_arguments),
        cmocka_unit_test(test_thread_counts),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_layer_at_another_size),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_peak_of_a_load),
        cmocka_unit_test(test_memory_of_a_session),
        cmocka_unit_test(test_fresh_memory_does_not_show),
        cmocka_unit_test(test_every_allocation_fails),
        cmocka_unit_test(test_random_model_without_memory),
        cmocka_unit_test(test_session_survives),
        cmocka_unit_test(test_every_read_fails),
        cmocka_unit_test(test_every_thread_fails),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
