/* cmd_inspect.c - resnet inspect: say what network a model file holds and what is odd about it, or what else a file is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "container.h"
#include "model.h"
#include "oddities.h"
#include "options.h"
#include "report.h"
#include "system.h"
#include "text.h"

struct inspection {
    const char *path;
    bool json, layers;
    resnet_model *model;
    resnet_model_info about;
    size_t session; /* bytes, for one image */
    struct oddities odd;
    struct report report;
    int code; /* to exit with */
};

static void report_config(struct report *r, const resnet_config *c) {
    static const char *const stems[] = {"7x7", "deep", "tiered", "cifar"};
    static const char *const shortcuts[] = {"projection", "average pool", "zeros"};
    static const char *const heads[] = {"softmax", "sigmoid", NULL};
    float blocks[RESNET_MAX_STAGES];
    uint32_t stages = 0;
    bool basic = c->block == RESNET_BLOCK_BASIC;
    for (; stages < RESNET_MAX_STAGES && c->blocks[stages]; stages++)
        blocks[stages] = (float)c->blocks[stages];
    report_text(r, "block", basic ? "basic" : "bottleneck");
    report_floats(r, "blocks", blocks, stages);
    report_integer(r, "base_width", c->base_width);
    report_integer(r, "groups", c->groups);
    report_integer(r, "width_per_group", c->width_per_group);
    report_text(r, "stride_in", basic ? NULL : c->stride_at == RESNET_STRIDE_AT_3X3 ? "3x3" : "1x1");
    report_text(r, "stem", stems[c->stem]);
    report_text(r, "shortcut", shortcuts[c->shortcut]);
    report_text(r, "attention", c->attention == RESNET_ATTENTION_SE ? "squeeze-and-excitation" : NULL);
    report_integer(r, "output_stride", c->output_stride);
    report_integer(r, "in_channels", c->in_channels);
    report_integer(r, "height", c->height);
    report_integer(r, "width", c->width);
    report_text(r, "head", heads[c->head]);
    report_text(r, "precision", resnet_precision_name(c->precision));
}

static void report_preprocess(struct report *r, const resnet_preprocess *preprocess, uint32_t channels) {
    report_open(r, "preprocess", '{');
    report_integer(r, "resize", preprocess->resize);
    report_text(r, "interpolation", preprocess->interpolation == RESNET_BICUBIC ? "bicubic" : "bilinear");
    report_floats(r, "mean", preprocess->mean, channels);
    report_floats(r, "std", preprocess->std, channels);
    report_close(r, '}');
}

/* All for a program, the first and the last for people. */
static void report_labels(struct report *r, const resnet_model *model, uint32_t classes) {
    report_integer(r, "classes", classes);
    if (r->people) {
        report_text(r, "first_class", resnet_model_label(model, 0));
        report_text(r, "last_class", resnet_model_label(model, classes - 1));
        return;
    }
    report_open(r, "labels", '[');
    for (uint32_t i = 0; resnet_model_label(model, i); i++)
        report_text(r, NULL, resnet_model_label(model, i));
    report_close(r, ']');
}

/* For people, a line each. */
static void report_oddities(struct report *r, const struct oddities *odd) {
    if (r->people && !odd->count)
        report_text(r, "odd", "nothing");
    report_open(r, "odd", '[');
    for (uint32_t i = 0; i < odd->count; i++)
        report_text(r, r->people ? "odd" : NULL, odd->text[i]);
    report_close(r, ']');
}

static void report_layer(struct report *r, const resnet_layer *l) {
    if (r->people) {
        printf("%-21s %-7s %5" PRIu32 " %5" PRIu32 " %2" PRIu32 "/%" PRIu32 " %4" PRIu32 "x%-4" PRIu32 " %8.2f %s%s\n",
               l->name, l->kind, l->in_channels, l->out_channels, l->kernel, l->stride, l->out_height, l->out_width,
               (double)l->macs / 1e6, l->residual ? "add " : "", l->relu ? "relu" : "");
        return;
    }
    report_open(r, NULL, '{');
    report_text(r, "name", l->name);
    report_text(r, "kind", l->kind);
    report_integer(r, "in_channels", l->in_channels);
    report_integer(r, "out_channels", l->out_channels);
    report_integer(r, "kernel", l->kernel);
    report_integer(r, "stride", l->stride);
    report_integer(r, "out_height", l->out_height);
    report_integer(r, "out_width", l->out_width);
    report_integer(r, "residual", (uint64_t)l->residual);
    report_integer(r, "relu", (uint64_t)l->relu);
    report_integer(r, "parameters", l->parameters);
    report_integer(r, "macs", l->macs);
    report_close(r, '}');
}

static void report_layers(struct inspection *in) {
    resnet_layer layer;
    resnet_error error;
    if (in->report.people)
        printf("\n%-21s %-7s %5s %5s %4s %9s %8s then\n", "layer", "kind", "in", "out", "size", "map", "MMAC");
    report_open(&in->report, "layers", '[');
    for (uint32_t i = 0; i < in->about.layers && in->code == EXIT_FINE; i++)
        if (resnet_model_layer(in->model, i, 0, 0, &layer, &error) == RESNET_OK)
            report_layer(&in->report, &layer);
        else
            in->code = library_failure(in->path, &error);
    report_close(&in->report, ']');
}

static void report_all(struct inspection *in) {
    struct report *r = &in->report;
    const resnet_model_info *about = &in->about;
    report_open(r, NULL, '{');
    report_text(r, "file", in->path);
    report_text(r, "architecture", about->architecture);
    report_config(r, &about->config);
    report_integer(r, "parameters", about->parameters);
    report_integer(r, "macs", about->macs);
    report_preprocess(r, &about->preprocess, about->config.in_channels);
    report_labels(r, in->model, about->config.classes);
    report_text(r, "isa", resnet_isa_name(about->isa));
    report_integer(r, "model_bytes", about->memory);
    report_integer(r, "session_bytes", in->session);
    report_oddities(r, &in->odd);
    if (in->layers)
        report_layers(in);
    report_close(r, '}');
    if (!r->people)
        putchar('\n');
}

static int inspect_model(struct inspection *in) {
    resnet_error error;
    in->code = model_open(&in->path, NULL, &in->model);
    if (in->code != EXIT_FINE)
        return in->code;
    in->about = resnet_model_describe(in->model);
    if (resnet_session_memory(in->model, NULL, &in->session, &error) == RESNET_OK &&
        oddities_find(&in->odd, in->model, in->path, &error) == RESNET_OK)
        report_all(in);
    else
        in->code = library_failure(in->path, &error);
    resnet_model_free(in->model);
    return in->code;
}

/* `before`, the file as a shell takes it whatever its name, and `behind`. */
static void report_shell_command(struct inspection *in, const char *key, const char *before, const char *behind) {
    char *line = allocate(strlen(before) + 4 * strlen(in->path) + strlen(behind) + 3, 1), *to = line;
    to += sprintf(to, "%s'", before);
    for (const char *from = in->path; *from; from++)
        to += *from == '\'' ? sprintf(to, "'\\''") : sprintf(to, "%c", *from);
    sprintf(to, "'%s", behind);
    report_text(&in->report, key, line);
    free(line);
}

/* The converter knows checkpoints; a second reader here could only say something else. */
static void report_checkpoint(struct inspection *in, const char *container) {
    struct report *r = &in->report;
    report_open(r, NULL, '{');
    report_text(r, "file", in->path);
    report_text(r, "container", container);
    report_shell_command(in, "what_it_holds", "python3 tools/convert.py --inspect ", "");
    report_shell_command(in, "to_make_a_model", "python3 tools/convert.py ", " -o MODEL.resnet");
    report_close(r, '}');
    if (!r->people)
        putchar('\n');
}

static int inspect(struct inspection *in) {
    const char *container = NULL;
    resnet_error error;
    if (in->path && container_of_file(in->path, &container, &error) != RESNET_OK)
        return library_failure(in->path, &error);
    if (!container)
        return inspect_model(in);
    report_checkpoint(in, container);
    return EXIT_FINE;
}

static int run(const struct command *self, int argc, char **argv) {
    struct inspection in = {0};
    const struct option options[] = {
        option_json(&in.json),
        option_switch("layers", "also the network's layers", &in.layers),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 1)
        return usage_error(self, "one file at a time: ", argv[1]);
    in.path = argc ? argv[0] : NULL;
    in.report.people = !in.json;
    return inspect(&in);
}

const struct command command_inspect = {
    .name = "inspect",
    .operands = " [MODEL|CHECKPOINT]",
    .summary = "Say what network a file holds, and what is odd about it; without a name, the default model.",
    .notes = "Of a checkpoint, it says which kind of file it is; tools/convert.py --inspect tells the rest.",
    .run = run,
};
