/* test_npz.c - arrays come out of an .npz file as they went in, and a file that is not sound is refused by name. */
#define _POSIX_C_SOURCE 200809L /* mkstemp */
#include "npz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crc.h"
#include "support.h"

#define LOCAL_SIZE 30
#define ENTRY_SIZE 46
#define END_SIZE   22

/* ---- Files ---- */

struct member {
    const char *name, *shape; /* as the header has it: "(1, 2)" */
    const char *description;  /* what stands before the shape; NULL: the right one */
    const float *values;
    size_t count;
};

/* An archive while it is written. */
struct archive {
    uint8_t bytes[4096], directory[1024];
    size_t size, directory_size;
    uint16_t count;
};

static void put_u16(uint8_t *to, size_t value) {
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

/* As numpy writes it: padded so that the numbers start at a multiple of 64. */
static size_t write_npy(uint8_t *to, const struct member *array) {
    const char *description = array->description ? array->description : "'descr': '<f4', 'fortran_order': False";
    memcpy(to, "\x93NUMPY\1", 8);
    put_u16(to + 8, 118);
    memset(to + 10, ' ', 117);
    to[127] = '\n';
    char text[118];
    int length = snprintf(text, sizeof text, "{%s, 'shape': %s, }", description, array->shape);
    memcpy(to + 10, text, (size_t)length);
    for (size_t i = 0; i < array->count; i++)
        test_put_f32(to + 128 + 4 * i, array->values[i]);
    return 128 + 4 * array->count;
}

/* Fields that the local header and the list have alike: from the version to the two lengths. */
static void write_fields(uint8_t *to, const uint8_t *npy, size_t size, size_t name) {
    memset(to, 0, 26);
    test_put_u32(to + 10, crc32_more(0, npy, size));
    test_put_u32(to + 14, (uint32_t)size);
    test_put_u32(to + 18, (uint32_t)size);
    put_u16(to + 22, name);
}

static void add_array(struct archive *archive, const struct member *array) {
    char name[80];
    size_t length = (size_t)snprintf(name, sizeof name, "%s.npy", array->name), start = archive->size;
    uint8_t *local = archive->bytes + start, *entry = archive->directory + archive->directory_size;
    uint8_t *npy = local + LOCAL_SIZE + length + 20; /* numpy's zipfile leaves room for larger sizes */
    size_t size = write_npy(npy, array);
    test_put_u32(local, 0x04034b50);
    write_fields(local + 4, npy, size, length);
    put_u16(local + 28, 20);
    memcpy(local + LOCAL_SIZE, name, length);
    memset(local + LOCAL_SIZE + length, 0, 20);
    memset(entry, 0, ENTRY_SIZE);
    test_put_u32(entry, 0x02014b50);
    write_fields(entry + 6, npy, size, length);
    test_put_u32(entry + 42, (uint32_t)start);
    memcpy(entry + ENTRY_SIZE, name, length);
    archive->size = (size_t)(npy - archive->bytes) + size;
    archive->directory_size += ENTRY_SIZE + length;
    archive->count++;
}

static void finish(struct archive *archive) {
    uint8_t *end = archive->bytes + archive->size + archive->directory_size;
    memcpy(archive->bytes + archive->size, archive->directory, archive->directory_size);
    memset(end, 0, END_SIZE);
    test_put_u32(end, 0x06054b50);
    put_u16(end + 8, archive->count);
    put_u16(end + 10, archive->count);
    test_put_u32(end + 12, (uint32_t)archive->directory_size);
    test_put_u32(end + 16, (uint32_t)archive->size);
    archive->size += archive->directory_size + END_SIZE;
}

static const float input[6] = {1, -2, 3.5F, 0, 1e-40F, 3e38F};
static const float scores[3] = {7, 8, 9};
static const struct member good[] = {{"input", "(1, 2, 3, 1)", NULL, input, 6}, {"fc", "(3,)", NULL, scores, 3}};

static struct archive good_archive(void) {
    struct archive archive = {.size = 0};
    for (size_t i = 0; i < COUNT(good); i++)
        add_array(&archive, &good[i]);
    finish(&archive);
    return archive;
}

/* Where the list of a good archive starts. */
static uint8_t *directory_of(struct archive *archive) {
    return archive->bytes + archive->size - END_SIZE - archive->directory_size;
}

/* Open the first `size` bytes as a file. */
static resnet_status open_bytes(struct npz *npz, const uint8_t *bytes, size_t size, resnet_error *error) {
    char path[] = "/tmp/test_npz_XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, bytes, size), (ssize_t)size);
    close(descriptor);
    resnet_status status = npz_open(npz, path, error);
    assert_int_equal(unlink(path), 0);
    return status;
}

static void expect_refused(const struct archive *archive, const char *reason) {
    struct npz npz;
    resnet_error error = {RESNET_OK, ""};
    assert_status(RESNET_ERROR_IO, open_bytes(&npz, archive->bytes, archive->size, &error), &error);
    if (!strstr(error.message, reason))
        fail_msg("\"%s\" does not say \"%s\"", error.message, reason);
    npz_close(&npz);
}

/* ---- Tests ---- */

static void test_reads_what_was_written(void **state) {
    (void)state;
    struct archive archive = good_archive();
    struct npz npz;
    resnet_error error;
    float values[6];
    assert_status(RESNET_OK, open_bytes(&npz, archive.bytes, archive.size, &error), &error);
    assert_int_equal(npz.count, 2);
    const struct npz_member *first = npz_find(&npz, "input"), *second = npz_find(&npz, "fc");
    assert_non_null(first);
    assert_non_null(second);
    assert_null(npz_find(&npz, "input.npy"));
    assert_int_equal(first->shape.dimensions, 4);
    assert_memory_equal(first->shape.sizes, ((uint64_t[]){1, 2, 3, 1}), 32);
    assert_int_equal(second->shape.dimensions, 1);
    assert_int_equal(second->shape.sizes[0], 3);
    assert_status(RESNET_OK, npz_read(&npz, first, values, &error), &error);
    assert_memory_equal(values, input, sizeof input);
    assert_status(RESNET_OK, npz_read(&npz, second, values, &error), &error);
    assert_memory_equal(values, scores, sizeof scores);
    npz_close(&npz);
}

static void test_refuses_what_is_cut_off(void **state) {
    (void)state;
    struct archive archive = good_archive();
    for (size_t size = 0; size < archive.size; size++) {
        struct npz npz;
        resnet_error error = {RESNET_OK, ""};
        assert_status(RESNET_ERROR_IO, open_bytes(&npz, archive.bytes, size, &error), &error);
        npz_close(&npz);
    }
}

/* Read all arrays; the numbers must be those that were written, or an error. */
static bool reads_as_written(const struct npz *npz) {
    for (uint32_t i = 0; i < npz->count; i++) {
        float values[6];
        resnet_error error = {RESNET_OK, ""};
        const struct npz_member *member = &npz->members[i];
        size_t size = member->count * sizeof(float);
        if (size > sizeof values)
            return false;
        resnet_status status = npz_read(npz, member, values, &error);
        bool same = memcmp(values, i ? scores : input, size) == 0;
        if (status == RESNET_OK ? !same : status != RESNET_ERROR_IO)
            return false;
    }
    return true;
}

static void test_no_flipped_bit_gives_other_numbers(void **state) {
    (void)state;
    struct archive archive = good_archive();
    for (size_t bit = 0; bit < 8 * archive.size; bit++) {
        struct npz npz;
        resnet_error error = {RESNET_OK, ""};
        archive.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        resnet_status status = open_bytes(&npz, archive.bytes, archive.size, &error);
        if (status == RESNET_OK ? !reads_as_written(&npz) : status != RESNET_ERROR_IO)
            fail_msg("bit %zu of byte %zu", bit % 8, bit / 8);
        npz_close(&npz);
        archive.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_names_what_is_wrong_with_an_array(void **state) {
    (void)state;
    static const struct {
        struct member array;
        const char *reason;
    } bad[] = {
        {{"a", "(3,)", "'descr': '<f8', 'fortran_order': False", scores, 3}, "array a: not an array of f32"},
        {{"a", "(3,)", "'descr': '|O', 'fortran_order': False", scores, 3}, "array a: not an array of f32"},
        {{"a", "(3,)", "'descr': '<f4', 'fortran_order': True", scores, 3}, "array a: not in C order"},
        {{"a", "(4,)", NULL, scores, 3}, "its shape does not agree with its size"},
        {{"a", "(0,)", NULL, scores, 0}, "array a: is empty"},
        {{"a", "()", NULL, scores, 1}, "or of a shape that is not"},
        {{"a", "(3", NULL, scores, 3}, "or of a shape that is not"},
        {{"a", "(-3,)", NULL, scores, 3}, "or of a shape that is not"},
        {{"a", "(1, 1, 1, 1, 3)", NULL, scores, 3}, "or of a shape that is not"},
        {{"a", "(65536, 65536, 65536, 65536)", NULL, scores, 3}, "its shape does not agree"},
        {{"a", "(99999999999999999999999999,)", NULL, scores, 3}, "or of a shape that is not"},
        {{"", "(3,)", NULL, scores, 3}, "a member's name"},
        {{"a-name-that-goes-on-for-longer-than-any-layer-of-any-network-has", "(3,)", NULL, scores, 3},
         "a member's name"},
        {{"fc", "(3,)", NULL, scores, 3}, "array fc: is there twice"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct archive archive = {.size = 0};
        add_array(&archive, &good[1]);
        add_array(&archive, &bad[i].array);
        finish(&archive);
        expect_refused(&archive, bad[i].reason);
    }
}

/* Change a number in the list's first entry, or, counted from the archive's end, in its end. */
static void test_names_what_is_wrong_with_the_archive(void **state) {
    (void)state;
    static const struct {
        int at; /* below 0: from the end */
        uint32_t value;
        bool is_u16;
        const char *reason;
    } bad[] = {
        {8, 1, true, "array input: is encrypted"},
        {10, 8, true, "array input: is compressed; write the file with numpy.savez"},
        {20, 99, false, "array input: is stored, and yet has two sizes"},
        {42, 0xffffffff, false, "array input: lies outside of the archive"},
        {42, 1, false, "array input: does not start where"},
        {28, 0xffff, true, "the archive's list of members is cut off"},
        {28, 5, true, "a member's name"},
        {30, 1, true, "the archive's list of members is damaged"},
        {-14, 1, true, "several parts"},
        {-12, 0, true, "several parts"},
        {-10, 7, false, "is not where its end says"},
        {-6, 0xffffffff, false, "is not where its end says"},
        {-2, 1, true, "with a comment"},
        {-22, 0, false, "its last bytes do not end a ZIP archive"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct archive archive = good_archive();
        uint8_t *at = bad[i].at < 0 ? archive.bytes + archive.size + bad[i].at : directory_of(&archive) + bad[i].at;
        (void)(bad[i].is_u16 ? put_u16(at, bad[i].value) : test_put_u32(at, bad[i].value));
        expect_refused(&archive, bad[i].reason);
    }
}

/* Two counts that agree with each other, but not with the list. */
static void test_counts_members(void **state) {
    (void)state;
    static const struct {
        uint16_t count;
        const char *reason;
    } bad[] = {{0, "has 0 arrays"}, {1, "longer than it says"}, {3, "is damaged"}, {8193, "has 8193 arrays"}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct archive archive = good_archive();
        put_u16(archive.bytes + archive.size - 14, bad[i].count);
        put_u16(archive.bytes + archive.size - 12, bad[i].count);
        expect_refused(&archive, bad[i].reason);
    }
}

/* A local header that moves the last array's numbers on, by one byte or by far. */
static void test_keeps_arrays_inside_of_the_archive(void **state) {
    (void)state;
    static const uint16_t extra[] = {21, 0xffff};
    for (size_t i = 0; i < COUNT(extra); i++) {
        struct archive archive = good_archive();
        size_t entry = ENTRY_SIZE + strlen("input.npy");
        uint8_t *local = archive.bytes + archive.directory[entry + 42] + 256 * archive.directory[entry + 43];
        put_u16(local + 28, extra[i]);
        expect_refused(&archive, "array fc: lies outside of the archive");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_was_written),
        cmocka_unit_test(test_refuses_what_is_cut_off),
        cmocka_unit_test(test_no_flipped_bit_gives_other_numbers),
        cmocka_unit_test(test_names_what_is_wrong_with_an_array),
        cmocka_unit_test(test_names_what_is_wrong_with_the_archive),
        cmocka_unit_test(test_counts_members),
        cmocka_unit_test(test_keeps_arrays_inside_of_the_archive),
    };
    return cmocka_run_group_tests_name("npz", tests, NULL, NULL);
}
