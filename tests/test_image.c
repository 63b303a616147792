/* test_image.c - image files against Pillow's pixels, and everything that is wrong with a file against one clear line.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "image.h"
#include "memory_faults.h"

#define IMAGES TEST_DATA "/images/"
#ifndef SHARED_DATA
#define SHARED_DATA TEST_DATA "/../../../shared/data"
#endif

/* ---- Where the decoders of JPEG differ ---- */

#ifdef RESNET_WITH_TURBO
enum { TURBO = 1 };
#else
enum { TURBO = 0 };
#endif

/* libjpeg-turbo's pixels are Pillow's, the good files' and the odd ones'. stb_image's integer IDCT and colour
 * conversion round otherwise: good.txt has the tolerances, and the odd ones must only be decoded. */
static int tolerance_here(int listed) {
    return TURBO ? 0 : listed;
}

/* stb_image 2.27 mixes the last two chroma samples of a 4:2:2 row the wrong way round: the last column but one. */
static bool is_known_wrong(const char *name, uint32_t column, uint32_t width) {
    return !TURBO && strcmp(name, "422.jpg") == 0 && column + 3 >= width;
}

/* Files that the guards let pass, and whether a decoder makes pixels of them: always the same ones. */
static const struct {
    const char *file;
    bool stb, turbo;
    const char *why;
} strange[] = {
    {"overflow.jpg", true, true, "a coefficient times its quantiser overflows, which is made to wrap"},
    {"distance.png", true, true, "stb_image takes a distance that does not exist for one into cleared memory"},
    {"shift.jpg", true, false, "the data end inside a block: stb_image goes on with zeros, after a shift too far"},
    {"cut-short.jpg", true, false, "the data end early: stb_image goes on with zeros, libjpeg would too, but warns"},
    {"wrong-restart.jpg", true, false, "a restart's number is wrong: stb_image does not look at it"},
    {"symbol.jpg", true, false, "a code that is never used means nothing: libjpeg judges the table"},
};

struct buffer {
    uint8_t *data;
    size_t size;
};

static struct buffer read_whole(const char *path) {
    struct buffer buffer = {malloc(1 << 20), 0};
    FILE *file = fopen(path, "rb");
    if (!file || !buffer.data)
        fail_msg("cannot read %s", path);
    buffer.size = fread(buffer.data, 1, 1 << 20, file);
    fclose(file);
    return buffer;
}

/* The same bytes in a block of their own size, so that a sanitiser sees a read beyond their end. */
static resnet_status decode_exact(const uint8_t *data, size_t size, struct faults *faults, struct image *image,
                                  resnet_error *error) {
    resnet_allocator allocator = faults_allocator(faults);
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size)
        memcpy(copy, data, size);
    resnet_status status = image_decode(copy, size, &allocator, image, error);
    free(copy);
    return status;
}

static void release(struct faults *faults, struct image *image) {
    resnet_allocator allocator = faults_allocator(faults);
    image_free(image, &allocator);
    assert_int_equal(faults->blocks, 0);
    assert_int_equal(faults->bytes, 0);
}

/* Decode twice over different heap contents: the same status and, for an image, the same pixels. Returns their CRC. */
static resnet_status decode_twice(const uint8_t *data, size_t size, uint32_t *crc, resnet_error *error) {
    resnet_status status[2];
    uint32_t crcs[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        struct faults faults = {.fill = i ? 0xa5 : 0};
        struct image image = {0};
        status[i] = decode_exact(data, size, &faults, &image, error);
        if (status[i] == RESNET_OK)
            crcs[i] = crc32_of(image.pixels, (size_t)3 * image.width * image.height);
        release(&faults, &image);
    }
    assert_int_equal(status[0], status[1]);
    assert_int_equal(crcs[0], crcs[1]);
    if (crc)
        *crc = crcs[0];
    return status[0];
}

/* ---- Good files ---- */

typedef void good_check(const char *name, const struct buffer *file, uint32_t width, uint32_t height, int tolerance);

static void for_good_files(good_check *check) {
    FILE *list = fopen(IMAGES "good.txt", "r");
    char name[64], path[512];
    unsigned width, height, count = 0;
    int tolerance;
    assert_non_null(list);
    while (fscanf(list, "%63s %u %u %d", name, &width, &height, &tolerance) == 4) {
        snprintf(path, sizeof path, IMAGES "%s", name);
        struct buffer file = read_whole(path);
        check(name, &file, width, height, tolerance);
        free(file.data);
        count++;
    }
    fclose(list);
    assert_true(count >= 70);
}

static void compare_pixels(const char *name, const struct buffer *file, uint32_t width, uint32_t height,
                           int tolerance) {
    struct faults faults = {.fill = 0x5a};
    struct image image = {0};
    resnet_error error = {0};
    char path[512];
    snprintf(path, sizeof path, IMAGES "%s.rgb", name);
    struct buffer expected = read_whole(path);
    if (decode_exact(file->data, file->size, &faults, &image, &error) != RESNET_OK)
        fail_msg("%s: %s", name, error.message);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    assert_int_equal(expected.size, (size_t)3 * width * height);
    for (size_t i = 0; i < expected.size; i++) {
        int difference = abs(image.pixels[i] - expected.data[i]);
        if (difference > tolerance_here(tolerance) && !is_known_wrong(name, (uint32_t)(i / 3 % width), width))
            fail_msg("%s: byte %zu is %d, not %d", name, i, image.pixels[i], expected.data[i]);
    }
    release(&faults, &image);
    free(expected.data);
}

static void decodes_what_pillow_decodes(void **state) {
    (void)state;
    for_good_files(compare_pixels);
}

/* A file that lacks its end is refused, or has all its pixels: never a half-grey image. */
static void truncate_everywhere(const char *name, const struct buffer *file, uint32_t width, uint32_t height,
                                int tolerance) {
    uint32_t whole, part;
    (void)width, (void)height, (void)tolerance;
    assert_int_equal(decode_twice(file->data, file->size, &whole, NULL), RESNET_OK);
    for (size_t size = 0; size < file->size; size++) {
        resnet_error error = {0};
        resnet_status status = decode_twice(file->data, size, &part, &error);
        if (status == RESNET_OK ? part != whole : status != RESNET_ERROR_IMAGE || !error.message[0])
            fail_msg("%s: the first %zu of %zu bytes give status %d", name, size, file->size, (int)status);
    }
}

static void refuses_truncated_files(void **state) {
    (void)state;
    for_good_files(truncate_everywhere);
}

/* Corrupt files decode to something or to nothing, but to the same whatever the heap held. */
static void corrupt(const char *name, const struct buffer *file, uint32_t width, uint32_t height, int tolerance) {
    uint32_t random = 1;
    (void)name, (void)width, (void)height, (void)tolerance;
    for (int round = 0; round < 200; round++) {
        uint8_t saved[3];
        size_t at[3];
        for (int i = 0; i < 3; i++) {
            random = random * 1664525u + 1013904223u;
            at[i] = (random >> 8) % file->size;
            saved[i] = file->data[at[i]];
            file->data[at[i]] ^= (uint8_t)(1u << (random >> 5 & 7));
        }
        decode_twice(file->data, file->size, NULL, NULL);
        for (int i = 2; i >= 0; i--)
            file->data[at[i]] = saved[i];
    }
}

static void decodes_corrupt_files_the_same_twice(void **state) {
    (void)state;
    for_good_files(corrupt);
}

static void fail_every_allocation(const char *name, const struct buffer *file, uint32_t width, uint32_t height,
                                  int tolerance) {
    (void)name, (void)width, (void)height, (void)tolerance;
    for (int forever = 0; forever < 2; forever++)
        for (size_t k = 1;; k++) {
            struct faults faults = {.fail_at = k, .fail_forever = forever};
            struct image image = {0};
            resnet_error error = {0};
            resnet_status status = decode_exact(file->data, file->size, &faults, &image, &error);
            bool reached = faults.calls >= k;
            release(&faults, &image);
            if (!reached)
                break;
            assert_int_equal(status, RESNET_ERROR_MEMORY);
            assert_non_null(strstr(error.message, "out of memory"));
        }
}

static void survives_refused_memory(void **state) {
    (void)state;
    for_good_files(fail_every_allocation);
}

/* In place of libjpeg's own, by which it calls malloc. Where libjpeg keeps to its own, the test is skipped. */
__attribute__((visibility("default"))) void *jpeg_get_small(void *jpeg, size_t size);

static bool first_blocks_refused, first_blocks_asked;

void *jpeg_get_small(void *jpeg, size_t size) {
    (void)jpeg;
    first_blocks_asked = true;
    return first_blocks_refused ? NULL : malloc(size);
}

static void survives_what_libjpeg_is_refused(void **state) {
    struct faults faults = {0};
    struct image image = {0};
    resnet_error error = {0};
    struct buffer file = read_whole(IMAGES "420.jpg");
    (void)state;
    first_blocks_refused = true;
    resnet_status status = decode_exact(file.data, file.size, &faults, &image, &error);
    first_blocks_refused = false;
    free(file.data);
    release(&faults, &image);
    if (!first_blocks_asked)
        skip();
    assert_int_equal(status, RESNET_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "out of memory"));
}

/* ---- Bad files ---- */

/* Each malformed file gets its message, at once and with little memory. */
static void names_what_is_wrong(void **state) {
    FILE *list = fopen(IMAGES "bad.txt", "r");
    char line[256], path[512];
    unsigned count = 0;
    (void)state;
    assert_non_null(list);
    while (fgets(line, sizeof line, list)) {
        char *name = strtok(line, "\t"), *message = strtok(NULL, "\n");
        struct faults faults = {.fill = 0xff};
        struct image image = {0};
        resnet_error error = {0};
        clock_t start = clock();
        snprintf(path, sizeof path, IMAGES "%s", name);
        struct buffer file = read_whole(path);
        resnet_status status = decode_exact(file.data, file.size, &faults, &image, &error);
        if (status != RESNET_ERROR_IMAGE || error.status != status || !strstr(error.message, message))
            fail_msg("%s: status %d, \"%s\"; expected \"%s\"", name, (int)status, error.message, message);
        assert_true(faults.peak < (size_t)34 << 20);
        assert_true(clock() - start < CLOCKS_PER_SEC);
        assert_null(image.pixels);
        release(&faults, &image);
        decode_twice(file.data, file.size, NULL, NULL);
        free(file.data);
        count++;
    }
    fclose(list);
    assert_true(count >= 140);
}

static void judges_strange_files_as_listed(void **state) {
    char path[512];
    (void)state;
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        resnet_error error = {0};
        snprintf(path, sizeof path, IMAGES "strange/%s", strange[i].file);
        struct buffer file = read_whole(path);
        resnet_status expected = (TURBO ? strange[i].turbo : strange[i].stb) ? RESNET_OK : RESNET_ERROR_IMAGE;
        if (decode_twice(file.data, file.size, NULL, &error) != expected)
            fail_msg("%s: \"%s\", although %s", strange[i].file, error.message, strange[i].why);
        assert_true(!error.message[0] || strstr(error.message, "corrupt or incomplete"));
        free(file.data);
    }
}

/* ---- Files that are no files ---- */

static void expect_io(const char *path, const char *message) {
    struct faults faults = {0};
    resnet_allocator allocator = faults_allocator(&faults);
    struct image image = {0};
    resnet_error error = {0};
    resnet_status status = image_decode_file(path, &allocator, &image, &error);
    if (status != RESNET_ERROR_IO || !strstr(error.message, message))
        fail_msg("%s: status %d, \"%s\"; expected \"%s\"", path, (int)status, error.message, message);
    assert_int_equal(faults.calls, 0);
}

static void refuses_what_is_no_regular_file(void **state) {
    char directory[] = "/tmp/test_image_XXXXXX", path[64], long_path[400];
    FILE *file;
    (void)state;
    expect_io("/nonexistent/cat.jpg", "/nonexistent/cat.jpg: cannot be opened: No such file");
    expect_io("/dev/zero", "is a device or a socket, not a regular file");
    assert_non_null(mkdtemp(directory));
    expect_io(directory, "is a directory, not a regular file");
    snprintf(path, sizeof path, "%s/pipe", directory);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_io(path, "is a named pipe, not a regular file");
    unlink(path);
    snprintf(path, sizeof path, "%s/sparse", directory);
    file = fopen(path, "wb");
    assert_non_null(file);
    fputs("BM", file);
    assert_int_equal(ftruncate(fileno(file), (off_t)1 << 40), 0);
    fclose(file);
    expect_io(path, "has 1099511627776 bytes");
    unlink(path);
    rmdir(directory);
    memset(long_path, 'x', sizeof long_path);
    memcpy(long_path, "/nonexistent/", 13);
    strcpy(long_path + sizeof long_path - 8, "cat.jpg");
    expect_io(long_path, "cat.jpg: cannot be opened: "); /* the end of the path, and the reason behind it */
}

static void reads_from_a_path(void **state) {
    resnet_allocator allocator = memory_allocator(NULL);
    struct image image = {0};
    resnet_error error = {0};
    (void)state;
    assert_int_equal(image_decode_file(IMAGES "rgb8.png", &allocator, &image, &error), RESNET_OK);
    assert_int_equal(image.width, 19);
    image_free(&image, &allocator);
    assert_null(image.pixels);
    image_free(&image, &allocator); /* twice is allowed */
    assert_int_equal(image_decode_file(IMAGES "bad/zeros.bin", &allocator, &image, &error), RESNET_ERROR_IMAGE);
    assert_non_null(strstr(error.message, "bad/zeros.bin: not an image"));
    assert_int_equal(image_decode_file(IMAGES "bad/empty.bin", &allocator, &image, NULL), RESNET_ERROR_IMAGE);
}

static int whole_reads = -1; /* that succeed before the disk fails; negative: all */

/* In place of the system's, for the library too. */
ssize_t pread(int file, void *bytes, size_t size, off_t offset) {
    if (whole_reads == 0) {
        errno = EIO;
        return -1;
    }
    whole_reads -= whole_reads > 0;
    return lseek(file, offset, SEEK_SET) < 0 ? -1 : read(file, bytes, size);
}

/* The first bytes, which tell the format, are read before the rest. */
static void tells_that_the_disk_fails(void **state) {
    (void)state;
    for (int reads = 0; reads < 2; reads++) {
        struct faults faults = {0};
        resnet_allocator allocator = faults_allocator(&faults);
        struct image image = {0};
        resnet_error error = {0};
        whole_reads = reads;
        resnet_status status = image_decode_file(IMAGES "rgb8.png", &allocator, &image, &error);
        whole_reads = -1;
        assert_int_equal(status, RESNET_ERROR_IO);
        assert_non_null(strstr(error.message, "rgb8.png: cannot be read: "));
        release(&faults, &image);
    }
}

static void survives_refused_memory_for_a_file(void **state) {
    resnet_error error = {0};
    (void)state;
    for (size_t k = 1;; k++) {
        struct faults faults = {.fail_at = k};
        resnet_allocator allocator = faults_allocator(&faults);
        struct image image = {0};
        resnet_status status = image_decode_file(IMAGES "rgb16-interlaced.png", &allocator, &image, &error);
        bool reached = faults.calls >= k;
        release(&faults, &image);
        if (!reached)
            break;
        assert_int_equal(status, RESNET_ERROR_MEMORY);
    }
}

/* A huge image file in memory is refused by its size alone; a NULL of no bytes is an empty file. */
static void refuses_sizes(void **state) {
    resnet_allocator allocator = memory_allocator(NULL);
    struct image image = {0};
    resnet_error error = {0};
    (void)state;
    assert_int_equal(image_decode("", (size_t)1 << 40, &allocator, &image, &error), RESNET_ERROR_IMAGE);
    assert_non_null(strstr(error.message, "1099511627776 bytes"));
    assert_int_equal(image_decode(NULL, 0, &allocator, &image, &error), RESNET_ERROR_IMAGE);
    assert_non_null(strstr(error.message, "an empty file"));
}

/* ---- The awkward files of other projects ---- */

static void check_odd_file(const char *path, char *verdict) {
    struct buffer file = read_whole(path);
    resnet_error error = {0};
    uint32_t crc, expected;
    resnet_status status = decode_twice(file.data, file.size, &crc, &error);
    if ((status == RESNET_OK) != (strcmp(verdict, "refused") != 0))
        fail_msg("%s: status %d (%s); expected %s", path, (int)status, error.message, verdict);
    const char *sum = strchr(verdict, ' ');
    bool near = sum && sum[1] == '~'; /* what stb_image only comes near */
    if (sum && (TURBO || !near) && sscanf(sum + 1 + near, "%x", &expected) == 1 && crc != expected)
        fail_msg("%s: the pixels are not Pillow's", path);
    free(file.data);
}

static void judges_odd_files_as_listed(void **state) {
    FILE *list = fopen(IMAGES "odd.txt", "r");
    char line[512], path[1024];
    struct stat about;
    (void)state;
    if (stat(SHARED_DATA "/odd", &about) != 0) {
        print_message("judges_odd_files_as_listed: skipped, there is no %s\n", SHARED_DATA "/odd");
        if (list)
            fclose(list);
        skip();
    }
    assert_non_null(list);
    while (fgets(line, sizeof line, list)) {
        char *name = strtok(line, "\t"), *verdict = strtok(NULL, "\n");
        snprintf(path, sizeof path, SHARED_DATA "/odd/%s", name);
        check_odd_file(path, verdict);
    }
    fclose(list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_what_pillow_decodes),
        cmocka_unit_test(refuses_truncated_files),
        cmocka_unit_test(decodes_corrupt_files_the_same_twice),
        cmocka_unit_test(survives_refused_memory),
        cmocka_unit_test(survives_what_libjpeg_is_refused),
        cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(judges_strange_files_as_listed),
        cmocka_unit_test(refuses_what_is_no_regular_file),
        cmocka_unit_test(reads_from_a_path),
        cmocka_unit_test(tells_that_the_disk_fails),
        cmocka_unit_test(survives_refused_memory_for_a_file),
        cmocka_unit_test(refuses_sizes),
        cmocka_unit_test(judges_odd_files_as_listed),
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
