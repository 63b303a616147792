/* fuzz_image.c - any bytes as an image: decoded or refused with a line, and twice the same whatever the heap held. */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include "fuzz.h"
#include "image.h"

#define MOST_MEMORY ((size_t)96 << 20) /* what a small picture may take, and more than a small input is worth */

static resnet_status decode(const uint8_t *data, size_t size, struct fuzz_memory *memory, struct image *image) {
    resnet_error error = {RESNET_OK, ""};
    uint8_t *copy = fuzz_copy(data, size);
    resnet_status status = image_decode(copy, size, &memory->allocator, image, &error);
    free(copy);
    fuzz_check_error(status, &error);
    if (status != RESNET_OK)
        fuzz_memory_check(memory);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_memory memory[2];
    struct image image[2] = {{0}, {0}};
    resnet_status status[2];
    for (int i = 0; i < 2; i++) {
        fuzz_memory_init(&memory[i], MOST_MEMORY, i ? 0xa5 : 0);
        status[i] = decode(data, size, &memory[i], &image[i]);
    }
    REQUIRE(status[0] == status[1]);
    if (status[0] == RESNET_OK) {
        size_t bytes = (size_t)3 * image[0].width * image[0].height;
        REQUIRE(image[0].width > 0 && image[0].height > 0);
        REQUIRE(image[0].width == image[1].width && image[0].height == image[1].height);
        REQUIRE(memcmp(image[0].pixels, image[1].pixels, bytes) == 0);
    }
    for (int i = 0; i < 2; i++) {
        image_free(&image[i], &memory[i].allocator);
        fuzz_memory_check(&memory[i]);
    }
    return 0;
}
