/* test_quantizer.c - from an f32 file to a smaller one, end to end, and everything that can go wrong on the way. */
#define _POSIX_C_SOURCE 200809L /* mkdtemp */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model.h"
#include "quantizer.h"
#include "support.h"

#define BATCH   3
#define IMAGES  12
#define CLASSES 10
#define SIZE    24  /* pixels */
#define OUTPUTS 512 /* of a network without a head, at most */

/* A folder with a model file, and names for what is made of it. */
struct files {
    char folder[32], source[48], made[48];
};

static resnet_config small_config(void) {
    resnet_config config = test_tiny_config();
    config.block = RESNET_BLOCK_BOTTLENECK;
    config.base_width = 16;
    config.blocks[0] = 2;
    config.blocks[1] = 1;
    config.height = config.width = SIZE;
    config.classes = CLASSES;
    return config;
}

static struct files files_of(const resnet_config *config, test_fill *fill, const resnet_preprocess *how) {
    static const char labels[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
    struct files files = {"/tmp/test_quantizer_XXXXXX", "", ""};
    struct test_random random = {42};
    struct test_content content = {
        .preprocess = how, .labels = config->classes ? labels : NULL, .fill = fill, .context = &random};
    struct test_bytes bytes = test_model_file(config, &content);
    assert_non_null(mkdtemp(files.folder));
    snprintf(files.source, sizeof files.source, "%s/source", files.folder);
    snprintf(files.made, sizeof files.made, "%s/made", files.folder);
    FILE *file = fopen(files.source, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.data, 1, bytes.size, file), bytes.size);
    fclose(file);
    test_bytes_free(&bytes);
    return files;
}

static struct files files_new(test_fill *fill) {
    resnet_config config = small_config();
    return files_of(&config, fill, NULL);
}

static void files_free(const struct files *files) {
    unlink(files->source);
    unlink(files->made);
    assert_int_equal(rmdir(files->folder), 0); /* so nothing else was left in it */
}

/* ---- Images ---- */

/* Image `index` of a set that never ends: pixels as a photograph has them, bright and dark areas, normalised. */
static void fill_slot(resnet_session *session, uint32_t channels, uint32_t slot, uint32_t index) {
    float values[SIZE * SIZE * RESNET_MAX_CHANNELS];
    struct test_random random = {index};
    float across = test_float(&random, 0.05F, 0.4F), down = test_float(&random, 0.05F, 0.4F);
    for (uint32_t i = 0; i < SIZE * SIZE; i++)
        for (uint32_t c = 0; c < channels; c++) {
            float wave = sinf(across * (float)(i % SIZE) + (float)c) * cosf(down * (float)(i / SIZE) + (float)index);
            uint32_t pixel = (uint32_t)(127 + 100 * wave) + test_below(&random, 25);
            values[i * channels + c] = ((float)pixel / 255 - 0.5F) / 0.25F;
        }
    resnet_error error;
    assert_status(RESNET_OK, resnet_session_set_floats(session, slot, values, RESNET_NHWC, &error), &error);
}

typedef resnet_status quantizer_step(struct quantizer *quantizer, uint32_t count, resnet_error *error);

static void each_batch(struct quantizer *quantizer, uint32_t first, quantizer_step *step) {
    uint32_t channels = quantizer_describe(quantizer).model.config.in_channels;
    resnet_error error;
    for (uint32_t i = 0; i < IMAGES; i += BATCH) {
        for (uint32_t slot = 0; slot < BATCH; slot++)
            fill_slot(quantizer_session(quantizer), channels, slot, first + i + slot);
        assert_status(RESNET_OK, step(quantizer, BATCH, &error), &error);
    }
}

static struct quantizer *quantizer_new(const struct files *files) {
    const struct quantizer_options options = {.batch = BATCH, .threads = 2};
    struct quantizer *quantizer;
    resnet_error error;
    assert_status(RESNET_OK, quantizer_create(files->source, &options, &quantizer, &error), &error);
    return quantizer;
}

static void write_made(const struct quantizer *quantizer, const struct files *files) {
    size_t size;
    const void *bytes = quantizer_file(quantizer, &size);
    FILE *file = fopen(files->made, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* Observed, made, and compared on other images. */
static struct quantizer *quantized(const struct files *files, resnet_precision precision) {
    struct quantizer *quantizer = quantizer_new(files);
    resnet_error error;
    each_batch(quantizer, 0, quantizer_observe);
    assert_status(RESNET_OK, quantizer_quantize(quantizer, precision, &error), &error);
    each_batch(quantizer, IMAGES, quantizer_compare);
    write_made(quantizer, files);
    return quantizer;
}

static struct quantized_layer layer_named(const struct quantizer *quantizer, const char *name) {
    struct quantized_layer layer;
    resnet_error error;
    uint32_t layers = quantizer_describe(quantizer).model.layers;
    for (uint32_t i = 0; i < layers; i++) {
        assert_status(RESNET_OK, quantizer_layer(quantizer, i, &layer, &error), &error);
        if (strcmp(layer.name, name) == 0)
            return layer;
    }
    fail_msg("no layer %s", name);
    return layer;
}

/* Logits of images 0..BATCH-1, from a model file; of a network without a head, embeddings. Returns how many. */
static uint32_t logits_of(const char *path, resnet_load_options load, uint32_t threads, float *logits) {
    const resnet_session_options options = {.batch = BATCH, .threads = threads};
    resnet_model *model;
    resnet_session *session;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_file(path, &load, &model, &error), &error);
    assert_status(RESNET_OK, resnet_session_create(model, &options, &session, &error), &error);
    resnet_model_info info = resnet_model_describe(model);
    bool headless = info.config.classes == 0;
    resnet_request request = {.logits = headless ? NULL : logits, .embedding = headless ? logits : NULL};
    for (uint32_t slot = 0; slot < BATCH; slot++)
        fill_slot(session, info.config.in_channels, slot, slot);
    assert_status(RESNET_OK, resnet_run(session, BATCH, &request, &error), &error);
    resnet_session_free(session);
    resnet_model_free(model);
    return BATCH * (headless ? info.features : info.config.classes);
}

static double snr_of(const float *exact, const float *other, uint32_t count) {
    double signal = 0, noise = 0;
    for (uint32_t i = 0; i < count; i++) {
        signal += (double)exact[i] * (double)exact[i];
        noise += ((double)other[i] - (double)exact[i]) * ((double)other[i] - (double)exact[i]);
    }
    return 10 * log10(signal / noise);
}

static double snr(const float *exact, const float *other) {
    return snr_of(exact, other, BATCH * CLASSES);
}

/* ---- What is made ---- */

/* The layers have some 40 dB; a wrong scale, zero or residual would leave less than 20. */
static void test_int8_computes_nearly_the_same(void **state) {
    (void)state;
    struct files files = files_new(test_fill_random);
    struct quantizer *quantizer = quantized(&files, RESNET_PRECISION_INT8);
    struct quantizer_info info = quantizer_describe(quantizer);
    assert_int_equal(info.observed, IMAGES);
    assert_int_equal(info.compared, IMAGES);
    assert_true(info.agreeing <= IMAGES);
    for (uint32_t i = 0; i < info.model.layers; i++) {
        struct quantized_layer layer;
        resnet_error error;
        assert_status(RESNET_OK, quantizer_layer(quantizer, i, &layer, &error), &error);
        assert_int_equal(layer.kept, 0);
        assert_true(strstr(layer.name, "pool") ? isnan(layer.weight_db) : layer.weight_db > 30);
        assert_true(layer.output_db > 30 && layer.output_db < 60);
    }
    float exact[BATCH * CLASSES], made[BATCH * CLASSES];
    logits_of(files.source, (resnet_load_options){0}, 1, exact);
    logits_of(files.made, (resnet_load_options){0}, 1, made);
    assert_true(snr(exact, made) > 30);
    quantizer_free(quantizer);
    files_free(&files);
}

static void test_the_file_keeps_all_but_the_precision(void **state) {
    (void)state;
    struct files files = files_new(test_fill_random);
    struct quantizer *quantizer = quantized(&files, RESNET_PRECISION_INT8);
    struct quantizer_info info = quantizer_describe(quantizer);
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_file(files.made, NULL, &model, &error), &error);
    resnet_model_info made = resnet_model_describe(model);
    assert_int_equal(made.config.precision, RESNET_PRECISION_INT8);
    made.config.precision = info.model.config.precision;
    assert_memory_equal(&made.config, &info.model.config, sizeof made.config);
    assert_memory_equal(&made.preprocess, &info.model.preprocess, sizeof made.preprocess);
    assert_string_equal(resnet_model_label(model, 9), "j");
    FILE *file = fopen(files.made, "rb");
    assert_true(file && fseek(file, 0, SEEK_END) == 0);
    assert_int_equal(ftell(file), info.quantized_size);
    assert_true(info.quantized_size < info.file_size / 2); /* a quarter for networks larger than their vectors */
    fclose(file);
    resnet_model_free(model);
    quantizer_free(quantizer);
    files_free(&files);
}

/* A bf16 file is what the loader makes of the f32 file when it is asked for bf16. */
static void test_bf16_is_rounded_as_the_loader_does(void **state) {
    (void)state;
    struct files files = files_new(test_fill_random);
    struct quantizer *quantizer = quantizer_new(&files);
    resnet_error error;
    float rounded[BATCH * CLASSES], made[BATCH * CLASSES];
    assert_status(RESNET_OK, quantizer_quantize(quantizer, RESNET_PRECISION_BF16, &error), &error);
    write_made(quantizer, &files);
    logits_of(files.source, (resnet_load_options){.precision = RESNET_PRECISION_BF16}, 1, rounded);
    logits_of(files.made, (resnet_load_options){0}, 1, made);
    assert_memory_equal(rounded, made, sizeof made);
    each_batch(quantizer, 0, quantizer_compare);
    struct quantized_layer last = layer_named(quantizer, "fc");
    assert_true(last.output_db > 30 && last.output_db < 80); /* 8 bits of mantissa in each number */
    quantizer_free(quantizer);
    files_free(&files);
}

/* ---- The family ---- */

#define MEMBERS 8

/* Networks with each operation that ResNet-50 has not got. */
static resnet_config member(uint32_t index) {
    resnet_config config = small_config();
    bool bottlenecks = index < 4;
    config.block = bottlenecks ? RESNET_BLOCK_BOTTLENECK : RESNET_BLOCK_BASIC;
    config.blocks[2] = config.blocks[3] = 1;
    config.in_channels = (uint32_t[MEMBERS]){3, 1, 4, 3, 16, 2, 3, 1}[index];
    config.stem = (resnet_stem[MEMBERS]){0, RESNET_STEM_DEEP, RESNET_STEM_TIERED, 0, RESNET_STEM_CIFAR, 0, 0, 0}[index];
    config.shortcut = (resnet_shortcut[MEMBERS]){0,
                                                 RESNET_SHORTCUT_AVERAGE,
                                                 0,
                                                 0,
                                                 RESNET_SHORTCUT_ZEROS,
                                                 0,
                                                 RESNET_SHORTCUT_ZEROS,
                                                 RESNET_SHORTCUT_AVERAGE}[index];
    config.attention = (resnet_attention[MEMBERS]){1, 0, 1, 0, 1, 0, 0, 1}[index];
    config.attention_width = config.attention ? 4 : 0;
    config.output_stride = (uint32_t[MEMBERS]){8, 0, 16, 0, 0, 0, 0, 0}[index];
    if (index == 2 || index == 3) {
        config.groups = 4;
        config.width_per_group = 16; /* groups of 4, 8, 16 and 32 channels */
    }
    if (index == 3 || index == 5) {
        config.head = RESNET_HEAD_NONE;
        config.classes = 0;
    }
    return config;
}

static void check_layers(const struct quantizer *quantizer) {
    uint32_t layers = quantizer_describe(quantizer).model.layers;
    for (uint32_t i = 0; i < layers; i++) {
        struct quantized_layer layer;
        resnet_error error;
        assert_status(RESNET_OK, quantizer_layer(quantizer, i, &layer, &error), &error);
        assert_int_equal(layer.kept, strstr(layer.name, ".se.fc") != NULL);
        if (layer.output_db < 23)
            fail_msg("%s: %.1f dB", layer.name, layer.output_db);
    }
}

/* Rounded weights leave some 40 dB, the layers in turn 25 and more; a wrong scale or zero leaves less than 20. */
static void test_members_in_int8(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        resnet_config config = member(i);
        struct files files = files_of(&config, test_fill_random, NULL);
        struct quantizer *quantizer = quantized(&files, RESNET_PRECISION_INT8);
        struct quantizer_info info = quantizer_describe(quantizer);
        float exact[BATCH * OUTPUTS], made[BATCH * OUTPUTS];
        check_layers(quantizer);
        assert_true(config.classes || info.agreeing == 0);
        uint32_t count = logits_of(files.source, (resnet_load_options){0}, 1, exact);
        assert_int_equal(logits_of(files.made, (resnet_load_options){0}, 2, made), count);
        if (snr_of(exact, made, count) < 25)
            fail_msg("member %u: %.1f dB", i, snr_of(exact, made, count));
        quantizer_free(quantizer);
        files_free(&files);
    }
}

/* The header keeps every field, and the tensors are rounded as the loader rounds them. */
static void test_members_in_bf16(void **state) {
    (void)state;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        resnet_config config = member(i);
        struct files files = files_of(&config, test_fill_random, NULL);
        struct quantizer *quantizer = quantizer_new(&files);
        resnet_error error;
        float rounded[BATCH * OUTPUTS], made[BATCH * OUTPUTS];
        assert_status(RESNET_OK, quantizer_quantize(quantizer, RESNET_PRECISION_BF16, &error), &error);
        write_made(quantizer, &files);
        uint32_t count = logits_of(files.source, (resnet_load_options){.precision = RESNET_PRECISION_BF16}, 1, rounded);
        assert_int_equal(logits_of(files.made, (resnet_load_options){0}, 1, made), count);
        assert_memory_equal(rounded, made, count * sizeof *made);
        resnet_model *model;
        assert_status(RESNET_OK, resnet_model_load_file(files.made, NULL, &model, &error), &error);
        config.precision = RESNET_PRECISION_BF16;
        resnet_config kept = resnet_model_describe(model).config;
        assert_memory_equal(&kept, &config, sizeof config);
        resnet_model_free(model);
        quantizer_free(quantizer);
        files_free(&files);
    }
}

/* ---- Kept layers ---- */

/* Channel 0 behind each block's conv1 is always 0, and what conv2 multiplies it by is a thousand times too large. */
static float fill_spoiled(void *context, const struct test_tensor *tensor, size_t element) {
    float value = test_fill_random(context, tensor, element);
    const char *name = strrchr(tensor->node->name, '.');
    size_t filter = (size_t)tensor->node->in.channels * tensor->node->kernel * tensor->node->kernel;
    if (name && strcmp(name, ".conv1") == 0 && element == 0)
        value = strcmp(tensor->name, "scale") == 0 ? 0 : strcmp(tensor->name, "shift") == 0 ? -1 : value;
    if (name && strcmp(name, ".conv2") == 0 && strcmp(tensor->name, "weight") == 0 && element % filter < 9)
        value = 100;
    return value;
}

static void test_layers_that_8_bits_spoil_are_kept(void **state) {
    (void)state;
    struct files files = files_new(fill_spoiled);
    struct quantizer *quantizer = quantized(&files, RESNET_PRECISION_INT8);
    assert_int_equal(layer_named(quantizer, "layer1.0.conv1").kept, 0);
    assert_int_equal(layer_named(quantizer, "layer1.0.conv2").kept, 1); /* stride 1 */
    assert_int_equal(layer_named(quantizer, "layer2.0.conv2").kept, 1); /* stride 2 */
    assert_true(isnan(layer_named(quantizer, "layer2.0.conv2").weight_db));
    float exact[BATCH * CLASSES], made[BATCH * CLASSES], again[BATCH * CLASSES];
    logits_of(files.source, (resnet_load_options){0}, 1, exact);
    logits_of(files.made, (resnet_load_options){0}, 1, made);
    assert_true(snr(exact, made) > 30); /* as where none is kept; with those weights in 8 bits it is 17 */
    for (uint32_t threads = 2; threads <= 5; threads++) {
        logits_of(files.made, (resnet_load_options){0}, threads, again);
        assert_memory_equal(made, again, sizeof made);
    }
    for (resnet_isa isa = RESNET_ISA_REFERENCE; isa <= RESNET_ISA_AMX; isa++)
        if (resnet_isa_check(isa, NULL) == RESNET_OK) {
            logits_of(files.made, (resnet_load_options){.isa = isa}, 1, again);
            assert_true(snr(exact, again) > 30);
        }
    quantizer_free(quantizer);
    files_free(&files);
}

/* ---- What goes wrong ---- */

static void test_arguments_are_checked(void **state) {
    (void)state;
    struct files files = files_new(test_fill_random);
    struct quantizer *quantizer = (struct quantizer *)&files;
    struct quantized_layer layer;
    resnet_error error = {RESNET_OK, ""};
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_create(files.source, NULL, NULL, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_create(NULL, NULL, &quantizer, &error), &error);
    assert_null(quantizer);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_observe(NULL, 1, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_quantize(NULL, RESNET_PRECISION_INT8, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_compare(NULL, 1, &error), &error);
    quantizer_free(NULL);
    quantizer = quantizer_new(&files);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_observe(quantizer, BATCH + 1, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_quantize(quantizer, RESNET_PRECISION_INT8, &error), &error);
    assert_non_null(strstr(error.message, "needs images to be observed first"));
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_quantize(quantizer, RESNET_PRECISION_F32, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_compare(quantizer, 1, &error), &error);
    size_t size;
    assert_null(quantizer_file(quantizer, &size));
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_layer(quantizer, 0, &layer, &error), &error);
    assert_status(RESNET_OK, quantizer_quantize(quantizer, RESNET_PRECISION_BF16, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_compare(quantizer, BATCH + 1, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, quantizer_layer(quantizer, 1000, &layer, &error), &error);
    quantizer_free(quantizer);
    files_free(&files);
}

static void test_only_f32_files_are_taken(void **state) {
    (void)state;
    static const resnet_precision precisions[] = {RESNET_PRECISION_BF16, RESNET_PRECISION_INT8};
    for (size_t i = 0; i < COUNT(precisions); i++) {
        struct files files = files_new(test_fill_random);
        struct quantizer *quantizer = quantized(&files, precisions[i]), *other;
        resnet_error error = {RESNET_OK, ""};
        assert_status(RESNET_ERROR_UNSUPPORTED, quantizer_create(files.made, NULL, &other, &error), &error);
        assert_null(other);
        quantizer_free(quantizer);
        files_free(&files);
    }
}

/* All numbers of a file are finite, and so is what is folded; what the network computes of them need not be. */
static float fill_huge(void *context, const struct test_tensor *tensor, size_t element) {
    float value = test_fill_random(context, tensor, element);
    return strcmp(tensor->name, "weight") == 0 ? 1e30F * value : value;
}

static void test_numbers_that_are_not_finite_are_refused(void **state) {
    (void)state;
    struct files files = files_new(fill_huge);
    struct quantizer *quantizer = quantizer_new(&files);
    resnet_error error = {RESNET_OK, ""};
    each_batch(quantizer, 0, quantizer_observe);
    assert_status(RESNET_ERROR_MODEL, quantizer_quantize(quantizer, RESNET_PRECISION_INT8, &error), &error);
    assert_non_null(strstr(error.message, "not finite"));
    size_t size;
    assert_null(quantizer_file(quantizer, &size));
    quantizer_free(quantizer);
    files_free(&files);
}

/* Nor need the stem's weights be once they are for pixels. */
static void test_a_tiny_deviation_is_refused(void **state) {
    (void)state;
    const resnet_preprocess how = {.resize = 32, .mean = {0.5F, 0.5F, 0.5F}, .std = {1e-44F, 1, 1}};
    resnet_config config = small_config();
    struct files files = files_of(&config, test_fill_random, &how);
    struct quantizer *quantizer = quantizer_new(&files);
    resnet_error error = {RESNET_OK, ""};
    each_batch(quantizer, 0, quantizer_observe);
    assert_status(RESNET_ERROR_MODEL, quantizer_quantize(quantizer, RESNET_PRECISION_INT8, &error), &error);
    assert_non_null(strstr(error.message, "standard deviation"));
    quantizer_free(quantizer);
    files_free(&files);
}

/* Everything up to the file, with memory that says no at one moment. */
static resnet_status all_of_it(const struct files *files, const resnet_allocator *allocator, resnet_error *error) {
    const struct quantizer_options options = {.threads = 1, .allocator = allocator};
    struct quantizer *quantizer;
    resnet_status status = quantizer_create(files->source, &options, &quantizer, error);
    if (status == RESNET_OK)
        status = quantizer_observe(quantizer, 1, error);
    if (status == RESNET_OK)
        status = quantizer_quantize(quantizer, RESNET_PRECISION_INT8, error);
    if (status == RESNET_OK)
        status = quantizer_compare(quantizer, 1, error);
    quantizer_free(quantizer);
    return status;
}

static void test_every_refusal_of_memory_is_survived(void **state) {
    (void)state;
    struct files files = files_new(test_fill_random);
    resnet_status status = RESNET_ERROR_MEMORY;
    size_t refuse = 1;
    for (; status != RESNET_OK; refuse++) {
        struct test_memory memory;
        resnet_error error = {RESNET_OK, ""};
        test_memory_init(&memory, 0xff);
        memory.refuse = refuse;
        status = all_of_it(&files, &memory.allocator, &error);
        test_memory_check(&memory);
        assert_status(memory.calls < refuse ? RESNET_OK : RESNET_ERROR_MEMORY, status, &error);
    }
    assert_true(refuse > 50); /* the loop saw them all */
    files_free(&files);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int8_computes_nearly_the_same),
        cmocka_unit_test(test_the_file_keeps_all_but_the_precision),
        cmocka_unit_test(test_bf16_is_rounded_as_the_loader_does),
        cmocka_unit_test(test_members_in_int8),
        cmocka_unit_test(test_members_in_bf16),
        cmocka_unit_test(test_layers_that_8_bits_spoil_are_kept),
        cmocka_unit_test(test_arguments_are_checked),
        cmocka_unit_test(test_only_f32_files_are_taken),
        cmocka_unit_test(test_numbers_that_are_not_finite_are_refused),
        cmocka_unit_test(test_a_tiny_deviation_is_refused),
        cmocka_unit_test(test_every_refusal_of_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
