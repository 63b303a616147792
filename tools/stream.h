/*
 * stream.h - images through a network as a stream, for lists of any length: one thread reads names, workers decode and
 * run a few images each, all at once, and records leave in order.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "batch.h"
#include "inputs.h"
#include "shard.h"

#define STREAM_BATCH 8 /* images that a worker runs together */

/* An image on its way. */
struct stream_item {
    struct input input;
    uint8_t *data; /* of an image that is no file */
    size_t size;
    char note[64];      /* what `begin` wrote down, for `write` */
    resnet_error error; /* status RESNET_OK while all is well */
    char *record;       /* what `describe` wrote */
    size_t record_size;
};

/* What a command makes of images. `begin` and `describe` are called by several threads at once, the others by one at a
 * time. */
struct stream_job {
    void *context;
    bool embedding; /* wants embeddings, not logits */
    /* Whether an image is left out, by the thread that reads names. NULL: none is. */
    bool (*skip)(void *context, const char *name);
    /* Before the image is read; may set its error. NULL: nothing. */
    void (*begin)(void *context, struct stream_item *item);
    /* Write the image's record. `values` are the logits or the embedding, NULL where the item has an error. */
    void (*describe)(void *context, const struct stream_item *item, const float *values, FILE *out);
    /* Take a record, with or without an error; hand on those that were taken. False ends the stream. */
    void (*write)(void *context, const struct stream_item *item);
    bool (*flush)(void *context);
};

/* How to run it. */
struct stream_plan {
    struct batch *batch; /* the model and its preprocessing; with a session: a few images run together on that */
    struct inputs *inputs;
    struct shard shard;
    uint64_t done;    /* images that `skip` will leave out, for the progress */
    uint32_t threads; /* workers; 0: as many as the machine gives */
    double max_wait;  /* seconds that a decoded image waits for others to run with */
    bool unordered;   /* records leave as they come */
    bool quiet;       /* no progress */
};

/* What became of it. */
struct stream_result {
    uint64_t images, failed;
};

/* How many workers there are for `threads`, which may be 0. */
uint32_t stream_threads(const struct batch *batch, uint32_t threads);

/*
 * Run all images through the network. Failed ones and a wish to stop are told on stderr. Returns EXIT_FINE, EXIT_INPUTS
 * where images failed, EXIT_IO where the list or the output did, or 128 and the number of the signal that stopped it
 * before the end.
 */
int stream_run(const struct stream_plan *plan, const struct stream_job *job, struct stream_result *result);

#endif
