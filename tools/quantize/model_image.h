/* model_image.h - compose a model file (models/FORMAT.md) in memory. */
#ifndef MODEL_IMAGE_H
#define MODEL_IMAGE_H

#include "memory.h"

/* The bytes of a model file. Zeroed but for the allocator, it is empty. */
struct model_image {
    resnet_allocator allocator;
    uint8_t *bytes;
    size_t size, room; /* used; allocated */
    size_t refused;    /* bytes that could not be had: from then on nothing is added; model_image_check tells */
};

/* The header, but for what model_image_finish fills in, and the labels: `labels_size` bytes of terminated strings. */
void model_image_header(struct model_image *image, const resnet_config *config, const resnet_preprocess *how,
                        const char *labels, size_t labels_size);

/* Append a tensor, with the padding behind it. */
void model_image_zeros(struct model_image *image, size_t count); /* bytes */
void model_image_bytes(struct model_image *image, const void *bytes, size_t count);
void model_image_f32(struct model_image *image, const float *values, size_t count);
void model_image_bf16(struct model_image *image, const float *values, size_t count);

/* Whether all that was appended is there. Errors: MEMORY. */
resnet_status model_image_check(const struct model_image *image, resnet_error *error);

/* Write size and checksums into the header of a file; its checksum of the payload is of all bytes behind the header. */
void model_image_seal(uint8_t *header, uint64_t size, uint32_t payload_crc);

/* Likewise, of an image that is the whole file. */
void model_image_finish(struct model_image *image);

void model_image_free(struct model_image *image);

#endif
