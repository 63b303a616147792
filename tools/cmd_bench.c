/* cmd_bench.c - resnet bench: measure how fast a network runs here, and how near to the roof of the FMA units. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "model.h"
#include "options.h"
#include "report.h"
#include "system.h"
#include "text.h"

#define WARM_UP    3
#define LEAST_RUNS 5
#define MOST_RUNS  10000
#define SEED       1
#define PEAK_TRIES 5

struct bench {
    const char *model_path, *arch, *precision;
    resnet_isa isa;
    uint32_t threads, batch;
    double seconds;
    bool json, layers, no_winograd;
    resnet_model *model;
    resnet_session *session;
    resnet_model_info info;
    uint32_t runs;
    double *samples;       /* [1 + layers][MOST_RUNS] seconds: whole runs, then each layer */
    double *layer_seconds; /* [layers], which the session adds to */
    double load;           /* seconds */
    double peak_gflops;    /* of all threads, NaN where it is not known */
};

static int open_model(struct bench *b) {
    resnet_error error;
    resnet_config config;
    const resnet_load_options options = {.isa = b->isa, .no_winograd = b->no_winograd};
    double start = now();
    int code = EXIT_FINE;
    if (!b->arch)
        code = model_open(&b->model_path, &options, &b->model);
    else if (resnet_config_preset(b->arch, &config, &error) != RESNET_OK ||
             resnet_model_random(&config, SEED, &options, &b->model, &error) != RESNET_OK)
        code = library_failure(b->arch, &error);
    b->load = now() - start;
    return code;
}

static int open_session(struct bench *b) {
    resnet_error error;
    b->info = resnet_model_describe(b->model);
    b->layer_seconds = allocate(b->info.layers, sizeof *b->layer_seconds);
    b->samples = allocate((size_t)(b->info.layers + 1) * MOST_RUNS, sizeof *b->samples);
    const resnet_session_options options = {
        .batch = b->batch,
        .threads = b->threads,
        .layer_seconds = b->layers ? b->layer_seconds : NULL,
    };
    bool good = resnet_session_create(b->model, &options, &b->session, &error) == RESNET_OK;
    return good ? EXIT_FINE : library_failure("session", &error);
}

/* Numbers from -1 to 1 (xorshift64), another image in each slot. */
static resnet_status fill_slots(struct bench *b, resnet_error *error) {
    size_t size = (size_t)b->info.config.in_channels * b->info.config.height * b->info.config.width;
    float *values = allocate(size, sizeof *values);
    uint64_t state = 0x9e3779b97f4a7c15u;
    resnet_status status = RESNET_OK;
    for (uint32_t slot = 0; slot < b->batch && status == RESNET_OK; slot++) {
        for (size_t i = 0; i < size; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values[i] = (float)(state >> 40) / 8388608.0f - 1.0f;
        }
        status = resnet_session_set_floats(b->session, slot, values, RESNET_NHWC, error);
    }
    free(values);
    return status;
}

static resnet_status time_one(struct bench *b, float *logits, resnet_error *error) {
    memset(b->layer_seconds, 0, b->info.layers * sizeof *b->layer_seconds);
    double start = now();
    resnet_status status = resnet_session_run(b->session, b->batch, logits, error);
    b->samples[b->runs] = now() - start;
    for (uint32_t i = 0; i < b->info.layers; i++)
        b->samples[(size_t)(i + 1) * MOST_RUNS + b->runs] = b->layer_seconds[i];
    return status;
}

static int measure(struct bench *b) {
    resnet_error error;
    float *logits = allocate((size_t)b->batch * b->info.config.classes, sizeof *logits);
    resnet_status status = fill_slots(b, &error);
    for (int i = 0; i < WARM_UP && status == RESNET_OK; i++)
        status = time_one(b, logits, &error);
    for (double end = now() + b->seconds;
         status == RESNET_OK && b->runs < MOST_RUNS && (b->runs < LEAST_RUNS || now() < end); b->runs++)
        status = time_one(b, logits, &error);
    free(logits);
    return status == RESNET_OK ? EXIT_FINE : library_failure("run", &error);
}

struct peak {
    resnet_isa isa;
    double *flops; /* [threads] */
};

static void measure_thread_peak(void *argument, uint32_t thread) {
    struct peak *peak = argument;
    resnet_fma_peak(peak->isa, &peak->flops[thread], NULL);
}

/* All threads at once, for cores that share a unit or a power budget; the best of a few tries, for a roof is a roof. */
static void measure_peak(struct bench *b) {
    uint32_t threads = resnet_session_threads(b->session);
    struct peak peak = {.isa = b->info.isa, .flops = allocate(threads, sizeof *peak.flops)};
    double best = 0;
    for (int i = 0; i < PEAK_TRIES; i++) {
        double sum = 0;
        run_on_threads(threads, measure_thread_peak, &peak);
        for (uint32_t t = 0; t < threads; t++)
            sum += peak.flops[t];
        best = sum > best ? sum : best;
    }
    b->peak_gflops = best > 0 ? best / 1e9 : (double)NAN;
    free(peak.flops);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of row 0, the whole runs, or of layer row - 1. The first call sorts. */
static double median(const struct bench *b, uint32_t row) {
    double *samples = b->samples + (size_t)row * MOST_RUNS;
    qsort(samples, b->runs, sizeof *samples, ascending);
    return (samples[(b->runs - 1) / 2] + samples[b->runs / 2]) / 2;
}

/* Floating-point operations a second: two for each multiply-add of the sums, also where Winograd's method needs fewer.
 */
static double speed(const struct bench *b, uint64_t macs, double seconds) {
    return seconds > 0 ? 2 * (double)macs * b->batch / seconds : 0;
}

static void report_layer(struct report *r, const struct bench *b, uint32_t i) {
    resnet_layer layer;
    if (resnet_model_layer(b->model, i, 0, 0, &layer, NULL) != RESNET_OK)
        return;
    double seconds = median(b, i + 1), gflops = speed(b, layer.macs, seconds) / 1e9;
    if (r->people) {
        printf("%-21s %-7s %9.3f %6.1f %% %9.1f %6.1f %%\n", layer.name, layer.kind, 1e3 * seconds,
               100 * seconds / median(b, 0), gflops, 100 * gflops / b->peak_gflops);
        return;
    }
    report_open(r, NULL, '{');
    report_text(r, "name", layer.name);
    report_text(r, "kind", layer.kind);
    report_number(r, "ms", 1e3 * seconds);
    report_number(r, "gflops", gflops);
    report_number(r, "share_of_peak", gflops / b->peak_gflops);
    report_close(r, '}');
}

static void report_layers(struct report *r, const struct bench *b) {
    if (r->people)
        printf("\n%-21s %-7s %9s %8s %9s %8s\n", "layer", "kind", "ms", "of time", "GFLOP/s", "of peak");
    report_open(r, "layers", '[');
    for (uint32_t i = 0; i < b->info.layers; i++)
        report_layer(r, b, i);
    report_close(r, ']');
}

static void report_all(const struct bench *b) {
    struct report report = {.people = !b->json}, *r = &report;
    double seconds = median(b, 0), gflops = speed(b, b->info.macs, seconds) / 1e9;
    report_open(r, NULL, '{');
    report_text(r, "model", b->model_path);
    report_text(r, "arch", b->info.architecture);
    report_text(r, "isa", resnet_isa_name(b->info.isa));
    report_text(r, "precision", precision_name(b->info.config.precision));
    report_integer(r, "threads", resnet_session_threads(b->session));
    report_integer(r, "batch", b->batch);
    report_integer(r, "runs", b->runs);
    report_number(r, "median_ms", 1e3 * seconds);
    report_number(r, "min_ms", 1e3 * b->samples[0]);
    report_number(r, "images_per_second", b->batch / seconds);
    report_number(r, "load_ms", 1e3 * b->load);
    report_number(r, "peak_rss_mb", peak_resident_bytes() / 1e6);
    report_number(r, "gflops", gflops);
    report_number(r, "fma_peak_gflops", b->peak_gflops);
    report_number(r, "share_of_peak", gflops / b->peak_gflops);
    if (b->layers)
        report_layers(r, b);
    report_close(r, '}');
    if (b->json)
        putchar('\n');
}

static int bench(struct bench *b) {
    int code = open_model(b);
    if (code == EXIT_FINE)
        code = open_session(b);
    if (code == EXIT_FINE)
        code = measure(b);
    if (code == EXIT_FINE) {
        measure_peak(b);
        report_all(b);
    }
    free(b->samples);
    free(b->layer_seconds);
    resnet_session_free(b->session);
    resnet_model_free(b->model);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct bench b = {.batch = 1, .seconds = 3, .precision = "f32"};
    const struct option options[] = {
        option_model(&b.model_path),
        option_text("arch", "NAME", "resnet18, 34, 50, 101 or 152 with made-up weights", &b.arch),
        option_text("precision", "NAME", "of --arch: f32", &b.precision),
        option_threads(&b.threads),
        option_count("batch", "images a run (1)", &b.batch, 1, 1024),
        option_seconds("seconds", "how long to measure (3; at least 5 runs)", &b.seconds),
        option_isa(&b.isa),
        option_json(&b.json),
        option_switch("layers", "also the time of each layer", &b.layers),
        option_switch("no-winograd", "compute every convolution by its sum", &b.no_winograd),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 0)
        return usage_error(self, "unexpected argument ", argv[0]);
    if (b.model_path && b.arch)
        return usage_error(self, "either --model or --arch, not both", "");
    if (strcmp(b.precision, precision_name(RESNET_PRECISION_F32)) != 0)
        return usage_error(self, "the precision can only be f32, not ", b.precision);
    return bench(&b);
}

const struct command command_bench = {
    .name = "bench",
    .operands = "",
    .summary = "Measure how fast a network runs here: --arch NAME, a model file or the default.",
    .run = run,
};
