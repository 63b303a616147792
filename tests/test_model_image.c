/* test_model_image.c - an image is the file that FORMAT.md describes. */
#include "model_image.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

static void add_tensor(void *context, const struct test_tensor *tensor) {
    void **both = context;
    const struct test_bytes *file = both[1];
    float *values = malloc(tensor->count * sizeof *values);
    memcpy(values, file->data + tensor->offset, tensor->count * sizeof *values);
    model_image_f32(both[0], values, tensor->count);
    free(values);
}

/* The tests' own writer and this one give the same bytes. */
static void test_image_is_the_file_of_the_format(void **state) {
    (void)state;
    static const char labels[] = "a cat\0k\303\244se"; /* terminated strings */
    resnet_config config = test_tiny_config();
    resnet_preprocess how = {.resize = 9, .interpolation = RESNET_BICUBIC, .mean = {.1F, .2F, .3F}, .std = {1, 2, 3}};
    struct test_random random = {1};
    struct test_content content = {
        .preprocess = &how, .labels = "a cat\nk\303\244se\n", .fill = test_fill_random, .context = &random};
    struct test_bytes file = test_model_file(&config, &content);
    struct model_image image = {.allocator = memory_allocator(NULL)};
    struct graph graph;
    struct shape input = {config.height, config.width, config.in_channels};
    resnet_error error;
    assert_status(RESNET_OK, graph_build(&graph, &config, input, &image.allocator, &error), &error);
    config.precision = RESNET_PRECISION_F32;
    model_image_header(&image, &config, &how, labels, sizeof labels);
    void *both[] = {&image, &file};
    test_each_tensor(&(struct test_layout){&graph, sizeof labels, config.precision, 0}, add_tensor, both);
    assert_status(RESNET_OK, model_image_check(&image, &error), &error);
    model_image_finish(&image);
    assert_int_equal(image.size, file.size);
    assert_memory_equal(image.bytes, file.data, file.size);
    graph_free(&graph, &image.allocator);
    model_image_free(&image);
    test_bytes_free(&file);
}

/* Size and checksums come last; all else of any member's header is there. */
static void test_header_of_any_member(void **state) {
    (void)state;
    resnet_preprocess how = {.resize = 9, .mean = {.1F, .2F, .3F}, .std = {1, 2, 3}};
    struct test_random random = {3};
    for (int i = 0; i < 200; i++) {
        resnet_config config = test_any_config(&random);
        struct model_image image = {.allocator = memory_allocator(NULL)};
        uint8_t header[256];
        config.precision = (resnet_precision)test_between(&random, 1, 3);
        model_image_header(&image, &config, &how, NULL, 0);
        test_header(header, &config, &how, 0);
        assert_int_equal(image.size, sizeof header);
        assert_memory_equal(image.bytes, header, sizeof header);
        model_image_free(&image);
    }
}

static void test_tensors_are_rounded_and_padded(void **state) {
    (void)state;
    static const float values[] = {1, -2.5F, 1.00390625F, 1.01171875F}; /* the last two lie between two bf16 */
    static const uint8_t bf16[] = {0x80, 0x3f, 0x20, 0xc0, 0x80, 0x3f, 0x82, 0x3f}, zeros[256] = {0};
    struct model_image image = {.allocator = memory_allocator(NULL)};
    model_image_bf16(&image, values, COUNT(values));
    assert_int_equal(image.size, 64);
    model_image_zeros(&image, 65);
    assert_int_equal(image.size, 192);
    model_image_bytes(&image, bf16, 3);
    assert_int_equal(image.size, 256);
    assert_memory_equal(image.bytes, bf16, sizeof bf16);
    assert_memory_equal(image.bytes + 8, zeros, 184);
    assert_memory_equal(image.bytes + 192, bf16, 3);
    assert_memory_equal(image.bytes + 195, zeros, 61);
    model_image_free(&image);
}

static void test_refused_memory_is_told_at_the_end(void **state) {
    (void)state;
    static const uint8_t bytes[4096] = {0};
    for (size_t refuse = 1; refuse <= 3; refuse++) {
        struct test_memory memory;
        resnet_error error = {RESNET_OK, ""};
        test_memory_init(&memory, 0xa5);
        memory.refuse = refuse;
        struct model_image image = {.allocator = memory.allocator};
        for (size_t size = 16; size <= sizeof bytes; size *= 4)
            model_image_bytes(&image, bytes, size);
        assert_status(RESNET_ERROR_MEMORY, model_image_check(&image, &error), &error);
        model_image_free(&image);
        test_memory_check(&memory);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image_is_the_file_of_the_format),
        cmocka_unit_test(test_header_of_any_member),
        cmocka_unit_test(test_tensors_are_rounded_and_padded),
        cmocka_unit_test(test_refused_memory_is_told_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
