/* bench_run.c - run a network for a while and keep the time of each run and of each layer. */
#include "bench_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "model.h"
#include "system.h"

#define WARM_UP    3
#define LEAST_RUNS 5
#define MOST_RUNS  10000
#define SEED       1

/* ---- Open ---- */

static int open_random(struct bench_run *run, const resnet_load_options *options) {
    const char *arch = run->settings.arch;
    resnet_error error;
    resnet_config config;
    if (resnet_config_preset(arch, &config, &error) != RESNET_OK)
        return library_failure(arch, &error);
    /* bf16x3 is a way to compute with weights that are stored in f32 */
    config.precision = options->precision == RESNET_PRECISION_BF16X3 ? RESNET_PRECISION_F32 : options->precision;
    if (resnet_model_random(&config, SEED, options, &run->model, &error) != RESNET_OK)
        return library_failure(arch, &error);
    return EXIT_FINE;
}

static int open_model(struct bench_run *run) {
    const struct bench_settings *settings = &run->settings;
    const resnet_load_options options = {
        .isa = settings->isa, .precision = settings->precision, .no_winograd = settings->no_winograd};
    double start = now();
    int code = settings->arch ? open_random(run, &options) : model_open(&run->settings.model, &options, &run->model);
    run->load = now() - start;
    return code;
}

static int open_session(struct bench_run *run) {
    const struct bench_settings *settings = &run->settings;
    resnet_error error;
    run->info = resnet_model_describe(run->model);
    run->height = settings->size ? settings->size : run->info.config.height;
    run->width = settings->size ? settings->size : run->info.config.width;
    run->layer_seconds = allocate(run->info.layers, sizeof *run->layer_seconds);
    run->samples = allocate((size_t)MOST_RUNS * (1 + run->info.layers), sizeof *run->samples);
    const resnet_session_options options = {
        .batch = settings->batch,
        .height = run->height,
        .width = run->width,
        .threads = settings->threads,
        .layer_seconds = settings->by_layer ? run->layer_seconds : NULL,
    };
    if (resnet_session_memory(run->model, &options, &run->session_bytes, &error) != RESNET_OK ||
        resnet_session_create(run->model, &options, &run->session, &error) != RESNET_OK)
        return library_failure("session", &error);
    run->threads = resnet_session_threads(run->session);
    return EXIT_FINE;
}

/* Numbers from -1 to 1 (xorshift64), another image in each slot. */
static int fill_slots(struct bench_run *run) {
    size_t size = (size_t)run->info.config.in_channels * run->height * run->width;
    float *values = allocate(size, sizeof *values);
    uint64_t state = 0x9e3779b97f4a7c15u;
    resnet_error error;
    resnet_status status = RESNET_OK;
    for (uint32_t slot = 0; slot < run->settings.batch && status == RESNET_OK; slot++) {
        for (size_t i = 0; i < size; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values[i] = (float)(state >> 40) / 8388608.0f - 1.0f;
        }
        status = resnet_session_set_floats(run->session, slot, values, RESNET_NHWC, &error);
    }
    free(values);
    return status == RESNET_OK ? EXIT_FINE : library_failure("input", &error);
}

int bench_run_open(struct bench_run *run, const struct bench_settings *settings) {
    *run = (struct bench_run){.settings = *settings};
    int code = open_model(run);
    if (code == EXIT_FINE)
        code = open_session(run);
    if (code == EXIT_FINE)
        code = fill_slots(run);
    return code;
}

void bench_run_close(struct bench_run *run) {
    free(run->samples);
    free(run->layer_seconds);
    resnet_session_free(run->session);
    resnet_model_free(run->model);
}

/* ---- Measure ---- */

static double *row_of(const struct bench_run *run, uint32_t i) {
    return run->samples + (size_t)i * (1 + run->info.layers);
}

/* Into the row after the last one. */
static resnet_status time_one(struct bench_run *run, float *logits, resnet_error *error) {
    size_t size = run->info.layers * sizeof *run->layer_seconds;
    double *row = row_of(run, run->runs);
    memset(run->layer_seconds, 0, size);
    double start = now();
    resnet_status status = resnet_session_run(run->session, run->settings.batch, logits, error);
    row[0] = now() - start;
    memcpy(row + 1, run->layer_seconds, size);
    return status;
}

int bench_run_measure(struct bench_run *run) {
    resnet_error error;
    resnet_status status = RESNET_OK;
    float *logits = allocate((size_t)run->settings.batch * run->info.config.classes, sizeof *logits);
    for (int i = 0; i < WARM_UP && status == RESNET_OK; i++)
        status = time_one(run, logits, &error);
    double end = now() + run->settings.seconds;
    while (status == RESNET_OK && run->runs < MOST_RUNS && (run->runs < LEAST_RUNS || now() < end)) {
        status = time_one(run, logits, &error);
        run->runs++;
    }
    run->memory = peak_resident_bytes();
    free(logits);
    return status == RESNET_OK ? EXIT_FINE : library_failure("run", &error);
}

/* ---- Statistics ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(const struct bench_run *run, uint32_t column) {
    double *sorted = allocate(run->runs, sizeof *sorted);
    for (uint32_t i = 0; i < run->runs; i++)
        sorted[i] = row_of(run, i)[column];
    qsort(sorted, run->runs, sizeof *sorted, ascending);
    double median = (sorted[(run->runs - 1) / 2] + sorted[run->runs / 2]) / 2;
    free(sorted);
    return median;
}

double bench_fastest(const struct bench_run *run) {
    double best = *row_of(run, 0);
    for (uint32_t i = 1; i < run->runs; i++)
        best = fmin(best, *row_of(run, i));
    return best;
}

const double *bench_typical(const struct bench_run *run) {
    double median = bench_median(run, 0);
    const double *best = row_of(run, 0);
    for (uint32_t i = 1; i < run->runs; i++)
        if (fabs(*row_of(run, i) - median) < fabs(*best - median))
            best = row_of(run, i);
    return best;
}
