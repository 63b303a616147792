/* cmd_quantize.c - resnet quantize: make a smaller model file, in int8 or bf16, of one in f32. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "commands.h"
#include "labelled.h"
#include "model.h"
#include "options.h"
#include "output_file.h"
#include "progress.h"
#include "quantizer.h"
#include "report.h"
#include "system.h"
#include "text.h"

#define BATCH  16
#define IMAGES 256

struct quantize {
    const char *model, *calibrate, *output;
    resnet_precision precision;
    uint32_t images, threads;
    bool json;
    struct quantizer *quantizer;
    struct batch batch; /* its session is the quantizer's */
    struct labelled set;
    size_t failed;
};

typedef resnet_status quantizer_step(struct quantizer *quantizer, uint32_t count, resnet_error *error);

/* ---- Images ---- */

/* Leave `images` of the set, evenly spread over it. */
static void thin_out(struct labelled *set, size_t images) {
    size_t left = 0, all = set->count;
    for (size_t i = 0; i < all && images < all; i++)
        if (i == left * all / images && left < images)
            set->images[left++] = set->images[i];
        else
            free(set->images[i].path);
    set->count = images < all ? images : all;
}

static void fill_batch(struct quantize *q, size_t first) {
    batch_clear(&q->batch);
    for (size_t i = first; i < q->set.count && q->batch.count < q->batch.size; i++)
        batch_add(&q->batch, (struct picture){.path = copy_text(q->set.images[i].path)});
}

/* Complain about the pictures of the batch that could not be decoded and take them from the set, where the batch starts
 * at `first`. */
static void drop_failed(struct quantize *q, size_t first, struct progress *progress) {
    progress_clear(progress);
    for (uint32_t i = q->batch.count; i-- > 0;) {
        const struct picture *picture = &q->batch.pictures[i];
        struct labelled_image *image = &q->set.images[first + i];
        if (picture->error.status == RESNET_OK)
            continue;
        library_failure(picture->path, &picture->error);
        free(image->path);
        memmove(image, image + 1, (--q->set.count - (first + i)) * sizeof *image);
        q->failed++;
    }
}

/* Take all images through the quantizer once. A batch with failures is decoded again without them. */
static int run_pass(struct quantize *q, quantizer_step *step) {
    struct progress progress;
    resnet_error error;
    int code = EXIT_FINE;
    progress_start(&progress, q->set.count);
    for (size_t i = 0; code == EXIT_FINE && i < q->set.count;) {
        fill_batch(q, i);
        if (batch_decode(&q->batch) < q->batch.count) {
            drop_failed(q, i, &progress);
            continue;
        }
        if (step(q->quantizer, q->batch.count, &error) != RESNET_OK)
            code = library_failure(q->model, &error);
        i += q->batch.count;
        progress_add(&progress, q->batch.count);
    }
    progress_clear(&progress);
    return code;
}

/* ---- Report ---- */

/* A column for people. */
static void put_decibels(double decibels) {
    if (isnan(decibels))
        printf("%10s", "-");
    else
        printf("%10.1f", decibels);
}

static void report_layer(struct report *r, const struct quantized_layer *layer) {
    if (r->people) {
        printf("  %-20s", layer->name);
        put_decibels(layer->weight_db);
        put_decibels(layer->output_db);
        puts(layer->kept ? "  kept in f32" : "");
        return;
    }
    report_open(r, NULL, '{');
    report_text(r, "name", layer->name);
    report_integer(r, "kept", (uint64_t)layer->kept);
    report_number(r, "weight_db", layer->weight_db);
    report_number(r, "output_db", layer->output_db);
    report_close(r, '}');
}

static void report_layers(struct report *r, const struct quantize *q, uint32_t layers) {
    struct quantized_layer layer;
    if (r->people)
        puts("\n  signal to noise, dB    weights    output");
    report_open(r, "layers", '[');
    for (uint32_t i = 0; i < layers; i++)
        if (quantizer_layer(q->quantizer, i, &layer, NULL) == RESNET_OK)
            report_layer(r, &layer);
    report_close(r, ']');
}

static void report_all(const struct quantize *q) {
    struct report report = {.people = !q->json}, *r = &report;
    struct quantizer_info info = quantizer_describe(q->quantizer);
    report_open(r, NULL, '{');
    report_text(r, "precision", resnet_precision_name(q->precision));
    report_integer(r, "images", info.compared);
    report_integer(r, "failed", q->failed);
    if (info.model.config.classes)
        report_number(r, "same_class_as_f32", (double)info.agreeing / (double)info.compared);
    report_integer(r, "f32_bytes", info.file_size);
    report_integer(r, "bytes", info.quantized_size);
    if (info.compared)
        report_layers(r, q, info.model.layers);
    report_close(r, '}');
    if (q->json)
        putchar('\n');
}

/* ---- Run ---- */

/* Find the images, and a batch whose session is the quantizer's. */
static int open_images(struct quantize *q) {
    resnet_model_info model = quantizer_describe(q->quantizer).model;
    if (model.config.in_channels != 3) {
        complain("%s: the network takes %" PRIu32 " channels, and an image has 3", q->model, model.config.in_channels);
        return EXIT_MODEL;
    }
    q->batch.session = quantizer_session(q->quantizer);
    q->batch.preprocess = model.preprocess;
    q->batch.size = BATCH;
    q->batch.pictures = allocate(BATCH, sizeof *q->batch.pictures);
    if (!labelled_from_anywhere(&q->set, q->calibrate))
        return EXIT_IO;
    thin_out(&q->set, q->images);
    return EXIT_FINE;
}

static int calibrate(struct quantize *q) {
    int code = open_images(q);
    if (code == EXIT_FINE && q->precision == RESNET_PRECISION_INT8)
        code = run_pass(q, quantizer_observe);
    if (code == EXIT_FINE && q->set.count == 0) {
        complain("%s: there is no image to calibrate with", q->calibrate);
        code = EXIT_INPUTS;
    }
    return code;
}

static bool write_file(const struct quantize *q) {
    struct output_file output;
    size_t size;
    const void *bytes = quantizer_file(q->quantizer, &size);
    if (!output_open(&output, q->output))
        return false;
    fwrite(bytes, 1, size, output.file); /* the commit finds what went wrong */
    return output_commit(&output);
}

static int make(struct quantize *q) {
    resnet_error error;
    const struct quantizer_options options = {.batch = BATCH, .threads = q->threads};
    if (quantizer_create(q->model, &options, &q->quantizer, &error) != RESNET_OK)
        return library_failure(q->model, &error);
    int code = q->calibrate ? calibrate(q) : EXIT_FINE;
    if (code != EXIT_FINE)
        return code;
    if (quantizer_quantize(q->quantizer, q->precision, &error) != RESNET_OK)
        return library_failure(q->model, &error);
    if (!write_file(q))
        return EXIT_IO;
    return run_pass(q, quantizer_compare);
}

static int quantize(struct quantize *q) {
    int code = make(q);
    if (code == EXIT_FINE) {
        report_all(q);
        code = q->failed ? EXIT_INPUTS : EXIT_FINE;
    }
    batch_clear(&q->batch);
    free(q->batch.pictures);
    labelled_free(&q->set);
    quantizer_free(q->quantizer);
    return code;
}

static int run(const struct command *self, int argc, char **argv) {
    const char *precision = "int8";
    struct quantize q = {.images = IMAGES};
    const struct option options[] = {
        option_text("model", "FILE", "the model file in f32", &q.model),
        option_text("calibrate", "PATH", "a folder of images, or of folders of them, or a list", &q.calibrate),
        option_text("output", "FILE", "the file to write, or -o FILE", &q.output),
        option_count("images", "of those, how many to use, evenly spread (256)", &q.images, 1, 65536),
        option_text("precision", "NAME", "int8 or bf16 (int8)", &precision),
        option_threads(&q.threads),
        option_json(&q.json),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 0)
        return usage_error(self, "unexpected argument ", argv[0]);
    if (strcmp(precision, "int8") != 0 && strcmp(precision, "bf16") != 0)
        return usage_error(self, "--precision takes int8 or bf16, not ", precision);
    q.precision = strcmp(precision, "int8") == 0 ? RESNET_PRECISION_INT8 : RESNET_PRECISION_BF16;
    if (!q.model || !q.output)
        return usage_error(self, "--model and --output are needed", "");
    if (!q.calibrate && q.precision == RESNET_PRECISION_INT8)
        return usage_error(self, "int8 needs --calibrate", "");
    return quantize(&q);
}

const struct command command_quantize = {
    .name = "quantize",
    .operands = " --model FILE [--calibrate PATH] -o FILE",
    .summary = "Make a smaller model file, in int8 or bf16, of one in f32.",
    .notes = "Calibrate with a few hundred images like those that will be classified, but not the same. With\n"
             "bf16, images are not needed, only compared. The report says how far the layers are from those\n"
             "in f32: by what rounding their weights does, and in all.",
    .run = run,
};
