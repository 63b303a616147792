/* image_stb.c - stb_image, compiled as static functions under an allocator that counts, clears and takes all back. */
#include "error.h"
#include "image_parts.h"

#ifndef RESNET_WITH_STB

resnet_status stb_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                         struct image *image, resnet_error *error) {
    (void)file, (void)picture, (void)allocator, (void)image;
    return fail(error, RESNET_ERROR_UNSUPPORTED, "this build reads no JPEG and no PNG: it was made without stb_image");
}

#else

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLACK  ((size_t)32 << 20) /* tables, compressed data, padding of small pictures */

/* In front of each block that stb_image gets. The list is there because it forgets some blocks when it fails. */
struct block {
    struct block *previous, *next;
    size_t size; /* with this header */
};
#define HEADER ((size_t)ALIGNMENT)
_Static_assert(sizeof(struct block) <= ALIGNMENT, "a block's header keeps the alignment of what follows it");

struct budget {
    const resnet_allocator *allocator;
    struct block *blocks;
    size_t left;
    size_t refused;   /* the request that the allocator refused, or 0 */
    bool over_budget; /* a request did not fit `left` */
};

/* stb_image's allocation macros carry no context, so the budget of the running call hangs here: one for each thread,
 * set on entry to stb_decode and cleared before it returns. Nothing outlives the call. */
static _Thread_local struct budget *current;

static void *stb_get(size_t size) {
    struct budget *budget = current;
    size_t total;
    if (!add(size, HEADER, &total) || total > budget->left) {
        budget->over_budget = true;
        return NULL;
    }
    struct block *block = memory_get(budget->allocator, total);
    if (!block) {
        budget->refused = total;
        return NULL;
    }
    memset(block, 0, total); /* a corrupt file must not decode to what the heap held before */
    *block = (struct block){NULL, budget->blocks, total};
    if (budget->blocks)
        budget->blocks->previous = block;
    budget->blocks = block;
    budget->left -= total;
    return (uint8_t *)block + HEADER;
}

static void detach(struct block *block) {
    if (block->next)
        block->next->previous = block->previous;
    if (block->previous)
        block->previous->next = block->next;
    else
        current->blocks = block->next;
}

static struct block *block_of(void *memory) {
    return (struct block *)(void *)((uint8_t *)memory - HEADER);
}

static void stb_put(void *memory) {
    if (!memory)
        return;
    struct block *block = block_of(memory);
    detach(block);
    current->left += block->size;
    memory_put(current->allocator, block, block->size);
}

static void *stb_resize(void *memory, size_t old_size, size_t new_size) {
    void *moved = stb_get(new_size);
    if (!moved || !memory)
        return moved;
    memcpy(moved, memory, old_size < new_size ? old_size : new_size);
    stb_put(memory);
    return moved;
}

/* Without failure strings: they need a mutable global, and say little that our own checks have not said. */
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_FAILURE_STRINGS
#define STBI_ASSERT(condition)                     ((void)0)
#define STBI_MAX_DIMENSIONS                        IMAGE_MAX_SIDE
#define STBI_MALLOC(size)                          stb_get(size)
#define STBI_REALLOC_SIZED(memory, old_size, size) stb_resize(memory, old_size, size)
#define STBI_FREE(memory)                          stb_put(memory)

#pragma GCC diagnostic ignored "-Wunused-function" /* judged at the end of the file, so not popped */
#pragma GCC diagnostic push
#ifdef __clang__
#pragma GCC diagnostic ignored "-Weverything"
#else
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

/* 2.27 lets two sums of a corrupt JPEG overflow: a DC coefficient times its quantiser (the build gives this file
 * -fwrapv) and a shift of 0 by more than 31 bits, past the end of a scan, which is 0 on every machine. */

/* Four times the decoded pixels is what the worst legal files need: a progressive JPEG holds two bytes of coefficients,
 * one of samples and one of output for each sample; an interlaced PNG its stream, twice the inflated bytes, the passes.
 */
static size_t budget_of(const struct picture *picture) {
    return SLACK + (size_t)4 * picture->width * picture->height * picture->pixel_bytes;
}

static resnet_status explain(const struct budget *budget, const struct picture *picture, resnet_error *error) {
    if (budget->refused)
        return fail_memory(error, "decoding an image", budget->refused);
    if (budget->over_budget)
        return fail(
            error, RESNET_ERROR_IMAGE,
            "the image takes more than the %zu MiB that %u x %u pixels can need: it unpacks to more than it shows",
            budget_of(picture) >> 20, (unsigned)picture->width, (unsigned)picture->height);
    return fail(error, RESNET_ERROR_IMAGE, "the compressed picture is corrupt or incomplete (%u x %u pixels)",
                (unsigned)picture->width, (unsigned)picture->height);
}

resnet_status stb_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                         struct image *image, resnet_error *error) {
    struct budget budget = {.allocator = allocator, .left = budget_of(picture)};
    int width = 0, height = 0, components;
    current = &budget;
    uint8_t *pixels = stbi_load_from_memory(file->data, (int)file->size, &width, &height, &components, 3);
    bool whole = pixels && (uint32_t)width == picture->width && (uint32_t)height == picture->height;
    if (whole) {
        struct block *block = block_of(pixels);
        detach(block);
        *image = (struct image){picture->width, picture->height, pixels, block, block->size};
    }
    while (budget.blocks)
        stb_put((uint8_t *)budget.blocks + HEADER);
    current = NULL;
    return whole ? RESNET_OK : explain(&budget, picture, error);
}

#endif
