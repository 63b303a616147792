/* memory_faults.h - an allocator of exact blocks, so that a sanitizer sees any access beyond one, which counts, fills
 * what it hands out with a byte of choice, and fails on demand. */
#ifndef MEMORY_FAULTS_H
#define MEMORY_FAULTS_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "resnet.h"

struct faults {
    unsigned fill;
    size_t calls, blocks, bytes, peak;
    size_t fail_at;    /* the call that is refused, counted from 1; 0: none */
    bool fail_forever; /* all later ones too */
};

static void *faults_allocate(void *context, size_t size) {
    struct faults *faults = context;
    void *memory = NULL;
    faults->calls++;
    if (faults->fail_at &&
        (faults->calls == faults->fail_at || (faults->fail_forever && faults->calls > faults->fail_at)))
        return NULL;
    if (posix_memalign(&memory, 64, size))
        return NULL;
    memset(memory, (int)faults->fill, size);
    faults->blocks++;
    faults->bytes += size;
    if (faults->bytes > faults->peak)
        faults->peak = faults->bytes;
    return memory;
}

static void faults_release(void *context, void *memory, size_t size) {
    struct faults *faults = context;
    faults->blocks--;
    faults->bytes -= size;
    free(memory);
}

static inline resnet_allocator faults_allocator(struct faults *faults) {
    return (resnet_allocator){faults_allocate, faults_release, faults};
}

/* The CRC-32 of zlib. */
static inline uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

#endif
