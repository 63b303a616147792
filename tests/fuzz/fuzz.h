/*
 * fuzz.h - what the fuzz targets share: a check that stops the program, and an allocator that counts, has a limit and
 * fills what it hands out.
 *
 * A target is one file with LLVMFuzzerTestOneInput, which libFuzzer calls in a build with RESNET_FUZZ, and replay.c in
 * any build. Its inputs lie in blocks of their own size, so that the address sanitizer sees a look beyond them.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resnet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input; else the program ends as at a sanitizer's report. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A status and the error that came with it belong together: one terminated line on failure, no change on success. The
 * error was {RESNET_OK, ""} before the call. */
static inline void fuzz_check_error(resnet_status status, const resnet_error *error) {
    size_t length = strnlen(error->message, sizeof error->message);
    REQUIRE(error->status == status);
    REQUIRE(length < sizeof error->message);
    REQUIRE((length == 0) == (status == RESNET_OK));
    for (size_t i = 0; i < length; i++)
        REQUIRE((unsigned char)error->message[i] >= 0x20);
}

/* Give &x.allocator to the library; x must stay where it is. For any number of threads. */
struct fuzz_memory {
    resnet_allocator allocator;
    atomic_size_t bytes, blocks; /* now */
    size_t limit;                /* of bytes: what goes beyond is refused */
    int fill;
};

static inline void *fuzz_allocate(void *context, size_t size) {
    struct fuzz_memory *memory = context;
    void *block = NULL;
    if (size > memory->limit || memory->bytes > memory->limit - size || posix_memalign(&block, 64, size))
        return NULL;
    memset(block, memory->fill, size);
    memory->bytes += size;
    memory->blocks++;
    return block;
}

static inline void fuzz_release(void *context, void *block, size_t size) {
    struct fuzz_memory *memory = context;
    memory->bytes -= size;
    memory->blocks--;
    free(block);
}

static inline void fuzz_memory_init(struct fuzz_memory *memory, size_t limit, int fill) {
    *memory = (struct fuzz_memory){{fuzz_allocate, fuzz_release, memory}, 0, 0, limit, fill};
}

/* Everything was given back, with the sizes that it was asked for. */
static inline void fuzz_memory_check(const struct fuzz_memory *memory) {
    REQUIRE(memory->blocks == 0);
    REQUIRE(memory->bytes == 0);
}

/* The input in a block of its own size; the caller frees it. */
static inline uint8_t *fuzz_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    REQUIRE(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

/* FNV-1a: choices that the input decides, but no part of it names. */
static inline uint32_t fuzz_hash(const uint8_t *data, size_t size) {
    uint32_t hash = 0x811c9dc5;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 0x01000193;
    return hash ^ hash >> 15;
}

/* The next bits of an input that is used as a stream of numbers; zeros behind its end. */
struct fuzz_stream {
    const uint8_t *data;
    size_t size;
};

static inline uint32_t fuzz_take(struct fuzz_stream *stream, size_t bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < bytes && stream->size; i++, stream->size--)
        value |= (uint32_t)*stream->data++ << 8 * i;
    return value;
}

#endif
