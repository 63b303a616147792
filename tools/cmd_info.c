/* cmd_info.c - resnet info: say what network a model file holds. */
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "model.h"
#include "options.h"
#include "report.h"
#include "text.h"

struct info {
    const char *path;
    bool json, layers;
    resnet_model *model;
    resnet_model_info about;
    size_t session; /* bytes, for one image */
    struct report report;
};

static void report_config(struct report *r, const resnet_config *c) {
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
    report_integer(r, "in_channels", c->in_channels);
    report_integer(r, "height", c->height);
    report_integer(r, "width", c->width);
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

static void report_layers(struct info *info) {
    resnet_layer layer;
    if (info->report.people)
        printf("\n%-21s %-7s %5s %5s %4s %9s %8s then\n", "layer", "kind", "in", "out", "size", "map", "MMAC");
    report_open(&info->report, "layers", '[');
    for (uint32_t i = 0; resnet_model_layer(info->model, i, 0, 0, &layer, NULL) == RESNET_OK; i++)
        report_layer(&info->report, &layer);
    report_close(&info->report, ']');
}

static void report_all(struct info *info) {
    struct report *r = &info->report;
    const resnet_model_info *about = &info->about;
    report_open(r, NULL, '{');
    report_text(r, "file", info->path);
    report_text(r, "architecture", about->architecture);
    report_config(r, &about->config);
    report_integer(r, "parameters", about->parameters);
    report_integer(r, "macs", about->macs);
    report_preprocess(r, &about->preprocess, about->config.in_channels);
    report_labels(r, info->model, about->config.classes);
    report_text(r, "isa", resnet_isa_name(about->isa));
    report_integer(r, "model_bytes", about->memory);
    report_integer(r, "session_bytes", info->session);
    if (info->layers)
        report_layers(info);
    report_close(r, '}');
    if (!r->people)
        putchar('\n');
}

static int run(const struct command *self, int argc, char **argv) {
    struct info info = {0};
    const struct option options[] = {
        option_json(&info.json),
        option_switch("layers", "also the network's layers", &info.layers),
        {0},
    };
    resnet_error error;
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 1)
        return usage_error(self, "one model at a time: ", argv[1]);
    info.path = argc ? argv[0] : NULL;
    info.report.people = !info.json;
    code = model_open(&info.path, NULL, &info.model);
    if (code != EXIT_FINE)
        return code;
    info.about = resnet_model_describe(info.model);
    if (resnet_session_memory(info.model, NULL, &info.session, &error) == RESNET_OK)
        report_all(&info);
    else
        code = library_failure(info.path, &error);
    resnet_model_free(info.model);
    return code;
}

const struct command command_info = {
    .name = "info",
    .operands = " [MODEL]",
    .summary = "Say what network a model file holds; without a name, the default model.",
    .run = run,
};
