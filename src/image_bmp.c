/* image_bmp.c - decode an uncompressed BMP; stb_image's own decoder trusts palette sizes and gives 5 bits a rounding
 * other than Pillow's. */
#include "error.h"
#include "image_parts.h"

#define FILE_HEADER 14
#define CORE_HEADER 12 /* OS/2's: 16-bit sizes, three bytes a palette entry */

enum compression {
    PLAIN = 0,
    RLE8 = 1,
    RLE4 = 2,
    BITFIELDS = 3,
    EMBEDDED_JPEG = 4,
    EMBEDDED_PNG = 5,
    ALPHA_BITFIELDS = 6
};

struct bmp {
    const struct bytes *file;
    resnet_error *error;
    uint32_t header_size, offset, width, height, bits, compression;
    bool bottom_up;
    uint8_t palette[256][3];
    uint32_t mask[3]; /* red, green, blue of 16 and 32-bit pixels */
};

static resnet_status refuse(const struct bmp *b, const char *what, uint32_t number) {
    return fail(b->error, RESNET_ERROR_IMAGE, "BMP: %s (%u)", what, (unsigned)number);
}

static resnet_status truncated(const struct bmp *b, uint64_t needed) {
    return fail(b->error, RESNET_ERROR_IMAGE, "BMP: the file is truncated: it has %zu bytes of the %llu that it needs",
                b->file->size, (unsigned long long)needed);
}

static bool knows_header(uint32_t size) {
    return size == CORE_HEADER || size == 40 || size == 52 || size == 56 || size == 64 || size == 108 || size == 124;
}

static bool knows_bits(const struct bmp *b) {
    bool indexed = b->bits == 1 || b->bits == 2 || b->bits == 4 || b->bits == 8;
    bool masked = (b->bits == 16 || b->bits == 32) && b->header_size != CORE_HEADER;
    return indexed || b->bits == 24 || masked;
}

static resnet_status check_compression(const struct bmp *b) {
    if (b->compression == RLE8 || b->compression == RLE4)
        return refuse(b, "run-length compression is not read, only uncompressed pixels", b->compression);
    if (b->compression == EMBEDDED_JPEG || b->compression == EMBEDDED_PNG)
        return refuse(b, "an embedded JPEG or PNG is not read, only uncompressed pixels", b->compression);
    bool masked = (b->compression == BITFIELDS || b->compression == ALPHA_BITFIELDS) && b->header_size != 64;
    if (b->compression != PLAIN && !(masked && (b->bits == 16 || b->bits == 32)))
        return refuse(b, "an unknown compression, or one that does not fit the pixel's bits", b->compression);
    return RESNET_OK;
}

/* Bits a channel: as the masks after the 40-byte header say, else 5 (16-bit pixels) or 8. */
static resnet_status read_masks(struct bmp *b) {
    static const uint32_t masks16[3] = {0x7c00, 0x03e0, 0x001f}, masks32[3] = {0xff0000, 0x00ff00, 0x0000ff};
    const uint32_t *usual = b->bits == 16 ? masks16 : masks32;
    for (unsigned c = 0; c < 3; c++) {
        const uint8_t *stored = b->file->data + FILE_HEADER + 40 + 4 * c;
        if (b->compression != PLAIN && b->file->size < FILE_HEADER + 52)
            return truncated(b, FILE_HEADER + 52);
        b->mask[c] = b->compression == PLAIN ? usual[c] : le32(stored);
        uint32_t lowest = b->mask[c] & -b->mask[c]; /* a run of ones carries up when its lowest bit is added */
        if (!b->mask[c] || (b->mask[c] & (b->mask[c] + lowest)))
            return refuse(b, "a colour's mask is not one run of bits", b->mask[c]);
    }
    return RESNET_OK;
}

static uint32_t entry_size(const struct bmp *b) {
    return b->header_size == CORE_HEADER ? 3 : 4;
}

/* The number of palette entries: as declared, or all. Like Pillow, do not guess it from where the pixels begin. */
static uint32_t colours_of(const struct bmp *b) {
    uint32_t declared = b->header_size == CORE_HEADER ? 0 : le32(b->file->data + FILE_HEADER + 32);
    return declared && declared < 1u << b->bits ? declared : 1u << b->bits;
}

/* Where the file ends first, or pixels point beyond the palette, stands Pillow's grey ramp. */
static void read_palette(struct bmp *b) {
    uint32_t entry = entry_size(b), start = FILE_HEADER + b->header_size, colours = colours_of(b);
    size_t fitting = (b->file->size - start) / entry;
    for (uint32_t i = 0; i < 256; i++)
        for (uint32_t c = 0; c < 3; c++)
            b->palette[i][c] = i < colours && i < fitting ? b->file->data[start + i * entry + 2 - c] : (uint8_t)i;
}

static resnet_status read_header(struct bmp *b) {
    const uint8_t *data = b->file->data, *header = data + FILE_HEADER;
    if (b->file->size < FILE_HEADER + CORE_HEADER)
        return truncated(b, FILE_HEADER + CORE_HEADER);
    b->offset = le32(data + 10);
    b->header_size = le32(header);
    if (!knows_header(b->header_size))
        return refuse(b, "an unknown size of header", b->header_size);
    if (b->file->size < FILE_HEADER + b->header_size)
        return truncated(b, FILE_HEADER + b->header_size);
    bool core = b->header_size == CORE_HEADER;
    b->width = core ? le16(header + 4) : le32(header + 4);
    b->height = core ? le16(header + 6) : le32(header + 8);
    b->bits = le16(header + (core ? 10 : 14));
    b->compression = core ? PLAIN : le32(header + 16);
    b->bottom_up = core || b->height <= INT32_MAX;
    b->height = b->bottom_up ? b->height : -b->height; /* negative: rows run from the top */
    return RESNET_OK;
}

/* Bytes of a row, which fill 32-bit words. */
static size_t stride_of(const struct bmp *b) {
    return ((size_t)b->width * b->bits + 31) / 32 * 4;
}

static resnet_status check_header(struct bmp *b) {
    if (!knows_bits(b))
        return refuse(b, "a number of bits a pixel that is not read", b->bits);
    resnet_status status = check_compression(b);
    if (status == RESNET_OK)
        status = image_check_size("BMP", b->width, b->height, b->error);
    if (status != RESNET_OK)
        return status;
    if (b->bits <= 8 && b->offset == FILE_HEADER + b->header_size)
        b->offset += entry_size(b) * colours_of(b); /* some files forget that there is a palette; Pillow skips it too */
    /* The last row may lack its padding. */
    uint64_t end = b->offset + (uint64_t)stride_of(b) * (b->height - 1) + ((uint64_t)b->width * b->bits + 7) / 8;
    if (b->offset < FILE_HEADER + b->header_size)
        return refuse(b, "the pixels begin inside the header, at byte", b->offset);
    if (end > b->file->size)
        return truncated(b, end);
    if (b->bits <= 8)
        read_palette(b);
    return b->bits <= 8 || b->bits == 24 ? RESNET_OK : read_masks(b);
}

/* ---- Pixels ---- */

static void put_indexed(const struct bmp *b, const uint8_t *row, uint8_t *out) {
    uint32_t a_byte = 8 / b->bits;
    for (uint32_t x = 0; x < b->width; x++) {
        uint32_t shift = 8 - b->bits * (x % a_byte + 1);
        const uint8_t *colour = b->palette[(uint32_t)row[x / a_byte] >> shift & ((1u << b->bits) - 1)];
        for (int c = 0; c < 3; c++)
            *out++ = colour[c];
    }
}

static void put_bgr(const struct bmp *b, const uint8_t *row, uint8_t *out) {
    for (uint32_t x = 0; x < b->width; x++, row += 3)
        for (int c = 0; c < 3; c++)
            *out++ = row[2 - c];
}

/* A channel of n bits becomes 8 as in Pillow: value * 255 / (2^n - 1), rounded down. */
static void put_masked(const struct bmp *b, const uint8_t *row, uint8_t *out) {
    uint32_t bytes = b->bits / 8;
    for (uint32_t x = 0; x < b->width; x++, row += bytes) {
        uint32_t pixel = bytes == 2 ? le16(row) : le32(row);
        for (int c = 0; c < 3; c++) {
            uint32_t lowest = b->mask[c] & -b->mask[c];
            *out++ = (uint8_t)((uint64_t)((pixel & b->mask[c]) / lowest) * 255 / (b->mask[c] / lowest));
        }
    }
}

static void put_rows(const struct bmp *b, uint8_t *pixels) {
    for (uint32_t y = 0; y < b->height; y++) {
        const uint8_t *row = b->file->data + b->offset + stride_of(b) * (b->bottom_up ? b->height - 1 - y : y);
        uint8_t *out = pixels + (size_t)3 * b->width * y;
        if (b->bits <= 8)
            put_indexed(b, row, out);
        else if (b->bits == 24)
            put_bgr(b, row, out);
        else
            put_masked(b, row, out);
    }
}

resnet_status bmp_decode(const struct bytes *file, const resnet_allocator *allocator, struct image *image,
                         resnet_error *error) {
    struct bmp b = {.file = file, .error = error};
    resnet_status status = read_header(&b);
    if (status == RESNET_OK)
        status = check_header(&b);
    if (status != RESNET_OK)
        return status;
    size_t size = (size_t)3 * b.width * b.height;
    uint8_t *pixels = memory_get(allocator, size);
    if (!pixels)
        return fail_memory(error, "an image's pixels", size);
    put_rows(&b, pixels);
    *image = (struct image){b.width, b.height, pixels, pixels, size};
    return RESNET_OK;
}
