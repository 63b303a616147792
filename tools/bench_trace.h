/* bench_trace.h - write a run as a trace that Chrome (chrome://tracing) and Perfetto show. */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include "bench_layers.h"

/* The run whose time is nearest to the median, layer by layer. EXIT_FINE, or the code to exit with after a complaint;
 * then an older file is as it was. */
int trace_write(const char *path, const struct bench_run *run, const struct bench_layer *layers);

#endif
