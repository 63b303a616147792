/*
 * test_guards.c - the checks in front of stb_image, at the edge of each rule: the last value that passes, and the first
 * that does not.
 *
 * Files are made here, marker by marker and chunk by chunk; nothing is decoded but BMPs. Every file lies in a block of
 * its own size, so that a sanitizer sees any look beyond it.
 */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "image_parts.h"
#include "memory_faults.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- Files ---- */

struct file {
    uint8_t data[1 << 16];
    size_t size;
};

static void put(struct file *f, const void *bytes, size_t size) {
    assert_true(f->size + size <= sizeof f->data);
    memcpy(f->data + f->size, bytes, size);
    f->size += size;
}

static void put_byte(struct file *f, unsigned byte) {
    put(f, &(uint8_t){(uint8_t)byte}, 1);
}

/* The most significant byte first, or the least. */
static void put_be(struct file *f, uint32_t value, int size) {
    for (int i = size - 1; i >= 0; i--)
        put_byte(f, value >> 8 * i & 0xff);
}

static void put_le(struct file *f, uint32_t value, int size) {
    for (int i = 0; i < size; i++)
        put_byte(f, value >> 8 * i & 0xff);
}

typedef resnet_status guard(const struct bytes *file, resnet_error *error);

/* The check accepts the file, or, with a message, refuses it with words that contain it. */
static void expect(guard *check, const struct file *f, const char *message, const char *name) {
    resnet_error error = {RESNET_OK, ""};
    uint8_t *copy = malloc(f->size);
    assert_non_null(copy);
    memcpy(copy, f->data, f->size);
    resnet_status status = check(&(struct bytes){copy, f->size}, &error);
    free(copy);
    if (status != (message ? RESNET_ERROR_IMAGE : RESNET_OK) || (message && !strstr(error.message, message)))
        fail_msg("%s: status %d, \"%s\"; expected \"%s\"", name, (int)status, error.message, message ? message : "");
}

/* ---- JPEG ---- */

enum { SOF0 = 0xc0, SOF2 = 0xc2, DHT = 0xc4, EOI = 0xd9, SOS = 0xda, DQT = 0xdb, DNL = 0xdc, DRI = 0xdd, APP14 = 0xee };

static struct picture seen; /* what the last JPEG's check said */

static resnet_status check_jpeg(const struct bytes *file, resnet_error *error) {
    return jpeg_check(file, &seen, error);
}

static void expect_jpeg(const struct file *f, const char *message, const char *name) {
    expect(check_jpeg, f, message, name);
}

static void segment(struct file *f, unsigned marker, const void *content, size_t size) {
    put_byte(f, 0xff);
    put_byte(f, marker);
    put_be(f, (uint32_t)size + 2, 2);
    put(f, content, size);
}

static void marker(struct file *f, unsigned code) {
    put_byte(f, 0xff);
    put_byte(f, code);
}

/* A quantisation table of ones, of 8 bits, or of 16 where the upper half of the byte says so. */
static void quantiser(struct file *f, unsigned which) {
    uint8_t content[129];
    memset(content, 1, sizeof content);
    content[0] = (uint8_t)which;
    segment(f, DQT, content, which >> 4 ? 129 : 65);
}

/* A Huffman table of one code. */
static void huffman(struct file *f, unsigned which) {
    uint8_t content[18] = {(uint8_t)which, 1};
    segment(f, DHT, content, sizeof content);
}

struct part {
    uint8_t id, sampling, quantiser;
};

struct frame {
    unsigned marker, width, height, count;
    struct part parts[4];
};

static const struct frame grey = {SOF0, 8, 8, 1, {{1, 0x11, 0}}};
static const struct frame colour = {SOF0, 8, 8, 3, {{1, 0x11, 0}, {2, 0x11, 0}, {3, 0x11, 0}}};
static const struct frame inks = {SOF0, 8, 8, 4, {{1, 0x11, 0}, {2, 0x11, 0}, {3, 0x11, 0}, {4, 0x11, 0}}};
static const struct frame progressive = {SOF2, 8, 8, 3, {{1, 0x11, 0}, {2, 0x11, 0}, {3, 0x11, 0}}};

static void put_frame(struct file *f, struct frame frame) {
    uint8_t content[18] = {8,
                           (uint8_t)(frame.height >> 8),
                           (uint8_t)frame.height,
                           (uint8_t)(frame.width >> 8),
                           (uint8_t)frame.width,
                           (uint8_t)frame.count};
    for (unsigned c = 0; c < frame.count && c < 4; c++)
        memcpy(content + 6 + 3 * c, &frame.parts[c], 3);
    segment(f, frame.marker, content, 6 + 3 * frame.count);
}

/* A scan of the components 1..count, with table 0, and these three bytes behind them. */
static void scan_with(struct file *f, unsigned count, unsigned tables, const char *spectrum) {
    uint8_t content[12] = {(uint8_t)count};
    for (unsigned c = 0; c < count; c++) {
        content[1 + 2 * c] = (uint8_t)(c + 1);
        content[2 + 2 * c] = (uint8_t)tables;
    }
    memcpy(content + 1 + 2 * count, spectrum, 3);
    segment(f, SOS, content, 4 + 2 * count);
}

static void scan(struct file *f, unsigned count) {
    scan_with(f, count, 0, "\0\x3f\0");
}

/* Up to the frame, with the tables 0. */
static void begin(struct file *f, const struct frame *frame) {
    f->size = 0;
    marker(f, 0xd8);
    quantiser(f, 0);
    huffman(f, 0x00);
    huffman(f, 0x10);
    if (frame)
        put_frame(f, *frame);
}

static void end(struct file *f, unsigned components) {
    scan(f, components);
    marker(f, EOI);
}

static struct file file; /* too large for a stack */

static void whole_jpegs_pass(void **state) {
    (void)state;
    begin(&file, &grey);
    end(&file, 1);
    expect_jpeg(&file, NULL, "grey");
    assert_int_equal(seen.width, 8);
    assert_int_equal(seen.height, 8);
    assert_int_equal(seen.pixel_bytes, 3);
    begin(&file, &(struct frame){SOF0, 24, 16, 3, {{1, 0x22, 0}, {2, 0x11, 0}, {3, 0x11, 0}}});
    end(&file, 3);
    expect_jpeg(&file, NULL, "colour");
    assert_int_equal(seen.width, 24);
    assert_int_equal(seen.height, 16);
}

static void frames_at_the_edge(void **state) {
    static const struct {
        const char *name;
        struct frame frame;
        const char *message;
    } cases[] = {
        {"factors of 4", {SOF0, 8, 8, 1, {{1, 0x44, 0}}}, NULL},
        {"a factor of 5 across", {SOF0, 8, 8, 1, {{1, 0x51, 0}}}, "sampling factors"},
        {"a factor of 5 down", {SOF0, 8, 8, 1, {{1, 0x15, 0}}}, "sampling factors"},
        {"a factor of 0 across", {SOF0, 8, 8, 1, {{1, 0x01, 0}}}, "sampling factors"},
        {"a factor of 0 down", {SOF0, 8, 8, 1, {{1, 0x10, 0}}}, "sampling factors"},
        {"quantiser 4", {SOF0, 8, 8, 1, {{1, 0x11, 4}}}, "sampling factors"},
        {"quantiser 3, which is not there", {SOF0, 8, 8, 1, {{1, 0x11, 3}}}, "quantisation table that is not"},
        {"3 and 2 across", {SOF0, 8, 8, 3, {{1, 0x31, 0}, {2, 0x21, 0}, {3, 0x11, 0}}}, "no multiples"},
        {"3 and 2 down", {SOF0, 8, 8, 3, {{1, 0x13, 0}, {2, 0x12, 0}, {3, 0x11, 0}}}, "no multiples"},
        {"2 and 3 in the last", {SOF0, 8, 8, 3, {{1, 0x11, 0}, {2, 0x21, 0}, {3, 0x31, 0}}}, "no multiples"},
        {"2 and 3 in the first", {SOF0, 8, 8, 3, {{1, 0x21, 0}, {2, 0x31, 0}, {3, 0x11, 0}}}, "no multiples"},
        {"the last two alike", {SOF0, 8, 8, 3, {{1, 0x11, 0}, {3, 0x11, 0}, {3, 0x11, 0}}}, "same id"},
        {"first and last alike", {SOF0, 8, 8, 3, {{1, 0x11, 0}, {2, 0x11, 0}, {1, 0x11, 0}}}, "same id"},
        {"no components", {SOF0, 8, 8, 0, {{0}}}, "0 colour components"},
        {"10 blocks", {SOF0, 8, 8, 3, {{1, 0x22, 0}, {2, 0x22, 0}, {3, 0x12, 0}}}, NULL},
        {"11 blocks", {SOF0, 8, 8, 3, {{1, 0x33, 0}, {2, 0x11, 0}, {3, 0x11, 0}}}, "more than 10 blocks"},
        {"16 blocks of one component", {SOF0, 8, 8, 1, {{1, 0x44, 0}}}, NULL},
        {"two inks", {SOF0, 8, 8, 2, {{1, 0x11, 0}, {2, 0x11, 0}}}, "2 colour components"},
        {"no width", {SOF0, 0, 8, 1, {{1, 0x11, 0}}}, "0 x 8 pixels"},
        {"no height", {SOF0, 8, 0, 1, {{1, 0x11, 0}}}, "8 x 0 pixels"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        begin(&file, &cases[i].frame);
        end(&file, cases[i].frame.count);
        expect_jpeg(&file, cases[i].message, cases[i].name);
    }
}

/* A block takes a bit at least. */
static void frames_that_the_file_could_hold(void **state) {
    (void)state;
    for (unsigned extra = 0; extra < 2; extra++) {
        begin(&file, NULL);
        size_t size = file.size + 13 + 10 + 2; /* a frame, a scan, the end */
        unsigned blocks = (unsigned)(8 * (size + extra));
        put_frame(&file, (struct frame){SOF0, 8 * blocks, 8, 1, {{1, 0x11, 0}}});
        end(&file, 1);
        assert_int_equal(file.size, size);
        expect_jpeg(&file, extra ? "cannot hold" : NULL, "as wide as it can be");
        begin(&file, NULL);
        put_frame(&file, (struct frame){SOF0, 8, 8 * blocks - 7, 1, {{1, 0x11, 0}}});
        end(&file, 1);
        expect_jpeg(&file, extra ? "cannot hold" : NULL, "as high as it can be, the last row cut");
    }
}

static void frames_of_other_lengths(void **state) {
    uint8_t content[10] = {8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0};
    (void)state;
    for (size_t size = 0; size <= 10; size++) {
        begin(&file, NULL);
        segment(&file, SOF0, content, size);
        if (size != 9) /* where the file ends with it, too */
            expect_jpeg(&file, "the frame header's length", "a frame of another length at the end");
        end(&file, 1);
        expect_jpeg(&file, size == 9 ? NULL : "the frame header's length", "a frame of another length");
    }
    content[0] = 12;
    begin(&file, NULL);
    segment(&file, SOF0, content, 9);
    expect_jpeg(&file, "12-bit samples", "12 bits");
    begin(&file, &grey);
    put_frame(&file, grey);
    expect_jpeg(&file, "a second frame header", "two frames");
}

static void four_components_are_inks(void **state) {
    uint8_t adobe[13] = "Adobe\0\x64\0\0\0\0";
    (void)state;
    for (int transform = 0; transform < 4; transform++)
        for (size_t size = 11; size <= 13; size++) {
            adobe[11] = (uint8_t)transform;
            begin(&file, NULL);
            segment(&file, APP14, adobe, size);
            put_frame(&file, inks);
            end(&file, 4);
            bool good = size >= 12 && (transform == 0 || transform == 2);
            expect_jpeg(&file, good ? NULL : "without an Adobe marker", "four components");
            assert_true(!good || seen.pixel_bytes == 4);
        }
    static const char *const names[] = {"Adobf\0\x64\0\0\0\0\0", "Adobe!\x64\0\0\0\0\0"};
    for (size_t i = 0; i < COUNT(names); i++) {
        begin(&file, NULL);
        segment(&file, APP14, names[i], 12);
        put_frame(&file, inks);
        end(&file, 4);
        expect_jpeg(&file, "without an Adobe marker", "another name");
    }
    begin(&file, NULL);
    segment(&file, APP14, adobe, 11);
    put_byte(&file, 2); /* a stray byte, where the transform would be */
    put_frame(&file, inks);
    end(&file, 4);
    expect_jpeg(&file, "without an Adobe marker", "a marker that ends before its transform");
    begin(&file, &colour); /* three need none */
    end(&file, 3);
    expect_jpeg(&file, NULL, "three components");
}

static void huffman_tables_at_the_edge(void **state) {
    static const struct {
        const char *name;
        uint8_t which, at, count; /* of codes of `at` bits */
        size_t size;              /* of the segment */
        const char *message;
    } cases[] = {
        {"one code of a bit", 0x00, 1, 1, 18, NULL},
        {"two codes of a bit", 0x00, 1, 2, 19, "no prefix code"},
        {"three codes of 2 bits", 0x00, 2, 3, 20, NULL},
        {"four codes of 2 bits", 0x00, 2, 4, 21, "no prefix code"},
        {"255 codes of 8 bits", 0x00, 8, 255, 272, NULL},
        {"255 codes of 16 bits", 0x00, 16, 255, 272, NULL},
        {"no codes", 0x00, 1, 0, 17, NULL},
        {"half a head", 0x00, 1, 0, 16, "Huffman table's header"},
        {"a byte less", 0x00, 16, 255, 271, "longer than its segment"},
        {"a byte more", 0x00, 1, 1, 19, "Huffman table's header"},
        {"AC table 3", 0x13, 1, 1, 18, NULL},
        {"DC table 3", 0x03, 1, 1, 18, NULL},
        {"DC table 4", 0x04, 1, 1, 18, "Huffman table's header"},
        {"class 2", 0x20, 1, 1, 18, "Huffman table's header"},
    };
    uint8_t content[300];
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        memset(content, 0, sizeof content);
        content[0] = cases[i].which;
        content[cases[i].at] = cases[i].count;
        begin(&file, &grey);
        segment(&file, DHT, content, cases[i].size);
        end(&file, 1);
        expect_jpeg(&file, cases[i].message, cases[i].name);
    }
    for (unsigned more = 1; more < 3; more++) { /* 256 symbols, and one more */
        memset(content, 0, sizeof content);
        content[15] = 255;
        content[16] = (uint8_t)more;
        begin(&file, &grey);
        segment(&file, DHT, content, 17 + 255 + more);
        end(&file, 1);
        expect_jpeg(&file, more == 1 ? NULL : "at most 256 symbols", "256 symbols");
    }
    memset(content, 0, sizeof content);
    content[1] = 1; /* 0, and then nothing is left where two of 2 bits follow */
    content[2] = 2;
    begin(&file, &grey);
    segment(&file, DHT, content, 20);
    expect_jpeg(&file, "no prefix code", "codes that leave no all ones");
}

static void several_tables_in_a_segment(void **state) {
    uint8_t content[36] = {0x01, 1}, quantisers[130] = {1};
    (void)state;
    content[18] = 0x11;
    content[19] = 1;
    quantisers[65] = 3;
    for (unsigned tables = 0; tables < 0x40; tables += 0x11) { /* the scan uses DC and AC tables of this number */
        begin(&file, NULL);
        segment(&file, DHT, content, sizeof content);
        segment(&file, DQT, quantisers, sizeof quantisers);
        put_frame(&file, (struct frame){SOF0, 8, 8, 1, {{1, 0x11, tables ? 3 : 1}}});
        scan_with(&file, 1, tables, "\0\x3f\0");
        marker(&file, EOI);
        expect_jpeg(&file, tables < 0x20 ? NULL : "Huffman table that is not defined", "two tables in a segment");
    }
}

static void quantisers_at_the_edge(void **state) {
    static const struct {
        uint8_t which;
        size_t size;
        const char *message;
    } cases[] = {
        {0x00, 65, NULL},
        {0x03, 65, NULL},
        {0x13, 129, NULL},
        {0x04, 65, "table's header"},
        {0x20, 129, "table's header"},
        {0x00, 64, "longer than its segment"},
        {0x10, 128, "longer than its segment"},
        {0x00, 1, "longer than its segment"},
        {0x00, 0, NULL},
    };
    uint8_t content[130];
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        memset(content, 0, sizeof content);
        content[0] = cases[i].which;
        begin(&file, &grey);
        segment(&file, DQT, content, cases[i].size);
        end(&file, 1);
        expect_jpeg(&file, cases[i].message, "a quantisation table");
    }
}

static void spectra_at_the_edge(void **state) {
    static const char wrong[] = "spectral selection", missing[] = "Huffman table that is not";
    static const struct {
        const struct frame *frame;
        unsigned count, tables;
        const char *spectrum, *message;
    } cases[] = {
        {&grey, 1, 0, "\0\x3f\0", NULL},
        {&grey, 1, 0, "\1\x3f\0", wrong},
        {&grey, 1, 0, "\0\x3f\x10", wrong},
        {&grey, 1, 0, "\0\x3f\1", wrong},
        {&grey, 1, 0x01, "\0\x3f\0", missing},
        {&grey, 1, 0x10, "\0\x3f\0", missing},
        {&grey, 1, 0x04, "\0\x3f\0", missing},
        {&grey, 1, 0x40, "\0\x3f\0", missing},
        {&progressive, 3, 0, "\0\0\0", NULL},
        {&progressive, 3, 0x01, "\0\0\0", NULL}, /* DC alone */
        {&progressive, 3, 0x10, "\0\0\0", missing},
        {&progressive, 3, 0x11, "\0\0\x10", NULL}, /* a refinement of DC reads bits */
        {&progressive, 3, 0, "\0\1\0", wrong},
        {&progressive, 1, 0, "\1\x3f\0", NULL},
        {&progressive, 1, 0x10, "\1\x3f\0", NULL}, /* AC alone */
        {&progressive, 1, 0x01, "\1\x3f\0", missing},
        {&progressive, 1, 0x01, "\1\x3f\x10", missing},
        {&progressive, 1, 0x40, "\1\x3f\0", missing}, /* no such table, though none is read */
        {&progressive, 3, 0x04, "\0\0\0", missing},
        {&progressive, 1, 0x30, "\1\x3f\0", NULL},
        {&progressive, 3, 0x03, "\0\0\0", NULL},
        {&progressive, 1, 0, "\1\x40\0", wrong},
        {&progressive, 1, 0, "\5\5\0", NULL},
        {&progressive, 1, 0, "\5\4\0", wrong},
        {&progressive, 1, 0, "\1\x3f\xdd", NULL},
        {&progressive, 1, 0, "\1\x3f\x0e", wrong},
        {&progressive, 1, 0, "\1\x3f\xe0", wrong},
        {&progressive, 2, 0, "\1\x3f\0", wrong},
        {&progressive, 3, 0, "\1\x3f\0", wrong},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char name[32];
        snprintf(name, sizeof name, "spectrum %zu", i);
        begin(&file, cases[i].frame);
        scan_with(&file, cases[i].count, cases[i].tables, cases[i].spectrum);
        marker(&file, EOI);
        expect_jpeg(&file, cases[i].message, name);
    }
}

static void scans_of_other_lengths(void **state) {
    uint8_t content[12] = {3, 1, 0, 2, 0, 3, 0, 0, 0x3f, 0};
    (void)state;
    for (size_t size = 0; size <= 11; size++) {
        begin(&file, &colour);
        segment(&file, SOS, content, size);
        if (size != 10)
            expect_jpeg(&file, "the scan header's length", "a scan of another length at the end");
        marker(&file, EOI);
        expect_jpeg(&file, size == 10 ? NULL : "the scan header's length", "a scan of another length");
    }
    content[0] = 0;
    begin(&file, &colour);
    segment(&file, SOS, content, 4);
    expect_jpeg(&file, "the scan header's length", "a scan of nothing");
    begin(&file, &grey);
    scan(&file, 2);
    expect_jpeg(&file, "the scan header's length", "more components than the frame's");
    begin(&file, &colour);
    segment(&file, SOS, "\3\1\0\2\0\2\0\0\x3f\0", 10);
    expect_jpeg(&file, "or names it twice", "a component twice");
    begin(&file, &colour);
    segment(&file, SOS, "\1\4\0\0\x3f\0", 6);
    expect_jpeg(&file, "names a component that the frame has not", "a component of no frame");
    begin(&file, NULL);
    end(&file, 1);
    expect_jpeg(&file, "before the frame header", "a scan first");
}

static void a_hundred_scans(void **state) {
    (void)state;
    for (int scans = 100; scans <= 101; scans++) {
        begin(&file, &grey);
        for (int i = 0; i < scans; i++)
            scan(&file, 1);
        marker(&file, EOI);
        expect_jpeg(&file, scans == 100 ? NULL : "more than 100 scans", "many scans");
    }
    begin(&file, &grey);
    marker(&file, EOI);
    expect_jpeg(&file, "without any picture data", "no scans");
}

static void put_text(struct file *f, const char *text) {
    put(f, text, strlen(text));
}

/* What may stand between segments, and among the codes of a scan. */
static void bytes_between_segments(void **state) {
    (void)state;
    begin(&file, NULL);
    put_text(&file, "stray\xff\xff"); /* before the frame; and markers may be filled up */
    put_frame(&file, grey);
    end(&file, 1);
    expect_jpeg(&file, NULL, "stray bytes before the frame");
    begin(&file, NULL);
    marker(&file, 1); /* which has no length */
    put_frame(&file, grey);
    expect_jpeg(&file, "marker 0xff01 is not expected here", "a marker for arithmetic coding");
    begin(&file, &grey);
    put_text(&file, "x");
    end(&file, 1);
    expect_jpeg(&file, "stray bytes", "a stray byte behind the frame");
    for (unsigned next = 0; next < 256; next++) { /* 0xff and this within a scan */
        bool in_scan = next == 0 || next == 0xff || (next >= 0xd0 && next <= 0xd7);
        bool has_segment = (next >= 0xe0 && next <= 0xef) || next == 0xfe;
        begin(&file, &grey);
        scan(&file, 1);
        put_text(&file, "abc");
        put_byte(&file, 0xff);
        put_byte(&file, next);
        put_be(&file, 3, 2); /* the length of a segment of a byte */
        put_byte(&file, 0x55);
        marker(&file, EOI);
        if (in_scan || has_segment || next == EOI)
            expect_jpeg(&file, NULL, "codes");
        else
            expect_jpeg(&file, "JPEG", "another marker");
    }
    begin(&file, &grey);
    scan(&file, 1);
    put_text(&file, "abc\xff\xff\xff");
    marker(&file, EOI);
    expect_jpeg(&file, NULL, "a marker behind codes that is filled up");
    begin(&file, &grey);
    scan(&file, 1);
    expect_jpeg(&file, "truncated", "the end right behind a scan");
    put_byte(&file, 0xff);
    expect_jpeg(&file, "truncated", "half a marker");
    put_byte(&file, 0xd0);
    expect_jpeg(&file, "truncated", "a restart at the end");
    put_byte(&file, 0x12);
    expect_jpeg(&file, "truncated", "codes at the end");
}

static void markers_that_are_not_read(void **state) {
    (void)state;
    for (unsigned code = 0; code < 256; code++) {
        const char *message = code == 0xc3                   ? "lossless"
                              : code >= 0xc5 && code <= 0xc7 ? "hierarchical"
                              : code >= 0xc9 && code <= 0xcf ? "arithmetic-coded"
                              : code == 0xf7                 ? "JPEG-LS"
                                                             : "is not expected here";
        bool is_known = code == 0xc0 || code == 0xc1 || code == 0xc2 || code == DHT || code == 0xff || code == EOI ||
                        code == SOS || code == DQT || code == DNL || code == DRI || (code >= 0xe0 && code <= 0xef) ||
                        code == 0xfe;
        begin(&file, NULL);
        segment(&file, code, "\1\2", 2);
        put_frame(&file, grey);
        end(&file, 1);
        if ((code >= 0xe0 && code <= 0xef) || code == 0xfe || code == DRI)
            expect_jpeg(&file, NULL, "a segment that is skipped");
        else if (!is_known)
            expect_jpeg(&file, message, "a segment that is not read");
    }
    for (unsigned code = 0xd0; code <= 0xd8; code++) {
        begin(&file, &grey);
        segment(&file, code, "\1\2", 2);
        expect_jpeg(&file, "is not expected here", "a marker without a length");
    }
}

static void short_segments(void **state) {
    (void)state;
    for (unsigned length = 0; length < 3; length++) {
        begin(&file, &grey);
        marker(&file, 0xfe);
        put_be(&file, length, 2);
        expect_jpeg(&file, length < 2 ? "shorter than its own length" : "truncated", "a comment of nothing");
        if (length == 2) {
            end(&file, 1);
            expect_jpeg(&file, NULL, "a comment of nothing, and the rest");
        }
    }
    begin(&file, &grey);
    marker(&file, 0xfe);
    expect_jpeg(&file, "truncated", "no length");
    put_byte(&file, 0);
    expect_jpeg(&file, "truncated", "half a length");
    begin(&file, &grey);
    segment(&file, 0xfe, "abc", 3);
    file.size--;
    expect_jpeg(&file, "truncated", "a byte less");
    for (size_t size = 1; size <= 3; size++) {
        begin(&file, &grey);
        segment(&file, DRI, "\0\1\0", size);
        end(&file, 1);
        expect_jpeg(&file, size == 2 ? NULL : "restart interval", "a restart interval");
        begin(&file, &grey);
        segment(&file, DNL, "\0\x8\0", size);
        end(&file, 1);
        expect_jpeg(&file, size == 2 ? NULL : "second height", "a height");
    }
    begin(&file, &grey);
    segment(&file, DNL, "\0\x9", 2);
    expect_jpeg(&file, "second height", "another height");
}

/* ---- Sizes ---- */

static void sizes_at_the_edge(void **state) {
    static const struct {
        uint64_t width, height;
        const char *message;
    } cases[] = {
        {1, 1, NULL},
        {65535, 1, NULL},
        {1, 65535, NULL},
        {8192, 8192, NULL},
        {1024, 65535, NULL},
        {65536, 1, "each side must be 1..65535"},
        {1, 65536, "each side must be 1..65535"},
        {0, 1, "each side must be 1..65535"},
        {1, 0, "each side must be 1..65535"},
        {8192, 8193, "at most 67.1 are read"},
        {8193, 8192, "at most 67.1 are read"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        resnet_error error = {RESNET_OK, ""};
        resnet_status status = image_check_size("X", cases[i].width, cases[i].height, &error);
        assert_int_equal(status, cases[i].message ? RESNET_ERROR_IMAGE : RESNET_OK);
        assert_true(!cases[i].message || strstr(error.message, cases[i].message));
    }
}

/* ---- PNG ---- */

static resnet_status check_png(const struct bytes *bytes, resnet_error *error) {
    struct faults faults = {.fill = 0xa5};
    resnet_allocator allocator = faults_allocator(&faults);
    struct rebuilt clean;
    resnet_status status = png_rebuild(bytes, &allocator, &seen, &clean, error);
    if (status == RESNET_OK)
        memory_put(&allocator, clean.memory, clean.memory_size);
    assert_int_equal(faults.blocks, 0);
    assert_int_equal(faults.bytes, 0);
    return status;
}

static void expect_png(const struct file *f, const char *message, const char *name) {
    expect(check_png, f, message, name);
}

static void chunk(struct file *f, const char *type, const void *content, size_t size) {
    put_be(f, (uint32_t)size, 4);
    size_t start = f->size;
    put(f, type, 4);
    put(f, content, size);
    put_be(f, crc32_of(f->data + start, f->size - start), 4);
}

struct ihdr {
    uint32_t width, height;
    uint8_t depth, colour, compression, filter, interlace;
};

static void begin_png(struct file *f, struct ihdr h) {
    uint8_t content[13] = {0,
                           0,
                           (uint8_t)(h.width >> 8),
                           (uint8_t)h.width,
                           0,
                           0,
                           (uint8_t)(h.height >> 8),
                           (uint8_t)h.height,
                           h.depth,
                           h.colour,
                           h.compression,
                           h.filter,
                           h.interlace};
    f->size = 0;
    put(f, "\x89PNG\r\n\x1a\n", 8);
    chunk(f, "IHDR", content, sizeof content);
}

static void end_png(struct file *f) {
    chunk(f, "IDAT", "0123456789", 10);
    chunk(f, "IEND", "", 0);
}

static void headers_of_png(void **state) {
    (void)state;
    for (unsigned colour_type = 0; colour_type < 9; colour_type++)
        for (unsigned depth = 0; depth < 18; depth++) {
            bool small = depth == 1 || depth == 2 || depth == 4;
            bool fits = colour_type == 0   ? small || depth == 8 || depth == 16
                        : colour_type == 3 ? small || depth == 8
                                           : depth == 8 || depth == 16;
            bool exists = colour_type != 1 && colour_type != 5 && colour_type < 7 && fits;
            begin_png(&file, (struct ihdr){1, 1, (uint8_t)depth, (uint8_t)colour_type, 0, 0, 0});
            if (colour_type == 3)
                chunk(&file, "PLTE", "abc", 3);
            end_png(&file);
            expect_png(&file, exists ? NULL : "does not exist", "a colour type and a depth");
            if (exists)
                assert_int_equal(seen.pixel_bytes, (colour_type == 6 ? 4 : 3) * (depth == 16 ? 2 : 1));
        }
    for (int field = 0; field < 3; field++)
        for (uint8_t value = 0; value < 3; value++) {
            begin_png(&file, (struct ihdr){1, 2, 8, 0, field == 0 ? value : 0, field == 1 ? value : 0,
                                           field == 2 ? value : 0});
            end_png(&file);
            expect_png(&file, value > (field == 2) ? "an unknown method" : NULL, "a method");
            assert_true(value || (seen.width == 1 && seen.height == 2));
        }
    for (size_t size = 12; size <= 14; size++) {
        file.size = 8;
        chunk(&file, "IHDR", "\0\0\0\1\0\0\0\1\x8\0\0\0\0\0", size);
        end_png(&file);
        expect_png(&file, size == 13 ? NULL : "must have 13 bytes", "a header of another length");
    }
}

static void palettes_at_the_edge(void **state) {
    static const uint8_t colours[771];
    (void)state;
    for (size_t size = 0; size <= 771; size++) {
        begin_png(&file, (struct ihdr){1, 1, 8, 3, 0, 0, 0});
        chunk(&file, "PLTE", colours, size);
        end_png(&file);
        expect_png(&file, size % 3 || !size || size > 768 ? "a palette that is" : NULL, "a palette");
    }
    begin_png(&file, (struct ihdr){1, 1, 8, 3, 0, 0, 0});
    chunk(&file, "PLTE", colours, 3);
    chunk(&file, "PLTE", colours, 3);
    end_png(&file);
    expect_png(&file, "a palette that is not the only one", "two palettes");
    begin_png(&file, (struct ihdr){1, 1, 8, 2, 0, 0, 0}); /* a suggestion, where pixels have colours of their own */
    end_png(&file);
    file.size -= 12;
    chunk(&file, "PLTE", colours, 3);
    chunk(&file, "IEND", "", 0);
    expect_png(&file, "not before the pixels", "a late palette");
    begin_png(&file, (struct ihdr){1, 1, 8, 3, 0, 0, 0});
    end_png(&file);
    expect_png(&file, "before the palette", "no palette");
}

static void chunks_at_the_edge(void **state) {
    (void)state;
    begin_png(&file, (struct ihdr){1, 1, 8, 0, 0, 0, 0});
    chunk(&file, "tEXt", "abc", 3);
    file.data[file.size - 1] ^= 1; /* nobody looks at what is not necessary */
    chunk(&file, "IDAT", "", 0);
    end_png(&file);
    expect_png(&file, NULL, "an empty chunk of data, and a text");
    for (size_t size = file.size - 1; size >= 8; size--) {
        size_t whole = file.size;
        file.size = size;
        expect_png(&file, "truncated", "a part of it");
        file.size = whole;
    }
    put(&file, "more", 4);
    expect_png(&file, NULL, "bytes behind its end");
    file.data[file.size - 5] ^= 1;
    expect_png(&file, "checksum", "a wrong checksum of the end");
    begin_png(&file, (struct ihdr){1, 1, 8, 0, 0, 0, 0});
    chunk(&file, "IEND", "", 0);
    expect_png(&file, "without any picture data", "no data");
    begin_png(&file, (struct ihdr){1, 1, 8, 0, 0, 0, 0});
    for (size_t i = 0; i < 4; i++) { /* each differs in its last letter from one that is known */
        begin_png(&file, (struct ihdr){1, 1, 8, 0, 0, 0, 0});
        chunk(&file, (const char *[]){"IDAX", "IENX", "PLTX", "IHDX"}[i], "\0\0\0", 3);
        expect_png(&file, "necessary, but of an unknown type", "an unknown chunk");
    }
    begin_png(&file, (struct ihdr){1, 1, 8, 0, 0, 0, 0});
    chunk(&file, "CgBI", "", 0);
    expect_png(&file, "CgBI", "Apple's");
    file.size = 8;
    chunk(&file, "IEND", "", 0);
    expect_png(&file, "the first chunk is not the header", "no header");
    begin_png(&file, (struct ihdr){1, 1, 8, 0, 0, 0, 0});
    chunk(&file, "IHDR", "\0\0\0\1\0\0\0\1\x8\0\0\0\0", 13);
    expect_png(&file, "a second header", "two headers");
}

/* DEFLATE gives 1032 times its input at most: 10 bytes of it, 10320 of samples. */
static void pixels_that_the_data_could_hold(void **state) {
    static const struct {
        struct ihdr header;
        const char *message;
    } cases[] = {
        {{10320, 1, 8, 0, 0, 0, 0}, NULL},     {{10321, 1, 8, 0, 0, 0, 0}, "cannot hold"},
        {{1, 10321, 8, 0, 0, 0, 0}, "cannot"}, {{3440, 1, 8, 2, 0, 0, 0}, NULL},
        {{3441, 1, 8, 2, 0, 0, 0}, "cannot"},  {{10320 * 4, 2, 1, 0, 0, 0, 0}, NULL},
        {{20644, 2, 2, 0, 0, 0, 0}, "cannot"}, {{5160, 1, 16, 0, 0, 0, 0}, NULL},
        {{5161, 1, 16, 0, 0, 0, 0}, "cannot"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        begin_png(&file, cases[i].header);
        end_png(&file);
        expect_png(&file, cases[i].message, "a picture of a few bytes");
    }
}

/* What stb_image gets: the necessary chunks, without checksums. */
static void the_clean_png(void **state) {
    struct faults faults = {0};
    resnet_allocator allocator = faults_allocator(&faults);
    struct rebuilt clean;
    (void)state;
    begin_png(&file, (struct ihdr){1, 1, 8, 3, 0, 0, 0});
    chunk(&file, "tEXt", "abc", 3);
    chunk(&file, "PLTE", "abcdef", 6);
    chunk(&file, "IDAT", "0123", 4);
    chunk(&file, "IDAT", "456789", 6);
    chunk(&file, "IEND", "", 0);
    assert_int_equal(png_rebuild(&(struct bytes){file.data, file.size}, &allocator, &seen, &clean, NULL), RESNET_OK);
    const uint8_t *made = clean.file.data;
    assert_int_equal(clean.file.size, 8 + 25 + 12 + 768 + 12 + 10 + 12);
    assert_memory_equal(made, file.data, 8 + 8 + 13);
    assert_memory_equal(made + 33, "\0\0\3\0PLTEabcdef\2\2\2\3\3\3", 20);
    assert_memory_equal(made + 33 + 12 + 768, "\0\0\0\x0aIDAT0123456789", 18);
    assert_memory_equal(made + clean.file.size - 12, "\0\0\0\0IEND", 8);
    memory_put(&allocator, clean.memory, clean.memory_size);
    assert_int_equal(faults.bytes, 0);
}

/* ---- BMP ---- */

static struct image decoded;

static resnet_status check_bmp(const struct bytes *bytes, resnet_error *error) {
    static struct faults faults;
    faults = (struct faults){.fill = 0xa5};
    resnet_allocator allocator = faults_allocator(&faults);
    image_free(&decoded, &allocator);
    faults = (struct faults){.fill = 0xa5};
    resnet_status status = bmp_decode(bytes, &allocator, &decoded, error);
    assert_int_equal(faults.bytes, status == RESNET_OK ? (size_t)3 * decoded.width * decoded.height : 0);
    return status;
}

static void expect_bmp(const struct file *f, const char *message, const char *name) {
    expect(check_bmp, f, message, name);
}

struct dib {
    uint32_t header, width, height, bits, compression, colours, extra; /* bytes between the header and the pixels */
};

/* A BMP up to its pixels, with zeros for what the header has besides, and these bytes in between. */
static void begin_bmp(struct file *f, struct dib h) {
    bool core = h.header == 12;
    f->size = 0;
    put(f, "BM\0\0\0\0\0\0\0\0", 10);
    put_le(f, 14 + h.header + h.extra, 4);
    put_le(f, h.header, 4);
    put_le(f, h.width, core ? 2 : 4);
    put_le(f, h.height, core ? 2 : 4);
    put_le(f, 1, 2);
    put_le(f, h.bits, 2);
    if (!core) {
        put_le(f, h.compression, 4);
        put_le(f, 0, 4);
        put_le(f, 0, 4);
        put_le(f, 0, 4);
        put_le(f, h.colours, 4);
        put_le(f, 0, 4);
        for (uint32_t i = 40; i < h.header; i++)
            put_byte(f, 0);
    }
}

static void headers_of_bmp(void **state) {
    (void)state;
    for (uint32_t header = 12; header <= 125; header++) {
        bool known = header == 12 || header == 40 || header == 52 || header == 56 || header == 64 || header == 108 ||
                     header == 124;
        begin_bmp(&file, (struct dib){.header = header, .width = 1, .height = 1, .bits = 24});
        put(&file, "\1\2\3", 3); /* the last row may lack its padding */
        expect_bmp(&file, known ? NULL : "an unknown size of header", "a header");
        if (!known)
            continue;
        assert_memory_equal(decoded.pixels, "\3\2\1", 3);
        file.size--;
        expect_bmp(&file, "truncated", "a byte less");
        file.size = 14 + header - 1;
        expect_bmp(&file, "truncated", "less than a header");
    }
    file.size = 25;
    expect_bmp(&file, "25 bytes of the 26", "less than the smallest header");
}

static void bits_of_bmp(void **state) {
    (void)state;
    for (uint32_t core = 0; core < 2; core++)
        for (uint32_t bits = 0; bits < 34; bits++) {
            bool indexed = bits == 1 || bits == 2 || bits == 4 || bits == 8;
            bool known = indexed || bits == 24 || (!core && (bits == 16 || bits == 32));
            begin_bmp(&file, (struct dib){core ? 12 : 40, 1, 1, bits, 0, 0, 1});
            put(&file, "\0\0\0\0\0", 5);
            expect_bmp(&file, known ? NULL : "bits a pixel", "a number of bits");
        }
    for (uint32_t compression = 1; compression < 8; compression++)
        for (uint32_t bits = 8; bits <= 32; bits += 8) {
            bool masked = (compression == 3 || compression == 6) && (bits == 16 || bits == 32);
            begin_bmp(&file, (struct dib){40, 1, 1, bits, compression, 0, 12});
            for (int c = 0; c < 3; c++)
                put_le(&file, 0xfu << 4 * c, 4);
            put_le(&file, 0xabc, 4);
            expect_bmp(&file,
                       masked                                 ? NULL
                       : compression <= 2                     ? "run-length"
                       : compression == 4 || compression == 5 ? "embedded"
                                                              : "an unknown compression",
                       "a compression");
            assert_true(!masked || memcmp(decoded.pixels, "\xcc\xbb\xaa", 3) == 0);
        }
    begin_bmp(&file, (struct dib){64, 1, 1, 32, 3, 0, 0}); /* OS/2's 3 is another compression */
    put_le(&file, 0, 4);
    expect_bmp(&file, "an unknown compression", "OS/2");
}

static void masks_at_the_edge(void **state) {
    static const struct {
        uint32_t mask;
        bool good;
    } cases[] = {{1, true},          {0x80000000, true}, {0xffffffff, true}, {0x7fffffff, true}, {6, true},
                 {0xc0000000, true}, {0, false},         {5, false},         {0x80000001, false}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int c = 0; c < 3; c++) {
            begin_bmp(&file, (struct dib){40, 1, 1, 32, 3, 0, 12});
            for (int k = 0; k < 3; k++)
                put_le(&file, k == c ? cases[i].mask : 1, 4);
            put_le(&file, 0xffffffff, 4);
            expect_bmp(&file, cases[i].good ? NULL : "not one run of bits", "a mask");
            assert_true(!cases[i].good || memcmp(decoded.pixels, "\xff\xff\xff", 3) == 0);
        }
    begin_bmp(&file, (struct dib){40, 1, 1, 16, 3, 0, 0}); /* the masks, and the pixel within them */
    put(&file, "\0\x7c\0\0\xe0\3\0\0\x1f\0\0\0", 12);
    expect_bmp(&file, NULL, "66 bytes");
    assert_memory_equal(decoded.pixels, "\xff\0\0", 3);
    file.size--;
    expect_bmp(&file, "65 bytes of the 66", "65 bytes");
    begin_bmp(&file, (struct dib){40, 2, 1, 16, 0, 0, 0});
    put_le(&file, 0x7c1f, 2);
    put_le(&file, 0x03e0, 2);
    expect_bmp(&file, NULL, "without masks");
    assert_memory_equal(decoded.pixels, "\xff\0\xff\0\xff\0", 6);
    begin_bmp(&file, (struct dib){40, 1, 1, 32, 0, 0, 0});
    put_le(&file, 0xff112233, 4);
    expect_bmp(&file, NULL, "32 bits");
    assert_memory_equal(decoded.pixels, "\x11\x22\x33", 3);
}

/* Where a palette ends, the grey ramp goes on. */
static void palettes_of_bmp(void **state) {
    static const struct {
        uint32_t header, bits, colours, entries, first, second; /* entries that stand there; two pixels' red */
    } cases[] = {
        {40, 8, 1, 2, 100, 1},   {40, 8, 2, 2, 100, 101},   {40, 8, 0, 256, 100, 101}, {40, 4, 16, 16, 100, 101},
        {40, 1, 3, 2, 100, 101}, {12, 8, 0, 256, 100, 101}, {40, 2, 4, 4, 100, 101},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        bool core = cases[i].header == 12;
        uint32_t entry = core ? 3 : 4;
        begin_bmp(&file,
                  (struct dib){cases[i].header, 2, 1, cases[i].bits, 0, cases[i].colours, cases[i].entries * entry});
        for (uint32_t c = 0; c < cases[i].entries; c++) {
            put_le(&file, 0x0708 + (((100 + c) & 0xff) << 16), 3);
            if (!core)
                put_byte(&file, 0x55);
        }
        put_byte(&file, cases[i].bits == 8 ? 0 : 1u << (8 - 2 * cases[i].bits)); /* pixels 0 and 1 */
        put_byte(&file, 1);
        expect_bmp(&file, NULL, "a palette");
        assert_int_equal(decoded.pixels[0], cases[i].first);
        assert_int_equal(decoded.pixels[1], 7);
        assert_int_equal(decoded.pixels[2], 8);
        assert_int_equal(decoded.pixels[3], cases[i].second);
    }
}

static void rows_of_bmp(void **state) {
    (void)state;
    begin_bmp(&file, (struct dib){40, 1, 2, 24, 0, 0, 0}); /* upwards */
    put(&file, "\1\2\3x\4\5\6", 7);
    expect_bmp(&file, NULL, "upwards");
    assert_memory_equal(decoded.pixels, "\6\5\4\3\2\1", 6);
    begin_bmp(&file, (struct dib){40, 1, (uint32_t)-2, 24, 0, 0, 0});
    put(&file, "\1\2\3x\4\5\6", 7);
    expect_bmp(&file, NULL, "downwards");
    assert_memory_equal(decoded.pixels, "\3\2\1\6\5\4", 6);
    begin_bmp(&file, (struct dib){40, 1, INT32_MAX, 24, 0, 0, 0});
    expect_bmp(&file, "1 x 2147483647 pixels", "the highest");
    begin_bmp(&file, (struct dib){40, 1, (uint32_t)INT32_MAX + 2, 24, 0, 0, 0});
    expect_bmp(&file, "1 x 2147483647 pixels", "the highest, downwards");
    begin_bmp(&file, (struct dib){12, 1, 2, 24, 0, 0, 0});
    put(&file, "\1\2\3x\4\5\6", 7);
    expect_bmp(&file, NULL, "OS/2's");
    assert_memory_equal(decoded.pixels, "\6\5\4\3\2\1", 6);
    for (uint32_t width = 1; width < 70; width++) { /* rows fill words */
        size_t stride = (width + 31) / 32 * 4, last = (width + 7) / 8;
        begin_bmp(&file, (struct dib){40, width, 3, 1, 0, 0, 8});
        put(&file, "\0\0\0\0\xff\xff\xff\0", 8);
        for (size_t i = 0; i < 2 * stride + last; i++)
            put_byte(&file, i / stride == 1 ? 0xff : 0);
        expect_bmp(&file, NULL, "rows of bits");
        for (size_t i = 0; i < (size_t)9 * width; i++)
            assert_int_equal(decoded.pixels[i], i / (3 * width) == 1 ? 255 : 0);
        file.size--;
        expect_bmp(&file, "truncated", "a byte less");
    }
}

static void pixels_begin_behind_the_header(void **state) {
    (void)state;
    for (uint32_t missing = 0; missing < 2; missing++) {
        begin_bmp(&file, (struct dib){40, 1, 1, 24, 0, 0, 0 - missing});
        put(&file, "\1\2\3\4", 4);
        expect_bmp(&file, missing ? "begin inside the header" : NULL, "where the pixels begin");
    }
    begin_bmp(&file, (struct dib){40, 1, 1, 8, 0, 2, 0}); /* a palette that the offset forgets */
    put(&file, "\1\2\3\0\4\5\6\0\1", 9);
    expect_bmp(&file, NULL, "a palette that is not counted");
    assert_memory_equal(decoded.pixels, "\6\5\4", 3);
}

/* ---- Which format ---- */

static resnet_status check_any(const struct bytes *bytes, resnet_error *error) {
    resnet_allocator allocator = memory_allocator(NULL);
    struct image image = {0};
    resnet_status status = image_decode(bytes->data, bytes->size, &allocator, &image, error);
    image_free(&image, &allocator);
    return status;
}

static void foreign_formats_by_name(void **state) {
    static const struct {
        const char *name;
        size_t at, size;
        const char *bytes;
    } cases[] = {
        {"GIF", 0, 4, "GIF8"},
        {"WebP", 8, 4, "WEBP"},
        {"TIFF", 0, 4, "II*\0"},
        {"TIFF", 0, 4, "MM\0*"},
        {"AVIF", 4, 7, "ftypavi"},
        {"HEIF", 4, 7, "ftyphei"},
        {"HEIF", 4, 7, "ftyphev"},
        {"HEIF", 4, 7, "ftypmif"},
        {"HEIF", 4, 7, "ftypmsf"},
        {"JPEG 2000", 0, 8, "\0\0\0\x0cjP  "},
        {"JPEG 2000", 0, 4, "\xff\x4f\xff\x51"},
        {"JPEG XL", 0, 8, "\0\0\0\x0cJXL "},
        {"JPEG XL", 0, 2, "\xff\x0a"},
        {"Photoshop", 0, 4, "8BPS"},
        {"Netpbm", 0, 2, "P1"},
        {"Netpbm", 0, 2, "P2"},
        {"Netpbm", 0, 2, "P3"},
        {"Netpbm", 0, 2, "P4"},
        {"Netpbm", 0, 2, "P5"},
        {"Netpbm", 0, 2, "P6"},
        {"Windows icon", 0, 4, "\0\0\1\0"},
        {"PDF", 0, 4, "%PDF"},
        {"BMP: the file is truncated", 0, 2, "BM"},
        {"JPEG: the file is truncated", 0, 3, "\xff\xd8\xff"},
        {"PNG: the file is truncated", 0, 8, "\x89PNG\r\n\x1a\n"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        memset(file.data, '.', 16);
        memcpy(file.data + cases[i].at, cases[i].bytes, cases[i].size);
        file.size = cases[i].at + cases[i].size;
        expect(check_any, &file, cases[i].name, cases[i].name);
        file.data[file.size - 1] ^= 0x40; /* not "P1" as "P2" */
        expect(check_any, &file, "not an image", cases[i].name);
        file.data[file.size - 1] ^= 0x40;
        file.data[cases[i].at] ^= 0x40;
        expect(check_any, &file, "not an image", cases[i].name);
        file.data[cases[i].at] ^= 0x40;
        file.size--;
        expect(check_any, &file, "not an image", cases[i].name);
    }
}

/* What is told from its first bytes is not read any further. */
static void foreign_files_cost_no_memory(void **state) {
    static const char *const names[] = {"gif", "zeros", "empty"};
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct faults faults = {0};
        resnet_allocator allocator = faults_allocator(&faults);
        struct image image = {0};
        char path[512];
        snprintf(path, sizeof path, TEST_DATA "/images/bad/%s.bin", names[i]);
        assert_int_equal(image_decode_file(path, &allocator, &image, NULL), RESNET_ERROR_IMAGE);
        assert_int_equal(faults.calls, 0);
    }
}

static void the_largest_file(void **state) {
    resnet_allocator allocator = memory_allocator(NULL);
    struct image image = {0};
    resnet_error error = {RESNET_OK, ""};
    size_t most = (size_t)512 << 20;
    (void)state;
    uint8_t *zeros = calloc(most + 1, 1); /* which nobody touches beyond the first bytes */
    assert_non_null(zeros);
    assert_int_equal(image_decode(zeros, most, &allocator, &image, &error), RESNET_ERROR_IMAGE);
    assert_non_null(strstr(error.message, "not an image"));
    assert_int_equal(image_decode(zeros, most + 1, &allocator, &image, &error), RESNET_ERROR_IMAGE);
    assert_non_null(strstr(error.message, "at most 536870912 are read"));
    free(zeros);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_jpegs_pass),
        cmocka_unit_test(frames_at_the_edge),
        cmocka_unit_test(frames_that_the_file_could_hold),
        cmocka_unit_test(frames_of_other_lengths),
        cmocka_unit_test(four_components_are_inks),
        cmocka_unit_test(huffman_tables_at_the_edge),
        cmocka_unit_test(several_tables_in_a_segment),
        cmocka_unit_test(quantisers_at_the_edge),
        cmocka_unit_test(spectra_at_the_edge),
        cmocka_unit_test(scans_of_other_lengths),
        cmocka_unit_test(a_hundred_scans),
        cmocka_unit_test(bytes_between_segments),
        cmocka_unit_test(markers_that_are_not_read),
        cmocka_unit_test(short_segments),
        cmocka_unit_test(sizes_at_the_edge),
        cmocka_unit_test(headers_of_png),
        cmocka_unit_test(palettes_at_the_edge),
        cmocka_unit_test(chunks_at_the_edge),
        cmocka_unit_test(pixels_that_the_data_could_hold),
        cmocka_unit_test(the_clean_png),
        cmocka_unit_test(headers_of_bmp),
        cmocka_unit_test(bits_of_bmp),
        cmocka_unit_test(masks_at_the_edge),
        cmocka_unit_test(palettes_of_bmp),
        cmocka_unit_test(rows_of_bmp),
        cmocka_unit_test(pixels_begin_behind_the_header),
        cmocka_unit_test(foreign_formats_by_name),
        cmocka_unit_test(foreign_files_cost_no_memory),
        cmocka_unit_test(the_largest_file),
    };
    return cmocka_run_group_tests_name("guards", tests, NULL, NULL);
}
