/* image_turbo.c - JPEGs by libjpeg-turbo, in a build that chooses it: the pixels of Pillow and torchvision to the bit.
 */
#include "image_parts.h"

#ifndef RESNET_WITH_TURBO

resnet_status jpeg_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                          struct image *image, resnet_error *error) {
    return stb_decode(file, picture, allocator, image, error);
}

#else

#include <setjmp.h>
#include <stdio.h> /* for jpeglib.h */

#include <jerror.h>
#include <jpeglib.h>
#ifndef LIBJPEG_TURBO_VERSION
#error "this libjpeg is another than libjpeg-turbo"
#endif

struct decoder {
    struct jpeg_decompress_struct jpeg; /* its client_data is the decoder */
    struct jpeg_error_mgr errors;
    struct budget budget;
    const struct bytes *file;
    struct image decoded; /* pixels: NULL until all are there */
    jmp_buf end;
};

/* ---- Errors ---- */

static void stop(j_common_ptr jpeg) {
    struct decoder *d = jpeg->client_data;
    d->budget.refused |= jpeg->err->msg_code == JERR_OUT_OF_MEMORY; /* maybe of malloc, see create */
    longjmp(d->end, 1);
}

/* Where data is missing or wrong, libjpeg makes pixels up and goes on with a warning. */
static void judge_message(j_common_ptr jpeg, int level) {
    int code = jpeg->err->msg_code;
    if (level < 0 && (code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC))
        stop(jpeg);
}

/* ---- Memory ---- */

static void *get(j_common_ptr jpeg, int pool, size_t size) {
    struct decoder *d = jpeg->client_data;
    void *memory = budget_get(&d->budget, size);
    (void)pool; /* all pools end with the call */
    if (!memory)
        ERREXIT1(jpeg, JERR_OUT_OF_MEMORY, 0);
    return memory;
}

/* Pointers to rows, which are padded as libjpeg's own manager does: its vector code works beyond their ends. */
static JSAMPARRAY get_rows(j_common_ptr jpeg, int pool, JDIMENSION size, JDIMENSION count) {
    size_t stride = align_up(size);
    JSAMPARRAY rows = get(jpeg, pool, count * sizeof *rows);
    JSAMPROW row = get(jpeg, pool, count * stride);
    for (JDIMENSION i = 0; i < count; i++, row += stride)
        rows[i] = row;
    return rows;
}

static JBLOCKARRAY get_blocks(j_common_ptr jpeg, int pool, JDIMENSION blocks, JDIMENSION count) {
    return (JBLOCKARRAY)(void *)get_rows(jpeg, pool, blocks * (JDIMENSION)sizeof(JBLOCK), count);
}

/* A progressive picture's coefficients. A virtual array could lie on a disk; ours are in memory. */
static jvirt_barray_ptr get_virtual(j_common_ptr jpeg, int pool, boolean zeroed, JDIMENSION blocks, JDIMENSION count,
                                    JDIMENSION most) {
    (void)zeroed, (void)most;
    return (jvirt_barray_ptr)(void *)get_blocks(jpeg, pool, blocks, count);
}

static JBLOCKARRAY rows_of_virtual(j_common_ptr jpeg, jvirt_barray_ptr array, JDIMENSION start, JDIMENSION count,
                                   boolean writable) {
    (void)jpeg, (void)count, (void)writable;
    return (JBLOCKARRAY)(void *)array + start;
}

/* ---- Decoding ---- */

/* The decoder's own few kilobytes come from malloc, before it can be told otherwise; all the rest from the budget. */
static void create(struct decoder *d) {
    d->jpeg.err = jpeg_std_error(&d->errors);
    d->errors.error_exit = stop;
    d->errors.emit_message = judge_message;
    d->jpeg.client_data = d;
    d->budget.asked = sizeof d->jpeg; /* about what malloc is asked for */
    jpeg_create_decompress(&d->jpeg);
    d->jpeg.mem->alloc_small = d->jpeg.mem->alloc_large = get;
    d->jpeg.mem->alloc_sarray = get_rows;
    d->jpeg.mem->alloc_barray = get_blocks;
    d->jpeg.mem->request_virt_barray = get_virtual;
    d->jpeg.mem->access_virt_barray = rows_of_virtual;
}

/* As Pillow does: CMYK is stored inverted, and a channel is its share of what black leaves, rounded as a product of
 * two fractions of 255. */
static void put_cmyk(const uint8_t *cmyk, uint8_t *rgb, size_t width) {
    for (size_t x = 0; x < width; x++, cmyk += 4)
        for (int c = 0; c < 3; c++) {
            unsigned product = (255u - cmyk[c]) * cmyk[3] + 128;
            *rgb++ = (uint8_t)(cmyk[3] - ((product + (product >> 8)) >> 8));
        }
}

static void decode(struct decoder *d) {
    j_decompress_ptr jpeg = &d->jpeg;
    create(d);
    jpeg_mem_src(jpeg, d->file->data, d->file->size);
    jpeg_read_header(jpeg, TRUE);
    bool cmyk = jpeg->num_components == 4;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(jpeg);
    size_t width = jpeg->output_width, height = jpeg->output_height;
    uint8_t *pixels = get((j_common_ptr)jpeg, JPOOL_IMAGE, 3 * width * height);
    uint8_t *unmixed = get((j_common_ptr)jpeg, JPOOL_IMAGE, 4 * width);
    for (uint8_t *rgb = pixels; jpeg->output_scanline < height; rgb += 3 * width) {
        jpeg_read_scanlines(jpeg, cmyk ? &unmixed : &rgb, 1);
        if (cmyk)
            put_cmyk(unmixed, rgb, width);
    }
    d->decoded = (struct image){.width = (uint32_t)width, .height = (uint32_t)height, .pixels = pixels};
}

/* What libjpeg's errors come back to, past nothing but libjpeg and `decode`. */
static void decode_or_stop(struct decoder *d) {
    if (!setjmp(d->end))
        decode(d);
}

resnet_status jpeg_decode(const struct bytes *file, const struct picture *picture, const resnet_allocator *allocator,
                          struct image *image, resnet_error *error) {
    struct decoder d = {.budget = budget_begin(picture, allocator), .file = file};
    decode_or_stop(&d);
    jpeg_destroy_decompress(&d.jpeg);
    return budget_end(&d.budget, &d.decoded, image, error);
}

#endif
