/* cmd_diff.c - resnet diff: find the first layer that departs from what another program computed. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "diff.h"
#include "model.h"
#include "options.h"
#include "report.h"
#include "text.h"

struct command_line {
    const char *model, *dump, *tolerance;
    resnet_load_options load;
    bool all, json;
};

/* ---- For people ---- */

static void print_layer(const struct layer_difference *layer) {
    static const char *const verdicts[] = {"not in the dump", "another shape in the dump", "departs", "agrees"};
    printf("%-21s ", layer->name);
    if (layer->state == LAYER_DEPARTS || layer->state == LAYER_AGREES)
        printf("%10.3g %10.3g %10.3g  ", layer->relative, layer->difference, layer->largest);
    else
        printf("%10s %10s %10s  ", "-", "-", "-");
    puts(verdicts[layer->state]);
}

static void print_table(const struct diff *diff) {
    printf("%-21s %10s %10s %10s\n", "layer", "relative", "difference", "largest");
    for (uint32_t i = 0; i < diff->count; i++)
        print_layer(&diff->layers[i]);
    putchar('\n');
}

static void print_first(const struct layer_difference *layer) {
    if (layer->state == LAYER_MISSHAPEN) {
        printf("%s departs: %" PRIu32 " x %" PRIu32 " x %" PRIu32 " here, %" PRIu32 " x %" PRIu32 " x %" PRIu32
               " in the dump (channels, height, width)\n",
               layer->name, layer->shape[0], layer->shape[1], layer->shape[2], layer->dumped[0], layer->dumped[1],
               layer->dumped[2]);
        return;
    }
    printf("%s departs: its differences are %.3g of its numbers (root mean squares)\n", layer->name, layer->relative);
    printf("  the largest is %.3g, at channel %" PRIu32 ", y %" PRIu32 ", x %" PRIu32
           ": %.9g here, %.9g in the dump, whose largest number is %.3g\n",
           layer->difference, layer->place[0], layer->place[1], layer->place[2], (double)layer->ours,
           (double)layer->theirs, layer->largest);
}

/* The worst of the first `count` layers. */
static double largest_relative(const struct diff *diff, uint32_t count) {
    double largest = 0;
    for (uint32_t i = 0; i < count; i++)
        if (diff->layers[i].state == LAYER_AGREES)
            largest = fmax(largest, diff->layers[i].relative);
    return largest;
}

static void print_all(const struct diff *diff, bool table) {
    if (table)
        print_table(diff);
    if (diff->first < diff->count)
        print_first(&diff->layers[diff->first]);
    else
        printf("%" PRIu32 " of %" PRIu32 " layers are in the dump, and agree\n", diff->compared, diff->count);
    if (diff->first)
        printf("  %sthe largest relative difference is %.2g, and the tolerance %g\n",
               diff->first < diff->count ? "before it, " : "", largest_relative(diff, diff->first), diff->tolerance);
    if (diff->unknown)
        printf("  %" PRIu32 " arrays of the dump are no layers of this network, the first: %s\n", diff->unknown,
               diff->unknown_name);
}

/* ---- For programs ---- */

static void report_triple(struct report *r, const char *key, const uint32_t numbers[3]) {
    report_floats(r, key, (float[]){(float)numbers[0], (float)numbers[1], (float)numbers[2]}, 3);
}

static void report_layer(struct report *r, const char *key, const struct layer_difference *layer) {
    static const char *const states[] = {"absent", "misshapen", "departs", "agrees"};
    report_open(r, key, '{');
    report_text(r, "name", layer->name);
    report_text(r, "state", states[layer->state]);
    if (layer->state != LAYER_ABSENT) {
        report_triple(r, "shape", layer->shape);
        report_triple(r, "dumped_shape", layer->dumped);
    }
    if (layer->state == LAYER_DEPARTS || layer->state == LAYER_AGREES) {
        report_number(r, "relative", layer->relative);
        report_number(r, "difference", layer->difference);
        report_number(r, "largest", layer->largest);
        report_triple(r, "place", layer->place);
        report_number(r, "ours", (double)layer->ours);
        report_number(r, "theirs", (double)layer->theirs);
    }
    report_close(r, '}');
}

static void report_all(const struct diff *diff, bool table) {
    struct report report = {0}, *r = &report;
    report_open(r, NULL, '{');
    report_number(r, "tolerance", diff->tolerance);
    report_integer(r, "layers", diff->count);
    report_integer(r, "compared", diff->compared);
    report_integer(r, "unknown", diff->unknown);
    if (diff->first < diff->count)
        report_layer(r, "first", &diff->layers[diff->first]);
    else
        report_text(r, "first", NULL);
    if (table) {
        report_open(r, "all", '[');
        for (uint32_t i = 0; i < diff->count; i++)
            report_layer(r, NULL, &diff->layers[i]);
        report_close(r, ']');
    }
    report_close(r, '}');
    putchar('\n');
}

/* ---- Run ---- */

static bool parse_tolerance(const char *text, double *tolerance) {
    char *end;
    *tolerance = strtod(text, &end);
    return end > text && !*end && *tolerance >= 0 && *tolerance <= 1;
}

static int compare(const struct command_line *line, const resnet_model *model, double tolerance) {
    struct diff diff;
    resnet_error error;
    int code;
    if (diff_run(&diff, model, line->dump, tolerance, &error) != RESNET_OK) {
        code = library_failure(line->dump, &error);
    } else {
        (line->json ? report_all : print_all)(&diff, line->all);
        code = diff.first < diff.count ? EXIT_INPUTS : EXIT_FINE;
    }
    diff_free(&diff);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct command_line line = {0};
    const struct option options[] = {
        option_text("against", "DUMP.npz", "what another program computed", &line.dump),
        option_text("tolerance", "X", "the largest relative difference allowed (1e-4, bf16 0.1, int8 0.4)",
                    &line.tolerance),
        option_switch("all", "a table of all layers", &line.all),
        option_isa(&line.load.isa),
        option_precision(&line.load.precision),
        option_json(&line.json),
        {0},
    };
    resnet_model *model;
    double tolerance = 0;
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc != 1 || !line.dump)
        return usage_error(self, "one model and --against DUMP.npz are needed", "");
    if (line.tolerance && !parse_tolerance(line.tolerance, &tolerance))
        return usage_error(self, "--tolerance takes a number from 0 to 1, not ", line.tolerance);
    line.model = argv[0];
    code = model_open(&line.model, &line.load, &model);
    if (code != EXIT_FINE)
        return code;
    code = compare(&line, model, line.tolerance ? tolerance : diff_tolerance(model));
    resnet_model_free(model);
    return code;
}

const struct command command_diff = {
    .name = "diff",
    .operands = " MODEL --against DUMP.npz",
    .summary = "Find the first layer that departs from PyTorch's.",
    .notes = "tools/dump_torch.py makes the dump: an input, already normalised, and what each layer makes of\n"
             "it. Layers are compared by root mean squares: that of the differences, as a part of that of the\n"
             "numbers in the dump. Rounding alone makes some 5e-6 in f32, 0.04 in bf16, and 0.2 in int8. The\n"
             "exit code is 1 where a layer departs.",
    .run = run,
};
