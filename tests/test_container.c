/* test_container.c - checkpoints are known by their first bytes, however few of them there are. */
#include "container.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

#define ZIP "PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

static const struct sample {
    const char *bytes;
    size_t size;
    uint64_t file_size;
    const char *container; /* NULL: none */
} samples[] = {
    {"\x89HDF\r\n\x1a\n\0", 9, 9, "HDF5"},
    {ZIP "\x10\0\4\0archive/data.pkl\x80\2", 48, 9999, "ZIP archive of PyTorch's"},
    {ZIP "\x10\0\4\0archive/elseelse\x80\2", 48, 9999, NULL},
    {ZIP "\xff\xff\4\0archive/data.pkl\x80\2", 48, 9999, NULL},
    {ZIP "\2\0\4\0archive/data.pkl\x80\2", 48, 9999, NULL},
    {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02", 17, 99, "pickle"},
    {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x18.\x80\x02", 17, 99, NULL},
    {"\x10\0\0\0\0\0\0\0{\"a\":", 13, 25, "safetensors"},
    {"\x10\0\0\0\0\0\0\0{\"a\":", 13, 24, NULL},
    {"\xff\xff\xff\xff\xff\xff\xff\xff{\"a\":", 13, 25, NULL},
    {"{ \"weight_map\": {", 17, 99, "index"},
    {"[ \"weight_map\": {", 17, 99, NULL},
    {"\x08\x07\x12\x07pytorch", 11, 99, "ONNX"},
    {"\x08\x07\x7f\x07pytorch", 11, 99, NULL},
    {"\x8bRNT\r\n\x1a\n", 8, 256, NULL},
    {"", 0, 0, NULL},
};

/* The bytes in a block of their own, so that a sanitizer sees any access beyond them. */
static const char *container_of_copy(const struct sample *sample, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, sample->bytes, size);
    const char *container = container_of(copy, size, sample->file_size);
    free(copy);
    return container;
}

static void test_each_kind(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++) {
        const char *container = container_of_copy(&samples[i], samples[i].size);
        if (!samples[i].container)
            assert_null(container);
        else
            assert_true(container && strstr(container, samples[i].container));
    }
}

static void test_each_beginning(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++)
        for (size_t size = 0; size < samples[i].size; size++) {
            const char *container = container_of_copy(&samples[i], size);
            assert_true(!container || (samples[i].container && strstr(container, samples[i].container)));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),
        cmocka_unit_test(test_each_beginning),
    };
    return cmocka_run_group_tests_name("container", tests, NULL, NULL);
}
