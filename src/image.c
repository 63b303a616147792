/* image.c - read an image file, tell its format, and hand it to the format's decoder. */
#define _POSIX_C_SOURCE 200809L /* close */
#include "image.h"

#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"
#include "image_parts.h"

#define MAX_FILE ((size_t)512 << 20) /* 64 megapixels of 16-bit RGBA, uncompressed */
#define HEAD     16                  /* bytes that tell the format */

/* ---- Formats ---- */

enum format { UNKNOWN, JPEG, PNG, BMP, FOREIGN };

struct magic {
    const char *name;
    enum format format;
    uint8_t at, size; /* where in the file the bytes stand, and how many there are */
    const char *bytes;
};

static const struct magic magics[] = {
    {"JPEG", JPEG, 0, 3, "\xff\xd8\xff"},
    {"PNG", PNG, 0, 8, "\x89PNG\r\n\x1a\n"},
    {"BMP", BMP, 0, 2, "BM"},
    {"GIF", FOREIGN, 0, 4, "GIF8"},
    {"WebP", FOREIGN, 8, 4, "WEBP"},
    {"TIFF", FOREIGN, 0, 4, "II*\0"},
    {"TIFF", FOREIGN, 0, 4, "MM\0*"},
    {"AVIF", FOREIGN, 4, 7, "ftypavi"},
    {"HEIF", FOREIGN, 4, 7, "ftyphei"},
    {"HEIF", FOREIGN, 4, 7, "ftyphev"},
    {"HEIF", FOREIGN, 4, 7, "ftypmif"},
    {"HEIF", FOREIGN, 4, 7, "ftypmsf"},
    {"JPEG 2000", FOREIGN, 0, 8, "\0\0\0\x0cjP  "},
    {"JPEG 2000", FOREIGN, 0, 4, "\xff\x4f\xff\x51"},
    {"JPEG XL", FOREIGN, 0, 8, "\0\0\0\x0cJXL "},
    {"JPEG XL", FOREIGN, 0, 2, "\xff\x0a"},
    {"Photoshop", FOREIGN, 0, 4, "8BPS"},
    {"Netpbm", FOREIGN, 0, 2, "P1"},
    {"Netpbm", FOREIGN, 0, 2, "P2"},
    {"Netpbm", FOREIGN, 0, 2, "P3"},
    {"Netpbm", FOREIGN, 0, 2, "P4"},
    {"Netpbm", FOREIGN, 0, 2, "P5"},
    {"Netpbm", FOREIGN, 0, 2, "P6"},
    {"Windows icon", FOREIGN, 0, 4, "\0\0\1\0"},
    {"PDF", FOREIGN, 0, 4, "%PDF"},
};

/* UNKNOWN and FOREIGN come with the error set. */
static enum format identify(const struct bytes *head, resnet_error *error) {
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const struct magic *m = &magics[i];
        if ((size_t)m->at + m->size > head->size || memcmp(head->data + m->at, m->bytes, m->size) != 0)
            continue;
        if (m->format == FOREIGN)
            fail(error, RESNET_ERROR_IMAGE, "%s images are not read, only JPEG, PNG and BMP", m->name);
        return m->format;
    }
    fail(error, RESNET_ERROR_IMAGE, head->size ? "not an image: JPEG, PNG or BMP was expected" : "an empty file");
    return UNKNOWN;
}

resnet_status image_check_size(const char *format, uint64_t width, uint64_t height, resnet_error *error) {
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
        return fail(error, RESNET_ERROR_IMAGE, "%s: %llu x %llu pixels; each side must be 1..%d", format,
                    (unsigned long long)width, (unsigned long long)height, IMAGE_MAX_SIDE);
    if (width * height > IMAGE_MAX_PIXELS)
        return fail(error, RESNET_ERROR_IMAGE, "%s: %llu x %llu pixels are %.1f megapixels; at most %.1f are read",
                    format, (unsigned long long)width, (unsigned long long)height, (double)(width * height) / 1e6,
                    (double)IMAGE_MAX_PIXELS / 1e6);
    return RESNET_OK;
}

static resnet_status decode_jpeg(const struct bytes *file, const resnet_allocator *allocator, struct image *image,
                                 resnet_error *error) {
    struct picture picture;
    resnet_status status = jpeg_check(file, &picture, error);
    return status == RESNET_OK ? jpeg_decode(file, &picture, allocator, image, error) : status;
}

static resnet_status decode_png(const struct bytes *file, const resnet_allocator *allocator, struct image *image,
                                resnet_error *error) {
    struct picture picture;
    struct rebuilt clean;
    resnet_status status = png_rebuild(file, allocator, &picture, &clean, error);
    if (status != RESNET_OK)
        return status;
    status = stb_decode(&clean.file, &picture, allocator, image, error);
    memory_put(allocator, clean.memory, clean.memory_size);
    return status;
}

resnet_status image_decode(const void *data, size_t size, const resnet_allocator *allocator, struct image *image,
                           resnet_error *error) {
    const struct bytes file = {data, size};
    if (size > MAX_FILE)
        return fail(error, RESNET_ERROR_IMAGE, "an image file of %zu bytes; at most %zu are read", size, MAX_FILE);
    switch (identify(&file, error)) {
    case JPEG:
        return decode_jpeg(&file, allocator, image, error);
    case PNG:
        return decode_png(&file, allocator, image, error);
    case BMP:
        return bmp_decode(&file, allocator, image, error);
    default:
        return RESNET_ERROR_IMAGE;
    }
}

void image_free(struct image *image, const resnet_allocator *allocator) {
    memory_put(allocator, image->memory, image->memory_size);
    *image = (struct image){0};
}

/* ---- Files ---- */

/* The format is told from the first bytes, before memory is asked for the rest. */
static resnet_status decode_open(int file, size_t size, const resnet_allocator *allocator, struct image *image,
                                 resnet_error *error) {
    uint8_t head[HEAD];
    struct bytes start = {head, size < HEAD ? size : HEAD};
    resnet_status status = file_read(file, 0, head, start.size, error);
    if (status != RESNET_OK)
        return status;
    enum format format = identify(&start, error);
    if (format == UNKNOWN || format == FOREIGN)
        return RESNET_ERROR_IMAGE;

    uint8_t *data = memory_get(allocator, size);
    if (!data)
        return fail_memory(error, "an image file", size);
    memcpy(data, head, start.size);
    status = file_read(file, start.size, data + start.size, size - start.size, error);
    if (status == RESNET_OK)
        status = image_decode(data, size, allocator, image, error);
    memory_put(allocator, data, size);
    return status;
}

static resnet_status decode_path(const char *path, const resnet_allocator *allocator, struct image *image,
                                 resnet_error *error) {
    int file;
    uint64_t size = 0;
    resnet_status status = file_open(path, &file, &size, error);
    if (status == RESNET_OK && size > MAX_FILE)
        status = fail(error, RESNET_ERROR_IO, "has %llu bytes; of an image file at most %zu are read",
                      (unsigned long long)size, MAX_FILE);
    if (status == RESNET_OK)
        status = decode_open(file, (size_t)size, allocator, image, error);
    if (file >= 0)
        close(file);
    return status;
}

resnet_status image_decode_file(const char *path, const resnet_allocator *allocator, struct image *image,
                                resnet_error *error) {
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = decode_path(path, allocator, image, &reason);
    return status == RESNET_OK ? status : fail_file(error, status, path, &reason);
}
