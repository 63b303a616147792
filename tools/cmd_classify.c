/* cmd_classify.c - resnet classify: say what is on images. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "batch.h"
#include "commands.h"
#include "inputs.h"
#include "model.h"
#include "options.h"
#include "progress.h"
#include "report.h"
#include "system.h"
#include "text.h"

#define AT_ONCE     4  /* images decoded and run together: more would only delay the first answer */
#define FEW_CLASSES 20 /* so few are told, for a network that knows little must choose one of them */
#define BAR_WIDTH   24
#define LINE_WIDTH  80

struct classify {
    struct batch_settings settings;
    const char *files_from;
    uint32_t top;
    bool json, logits;
    struct batch batch;
    float *scores;    /* [classes] */
    uint32_t *ranked; /* [top] class indices, best first */
    struct progress progress;
    size_t done, failed;
};

/* A bar in eighths of a column, then spaces up to its full width. */
static void print_bar(double share) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int filled = (int)(share * BAR_WIDTH * 8 + 0.5);
    for (int i = 0; i < filled / 8; i++)
        fputs("█", stdout);
    printf("%s%*s", eighths[filled % 8], BAR_WIDTH - (filled + 7) / 8, "");
}

static void print_for_people(const struct classify *c, const struct picture *picture, uint32_t top) {
    bool colour = takes_colour(stdout);
    fputs(colour ? "\033[1m" : "", stdout);
    print_clean(stdout, picture->path);
    puts(colour ? "\033[0m" : "");
    for (uint32_t i = 0; i < top; i++) {
        char buffer[32];
        double score = (double)c->scores[c->ranked[i]];
        printf("  %6.2f %%  %s", 100 * score, colour ? (i ? "\033[2m" : "\033[32m") : "");
        print_bar(score > 0 ? score : 0); /* a NaN has no bar */
        printf("%s  ", colour ? "\033[0m" : "");
        print_clean(stdout, class_name(c->batch.model, c->ranked[i], buffer));
        putchar('\n');
    }
}

static void print_json(const struct classify *c, const struct picture *picture, uint32_t top, const float *logits) {
    struct report report = {0}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "file", picture->path);
    if (picture->error.status != RESNET_OK)
        report_text(r, "error", without_name(picture->error.message, picture->path));
    else {
        report_open(r, "top", '[');
        for (uint32_t i = 0; i < top; i++) {
            report_open(r, NULL, '{');
            report_integer(r, "index", c->ranked[i]);
            report_text(r, "label", resnet_model_label(c->batch.model, c->ranked[i]));
            report_number(r, "score", (double)c->scores[c->ranked[i]]);
            report_close(r, '}');
        }
        report_close(r, ']');
        if (c->logits)
            report_floats(r, "logits", logits, c->batch.info.config.classes);
    }
    report_close(r, '}');
    putchar('\n');
}

static void answer(struct classify *c, uint32_t slot) {
    const struct picture *picture = &c->batch.pictures[slot];
    uint32_t classes = c->batch.info.config.classes, top = 0;
    const float *logits = c->batch.logits + (size_t)slot * classes;
    bool good = picture->error.status == RESNET_OK;
    c->done++;
    if (good) {
        memcpy(c->scores, logits, classes * sizeof *logits);
        resnet_softmax(c->scores, classes);
        top = resnet_top_k(logits, classes, c->top, c->ranked);
    } else {
        c->failed++;
        progress_clear(&c->progress);
        library_failure(picture->path, &picture->error);
    }
    if (c->json)
        print_json(c, picture, top, logits);
    else if (good)
        print_for_people(c, picture, top);
}

static int classify_all(struct classify *c, struct inputs *inputs) {
    progress_start(&c->progress, inputs->listed ? 0 : (size_t)inputs->count);
    c->progress.shown = c->progress.shown && !isatty(fileno(stdout)); /* there the answers show it */
    while (batch_fill(&c->batch, inputs)) {
        batch_run(&c->batch);
        for (uint32_t i = 0; i < c->batch.count; i++)
            answer(c, i);
        progress_add(&c->progress, c->batch.count);
        if (!flush_output())
            break;
    }
    progress_clear(&c->progress);
    return inputs->listed && inputs->lines.failed ? EXIT_IO : c->failed ? EXIT_INPUTS : EXIT_FINE;
}

/* Columns, roughly: the bytes that start a character. */
static int columns(const char *s) {
    int n = 0;
    for (; *s; s++)
        n += (*s & 0xc0) != 0x80;
    return n;
}

static void print_known_classes(const struct classify *c) {
    uint32_t classes = c->batch.info.config.classes;
    int column = printf("This model knows only:");
    for (uint32_t i = 0; i < classes; i++) {
        char buffer[32];
        const char *name = class_name(c->batch.model, i, buffer);
        if (column + 2 + columns(name) > LINE_WIDTH)
            column = printf("\n ") - 1;
        putchar(' ');
        print_clean(stdout, name);
        putchar(i + 1 < classes ? ',' : '\n');
        column += 2 + columns(name);
    }
}

static int classify(struct classify *c, struct inputs *inputs) {
    int code = batch_open(&c->batch, &c->settings);
    if (code == EXIT_FINE) {
        c->scores = allocate(c->batch.info.config.classes, sizeof *c->scores);
        c->ranked = allocate(c->top, sizeof *c->ranked);
        code = classify_all(c, inputs);
        if (!c->json && c->done > c->failed && c->batch.info.config.classes <= FEW_CLASSES)
            print_known_classes(c);
        free(c->scores);
        free(c->ranked);
    }
    batch_close(&c->batch);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct classify c = {.top = 5, .settings = {.resize = RESIZE_AS_MODEL}};
    const struct option options[] = {
        option_model(&c.settings.model),
        option_count("top", "classes to show (5)", &c.top, 1, 1 << 20),
        option_json(&c.json),
        option_switch("logits", "with --json: also the scores of all classes before softmax", &c.logits),
        option_text("files-from", "FILE", "also the images that this file lists, a path a line (-: stdin)",
                    &c.files_from),
        option_resize(&c.settings.resize),
        option_threads(&c.settings.threads),
        option_isa(&c.settings.isa),
        option_precision(&c.settings.precision),
        {0},
    };
    struct inputs inputs;
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc == 0 && !c.files_from)
        return usage_error(self, "no image is named", "");
    if (c.logits && !c.json)
        return usage_error(self, "--logits needs --json", "");
    if (inputs_stdin_uses(c.files_from, argc, argv) > 1)
        return usage_error(self, "stdin can be read only once", "");
    if (!inputs_open(&inputs, argv, argc, c.files_from))
        return EXIT_IO;
    c.settings.size = argc == 1 && !c.files_from ? 1 : AT_ONCE;
    code = classify(&c, &inputs);
    inputs_close(&inputs);
    return code;
}

const struct command command_classify = {
    .name = "classify",
    .operands = " IMAGE...",
    .summary = "Say what is on images: JPEG, PNG or BMP files, or - for one on stdin.",
    .notes = "With --json, a line of JSON for each image: \"file\", and \"top\" or \"error\".\n"
             "Exit code: 0 all done, 1 some images failed, 2 usage, 3 model, 4 input or output.",
    .run = run,
};
