/* cmd_similar.c - resnet similar: the images of a folder or a matrix that are most like others. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "batch.h"
#include "commands.h"
#include "gallery.h"
#include "inputs.h"
#include "model.h"
#include "options.h"
#include "png.h"
#include "report.h"
#include "sheet.h"
#include "system.h"
#include "text.h"

#define BATCH 16

struct similar {
    struct batch_settings settings;
    const char *in, *index, *output;
    uint32_t top;
    bool json;
    struct batch batch;
    struct gallery gallery;
    float *embeddings; /* [batch.size][features] of the images that are asked about */
    float *cosines;    /* [rows of the gallery] */
    uint32_t *nearest; /* [top] rows, the nearest first */
    struct sheet sheet;
    size_t failed;
};

static void print_for_people(const struct similar *s, const struct picture *picture, uint32_t count) {
    print_clean(stdout, picture->path);
    putchar('\n');
    for (uint32_t i = 0; i < count; i++) {
        printf("  %7.4f  ", (double)s->cosines[s->nearest[i]]);
        print_clean(stdout, s->gallery.set.rows[s->nearest[i]].file);
        putchar('\n');
    }
}

static void print_json(const struct similar *s, const struct picture *picture, uint32_t count) {
    struct report report = {0}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "file", picture->path);
    if (picture->error.status != RESNET_OK)
        report_text(r, "error", without_name(picture->error.message, picture->path));
    else {
        report_open(r, "nearest", '[');
        for (uint32_t i = 0; i < count; i++) {
            report_open(r, NULL, '{');
            report_text(r, "file", s->gallery.set.rows[s->nearest[i]].file);
            report_number(r, "cosine", (double)s->cosines[s->nearest[i]]);
            report_close(r, '}');
        }
        report_close(r, ']');
    }
    report_close(r, '}');
    putchar('\n');
}

/* A picture that has gone since it was embedded leaves its place grey. */
static void add_to_sheet(struct similar *s, const char *path) {
    resnet_error error;
    if (sheet_add(&s->sheet, path, &error) != RESNET_OK)
        library_failure(path, &error);
}

static void draw_row(struct similar *s, const struct picture *picture, uint32_t count) {
    sheet_begin_row(&s->sheet);
    add_to_sheet(s, picture->path);
    for (uint32_t i = 0; i < count; i++) {
        char *path = gallery_path(&s->gallery, s->nearest[i]);
        add_to_sheet(s, path);
        free(path);
    }
}

static void answer(struct similar *s, uint32_t slot) {
    const struct picture *picture = &s->batch.pictures[slot];
    bool good = picture->error.status == RESNET_OK;
    uint32_t count = 0;
    if (good) {
        gallery_compare(&s->gallery, s->embeddings + (size_t)slot * s->batch.info.features, s->cosines);
        count = resnet_top_k(s->cosines, s->gallery.set.count, s->top, s->nearest);
    } else {
        s->failed++;
        library_failure(picture->path, &picture->error);
    }
    if (s->json)
        print_json(s, picture, count);
    else if (good)
        print_for_people(s, picture, count);
    if (good && s->output)
        draw_row(s, picture, count);
}

static int answer_all(struct similar *s, struct inputs *inputs) {
    const resnet_request request = {.embedding = s->embeddings};
    while (batch_fill(&s->batch, inputs)) {
        batch_request(&s->batch, &request);
        for (uint32_t i = 0; i < s->batch.count; i++)
            answer(s, i);
        if (!flush_output())
            break;
    }
    return s->failed ? EXIT_INPUTS : EXIT_FINE;
}

/* As answer_all, with the sheet. */
static int answer_and_draw(struct similar *s, struct inputs *inputs) {
    resnet_error error;
    uint32_t shown = s->top < s->gallery.set.count ? s->top : s->gallery.set.count;
    if (sheet_create(&s->sheet, (uint32_t)inputs->count, shown + 1, &error) != RESNET_OK)
        return library_failure(s->output, &error);
    int code = answer_all(s, inputs);
    if (s->sheet.rows > 0) {
        sheet_finish(&s->sheet);
        code = png_write(s->output, &s->sheet.raster) ? code : EXIT_IO;
    }
    sheet_free(&s->sheet);
    return code;
}

static int search(struct similar *s, struct inputs *inputs) {
    s->embeddings = allocate((size_t)s->batch.size * s->batch.info.features, sizeof *s->embeddings);
    s->cosines = allocate(s->gallery.set.count, sizeof *s->cosines);
    s->nearest = allocate(s->top, sizeof *s->nearest);
    int code = s->output ? answer_and_draw(s, inputs) : answer_all(s, inputs);
    free(s->embeddings);
    free(s->cosines);
    free(s->nearest);
    return code;
}

static int open_gallery(struct similar *s) {
    struct stat status;
    if (stat(s->in, &status) == 0 && S_ISDIR(status.st_mode))
        return gallery_open_folder(&s->gallery, &s->batch, s->in, s->index);
    return gallery_open_matrix(&s->gallery, &s->batch, s->in);
}

static int similar(struct similar *s, struct inputs *inputs) {
    int code = batch_open(&s->batch, &s->settings);
    if (code == EXIT_FINE) {
        code = open_gallery(s);
        if (s->gallery.ready && s->gallery.set.count == 0) {
            complain("%s: there is no image to compare with", s->in);
            code = EXIT_INPUTS;
        } else if (s->gallery.ready) {
            int answered = search(s, inputs);
            code = answered > code ? answered : code;
        }
        gallery_close(&s->gallery);
    }
    batch_close(&s->batch);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct similar s = {.top = 5, .settings = {.resize = RESIZE_AS_MODEL, .size = BATCH}};
    const struct option options[] = {
        option_text("in", "PATH", "where to search: a folder, or FILE.npy that resnet embed wrote", &s.in),
        option_count("top", "images to show (5)", &s.top, 1, 1000),
        option_text("output", "FILE", "a PNG of them to write, or -o FILE: each image and those like it", &s.output),
        option_text("index", "FILE", "of a folder (FOLDER/.resnet-index.npy)", &s.index),
        option_json(&s.json),
        option_model(&s.settings.model),
        option_resize(&s.settings.resize),
        option_threads(&s.settings.threads),
        option_isa(&s.settings.isa),
        option_precision(&s.settings.precision),
        {0},
    };
    struct inputs inputs;
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc == 0)
        return usage_error(self, "no image is named", "");
    if (!s.in)
        return usage_error(self, "--in is needed", "");
    if (!inputs_open(&inputs, argv, argc, &(struct inputs_settings){0}))
        return EXIT_IO;
    code = similar(&s, &inputs);
    inputs_close(&inputs);
    return code;
}

const struct command command_similar = {
    .name = "similar",
    .operands = " IMAGE... --in FOLDER|FILE.npy",
    .summary = "Find the images that are most like these, by the cosine of their embeddings.",
    .notes = "In a folder, the .jpg, .jpeg, .png and .bmp files in it and in the folders in it are searched. Their\n"
             "embeddings are kept in its index, FILE.npy with FILE.tsv as resnet embed writes them; the next\n"
             "time, only images that are new or changed, or that another model embedded, are computed.",
    .run = run,
};
