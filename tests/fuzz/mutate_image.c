/* mutate_image.c - change an image file, and mend the checksums of a PNG, which would only hide the change. */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

static void mend_png(uint8_t *data, size_t size) {
    for (size_t at = 8; at + 12 <= size && be32(data + at) <= size - at - 12; at += 12 + (size_t)be32(data + at)) {
        size_t content = be32(data + at);
        uint32_t crc = crc32_of(data + at + 4, 4 + content);
        for (int i = 0; i < 4; i++)
            data[at + 8 + content + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, most);
    if (size > 8 && be32(data) == 0x89504e47 && seed % 16)
        mend_png(data, size);
    return size;
}
