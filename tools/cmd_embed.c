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
#include "progress.h"
#include "report.h"
#include "system.h"
#include "text.h"

#define BATCH 16

struct embed {
    struct batch_settings settings;
    const char *files_from, *output;
    bool json;
    struct batch batch;
    float *embeddings; /* [batch.size][features] */
    struct embeddings_writer writer;
    struct embedded *rows; /* [batch.size]; the names are the pictures' */
    char model[EMBEDDINGS_TEXT];
    struct progress progress;
    size_t failed;
};

static void print_json(const struct embed *e, const struct picture *picture, const float *embedding) {
    struct report report = {0}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "file", picture->path);
    if (picture->error.status != RESNET_OK)
        report_text(r, "error", without_name(picture->error.message, picture->path));
    else
        report_floats(r, "embedding", embedding, e->batch.info.features);
    report_close(r, '}');
    putchar('\n');
}

/* Before the files are read: what changes from then on shows. */
static void note_rows(struct embed *e) {
    for (uint32_t i = 0; i < e->batch.count; i++) {
        const struct picture *picture = &e->batch.pictures[i];
        e->rows[i].file = picture->path;
        memcpy(e->rows[i].model, e->model, sizeof e->model);
        embeddings_stamp(picture->is_stdin ? "" : picture->path, e->rows[i].stamp);
    }
}

/* Without a name in the table nobody could tell whose a row is: so the image counts as failed. */
static void check_name(const struct embed *e, struct picture *picture) {
    if (picture->error.status != RESNET_OK || e->json || embeddings_can_name(picture->path))
        return;
    picture->error.status = RESNET_ERROR_IO;
    snprintf(picture->error.message, sizeof picture->error.message,
             "a table of names cannot hold this one: it has a tab or a line feed, or more than 4096 bytes");
}

static void answer(struct embed *e, uint32_t slot) {
    struct picture *picture = &e->batch.pictures[slot];
    const float *embedding = e->embeddings + (size_t)slot * e->batch.info.features;
    check_name(e, picture);
    if (picture->error.status != RESNET_OK) {
        e->failed++;
        progress_clear(&e->progress);
        library_failure(picture->path, &picture->error);
    }
    if (e->json)
        print_json(e, picture, embedding);
    else if (picture->error.status == RESNET_OK)
        embeddings_add(&e->writer, &e->rows[slot], embedding);
}

static int embed_all(struct embed *e, struct inputs *inputs) {
    const resnet_request request = {.embedding = e->embeddings};
    progress_start(&e->progress, inputs->listed ? 0 : (size_t)inputs->count);
    while (batch_fill(&e->batch, inputs)) {
        if (!e->json)
            note_rows(e);
        batch_request(&e->batch, &request);
        for (uint32_t i = 0; i < e->batch.count; i++)
            answer(e, i);
        progress_add(&e->progress, e->batch.count);
        if (!flush_output())
            break;
    }
    progress_clear(&e->progress);
    return inputs->listed && inputs->lines.failed ? EXIT_IO : e->failed ? EXIT_INPUTS : EXIT_FINE;
}

/* What was embedded is kept where some images failed, and not where the list of them did. */
static int embed_to_file(struct embed *e, struct inputs *inputs) {
    if (!embeddings_model(&e->batch, e->model) || !embeddings_create(&e->writer, e->output, e->batch.info.features))
        return EXIT_IO;
    int code = embed_all(e, inputs);
    if (code == EXIT_IO)
        embeddings_abandon(&e->writer);
    else if (!embeddings_commit(&e->writer))
        code = EXIT_IO;
    return code;
}

static int embed(struct embed *e, struct inputs *inputs) {
    int code = batch_open(&e->batch, &e->settings);
    if (code == EXIT_FINE) {
        e->embeddings = allocate((size_t)e->batch.size * e->batch.info.features, sizeof *e->embeddings);
        e->rows = allocate(e->batch.size, sizeof *e->rows);
        code = e->json ? embed_all(e, inputs) : embed_to_file(e, inputs);
        free(e->embeddings);
        free(e->rows);
    }
    batch_close(&e->batch);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct embed e = {.settings = {.resize = RESIZE_AS_MODEL}};
    const struct option options[] = {
        option_text("output", "FILE", "the matrix to write, or -o FILE: FILE.npy, and FILE.tsv beside it", &e.output),
        option_json(&e.json),
        option_text("files-from", "FILE", "also the images that this file lists, a path a line (-: stdin)",
                    &e.files_from),
        option_model(&e.settings.model),
        option_resize(&e.settings.resize),
        option_threads(&e.settings.threads),
        option_isa(&e.settings.isa),
        option_precision(&e.settings.precision),
        {0},
    };
    struct inputs inputs;
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc == 0 && !e.files_from)
        return usage_error(self, "no image is named", "");
    if (!e.output == !e.json)
        return usage_error(self, "exactly one of --output and --json is needed", "");
    if (inputs_stdin_uses(e.files_from, argc, argv) > 1)
        return usage_error(self, "stdin can be read only once", "");
    if (!inputs_open(&inputs, argv, argc, e.files_from))
        return EXIT_IO;
    e.settings.size = argc == 1 && !e.files_from ? 1 : BATCH;
    code = embed(&e, &inputs);
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
             "JSON for each image: \"file\", and \"embedding\" or \"error\".",
    .run = run,
};
