/* cmd_bench.c - resnet bench: measure how fast a network runs here, and how near to what the machine can do. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench_compare.h"
#include "bench_layers.h"
#include "bench_machine.h"
#include "bench_run.h"
#include "bench_stream.h"
#include "bench_trace.h"
#include "commands.h"
#include "options.h"
#include "report.h"

struct bench {
    struct bench_settings settings;
    const char *trace, *compare, *files_from; /* files, or NULL */
    bool json, layers;
    struct bench_run run;
    struct machine machine;
    struct bench_layer *by_layer;
    struct bench_result before; /* with `compare` */
};

static void report_setting(struct report *r, const struct bench *b) {
    const struct bench_run *run = &b->run;
    report_text(r, "model", run->settings.model);
    report_text(r, "arch", run->info.architecture);
    report_text(r, "isa", resnet_isa_name(run->info.isa));
    report_text(r, "precision", resnet_precision_name(run->info.precision));
    report_integer(r, "threads", run->threads);
    report_integer(r, "batch", run->settings.batch);
    report_integer(r, "height", run->height);
    report_integer(r, "width", run->width);
}

static void report_result(struct report *r, const struct bench *b) {
    const struct bench_run *run = &b->run;
    double seconds = bench_median(run, 0), operations = 0, limit = 0;
    for (uint32_t i = 0; i < run->info.layers; i++) {
        operations += b->by_layer[i].operations;
        limit += b->by_layer[i].limit;
    }
    report_integer(r, "runs", run->runs);
    report_number(r, "median_ms", 1e3 * seconds);
    report_number(r, "min_ms", 1e3 * bench_fastest(run));
    report_number(r, "images_per_second", run->settings.batch / seconds);
    report_number(r, "gops", operations / seconds / 1e9);
    report_number(r, "share_of_peak", operations / seconds / b->machine.operations[run->info.precision]);
    report_number(r, "limit_ms", 1e3 * limit);
    report_number(r, "share_of_limit", limit / seconds);
    if (b->compare)
        report_before(r, &b->before, 1e3 * seconds, run->settings.batch / seconds);
}

static void report_memory(struct report *r, const struct bench_run *run) {
    report_number(r, "load_ms", 1e3 * run->load);
    report_number(r, "model_mb", (double)run->info.memory / 1e6);
    report_number(r, "session_mb", (double)run->session_bytes / 1e6);
    report_number(r, "peak_rss_mb", run->memory / 1e6);
}

static void report_machine(struct report *r, const struct machine *machine) {
    report_number(r, "peak_f32_gops", machine->operations[RESNET_PRECISION_F32] / 1e9);
    report_number(r, "peak_bf16_gops", machine->operations[RESNET_PRECISION_BF16] / 1e9);
    report_number(r, "peak_int8_gops", machine->operations[RESNET_PRECISION_INT8] / 1e9);
    report_number(r, "read_l1_gb_s", machine->read[LEVEL_L1] / 1e9);
    report_number(r, "read_l2_gb_s", machine->read[LEVEL_L2] / 1e9);
    report_number(r, "read_l3_gb_s", machine->read[LEVEL_L3] / 1e9);
    report_number(r, "read_memory_gb_s", machine->read[LEVEL_MEMORY] / 1e9);
}

static void report_all(const struct bench *b) {
    struct report report = {.people = !b->json}, *r = &report;
    report_open(r, NULL, '{');
    report_setting(r, b);
    report_result(r, b);
    report_memory(r, &b->run);
    report_machine(r, &b->machine);
    if (b->layers)
        report_layers(r, &b->run, b->by_layer, b->compare ? &b->before : NULL);
    report_close(r, '}');
    if (b->json)
        putchar('\n');
}

static int bench(struct bench *b) {
    int code = b->compare ? bench_result_read(&b->before, b->compare) : EXIT_FINE;
    if (code == EXIT_FINE)
        code = bench_run_open(&b->run, &b->settings);
    if (code == EXIT_FINE)
        code = bench_run_measure(&b->run);
    if (code == EXIT_FINE) {
        machine_measure(&b->machine, b->run.info.isa, b->run.threads);
        b->by_layer = bench_layers(&b->run, &b->machine);
        code = b->by_layer ? EXIT_FINE : EXIT_IO;
    }
    if (code == EXIT_FINE) {
        report_all(b);
        if (b->trace)
            code = trace_write(b->trace, &b->run, b->by_layer);
    }
    free(b->by_layer);
    bench_run_close(&b->run);
    bench_result_free(&b->before);
    return code;
}

static int stream(const struct bench *b) {
    const struct batch_settings settings = {.model = b->settings.model,
                                            .isa = b->settings.isa,
                                            .precision = b->settings.precision,
                                            .threads = b->settings.threads,
                                            .resize = RESIZE_AS_MODEL};
    return bench_stream(&settings, b->files_from, b->json);
}

static int run(const struct command *self, int argc, char **argv) {
    struct bench b = {.settings = {.batch = 1, .seconds = 3}};
    struct bench_settings *settings = &b.settings;
    const struct option options[] = {
        option_model(&settings->model),
        option_text("arch", "NAME", "a network known by name, such as resnet50, with made-up weights", &settings->arch),
        option_precision(&settings->precision),
        option_isa(&settings->isa),
        option_switch("no-winograd", "compute every convolution by its sum", &settings->no_winograd),
        option_threads(&settings->threads),
        option_count("batch", "images a run (1)", &settings->batch, 1, 1024),
        option_count("size", "height and width of the images (the network's own)", &settings->size, 1, 16384),
        option_seconds("seconds", "how long to measure (3; at least 5 runs)", &settings->seconds),
        option_switch("layers", "also each layer, and what share of its limit it reaches", &b.layers),
        option_text("trace", "FILE", "write a run for chrome://tracing or Perfetto", &b.trace),
        option_text("compare", "FILE", "set beside it what an earlier bench --json printed", &b.compare),
        option_text("files-from", "FILE", "how fast the images of this list are read, run, and both", &b.files_from),
        option_json(&b.json),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 0)
        return usage_error(self, "unexpected argument ", argv[0]);
    if (settings->model && settings->arch)
        return usage_error(self, "either --model or --arch, not both", "");
    if (b.files_from)
        return settings->arch ? usage_error(self, "--files-from needs a model file", "") : stream(&b);
    settings->by_layer = b.layers || b.trace;
    return bench(&b);
}

const struct command command_bench = {
    .name = "bench",
    .operands = "",
    .summary = "Measure how fast a network runs here: --arch NAME, a model file or the default.",
    .notes = "A layer's limit is the longer of two times: its operations at the measured peak of the\n"
             "precision, and its bytes at the measured read bandwidth of where they come from:\n"
             "weights from the nearest cache that holds those of all layers, input, residual and\n"
             "output from the nearest that holds these. A multiply-add is two operations.\n"
             "With --files-from: images a second that are decoded and resized, that the network runs, what\n"
             "both one after the other allow, and what a stream (resnet help classify) reaches of that.",
    .run = run,
};
