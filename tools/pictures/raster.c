/* raster.c - a picture as 8-bit RGB pixels: read from a file, or made empty to draw on. */
#include "raster.h"

#include <string.h>

#include "error.h"
#include "image.h"
#include "image_parts.h"
#include "preprocess.h"

#define WHITE 255

resnet_status raster_read(struct raster *raster, const char *path, resnet_error *error) {
    const resnet_allocator allocator = memory_allocator(NULL);
    struct image image = {0};
    resnet_status status = image_decode_file(path, &allocator, &image, error);
    *raster = (struct raster){image.width, image.height, image.pixels, image.memory, image.memory_size};
    return status;
}

resnet_status raster_create(struct raster *raster, uint32_t width, uint32_t height, resnet_error *error) {
    const resnet_allocator allocator = memory_allocator(NULL);
    *raster = (struct raster){.width = width, .height = height};
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
        (uint64_t)width * height > IMAGE_MAX_PIXELS)
        return fail(error, RESNET_ERROR_ARGUMENT,
                    "a picture of %u x %u pixels: each side must be 1..%d, and both together at most %llu",
                    (unsigned)width, (unsigned)height, IMAGE_MAX_SIDE, (unsigned long long)IMAGE_MAX_PIXELS);
    raster->memory_size = (size_t)3 * width * height;
    raster->memory = memory_get(&allocator, raster->memory_size);
    if (!raster->memory)
        return fail_memory(error, "a picture", raster->memory_size);
    raster->pixels = memset(raster->memory, WHITE, raster->memory_size);
    return RESNET_OK;
}

void raster_free(struct raster *raster) {
    const resnet_allocator allocator = memory_allocator(NULL);
    memory_put(&allocator, raster->memory, raster->memory_size);
    *raster = (struct raster){0};
}

resnet_status raster_put(struct raster *raster, const struct square *where, const struct raster *picture,
                         resnet_error *error) {
    const resnet_allocator allocator = memory_allocator(NULL);
    const struct pixels source = {picture->width, picture->height, (size_t)3 * picture->width, picture->pixels};
    const resnet_preprocess how = {.resize = where->side, .std = {1, 1, 1}};
    size_t count = (size_t)3 * where->side * where->side, size = count * sizeof(float);
    struct preprocess_target target = {where->side, where->side, (size_t)3 * where->side, 3, NULL};
    target.values = memory_get(&allocator, size);
    if (!target.values)
        return fail_memory(error, "a thumbnail", size);
    resnet_status status = preprocess(&source, &how, &allocator, &target, error);
    for (size_t i = 0; status == RESNET_OK && i < count; i++) {
        size_t row = where->y + i / target.row_stride, byte = (size_t)3 * where->x + i % target.row_stride;
        raster->pixels[row * 3 * raster->width + byte] = (uint8_t)(target.values[i] * 255 + 0.5f);
    }
    memory_put(&allocator, target.values, size);
    return status;
}
