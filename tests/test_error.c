/* test_error.c - what a caller learns of a failure: status, name, one terminated line. */
#define _POSIX_C_SOURCE 200809L /* strnlen */
#include "error.h"

#include <string.h>

#include "support.h"

/* `(fail)`: cmocka has a macro of that name. */

static void test_fail(void **state) {
    (void)state;
    resnet_error error;
    assert_int_equal((fail)(&error, RESNET_ERROR_IO, "%s: %d of %u", "file", -1, 2U), RESNET_ERROR_IO);
    assert_int_equal(error.status, RESNET_ERROR_IO);
    assert_string_equal(error.message, "file: -1 of 2");
}

static void test_nobody_listens(void **state) {
    (void)state;
    assert_int_equal((fail)(NULL, RESNET_ERROR_MODEL, "%s", "unheard"), RESNET_ERROR_MODEL);
    assert_int_equal(fail_memory(NULL, "nothing", 1), RESNET_ERROR_MEMORY);
}

static void test_long_messages_are_cut(void **state) {
    (void)state;
    char text[1000];
    resnet_error error;
    for (size_t length = 250; length < 260; length++) {
        memset(text, 'x', sizeof text);
        text[length] = '\0';
        memset(&error, 0xff, sizeof error);
        (fail)(&error, RESNET_ERROR_IO, "%s", text);
        size_t kept = length < sizeof error.message ? length : sizeof error.message - 1;
        assert_int_equal(strnlen(error.message, sizeof error.message), kept);
        assert_memory_equal(error.message, text, kept);
    }
}

static void test_control_bytes_are_replaced(void **state) {
    (void)state;
    for (int byte = 1; byte < 256; byte++) {
        resnet_error error;
        (fail)(&error, RESNET_ERROR_IO, "a%cb", byte);
        bool control = byte < 0x20 || byte == 0x7f; /* from 0x80 on: parts of UTF-8 */
        assert_int_equal((unsigned char)error.message[1], control ? '?' : byte);
        assert_int_equal(error.message[2], 'b');
        assert_int_equal(strlen(error.message), 3);
    }
}

static void test_fail_memory(void **state) {
    (void)state;
    resnet_error error;
    assert_status(RESNET_ERROR_MEMORY, fail_memory(&error, "the weights", 12345), &error);
    assert_non_null(strstr(error.message, "12345 bytes"));
    assert_non_null(strstr(error.message, "the weights"));
}

static void test_status_names(void **state) {
    (void)state;
    static const char *const names[] = {
        [RESNET_OK] = "RESNET_OK",
        [RESNET_ERROR_ARGUMENT] = "RESNET_ERROR_ARGUMENT",
        [RESNET_ERROR_MEMORY] = "RESNET_ERROR_MEMORY",
        [RESNET_ERROR_IO] = "RESNET_ERROR_IO",
        [RESNET_ERROR_MODEL] = "RESNET_ERROR_MODEL",
        [RESNET_ERROR_UNSUPPORTED] = "RESNET_ERROR_UNSUPPORTED",
        [RESNET_ERROR_IMAGE] = "RESNET_ERROR_IMAGE",
        [RESNET_ERROR_THREAD] = "RESNET_ERROR_THREAD",
    };
    for (unsigned i = 0; i < COUNT(names); i++)
        assert_string_equal(resnet_status_name((resnet_status)i), names[i]);
    assert_string_equal(resnet_status_name((resnet_status)COUNT(names)), "unknown");
    assert_string_equal(resnet_status_name((resnet_status)-1), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_control_bytes_are_replaced),
        cmocka_unit_test(test_fail_memory),
        cmocka_unit_test(test_status_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
