/* bench_stream.h - how near a stream of images comes to what decoding and the network alone allow. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include <stdbool.h>

#include "batch.h"

/* Measure with the images of this list, and report. EXIT_FINE, or the code to exit with after a complaint. */
int bench_stream(const struct batch_settings *settings, const char *list, bool json);

#endif
