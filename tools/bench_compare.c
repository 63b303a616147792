/* bench_compare.c - read what an earlier `resnet bench --json` printed, to set a result beside it. */
#include "bench_compare.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "system.h"
#include "text.h"

#define MOST_BYTES  ((size_t)4 << 20) /* our own is some 30 KB for ResNet-152 */
#define MOST_LAYERS 4096

/* ---- Read ---- */

static void keep_text(char place[32], const struct json_value *value) {
    snprintf(place, 32, "%.31s", value->text ? value->text : "");
}

static void visit(void *result_, const struct json_value *value) {
    struct bench_result *result = result_;
    const struct {
        const char *path;
        char *text;
        double *number;
    } figures[] = {
        {".arch", result->arch, NULL},
        {".isa", result->isa, NULL},
        {".precision", result->precision, NULL},
        {".threads", NULL, &result->threads},
        {".batch", NULL, &result->batch},
        {".median_ms", NULL, &result->median},
        {".images_per_second", NULL, &result->images},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        if (strcmp(value->path, figures[i].path) == 0) {
            if (figures[i].text)
                keep_text(figures[i].text, value);
            else
                *figures[i].number = value->number;
        }
    if (strcmp(value->path, ".layers[].name") == 0 && result->count < MOST_LAYERS) {
        keep_text(result->layers[result->count].name, value);
        result->layers[result->count++].ms = (double)NAN;
    } else if (strcmp(value->path, ".layers[].ms") == 0 && result->count > 0)
        result->layers[result->count - 1].ms = value->number;
}

/* EXIT_FINE, or what is wrong: then it was said. */
static int read_text(const char *name, char *text, size_t *size) {
    FILE *file = fopen(name, "rb");
    *size = file ? fread(text, 1, MOST_BYTES, file) : 0;
    bool failed = !file || ferror(file);
    if (failed)
        complain("%s: cannot be read: %s", name, strerror(errno));
    if (file)
        fclose(file);
    return failed ? EXIT_IO : EXIT_FINE;
}

int bench_result_read(struct bench_result *result, const char *file) {
    char *text = allocate(MOST_BYTES, 1);
    size_t size;
    *result = (struct bench_result){.file = file, .threads = (double)NAN, .batch = (double)NAN, .median = (double)NAN};
    result->images = (double)NAN;
    result->layers = allocate(MOST_LAYERS, sizeof *result->layers);
    int code = read_text(file, text, &size);
    if (code == EXIT_FINE && (!json_read(text, size, visit, result) || !(result->median > 0 && result->images > 0))) {
        complain("%s: expected what resnet bench --json prints", file);
        code = EXIT_USAGE;
    }
    free(text);
    return code;
}

void bench_result_free(struct bench_result *result) {
    free(result->layers);
    result->layers = NULL;
}

double bench_result_layer(const struct bench_result *result, const char *name) {
    for (uint32_t i = 0; i < result->count; i++)
        if (strcmp(result->layers[i].name, name) == 0)
            return result->layers[i].ms;
    return (double)NAN;
}

/* ---- Report ---- */

void report_before(struct report *r, const struct bench_result *before, double median, double images) {
    char what[160];
    snprintf(what, sizeof what, "%s, %s, %s, %g threads, batch %g", before->arch, before->isa, before->precision,
             before->threads, before->batch);
    report_text(r, "before", before->file);
    report_text(r, "before_was", what);
    report_number(r, "before_median_ms", before->median);
    report_number(r, "before_images_per_s", before->images);
    report_number(r, "median_ratio", median / before->median);
    report_number(r, "images_ratio", images / before->images);
}
