/* test_file.c - regular files are read to the byte, everything else is refused at once. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp, mkfifo */
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"
#include "system_calls.h"

static void expect_refused(const char *path, const char *reason) {
    int descriptor = -2;
    uint64_t size = 77;
    resnet_error error = {RESNET_OK, ""};
    assert_status(RESNET_ERROR_IO, file_open(path, &descriptor, &size, &error), &error);
    assert_non_null(strstr(error.message, reason));
    assert_true(size == 77);
    if (descriptor >= 0)
        close(descriptor);
}

static void test_refuses_all_but_regular_files(void **state) {
    (void)state;
    char folder[] = "/tmp/test_file_XXXXXX", fifo[64];
    assert_non_null(mkdtemp(folder));
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    expect_refused(fifo, "cannot be opened: No such file");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    expect_refused(fifo, "is a named pipe, not a regular file");
    expect_refused(folder, "is a directory, not a regular file");
    expect_refused("/dev/zero", "is a device or a socket, not a regular file");
    assert_int_equal(unlink(fifo), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void test_reads_to_the_byte_and_no_further(void **state) {
    (void)state;
    char path[] = "/tmp/test_file_XXXXXX", bytes[8] = "";
    int written = mkstemp(path), descriptor;
    assert_true(written >= 0 && write(written, "0123456789", 10) == 10);
    uint64_t size = 0;
    resnet_error error;
    assert_status(RESNET_OK, file_open(path, &descriptor, &size, &error), &error);
    assert_true(size == 10);
    assert_status(RESNET_OK, file_read(descriptor, 0, bytes, 7, &error), &error);
    assert_memory_equal(bytes, "0123456", 7);
    assert_status(RESNET_OK, file_read(descriptor, 7, bytes, 0, &error), &error);
    assert_status(RESNET_ERROR_IO, file_read(descriptor, 7, bytes, 7, &error), &error);
    assert_non_null(strstr(error.message, "became shorter while it was read: 4 bytes are missing"));
    close(descriptor);
    assert_status(RESNET_ERROR_IO, file_read(descriptor, 0, bytes, 1, &error), &error);
    assert_non_null(strstr(error.message, "cannot be read"));
    close(written);
    assert_int_equal(unlink(path), 0);
}

static int open_nothing(const char *path, int flags) {
    (void)path, (void)flags;
    return 1 << 20; /* more than a process may have */
}

static void test_a_descriptor_that_cannot_be_examined(void **state) {
    (void)state;
    system_calls.open = open_nothing;
    expect_refused("some file", "cannot be examined: Bad file descriptor");
    system_calls.open = NULL;
}

/* A disk that is interrupted twice, then gives a byte or two, again and again, and breaks at the seventh call. */
static int calls, broken_at;

static ssize_t read_slowly(int descriptor, void *bytes, size_t size, off_t offset) {
    calls++;
    errno = calls == broken_at ? EIO : EINTR;
    if (calls == broken_at || calls % 4 < 2)
        return -1;
    size_t most = 1 + (size_t)calls % 2;
    return __real_pread(descriptor, bytes, size < most ? size : most, offset);
}

static void test_interruptions_and_short_reads(void **state) {
    (void)state;
    char path[] = "/tmp/test_file_XXXXXX", bytes[9] = "";
    int descriptor = mkstemp(path);
    resnet_error error;
    assert_true(descriptor >= 0 && write(descriptor, "0123456789", 10) == 10);
    system_calls.pread = read_slowly;
    assert_status(RESNET_OK, file_read(descriptor, 1, bytes, 8, &error), &error);
    assert_string_equal(bytes, "12345678");
    assert_true(calls > 8);
    calls = 0;
    broken_at = 7;
    assert_status(RESNET_ERROR_IO, file_read(descriptor, 1, bytes, 8, &error), &error);
    assert_string_equal(error.message, "cannot be read: Input/output error");
    system_calls.pread = NULL;
    close(descriptor);
    assert_int_equal(unlink(path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_all_but_regular_files),
        cmocka_unit_test(test_reads_to_the_byte_and_no_further),
        cmocka_unit_test(test_a_descriptor_that_cannot_be_examined),
        cmocka_unit_test(test_interruptions_and_short_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
