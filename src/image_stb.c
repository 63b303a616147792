/* image_stb.c - stb_image, compiled as static functions that take their memory from a budget. */
#include "error.h"
#include "image_parts.h"

#ifndef RESNET_WITH_STB

resnet_status stb_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                         struct image *image, resnet_error *error) {
    (void)file, (void)picture, (void)allocator, (void)image;
    return fail(error, RESNET_ERROR_UNSUPPORTED, "this build cannot decode it: it was made without stb_image");
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

/* stb_image's allocation macros carry no context, so the budget of the running call hangs here: one for each thread,
 * set on entry to stb_decode and cleared before it returns. Nothing outlives the call. */
static _Thread_local struct budget *current;

static void *stb_resize(void *memory, size_t old_size, size_t new_size) {
    void *moved = budget_get(current, new_size);
    if (!moved || !memory)
        return moved;
    memcpy(moved, memory, old_size < new_size ? old_size : new_size);
    budget_put(current, memory);
    return moved;
}

/* Without failure strings: they need a mutable global, and say little that our own checks have not said. */
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#ifndef RESNET_WITH_TURBO
#define STBI_ONLY_JPEG
#endif
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_FAILURE_STRINGS
#define STBI_ASSERT(condition)                     ((void)0)
#define STBI_MAX_DIMENSIONS                        IMAGE_MAX_SIDE
#define STBI_MALLOC(size)                          budget_get(current, size)
#define STBI_REALLOC_SIZED(memory, old_size, size) stb_resize(memory, old_size, size)
#define STBI_FREE(memory)                          budget_put(current, memory)

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

resnet_status stb_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                         struct image *image, resnet_error *error) {
    struct budget budget = budget_begin(picture, allocator);
    int width = 0, height = 0, components;
    current = &budget;
    uint8_t *pixels = stbi_load_from_memory(file->data, (int)file->size, &width, &height, &components, 3);
    current = NULL;
    return budget_end(&budget, &(struct image){.width = (uint32_t)width, .height = (uint32_t)height, .pixels = pixels},
                      image, error);
}

#endif
