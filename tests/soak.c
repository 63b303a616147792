/*
 * soak.c - soak RUNS BIG-RUNS CYCLES: so many runs of a tiny network and of ResNet-50, so many times load, run and
 * free. Prints what resident memory did; code 1 where it grew by more than 64 KiB.
 */
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

#define MOST_GROWTH 65536L

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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_big_runs),
        cmocka_unit_test(test_cycles),
    };
    if (argc != 4)
        return fprintf(stderr, "usage: soak RUNS BIG-RUNS CYCLES\n"), 2;
    runs = strtol(argv[1], NULL, 10);
    big_runs = strtol(argv[2], NULL, 10);
    cycles = strtol(argv[3], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
