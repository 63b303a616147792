/* bench_compare.h - read what an earlier `resnet bench --json` printed, to set a result beside it. */
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

#include <stdint.h>

#include "report.h"

struct bench_result {
    const char *file;
    char arch[32], isa[32], precision[32];
    double threads, batch;             /* NaN where the file does not tell */
    double median, images;             /* ms; a second */
    struct bench_result_layer *layers; /* owned */
    uint32_t count;
};

struct bench_result_layer {
    char name[32];
    double ms;
};

/* EXIT_FINE, or the code to exit with after a complaint. bench_result_free may follow either. */
int bench_result_read(struct bench_result *result, const char *file);
void bench_result_free(struct bench_result *result);

/* Milliseconds of the layer of this name; NaN where the file has none. */
double bench_result_layer(const struct bench_result *result, const char *name);

/* The earlier figures and the ratios to them: of times under 1, and of images a second over 1, where it got faster. */
void report_before(struct report *report, const struct bench_result *before, double median, double images);

#endif
