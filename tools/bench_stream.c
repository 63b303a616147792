/*
 * bench_stream.c - how near a stream of images comes to what decoding and the network alone allow.
 *
 * Each is measured on all threads, each thread with a session of its own, as in a stream. What takes 1/d seconds an
 * image and then 1/i cannot be done more often than 1 / (1/d + 1/i) times a second.
 */
#include "bench_stream.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "commands.h"
#include "labelled.h"
#include "model.h"
#include "options.h"
#include "report.h"
#include "stream.h"
#include "system.h"

#define EARLY 100 /* images after which memory should grow no more */

struct bench {
    struct batch batch;
    struct labelled images;
    uint32_t threads, values;
    resnet_session **sessions; /* [threads] */
    atomic_size_t next;        /* image to decode or run */
    double decode, run, stream;
    size_t streamed;
    double early, late; /* bytes of memory after the first images, and after all */
};

/* ---- Each alone ---- */

static void decode(void *bench_, uint32_t thread) {
    struct bench *b = bench_;
    size_t i;
    while ((i = atomic_fetch_add(&b->next, 1)) < b->images.count)
        resnet_session_set_image_file(b->sessions[thread], (uint32_t)(i % STREAM_BATCH), b->images.images[i].path,
                                      &b->batch.preprocess, NULL);
}

static void run(void *bench_, uint32_t thread) {
    struct bench *b = bench_;
    float *values = allocate((size_t)STREAM_BATCH * b->values, sizeof *values);
    while (atomic_fetch_add(&b->next, STREAM_BATCH) < b->images.count)
        resnet_session_run(b->sessions[thread], STREAM_BATCH, values, NULL);
    free(values);
}

/* Seconds that all threads together take for all images. */
static double seconds_of(struct bench *b, void (*task)(void *bench, uint32_t thread)) {
    double start = now();
    atomic_store(&b->next, 0);
    run_on_threads(b->threads, task, b);
    return now() - start;
}

static int measure_alone(struct bench *b) {
    const resnet_session_options options = {.batch = STREAM_BATCH, .threads = 1};
    resnet_error error;
    b->sessions = allocate(b->threads, sizeof(resnet_session *));
    for (uint32_t i = 0; i < b->threads; i++)
        if (resnet_session_create(b->batch.model, &options, &b->sessions[i], &error) != RESNET_OK)
            return library_failure(b->batch.path, &error);
    b->decode = seconds_of(b, decode);
    b->run = seconds_of(b, run);
    return EXIT_FINE;
}

/* ---- Together ---- */

static void describe(void *bench, const struct stream_item *item, const float *values, FILE *out) {
    (void)bench, (void)item, (void)values, (void)out;
}

static void count(void *bench_, const struct stream_item *item) {
    struct bench *b = bench_;
    (void)item;
    if (++b->streamed == EARLY)
        b->early = resident_bytes();
}

static bool flush(void *bench) {
    (void)bench;
    return true;
}

static int measure_stream(struct bench *b, const char *list) {
    const struct stream_job job = {.context = b, .describe = describe, .write = count, .flush = flush};
    struct inputs inputs;
    struct stream_plan plan = {.batch = &b->batch, .inputs = &inputs, .threads = b->threads};
    struct stream_result result;
    if (!inputs_open(&inputs, NULL, 0, &(struct inputs_settings){.files_from = list}))
        return EXIT_IO;
    double start = now();
    int code = stream_run(&plan, &job, &result);
    b->stream = now() - start;
    b->late = resident_bytes();
    inputs_close(&inputs);
    return code;
}

/* ---- Report ---- */

static void report_all(const struct bench *b, bool json) {
    struct report report = {.people = !json}, *r = &report;
    double images = (double)b->images.count;
    report_open(r, NULL, '{');
    report_text(r, "model", b->batch.path);
    report_text(r, "isa", resnet_isa_name(b->batch.info.isa));
    report_text(r, "precision", resnet_precision_name(b->batch.info.precision));
    report_integer(r, "threads", b->threads);
    report_integer(r, "images", b->images.count);
    report_number(r, "decode_per_second", images / b->decode);
    report_number(r, "network_per_second", images / b->run);
    report_number(r, "both_allow_per_second", images / (b->decode + b->run));
    report_number(r, "stream_per_second", images / b->stream);
    report_number(r, "share", (b->decode + b->run) / b->stream);
    report_number(r, "rss_after_100_mb", b->early / 1e6);
    report_number(r, "rss_at_end_mb", b->late / 1e6);
    report_close(r, '}');
    if (json)
        putchar('\n');
}

static int measure(struct bench *b, const char *list, bool json) {
    b->threads = stream_threads(&b->batch, b->threads);
    b->values = b->batch.info.config.classes;
    if (!labelled_from_anywhere(&b->images, list))
        return EXIT_IO;
    int code = measure_stream(b, list);
    if (code == EXIT_FINE || code == EXIT_INPUTS) {
        int alone = measure_alone(b);
        code = alone == EXIT_FINE ? code : alone;
    }
    if (code == EXIT_FINE || code == EXIT_INPUTS)
        report_all(b, json);
    return code;
}

int bench_stream(const struct batch_settings *settings, const char *list, bool json) {
    struct bench b = {.threads = settings->threads};
    int code = batch_open_model(&b.batch, settings);
    if (code == EXIT_FINE)
        code = measure(&b, list, json);
    for (uint32_t i = 0; b.sessions && i < b.threads; i++)
        resnet_session_free(b.sessions[i]);
    free(b.sessions);
    labelled_free(&b.images);
    batch_close(&b.batch);
    return code;
}
