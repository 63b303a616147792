/*
 * test_model_rules.c - the reader of models/FORMAT.md at the edge of each rule: the last value that loads, and the
 * first that does not. test_model_file.c has what is wrong in every other way.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model_file.h"
#include "support.h"

/* Where the tensors of conv1 start in a tiny file with the labels below. */
#define LABELS       "cat\ndog\n"
#define F32_SCALE    2688 /* then shift, mean and variance, 64 bytes each */
#define F32_VARIANCE (F32_SCALE + 3 * 64)
#define INT8_SCALE   1024 /* then bias and activation */

static struct test_bytes tiny(resnet_precision precision, const char *labels) {
    resnet_config config = test_stored_in(test_tiny_config(), precision);
    return test_model_file(&config, &(struct test_content){.labels = labels});
}

/* Load, and get `expected`, with this in the message. */
static void expect(const struct test_bytes *bytes, const char *message, const char *name) {
    resnet_model *model;
    resnet_error error = {RESNET_OK, ""};
    resnet_status status = resnet_model_load_memory(bytes->data, bytes->size, NULL, &model, &error);
    if ((status != RESNET_OK) != (message != NULL) || (message && !strstr(error.message, message)))
        fail_msg("%s: '%s' instead of '%s'", name, error.message, message ? message : "");
    resnet_model_free(model);
}

static void header_fields_at_the_edge(void **state) {
    static const struct {
        const char *name;
        size_t offset;
        uint32_t value;
        const char *message;
    } cases[] = {
        {"resize 0", 92, 0, NULL},
        {"resize to 16384", 92, 16384, NULL},
        {"resize to 16385", 92, 16385, "resize to 16385"},
        {"height 1", 76, 1, NULL},
        {"width 16384", 80, 16384, NULL},
        {"a large mean", 128, 0x7f7fffff, NULL},
        {"a mean below 0", 136, 0xbf800000, NULL},
        {"the smallest std", 192, 0x00000001, NULL},
        {"a std of -0", 200, 0x80000000, "channel 2"},
        {"an infinite std", 196, 0x7f800000, "channel 1"},
        {"an infinite mean", 132, 0x7f800000, "channel 1"},
        {"a std behind the channels", 204, 1, "channel 3"},
        {"a mean behind the channels", 140, 1, "channel 3"},
        {"epsilon 1", 88, 0x3f800000, NULL},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct test_bytes bytes = tiny(RESNET_PRECISION_F32, LABELS);
        test_put_u32(bytes.data + cases[i].offset, cases[i].value);
        test_seal(&bytes);
        expect(&bytes, cases[i].message, cases[i].name);
        test_bytes_free(&bytes);
    }
    for (unsigned interpolation = 0; interpolation < 3; interpolation++) {
        struct test_bytes bytes = tiny(RESNET_PRECISION_F32, LABELS);
        bytes.data[39] = (uint8_t)interpolation;
        test_seal(&bytes);
        expect(&bytes, interpolation < 2 ? NULL : "neither bilinear", "interpolation");
        test_bytes_free(&bytes);
    }
}

/* Every byte that must be 0, by itself. */
static void bytes_that_must_be_zero(void **state) {
    (void)state;
    for (size_t byte = 28; byte < 128; byte = byte == 31 ? 104 : byte + 1) {
        struct test_bytes bytes = tiny(RESNET_PRECISION_F32, NULL);
        bytes.data[byte] = 1;
        test_seal(&bytes);
        expect(&bytes, byte < 32 ? "flags (header byte" : "a reserved field (header byte", "a byte of the header");
        test_bytes_free(&bytes);
    }
}

static void numbers_at_the_edge(void **state) {
    static const struct {
        const char *name;
        resnet_precision precision;
        size_t offset;
        float value;
        const char *message;
    } cases[] = {
        {"a variance of 0", RESNET_PRECISION_F32, F32_VARIANCE, 0, NULL},
        {"a variance of -0", RESNET_PRECISION_F32, F32_VARIANCE, -0.0F, NULL},
        {"a variance below 0", RESNET_PRECISION_F32, F32_VARIANCE + 12, -FLT_MIN, "it cannot be negative"},
        {"a mean below 0", RESNET_PRECISION_F32, F32_VARIANCE - 64, -1, NULL},
        {"a scale of 0", RESNET_PRECISION_F32, F32_SCALE, 0, NULL},
        {"the smallest activation, which folding refuses", RESNET_PRECISION_INT8, INT8_SCALE + 128, 0x1p-40F,
         "a bias or a scale"},
        {"below it", RESNET_PRECISION_INT8, INT8_SCALE + 128, 0x1.fffffep-41F, "between 2^-40 and 2^40"},
        {"above the largest activation", RESNET_PRECISION_INT8, INT8_SCALE + 128, 0x1.000002p40F, "2^-40 and 2^40"},
        {"a scale below the normal ones", RESNET_PRECISION_INT8, INT8_SCALE, FLT_MIN / 2, "it must be a normal number"},
        {"the smallest scale, likewise", RESNET_PRECISION_INT8, INT8_SCALE, FLT_MIN, "a bias or a scale"},
        {"the largest activation", RESNET_PRECISION_INT8, INT8_SCALE + 128, 0x1p40F, NULL},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct test_bytes bytes = tiny(cases[i].precision, LABELS);
        test_put_f32(bytes.data + cases[i].offset, cases[i].value);
        test_seal(&bytes);
        expect(&bytes, cases[i].message, cases[i].name);
        test_bytes_free(&bytes);
    }
}

static void bytes_of_labels(void **state) {
    (void)state;
    for (unsigned byte = 1; byte < 256; byte++) {
        char labels[] = "cat\nd?g\n";
        labels[5] = (char)byte;
        struct test_bytes bytes = tiny(RESNET_PRECISION_F32, labels);
        bool is_control = byte < 0x20 || byte == 0x7f;
        expect(&bytes,
               byte == '\n' ? "3 labels"
               : is_control ? "label 1 is empty or holds control byte"
                            : NULL,
               "a label");
        test_bytes_free(&bytes);
    }
}

/* A block of labels of any length: the padding behind it ends where the next 64 bytes do. */
static void labels_of_any_length(void **state) {
    (void)state;
    for (size_t size = 4; size <= 130; size++) {
        char labels[132];
        memset(labels, 'x', size);
        labels[1] = labels[size - 1] = '\n';
        labels[size] = '\0';
        struct test_bytes bytes = tiny(RESNET_PRECISION_F32, labels);
        expect(&bytes, NULL, "labels");
        for (size_t at = 256 + size; at < 256 + (size + 63) / 64 * 64; at++) {
            bytes.data[at] = 1;
            test_seal(&bytes);
            expect(&bytes, "the padding before byte", "padding");
            bytes.data[at] = 0;
        }
        test_bytes_free(&bytes);
    }
}

/* Sizes are compared with the limits before anything of the file is read but its header. */
static void sizes_at_the_edge(void **state) {
    uint8_t header[256] = {0};
    struct model_file file;
    resnet_error error;
    (void)state;
    assert_int_equal(model_file_open_memory(&file, header, 255, &error), RESNET_ERROR_MODEL);
    assert_string_equal(error.message, "has 255 bytes; a model file has at least 256");
    assert_int_equal(model_file_open_memory(&file, header, 256, &error), RESNET_ERROR_MODEL);
    assert_string_equal(error.message, "not a model file: its first bytes are not those of one");
    assert_int_equal(model_file_open_memory(&file, header, MODEL_FILE_MOST_BYTES, &error), RESNET_ERROR_MODEL);
    assert_string_equal(error.message, "not a model file: its first bytes are not those of one");
    assert_int_equal(model_file_open_memory(&file, header, MODEL_FILE_MOST_BYTES + 1, &error), RESNET_ERROR_MODEL);
    assert_string_equal(error.message, "has 1073741825 bytes; a model file has at most 1073741824");
}

/* A network of exactly the largest size passes the check of its size, and one byte more does not. */
static void network_at_the_edge(void **state) {
    resnet_allocator allocator = memory_allocator(NULL);
    resnet_config config = test_tiny_config();
    struct graph graph;
    resnet_error error;
    (void)state;
    assert_int_equal(graph_build(&graph, &config, (struct shape){8, 8, 3}, &allocator, NULL), RESNET_OK);
    struct node *last = &graph.nodes[graph.count - 1];
    struct model_file file = {.config = config};
    file.config.precision = RESNET_PRECISION_F32;
    last->in.channels = 16; /* 64 bytes of weights for each class, and 4 of bias */
    last->out.channels = (uint32_t)(MODEL_FILE_MOST_BYTES / 68) + 1;
    do {
        last->out.channels--;
        file.size = model_file_size(&graph, RESNET_PRECISION_F32, NULL, 0);
    } while (file.size > MODEL_FILE_MOST_BYTES);
    assert_true(MODEL_FILE_MOST_BYTES - file.size < 128);
    assert_int_equal(model_file_check_size(&file, &graph, NULL, &error), RESNET_OK);
    file.size--;
    assert_int_equal(model_file_check_size(&file, &graph, NULL, &error), RESNET_ERROR_MODEL);
    assert_non_null(strstr(error.message, "bytes where the network that its header names takes"));
    last->out.channels += 2;
    file.size = model_file_size(&graph, RESNET_PRECISION_F32, NULL, 0);
    assert_int_equal(model_file_check_size(&file, &graph, NULL, &error), RESNET_ERROR_MODEL);
    assert_non_null(strstr(error.message, "takes more than 1073741824 bytes"));
    graph_free(&graph, &allocator);
}

/* A byte of each layer's kind, padded to 64 (models/FORMAT.md): 64 layers fill that. */
static void kinds_at_the_edge(void **state) {
    resnet_allocator allocator = memory_allocator(NULL);
    resnet_config config = test_tiny_config();
    struct graph graph;
    (void)state;
    config.block = RESNET_BLOCK_BASIC;
    for (uint32_t blocks = 30; blocks <= 32; blocks++) { /* of two layers, behind conv1 and before fc */
        memcpy(config.blocks, (uint32_t[RESNET_MAX_STAGES]){blocks}, sizeof config.blocks);
        assert_int_equal(graph_build(&graph, &config, (struct shape){8, 8, 3}, &allocator, NULL), RESNET_OK);
        assert_true(model_file_tensors(&graph, RESNET_PRECISION_INT8, 0) == 256 + (blocks <= 31 ? 64 : 128));
        assert_true(model_file_tensors(&graph, RESNET_PRECISION_BF16, 0) == 256);
        graph_free(&graph, &allocator);
    }
}

/* Also where the program that loads has closed its standard input, and the file gets its number. */
static void descriptor_0_is_closed(void **state) {
    char path[] = "/tmp/test_model_rules_XXXXXX";
    struct test_bytes bytes = tiny(RESNET_PRECISION_F32, LABELS);
    resnet_model *model;
    resnet_error error;
    (void)state;
    int written = mkstemp(path), stdin_before = dup(STDIN_FILENO);
    assert_true(written > 0 && write(written, bytes.data, bytes.size) == (ssize_t)bytes.size);
    assert_int_equal(close(STDIN_FILENO), 0);
    assert_status(RESNET_OK, resnet_model_load_file(path, NULL, &model, &error), &error);
    assert_int_equal(fcntl(STDIN_FILENO, F_GETFD), -1);
    resnet_model_free(model);
    assert_int_equal(dup2(stdin_before, STDIN_FILENO), STDIN_FILENO);
    close(stdin_before);
    close(written);
    unlink(path);
    test_bytes_free(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_fields_at_the_edge), cmocka_unit_test(bytes_that_must_be_zero),
        cmocka_unit_test(numbers_at_the_edge),       cmocka_unit_test(bytes_of_labels),
        cmocka_unit_test(labels_of_any_length),      cmocka_unit_test(sizes_at_the_edge),
        cmocka_unit_test(network_at_the_edge),       cmocka_unit_test(kinds_at_the_edge),
        cmocka_unit_test(descriptor_0_is_closed),
    };
    return cmocka_run_group_tests_name("model_rules", tests, NULL, NULL);
}
