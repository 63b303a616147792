/* image_parts.h - what the files of the image decoder share: one part a format, all behind image_decode. */
#ifndef IMAGE_PARTS_H
#define IMAGE_PARTS_H

#include "image.h"

#define IMAGE_MAX_SIDE   65535
#define IMAGE_MAX_PIXELS ((uint64_t)64 << 20)

/* The bytes of a file, at most INT_MAX of them. Not owned. */
struct bytes {
    const uint8_t *data;
    size_t size;
};

/* What a format's check found out. */
struct picture {
    uint32_t width, height;
    uint32_t pixel_bytes; /* of a decoded pixel: samples x bytes a sample, at least 3 */
};

/* Refuse a picture without pixels, with a side over IMAGE_MAX_SIDE, or with more than IMAGE_MAX_PIXELS. */
resnet_status image_check_size(const char *format, uint64_t width, uint64_t height, resnet_error *error);

/* image_jpeg.c: walk all markers; what passes is safe for stb_image and decodes as libjpeg would have it. */
resnet_status jpeg_check(const struct bytes *file, struct picture *picture, resnet_error *error);

/* A file that was written anew, and the block that holds it. */
struct rebuilt {
    struct bytes file;
    uint8_t *memory;
    size_t memory_size;
};

/* image_png.c: walk all chunks and write a PNG of the necessary ones only, for stb_image. The caller frees `memory`. */
resnet_status png_rebuild(const struct bytes *file, const resnet_allocator *allocator, struct picture *picture,
                          struct rebuilt *clean, resnet_error *error);

/* image_bmp.c: the whole decoder. */
resnet_status bmp_decode(const struct bytes *file, const resnet_allocator *allocator, struct image *image,
                         resnet_error *error);

/* image_stb.c: decode a file that one of the checks has passed. */
resnet_status stb_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                         struct image *image, resnet_error *error);

/* image_turbo.c: the same for a JPEG, by libjpeg-turbo in a build that has it, else by stb_image. */
resnet_status jpeg_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                          struct image *image, resnet_error *error);

/* What one call of a decoder may take: 32 MiB and four times the picture. */
struct budget {
    const struct picture *picture;
    const resnet_allocator *allocator;
    struct block *blocks; /* those that it has now */
    size_t left;
    size_t asked;  /* the last request */
    bool refused;  /* the allocator had no memory for it */
    bool exceeded; /* it was for more than was left */
};

/* image_budget.c: begin a call; get zeroed blocks at multiples of ALIGNMENT, or NULL; give one back, or NULL; end the
 * call with all of them. What was decoded becomes the image, or, where its pixels are NULL, the budget says why. */
struct budget budget_begin(const struct picture *picture, const resnet_allocator *allocator);
void *budget_get(struct budget *budget, size_t size);
void budget_put(struct budget *budget, void *memory);
resnet_status budget_end(struct budget *budget, const struct image *decoded, struct image *image, resnet_error *error);

static inline uint32_t be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32(const uint8_t *p) {
    return be16(p) << 16 | be16(p + 2);
}

static inline uint32_t le16(const uint8_t *p) {
    return (uint32_t)p[1] << 8 | p[0];
}

static inline uint32_t le32(const uint8_t *p) {
    return le16(p + 2) << 16 | le16(p);
}

#endif
