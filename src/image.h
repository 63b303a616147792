/* image.h - decode a JPEG, PNG or BMP into 8-bit RGB. */
#ifndef IMAGE_H
#define IMAGE_H

#include "memory.h"
#include "resnet.h"

/* Rows of 3 * width bytes, no padding. Made by image_decode*, owned by the caller until image_free. */
struct image {
    uint32_t width, height;
    uint8_t *pixels;
    void *memory; /* the block that holds the pixels */
    size_t memory_size;
};

/* Errors: IO (file only), IMAGE, MEMORY, UNSUPPORTED (a build without stb_image). `allocator` provides every byte, the
 * decoder's too, but for a few kilobytes that libjpeg-turbo begins with. The messages of image_decode_file begin with
 * the path. */
resnet_status image_decode_file(const char *path, const resnet_allocator *allocator, struct image *image,
                                resnet_error *error);
resnet_status image_decode(const void *data, size_t size, const resnet_allocator *allocator, struct image *image,
                           resnet_error *error);
void image_free(struct image *image, const resnet_allocator *allocator);

#endif
