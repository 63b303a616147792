/* image_png.c - check a PNG's chunks and write a clean PNG for stb_image, which then sees nothing but what stands here.
 */
#include <string.h>

#include "crc.h"
#include "error.h"
#include "image_parts.h"

#define SIGNATURE 8
#define IHDR_SIZE 13
#define FRAME     12 /* length, type and checksum of a chunk */
#define PALETTE   (256 * 3)

/* DEFLATE gives at most 258 bytes for two bits: 1032 times its input. */
#define MAX_RATIO 1032

struct png {
    const struct bytes *file;
    resnet_error *error;
    size_t at; /* the start of the chunk that is read next */
    uint8_t header[IHDR_SIZE];
    uint8_t palette[PALETTE];
    bool has_header, has_palette;
    uint8_t *data; /* all IDAT chunks joined, inside the clean file */
    size_t data_size;
};

struct chunk {
    const uint8_t *type, *data;
    uint32_t size;
};

static resnet_status refuse(const struct png *p, const char *what) {
    return fail(p->error, RESNET_ERROR_IMAGE, "PNG, byte %zu: %s", p->at, what);
}

static bool is(const struct chunk *chunk, const char *type) {
    return memcmp(chunk->type, type, 4) == 0;
}

static uint32_t samples_of(const struct png *p) {
    static const uint8_t samples[7] = {1, 0, 3, 1, 2, 0, 4}; /* by colour type; 0: there is no such type */
    return p->header[9] < 7 ? samples[p->header[9]] : 0;
}

static bool is_palette(const struct png *p) {
    return p->header[9] == 3;
}

/* Grey may have any depth, a palette up to 8 bits, all others 8 or 16. */
static bool depth_fits(uint8_t depth, uint8_t colour) {
    bool small = depth == 1 || depth == 2 || depth == 4;
    return depth == 8 || (small && (colour == 0 || colour == 3)) || (depth == 16 && colour != 3);
}

/* ---- Chunks ---- */

static resnet_status read_header(struct png *p, const struct chunk *chunk) {
    if (chunk->size != IHDR_SIZE)
        return refuse(p, "the header must have 13 bytes");
    memcpy(p->header, chunk->data, IHDR_SIZE);
    p->has_header = true;
    if (!samples_of(p) || !depth_fits(p->header[8], p->header[9]))
        return fail(p->error, RESNET_ERROR_IMAGE, "PNG: colour type %u with %u bits a sample does not exist",
                    p->header[9], p->header[8]);
    if (p->header[10] || p->header[11] || p->header[12] > 1)
        return refuse(p, "an unknown method of compression, filtering or interlacing");
    return image_check_size("PNG", be32(p->header), be32(p->header + 4), p->error);
}

/* Pixels may point beyond a short palette, where stb_image has uninitialised memory: they get Pillow's grey ramp. */
static resnet_status read_palette(struct png *p, const struct chunk *chunk) {
    if (p->has_palette || p->data_size || chunk->size % 3 || chunk->size < 3 || chunk->size > PALETTE)
        return refuse(p, "a palette that is not the only one, not before the pixels, or not of 1..256 colours");
    for (size_t i = 0; i < PALETTE; i++)
        p->palette[i] = i < chunk->size ? chunk->data[i] : (uint8_t)(i / 3);
    p->has_palette = true;
    return RESNET_OK;
}

static resnet_status read_data(struct png *p, const struct chunk *chunk) {
    if (is_palette(p) && !p->has_palette)
        return refuse(p, "the pixels come before the palette");
    if (chunk->size)
        memcpy(p->data + p->data_size, chunk->data, chunk->size);
    p->data_size += chunk->size;
    return RESNET_OK;
}

static resnet_status read_chunk(struct png *p, const struct chunk *chunk) {
    bool critical = !(chunk->type[0] & 0x20);
    if (is(chunk, "CgBI"))
        return fail(p->error, RESNET_ERROR_IMAGE, "PNG: Apple's CgBI variant is not read");
    if (!critical)
        return RESNET_OK;
    if (crc32_more(0, chunk->type, 4 + (size_t)chunk->size) != be32(chunk->data + chunk->size))
        return refuse(p, "a chunk's checksum does not fit its content");
    if (p->has_header == is(chunk, "IHDR"))
        return refuse(p, p->has_header ? "a second header" : "the first chunk is not the header");
    if (is(chunk, "IHDR"))
        return read_header(p, chunk);
    if (is(chunk, "PLTE"))
        return read_palette(p, chunk);
    if (is(chunk, "IDAT"))
        return read_data(p, chunk);
    return is(chunk, "IEND") ? RESNET_OK : refuse(p, "a chunk that is necessary, but of an unknown type");
}

/* Cut the chunk at p->at out of the file; its length is compared with what is left of the file before it is used. */
static resnet_status next_chunk(struct png *p, struct chunk *chunk) {
    const uint8_t *start = p->file->data + p->at;
    size_t left = p->file->size - p->at;
    if (left < FRAME || be32(start) > left - FRAME)
        return fail(p->error, RESNET_ERROR_IMAGE, "PNG: the file is truncated: it ends after %zu bytes, inside a chunk",
                    p->file->size);
    *chunk = (struct chunk){start + 4, start + 8, be32(start)};
    return RESNET_OK;
}

static resnet_status read_chunks(struct png *p) {
    struct chunk chunk = {0};
    do {
        resnet_status status = next_chunk(p, &chunk);
        if (status == RESNET_OK)
            status = read_chunk(p, &chunk);
        if (status != RESNET_OK)
            return status;
        p->at += FRAME + (size_t)chunk.size;
    } while (!is(&chunk, "IEND"));
    return RESNET_OK;
}

/* A few bytes that declare a huge picture are not worth the memory. */
static resnet_status check_data(const struct png *p) {
    uint64_t bits = (uint64_t)be32(p->header) * be32(p->header + 4) * samples_of(p) * p->header[8];
    if (!p->data_size)
        return refuse(p, "the image ends without any picture data");
    if (bits / 8 > (uint64_t)p->data_size * MAX_RATIO)
        return fail(p->error, RESNET_ERROR_IMAGE,
                    "PNG: %zu compressed bytes cannot hold the %u x %u pixels that the header declares", p->data_size,
                    (unsigned)be32(p->header), (unsigned)be32(p->header + 4));
    return RESNET_OK;
}

/* ---- The clean file ---- */

/* Write length and type; return where the content goes. stb_image checks no checksums, so none are written. */
static uint8_t *begin_chunk(uint8_t *to, const char *type, size_t size) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(size >> (24 - 8 * i));
    memcpy(to + 4, type, 4);
    return to + 8;
}

/*
 *   signature | IHDR | PLTE of 256 colours | IDAT ..................... | IEND
 *                                                 ^ p->data, p->data_size bytes
 */
static size_t data_offset(void) {
    return SIGNATURE + FRAME + IHDR_SIZE + FRAME + PALETTE + 8;
}

/* Put the frame around the joined data. Without a palette the file begins later, so that the data need not move. */
static void finish(const struct png *p, struct rebuilt *clean) {
    uint8_t *start = clean->memory + (is_palette(p) ? 0 : FRAME + PALETTE), *to = start;
    memcpy(to, p->file->data, SIGNATURE);
    to = begin_chunk(to + SIGNATURE, "IHDR", IHDR_SIZE);
    memcpy(to, p->header, IHDR_SIZE);
    to += IHDR_SIZE + 4;
    if (is_palette(p)) {
        to = begin_chunk(to, "PLTE", PALETTE);
        memcpy(to, p->palette, PALETTE);
        to += PALETTE + 4;
    }
    to = begin_chunk(to, "IDAT", p->data_size) + p->data_size + 4;
    to = begin_chunk(to, "IEND", 0) + 4;
    clean->file = (struct bytes){start, (size_t)(to - start)};
}

resnet_status png_rebuild(const struct bytes *file, const resnet_allocator *allocator, struct picture *picture,
                          struct rebuilt *clean, resnet_error *error) {
    struct png p = {.file = file, .error = error, .at = SIGNATURE};
    clean->memory_size = data_offset() + file->size + 4 + FRAME;
    clean->memory = memory_get(allocator, clean->memory_size);
    if (!clean->memory)
        return fail_memory(error, "the chunks of a PNG", clean->memory_size);
    p.data = clean->memory + data_offset();
    resnet_status status = read_chunks(&p);
    if (status == RESNET_OK)
        status = check_data(&p);
    if (status != RESNET_OK) {
        memory_put(allocator, clean->memory, clean->memory_size);
        return status;
    }
    finish(&p, clean);
    uint32_t samples = samples_of(&p) < 3 ? 3 : samples_of(&p);
    *picture = (struct picture){be32(p.header), be32(p.header + 4), samples * (p.header[8] == 16 ? 2 : 1)};
    return RESNET_OK;
}
