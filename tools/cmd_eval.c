/* cmd_eval.c - resnet eval: count how often a model is right on a labelled set of images. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "commands.h"
#include "interval.h"
#include "labelled.h"
#include "model.h"
#include "options.h"
#include "progress.h"
#include "report.h"
#include "system.h"
#include "text.h"

#define BATCH           16
#define TOP             5
#define FEW_CLASSES     20 /* so few have their whole confusion matrix shown */
#define MOST_CONFUSIONS 10

/* How often class `truth` was taken for class `guess`. */
struct confusion {
    uint32_t truth, guess;
    size_t count;
};

struct eval {
    struct batch_settings settings;
    const char *table, *folders;
    bool json;
    struct batch batch;
    struct labelled set;
    size_t answered, failed, top1, top5;
    struct confusion *confusions; /* one an image that was answered; after merge, one a pair, most frequent first */
    size_t pairs;
    double seconds;
};

static void judge(struct eval *e, const struct picture *picture, const float *logits) {
    uint32_t best[TOP], count = resnet_top_k(logits, e->batch.info.config.classes, TOP, best);
    for (uint32_t i = 0; i < count; i++)
        e->top5 += best[i] == picture->truth;
    e->top1 += best[0] == picture->truth;
    e->confusions[e->answered++] = (struct confusion){picture->truth, best[0], 1};
}

static void judge_batch(struct eval *e, struct progress *progress) {
    for (uint32_t i = 0; i < e->batch.count; i++) {
        const struct picture *picture = &e->batch.pictures[i];
        if (picture->error.status == RESNET_OK)
            judge(e, picture, e->batch.logits + (size_t)i * e->batch.info.config.classes);
        else {
            e->failed++;
            progress_clear(progress);
            library_failure(picture->path, &picture->error);
        }
    }
    progress_add(progress, e->batch.count);
}

static void classify_set(struct eval *e) {
    struct progress progress;
    double start = now();
    e->confusions = allocate(e->set.count, sizeof *e->confusions);
    progress_start(&progress, e->set.count);
    for (size_t i = 0; i < e->set.count;) {
        batch_clear(&e->batch);
        for (; i < e->set.count && e->batch.count < e->batch.size; i++)
            batch_add(&e->batch,
                      (struct picture){.path = copy_text(e->set.images[i].path), .truth = e->set.images[i].class});
        batch_run(&e->batch);
        judge_batch(e, &progress);
    }
    progress_clear(&progress);
    e->seconds = now() - start;
}

static int by_pair(const void *a_, const void *b_) {
    const struct confusion *a = a_, *b = b_;
    int truth = (a->truth > b->truth) - (a->truth < b->truth);
    return truth ? truth : (a->guess > b->guess) - (a->guess < b->guess);
}

/* Confusions first, the most frequent in front; then what was right. */
static int by_count(const void *a_, const void *b_) {
    const struct confusion *a = a_, *b = b_;
    int right = (a->truth == a->guess) - (b->truth == b->guess), count = (a->count < b->count) - (a->count > b->count);
    return right ? right : count ? count : by_pair(a, b);
}

/* From one entry an image to one a pair of classes. */
static void merge_confusions(struct eval *e) {
    struct confusion *c = e->confusions;
    qsort(c, e->answered, sizeof *c, by_pair);
    for (size_t i = 0; i < e->answered; i++)
        if (e->pairs && by_pair(&c[i], &c[e->pairs - 1]) == 0)
            c[e->pairs - 1].count++;
        else
            c[e->pairs++] = c[i];
    qsort(c, e->pairs, sizeof *c, by_count);
}

static size_t count_pair(const struct eval *e, uint32_t truth, uint32_t guess) {
    for (size_t i = 0; i < e->pairs; i++)
        if (e->confusions[i].truth == truth && e->confusions[i].guess == guess)
            return e->confusions[i].count;
    return 0;
}

static void report_confusion(struct report *r, const struct eval *e, const struct confusion *c) {
    char buffers[2][32];
    const char *truth = class_name(e->batch.model, c->truth, buffers[0]);
    const char *guess = class_name(e->batch.model, c->guess, buffers[1]);
    if (r->people) {
        printf("%7zu  ", c->count);
        print_clean(stdout, truth);
        fputs(", taken for ", stdout);
        print_clean(stdout, guess);
        putchar('\n');
        return;
    }
    report_open(r, NULL, '{');
    report_integer(r, "class", c->truth);
    report_text(r, "label", truth);
    report_integer(r, "taken_for", c->guess);
    report_text(r, "taken_for_label", guess);
    report_integer(r, "count", c->count);
    report_close(r, '}');
}

static void report_confusions(struct report *r, const struct eval *e) {
    if (r->people && e->top1 < e->answered)
        puts("\nmost frequent confusions");
    report_open(r, "confusions", '[');
    for (size_t i = 0; i < e->pairs && i < MOST_CONFUSIONS && e->confusions[i].truth != e->confusions[i].guess; i++)
        report_confusion(r, e, &e->confusions[i]);
    report_close(r, ']');
}

/* A row a true class, a column a guess; for people, each row with its label. */
static void report_matrix(struct report *r, const struct eval *e) {
    uint32_t classes = e->batch.info.config.classes;
    if (r->people)
        puts("\nconfusion matrix: a row a class, a column what it was taken for, in the same order");
    report_open(r, "confusion_matrix", '[');
    for (uint32_t truth = 0; truth < classes; truth++) {
        float row[FEW_CLASSES];
        char buffer[32];
        for (uint32_t guess = 0; guess < classes; guess++)
            row[guess] = (float)count_pair(e, truth, guess);
        if (r->people) {
            for (uint32_t guess = 0; guess < classes; guess++)
                printf("%5.0f", (double)row[guess]);
            fputs("  ", stdout);
            print_clean(stdout, class_name(e->batch.model, truth, buffer));
            putchar('\n');
        } else
            report_floats(r, NULL, row, classes);
    }
    report_close(r, ']');
}

static void report_all(const struct eval *e) {
    struct report report = {.people = !e->json}, *r = &report;
    double n = (double)e->answered;
    float interval[2];
    wilson(e->top1, e->answered, interval);
    report_open(r, NULL, '{');
    report_integer(r, "images", e->answered);
    report_integer(r, "failed", e->failed);
    report_integer(r, "top1_correct", e->top1);
    report_integer(r, "top5_correct", e->top5);
    report_number(r, "top1", (double)e->top1 / n);
    report_floats(r, "top1_interval", interval, 2);
    report_number(r, "top5", (double)e->top5 / n);
    report_number(r, "seconds", e->seconds);
    report_number(r, "images_per_second", (n + (double)e->failed) / e->seconds);
    if (e->batch.info.config.classes <= FEW_CLASSES)
        report_matrix(r, e);
    report_confusions(r, e);
    report_close(r, '}');
    if (e->json)
        putchar('\n');
}

static int eval(struct eval *e) {
    int code = batch_open(&e->batch, &e->settings);
    if (code == EXIT_FINE && !(e->table ? labelled_from_table(&e->set, e->table, e->batch.info.config.classes)
                                        : labelled_from_folders(&e->set, e->folders, e->batch.model)))
        code = EXIT_IO;
    if (code == EXIT_FINE) {
        classify_set(e);
        merge_confusions(e);
        report_all(e);
        code = e->failed ? EXIT_INPUTS : EXIT_FINE;
    }
    free(e->confusions);
    labelled_free(&e->set);
    batch_close(&e->batch);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct eval e = {.settings = {.resize = RESIZE_AS_MODEL, .size = BATCH}};
    const struct option options[] = {
        option_model(&e.settings.model),
        option_text("labels-tsv", "FILE", "lines of file, tab, class index; files relative to FILE", &e.table),
        option_text("folders", "DIR", "a folder for each class, named as it or in class order", &e.folders),
        option_resize(&e.settings.resize),
        option_count("batch", "images a run (16)", &e.settings.size, 1, 1024),
        option_threads(&e.settings.threads),
        option_isa(&e.settings.isa),
        option_precision(&e.settings.precision),
        option_json(&e.json),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 0)
        return usage_error(self, "unexpected argument ", argv[0]);
    if (!e.table == !e.folders)
        return usage_error(self, "exactly one of --labels-tsv and --folders is needed", "");
    return eval(&e);
}

const struct command command_eval = {
    .name = "eval",
    .operands = " (--labels-tsv FILE | --folders DIR)",
    .summary = "Count how often a model is right on a labelled set of images.",
    .run = run,
};
