/* raster.h - a picture as 8-bit RGB pixels: read from a file, or made empty to draw on. */
#ifndef RASTER_H
#define RASTER_H

#include <stddef.h>
#include <stdint.h>

#include "resnet.h"

/* Rows of 3 * width bytes. Zeroed, it is empty. */
struct raster {
    uint32_t width, height;
    uint8_t *pixels;
    void *memory; /* the block that holds the pixels */
    size_t memory_size;
};

/* A square part of a raster, all of it inside. */
struct square {
    uint32_t x, y, side;
};

/* Decode an image file. Errors: as resnet_session_set_image_file, whose limits are the same. */
resnet_status raster_read(struct raster *raster, const char *path, resnet_error *error);

/* A white raster, at most 65535 pixels a side and 64 megapixels. Errors: ARGUMENT, MEMORY. */
resnet_status raster_create(struct raster *raster, uint32_t width, uint32_t height, resnet_error *error);

void raster_free(struct raster *raster);

/* Fill a square with the middle of a picture, whose short side becomes the square's. Errors: MEMORY. */
resnet_status raster_put(struct raster *raster, const struct square *where, const struct raster *picture,
                         resnet_error *error);

#endif
