/* fuzz_preprocess.c - a picture of any size, resized and cropped in any way, between guards on all sides. */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include <math.h>

#include "fuzz.h"
#include "preprocess.h"

#define MOST_MEMORY ((size_t)64 << 20)
#define MOST_SOURCE ((size_t)1 << 18) /* pixels */
#define MOST_VALUES ((size_t)1 << 16) /* floats of the target */

/* Two bytes with a bias towards small numbers: a third of them below 64, a third anything. */
static uint32_t take_size(struct fuzz_stream *stream) {
    uint32_t value = fuzz_take(stream, 2), kind = fuzz_take(stream, 1) % 3;
    return kind == 0 ? value % 64 : kind == 1 ? value % 1024 : value;
}

static float take_float(struct fuzz_stream *stream) {
    uint32_t bits = fuzz_take(stream, 4);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint8_t *make_pixels(struct pixels *source, struct fuzz_stream *stream) {
    size_t padding = fuzz_take(stream, 1) % 8, row = (size_t)3 * source->width;
    source->stride = row + padding;
    size_t size = source->height ? (source->height - 1) * source->stride + row : 0;
    uint8_t *pixels = malloc(size ? size : 1);
    REQUIRE(pixels);
    uint32_t seed = fuzz_take(stream, 4);
    for (size_t i = 0; i < size; i++)
        pixels[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
    source->rows = pixels;
    return pixels;
}

/* Every value of the target that lies in a picture is written, with what a pixel can be; nothing else is. */
static void check_target(const struct preprocess_target *target, const resnet_preprocess *how, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t row = i / target->row_stride, pixel = i % target->row_stride / target->pixel_stride;
        size_t channel = i % target->row_stride % target->pixel_stride;
        bool inside = row < target->height && pixel < target->width && channel < 3;
        float value = target->values[i];
        if (!inside) {
            REQUIRE(isnan(value));
            continue;
        }
        float zero = (0.0F - how->mean[channel]) / how->std[channel];
        float one = (1.0F - how->mean[channel]) / how->std[channel];
        REQUIRE(isnan(zero) || isnan(one) || (value >= fminf(zero, one) && value <= fmaxf(zero, one)));
    }
}

static void try(const struct pixels *source, const resnet_preprocess *how, struct preprocess_target *target) {
    struct fuzz_memory memory;
    resnet_error error = {RESNET_OK, ""};
    size_t count = target->height * target->row_stride;
    target->values = malloc(count * sizeof *target->values);
    REQUIRE(target->values);
    for (size_t i = 0; i < count; i++)
        target->values[i] = NAN;
    fuzz_memory_init(&memory, MOST_MEMORY, 0xa5);
    resnet_status status = preprocess(source, how, &memory.allocator, target, &error);
    fuzz_check_error(status, &error);
    if (status == RESNET_OK)
        check_target(target, how, count);
    fuzz_memory_check(&memory);
    free(target->values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_stream stream = {data, size};
    struct pixels source = {.width = take_size(&stream), .height = take_size(&stream)};
    struct preprocess_target target = {.height = 1 + take_size(&stream) % 512, .width = 1 + take_size(&stream) % 512};
    resnet_preprocess how = {.resize = take_size(&stream),
                             .interpolation = (resnet_interpolation)(fuzz_take(&stream, 1) % 3)};
    target.pixel_stride = 3 + fuzz_take(&stream, 1) % 3;
    target.row_stride = target.width * target.pixel_stride + fuzz_take(&stream, 1) % 8;
    if ((size_t)source.width * source.height > MOST_SOURCE || target.height * target.row_stride > MOST_VALUES)
        return 0;
    bool usual = fuzz_take(&stream, 1) % 4;
    for (int c = 0; c < 3; c++) {
        how.mean[c] = usual ? 0.5F : take_float(&stream);
        how.std[c] = usual ? 0.25F : take_float(&stream);
    }
    uint8_t *pixels = make_pixels(&source, &stream);
    try(&source, &how, &target);
    free(pixels);
    return 0;
}
