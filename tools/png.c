/* png.c - write a picture as a PNG file: stb_image_write, compiled as static functions. */
#include "png.h"

#include <stdlib.h>
#include <string.h>

#include "output_file.h"
#include "system.h"

/* It looks at no allocation, so it gets those that end the program with a complaint. */
static void *resize(void *memory, size_t old_size, size_t new_size) {
    void *moved = allocate(new_size, 1);
    if (memory)
        memcpy(moved, memory, old_size < new_size ? old_size : new_size);
    free(memory);
    return moved;
}

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STBIW_ASSERT(condition)                     ((void)0)
#define STBIW_MALLOC(size)                          allocate(size, 1)
#define STBIW_REALLOC_SIZED(memory, old_size, size) resize(memory, old_size, size)
#define STBIW_REALLOC(memory, size)                 NULL /* not used where there is the sized one */
#define STBIW_FREE(memory)                          free(memory)

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
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

static void put(void *file, void *bytes, int size) {
    fwrite(bytes, 1, (size_t)size, file); /* the commit finds what went wrong */
}

bool png_write(const char *name, const struct raster *raster) {
    struct output_file output;
    if (!output_open(&output, name))
        return false;
    stbi_write_png_to_func(put, output.file, (int)raster->width, (int)raster->height, 3, raster->pixels, 0);
    return output_commit(&output);
}
