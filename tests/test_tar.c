/* test_tar.c - archives as programs write them, and archives that are wrong, each with its sentence. */
#define _GNU_SOURCE /* memfd_create */
#include "tar.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

#define BLOCK 512
#define ROOM  (1 << 15) /* bytes of an archive here */

struct archive {
    uint8_t bytes[ROOM];
    size_t size;
};

static void seal(uint8_t *header) {
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf((char *)header + 148, 8, "%06o", sum);
}

/* A header as POSIX has it; what is changed behind must be sealed again. */
static uint8_t *add_header(struct archive *archive, const char *name, char type, unsigned size) {
    uint8_t *header = archive->bytes + archive->size;
    assert_true(archive->size + BLOCK <= sizeof archive->bytes);
    memset(header, 0, BLOCK);
    memcpy(header, name, strlen(name));
    snprintf((char *)header + 124, 12, "%011o", size);
    header[156] = (uint8_t)type;
    memcpy(header + 257, "ustar\00000", 8);
    seal(header);
    archive->size += BLOCK;
    return header;
}

static void add_data(struct archive *archive, const void *data, size_t size) {
    size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    assert_true(archive->size + padded <= sizeof archive->bytes);
    memset(archive->bytes + archive->size, 0, padded);
    memcpy(archive->bytes + archive->size, data, size);
    archive->size += padded;
}

static void add_member(struct archive *archive, const char *name, char type, const char *data) {
    add_header(archive, name, type, (unsigned)strlen(data));
    add_data(archive, data, strlen(data));
}

static void add_end(struct archive *archive) {
    static const uint8_t zeros[2 * BLOCK];
    add_data(archive, zeros, sizeof zeros);
}

/* A file or a pipe with these bytes; the descriptor to close in the end. */
static int open_archive(struct tar *tar, const struct archive *archive, bool is_pipe) {
    static char name[64];
    int ends[2];
    if (is_pipe) {
        assert_int_equal(pipe(ends), 0);
        assert_true(write(ends[1], archive->bytes, archive->size) == (ssize_t)archive->size);
        close(ends[1]);
    } else {
        ends[0] = memfd_create("tar", 0);
        assert_true(write(ends[0], archive->bytes, archive->size) == (ssize_t)archive->size);
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
    assert_true(tar_open(tar, name));
    return ends[0];
}

/* "NAME=CONTENT " of each image; every second one is read if `all` is false, else each that is not too large. */
static void list(struct tar *tar, bool all, char text[1 << 14]) {
    *text = '\0';
    for (int i = 0; tar_next(tar); i++) {
        static uint8_t data[ROOM + 1];
        memset(data, 0, sizeof data);
        strcat(strcat(text, tar->path), "=");
        if ((all || i % 2) && tar->size < sizeof data && tar_read(tar, data))
            strcat(text, (char *)data);
        strcat(text, " ");
    }
}

static void expect(const struct archive *archive, const char *want, const char *want_half) {
    static char text[1 << 14];
    for (int i = 0; i < 4; i++) {
        struct tar tar;
        int descriptor = open_archive(&tar, archive, i & 1);
        list(&tar, i < 2, text);
        assert_string_equal(text, i < 2 ? want : want_half);
        assert_false(tar.failed);
        tar_close(&tar);
        close(descriptor);
    }
}

static void test_plain(void **state) {
    struct archive archive = {.size = 0};
    (void)state;
    add_member(&archive, "a.png", '0', "one");
    add_member(&archive, "folder.png/", '5', "");
    add_member(&archive, "b.txt", '0', "text");
    add_member(&archive, "link.png", '2', "");
    add_member(&archive, "B.JPeG", '7', "");
    add_member(&archive, "sub/c.bmp", '\0', "three");
    add_member(&archive, ".jpg", '0', "four");
    add_member(&archive, "jpg", '0', "five");
    add_member(&archive, "future.png", 'Z', "type");
    add_end(&archive);
    expect(&archive, "a.png=one B.JPeG= sub/c.bmp=three .jpg=four ", "a.png= B.JPeG= sub/c.bmp= .jpg=four ");
}

static void test_links_have_no_bytes(void **state) {
    struct archive archive = {.size = 0};
    (void)state;
    for (char type = '1'; type <= '6'; type++) {
        add_header(&archive, "link.png", type, 100);
        add_member(&archive, "a.png", '0', "one");
    }
    add_end(&archive);
    expect(&archive, "a.png=one a.png=one a.png=one a.png=one a.png=one a.png=one ",
           "a.png= a.png=one a.png= a.png=one a.png= a.png=one ");
}

static void test_old_headers(void **state) {
    struct archive archive = {.size = 0};
    (void)state;
    uint8_t *header = add_header(&archive, "v7.png", '\0', 2);
    memset(header + 257, 0, 8);
    memset(header + 345, 'x', 155); /* no prefix: there is no magic */
    seal(header);
    add_data(&archive, "v7", 2);
    header = add_header(&archive, "gnu.png", '0', 3);
    memcpy(header + 257, "ustar  ", 8);
    memset(header + 345, 'x', 12); /* a time */
    memcpy(header + 124, "        3 \0\0", 12);
    seal(header);
    add_data(&archive, "gnu", 3);
    header = add_header(&archive, "\xc3\xbc.png", '0', 6);
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++)
        sum += (unsigned)(int8_t)header[i];
    snprintf((char *)header + 148, 8, "%06o", sum & 0777777);
    add_data(&archive, "signed", 6);
    header = add_header(&archive, "large.png", '0', 0);
    memset(header + 124, 0, 12);
    header[124] = 0x80;
    header[135] = 4;
    seal(header);
    add_data(&archive, "base", 4);
    add_end(&archive);
    expect(&archive, "v7.png=v7 gnu.png=gnu \xc3\xbc.png=signed large.png=base ",
           "v7.png= gnu.png=gnu \xc3\xbc.png= large.png=base ");
}

static void test_long_names(void **state) {
    struct archive archive = {.size = 0};
    char full[101], want[512];
    (void)state;
    memset(full, 'n', 100);
    memcpy(full + 96, ".png", 5);
    uint8_t *header = add_header(&archive, full, '0', 3);
    memcpy(header + 345, "front", 5);
    seal(header);
    add_data(&archive, "two", 3);
    add_header(&archive, "././@LongLink", 'L', 9);
    add_data(&archive, "long.png\0", 9);
    add_member(&archive, "long.p", '0', "gnu");
    add_member(&archive, "pax", 'g', "19 path=global.png\n");
    add_member(&archive, "pax", 'x', "17 path=long.jpg\n20 mtime=1234567.89\n21 linkpath=else.png\n");
    add_member(&archive, "ustar", '0', "pax");
    add_member(&archive, "plain.png", '0', "plain");
    add_end(&archive);
    snprintf(want, sizeof want, "front/%s=two long.png=gnu long.jpg=pax plain.png=plain ", full);
    char half[512];
    snprintf(half, sizeof half, "front/%s= long.png=gnu long.jpg= plain.png=plain ", full);
    expect(&archive, want, half);
}

static void test_pax_sizes_and_sparse_files(void **state) {
    struct archive archive = {.size = 0};
    (void)state;
    add_member(&archive, "pax", 'x', "10 size=3\n");
    add_header(&archive, "a.png", '0', 0);
    add_data(&archive, "pax", 3);
    add_member(&archive, "pax", 'x', "22 GNU.sparse.major=1\n");
    add_member(&archive, "sparse.png", '0', "map");
    uint8_t *header = add_header(&archive, "gnu-sparse.png", 'S', 5);
    header[482] = 1;
    seal(header);
    static uint8_t map[BLOCK];
    map[504] = 1;
    add_data(&archive, map, BLOCK);
    map[504] = 0;
    add_data(&archive, map, BLOCK);
    add_data(&archive, "holes", 5);
    add_member(&archive, "b.png", '0', "last");
    add_end(&archive);
    expect(&archive, "a.png=pax b.png=last ", "a.png= b.png=last ");
}

/* ---- Wrong ones ---- */

/* What the program says on stderr while it goes through the archive. */
static void said(const struct archive *archive, bool is_pipe, bool all, char text[8192]) {
    static char images[1 << 14];
    struct tar tar;
    int saved = dup(STDERR_FILENO), memory = memfd_create("stderr", 0);
    fflush(stderr);
    assert_true(saved >= 0 && dup2(memory, STDERR_FILENO) >= 0);
    int descriptor = open_archive(&tar, archive, is_pipe);
    list(&tar, all, images);
    assert_true(tar.failed);
    assert_false(tar_next(&tar));
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    tar_close(&tar);
    ssize_t size = pread(memory, text, 8191, 0);
    text[size > 0 ? size : 0] = '\0';
    close(descriptor);
    close(saved);
    close(memory);
}

static void expect_refused(const struct archive *archive, const char *sentence) {
    char text[8192];
    for (int i = 0; i < 4; i++) {
        said(archive, i & 1, i & 2, text);
        if (!strstr(text, sentence) || !strstr(text, "at byte ") || strchr(text, '\n') != text + strlen(text) - 1)
            fail_msg("expected one line with \"%s\", not \"%s\"", sentence, text);
    }
}

/* The same behind a member that is right, and so that its place is told. */
static void refuse_all(const struct archive *archive, const char *sentence) {
    static struct archive second;
    second.size = 0;
    add_member(&second, "good.png", '0', "good");
    add_data(&second, archive->bytes, archive->size);
    second.size = 2 * BLOCK + archive->size;
    expect_refused(archive, sentence);
    expect_refused(&second, sentence);
}

static void test_no_archive(void **state) {
    static struct archive archive;
    (void)state;
    expect_refused(&archive, "ends without the mark of its end");
    archive.size = 100;
    refuse_all(&archive, "ends in the middle of a header");
    memset(archive.bytes, 'x', archive.size = 2000);
    refuse_all(&archive, "checksum is wrong");
    static const char *const compressed[] = {"\x1f\x8b", "BZh", "\xfd\x37zXZ", "\x28\xb5\x2f\xfd"};
    for (int i = 0; i < 4; i++) {
        memcpy(archive.bytes, compressed[i], strlen(compressed[i]));
        refuse_all(&archive, "it is compressed");
    }
}

static void test_cut_off(void **state) {
    static struct archive archive;
    (void)state;
    add_header(&archive, "a.png", '0', 600);
    refuse_all(&archive, "ends in the middle of a member");
    archive.bytes[BLOCK] = 'x';
    archive.size += 600;
    refuse_all(&archive, "ends in the middle of a member");
    archive.size = 3 * BLOCK;
    refuse_all(&archive, "ends without the mark of its end");
    archive.size = 0;
    add_header(&archive, "global", 'g', 0x7fffffff);
    refuse_all(&archive, "ends in the middle of a member");
    archive.size = 0;
    uint8_t *header = add_header(&archive, "sparse.png", 'S', 0);
    header[482] = 1;
    seal(header);
    refuse_all(&archive, "ends in the middle of a member");
}

static void test_every_flipped_bit_of_a_header(void **state) {
    static struct archive archive;
    (void)state;
    add_member(&archive, "a.png", '0', "one");
    add_end(&archive);
    for (int bit = 0; bit < 8 * BLOCK; bit++) {
        char text[8192];
        if (bit / 8 >= 148 && bit / 8 < 156) /* the sum itself: some spellings of it are as good */
            continue;
        archive.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        said(&archive, false, true, text);
        assert_non_null(strstr(text, "checksum is wrong"));
        archive.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_sizes(void **state) {
    static const struct {
        const char bytes[13];
        const char *sentence;
    } cases[] = {
        {"0000000000x", "size of a member is no number"},
        {"-0000000001", "size of a member is no number"},
        {"0000000 001", "size of a member is no number"},
        {"00000000008", "size of a member is no number"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "size of a member is no number"},
        {"\x80\0\0\0\x40\0\0\0\0\0\0\0", "size of a member is no number"},
        {"\x80\0\0\0\x3f\xff\xff\xff\xff\xff\xff\xff", "ends in the middle of a member"},
        {"77777777777", "ends in the middle of a member"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct archive archive = {.size = 0};
        uint8_t *header = add_header(&archive, "a.txt", '0', 0);
        memcpy(header + 124, cases[i].bytes, 12);
        seal(header);
        add_end(&archive);
        refuse_all(&archive, cases[i].sentence);
    }
}

static void test_extensions(void **state) {
    static const struct {
        char type;
        const char *data;
        const char *sentence;
    } cases[] = {
        {'x', "path=a.png\n", "record of a pax header is malformed"},
        {'x', "0 path=a.png\n", "record of a pax header is malformed"},
        {'x', "3 \n", "record of a pax header is malformed"},
        {'x', "2\n", "record of a pax header is malformed"},
        {'x', "99 path=a.png\n", "record of a pax header is malformed"},
        {'x', "99999999999999999999 path=a.png\n", "record of a pax header is malformed"},
        {'x', "15 path=aa.png", "record of a pax header is malformed"},
        {'x', "14 path=aa.pngx", "record of a pax header is malformed"},
        {'x', "15\tpath=aa.png\n", "record of a pax header is malformed"},
        {'x', "15 path=aa.png\n-1 path=b\n", "record of a pax header is malformed"},
        {'x', "8 path=\n", "name of a member is empty"},
        {'x', "8 size=\n", "size of a member is no number"},
        {'x', "9 size=x\n", "size of a member is no number"},
        {'x', "11 size=-1\n", "size of a member is no number"},
        {'x', "12 size=0x1\n", "size of a member is no number"},
        {'x', "28 size=9999999999999999999\n", "size of a member is no number"},
        {'x', "27 size=999999999999999999\n", "ends in the middle of a member"},
        {'L', "", "name of a member is empty"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct archive archive = {.size = 0};
        add_member(&archive, "extension", cases[i].type, cases[i].data);
        add_member(&archive, "a.png", '0', "one");
        add_end(&archive);
        refuse_all(&archive, cases[i].sentence);
    }
}

static void test_extensions_that_are_too_long(void **state) {
    char name[TAR_MOST_PATH + 32];
    struct archive archive = {.size = 0};
    (void)state;
    memset(name, 'n', sizeof name);
    add_header(&archive, "long", 'L', TAR_MOST_PATH + 1);
    add_data(&archive, name, TAR_MOST_PATH + 1);
    refuse_all(&archive, "more than 4096 bytes");
    archive.size = 0;
    memcpy(name, "4108 path=", 10);
    name[4107] = '\n';
    add_header(&archive, "long", 'x', 4108);
    add_data(&archive, name, 4108);
    refuse_all(&archive, "more than 4096 bytes");
    archive.size = 0;
    add_header(&archive, "nul", 'x', 15);
    add_data(&archive, "15 path=a\0.png\n", 15);
    refuse_all(&archive, "has a NUL byte");
    for (int i = 0; i < 2; i++) {
        archive.size = 0;
        add_header(&archive, "huge", "xL"[i], (1 << 20) + 1);
        refuse_all(&archive, "more than 1 MiB");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_links_have_no_bytes),
        cmocka_unit_test(test_old_headers),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_pax_sizes_and_sparse_files),
        cmocka_unit_test(test_no_archive),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_every_flipped_bit_of_a_header),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_extensions_that_are_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
