/* fuzz_guards.c - any bytes behind each format's signature: the checks before the decoders, and our BMP decoder. */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include "fuzz.h"
#include "image_parts.h"

#define MOST_MEMORY ((size_t)96 << 20)

static void check_picture(resnet_status status, const resnet_error *error, const struct picture *picture) {
    fuzz_check_error(status, error);
    if (status != RESNET_OK)
        return;
    REQUIRE(picture->width >= 1 && picture->width <= IMAGE_MAX_SIDE);
    REQUIRE(picture->height >= 1 && picture->height <= IMAGE_MAX_SIDE);
    REQUIRE((uint64_t)picture->width * picture->height <= IMAGE_MAX_PIXELS);
    REQUIRE(picture->pixel_bytes >= 3 && picture->pixel_bytes <= 8);
}

static void try_jpeg(const struct bytes *file) {
    resnet_error error = {RESNET_OK, ""};
    struct picture picture = {0};
    resnet_status status = jpeg_check(file, &picture, &error);
    check_picture(status, &error, &picture);
}

/* What was rebuilt lies in its block. */
static void try_png(const struct bytes *file) {
    struct fuzz_memory memory;
    resnet_error error = {RESNET_OK, ""};
    struct picture picture = {0};
    struct rebuilt clean = {0};
    fuzz_memory_init(&memory, MOST_MEMORY, 0xa5);
    resnet_status status = png_rebuild(file, &memory.allocator, &picture, &clean, &error);
    check_picture(status, &error, &picture);
    if (status == RESNET_OK) {
        REQUIRE(clean.file.data >= clean.memory);
        REQUIRE(clean.file.data + clean.file.size <= clean.memory + clean.memory_size);
        fuzz_release(&memory, clean.memory, clean.memory_size);
    }
    fuzz_memory_check(&memory);
}

static void try_bmp(const struct bytes *file) {
    struct fuzz_memory memory;
    resnet_error error = {RESNET_OK, ""};
    struct image image = {0};
    fuzz_memory_init(&memory, MOST_MEMORY, 0xa5);
    resnet_status status = bmp_decode(file, &memory.allocator, &image, &error);
    fuzz_check_error(status, &error);
    if (status == RESNET_OK)
        REQUIRE(image.memory_size >= (size_t)3 * image.width * image.height);
    image_free(&image, &memory.allocator);
    fuzz_memory_check(&memory);
}

/* The first byte says which; image.c has compared the signature before it calls one of them. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct {
        const char *signature;
        size_t size;
        void (*call)(const struct bytes *file);
    } formats[] = {{"\xff\xd8\xff", 3, try_jpeg}, {"\x89PNG\r\n\x1a\n", 8, try_png}, {"BM", 2, try_bmp}};
    if (size < 1)
        return 0;
    size_t which = data[0] % 3, skip = formats[which].size;
    uint8_t *copy = malloc(skip + size - 1);
    REQUIRE(copy);
    memcpy(copy, formats[which].signature, skip);
    memcpy(copy + skip, data + 1, size - 1);
    formats[which].call(&(struct bytes){copy, skip + size - 1});
    free(copy);
    return 0;
}
