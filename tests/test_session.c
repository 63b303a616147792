/*
 * test_session.c - sessions as a caller sees them: the same bits for every thread count, batch and slot, no allocation
 * in a run, the caller's floating-point environment and signals left alone, wrong calls refused.
 */
#define _DEFAULT_SOURCE /* sigaction */
#include <fenv.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "session.h"
#include "sessions.h"

/* ---- The same bits ---- */

static const uint32_t thread_counts[] = {1, 2, 3, 8, 64};

static void check_threads_and_batches(resnet_model *model) {
    struct fixture f = fixture_of(model, NULL);
    for (size_t t = 0; t < COUNT(thread_counts); t++)
        for (uint32_t batch = 1; batch <= MOST_BATCH; batch += test_quick() ? 7 : 1) {
            resnet_session_options options = options_for(f.model, batch, thread_counts[t]);
            check_session(&f, &options);
        }
    free_fixture(&f);
}

static void test_threads_and_batches(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        check_threads_and_batches(model_of(test_stored_in(test_odd_config(), precisions[p]), 0));
        check_threads_and_batches(model_of(test_stored_in(deep_config(), precisions[p]), 0));
    }
    check_threads_and_batches(model_of(deep_config(), 1));
}

static void check_resnet18(resnet_precision precision) {
    resnet_config config;
    resnet_model *model;
    resnet_error error;
    resnet_load_options load = {.isa = isa, .precision = precision};
    assert_status(RESNET_OK, resnet_config_preset("resnet18", &config, &error), &error);
    config.height = config.width = 64;
    assert_status(RESNET_OK, resnet_model_random(&config, 1, &load, &model, &error), &error);
    struct fixture f = fixture_of(model, NULL);
    for (size_t t = 0; t < COUNT(thread_counts); t++) {
        resnet_session_options options = options_for(f.model, t % 2 ? 3 : 1, thread_counts[t]);
        check_session(&f, &options);
    }
    free_fixture(&f);
}

/* A real network, on small images. */
static void test_resnet18(void **state) {
    (void)state;
    if (test_quick())
        skip();
    for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_BF16X3; p++)
        check_resnet18(p);
}

/* Maps of 2 MB and more, which a session may take through the network one after the other. */
static void test_large_images(void **state) {
    (void)state;
    if (test_quick())
        skip();
    resnet_config config = test_odd_config();
    config.blocks[0] = 1;
    config.blocks[1] = config.blocks[2] = 0;
    config.height = 420;
    config.width = 400;
    struct fixture f = fixture_of(model_of(config, 0), NULL);
    for (uint32_t threads = 1; threads <= 3; threads += 2) {
        resnet_session_options options = options_for(f.model, 5, threads);
        check_session(&f, &options);
    }
    free_fixture(&f);
}

static void check_repeated_runs(resnet_precision precision) {
    float logits[MOST_BATCH * MOST_CLASSES];
    struct fixture f = fixture_of(model_of(test_stored_in(deep_config(), precision), 0), NULL);
    resnet_session_options options = options_for(f.model, 5, 2);
    resnet_session *session = open_session(f.model, &options);
    fill_slots(&f, session, 0, 5);
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t count = 1 + i % 5;
        run(session, count, logits);
        check_logits(&f, logits, 0, count);
    }
    set_slot(session, 2, f.images); /* the others stay */
    run(session, 5, logits);
    check_logits(&f, logits, 0, 2);
    check_logits(&f, logits + 2 * f.classes, 0, 1);
    check_logits(&f, logits + 3 * f.classes, 3, 2);
    resnet_session_free(session);
    free_fixture(&f);
}

/* A slot keeps its content, whatever ran in between. */
static void test_repeated_runs(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++)
        check_repeated_runs(precisions[p]);
}

static void check_fresh_memory(resnet_precision precision) {
    resnet_config config = test_stored_in(deep_config(), precision);
    struct fixture f = fixture_of(model_of(config, 0), NULL);
    for (int pattern = 0; pattern < 256; pattern += 255) { /* zeros, NaNs */
        struct test_memory memory;
        test_memory_init(&memory, (uint8_t)pattern);
        resnet_load_options load = {.isa = isa, .allocator = &memory.allocator};
        struct fixture g = f;
        g.model = test_model(&config, 1, &load);
        resnet_session_options options = options_for(g.model, 2, 2);
        check_session(&g, &options);
        resnet_model_free(g.model);
        test_memory_check(&memory);
    }
    free_fixture(&f);
}

/* What was in memory before does not matter. */
static void test_fresh_memory(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++)
        check_fresh_memory(precisions[p]);
}

/* What the other modules ask of a session: a slot's mirror image. */
static void test_mirror_image(void **state) {
    (void)state;
    float logits[MOST_CLASSES], expected[MOST_CLASSES];
    struct fixture f = fixture_of(model_of(test_odd_config(), 0), NULL);
    resnet_session_options options = options_for(f.model, 2, 1);
    float *mirrored = malloc(f.image * sizeof *mirrored);
    assert_non_null(mirrored);
    for (size_t i = 0; i < f.image; i++) {
        size_t pixel = i / 3, x = pixel % options.width;
        mirrored[i] = f.images[(pixel - x + options.width - 1 - x) * 3 + i % 3];
    }
    resnet_session *session = open_session(f.model, &options);
    set_slot(session, 0, mirrored);
    run(session, 1, expected);
    fill_slots(&f, session, 0, 2);
    session_mirror_slot(session, 0);
    run(session, 1, logits);
    assert_memory_equal(logits, expected, f.classes * sizeof *logits);
    session_mirror_slot(session, 0);
    run(session, 1, logits);
    check_logits(&f, logits, 0, 1);
    resnet_session_free(session);
    free(mirrored);
    free_fixture(&f);
}

/* ---- Pictures ---- */

/* A BMP of 2 x 2 pixels, from bottom to top in blue, green and red, and what it holds. */
static const uint8_t bmp[70] = {
    'B', 'M', 70, [10] = 54, [14] = 40, [18] = 2, [22] = 2, [26] = 1, [28] = 24, [34] = 16, [54] = 9, 200,
    30,  77,  1,  2,         0,         0,        255,      3,        5,         80,        90,       66};
static const uint8_t bmp_pixels[] = {5, 3, 255, 66, 90, 80, 30, 200, 9, 2, 1, 77};

static void logits_of_pixels(resnet_session *session, const resnet_preprocess *how, float *logits) {
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_set_rgb(session, 0, bmp_pixels, 2, 2, 6, how, &error), &error);
    run(session, 1, logits);
}

static resnet_status set_file(resnet_session *session, const void *bytes, size_t size) {
    char path[] = "/tmp/test_session_XXXXXX";
    resnet_error error;
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0 && write(descriptor, bytes, size) == (ssize_t)size);
    close(descriptor);
    resnet_status status = resnet_session_set_image_file(session, 0, path, NULL, &error);
    assert_int_equal(unlink(path), 0);
    assert_status(status, status, &error);
    return status;
}

/* A picture is the same as pixels, in memory and in a file. */
static void test_pictures(void **state) {
    (void)state;
    float expected[MOST_CLASSES], other[MOST_CLASSES], logits[MOST_CLASSES];
    resnet_error error;
    resnet_model *model = model_of(test_odd_config(), 0);
    size_t size = resnet_model_describe(model).config.classes * sizeof *logits;
    resnet_session *session = open_session(model, NULL);
    resnet_preprocess how = resnet_model_describe(model).preprocess;
    how.mean[0] += 1;
    logits_of_pixels(session, NULL, expected);
    logits_of_pixels(session, &how, other);
    assert_memory_not_equal(expected, other, size);
    resnet_status status = resnet_session_set_image_memory(session, 0, bmp, sizeof bmp, NULL, &error);
    if (status != RESNET_ERROR_UNSUPPORTED) { /* else the library is built without images */
        assert_status(RESNET_OK, status, &error);
        run(session, 1, logits);
        assert_memory_equal(logits, expected, size);
        logits_of_pixels(session, &how, logits);
        assert_int_equal(set_file(session, bmp, sizeof bmp), RESNET_OK);
        run(session, 1, logits);
        assert_memory_equal(logits, expected, size);
        assert_int_equal(set_file(session, bmp, 60), RESNET_ERROR_IMAGE);
        status = resnet_session_set_image_memory(session, 0, bmp, 60, NULL, &error);
        assert_status(RESNET_ERROR_IMAGE, status, &error);
        status = resnet_session_set_image_file(session, 0, "no such file", NULL, &error);
        assert_status(RESNET_ERROR_IO, status, &error);
        run(session, 1, logits);
        assert_memory_equal(logits, expected, size); /* the slot is as before */
    }
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_pixels_for_other_channels(void **state) {
    (void)state;
    resnet_config config = test_odd_config();
    config.in_channels = 4;
    resnet_model *model = model_of(config, 0);
    resnet_session *session = open_session(model, NULL);
    resnet_error error;
    assert_status(RESNET_ERROR_UNSUPPORTED, resnet_session_set_rgb(session, 0, bmp_pixels, 2, 2, 0, NULL, &error),
                  &error);
    assert_non_null(strstr(error.message, "4 input channels"));
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_layouts(void **state) {
    (void)state;
    float nhwc[MOST_CLASSES];
    resnet_config config = test_odd_config();
    struct fixture f = fixture_of(model_of(config, 0), NULL);
    size_t pixels = (size_t)config.height * config.width;
    float *planes = malloc(f.image * sizeof *planes);
    assert_non_null(planes);
    for (size_t i = 0; i < f.image; i++)
        planes[i % 3 * pixels + i / 3] = f.images[i];
    resnet_session_options options = options_for(f.model, 1, 1);
    resnet_session *session = open_session(f.model, &options);
    assert_int_equal(resnet_session_set_floats(session, 0, planes, RESNET_NCHW, NULL), RESNET_OK);
    run(session, 1, nhwc);
    check_logits(&f, nhwc, 0, 1);
    resnet_session_free(session);
    free(planes);
    free_fixture(&f);
}

/* ---- The caller's floating-point environment ---- */

#if defined(__x86_64__)
#include <xmmintrin.h>
static uint64_t fp_state(void) {
    return _mm_getcsr();
}
/* Let every inexact sum of the caller's kill the process: so the library must do none in this state. */
static void trap_all(void) {
    _mm_setcsr(_mm_getcsr() & ~0x1fbfU);
}
#elif defined(__aarch64__)
static uint64_t fp_state(void) {
    uint64_t control, status;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(status));
    return control << 32 | status;
}
static void trap_all(void) {}      /* few AArch64 cores can */
#else
static uint64_t fp_state(void) {
    return 0;
}
static void trap_all(void) {}
#endif

/* ---- The caller's own pool ---- */

struct own_pool {
    void (*order)(uint32_t count, void (*task)(void *argument, uint32_t i), void *argument);
    uint32_t calls, tasks;
    uint64_t fp_state; /* of the caller's thread in the last call */
    bool fp_changed;   /* between the first and the last */
};

static void own_parallel_for(void *context, uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    struct own_pool *pool = context;
    uint64_t state = fp_state();
    pool->fp_changed |= pool->calls > 0 && state != pool->fp_state;
    pool->fp_state = state;
    pool->calls++;
    pool->tasks += count;
    pool->order(count, task, argument);
}

static void in_order(uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    for (uint32_t i = 0; i < count; i++)
        task(argument, i);
}

static void backwards(uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    while (count-- > 0)
        task(argument, count);
}

static void thread_each(uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    pthread_t threads[16];
    struct job jobs[16];
    assert_true(count <= COUNT(threads));
    for (uint32_t i = 0; i < count; i++) {
        jobs[i] = (struct job){task, argument, i};
        assert_int_equal(pthread_create(&threads[i], NULL, do_job, &jobs[i]), 0);
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void check_own_parallel_for(resnet_precision precision) {
    struct own_pool pools[] = {{.order = in_order}, {.order = backwards}, {.order = thread_each}};
    struct fixture f = fixture_of(model_of(test_stored_in(deep_config(), precision), 0), NULL);
    for (size_t i = 0; i < COUNT(pools); i++) {
        resnet_session_options options = options_for(f.model, 2, 5);
        options.parallel_for = own_parallel_for;
        options.parallel_context = &pools[i];
        check_session(&f, &options);
        if (isa != RESNET_ISA_REFERENCE)
            assert_true(pools[i].calls > 0 && pools[i].tasks == 5 * pools[i].calls);
    }
    free_fixture(&f);
}

static void test_own_parallel_for(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++)
        check_own_parallel_for(precisions[p]);
}

/* ---- Against the reference executor ---- */

/*
 * What a run may be off by, as a part of the largest logit. In f32 each layer adds up at most 1152 products and rounds
 * at 2^-24 of their magnitude, which cancels to about its square root: near 2e-6 a layer, ten times that where
 * Winograd's method computes, over 20 layers that add up as a random walk does. 1e-4 is what the library promises.
 *
 * The reference has the same weights, but activations in f32. In bf16 they are off by up to 2^-9, each layer anew: 20
 * layers add up to about a hundredth. In int8 nobody has calibrated these networks, and 0.26 was seen: the reference
 * only shows there that plain C computes the network that is meant, for a wrong layer gives logits of another kind.
 * The other instruction sets must then give the bits of plain C.
 */
static float tolerance(resnet_precision precision) {
    if (precision == RESNET_PRECISION_INT8)
        return isa == RESNET_ISA_SCALAR ? 0.5F : 0;
    return precision == RESNET_PRECISION_BF16 ? 0.02F : 1e-4F;
}

/* What this run is compared with. */
static resnet_model *oracle_of(const resnet_config *config) {
    bool exact = config->precision == RESNET_PRECISION_INT8 && isa != RESNET_ISA_SCALAR;
    return test_model(config, 1, &(resnet_load_options){.isa = exact ? RESNET_ISA_SCALAR : RESNET_ISA_REFERENCE});
}

static void check_close(const float *got, const float *wanted, uint32_t count, resnet_precision precision) {
    float largest = 0, error = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_true(isfinite(got[i]));
        largest = fmaxf(largest, fabsf(wanted[i]));
        error = fmaxf(error, fabsf(got[i] - wanted[i]));
    }
    if (error > tolerance(precision) * largest)
        print_error("off by %g of a largest logit of %g\n", (double)error, (double)largest);
    assert_true(error <= tolerance(precision) * largest);
}

static void check_size(const resnet_model *model, const resnet_model *reference, uint32_t height, uint32_t width) {
    float got[MOST_CLASSES], wanted[MOST_CLASSES];
    resnet_config config = resnet_model_describe(model).config;
    resnet_session_options options = {.height = height, .width = width, .threads = 2};
    float *image = make_images(&options, config.in_channels, 1);
    resnet_session *fast = open_session(model, &options), *slow = open_session(reference, &options);
    set_slot(fast, 0, image);
    set_slot(slow, 0, image);
    run(fast, 1, got);
    run(slow, 1, wanted);
    check_close(got, wanted, config.classes, config.precision);
    resnet_session_free(fast);
    resnet_session_free(slow);
    free(image);
}

static void check_sizes(resnet_config config) {
    static const uint32_t sizes[][2] = {{1, 1}, {7, 300}, {33, 65}, {2, 5}, {225, 223}};
    resnet_model *model = model_of(config, 0);
    resnet_model *reference = oracle_of(&config);
    for (size_t i = 0; i < COUNT(sizes) - (test_quick() ? 1 : 0); i++)
        check_size(model, reference, sizes[i][0], sizes[i][1]);
    resnet_model_free(model);
    resnet_model_free(reference);
}

static void test_sizes(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        check_sizes(test_stored_in(test_odd_config(), precisions[p]));
        check_sizes(test_stored_in(deep_config(), precisions[p]));
    }
}

static void check_channels(uint32_t channels, resnet_precision precision) {
    resnet_config config = test_stored_in(deep_config(), precision);
    config.in_channels = channels;
    config.stride_at = channels % 2 ? RESNET_STRIDE_AT_1X1 : RESNET_STRIDE_AT_3X3;
    resnet_model *model = model_of(config, 0);
    resnet_model *reference = oracle_of(&config);
    check_size(model, reference, 20, 31);
    resnet_model_free(model);
    resnet_model_free(reference);
}

/* Any number of input channels, either place of the stride. */
static void test_other_networks(void **state) {
    (void)state;
    for (uint32_t channels = 1; channels <= RESNET_MAX_CHANNELS; channels += 5)
        for (size_t p = 0; p < COUNT(precisions); p++)
            check_channels(channels, precisions[p]);
}

/* ---- Floating-point environment ---- */

/* Room for all that a run can give, and a request for it, of two images of deep_config. */
#define MOST_RESULTS 20000

static resnet_request everything(float *logits) {
    static float results[6][MOST_RESULTS];
    return (resnet_request){.logits = logits,
                            .embedding = results[0],
                            .maps = {results[1], results[2], results[3], results[4]},
                            .cam = results[5]};
}

/* Run in the environment that is set now; it must be the same afterwards, and the logits what they always are. */
static void check_environment(const struct fixture *f, resnet_session *session, struct own_pool *pool) {
    float logits[2 * MOST_CLASSES];
    *pool = (struct own_pool){.order = pool->order, .fp_state = fp_state()};
    resnet_request request = everything(logits);
    uint64_t before = fp_state();
    resnet_status status = resnet_run(session, 2, &request, NULL);
    uint64_t after = fp_state();
    fesetenv(FE_DFL_ENV);
    assert_int_equal(status, RESNET_OK);
    assert_true(before == after);
    assert_true(before == pool->fp_state && !pool->fp_changed); /* threads that are started there inherit it */
    check_logits(f, logits, 0, 2);
}

static void check_environments(const struct fixture *f, const resnet_session_options *options, struct own_pool *pool) {
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};
    for (size_t i = 0; i < COUNT(modes); i++) {
        fesetround(modes[i]); /* before the threads start, which inherit it */
        resnet_session *session = open_session(f->model, options);
        fill_slots(f, session, 0, 2);
        fesetround(modes[i]);
        feclearexcept(FE_ALL_EXCEPT);
        check_environment(f, session, pool);
        fesetround(modes[i]);
        feclearexcept(FE_ALL_EXCEPT);
        feraiseexcept(FE_DIVBYZERO | FE_UNDERFLOW);
        check_environment(f, session, pool);
        feclearexcept(FE_ALL_EXCEPT);
        trap_all();
        check_environment(f, session, pool);
        resnet_session_free(session);
    }
}

static void test_environment(void **state) {
    (void)state;
    struct fixture f = fixture_of(model_of(deep_config(), 0), NULL);
    double seconds[64] = {0};
    struct own_pool pool = {.order = thread_each};
    resnet_session_options options = options_for(f.model, 2, 1);
    check_environments(&f, &options, &pool);
    options.threads = 3;
    check_environments(&f, &options, &pool);
    options.layer_seconds = seconds;
    check_environments(&f, &options, &pool);
    options.parallel_for = own_parallel_for;
    options.parallel_context = &pool;
    check_environments(&f, &options, &pool);
    free_fixture(&f);
}

/* Load a model and run it on a picture, all in this rounding mode. */
static void run_rounding(int mode, const struct test_bytes *file, float *logits) {
    enum { SIDE = 41 }; /* unlike the network's input, so that it is resized */
    uint8_t pixels[SIDE * SIDE * 3];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * i / 7);
    resnet_model *model;
    fesetround(mode);
    resnet_status status =
        resnet_model_load_memory(file->data, file->size, &(resnet_load_options){.isa = isa}, &model, NULL);
    assert_int_equal(status, RESNET_OK);
    resnet_session *session = open_session(model, &(resnet_session_options){.threads = 2});
    status = resnet_session_set_rgb(session, 0, pixels, SIDE, SIDE, 0, NULL, NULL);
    assert_int_equal(status, RESNET_OK);
    status = resnet_session_run(session, 1, logits, NULL);
    assert_true(fegetround() == mode);
    fesetround(FE_TONEAREST);
    assert_int_equal(status, RESNET_OK);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_rounding_mode_of_the_caller(void **state) {
    (void)state;
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_UPWARD, FE_DOWNWARD};
    resnet_config config = deep_config();
    struct test_random random = {5};
    struct test_bytes file =
        test_model_file(&config, &(struct test_content){.fill = test_fill_random, .context = &random});
    float logits[COUNT(modes)][MOST_CLASSES] = {{0}};
    for (size_t i = 0; i < COUNT(modes); i++) {
        run_rounding(modes[i], &file, logits[i]);
        assert_memory_equal(logits[i], logits[0], sizeof logits[i]);
    }
    test_bytes_free(&file);
}

/* ---- Denormal numbers ---- */

/* Every third weight is denormal, or the zero that it is to count as. */
struct denormal_weights {
    struct test_random random;
    float denormal;
};

static float fill_denormal(void *context, const struct test_tensor *tensor, size_t element) {
    struct denormal_weights *weights = context;
    float value = test_fill_random(&weights->random, tensor, element);
    if (strcmp(tensor->name, "weight") == 0 && element % 3 == 0)
        return value < 0 ? -weights->denormal : weights->denormal;
    return value;
}

static resnet_model *load(const resnet_config *config, test_fill *fill, void *context) {
    struct test_bytes file = test_model_file(config, &(struct test_content){.fill = fill, .context = context});
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK,
                  resnet_model_load_memory(file.data, file.size, &(resnet_load_options){.isa = isa}, &model, &error),
                  &error);
    test_bytes_free(&file);
    return model;
}

static resnet_model *denormal_model(float denormal) {
    resnet_config config = deep_config();
    return load(&config, fill_denormal, &(struct denormal_weights){{1}, denormal});
}

static void run_once(const resnet_model *model, const float *image, float *logits) {
    resnet_session_options options = options_for(model, 1, 2);
    resnet_session *session = open_session(model, &options);
    set_slot(session, 0, image);
    run(session, 1, logits);
    resnet_session_free(session);
}

static void test_denormals_count_as_zeros(void **state) {
    (void)state;
    float tiny[MOST_CLASSES], zero[MOST_CLASSES];
    resnet_model *with = denormal_model(1e-41F), *without = denormal_model(0);
    resnet_session_options options = options_for(with, 1, 1);
    float *image = make_images(&options, 3, 1);
    size_t floats = (size_t)options.height * options.width * 3;
    run_once(with, image, tiny);
    run_once(without, image, zero);
    assert_memory_equal(tiny, zero, 50 * sizeof *tiny);
    for (size_t i = 0; i < floats; i++)
        image[i] = 1e-40F;
    run_once(with, image, tiny);
    memset(image, 0, floats * sizeof *image);
    run_once(with, image, zero);
    assert_memory_equal(tiny, zero, 50 * sizeof *tiny);
    for (size_t i = 0; i < 50; i++)
        assert_true(isfinite(tiny[i]));
    free(image);
    resnet_model_free(with);
    resnet_model_free(without);
}

/* A network without biases that scales by `first` in its first layer and by `last` in its last. */
struct scales {
    struct test_random random;
    float first, last;
};

static float fill_scaled(void *context, const struct test_tensor *tensor, size_t element) {
    struct scales *scales = context;
    if (strcmp(tensor->name, "scale") == 0 || strcmp(tensor->name, "variance") == 0)
        return 1;
    if (strcmp(tensor->name, "weight") != 0)
        return 0;
    float value = test_fill_random(&scales->random, tensor, element);
    return value * (tensor->node->kernel == 7 ? scales->first : tensor->node->op == OP_LINEAR ? scales->last : 1);
}

/* The largest logit of an image of these numbers only. */
static float largest_of_scaled(float number, float first, float last) {
    float logits[MOST_CLASSES], largest = 0;
    resnet_config config = deep_config();
    struct scales scales = {{1}, first, last};
    resnet_model *model = load(&config, fill_scaled, &scales);
    size_t floats = (size_t)config.height * config.width * 3;
    float *image = malloc(floats * sizeof *image);
    assert_non_null(image);
    for (size_t i = 0; i < floats; i++)
        image[i] = number;
    run_once(model, image, logits);
    for (uint32_t i = 0; i < config.classes; i++)
        largest = fmaxf(largest, fabsf(logits[i]));
    free(image);
    resnet_model_free(model);
    return largest;
}

/* Otherwise they cost a hundred times the time. Where a denormal input or sum is kept, the last layer shows it. */
static void test_denormals_on_the_way(void **state) {
    (void)state;
    assert_true(largest_of_scaled(1e-18F, 1, 1e18F) > 0.01F);
    assert_true(largest_of_scaled(1e-40F, 1e20F, 1e20F) == 0);
    assert_true(largest_of_scaled(1e-20F, 1e-20F, 1e37F) == 0);
}

/* ---- Memory ---- */

#if defined(__has_feature)
#define HAS_FEATURE(feature) __has_feature(feature)
#else
#define HAS_FEATURE(feature) 0
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&                           \
    !HAS_FEATURE(address_sanitizer) && !HAS_FEATURE(thread_sanitizer) && !HAS_FEATURE(memory_sanitizer)
#define COUNTS_MALLOC 1

/* The C library's own allocator, in front of which these stand for the whole program. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static atomic_size_t system_calls;

void *malloc(size_t size) {
    atomic_fetch_add(&system_calls, 1);
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    atomic_fetch_add(&system_calls, 1);
    return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
    atomic_fetch_add(&system_calls, 1);
    return __libc_realloc(memory, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    atomic_fetch_add(&system_calls, 1);
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **memory, size_t alignment, size_t size) {
    atomic_fetch_add(&system_calls, 1);
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : 12; /* ENOMEM */
}
#else
#define COUNTS_MALLOC 0
static atomic_size_t system_calls; /* a sanitizer has its own allocator; what is left counts the caller's */
#endif

static void test_run_allocates_nothing(void **state) {
    (void)state;
    float logits[3 * MOST_CLASSES];
    double seconds[64];
    resnet_request request = everything(logits);
    struct test_memory memory;
    test_memory_init(&memory, 0xaa);
    resnet_config config = deep_config();
    resnet_model *model = test_model(&config, 1, &(resnet_load_options){.isa = isa, .allocator = &memory.allocator});
    resnet_session_options options = options_for(model, 3, 3);
    options.layer_seconds = seconds;
    float *images = make_images(&options, 3, 1);
    resnet_session *session = open_session(model, &options);
    size_t calls = memory.calls, system = atomic_load(&system_calls);
    assert_true(!COUNTS_MALLOC || system > 0);
    for (uint32_t i = 0; i < 10; i++) {
        set_slot(session, i % 3, images);
        run(session, 1 + i % 3, logits);
        assert_int_equal(resnet_run(session, 2, &request, NULL), RESNET_OK);
    }
    assert_int_equal(memory.calls, calls);
    assert_int_equal(atomic_load(&system_calls), system);
    resnet_session_free(session);
    resnet_model_free(model);
    free(images);
    test_memory_check(&memory);
}

/* What is announced is what is taken, and given back. */
static void test_session_memory(void **state) {
    (void)state;
    struct test_memory memory;
    resnet_error error;
    test_memory_init(&memory, 0x55);
    resnet_config config = deep_config();
    resnet_model *model = test_model(&config, 1, &(resnet_load_options){.isa = isa, .allocator = &memory.allocator});
    size_t before = memory.live_bytes;
    for (uint32_t i = 1; i <= 5; i++) {
        size_t bytes;
        resnet_session_options options = {.batch = i, .threads = i % 3 + 1, .height = 40 * i, .width = 30};
        assert_status(RESNET_OK, resnet_session_memory(model, &options, &bytes, &error), &error);
        assert_int_equal(memory.live_bytes, before);
        resnet_session *session = open_session(model, &options);
        assert_int_equal(memory.live_bytes - before, bytes);
        resnet_session_free(session);
        assert_int_equal(memory.live_bytes, before);
    }
    size_t alone, together; /* maps of more than a group may have: large images go through one by one */
    const resnet_session_options one = {.height = 2000, .width = 1000},
                                 three = {.height = 2000, .width = 1000, .batch = 3};
    assert_status(RESNET_OK, resnet_session_memory(model, &one, &alone, &error), &error);
    assert_status(RESNET_OK, resnet_session_memory(model, &three, &together, &error), &error);
    assert_true(together - alone < 3 * 3 * 2000 * 1000 * sizeof(float)); /* slots alone, with their borders */
    resnet_model_free(model);
    test_memory_check(&memory);
}

/* ---- Time ---- */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double sum_of(const double *values, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_true(values[i] >= 0);
        sum += values[i];
    }
    return sum;
}

/* The layers' times add up from run to run, and never to more than the runs took. */
static void test_layer_seconds(void **state) {
    (void)state;
    float logits[MOST_CLASSES];
    double seconds[64] = {0}, last = 0;
    struct fixture f = fixture_of(model_of(deep_config(), 0), NULL);
    uint32_t layers = resnet_model_describe(f.model).layers;
    assert_true(layers < COUNT(seconds));
    resnet_session_options options = options_for(f.model, 1, 2);
    options.layer_seconds = seconds;
    resnet_session *session = open_session(f.model, &options);
    fill_slots(&f, session, 0, 1);
    double start = now();
    for (int i = 0; i < 3; i++) {
        run(session, 1, logits);
        double sum = sum_of(seconds, layers);
        assert_true(sum > last && sum <= now() - start + 1e-6); /* a clock's ticks are nanoseconds */
        last = sum;
    }
    assert_true(seconds[layers] == 0);
    resnet_session_free(session);
    free_fixture(&f);
}

/* ---- Wrong calls ---- */

#define assert_refused(call)                                                                                           \
    do {                                                                                                               \
        resnet_error error = {0};                                                                                      \
        assert_status(RESNET_ERROR_ARGUMENT, call, &error);                                                            \
    } while (0)

static void test_wrong_sessions(void **state) {
    (void)state;
    resnet_model *model = model_of(test_odd_config(), 0);
    resnet_session *session;
    size_t bytes = 1;
    assert_refused(resnet_session_create(model, NULL, NULL, &error));
    assert_refused(resnet_session_memory(NULL, NULL, &bytes, &error));
    assert_refused(resnet_session_memory(model, NULL, NULL, &error));
    const resnet_session_options wrong[] = {
        {.batch = UINT32_MAX}, {.threads = UINT32_MAX}, {.height = UINT32_MAX}, {.width = 16385}};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        if (isa == RESNET_ISA_REFERENCE && wrong[i].threads)
            continue; /* always one */
        session = (resnet_session *)&bytes;
        assert_refused(resnet_session_create(model, &wrong[i], &session, &error));
        assert_null(session);
        assert_refused(resnet_session_memory(model, &wrong[i], &bytes, &error));
        assert_int_equal(resnet_session_create(model, &wrong[i], &session, NULL), RESNET_ERROR_ARGUMENT);
    }
    assert_int_equal(bytes, 1);
    session = (resnet_session *)&bytes;
    assert_refused(resnet_session_create(NULL, NULL, &session, &error));
    assert_null(session);
    resnet_session_free(NULL);
    resnet_model_free(model);
}

static void test_wrong_inputs(void **state) {
    (void)state;
    struct fixture f = fixture_of(model_of(test_odd_config(), 0), NULL);
    resnet_session_options options = options_for(f.model, 2, 1);
    resnet_session *session = open_session(f.model, &options);
    const uint8_t pixel[3] = {0};
    assert_refused(resnet_session_set_floats(NULL, 0, f.images, RESNET_NHWC, &error));
    assert_refused(resnet_session_set_floats(session, 0, NULL, RESNET_NHWC, &error));
    assert_refused(resnet_session_set_floats(session, 2, f.images, RESNET_NHWC, &error));
    assert_refused(resnet_session_set_floats(session, UINT32_MAX, f.images, RESNET_NHWC, &error));
    assert_refused(resnet_session_set_floats(session, 0, f.images, (resnet_layout)7, &error));
    assert_refused(resnet_session_set_rgb(session, 2, pixel, 1, 1, 0, NULL, &error));
    assert_refused(resnet_session_set_rgb(session, 0, NULL, 1, 1, 0, NULL, &error));
    assert_refused(resnet_session_set_image_file(session, 2, "no such file", NULL, &error));
    assert_refused(resnet_session_set_image_file(session, 0, NULL, NULL, &error));
    assert_refused(resnet_session_set_image_memory(session, 2, pixel, 3, NULL, &error));
    assert_refused(resnet_session_set_image_memory(session, 0, NULL, 3, NULL, &error));
    assert_int_equal(resnet_session_set_floats(session, 2, f.images, RESNET_NHWC, NULL), RESNET_ERROR_ARGUMENT);
    resnet_session_free(session);
    free_fixture(&f);
}

/* A refused run writes nothing, and the session is as good as before. */
static void test_wrong_runs(void **state) {
    (void)state;
    float logits[2 * MOST_CLASSES] = {12345};
    struct fixture f = fixture_of(model_of(test_odd_config(), 0), NULL);
    resnet_session_options options = options_for(f.model, 2, 2);
    resnet_session *session = open_session(f.model, &options);
    assert_refused(resnet_session_run(NULL, 1, logits, &error));
    assert_refused(resnet_session_run(session, 1, NULL, &error));
    assert_refused(resnet_session_run(session, 0, logits, &error));
    assert_refused(resnet_session_run(session, 3, logits, &error));
    assert_int_equal(resnet_session_run(session, 3, logits, NULL), RESNET_ERROR_ARGUMENT);
    assert_true(logits[0] == 12345);
    fill_slots(&f, session, 0, 2);
    assert_int_equal(resnet_session_run(session, 2, logits, NULL), RESNET_OK);
    check_logits(&f, logits, 0, 2);
    resnet_session_free(session);
    free_fixture(&f);
}

static void test_defaults(void **state) {
    (void)state;
    float logits[MOST_CLASSES];
    struct fixture f = fixture_of(model_of(test_odd_config(), 0), NULL);
    resnet_session *session = open_session(f.model, NULL);
    assert_true(resnet_session_threads(session) >= 1);
    fill_slots(&f, session, 0, 1);
    run(session, 1, logits);
    check_logits(&f, logits, 0, 1);
    assert_refused(resnet_session_run(session, 2, logits, &error));
    resnet_session_free(session);
    resnet_session_options options = {.threads = 3};
    session = open_session(f.model, &options);
    assert_int_equal(resnet_session_threads(session), isa == RESNET_ISA_REFERENCE ? 1 : 3);
    resnet_session_free(session);
    free_fixture(&f);
}

/* ---- Threads of the caller's ---- */

#define MOST_USERS 32

struct user {
    const struct fixture *fixture;
    uint32_t first;
    bool equal;
};

/* Not with cmocka's assertions: they belong to the main thread. */
static void *use_session(void *argument) {
    struct user *user = argument;
    const struct fixture *f = user->fixture;
    float logits[2 * MOST_CLASSES];
    resnet_session_options options = options_for(f->model, 2, 2);
    resnet_session *session;
    user->equal = resnet_session_create(f->model, &options, &session, NULL) == RESNET_OK;
    for (uint32_t i = 0; user->equal && i < (test_quick() ? 10 : 200); i++) {
        uint32_t image = (user->first + i) % (MOST_BATCH - 1);
        resnet_session_set_floats(session, 0, f->images + image * f->image, RESNET_NHWC, NULL);
        resnet_session_set_floats(session, 1, f->images + (image + 1) * f->image, RESNET_NHWC, NULL);
        resnet_session_run(session, 2, logits, NULL);
        user->equal = memcmp(logits, f->logits[image], f->classes * sizeof *logits) == 0 &&
                      memcmp(logits + f->classes, f->logits[image + 1], f->classes * sizeof *logits) == 0;
    }
    resnet_session_free(session);
    return NULL;
}

static void use_sessions(const struct fixture *f, uint32_t count) {
    struct user users[MOST_USERS];
    pthread_t threads[MOST_USERS];
    for (uint32_t i = 0; i < count; i++) {
        users[i] = (struct user){f, 3 * i, false};
        assert_int_equal(pthread_create(&threads[i], NULL, use_session, &users[i]), 0);
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < count; i++)
        assert_true(users[i].equal);
}

/* One model, a session for each of 1 to 32 threads; emulated, so many threads wait for each other for minutes. */
static void test_many_sessions_at_once(void **state) {
    (void)state;
    struct fixture f = fixture_of(model_of(deep_config(), 0), NULL);
    for (uint32_t count = 1; count <= (test_quick() ? 8 : MOST_USERS); count *= 2)
        use_sessions(&f, count);
    free_fixture(&f);
}

/* Slots may be filled by several threads at once. */
struct filler {
    resnet_session *session;
    const float *image;
    uint32_t slot;
};

static void *fill_slot(void *argument) {
    const struct filler *filler = argument;
    resnet_session_set_floats(filler->session, filler->slot, filler->image, RESNET_NHWC, NULL);
    return NULL;
}

static void test_slots_filled_at_once(void **state) {
    (void)state;
    float logits[MOST_BATCH * MOST_CLASSES];
    struct fixture f = fixture_of(model_of(test_odd_config(), 0), NULL);
    resnet_session_options options = options_for(f.model, MOST_BATCH, 2);
    resnet_session *session = open_session(f.model, &options);
    struct filler fillers[MOST_BATCH];
    pthread_t threads[MOST_BATCH];
    for (uint32_t i = 0; i < MOST_BATCH; i++) {
        fillers[i] = (struct filler){session, f.images + i * f.image, i};
        assert_int_equal(pthread_create(&threads[i], NULL, fill_slot, &fillers[i]), 0);
    }
    for (uint32_t i = 0; i < MOST_BATCH; i++)
        pthread_join(threads[i], NULL);
    run(session, MOST_BATCH, logits);
    check_logits(&f, logits, 0, MOST_BATCH);
    resnet_session_free(session);
    free_fixture(&f);
}

/* ---- Signals ---- */

static volatile sig_atomic_t alarms;

static void count_alarm(int number) {
    (void)number;
    alarms = alarms + 1;
}

/* While the caller's thread blocks a signal it must stay pending: none of ours may take it. */
static void check_signals(const struct fixture *f, resnet_session *session) {
    float logits[MOST_CLASSES];
    sigset_t alarm_only, before;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, &before);
    assert_false(sigismember(&before, SIGALRM)); /* creating the session has blocked nothing here */
    alarms = 0;
    kill(getpid(), SIGALRM);
    for (int i = 0; i < 5; i++) {
        run(session, 1, logits);
        check_logits(f, logits, 0, 1);
    }
    assert_int_equal(alarms, 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(alarms, 1);
}

static void test_signals(void **state) {
    (void)state;
    struct sigaction counting = {.sa_handler = count_alarm}, now_set;
    struct sigaction before;
    sigaction(SIGALRM, &counting, &before);
    struct fixture f = fixture_of(model_of(test_odd_config(), 0), NULL);
    resnet_session_options options = options_for(f.model, 1, 3);
    resnet_session *session = open_session(f.model, &options);
    fill_slots(&f, session, 0, 1);
    check_signals(&f, session);
    sigaction(SIGALRM, NULL, &now_set);
    assert_true(now_set.sa_handler == count_alarm);
    resnet_session_free(session);
    sigaction(SIGALRM, &before, NULL);
    free_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_and_batches),
        cmocka_unit_test(test_resnet18),
        cmocka_unit_test(test_large_images),
        cmocka_unit_test(test_repeated_runs),
        cmocka_unit_test(test_fresh_memory),
        cmocka_unit_test(test_mirror_image),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_pixels_for_other_channels),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_own_parallel_for),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_other_networks),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_rounding_mode_of_the_caller),
        cmocka_unit_test(test_denormals_count_as_zeros),
        cmocka_unit_test(test_denormals_on_the_way),
        cmocka_unit_test(test_run_allocates_nothing),
        cmocka_unit_test(test_session_memory),
        cmocka_unit_test(test_layer_seconds),
        cmocka_unit_test(test_wrong_sessions),
        cmocka_unit_test(test_wrong_inputs),
        cmocka_unit_test(test_wrong_runs),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_many_sessions_at_once),
        cmocka_unit_test(test_slots_filled_at_once),
        cmocka_unit_test(test_signals),
    };
    isa = test_isa();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
