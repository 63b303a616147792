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
#include "records.h"
#include "report.h"
#include "stream_options.h"
#include "system.h"
#include "text.h"

#define AT_ONCE     4  /* images decoded and run together: more would only delay the first answer */
#define FEW_CLASSES 20 /* so few are told, for a network that knows little must choose one of them */
#define BAR_WIDTH   24
#define LINE_WIDTH  80

struct classify {
    struct batch_settings settings;
    struct stream_options stream;
    uint32_t top;
    bool json, logits;
    struct batch batch;
    struct records records;
};

/* What a network says about an image. */
struct answer {
    const char *name;
    const resnet_error *error;
    const float *logits; /* [classes] */
    float *scores;       /* [classes] */
    uint32_t *ranked;    /* [top] class indices, best first */
    uint32_t top;
};

/* A bar in eighths of a column, then spaces up to its full width. */
static void print_bar(FILE *out, double share) {
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int filled = (int)(share * BAR_WIDTH * 8 + 0.5);
    for (int i = 0; i < filled / 8; i++)
        fputs("█", out);
    fprintf(out, "%s%*s", eighths[filled % 8], BAR_WIDTH - (filled + 7) / 8, "");
}

static void print_for_people(const struct classify *c, const struct answer *answer, FILE *out) {
    bool colour = takes_colour(stdout);
    fputs(colour ? "\033[1m" : "", out);
    print_clean(out, answer->name);
    fputs(colour ? "\033[0m\n" : "\n", out);
    for (uint32_t i = 0; i < answer->top; i++) {
        char buffer[32];
        double score = (double)answer->scores[answer->ranked[i]];
        fprintf(out, "  %6.2f %%  %s", 100 * score, colour ? (i ? "\033[2m" : "\033[32m") : "");
        print_bar(out, score > 0 ? score : 0); /* a NaN has no bar */
        fprintf(out, "%s  ", colour ? "\033[0m" : "");
        print_clean(out, class_name(c->batch.model, answer->ranked[i], buffer));
        putc('\n', out);
    }
}

static void print_json(const struct classify *c, const struct answer *answer, FILE *out) {
    struct report report = {.out = out}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "file", answer->name);
    if (!answer->logits)
        report_text(r, "error", without_name(answer->error->message, answer->name));
    else {
        report_open(r, "top", '[');
        for (uint32_t i = 0; i < answer->top; i++) {
            report_open(r, NULL, '{');
            report_integer(r, "index", answer->ranked[i]);
            report_text(r, "label", resnet_model_label(c->batch.model, answer->ranked[i]));
            report_number(r, "score", (double)answer->scores[answer->ranked[i]]);
            report_close(r, '}');
        }
        report_close(r, ']');
        if (c->logits)
            report_floats(r, "logits", answer->logits, c->batch.info.config.classes);
    }
    report_close(r, '}');
    putc('\n', out);
}

/* Write the answer for an image whose name, error and logits are there; these are NULL where it failed. */
static void print_answer(const struct classify *c, struct answer *answer, FILE *out) {
    uint32_t classes = c->batch.info.config.classes, most = c->top < classes ? c->top : classes;
    if (answer->logits) {
        answer->scores = allocate(classes, sizeof *answer->scores);
        answer->ranked = allocate(most, sizeof *answer->ranked);
        memcpy(answer->scores, answer->logits, classes * sizeof *answer->scores);
        resnet_softmax(answer->scores, classes);
        answer->top = resnet_top_k(answer->logits, classes, most, answer->ranked);
    }
    if (c->json)
        print_json(c, answer, out);
    else if (answer->logits)
        print_for_people(c, answer, out);
    free(answer->scores);
    free(answer->ranked);
}

static bool skip(void *classify, const char *name) {
    return records_take(&((struct classify *)classify)->records, name);
}

static void describe(void *classify, const struct stream_item *item, const float *values, FILE *out) {
    struct answer answer = {.name = item->input.name, .error = &item->error, .logits = values};
    print_answer(classify, &answer, out);
}

static void write_record(void *classify, const struct stream_item *item) {
    records_write(&((struct classify *)classify)->records, item->record, item->record_size);
}

static bool flush_records(void *classify) {
    return records_flush(&((struct classify *)classify)->records);
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
    const struct stream_job job = {
        .context = c, .skip = skip, .describe = describe, .write = write_record, .flush = flush_records};
    struct stream_result result = {0};
    if (!records_open(&c->records, c->stream.resume, "top"))
        return EXIT_IO;
    struct stream_plan plan = stream_options_plan(&c->stream, &c->batch, inputs, c->settings.threads);
    plan.done = c->records.done.count;
    plan.quiet = !c->stream.resume && isatty(STDOUT_FILENO); /* there the answers show it */
    int code = stream_run(&plan, &job, &result);
    if (!c->json && result.images > result.failed && c->batch.info.config.classes <= FEW_CLASSES)
        print_known_classes(c);
    return records_close(&c->records, code);
}

static int run(const struct command *self, int argc, char **argv) {
    struct classify c = {.top = 5, .settings = {.resize = RESIZE_AS_MODEL}, .stream = STREAM_DEFAULTS};
    const struct option options[] = {
        option_model(&c.settings.model),
        option_count("top", "classes to show (5)", &c.top, 1, 1 << 20),
        option_json(&c.json),
        option_switch("logits", "with --json: also the scores of all classes before softmax", &c.logits),
        STREAM_OPTIONS(c.stream),
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
    if ((code = stream_options_check(self, &c.stream, argc, argv)) != GO_ON)
        return code;
    if ((c.logits || c.stream.resume) && !c.json)
        return usage_error(self, c.logits ? "--logits needs --json" : "--resume needs --json", "");
    c.settings.size = argc == 1 ? 1 : AT_ONCE;
    code = inputs_open(&inputs, argv, argc, &c.stream.inputs) ? EXIT_FINE : EXIT_IO;
    if (code == EXIT_FINE)
        code = stream_options_open(&c.stream, argc, &c.batch, &c.settings);
    if (code == EXIT_FINE)
        code = classify(&c, &inputs);
    batch_close(&c.batch);
    inputs_close(&inputs);
    return code;
}

const struct command command_classify = {
    .name = "classify",
    .operands = " IMAGE...",
    .summary = "Say what is on images: JPEG, PNG or BMP files, or - for one on stdin.",
    .notes = "With --json, a line of JSON for each image: \"file\", and \"top\" or \"error\".\n" STREAM_NOTES
             "\nExit code: 0 all done, 1 some images failed, 2 usage, 3 model, 4 input or output.",
    .run = run,
};
