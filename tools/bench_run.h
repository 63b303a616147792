/* bench_run.h - run a network for a while and keep the time of each run and of each layer. */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include <stdbool.h>

#include "resnet.h"

/* What the user may choose about it. */
struct bench_settings {
    const char *model, *arch; /* a file, or a preset with made-up weights; neither: the default model */
    resnet_isa isa;
    resnet_precision precision;
    uint32_t threads, batch;
    uint32_t size;  /* height and width of the input; 0: the model's own */
    double seconds; /* to measure for, at least */
    bool no_winograd, by_layer;
};

struct bench_run {
    struct bench_settings settings;
    resnet_model *model;
    resnet_session *session;
    resnet_model_info info;
    uint32_t threads, height, width;
    size_t session_bytes;
    double load;   /* seconds */
    double memory; /* the most that was resident up to the end of the last run, bytes */
    uint32_t runs;
    double *samples; /* [runs][1 + layers] seconds: of the run, then of each layer (0 unless by_layer) */
    double *layer_seconds;
};

/* Load the network, make a session and fill its slots; EXIT_FINE, or the code to exit with after a complaint.
 * bench_run_close may follow either. */
int bench_run_open(struct bench_run *run, const struct bench_settings *settings);
void bench_run_close(struct bench_run *run);

/* Fill in the samples. EXIT_FINE, or the code to exit with after a complaint. */
int bench_run_measure(struct bench_run *run);

/* Median over the runs of a column of the samples: 0 for whole runs, 1 + i for layer i. */
double bench_median(const struct bench_run *run, uint32_t column);
double bench_fastest(const struct bench_run *run);

/* The row of samples of the run whose time is nearest to the median. */
const double *bench_typical(const struct bench_run *run);

#endif
