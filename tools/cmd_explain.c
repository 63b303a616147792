/* cmd_explain.c - resnet explain: where on a photograph the network sees a class. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "commands.h"
#include "heatmap.h"
#include "labels.h"
#include "model.h"
#include "options.h"
#include "png.h"
#include "report.h"
#include "system.h"
#include "text.h"

struct explain {
    struct batch_settings settings;
    const char *class_text, *output;
    bool json;
    struct batch batch;
    struct raster photograph;
    uint32_t class;
    float score, logit;
    float *cam; /* [height][width] of the heat map */
    struct heatmap heat;
};

/* The photograph into the session, and the class that is asked about. */
static int open_inputs(struct explain *e, const char *image) {
    resnet_error error;
    if (e->class_text && !labels_find(e->batch.model, e->class_text, &e->class))
        return EXIT_USAGE;
    if (raster_read(&e->photograph, image, &error) != RESNET_OK ||
        resnet_session_set_rgb(e->batch.session, 0, e->photograph.pixels, e->photograph.width, e->photograph.height, 0,
                               &e->batch.preprocess, &error) != RESNET_OK) {
        library_failure(image, &error);
        return EXIT_INPUTS;
    }
    return EXIT_FINE;
}

/* The map of the last stage that the network has. */
static void find_map(struct explain *e) {
    const resnet_config *config = &e->batch.info.config;
    uint32_t stage = RESNET_MAX_STAGES;
    while (stage-- > 0 && resnet_session_map(e->batch.session, stage, &e->heat.map, NULL) != RESNET_OK)
        ;
    e->heat.input_width = config->width;
    e->heat.input_height = config->height;
    e->heat.preprocess = e->batch.preprocess;
    e->heat.values = e->cam = allocate((size_t)e->heat.map.height * e->heat.map.width, sizeof *e->cam);
}

static float score_of(const struct explain *e) {
    float *scores = e->batch.logits;
    if (e->batch.info.config.head == RESNET_HEAD_SIGMOID)
        return 1 / (1 + expf(-scores[e->class]));
    resnet_softmax(scores, e->batch.info.config.classes);
    return scores[e->class];
}

static int compute(struct explain *e) {
    resnet_request request = {.logits = e->batch.logits, .cam = e->cam};
    resnet_error error;
    if (e->class_text)
        request.cam_classes = &e->class;
    if (resnet_run(e->batch.session, 1, &request, &error) != RESNET_OK)
        return library_failure(e->batch.path, &error);
    if (!e->class_text)
        resnet_top_k(e->batch.logits, e->batch.info.config.classes, 1, &e->class);
    e->logit = e->batch.logits[e->class];
    e->score = score_of(e);
    return EXIT_FINE;
}

static void report_all(const struct explain *e, const char *image) {
    struct report report = {.people = !e->json}, *r = &report;
    struct heat_peak peak = heatmap_peak(&e->heat, &e->photograph);
    char buffer[32];
    report_open(r, NULL, '{');
    report_text(r, "file", image);
    report_integer(r, "index", e->class);
    report_text(r, "label", class_name(e->batch.model, e->class, buffer));
    report_number(r, "score", (double)e->score);
    report_number(r, "logit", (double)e->logit);
    report_number(r, "peak", (double)peak.value);
    report_number(r, "peak_x", peak.value > 0 ? peak.x : NAN);
    report_number(r, "peak_y", peak.value > 0 ? peak.y : NAN);
    report_close(r, '}');
    if (e->json)
        putchar('\n');
}

static int explain(struct explain *e, const char *image) {
    int code = batch_open(&e->batch, &e->settings);
    if (code == EXIT_FINE && e->batch.info.config.head == RESNET_HEAD_NONE) {
        complain("%s: the network has no classifier, so there is no class to explain", e->batch.path);
        code = EXIT_MODEL;
    }
    if (code == EXIT_FINE)
        code = open_inputs(e, image);
    if (code == EXIT_FINE) {
        find_map(e);
        code = compute(e);
    }
    if (code == EXIT_FINE)
        report_all(e, image);
    if (code == EXIT_FINE && e->output) {
        heatmap_draw(&e->heat, &e->photograph);
        code = png_write(e->output, &e->photograph) ? EXIT_FINE : EXIT_IO;
    }
    free(e->cam);
    raster_free(&e->photograph);
    batch_close(&e->batch);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    struct explain e = {.settings = {.resize = RESIZE_AS_MODEL, .size = 1}};
    const struct option options[] = {
        option_text("class", "NAME", "the class: its label, a part of that, or its index (the best)", &e.class_text),
        option_text("output", "FILE", "the PNG to write, or -o FILE: the photograph with a heat map", &e.output),
        option_model(&e.settings.model),
        option_resize(&e.settings.resize),
        option_threads(&e.settings.threads),
        option_isa(&e.settings.isa),
        option_precision(&e.settings.precision),
        option_json(&e.json),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc != 1)
        return usage_error(self, argc ? "one image at a time, not also " : "no image is named", argc ? argv[1] : "");
    return explain(&e, argv[0]);
}

const struct command command_explain = {
    .name = "explain",
    .operands = " IMAGE [--class NAME] [-o OVERLAY.png]",
    .summary = "Show where on a photograph the network sees a class: a heat map over it.",
    .notes = "The heat is the class-activation map: what each place adds to the class's score before softmax,\n"
             "from nothing (or less) to the place that adds most, which is the peak. It is coarse: a network\n"
             "with an input of 224 x 224 tells 7 x 7 places apart. Around the crop, which is all that the\n"
             "network sees, the picture is dark.",
    .run = run,
};
