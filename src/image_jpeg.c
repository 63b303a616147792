/* image_jpeg.c - check a JPEG's markers before a decoder sees them: what stb_image misreads or cannot read ends here.
 */
#include <string.h>

#include "error.h"
#include "image_parts.h"

#define MAX_SCANS 100 /* a progressive file needs about ten; each may cost a pass over the picture for a few bytes */

enum frame_marker { SOF0 = 0xc0, SOF1 = 0xc1, SOF2 = 0xc2, DNL = 0xdc };
enum table_marker { DHT = 0xc4, DQT = 0xdb, DRI = 0xdd };
enum other_marker {
    RST0 = 0xd0,
    RST7 = 0xd7,
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    APP0 = 0xe0,
    APP14 = 0xee,
    COM = 0xfe
};

struct component {
    uint8_t id, h, v, quantiser;
};

struct jpeg {
    const struct bytes *file;
    resnet_error *error;
    size_t at;    /* the byte that is read next */
    size_t where; /* the start of the segment being checked, for messages */
    uint32_t width, height, components, scans;
    struct component component[4];
    bool progressive;
    int adobe_transform; /* -1: no Adobe marker */
    /* bit n: table n is defined */
    unsigned quantisers, dc_tables, ac_tables;
};

/* A segment's content, without its marker and length. */
struct segment {
    const uint8_t *data;
    size_t size;
};

static resnet_status refuse(const struct jpeg *j, const char *what) {
    return fail(j->error, RESNET_ERROR_IMAGE, "JPEG, byte %zu: %s", j->where, what);
}

static resnet_status truncated(const struct jpeg *j) {
    return fail(j->error, RESNET_ERROR_IMAGE,
                "JPEG: the file is truncated: it ends after %zu bytes without an end marker", j->file->size);
}

/* ---- Tables ---- */

/*
 * The counts of codes of 1..16 bits make a prefix code that leaves the code of all ones free, as libjpeg demands.
 * stb_image 2.27 writes the code lengths before it looks at their sum, and so beyond its table where it exceeds 256.
 */
static bool counts_make_a_code(const uint8_t counts[16], size_t *symbols) {
    uint32_t next = 0;
    *symbols = 0;
    for (int bits = 1; bits <= 16; bits++, next <<= 1) {
        next += counts[bits - 1];
        *symbols += counts[bits - 1];
        if (counts[bits - 1] && next >= 1u << bits)
            return false;
    }
    return *symbols <= 256;
}

static resnet_status check_huffman(struct jpeg *j, struct segment s) {
    while (s.size) {
        size_t symbols;
        if (s.size < 17 || s.data[0] >> 4 > 1 || (s.data[0] & 15) > 3)
            return refuse(j, "a Huffman table's header is wrong");
        if (!counts_make_a_code(s.data + 1, &symbols))
            return refuse(j, "a Huffman table's code lengths make no prefix code of at most 256 symbols");
        if (s.size < 17 + symbols)
            return refuse(j, "a Huffman table is longer than its segment");
        unsigned bit = 1u << (s.data[0] & 15);
        *(s.data[0] >> 4 ? &j->ac_tables : &j->dc_tables) |= bit;
        s.data += 17 + symbols;
        s.size -= 17 + symbols;
    }
    return RESNET_OK;
}

static resnet_status check_quantisers(struct jpeg *j, struct segment s) {
    while (s.size) {
        size_t bytes = s.data[0] >> 4 ? 129 : 65;
        if (s.data[0] >> 4 > 1 || (s.data[0] & 15) > 3)
            return refuse(j, "a quantisation table's header is wrong");
        if (s.size < bytes)
            return refuse(j, "a quantisation table is longer than its segment");
        j->quantisers |= 1u << (s.data[0] & 15);
        s.data += bytes;
        s.size -= bytes;
    }
    return RESNET_OK;
}

/* ---- The frame ---- */

/* stb_image and libjpeg upsample by whole factors only. */
static bool factors_divide(const struct jpeg *j) {
    unsigned h = 1, v = 1;
    for (unsigned c = 0; c < j->components; c++) {
        h = j->component[c].h > h ? j->component[c].h : h;
        v = j->component[c].v > v ? j->component[c].v : v;
    }
    for (unsigned c = 0; c < j->components; c++)
        if (h % j->component[c].h || v % j->component[c].v)
            return false;
    return true;
}

static resnet_status read_components(struct jpeg *j, const uint8_t *data) {
    for (unsigned c = 0; c < j->components; c++, data += 3) {
        struct component *to = &j->component[c];
        *to = (struct component){data[0], data[1] >> 4, data[1] & 15, data[2]};
        if (to->h < 1 || to->h > 4 || to->v < 1 || to->v > 4 || to->quantiser > 3)
            return refuse(j, "a component's sampling factors (1..4) or quantisation table (0..3) are out of range");
        for (unsigned before = 0; before < c; before++)
            if (j->component[before].id == to->id)
                return refuse(j, "two components have the same id");
    }
    if (!factors_divide(j))
        return refuse(j, "the sampling factors of the components are no multiples of one another");
    return RESNET_OK;
}

static resnet_status check_frame(struct jpeg *j, int marker, struct segment s) {
    if (j->components)
        return refuse(j, "a second frame header");
    if (s.size < 6 || s.size != 6 + 3u * s.data[5])
        return refuse(j, "the frame header's length does not fit its number of components");
    if (s.data[0] != 8)
        return fail(j->error, RESNET_ERROR_IMAGE, "JPEG: %u-bit samples are not read, only 8-bit", s.data[0]);
    if (s.data[5] != 1 && s.data[5] != 3 && s.data[5] != 4)
        return fail(j->error, RESNET_ERROR_IMAGE, "JPEG: %u colour components; 1, 3 or 4 were expected", s.data[5]);
    j->height = be16(s.data + 1);
    j->width = be16(s.data + 3);
    j->components = s.data[5];
    j->progressive = marker == SOF2;
    resnet_status status = image_check_size("JPEG", j->width, j->height, j->error);
    if (status != RESNET_OK)
        return status;
    /* The finest component has a block for every 8 x 8 pixels, and a block takes a bit at least: a short file that
     * declares a huge picture is not worth the memory. */
    uint64_t blocks = (uint64_t)((j->width + 7) / 8) * ((j->height + 7) / 8);
    if (blocks / 8 > j->file->size)
        return fail(j->error, RESNET_ERROR_IMAGE,
                    "JPEG: %zu bytes cannot hold the %u x %u pixels that the header declares", j->file->size,
                    (unsigned)j->width, (unsigned)j->height);
    return read_components(j, s.data + 6);
}

/* ---- Scans ---- */

/* Four components are CMYK, or YCCK, stored inverted, in every program that writes them; all of them say so. */
static resnet_status check_colours(const struct jpeg *j) {
    if (j->components == 4 && j->adobe_transform != 0 && j->adobe_transform != 2)
        return refuse(j, "four components without an Adobe marker that says CMYK or YCCK");
    return RESNET_OK;
}

static const struct component *find_component(const struct jpeg *j, uint8_t id) {
    for (unsigned c = 0; c < j->components; c++)
        if (j->component[c].id == id)
            return &j->component[c];
    return NULL;
}

/* Whether a scan with these spectral and approximation parameters reads the DC or the AC table. */
static bool tables_defined(const struct jpeg *j, uint8_t selectors, const uint8_t *spectrum) {
    bool refinement = spectrum[2] >> 4;
    bool needs_dc = !j->progressive || (spectrum[0] == 0 && !refinement);
    bool needs_ac = !j->progressive || spectrum[0] > 0;
    return (!needs_dc || j->dc_tables >> (selectors >> 4) & 1) && (!needs_ac || j->ac_tables >> (selectors & 15) & 1);
}

static bool spectrum_is_legal(const struct jpeg *j, const uint8_t *spectrum, unsigned components) {
    unsigned first = spectrum[0], last = spectrum[1], high = spectrum[2] >> 4, low = spectrum[2] & 15;
    if (!j->progressive)
        return first == 0 && high == 0 && low == 0;
    return first <= last && last <= 63 && high <= 13 && low <= 13 && (first == 0 ? last == 0 : components == 1);
}

static resnet_status check_scan(struct jpeg *j, struct segment s) {
    if (!j->components)
        return refuse(j, "a scan before the frame header");
    if (s.size < 1 || s.data[0] < 1 || s.data[0] > j->components || s.size != 4 + 2u * s.data[0])
        return refuse(j, "the scan header's length does not fit its number of components");
    if (++j->scans > MAX_SCANS)
        return fail(j->error, RESNET_ERROR_IMAGE, "JPEG: more than %d scans", MAX_SCANS);
    unsigned count = s.data[0], used = 0, blocks = 0;
    const uint8_t *spectrum = s.data + 1 + 2 * count;
    if (!spectrum_is_legal(j, spectrum, count))
        return refuse(j, "the scan header's spectral selection or approximation is out of range");
    for (unsigned c = 0; c < count; c++) {
        const uint8_t *entry = s.data + 1 + 2 * c;
        const struct component *component = find_component(j, entry[0]);
        unsigned bit = component ? 1u << (component - j->component) : 0;
        if (!component || used & bit)
            return refuse(j, "a scan names a component that the frame has not, or names it twice");
        if (entry[1] >> 4 > 3 || (entry[1] & 15) > 3 || !tables_defined(j, entry[1], spectrum))
            return refuse(j, "a scan uses a Huffman table that is not defined");
        if (!(j->quantisers >> component->quantiser & 1))
            return refuse(j, "a component uses a quantisation table that is not defined");
        used |= bit;
        blocks += (unsigned)component->h * component->v;
    }
    if (count > 1 && blocks > 10)
        return refuse(j, "more than 10 blocks in a unit of an interleaved scan");
    return check_colours(j);
}

/* Past the entropy-coded bytes to the marker that ends them: neither a stuffed zero nor a restart. */
static void skip_scan(struct jpeg *j) {
    const uint8_t *data = j->file->data;
    size_t size = j->file->size;
    while (j->at < size) {
        const uint8_t *found = memchr(data + j->at, 0xff, size - j->at);
        j->at = found ? (size_t)(found - data) : size;
        if (j->at + 1 >= size)
            break;
        uint8_t next = data[j->at + 1];
        if (next != 0 && next != 0xff && (next < RST0 || next > RST7))
            return;
        j->at += next == 0xff ? 1 : 2;
    }
    j->at = size;
}

/* ---- The walk ---- */

static const char *name_unread(int marker) {
    if (marker == 0xc3)
        return "lossless";
    if (marker >= 0xc5 && marker <= 0xc7)
        return "hierarchical";
    if (marker >= 0xc9 && marker <= 0xcf) /* 0xcc: not a frame, but the conditioning that comes before one */
        return "arithmetic-coded";
    return marker == 0xf7 ? "JPEG-LS" : NULL;
}

static resnet_status refuse_marker(const struct jpeg *j, int marker) {
    const char *name = name_unread(marker);
    if (name)
        return fail(j->error, RESNET_ERROR_IMAGE, "JPEG: %s images are not read, only baseline and progressive Huffman",
                    name);
    return fail(j->error, RESNET_ERROR_IMAGE, "JPEG, byte %zu: marker 0xff%02x is not expected here", j->where,
                (unsigned)marker);
}

/* Adobe's marker: "Adobe", version, flags, and at byte 11 how the colours are coded. */
static void read_adobe(struct jpeg *j, struct segment s) {
    if (s.size >= 12 && memcmp(s.data, "Adobe", 6) == 0)
        j->adobe_transform = s.data[11];
}

static resnet_status check_segment(struct jpeg *j, int marker, struct segment s) {
    switch (marker) {
    case SOF0:
    case SOF1:
    case SOF2:
        return check_frame(j, marker, s);
    case DHT:
        return check_huffman(j, s);
    case DQT:
        return check_quantisers(j, s);
    case SOS:
        return check_scan(j, s);
    case DRI:
        return s.size == 2 ? RESNET_OK : refuse(j, "the restart interval's segment must have 4 bytes");
    case DNL:
        return s.size == 2 && be16(s.data) == j->height ? RESNET_OK
                                                        : refuse(j, "a second height that differs from the first");
    case APP14:
        read_adobe(j, s);
        return RESNET_OK;
    default:
        return (marker >= APP0 && marker < APP0 + 16) || marker == COM ? RESNET_OK : refuse_marker(j, marker);
    }
}

/* The next marker, or -1 with the error set. Before the frame, bytes other than 0xff may lie between segments: some
 * cameras pad, and stb_image skips as much, but no more. */
static int next_marker(struct jpeg *j) {
    const uint8_t *data = j->file->data;
    size_t size = j->file->size;
    while (!j->components && j->at < size && data[j->at] != 0xff)
        j->at++;
    j->where = j->at;
    if (j->at < size && data[j->at] != 0xff)
        return refuse(j, "a marker was expected, not stray bytes"), -1;
    while (j->at < size && data[j->at] == 0xff)
        j->at++;
    if (j->at >= size)
        return truncated(j), -1;
    return data[j->at++];
}

static resnet_status step(struct jpeg *j, int marker) {
    const uint8_t *length = j->file->data + j->at;
    size_t left = j->file->size - j->at;
    if (marker == 0 || marker == 1 || (marker >= RST0 && marker <= SOI))
        return refuse_marker(j, marker); /* they have no length */
    if (left < 2 || left < be16(length))
        return truncated(j);
    if (be16(length) < 2)
        return refuse(j, "a segment is shorter than its own length field");
    j->at += be16(length);
    resnet_status status = check_segment(j, marker, (struct segment){length + 2, be16(length) - 2});
    if (status == RESNET_OK && marker == SOS)
        skip_scan(j);
    return status;
}

resnet_status jpeg_check(const struct bytes *file, struct picture *picture, resnet_error *error) {
    struct jpeg j = {.file = file, .error = error, .at = 2, .adobe_transform = -1};
    int marker;
    while ((marker = next_marker(&j)) != EOI) {
        if (marker < 0)
            return RESNET_ERROR_IMAGE;
        resnet_status status = step(&j, marker);
        if (status != RESNET_OK)
            return status;
    }
    if (!j.scans)
        return refuse(&j, "the image ends without any picture data");
    *picture = (struct picture){j.width, j.height, j.components == 4 ? 4 : 3};
    return RESNET_OK;
}
