/*
 * soak.c - soak RUNS BIG-RUNS CYCLES: so many runs of a tiny network and of ResNet-50, so many times load, run and
 * free. Prints what resident memory did; code 1 where it grew by more than 64 KiB.
 *
 * soak denormals: how much longer runs take whose numbers are denormal, for each instruction set and precision; code 1
 * where it is more than half as long again.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support.h"

#define MOST_GROWTH 65536L
#define MOST_SLOWER 1.5

static long runs, big_runs, cycles;

/* Bytes, counted page by page: Linux's statm is off by what each CPU has not yet told. */
static long resident(void) {
    long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Rss: %ld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return 1024 * kib;
}

/* Call `step` so many times; memory is first looked at after a tenth of them. */
static void soak(const char *name, long times, void (*step)(void *context), void *context) {
    long before = 0;
    for (long i = 0; i < times; i++) {
        if (i == (times + 9) / 10)
            before = resident();
        step(context);
    }
    long growth = times > 1 ? resident() - before : 0;
    print_message("%s: %ld times, resident memory %+ld bytes from the first tenth on\n", name, times, growth);
    assert_true(growth <= MOST_GROWTH);
}

static void run(void *session) {
    float logits[1000];
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_run(session, 1, logits, &error), &error);
}

static void fill(resnet_session *session, uint32_t side) {
    size_t count = (size_t)3 * side * side;
    float *values = calloc(count, sizeof *values);
    assert_non_null(values);
    assert_int_equal(resnet_session_set_floats(session, 0, values, RESNET_NCHW, NULL), RESNET_OK);
    free(values);
}

static void test_runs(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    resnet_model *model = test_model(&config, 1, NULL);
    resnet_session *session;
    assert_int_equal(resnet_session_create(model, NULL, &session, NULL), RESNET_OK);
    fill(session, config.height);
    soak("runs of a tiny network", runs, run, session);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_big_runs(void **state) {
    (void)state;
    resnet_config config;
    resnet_model *model;
    resnet_session *session;
    resnet_error error;
    assert_int_equal(resnet_config_preset("resnet50", &config, NULL), RESNET_OK);
    assert_status(RESNET_OK, resnet_model_random(&config, 1, NULL, &model, &error), &error);
    assert_int_equal(resnet_session_create(model, NULL, &session, NULL), RESNET_OK);
    fill(session, config.height);
    soak("runs of ResNet-50", big_runs, run, session);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void whole_life(void *bytes_) {
    const struct test_bytes *bytes = bytes_;
    resnet_model *model;
    resnet_session *session;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes->data, bytes->size, NULL, &model, &error), &error);
    assert_status(RESNET_OK, resnet_session_create(model, NULL, &session, &error), &error);
    fill(session, 8);
    run(session);
    resnet_session_free(session);
    resnet_model_free(model);
}

static void test_cycles(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){0});
    soak("load, run, free", cycles, whole_life, &bytes);
    test_bytes_free(&bytes);
}

/* ---- Denormal numbers ---- */

/* Which numbers are so small: none; all weights; all pixels; what the first layer makes of both. */
struct smallness {
    const char *name;
    float weight, pixel; /* that the usual ones are multiplied with */
    struct test_random random;
};

static float fill_small(void *context, const struct test_tensor *tensor, size_t element) {
    struct smallness *smallness = context;
    float value = test_fill_random(&smallness->random, tensor, element);
    if (strcmp(tensor->name, "weight") == 0)
        return value * smallness->weight;
    return strcmp(tensor->name, "scale") == 0 || strcmp(tensor->name, "variance") == 0 ? 1 : 0;
}

static resnet_session *small_session(const resnet_model *model, const struct smallness *smallness) {
    static float image[3 * 64 * 64];
    struct test_random random = {2};
    resnet_session *session;
    resnet_error error;
    const resnet_session_options options = {.threads = 1};
    for (size_t i = 0; i < COUNT(image); i++)
        image[i] = test_float(&random, -1, 1) * smallness->pixel;
    assert_status(RESNET_OK, resnet_session_create(model, &options, &session, &error), &error);
    assert_status(RESNET_OK, resnet_session_set_floats(session, 0, image, RESNET_NHWC, &error), &error);
    return session;
}

static double seconds_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The fastest of many runs: the others were disturbed. */
static double seconds_of(const resnet_load_options *load, const struct smallness *smallness) {
    resnet_config config = test_stored_in(test_tiny_config(), load->precision);
    config.base_width = 64;
    config.blocks[1] = 1;
    config.height = config.width = 64;
    struct smallness context = *smallness;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.fill = fill_small, .context = &context});
    resnet_model *model;
    resnet_error error;
    double fastest = 1e9;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes.data, bytes.size, load, &model, &error), &error);
    resnet_session *session = small_session(model, smallness);
    for (int i = 0; i < 100; i++) {
        double start = seconds_now();
        run(session);
        double seconds = seconds_now() - start;
        fastest = seconds < fastest ? seconds : fastest;
    }
    resnet_session_free(session);
    resnet_model_free(model);
    test_bytes_free(&bytes);
    return fastest;
}

static void test_denormals(void **state) {
    (void)state;
    static const struct smallness kinds[] = {
        {"usual", 1, 1, {1}}, {"weights", 1e-39F, 1, {1}}, {"pixels", 1, 1e-39F, {1}}, {"sums", 1e-20F, 1e-19F, {1}}};
    double most = 0;
    for (unsigned isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AMX; isa++)
        for (unsigned p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_INT8; p++) {
            const resnet_load_options load = {.isa = (resnet_isa)isa, .precision = (resnet_precision)p};
            if (resnet_isa_check(load.isa, NULL) != RESNET_OK)
                continue;
            double usual = seconds_of(&load, &kinds[0]);
            print_message("%s %s: %.2f ms", resnet_isa_name(load.isa), resnet_precision_name(load.precision),
                          1e3 * usual);
            for (size_t i = 1; i < COUNT(kinds); i++) {
                if (p == RESNET_PRECISION_INT8 && kinds[i].weight < FLT_MIN)
                    continue; /* the scale of its weights may not be denormal */
                double ratio = seconds_of(&load, &kinds[i]) / usual;
                print_message(", denormal %s %.2f times", kinds[i].name, ratio);
                most = ratio > most ? ratio : most;
            }
            print_message("\n");
        }
    assert_true(most <= MOST_SLOWER);
}

int main(int argc, char **argv) {
    const struct CMUnitTest denormals[] = {cmocka_unit_test(test_denormals)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_big_runs),
        cmocka_unit_test(test_cycles),
    };
    if (argc == 2 && strcmp(argv[1], "denormals") == 0)
        return cmocka_run_group_tests(denormals, NULL, NULL);
    if (argc != 4)
        return fprintf(stderr, "usage: soak RUNS BIG-RUNS CYCLES, or soak denormals\n"), 2;
    runs = strtol(argv[1], NULL, 10);
    big_runs = strtol(argv[2], NULL, 10);
    cycles = strtol(argv[3], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
