/* cmd_features.c - resnet features: the output of one stage of the network, for one image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "commands.h"
#include "model.h"
#include "npy.h"
#include "options.h"
#include "output_file.h"
#include "report.h"
#include "system.h"
#include "text.h"

static const char *const levels[] = {"C2", "C3", "C4", "C5"};

struct features {
    struct batch_settings settings;
    const char *output, *level_name, *layout_name;
    uint32_t stage; /* C2 is that of stage 0 */
    resnet_layout layout;
    bool json;
    struct batch batch;
    resnet_map map;
    float *values;
};

static bool write_map(const struct features *f) {
    const resnet_map *map = &f->map;
    struct npy_shape shape = {3, {map->channels, map->height, map->width}};
    struct output_file output;
    if (f->layout == RESNET_NHWC)
        shape = (struct npy_shape){3, {map->height, map->width, map->channels}};
    if (!output_open(&output, f->output))
        return false;
    npy_write_head(output.file, &shape);
    fwrite(f->values, sizeof *f->values, (size_t)map->channels * map->height * map->width, output.file);
    return output_commit(&output);
}

static void report_map(const struct features *f) {
    struct report report = {.people = !f->json}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "level", levels[f->stage]);
    report_integer(r, "channels", f->map.channels);
    report_integer(r, "height", f->map.height);
    report_integer(r, "width", f->map.width);
    report_integer(r, "stride", f->map.stride);
    report_close(r, '}');
    if (f->json)
        putchar('\n');
}

static int compute(struct features *f) {
    resnet_request request = {.layout = f->layout};
    resnet_error error;
    if (resnet_session_map(f->batch.session, f->stage, &f->map, &error) != RESNET_OK) {
        library_failure(f->batch.path, &error);
        return EXIT_MODEL;
    }
    f->values = allocate((size_t)f->map.channels * f->map.height * f->map.width, sizeof *f->values);
    request.maps[f->stage] = f->values;
    batch_request(&f->batch, &request);
    const struct picture *picture = &f->batch.pictures[0];
    if (picture->error.status != RESNET_OK)
        return library_failure(picture->path, &picture->error);
    return write_map(f) ? EXIT_FINE : EXIT_IO;
}

static int features(struct features *f, const char *image) {
    int code = batch_open(&f->batch, &f->settings);
    if (code == EXIT_FINE) {
        batch_add(&f->batch, (struct picture){.path = copy_text(image), .is_stdin = strcmp(image, "-") == 0});
        code = compute(f);
    }
    if (code == EXIT_FINE)
        report_map(f);
    free(f->values);
    batch_close(&f->batch);
    return code;
}

/* False after a complaint. */
static bool read_names(struct features *f, const struct command *self) {
    while (f->stage < RESNET_MAX_STAGES && strcmp(levels[f->stage], f->level_name) != 0)
        f->stage++;
    if (f->stage == RESNET_MAX_STAGES)
        return usage_error(self, "--level takes C2, C3, C4 or C5, not ", f->level_name), false;
    f->layout = strcmp(f->layout_name, "nhwc") == 0 ? RESNET_NHWC : RESNET_NCHW;
    if (f->layout == RESNET_NCHW && strcmp(f->layout_name, "nchw") != 0)
        return usage_error(self, "--layout takes nchw or nhwc, not ", f->layout_name), false;
    return true;
}

static int run(const struct command *self, int argc, char **argv) {
    struct features f = {.settings = {.resize = RESIZE_AS_MODEL, .size = 1}, .layout_name = "nchw"};
    const struct option options[] = {
        option_text("level", "NAME", "C2, C3, C4 or C5: the output of the first to fourth stage", &f.level_name),
        option_text("output", "FILE", "the array to write, or -o FILE", &f.output),
        option_text("layout", "NAME", "nchw: [C][H][W], or nhwc: [H][W][C] (nchw)", &f.layout_name),
        option_model(&f.settings.model),
        option_resize(&f.settings.resize),
        option_threads(&f.settings.threads),
        option_isa(&f.settings.isa),
        option_precision(&f.settings.precision),
        option_json(&f.json),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc != 1)
        return usage_error(self, argc ? "one image at a time, not also " : "no image is named", argc ? argv[1] : "");
    if (!f.level_name || !f.output)
        return usage_error(self, "--level and --output are needed", "");
    return read_names(&f, self) ? features(&f, argv[0]) : EXIT_USAGE;
}

const struct command command_features = {
    .name = "features",
    .operands = " --level C2|C3|C4|C5 IMAGE -o FILE.npy",
    .summary = "Write the feature map of one stage of the network, as detectors use them.",
    .notes = "FILE.npy is a NumPy array of f32 for the one image. The stages after it are not computed.",
    .run = run,
};
