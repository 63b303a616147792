/* model_image.c - compose a model file (models/FORMAT.md) in memory, then put it into a file's place at once. */
#define _POSIX_C_SOURCE 200809L
#include "model_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bf16.h"
#include "crc.h"
#include "error.h"

#define HEADER_SIZE 256

/* ---- The image ---- */

/* Room for `size` zeros at the end, or NULL where it is refused. */
static uint8_t *extend(struct model_image *image, size_t size) {
    size_t need = image->size + size;
    if (need > image->room && !image->refused) {
        size_t room = need + need / 2;
        uint8_t *larger = memory_get(&image->allocator, room);
        if (larger && image->size)
            memcpy(larger, image->bytes, image->size);
        if (larger) {
            memory_put(&image->allocator, image->bytes, image->room);
            image->bytes = larger;
            image->room = room;
        } else {
            image->refused = room;
        }
    }
    if (image->refused)
        return NULL;
    uint8_t *end = image->bytes + image->size;
    memset(end, 0, size);
    image->size = need;
    return end;
}

static void put_u16(uint8_t *to, uint16_t value) {
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *to, uint32_t value) {
    put_u16(to, (uint16_t)value);
    put_u16(to + 2, (uint16_t)(value >> 16));
}

static void put_u64(uint8_t *to, uint64_t value) {
    put_u32(to, (uint32_t)value);
    put_u32(to + 4, (uint32_t)(value >> 32));
}

static void put_f32(uint8_t *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u32(to, bits);
}

static void put_network(uint8_t *header, const resnet_config *config) {
    header[32] = (uint8_t)config->block;
    header[33] = (uint8_t)config->stride_at;
    header[34] = (uint8_t)config->stem;
    header[35] = (uint8_t)config->shortcut;
    header[36] = (uint8_t)config->attention;
    header[37] = (uint8_t)config->head;
    header[38] = (uint8_t)(config->precision - RESNET_PRECISION_F32);
    for (uint32_t stage = 0; stage < RESNET_MAX_STAGES; stage++)
        put_u32(header + 40 + 4 * stage, config->blocks[stage]);
    put_u32(header + 56, config->base_width);
    put_u32(header + 60, config->groups);
    put_u32(header + 64, config->width_per_group);
    put_u32(header + 68, config->output_stride);
    put_u32(header + 72, config->in_channels);
    put_u32(header + 76, config->height);
    put_u32(header + 80, config->width);
    put_u32(header + 84, config->classes);
    put_f32(header + 88, config->bn_epsilon);
    put_u32(header + 100, config->attention_width);
}

static void put_preprocess(uint8_t *header, const resnet_preprocess *how, uint32_t channels) {
    header[39] = (uint8_t)how->interpolation;
    put_u32(header + 92, how->resize);
    for (uint32_t c = 0; c < channels; c++) {
        put_f32(header + 128 + 4 * c, how->mean[c]);
        put_f32(header + 192 + 4 * c, how->std[c]);
    }
}

void model_image_header(struct model_image *image, const resnet_config *config, const resnet_preprocess *how,
                        const char *labels, size_t labels_size) {
    static const uint8_t magic[8] = {0x8b, 'R', 'N', 'T', '\r', '\n', 0x1a, '\n'};
    uint8_t *header = extend(image, align_up(HEADER_SIZE + labels_size));
    if (!header)
        return;
    memcpy(header, magic, sizeof magic);
    put_u32(header + 8, 1);
    put_network(header, config);
    put_preprocess(header, how, config->in_channels);
    put_u32(header + 96, (uint32_t)labels_size);
    for (size_t i = 0; i < labels_size; i++)
        header[HEADER_SIZE + i] = labels[i] ? (uint8_t)labels[i] : '\n';
}

void model_image_zeros(struct model_image *image, size_t count) {
    extend(image, align_up(count));
}

void model_image_bytes(struct model_image *image, const void *bytes, size_t count) {
    uint8_t *to = extend(image, align_up(count));
    if (to)
        memcpy(to, bytes, count);
}

void model_image_f32(struct model_image *image, const float *values, size_t count) {
    uint8_t *to = extend(image, align_up(count * sizeof *values));
    for (size_t i = 0; to && i < count; i++)
        put_f32(to + i * sizeof *values, values[i]);
}

void model_image_bf16(struct model_image *image, const float *values, size_t count) {
    uint8_t *to = extend(image, align_up(count * sizeof(uint16_t)));
    for (size_t i = 0; to && i < count; i++)
        put_u16(to + i * sizeof(uint16_t), bf16_from_float(values[i]));
}

resnet_status model_image_check(const struct model_image *image, resnet_error *error) {
    return image->refused ? fail_memory(error, "the model file", image->refused) : RESNET_OK;
}

void model_image_seal(uint8_t *header, uint64_t size, uint32_t payload_crc) {
    struct crc crc;
    crc_prepare(&crc);
    put_u64(header + 16, size);
    put_u32(header + 24, payload_crc);
    put_u32(header + 12, 0);
    put_u32(header + 12, crc_of(&crc, header, HEADER_SIZE));
}

void model_image_finish(struct model_image *image) {
    struct crc crc;
    crc_prepare(&crc);
    model_image_seal(image->bytes, image->size, crc_of(&crc, image->bytes + HEADER_SIZE, image->size - HEADER_SIZE));
}

void model_image_free(struct model_image *image) {
    memory_put(&image->allocator, image->bytes, image->room);
    *image = (struct model_image){.allocator = image->allocator};
}
