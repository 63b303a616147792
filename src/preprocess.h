/* preprocess.h - 8-bit RGB to a network's input: Pillow's resize, torchvision's crop and normalisation. */
#ifndef PREPROCESS_H
#define PREPROCESS_H

#include "memory.h"
#include "resnet.h"

/* Where the result goes: height x width pixels of 3 floats (NHWC), rows and pixels that many floats apart. */
struct preprocess_target {
    uint32_t height, width;
    size_t row_stride, pixel_stride;
    float *values;
};

/* 8-bit RGB pixels, rows `stride` bytes apart. Not owned. */
struct pixels {
    uint32_t width, height;
    size_t stride;
    const uint8_t *rows;
};

/* Resize, crop to the target's size, normalise, write. Bit-exact with PIL + torchvision. Errors: MEMORY, ARGUMENT (an
 * image side outside 1..65535, a resize request outside 0..16384). */
resnet_status preprocess(const struct pixels *source, const resnet_preprocess *how, const resnet_allocator *allocator,
                         const struct preprocess_target *target, resnet_error *error);

/* Where a target's pixels lie on the source: pixel (x, y) has its middle at left + (x + 0.5) * scale_x from the left
 * edge and top + (y + 0.5) * scale_y from the upper one, in pixels of the source. */
struct preprocess_window {
    double left, top, scale_x, scale_y;
};

/* Of arguments that preprocess takes. */
void preprocess_window(const struct pixels *source, const resnet_preprocess *how,
                       const struct preprocess_target *target, struct preprocess_window *window);

#endif
