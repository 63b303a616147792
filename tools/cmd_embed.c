/* cmd_embed.c - resnet embed: the embeddings of images, as a matrix with a table of names, or as JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "batch.h"
#include "commands.h"
#include "embeddings.h"
#include "inputs.h"
#include "model.h"
#include "options.h"
#include "records.h"
#include "report.h"
#include "stream_options.h"
#include "text.h"

#define BATCH 16

struct embed {
    struct batch_settings settings;
    struct stream_options stream;
    const char *output;
    bool json;
    struct batch batch;
    struct records records;          /* with `json`, else */
    struct embeddings_writer writer; /* of a new matrix, or one that is gone on with, */
    struct done done;                /* and its names */
    char model[EMBEDDINGS_TEXT];
    struct stream_result result;
};

static void print_json(const struct embed *e, const char *name, const resnet_error *error, const float *embedding,
                       FILE *out) {
    struct report report = {.out = out}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "file", name);
    if (!embedding)
        report_text(r, "error", without_name(error->message, name));
    else
        report_floats(r, "embedding", embedding, e->batch.info.features);
    report_close(r, '}');
    putc('\n', out);
}

static bool skip(void *embed, const char *name) {
    struct embed *e = embed;
    return e->json ? records_take(&e->records, name) : done_take(&e->done, name);
}

/* Before the file is read, so that what changes from then on shows. Without a name in the table nobody could tell whose
 * a row is: such an image counts as failed. */
static void begin(void *embed, struct stream_item *item) {
    const struct embed *e = embed;
    if (e->json || item->error.status != RESNET_OK)
        return;
    embeddings_stamp(item->input.kind == INPUT_FILE ? item->input.name : "", item->note);
    if (embeddings_can_name(item->input.name))
        return;
    item->error.status = RESNET_ERROR_IO;
    snprintf(item->error.message, sizeof item->error.message,
             "a table of names cannot hold this one: it has a tab or a line feed, or more than 4096 bytes");
}

/* JSON, or the row of the matrix. */
static void describe(void *embed, const struct stream_item *item, const float *values, FILE *out) {
    const struct embed *e = embed;
    if (e->json)
        print_json(e, item->input.name, &item->error, values, out);
    else if (values)
        fwrite(values, sizeof *values, e->batch.info.features, out);
}

static void write_record(void *embed, const struct stream_item *item) {
    struct embed *e = embed;
    struct embedded row = {.file = item->input.name};
    if (e->json)
        records_write(&e->records, item->record, item->record_size);
    else if (item->error.status == RESNET_OK) {
        memcpy(row.stamp, item->note, sizeof row.stamp);
        memcpy(row.model, e->model, sizeof row.model);
        embeddings_add(&e->writer, &row, (const float *)(const void *)item->record);
    }
}

static bool flush_records(void *embed) {
    struct embed *e = embed;
    return e->json ? records_flush(&e->records) : embeddings_flush(&e->writer);
}

/* A new matrix is whole or not at all; what a stream has written so far is kept. */
static int close_matrix(struct embed *e, int code) {
    bool is_cut_off = code != EXIT_FINE && code != EXIT_INPUTS;
    if (e->output && is_cut_off) {
        complain("%s: not written (what --resume writes is kept)", e->output);
        embeddings_abandon(&e->writer);
    } else if (!embeddings_commit(&e->writer) && !is_cut_off)
        code = EXIT_IO;
    done_free(&e->done);
    return code;
}

static bool open_output(struct embed *e) {
    uint32_t features = e->batch.info.features;
    if (e->json)
        return records_open(&e->records, e->stream.resume, "embedding");
    if (!embeddings_model(&e->batch, e->model))
        return false;
    if (e->output)
        return embeddings_create(&e->writer, e->output, features);
    return embeddings_continue(&e->writer, e->stream.resume, features, e->model, &e->done);
}

static int embed(struct embed *e, struct inputs *inputs) {
    const struct stream_job job = {.context = e,
                                   .embedding = true,
                                   .skip = skip,
                                   .begin = begin,
                                   .describe = describe,
                                   .write = write_record,
                                   .flush = flush_records};
    struct stream_result result;
    if (!open_output(e)) {
        done_free(&e->done);
        return EXIT_IO;
    }
    struct stream_plan plan = stream_options_plan(&e->stream, &e->batch, inputs, e->settings.threads);
    plan.done = e->json ? e->records.done.count : e->done.count;
    int code = stream_run(&plan, &job, &result);
    return e->json ? records_close(&e->records, code) : close_matrix(e, code);
}

static bool ends_in_npy(const char *name) {
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".npy") == 0;
}

/* Exactly one way out: GO_ON, or the code to exit with after a complaint. */
static int check_output(const struct command *self, const struct embed *e) {
    const char *resume = e->stream.resume;
    if (resume && (e->output || e->json == ends_in_npy(resume)))
        return usage_error(self, "--resume takes FILE.npy, or another FILE with --json, and no --output", "");
    if (!resume && !e->output == !e->json)
        return usage_error(self, "exactly one of --output, --json and --resume FILE.npy is needed", "");
    return GO_ON;
}

static int run(const struct command *self, int argc, char **argv) {
    struct embed e = {.settings = {.resize = RESIZE_AS_MODEL}, .stream = STREAM_DEFAULTS};
    const struct option options[] = {
        option_text("output", "FILE", "the matrix to write, or -o FILE: FILE.npy, and FILE.tsv beside it", &e.output),
        option_json(&e.json),
        STREAM_OPTIONS(e.stream),
        option_model(&e.settings.model),
        option_resize(&e.settings.resize),
        option_threads(&e.settings.threads),
        option_isa(&e.settings.isa),
        option_precision(&e.settings.precision),
        {0},
    };
    struct inputs inputs;
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON || (code = stream_options_check(self, &e.stream, argc, argv)) != GO_ON ||
        (code = check_output(self, &e)) != GO_ON)
        return code;
    e.settings.size = argc == 1 ? 1 : BATCH;
    code = inputs_open(&inputs, argv, argc, &e.stream.inputs) ? EXIT_FINE : EXIT_IO;
    if (code == EXIT_FINE)
        code = stream_options_open(&e.stream, argc, &e.batch, &e.settings);
    if (code == EXIT_FINE)
        code = embed(&e, &inputs);
    batch_close(&e.batch);
    inputs_close(&inputs);
    return code;
}

const struct command command_embed = {
    .name = "embed",
    .operands = " IMAGE... (-o FILE.npy | --json)",
    .summary = "Turn images into embeddings: vectors that are near for images that are alike.",
    .notes = "FILE.npy is a NumPy array [images][features] of f32, what the network computes before its\n"
             "classifier. Line i of FILE.tsv, after the line with the columns' names, tells which image row i\n"
             "is: images that cannot be read are told on stderr, and have no row. With --json, a line of\n"
             "JSON for each image: \"file\", and \"embedding\" or \"error\".\n" STREAM_NOTES,
    .run = run,
};
