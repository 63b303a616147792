/* bench_trace.c - write a run as a trace that Chrome (chrome://tracing) and Perfetto show. */
#include "bench_trace.h"

#include "commands.h"
#include "output_file.h"

/* A span of time, in microseconds; spans lie in each other as calls do. */
static void open_span(struct report *r, const char *name, double start, double seconds) {
    report_open(r, NULL, '{');
    report_text(r, "name", name);
    report_text(r, "ph", "X");
    report_integer(r, "pid", 1);
    report_integer(r, "tid", 1);
    report_number(r, "ts", 1e6 * start);
    report_number(r, "dur", 1e6 * seconds);
    report_open(r, "args", '{');
}

static void close_span(struct report *r) {
    report_close(r, '}');
    report_close(r, '}');
}

static void write_run(struct report *r, const struct bench_run *run, double seconds) {
    open_span(r, run->info.architecture, 0, seconds);
    report_text(r, "isa", resnet_isa_name(run->info.isa));
    report_text(r, "precision", resnet_precision_name(run->info.precision));
    report_integer(r, "threads", run->threads);
    report_integer(r, "batch", run->settings.batch);
    close_span(r);
}

static void write_layer(struct report *r, const struct bench_layer *layer, double start, double seconds) {
    open_span(r, layer->about.name, start, seconds);
    report_text(r, "kind", layer->about.kind);
    report_number(r, "gops", seconds > 0 ? layer->operations / seconds / 1e9 : 0);
    report_number(r, "limit_us", 1e6 * layer->limit);
    report_number(r, "share_of_limit", layer->limit / seconds);
    close_span(r);
}

int trace_write(const char *path, const struct bench_run *run, const struct bench_layer *layers) {
    const double *sample = bench_typical(run);
    struct output_file output;
    if (!output_open(&output, path))
        return EXIT_IO;
    struct report report = {.out = output.file}, *r = &report;
    double start = 0;
    report_open(r, NULL, '{');
    report_open(r, "traceEvents", '[');
    write_run(r, run, sample[0]);
    for (uint32_t i = 0; i < run->info.layers; start += sample[1 + i], i++)
        write_layer(r, &layers[i], start, sample[1 + i]);
    report_close(r, ']');
    report_close(r, '}');
    return output_commit(&output) ? EXIT_FINE : EXIT_IO;
}
