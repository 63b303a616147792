/*
 * test_model_file.c - the reader of models/FORMAT.md: what is right loads, everything else is refused by name.
 *
 * Wherever a change could be caught by a checksum alone, it is also tried with the checksums made to match: they guard
 * against accidents, and a file may be made on purpose. Every file lies in a block of its own size, so that a
 * sanitizer sees any look beyond it, and all memory is counted.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

#define LABELS "cat\ndog\n"
#define HEADER 256

/* A refusal must not cost memory: the largest graph that a header can name is 2 MB, the tiny model 30 KB. */
#define MOST_BYTES_REFUSING (4U << 20)

#define KEPT 4 /* of int8 files: the third of the four layers with tensors is kept in f32 */

static struct test_bytes tiny_in(resnet_precision precision) {
    resnet_config config = test_tiny_config();
    config.precision = precision;
    return test_model_file(&config, &(struct test_content){.labels = LABELS, .kept = KEPT});
}

static struct test_bytes tiny(void) {
    return tiny_in(RESNET_PRECISION_F32);
}

/* Where the tensors of the tiny file lie. */
static struct graph tiny_graph(void) {
    struct graph graph;
    resnet_config config = test_tiny_config();
    resnet_allocator allocator = memory_allocator(NULL);
    assert_int_equal(graph_build(&graph, &config, (struct shape){8, 8, 3}, &allocator, NULL), RESNET_OK);
    return graph;
}

static void free_graph(struct graph *graph) {
    resnet_allocator allocator = memory_allocator(NULL);
    graph_free(graph, &allocator);
}

static struct test_layout tiny_layout(const struct graph *graph, resnet_precision precision) {
    return (struct test_layout){graph, sizeof LABELS - 1, precision, KEPT};
}

/* ---- Load and compare ---- */

static uint64_t read_number(const uint8_t *from, int size) {
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

/* What was loaded, written again, must be the header that was read. */
static void check_describes(const resnet_model *model, const struct test_bytes *bytes) {
    resnet_model_info info = resnet_model_describe(model);
    uint8_t header[HEADER];
    test_header(header, &info.config, &info.preprocess, (uint32_t)read_number(bytes->data + 96, 4));
    for (size_t i = 28; i < HEADER; i++)
        if (header[i] != bytes->data[i])
            fail_msg("header byte %zu is %u; the model says %u", i, bytes->data[i], header[i]);
}

/* Load, with everything around it checked: no model and a message on failure, nothing leaked, little memory. */
static resnet_status try_load_isa(const struct test_bytes *bytes, resnet_isa isa, resnet_error *error) {
    struct test_memory memory;
    test_memory_init(&memory, 0xcd);
    resnet_load_options options = {.isa = isa, .allocator = &memory.allocator};
    resnet_model *model = (resnet_model *)&memory; /* anything but NULL */
    resnet_status status = resnet_model_load_memory(bytes->data, bytes->size, &options, &model, error);
    if (status == RESNET_OK)
        check_describes(model, bytes);
    else
        assert_null(model);
    assert_status(status, status, error);
    resnet_model_free(model);
    test_memory_check(&memory);
    if (status != RESNET_OK)
        assert_true(memory.peak_bytes < MOST_BYTES_REFUSING);
    return status;
}

static resnet_status try_load(const struct test_bytes *bytes, resnet_error *error) {
    return try_load_isa(bytes, RESNET_ISA_AUTO, error);
}

static bool is_refusal(resnet_status status) {
    return status == RESNET_ERROR_MODEL || status == RESNET_ERROR_UNSUPPORTED;
}

static void expect(const struct test_bytes *bytes, resnet_status expected, const char *message, const char *name) {
    resnet_error error = {RESNET_OK, ""};
    resnet_status status = try_load(bytes, &error);
    if (status != expected || !strstr(error.message, message))
        fail_msg("%s: %s '%s' instead of %s '...%s...'", name, resnet_status_name(status), error.message,
                 resnet_status_name(expected), message);
}

/* ---- What is right ---- */

static void test_tiny_loads(void **state) {
    (void)state;
    struct test_bytes bytes = tiny();
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes.data, bytes.size, NULL, &model, &error), &error);
    test_bytes_free(&bytes); /* the model keeps nothing of it */
    assert_string_equal(resnet_model_label(model, 0), "cat");
    assert_string_equal(resnet_model_label(model, 1), "dog");
    assert_null(resnet_model_label(model, 2));
    assert_null(resnet_model_label(model, UINT32_MAX));
    resnet_model_free(model);
}

static void test_labels_of_any_kind(void **state) {
    (void)state;
    static const char *const labels[] = {" ", "Bärenklau, 熊掌", "a b\\c\"d'e", "x"};
    resnet_config config = test_tiny_config();
    config.classes = COUNT(labels);
    char block[256] = "";
    for (size_t i = 0; i < COUNT(labels); i++)
        strcat(strcat(block, labels[i]), "\n");
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.labels = block});
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes.data, bytes.size, NULL, &model, &error), &error);
    for (uint32_t i = 0; i < COUNT(labels); i++)
        assert_string_equal(resnet_model_label(model, i), labels[i]);
    resnet_model_free(model);
    test_bytes_free(&bytes);
}

static resnet_config random_config(struct test_random *random) {
    resnet_config config = test_any_config(random);
    config.height = test_between(random, 1, 16384);
    config.width = test_between(random, 1, 16384);
    config.precision = (resnet_precision)test_between(random, 1, 3);
    config.bn_epsilon = test_float(random, 1e-6F, 1);
    return config;
}

static resnet_preprocess random_preprocess(struct test_random *random) {
    resnet_preprocess how = {.resize = test_below(random, 16385),
                             .interpolation = (resnet_interpolation)test_below(random, 2)};
    for (int c = 0; c < RESNET_MAX_CHANNELS; c++) {
        how.mean[c] = test_float(random, -300, 300);
        how.std[c] = test_float(random, 0.001F, 300);
    }
    return how;
}

static void test_random_networks_load(void **state) {
    (void)state;
    struct test_random random = {2};
    for (int i = 0; i < 200; i++) {
        resnet_config config = random_config(&random);
        resnet_preprocess how = random_preprocess(&random);
        struct test_bytes bytes = test_model_file(
            &config, &(struct test_content){.preprocess = &how, .context = &random, .kept = test_u64(&random)});
        expect(&bytes, RESNET_OK, "", "a random network");
        test_bytes_free(&bytes);
    }
}

/* ---- Damage ---- */

static void flip_every_bit(resnet_precision precision) {
    struct test_bytes bytes = tiny_in(precision);
    for (size_t bit = 0; bit < 8 * bytes.size; bit++) {
        resnet_error error;
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (!is_refusal(try_load(&bytes, &error)))
            fail_msg("bit %zu may be flipped", bit);
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    test_bytes_free(&bytes);
}

static void test_every_bit_flip_is_refused(void **state) {
    (void)state;
    flip_every_bit(RESNET_PRECISION_F32);
    flip_every_bit(RESNET_PRECISION_BF16);
    flip_every_bit(RESNET_PRECISION_INT8);
}

static void set_size(struct test_bytes *bytes) {
    test_put_u32(bytes->data + 16, (uint32_t)bytes->size);
    test_seal(bytes);
}

static void truncate_everywhere(resnet_precision precision) {
    struct test_bytes bytes = tiny_in(precision);
    for (size_t size = 0; size < bytes.size; size++) {
        struct test_bytes part = test_bytes_copy(&(struct test_bytes){bytes.data, size});
        expect(&part, RESNET_ERROR_MODEL, "bytes", "a truncated file");
        if (size >= HEADER) {
            set_size(&part);
            expect(&part, RESNET_ERROR_MODEL, "bytes where", "a truncated file that says so");
        }
        test_bytes_free(&part);
    }
    test_bytes_free(&bytes);
}

static void test_every_truncation_is_refused(void **state) {
    (void)state;
    truncate_everywhere(RESNET_PRECISION_F32);
    truncate_everywhere(RESNET_PRECISION_BF16);
    truncate_everywhere(RESNET_PRECISION_INT8);
}

static void extend(resnet_precision precision) {
    static const size_t more[] = {1, 4, 63, 64, 65, 256, 4096, 100000};
    struct test_bytes bytes = tiny_in(precision);
    for (size_t i = 0; i < COUNT(more); i++) {
        struct test_bytes longer = {calloc(bytes.size + more[i], 1), bytes.size + more[i]};
        assert_non_null(longer.data);
        memcpy(longer.data, bytes.data, bytes.size);
        expect(&longer, RESNET_ERROR_MODEL, "bytes where its header says", "an extended file");
        set_size(&longer);
        expect(&longer, RESNET_ERROR_MODEL, "bytes where the network", "an extended file that says so");
        test_bytes_free(&longer);
    }
    test_bytes_free(&bytes);
}

static void test_extensions_are_refused(void **state) {
    (void)state;
    extend(RESNET_PRECISION_F32);
    extend(RESNET_PRECISION_BF16);
    extend(RESNET_PRECISION_INT8);
}

/* ---- On purpose: with the checksums recomputed ---- */

/* Refused, or the model is the one that the header now names. */
static void try_sealed(struct test_bytes *bytes) {
    resnet_error error;
    test_seal(bytes);
    resnet_status status = try_load(bytes, &error);
    if (status != RESNET_OK && !is_refusal(status))
        fail_msg("%s: %s", resnet_status_name(status), error.message);
}

static void test_every_header_byte(void **state) {
    (void)state;
    static const uint8_t values[] = {0, 1, 2, 3, 4, 7, 8, 0x10, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xfe, 0xff};
    struct test_bytes bytes = tiny();
    for (size_t byte = 0; byte < HEADER; byte++) {
        bool choice = byte >= 28 && byte < 40; /* flags and enumerations: every value */
        uint8_t before = bytes.data[byte];
        for (size_t i = 0; i < (choice ? 256 : COUNT(values)); i++) {
            bytes.data[byte] = choice ? (uint8_t)i : values[i];
            try_sealed(&bytes);
        }
        for (int bit = 0; bit < 8; bit++) {
            bytes.data[byte] = before ^ (uint8_t)(1 << bit);
            try_sealed(&bytes);
        }
        bytes.data[byte] = before;
    }
    test_bytes_free(&bytes);
}

static void change_at_random(resnet_precision precision) {
    struct test_random random = {3};
    struct test_bytes bytes = tiny_in(precision);
    for (int i = 0; i < 20000; i++) {
        struct test_bytes changed = test_bytes_copy(&bytes);
        uint32_t range = test_below(&random, 2) ? HEADER : (uint32_t)bytes.size;
        for (uint32_t n = test_between(&random, 1, 6); n > 0; n--)
            changed.data[test_below(&random, range)] = (uint8_t)test_u64(&random);
        memcpy(changed.data, bytes.data, 12); /* or all of them would stop at magic and version */
        memcpy(changed.data + 16, bytes.data + 16, 8);
        try_sealed(&changed);
        test_bytes_free(&changed);
    }
    test_bytes_free(&bytes);
}

static void test_random_changes(void **state) {
    (void)state;
    change_at_random(RESNET_PRECISION_F32);
    change_at_random(RESNET_PRECISION_BF16);
    change_at_random(RESNET_PRECISION_INT8);
}

/* Which bytes of the tiny file mean something, once more by hand. */
struct usage {
    uint8_t *used;
    size_t end;
};

static void use(struct usage *usage, size_t size) {
    memset(usage->used + usage->end, 1, size);
    usage->end = (usage->end + size + 63) / 64 * 64;
}

static struct usage usage_of(size_t size, resnet_precision precision) {
    struct graph graph = tiny_graph();
    struct usage usage = {calloc(size, 1), 0};
    assert_non_null(usage.used);
    use(&usage, HEADER + sizeof LABELS - 1);
    if (precision == RESNET_PRECISION_INT8)
        use(&usage, 4);
    for (uint32_t i = 0, layer = 0; i < graph.count; i++) {
        const struct node *node = &graph.nodes[i];
        if (node->op != OP_CONV && node->op != OP_LINEAR)
            continue;
        bool kept = KEPT >> layer++ & 1, int8 = precision == RESNET_PRECISION_INT8;
        size_t weights = (size_t)node->in.channels * node->out.channels * node->kernel * node->kernel;
        use(&usage, weights * (precision == RESNET_PRECISION_BF16 ? 2 : int8 && !kept ? 1 : 4));
        int vectors = int8 ? kept ? 1 : 2 : node->op == OP_CONV && precision == RESNET_PRECISION_F32 ? 4 : 1;
        for (int v = 0; v < vectors; v++)
            use(&usage, 4 * (size_t)node->out.channels);
        if (int8)
            use(&usage, 4);
    }
    free_graph(&graph);
    return usage;
}

static void check_padding(resnet_precision precision) {
    struct test_bytes bytes = tiny_in(precision);
    struct usage usage = usage_of(bytes.size, precision);
    size_t tried = 0;
    assert_int_equal(usage.end, bytes.size);
    for (size_t i = 0; i < bytes.size; i++) {
        if (usage.used[i])
            continue;
        bytes.data[i] = (uint8_t)(1 << i % 8);
        test_seal(&bytes);
        expect(&bytes, RESNET_ERROR_MODEL, "the padding before byte", "padding");
        bytes.data[i] = 0;
        tried++;
    }
    assert_true(tried > 200);
    free(usage.used);
    test_bytes_free(&bytes);
}

static void test_padding_is_zero(void **state) {
    (void)state;
    check_padding(RESNET_PRECISION_F32);
    check_padding(RESNET_PRECISION_BF16);
    check_padding(RESNET_PRECISION_INT8);
}

/* ---- Numbers ---- */

struct poison {
    struct test_bytes *bytes;
    int tensors;
    bool int8;
};

/* Put these bytes in place of a tensor's number; the message must name the tensor. */
static void expect_poisoned(struct test_bytes *bytes, const struct test_tensor *tensor, size_t element, float value,
                            const char *message) {
    static const resnet_isa isas[] = {RESNET_ISA_AUTO, RESNET_ISA_SCALAR, RESNET_ISA_REFERENCE};
    size_t size = (size_t)tensor->bytes;
    uint8_t before[4], number[4], *place = bytes->data + tensor->offset + size * element;
    test_put_f32(number, value);
    memcpy(before, place, size);
    memcpy(place, number + 4 - size, size); /* the upper half is the bf16 */
    test_seal(bytes);
    for (size_t i = 0; i < COUNT(isas); i++) {
        resnet_error error = {RESNET_OK, ""};
        assert_status(RESNET_ERROR_MODEL, try_load_isa(bytes, isas[i], &error), &error);
        if (!strstr(error.message, tensor->node->name) || !strstr(error.message, tensor->name) ||
            !strstr(error.message, message))
            fail_msg("%s %s: '%s'", tensor->node->name, tensor->name, error.message);
    }
    memcpy(place, before, size);
}

static void poison_both_ends(struct test_bytes *bytes, const struct test_tensor *tensor, float value,
                             const char *message) {
    expect_poisoned(bytes, tensor, 0, value, message);
    expect_poisoned(bytes, tensor, tensor->count - 1, value, message);
}

static void poison(void *context, const struct test_tensor *tensor) {
    struct poison *p = context;
    static const float values[] = {NAN, INFINITY, -INFINITY};
    static const float no_scale[] = {0, -0.0F, -1, FLT_MIN / 2, 1e-45F};
    static const float no_activation[] = {0x1.fffffep-41F, 0x1.000002p40F};
    p->tensors++;
    if (tensor->bytes == 1)
        return; /* every byte is a number */
    for (size_t i = 0; i < COUNT(values); i++)
        poison_both_ends(p->bytes, tensor, values[i], "not finite");
    if (strcmp(tensor->name, "variance") == 0) {
        poison_both_ends(p->bytes, tensor, -1e-30F, "negative");
        poison_both_ends(p->bytes, tensor, -1, "negative");
    }
    bool activation = strcmp(tensor->name, "activation") == 0;
    for (size_t i = 0; p->int8 && i < COUNT(no_scale); i++)
        if (activation || strcmp(tensor->name, "scale") == 0)
            poison_both_ends(p->bytes, tensor, no_scale[i], "must be");
    for (size_t i = 0; activation && i < COUNT(no_activation); i++)
        poison_both_ends(p->bytes, tensor, no_activation[i], "between 2^-40 and 2^40");
}

static void poison_all(resnet_precision precision, int tensors) {
    struct test_bytes bytes = tiny_in(precision);
    struct poison context = {&bytes, 0, precision == RESNET_PRECISION_INT8};
    struct graph graph = tiny_graph();
    struct test_layout layout = tiny_layout(&graph, precision);
    assert_int_equal(test_each_tensor(&layout, poison, &context), bytes.size);
    assert_int_equal(context.tensors, tensors);
    free_graph(&graph);
    test_bytes_free(&bytes);
}

static void test_numbers_are_finite(void **state) {
    (void)state;
    poison_all(RESNET_PRECISION_F32, 3 * 5 + 2);
    poison_all(RESNET_PRECISION_BF16, 4 * 2);
    poison_all(RESNET_PRECISION_INT8, 3 * 4 + 3);
}

/* 1e38 over sqrt(0 + 1e-10) is more than a float holds. */
static float overflowing(void *context, const struct test_tensor *tensor, size_t element) {
    (void)context, (void)element;
    if (strcmp(tensor->name, "variance") == 0)
        return 0;
    return strcmp(tensor->name, "scale") == 0 ? 1e38F : 0.1F;
}

static void test_folding_must_not_overflow(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    config.bn_epsilon = 1e-10F;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.fill = overflowing});
    expect(&bytes, RESNET_ERROR_MODEL, "conv1: a weight or a bias is not finite once", "an overflow");
    test_bytes_free(&bytes);
}

/* ---- Malformed files, one by one ---- */

enum seal { SEALED, RAW };

/* The little-endian number of `size` bytes at `offset` becomes `value`. */
static const struct malformed {
    const char *name;
    uint32_t offset;
    int size;
    uint64_t value;
    enum seal seal;
    resnet_status status;
    const char *message;
} table[] = {
    {"a zero first byte", 0, 1, 0, RAW, RESNET_ERROR_MODEL, "not a model file"},
    {"a first byte without its top bit", 0, 1, 0x0b, SEALED, RESNET_ERROR_MODEL, "not a model file"},
    {"another name in the magic", 1, 1, 'X', SEALED, RESNET_ERROR_MODEL, "not a model file"},
    {"a GGUF file", 0, 4, 0x46554747, SEALED, RESNET_ERROR_MODEL, "not a model file"},
    {"a ZIP file", 0, 4, 0x04034b50, RAW, RESNET_ERROR_MODEL, "not a model file"},
    {"a carriage return lost", 4, 4, 0x0a0a1a0a, SEALED, RESNET_ERROR_MODEL, "not a model file"},
    {"a magic cut at Ctrl-Z", 6, 2, 0, SEALED, RESNET_ERROR_MODEL, "not a model file"},
    {"version 0", 8, 4, 0, SEALED, RESNET_ERROR_MODEL, "format version 0"},
    {"version 2", 8, 4, 2, SEALED, RESNET_ERROR_MODEL, "format version 2"},
    {"a big-endian version", 8, 4, 0x01000000, SEALED, RESNET_ERROR_MODEL, "format version 16777216"},
    {"version 0xffffffff", 8, 4, 0xffffffff, SEALED, RESNET_ERROR_MODEL, "format version 4294967295"},
    {"a wrong header checksum", 12, 4, 0x12345678, RAW, RESNET_ERROR_MODEL, "the header's checksum does not match"},
    {"no header checksum", 12, 4, 0, RAW, RESNET_ERROR_MODEL, "the header's checksum does not match"},
    {"a changed width, not sealed", 80, 4, 9, RAW, RESNET_ERROR_MODEL, "the header's checksum does not match"},
    {"file_size 0", 16, 8, 0, SEALED, RESNET_ERROR_MODEL, "header says 0"},
    {"file_size 2^32 more", 20, 4, 1, SEALED, RESNET_ERROR_MODEL, "where its header says"},
    {"file_size 2^64 - 1", 16, 8, UINT64_MAX, SEALED, RESNET_ERROR_MODEL, "header says 18446744073709551615"},
    {"flag 0", 28, 4, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "flags"},
    {"flag 31", 28, 4, 0x80000000, SEALED, RESNET_ERROR_UNSUPPORTED, "flags"},
    {"block kind 0", 32, 1, 0, SEALED, RESNET_ERROR_MODEL, "block kind (1 basic, 2 bottleneck): 0"},
    {"block kind 3", 32, 1, 3, SEALED, RESNET_ERROR_MODEL, "block kind (1 basic, 2 bottleneck): 3"},
    {"block kind 255", 32, 1, 255, SEALED, RESNET_ERROR_MODEL, "block kind (1 basic, 2 bottleneck): 255"},
    {"stride place 2", 33, 1, 2, SEALED, RESNET_ERROR_MODEL, "stride place (0 the 3x3, 1 the first 1x1): 2"},
    {"stride place 255", 33, 1, 255, SEALED, RESNET_ERROR_MODEL, "the first 1x1): 255"},
    {"a deep stem", 34, 1, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "a deep stem of base width 4"},
    {"a tiered stem", 34, 1, 2, SEALED, RESNET_ERROR_UNSUPPORTED, "a deep stem of base width 4"},
    {"a CIFAR stem", 34, 1, 3, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    {"stem kind 4", 34, 1, 4, SEALED, RESNET_ERROR_MODEL, "stem kind: 4"},
    {"stem kind 255", 34, 1, 255, SEALED, RESNET_ERROR_MODEL, "stem kind: 255"},
    {"shortcut kind 3", 35, 1, 3, SEALED, RESNET_ERROR_MODEL, "shortcut kind: 3"},
    {"shortcut kind 255", 35, 1, 255, SEALED, RESNET_ERROR_MODEL, "shortcut kind: 255"},
    {"squeeze-and-excitation without a width", 36, 1, 1, SEALED, RESNET_ERROR_MODEL, "attention width: 0"},
    {"attention kind 2", 36, 1, 2, SEALED, RESNET_ERROR_MODEL, "attention kind: 2"},
    {"no head, but classes", 37, 1, 2, SEALED, RESNET_ERROR_MODEL, "classes of a network without a head: 2"},
    {"head kind 3", 37, 1, 3, SEALED, RESNET_ERROR_MODEL, "head kind: 3"},
    {"head kind 255", 37, 1, 255, SEALED, RESNET_ERROR_MODEL, "head kind: 255"},
    {"bf16 in an f32 file", 38, 1, 1, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    {"int8 in an f32 file", 38, 1, 2, SEALED, RESNET_ERROR_MODEL, "is neither int8 (0) nor f32 (1)"},
    {"precision 3", 38, 1, 3, SEALED, RESNET_ERROR_MODEL, "weights are stored as f32, bf16 or int8"},
    {"precision 255", 38, 1, 255, SEALED, RESNET_ERROR_MODEL, "weights are stored as f32, bf16 or int8"},
    {"interpolation 2", 39, 1, 2, SEALED, RESNET_ERROR_MODEL, "interpolation 2"},
    {"interpolation 255", 39, 1, 255, SEALED, RESNET_ERROR_MODEL, "interpolation 255"},
    {"no blocks", 40, 4, 0, SEALED, RESNET_ERROR_MODEL, "blocks in the first stage: 0"},
    {"1025 blocks", 40, 4, 1025, SEALED, RESNET_ERROR_MODEL, "blocks in the first stage: 1025"},
    {"2^32 - 1 blocks", 40, 4, UINT32_MAX, SEALED, RESNET_ERROR_MODEL, "blocks in the first stage"},
    {"1025 blocks in stage 2", 44, 4, 1025, SEALED, RESNET_ERROR_MODEL, "blocks in the second stage"},
    {"1025 blocks in stage 3", 48, 4, 1025, SEALED, RESNET_ERROR_MODEL, "blocks in the third stage"},
    {"1025 blocks in stage 4", 52, 4, 1025, SEALED, RESNET_ERROR_MODEL, "blocks in the fourth stage"},
    {"a hole before stage 3", 48, 4, 1, SEALED, RESNET_ERROR_MODEL, "stage 3 has blocks after a stage without"},
    {"a hole before stage 4", 52, 4, 1, SEALED, RESNET_ERROR_MODEL, "stage 4 has blocks after a stage without"},
    {"a block too many", 40, 4, 2, SEALED, RESNET_ERROR_MODEL, "bytes where the network that its header names"},
    {"1024 blocks in a small file", 40, 4, 1024, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    {"base width 0", 56, 4, 0, SEALED, RESNET_ERROR_MODEL, "base width: 0"},
    {"base width 4097", 56, 4, 4097, SEALED, RESNET_ERROR_MODEL, "base width: 4097"},
    {"base width 5", 56, 4, 5, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    {"base width 4096", 56, 4, 4096, SEALED, RESNET_ERROR_MODEL, "takes more than 1073741824 bytes"},
    {"groups 0", 60, 4, 0, SEALED, RESNET_ERROR_MODEL, "groups: 0"},
    {"groups 32", 60, 4, 32, SEALED, RESNET_ERROR_UNSUPPORTED, "32 groups in basic blocks"},
    {"groups 4097", 60, 4, 4097, SEALED, RESNET_ERROR_MODEL, "groups: 4097"},
    {"width per group 0", 64, 4, 0, SEALED, RESNET_ERROR_MODEL, "width per group: 0"},
    {"width per group 4097", 64, 4, 4097, SEALED, RESNET_ERROR_MODEL, "width per group: 4097"},
    {"output stride 8", 68, 4, 8, SEALED, RESNET_ERROR_UNSUPPORTED, "output stride 8: only networks of four"},
    {"output stride 32", 68, 4, 32, SEALED, RESNET_ERROR_MODEL, "output stride 32 is neither"},
    {"output stride 2^31", 68, 4, 0x80000000, SEALED, RESNET_ERROR_MODEL, "output stride 2147483648 is neither"},
    {"no input channels", 72, 4, 0, SEALED, RESNET_ERROR_MODEL, "input channels: 0"},
    {"17 input channels", 72, 4, 17, SEALED, RESNET_ERROR_MODEL, "input channels: 17"},
    {"2^32 - 1 input channels", 72, 4, UINT32_MAX, SEALED, RESNET_ERROR_MODEL, "input channels: 4294967295"},
    {"2 channels, normalised as 3", 72, 4, 2, SEALED, RESNET_ERROR_MODEL, "channel 2"},
    {"4 channels, normalised as 3", 72, 4, 4, SEALED, RESNET_ERROR_MODEL, "channel 3"},
    {"height 0", 76, 4, 0, SEALED, RESNET_ERROR_MODEL, "input height: 0"},
    {"height 16385", 76, 4, 16385, SEALED, RESNET_ERROR_MODEL, "input height: 16385"},
    {"width 0", 80, 4, 0, SEALED, RESNET_ERROR_MODEL, "input width: 0"},
    {"width 2^32 - 1", 80, 4, UINT32_MAX, SEALED, RESNET_ERROR_MODEL, "input width: 4294967295"},
    {"no classes", 84, 4, 0, SEALED, RESNET_ERROR_MODEL, "classes: 0"},
    {"2^20 + 1 classes", 84, 4, (1U << 20) + 1, SEALED, RESNET_ERROR_MODEL, "classes: 1048577"},
    {"3 classes, labels and tensors for 2", 84, 4, 3, SEALED, RESNET_ERROR_MODEL, "2 labels"},
    {"1 class, labels for 2", 84, 4, 1, SEALED, RESNET_ERROR_MODEL, "2 labels"},
    {"epsilon 0", 88, 4, 0, SEALED, RESNET_ERROR_MODEL, "epsilon 0"},
    {"epsilon -1e-5", 88, 4, 0xb727c5ac, SEALED, RESNET_ERROR_MODEL, "epsilon -1e-05"},
    {"epsilon 2", 88, 4, 0x40000000, SEALED, RESNET_ERROR_MODEL, "epsilon 2"},
    {"epsilon NaN", 88, 4, 0x7fc00000, SEALED, RESNET_ERROR_MODEL, "epsilon nan"},
    {"epsilon infinite", 88, 4, 0x7f800000, SEALED, RESNET_ERROR_MODEL, "epsilon inf"},
    {"resize to 16385", 92, 4, 16385, SEALED, RESNET_ERROR_MODEL, "resize to 16385"},
    {"resize to 2^32 - 1", 92, 4, UINT32_MAX, SEALED, RESNET_ERROR_MODEL, "resize to 4294967295"},
    {"a byte of labels less", 96, 4, sizeof LABELS - 2, SEALED, RESNET_ERROR_MODEL, "labels"},
    {"a byte of labels more", 96, 4, sizeof LABELS, SEALED, RESNET_ERROR_MODEL, "empty or holds control byte 0"},
    {"no label block", 96, 4, 0, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    {"labels beyond the file", 96, 4, 1U << 24, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    {"2^24 + 1 bytes of labels", 96, 4, (1U << 24) + 1, SEALED, RESNET_ERROR_MODEL, "16777217 bytes of labels"},
    {"2^32 - 1 bytes of labels", 96, 4, UINT32_MAX, SEALED, RESNET_ERROR_MODEL, "4294967295 bytes of labels"},
    {"attention width 1", 100, 4, 1, SEALED, RESNET_ERROR_MODEL, "attention width: 1"},
    {"reserved 0", 104, 4, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "reserved field (header byte 104)"},
    {"reserved 1", 108, 4, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "reserved field (header byte 108)"},
    {"reserved 2", 112, 4, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "reserved field (header byte 112)"},
    {"reserved 3", 116, 4, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "reserved field (header byte 116)"},
    {"reserved 4", 120, 4, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "reserved field (header byte 120)"},
    {"reserved 5", 127, 1, 1, SEALED, RESNET_ERROR_UNSUPPORTED, "reserved field (header byte 127)"},
    {"mean NaN", 128, 4, 0x7fc00000, SEALED, RESNET_ERROR_MODEL, "channel 0"},
    {"mean infinite", 136, 4, 0xff800000, SEALED, RESNET_ERROR_MODEL, "channel 2"},
    {"a mean beyond the channels", 140, 4, 0x3f000000, SEALED, RESNET_ERROR_MODEL, "channel 3"},
    {"a mean of -0 beyond the channels", 188, 4, 0x80000000, SEALED, RESNET_ERROR_MODEL, "channel 15"},
    {"std 0", 192, 4, 0, SEALED, RESNET_ERROR_MODEL, "channel 0"},
    {"std below 0", 196, 4, 0xbf800000, SEALED, RESNET_ERROR_MODEL, "channel 1"},
    {"std NaN", 200, 4, 0x7fc00001, SEALED, RESNET_ERROR_MODEL, "channel 2"},
    {"a std beyond the channels", 252, 4, 0x3f800000, SEALED, RESNET_ERROR_MODEL, "channel 15"},
    {"an empty first label", 256, 1, '\n', SEALED, RESNET_ERROR_MODEL, "label 0 is empty"},
    {"an empty second label", 260, 1, '\n', SEALED, RESNET_ERROR_MODEL, "label 1 is empty"},
    {"one label", 259, 1, ' ', SEALED, RESNET_ERROR_MODEL, "1 labels"},
    {"three labels", 257, 1, '\n', SEALED, RESNET_ERROR_MODEL, "3 labels"},
    {"a tab in a label", 257, 1, '\t', SEALED, RESNET_ERROR_MODEL, "control byte 9"},
    {"a carriage return in a label", 258, 1, '\r', SEALED, RESNET_ERROR_MODEL, "control byte 13"},
    {"an escape in a label", 261, 1, 27, SEALED, RESNET_ERROR_MODEL, "label 1 is empty or holds control byte 27"},
    {"a zero in a label", 257, 1, 0, SEALED, RESNET_ERROR_MODEL, "control byte 0"},
    {"a delete in a label", 257, 1, 127, SEALED, RESNET_ERROR_MODEL, "control byte 127"},
    {"no final line feed", 263, 1, 'x', SEALED, RESNET_ERROR_MODEL, "1 labels, each with a line feed"},
    {"padding after the labels", 264, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 320"},
    {"the last byte of that padding", 319, 1, 0x80, SEALED, RESNET_ERROR_MODEL, "the padding before byte 320"},
    {"a wrong payload checksum", 320, 1, 0, RAW, RESNET_ERROR_MODEL, "the checksum of labels and tensors"},
    {"a changed label, not sealed", 256, 1, 'b', RAW, RESNET_ERROR_MODEL, "the checksum of labels and tensors"},
};

static void check_malformed(struct test_bytes *bytes, const struct malformed *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct test_bytes changed = test_bytes_copy(bytes);
        for (int byte = 0; byte < cases[i].size; byte++)
            changed.data[cases[i].offset + (uint32_t)byte] = (uint8_t)(cases[i].value >> 8 * byte);
        assert_memory_not_equal(changed.data, bytes->data, bytes->size);
        if (cases[i].seal == SEALED)
            test_seal(&changed);
        expect(&changed, cases[i].status, cases[i].message, cases[i].name);
        test_bytes_free(&changed);
    }
    test_bytes_free(bytes);
}

static void test_malformed(void **state) {
    (void)state;
    struct test_bytes bytes = tiny();
    check_malformed(&bytes, table, COUNT(table));
}

/* conv1 of the tiny network has 4 * 3 * 7 * 7 = 588 weights: 1176 bytes from 320 on, then padding to 1536, and 16 bytes
 * of bias. */
static void test_malformed_bf16(void **state) {
    (void)state;
    static const struct malformed cases[] = {
        {"a bf16 infinity", 320, 2, 0x7f80, SEALED, RESNET_ERROR_MODEL, "conv1 weight: number 0 is not finite"},
        {"a bf16 -infinity at the end", 1494, 2, 0xff80, SEALED, RESNET_ERROR_MODEL, "conv1 weight: number 587 is"},
        {"a signalling bf16 NaN", 322, 2, 0x7f81, SEALED, RESNET_ERROR_MODEL, "conv1 weight: number 1 is not finite"},
        {"padding after bf16 weights", 1496, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 1536"},
        {"an infinite bias", 1536, 4, 0x7f800000, SEALED, RESNET_ERROR_MODEL, "conv1 bias: number 0 is not finite"},
        {"padding after a bias", 1552, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 1600"},
        {"f32 in a bf16 file", 38, 1, 0, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
        {"base width 4096 in bf16", 56, 4, 4096, SEALED, RESNET_ERROR_MODEL,
         "network that its header names takes 605249920"},
        {"a changed bf16, not sealed", 320, 1, 0x55, RAW, RESNET_ERROR_MODEL, "the checksum of labels and tensors"},
    };
    struct test_bytes bytes = tiny_in(RESNET_PRECISION_BF16);
    check_malformed(&bytes, cases, COUNT(cases));
}

/* The kinds from 320 on; conv1's 588 weights from 384 on, padding from 972 to 1024, 16 bytes of scales, of bias at
 * 1088, the activation at 1152. */
static void test_malformed_int8(void **state) {
    (void)state;
    static const struct malformed cases[] = {
        {"kind 2", 320, 1, 2, SEALED, RESNET_ERROR_MODEL, "conv1: kind 2 is neither int8 (0) nor f32 (1)"},
        {"kind 255 of the classifier", 323, 1, 255, SEALED, RESNET_ERROR_MODEL, "fc: kind 255 is neither"},
        {"another layer kept", 320, 1, 1, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
        {"no layer kept", 322, 1, 0, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
        {"a fifth kind", 324, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 384"},
        {"the last byte behind the kinds", 383, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 384"},
        {"padding after int8 weights", 972, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 1024"},
        {"a scale of 0", 1024, 4, 0, SEALED, RESNET_ERROR_MODEL, "conv1 scale: number 0 is 0; it must be a normal"},
        {"a scale below 0", 1036, 4, 0xbf800000, SEALED, RESNET_ERROR_MODEL, "conv1 scale: number 3 is -1"},
        {"a denormal scale", 1028, 4, 0x007fffff, SEALED, RESNET_ERROR_MODEL, "conv1 scale: number 1 is 1.17549e-38"},
        {"an infinite scale", 1024, 4, 0x7f800000, SEALED, RESNET_ERROR_MODEL, "conv1 scale: number 0 is not finite"},
        {"a scale that is too large", 1024, 4, 0x7f000000, SEALED, RESNET_ERROR_MODEL, "conv1: a bias or a scale is"},
        {"a scale that is too small", 1024, 4, 0x00800000, SEALED, RESNET_ERROR_MODEL, "conv1: a bias or a scale is"},
        {"a bias that is too large", 1088, 4, 0x7e000000, SEALED, RESNET_ERROR_MODEL, "conv1: a bias or a scale is"},
        {"a bias that is too low", 1100, 4, 0xfe000000, SEALED, RESNET_ERROR_MODEL, "conv1: a bias or a scale is"},
        {"a bias NaN", 1088, 4, 0x7fc00000, SEALED, RESNET_ERROR_MODEL, "conv1 bias: number 0 is not finite"},
        {"an activation of 0", 1152, 4, 0, SEALED, RESNET_ERROR_MODEL, "conv1 activation: number 0 is 0"},
        {"an activation below 0", 1152, 4, 0xbf800000, SEALED, RESNET_ERROR_MODEL, "conv1 activation: number 0 is -1"},
        {"an activation of 2^41", 1152, 4, 0x54000000, SEALED, RESNET_ERROR_MODEL, "between 2^-40 and 2^40"},
        {"an activation of 2^-41", 1152, 4, 0x2b000000, SEALED, RESNET_ERROR_MODEL, "between 2^-40 and 2^40"},
        {"an activation NaN", 1152, 4, 0x7fc00000, SEALED, RESNET_ERROR_MODEL, "conv1 activation: number 0 is not"},
        {"padding after an activation", 1156, 1, 1, SEALED, RESNET_ERROR_MODEL, "the padding before byte 1216"},
        {"bf16 in an int8 file", 38, 1, 1, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
        {"labels up to the end", 96, 4, 1U << 24, SEALED, RESNET_ERROR_MODEL,
         "where the kinds of its layers alone end"},
        {"a changed int8, not sealed", 384, 1, 0x55, RAW, RESNET_ERROR_MODEL, "the checksum of labels and tensors"},
    };
    struct test_bytes bytes = tiny_in(RESNET_PRECISION_INT8);
    check_malformed(&bytes, cases, COUNT(cases));
}

/* Attention of an int8 file is f32: fc1 of the only block is the fourth layer with tensors, fc2 the fifth. */
static void test_malformed_attention(void **state) {
    (void)state;
    static const struct malformed cases[] = {
        {"fc1 in int8", 323, 1, 0, SEALED, RESNET_ERROR_MODEL, "layer1.0.se.fc1: kind 0, int8; attention"},
        {"fc2 in int8", 324, 1, 0, SEALED, RESNET_ERROR_MODEL, "layer1.0.se.fc2: kind 0, int8; attention"},
        {"fc1 of kind 2", 323, 1, 2, SEALED, RESNET_ERROR_MODEL, "layer1.0.se.fc1: kind 2 is neither"},
        {"no attention", 36, 1, 0, SEALED, RESNET_ERROR_MODEL, "attention width: 3 is not between 0 and 0"},
        {"another attention width", 100, 4, 33, SEALED, RESNET_ERROR_MODEL, "bytes where the network"},
    };
    resnet_config config = test_tiny_config();
    config.attention = RESNET_ATTENTION_SE;
    config.attention_width = 3;
    config.precision = RESNET_PRECISION_INT8;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.labels = LABELS});
    expect(&bytes, RESNET_OK, "", "attention");
    check_malformed(&bytes, cases, COUNT(cases));
}

static void change_activation(void *context, const struct test_tensor *tensor) {
    struct test_bytes *bytes = context;
    if (strcmp(tensor->name, "activation") == 0 && strcmp(tensor->node->name, "layer1.0.se.fc1") == 0)
        expect_poisoned(bytes, tensor, 0, 2, "it must be 1");
}

static void test_attention_has_one_scale(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    struct graph graph;
    resnet_allocator allocator = memory_allocator(NULL);
    config.attention = RESNET_ATTENTION_SE;
    config.attention_width = 3;
    config.precision = RESNET_PRECISION_INT8;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){0});
    assert_int_equal(graph_build(&graph, &config, (struct shape){8, 8, 3}, &allocator, NULL), RESNET_OK);
    test_each_tensor(&(struct test_layout){&graph, 0, RESNET_PRECISION_INT8, 0}, change_activation, &bytes);
    free_graph(&graph);
    test_bytes_free(&bytes);
}

/* What takes more than one field. */

static void size_one_less(struct test_bytes *bytes) {
    test_put_u32(bytes->data + 16, (uint32_t)bytes->size - 1);
}
static void size_one_more(struct test_bytes *bytes) {
    test_put_u32(bytes->data + 16, (uint32_t)bytes->size + 1);
}
static void biggest_of_all(struct test_bytes *bytes) {
    bytes->data[32] = RESNET_BLOCK_BOTTLENECK;
    for (size_t stage = 0; stage < 4; stage++)
        test_put_u32(bytes->data + 40 + 4 * stage, 1024);
    test_put_u32(bytes->data + 56, 4096);
    test_put_u32(bytes->data + 64, 4096);
    test_put_u32(bytes->data + 72, 3);
    test_put_u32(bytes->data + 76, 16384);
    test_put_u32(bytes->data + 80, 16384);
    test_put_u32(bytes->data + 84, 1U << 20);
    test_put_u32(bytes->data + 96, 1U << 24);
}
static void long_and_thin(struct test_bytes *bytes) {
    for (size_t stage = 0; stage < 4; stage++)
        test_put_u32(bytes->data + 40 + 4 * stage, 1024);
    test_put_u32(bytes->data + 56, 1);
}
static void empty_bottleneck(struct test_bytes *bytes) {
    bytes->data[32] = RESNET_BLOCK_BOTTLENECK;
    test_put_u32(bytes->data + 64, 15); /* floor(4 * 15 / 64) = 0 */
}
static void another_block(struct test_bytes *bytes) {
    bytes->data[32] = RESNET_BLOCK_BOTTLENECK;
}
static void wrapped_groups(struct test_bytes *bytes) { /* of 2^20 channels each: 2^32 in all */
    bytes->data[32] = RESNET_BLOCK_BOTTLENECK;
    test_put_u32(bytes->data + 56, 4096);
    test_put_u32(bytes->data + 60, 4096);
    test_put_u32(bytes->data + 64, 4096);
    for (size_t stage = 1; stage < 4; stage++)
        test_put_u32(bytes->data + 40 + 4 * stage, 1);
}
static void squeezed(struct test_bytes *bytes) {
    bytes->data[36] = RESNET_ATTENTION_SE;
    test_put_u32(bytes->data + 100, 4096);
}
static void headless(struct test_bytes *bytes) {
    bytes->data[37] = RESNET_HEAD_NONE;
    test_put_u32(bytes->data + 84, 0);
}
static void header_only(struct test_bytes *bytes) {
    bytes->size = HEADER;
    test_put_u32(bytes->data + 16, HEADER);
}
static void all_ones(struct test_bytes *bytes) {
    memset(bytes->data + 28, 0xff, bytes->size - 28);
}
static void all_zeros(struct test_bytes *bytes) {
    memset(bytes->data + 28, 0, bytes->size - 28);
}
static void swapped(struct test_bytes *bytes) { /* every word, as a big-endian writer without care would have it */
    for (size_t i = 8; i < bytes->size; i += 4)
        for (size_t j = 0; j < 2; j++) {
            uint8_t byte = bytes->data[i + j];
            bytes->data[i + j] = bytes->data[i + 3 - j];
            bytes->data[i + 3 - j] = byte;
        }
}

static void test_malformed_in_several_places(void **state) {
    (void)state;
    static const struct {
        const char *name;
        void (*change)(struct test_bytes *bytes);
        resnet_status status;
        const char *message;
    } changes[] = {
        {"a size that is one too small", size_one_less, RESNET_ERROR_MODEL, "where its header says"},
        {"a size that is one too large", size_one_more, RESNET_ERROR_MODEL, "where its header says"},
        {"the largest of everything", biggest_of_all, RESNET_ERROR_MODEL, "takes more than 1073741824 bytes"},
        {"4096 blocks", long_and_thin, RESNET_ERROR_MODEL, "where the network that its header names takes"},
        {"a bottleneck of no width", empty_bottleneck, RESNET_ERROR_MODEL, "leave a bottleneck empty"},
        {"more groups than fit 32 bits", wrapped_groups, RESNET_ERROR_MODEL, "at most 2097152 channels in all"},
        {"attention in a file without", squeezed, RESNET_ERROR_MODEL, "where the network"},
        {"labels without a head", headless, RESNET_ERROR_MODEL, "where the network"},
        {"bottlenecks in a basic file", another_block, RESNET_ERROR_MODEL, "where the network"},
        {"a header alone", header_only, RESNET_ERROR_MODEL, "has 256 bytes where the network"},
        {"ones", all_ones, RESNET_ERROR_UNSUPPORTED, "flags"},
        {"zeros", all_zeros, RESNET_ERROR_MODEL, "bottleneck): 0"},
        {"a big-endian file", swapped, RESNET_ERROR_MODEL, "format version 16777216"},
    };
    struct test_bytes bytes = tiny();
    for (size_t i = 0; i < COUNT(changes); i++) {
        struct test_bytes changed = test_bytes_copy(&bytes);
        changes[i].change(&changed);
        test_seal(&changed);
        expect(&changed, changes[i].status, changes[i].message, changes[i].name);
        test_bytes_free(&changed);
    }
    test_bytes_free(&bytes);
}

static void test_no_labels_without_a_head(void **state) {
    (void)state;
    resnet_config config = test_tiny_config();
    config.head = RESNET_HEAD_NONE;
    config.classes = 0;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){0});
    expect(&bytes, RESNET_OK, "", "no head");
    test_bytes_free(&bytes);
    bytes = test_model_file(&config, &(struct test_content){.labels = LABELS});
    expect(&bytes, RESNET_ERROR_MODEL, "2 labels, each with a line feed, for 0 classes", "labels without a head");
    test_bytes_free(&bytes);
}

static void test_wrong_label_blocks(void **state) {
    (void)state;
    static const struct {
        const char *labels, *message;
    } cases[] = {
        {"cat\ndog\nx", "2 labels, each with a line feed, for 2 classes"}, /* the third has none */
        {"cat\ndog\nemu\n", "3 labels"},
        {"cat\n", "1 labels"},
        {"cat", "0 labels"},
        {"\n", "label 0 is empty"},
        {"cat\ndog\n\n", "label 2 is empty"},
    };
    resnet_config config = test_tiny_config();
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct test_bytes bytes = test_model_file(&config, &(struct test_content){.labels = cases[i].labels});
        expect(&bytes, RESNET_ERROR_MODEL, cases[i].message, "labels");
        test_bytes_free(&bytes);
    }
}

/* What a copy in text mode does: LF to CR LF, CR LF to LF. */
static void test_text_mode_shows(void **state) {
    (void)state;
    struct test_bytes bytes = tiny(), longer = {calloc(2, bytes.size), 0}, shorter = {calloc(1, bytes.size), 0};
    assert_true(longer.data && shorter.data);
    for (size_t i = 0; i < bytes.size; i++) {
        if (bytes.data[i] == '\n')
            longer.data[longer.size++] = '\r';
        longer.data[longer.size++] = bytes.data[i];
        if (bytes.data[i] != '\r' || i + 1 == bytes.size || bytes.data[i + 1] != '\n')
            shorter.data[shorter.size++] = bytes.data[i];
    }
    expect(&longer, RESNET_ERROR_MODEL, "not a model file", "CR LF for LF");
    expect(&shorter, RESNET_ERROR_MODEL, "not a model file", "LF for CR LF");
    test_bytes_free(&longer);
    test_bytes_free(&shorter);
    test_bytes_free(&bytes);
}

/* Nothing of the data may be read: there is not that much. */
static void test_too_much_memory(void **state) {
    (void)state;
    struct test_bytes bytes = tiny();
    static const size_t sizes[] = {((size_t)1 << 30) + 1, SIZE_MAX / 2, SIZE_MAX};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct test_bytes claimed = {bytes.data, sizes[i]};
        expect(&claimed, RESNET_ERROR_MODEL, "at most 1073741824", "more than 1 GiB");
    }
    test_bytes_free(&bytes);
}

/* ---- Files ---- */

static char folder[512];

static int make_folder(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/resnet-test-XXXXXX", base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder); /* fails, and shows, where a test left something behind */
}

static const char *path_of(const char *name) {
    static char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const struct test_bytes *bytes, off_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->data, 1, bytes->size, file), bytes->size);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(path, size), 0);
}

/* With an alarm, so that a reader that waits fails the test rather than stops it. */
static void expect_file(const char *path, resnet_status expected, const char *message) {
    struct test_memory memory;
    test_memory_init(&memory, 0);
    resnet_load_options options = {.allocator = &memory.allocator};
    resnet_model *model;
    resnet_error error = {RESNET_OK, ""};
    alarm(20);
    resnet_status status = resnet_model_load_file(path, &options, &model, &error);
    alarm(0);
    assert_status(expected, status, &error);
    if (!strstr(error.message, message))
        fail_msg("%s: '%s' instead of '...%s...'", path, error.message, message);
    assert_int_equal(model == NULL, expected != RESNET_OK);
    resnet_model_free(model);
    test_memory_check(&memory);
    assert_true(memory.peak_bytes < MOST_BYTES_REFUSING);
}

static void test_file_loads(void **state) {
    (void)state;
    struct test_bytes bytes = tiny();
    const char *path = path_of("tiny.resnet");
    write_file(path, &bytes, (off_t)bytes.size);
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_file(path, NULL, &model, &error), &error);
    check_describes(model, &bytes);
    assert_string_equal(resnet_model_label(model, 1), "dog");
    resnet_model_free(model);
    assert_int_equal(unlink(path), 0);
    test_bytes_free(&bytes);
}

static void test_files_of_a_wrong_size(void **state) {
    (void)state;
    const off_t gigabyte = (off_t)1 << 30;
    struct test_bytes bytes = tiny();
    const struct {
        off_t size;
        const char *message;
    } sizes[] = {
        {0, "has 0 bytes; a model file has at least 256"},
        {255, "has 255 bytes"},
        {256, "has 256 bytes where its header says"},
        {(off_t)bytes.size - 1, "where its header says"},
        {(off_t)bytes.size + 1, "where its header says"},
        {gigabyte, "has 1073741824 bytes where its header says"},
        {gigabyte + 1, "has 1073741825 bytes; a model file has at most 1073741824"},
        {2048 * gigabyte, "has 2199023255552 bytes; a model file has at most"}, /* sparse: no disk is used */
    };
    const char *path = path_of("wrong.resnet");
    for (size_t i = 0; i < COUNT(sizes); i++) {
        write_file(path, &bytes, sizes[i].size);
        expect_file(path, RESNET_ERROR_MODEL, sizes[i].message);
        expect_file(path, RESNET_ERROR_MODEL, path);
    }
    assert_int_equal(unlink(path), 0);
    test_bytes_free(&bytes);
}

/* A header that claims the whole gigabyte must not make anyone allocate or read it. */
static void test_huge_claim(void **state) {
    (void)state;
    struct test_bytes bytes = tiny();
    const char *path = path_of("huge.resnet");
    test_put_u32(bytes.data + 16, 1U << 30);
    test_seal(&bytes);
    write_file(path, &bytes, (off_t)1 << 30);
    expect_file(path, RESNET_ERROR_MODEL, "where the network that its header names takes");
    assert_int_equal(unlink(path), 0);
    test_bytes_free(&bytes);
}

static void test_what_is_no_file(void **state) {
    (void)state;
    const char *fifo = path_of("fifo");
    expect_file(fifo, RESNET_ERROR_IO, "cannot be opened: No such file or directory");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    expect_file(fifo, RESNET_ERROR_IO, "not a regular file");
    assert_int_equal(unlink(fifo), 0);
    expect_file(folder, RESNET_ERROR_IO, "not a regular file");
    expect_file("/dev/zero", RESNET_ERROR_IO, "not a regular file");
    expect_file("/dev/null", RESNET_ERROR_IO, "not a regular file");
    expect_file("", RESNET_ERROR_IO, "cannot be opened");
}

static void test_unreadable_file(void **state) {
    (void)state;
    if (geteuid() == 0)
        skip(); /* may read everything */
    struct test_bytes bytes = tiny();
    const char *path = path_of("secret.resnet");
    write_file(path, &bytes, (off_t)bytes.size);
    assert_int_equal(chmod(path, 0), 0);
    expect_file(path, RESNET_ERROR_IO, "Permission denied");
    assert_int_equal(unlink(path), 0);
    test_bytes_free(&bytes);
}

/* Linux's sysfs says 4096 bytes of files that hold fewer: as a file that is truncated while it is read. */
static void test_file_that_ends_early(void **state) {
    (void)state;
    const char *path = "/sys/devices/system/cpu/online";
    struct stat info;
    if (stat(path, &info) != 0 || info.st_size < HEADER)
        skip();
    expect_file(path, RESNET_ERROR_IO, "while it was read");
}

/* A file name may hold anything but '/'; a message is one line. */
static void test_strange_names(void **state) {
    (void)state;
    char name[200] = "new\nline\x1b[31m\x7f";
    expect_file(path_of(name), RESNET_ERROR_IO, "new?line?[31m?");
    memset(name, 'n', sizeof name - 1);
    char path[4096] = "";
    for (int i = 0; i < 15; i++)
        strcat(strcat(path, "/"), name);
    expect_file(path, RESNET_ERROR_IO, "nnn"); /* longer than a message: cut, and terminated */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_loads),
        cmocka_unit_test(test_labels_of_any_kind),
        cmocka_unit_test(test_random_networks_load),
        cmocka_unit_test(test_every_bit_flip_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_extensions_are_refused),
        cmocka_unit_test(test_every_header_byte),
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_padding_is_zero),
        cmocka_unit_test(test_numbers_are_finite),
        cmocka_unit_test(test_folding_must_not_overflow),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_malformed_bf16),
        cmocka_unit_test(test_malformed_int8),
        cmocka_unit_test(test_malformed_attention),
        cmocka_unit_test(test_attention_has_one_scale),
        cmocka_unit_test(test_malformed_in_several_places),
        cmocka_unit_test(test_wrong_label_blocks),
        cmocka_unit_test(test_no_labels_without_a_head),
        cmocka_unit_test(test_text_mode_shows),
        cmocka_unit_test(test_too_much_memory),
        cmocka_unit_test(test_file_loads),
        cmocka_unit_test(test_files_of_a_wrong_size),
        cmocka_unit_test(test_huge_claim),
        cmocka_unit_test(test_what_is_no_file),
        cmocka_unit_test(test_unreadable_file),
        cmocka_unit_test(test_file_that_ends_early),
        cmocka_unit_test(test_strange_names),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
