/* bench_layers.c - what each layer took, and the least that it can take on this machine. */
#include "bench_layers.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "system.h"

#define MOST_KINDS 8 /* told apart in the last line: a ResNet has six */

/* ---- Limits ---- */

static double number_bytes(resnet_precision precision) {
    return precision == RESNET_PRECISION_INT8 ? 1 : precision == RESNET_PRECISION_BF16 ? 2 : 4;
}

static double output_numbers(const resnet_layer *layer) {
    return (double)layer->out_height * layer->out_width * layer->out_channels;
}

/* Numbers of the input that the layer looks at: of one pixel in `stride` each way where its window leaves gaps. */
static double input_numbers(const struct bench_layer *layer) {
    const resnet_layer *about = &layer->about;
    if (strcmp(about->kind, "avgpool") == 0) /* all that the layer before wrote */
        return output_numbers(&layer[-1].about);
    double side = about->kernel < about->stride ? about->kernel : about->stride;
    return (double)about->out_height * about->out_width * side * side * about->in_channels;
}

static void count_work(struct bench_layer *layer, const struct bench_run *run) {
    const resnet_layer *about = &layer->about;
    double bytes = number_bytes(run->info.precision), batch = run->settings.batch;
    double weights = about->macs ? (double)about->in_channels * about->out_channels * about->kernel * about->kernel : 0;
    layer->operations = 2 * (double)about->macs * batch;
    layer->weight_bytes = bytes * weights;
    layer->map_bytes = bytes * batch * (input_numbers(layer) + (about->residual ? 2 : 1) * output_numbers(about));
}

static void find_limit(struct bench_layer *layer, const struct bench_run *run, const struct machine *machine,
                       double all_weights) {
    double image = layer->map_bytes / run->settings.batch; /* images may pass one by one */
    double operations = layer->operations / machine->operations[run->info.precision];
    double bytes = layer->weight_bytes / machine_bandwidth(machine, all_weights) +
                   layer->map_bytes / machine_bandwidth(machine, image);
    layer->bytes_decide = bytes > operations;
    layer->limit = layer->bytes_decide ? bytes : operations;
}

struct bench_layer *bench_layers(const struct bench_run *run, const struct machine *machine) {
    struct bench_layer *layers = allocate(run->info.layers, sizeof *layers);
    resnet_error error;
    double all_weights = 0;
    for (uint32_t i = 0; i < run->info.layers; i++) {
        if (resnet_model_layer(run->model, i, run->height, run->width, &layers[i].about, &error) != RESNET_OK) {
            library_failure("layers", &error);
            free(layers);
            return NULL;
        }
        layers[i].seconds = bench_median(run, 1 + i);
        count_work(&layers[i], run);
        all_weights += layers[i].weight_bytes;
    }
    for (uint32_t i = 0; i < run->info.layers; i++)
        find_limit(&layers[i], run, machine, all_weights);
    return layers;
}

/* ---- Report ---- */

/* "conv 3x3", "maxpool", ... */
static const char *describe_kind(const resnet_layer *layer, char text[32]) {
    if (strcmp(layer->kind, "conv") == 0)
        snprintf(text, 32, "conv %" PRIu32 "x%" PRIu32, layer->kernel, layer->kernel);
    else
        snprintf(text, 32, "%s", layer->kind);
    return text;
}

/* Billions of operations a second. */
static double rate(const struct bench_layer *layer) {
    return layer->seconds > 0 ? layer->operations / layer->seconds / 1e9 : 0;
}

static void print_layer(const struct bench_layer *layer, double run_seconds, const struct bench_result *before) {
    char kind[32];
    double ms = 1e3 * layer->seconds;
    printf("%-21s %-9s %8.3f %6.1f %% %8.1f %8.3f %6.1f %% %-8s", layer->about.name, describe_kind(&layer->about, kind),
           ms, 100 * layer->seconds / run_seconds, rate(layer), 1e3 * layer->limit, 100 * layer->limit / layer->seconds,
           layer->bytes_decide ? "bytes" : "products");
    if (before) {
        double ms_before = bench_result_layer(before, layer->about.name);
        printf(" %8.3f %6.2f", ms_before, ms / ms_before);
    }
    putchar('\n');
}

static void write_layer(struct report *r, const struct bench_layer *layer, const struct bench_result *before) {
    report_open(r, NULL, '{');
    report_text(r, "name", layer->about.name);
    report_text(r, "kind", layer->about.kind);
    report_number(r, "ms", 1e3 * layer->seconds);
    report_number(r, "gops", rate(layer));
    report_number(r, "limit_ms", 1e3 * layer->limit);
    report_number(r, "share_of_limit", layer->limit / layer->seconds);
    report_text(r, "limited_by", layer->bytes_decide ? "bytes" : "products");
    if (before) {
        double ms_before = bench_result_layer(before, layer->about.name);
        report_number(r, "before_ms", ms_before);
        report_number(r, "ratio", 1e3 * layer->seconds / ms_before);
    }
    report_close(r, '}');
}

/* Time over the limits of one kind of layer. */
struct loss {
    char kind[32];
    double seconds;
};

static uint32_t sum_losses(struct loss losses[MOST_KINDS], const struct bench_layer *layers, uint32_t count) {
    uint32_t kinds = 0, k;
    for (uint32_t i = 0; i < count; i++) {
        char kind[32];
        describe_kind(&layers[i].about, kind);
        for (k = 0; k < kinds && strcmp(losses[k].kind, kind) != 0; k++)
            ;
        if (k == MOST_KINDS)
            continue;
        if (k == kinds) {
            losses[kinds++] = (struct loss){.seconds = 0};
            memcpy(losses[k].kind, kind, sizeof kind);
        }
        losses[k].seconds += fmax(layers[i].seconds - layers[i].limit, 0);
    }
    return kinds;
}

static void print_losses(const struct bench_layer *layers, uint32_t count) {
    struct loss losses[MOST_KINDS];
    uint32_t kinds = sum_losses(losses, layers, count);
    fputs("\nms over the limits:", stdout);
    for (uint32_t i = 0; i < kinds; i++)
        printf("%s %s %.3f", i ? "," : "", losses[i].kind, 1e3 * losses[i].seconds);
    putchar('\n');
}

/* Where there is reason to: Winograd's method, which int8 does not use, beats a limit that counts the sum's products.
 */
static void print_footnote(const struct bench_run *run, const struct bench_layer *layers) {
    if (run->settings.no_winograd || run->info.precision == RESNET_PRECISION_INT8)
        return;
    for (uint32_t i = 0; i < run->info.layers; i++)
        if (layers[i].about.kernel == 3 && layers[i].about.stride == 1 && layers[i].limit > layers[i].seconds) {
            puts("Over 100 % of the limit: Winograd's method takes a quarter to a half of the products counted.");
            return;
        }
}

void report_layers(struct report *r, const struct bench_run *run, const struct bench_layer *layers,
                   const struct bench_result *before) {
    uint32_t count = run->info.layers;
    double run_seconds = bench_median(run, 0);
    if (r->people)
        printf("\n%-21s %-9s %8s %8s %8s %8s %8s %-8s%s\n", "layer", "kind", "ms", "of time", "GOP/s", "limit ms",
               "of limit", "by", before ? "   before  ratio" : "");
    report_open(r, "layers", '[');
    for (uint32_t i = 0; i < count; i++)
        if (r->people)
            print_layer(&layers[i], run_seconds, before);
        else
            write_layer(r, &layers[i], before);
    report_close(r, ']');
    if (r->people) {
        print_losses(layers, count);
        print_footnote(run, layers);
    }
}
