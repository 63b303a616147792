/* test_preprocess.c - resize, crop and normalisation against Pillow's and torchvision's results, to the bit. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "memory_faults.h"
#include "preprocess.h"

/* What torch has of torchvision's preset. */
static const resnet_preprocess preset = {
    .resize = 256, .mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}};

/* u / 255 comes out, from which u follows. */
static const resnet_preprocess plain = {.std = {1, 1, 1}};

/* make_image_fixtures.py has the same formula: noise for odd seeds, a pattern for even ones. */
static uint8_t formula(uint32_t i, uint32_t width, uint32_t seed) {
    uint32_t pixel = i / 3, x = pixel % width, y = pixel / width, h = i + seed * 0x9e3779b9u;
    if (seed % 2 == 0)
        return (uint8_t)(((x * 7 + y * 3) ^ (x * y >> 4)) + i % 3 * 80);
    h = (h ^ h >> 16) * 0x7feb352du;
    h = (h ^ h >> 15) * 0x846ca68bu;
    return (uint8_t)(h ^ h >> 16);
}

static uint8_t *make_image(uint32_t width, uint32_t height, uint32_t seed) {
    size_t size = (size_t)3 * width * height;
    uint8_t *pixels = malloc(size);
    assert_non_null(pixels);
    for (size_t i = 0; i < size; i++)
        pixels[i] = formula((uint32_t)i, width, seed);
    return pixels;
}

static resnet_status run(const uint8_t *pixels, uint32_t width, uint32_t height, const resnet_preprocess *how,
                         uint32_t crop_width, uint32_t crop_height, float *out, resnet_error *error) {
    struct pixels source = {width, height, (size_t)3 * width, pixels};
    struct preprocess_target target = {crop_height, crop_width, (size_t)3 * crop_width, 3, out};
    struct faults faults = {.fill = 0xa5};
    resnet_allocator allocator = faults_allocator(&faults);
    resnet_status status = preprocess(&source, how, &allocator, &target, error);
    assert_int_equal(faults.blocks, 0);
    return status;
}

static uint8_t *crop_of(const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t resize, int bicubic,
                        uint32_t crop_width, uint32_t crop_height) {
    resnet_preprocess how = plain;
    size_t size = (size_t)3 * crop_width * crop_height;
    float *values = malloc(size * sizeof *values);
    uint8_t *bytes = malloc(size);
    assert_true(values && bytes);
    how.resize = resize;
    how.interpolation = bicubic ? RESNET_BICUBIC : RESNET_BILINEAR;
    assert_int_equal(run(pixels, width, height, &how, crop_width, crop_height, values, NULL), RESNET_OK);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)lrintf(values[i] * 255);
    free(values);
    return bytes;
}

static void equals_pillow_and_torchvision(void **state) {
    FILE *file = fopen(TEST_DATA "/preprocess_cases.txt", "r");
    unsigned width, height, resize, bicubic, crop_width, crop_height, crc, seed = 0;
    (void)state;
    assert_non_null(file);
    while (fscanf(file, "%u %u %u %u %u %u %x", &width, &height, &resize, &bicubic, &crop_width, &crop_height, &crc) ==
           7) {
        uint8_t *pixels = make_image(width, height, seed++);
        uint8_t *crop = crop_of(pixels, width, height, resize, (int)bicubic, crop_width, crop_height);
        if (crc32_of(crop, (size_t)3 * crop_width * crop_height) != crc)
            fail_msg("case %u: %u x %u, resize %u, %s, crop %u x %u", seed - 1, width, height, resize,
                     bicubic ? "bicubic" : "bilinear", crop_width, crop_height);
        free(crop);
        free(pixels);
    }
    fclose(file);
    assert_true(seed >= 340);
}

/* One case with all its pixels, to see where something differs. */
static void equals_pillow_pixel_by_pixel(void **state) {
    uint8_t expected[18 * 15 * 3], *pixels = make_image(41, 29, 1), *crop = crop_of(pixels, 41, 29, 16, 1, 18, 15);
    FILE *file = fopen(TEST_DATA "/preprocess_full.rgb", "rb");
    (void)state;
    assert_non_null(file);
    assert_int_equal(fread(expected, 1, sizeof expected, file), sizeof expected);
    fclose(file);
    assert_memory_equal(crop, expected, sizeof expected);
    free(crop);
    free(pixels);
}

static void normalises_as_torch(void **state) {
    float expected[3][256], values[256][3];
    uint8_t pixels[256][3];
    resnet_preprocess how = preset;
    FILE *file = fopen(TEST_DATA "/preprocess_table.f32", "rb");
    (void)state;
    assert_non_null(file);
    assert_int_equal(fread(expected, 1, sizeof expected, file), sizeof expected); /* little-endian, as the machines */
    fclose(file);
    for (int u = 0; u < 256; u++)
        memset(pixels[u], u, 3);
    how.resize = 0;
    assert_int_equal(run(pixels[0], 256, 1, &how, 256, 1, values[0], NULL), RESNET_OK);
    for (int u = 0; u < 256; u++)
        for (int c = 0; c < 3; c++)
            assert_memory_equal(&values[u][c], &expected[c][u], sizeof(float));
}

/* Rows of the source and of the target may lie further apart than they are long; what lies between is not touched. */
static void keeps_to_its_rows(void **state) {
    enum { W = 20, H = 11, TW = 9, TH = 7, GAP = 5 };
    uint8_t *tight = make_image(W, H, 3), loose[H][3 * W + GAP];
    float expected[TH][3 * TW], values[TH][3 * TW + GAP];
    resnet_preprocess how = plain;
    resnet_allocator allocator = memory_allocator(NULL);
    (void)state;
    how.resize = 10;
    assert_int_equal(run(tight, W, H, &how, TW, TH, expected[0], NULL), RESNET_OK);
    memset(loose, 0xee, sizeof loose);
    for (int y = 0; y < H; y++)
        memcpy(loose[y], tight + (ptrdiff_t)3 * W * y, (size_t)3 * W);
    for (int i = 0; i < TH * (3 * TW + GAP); i++)
        (&values[0][0])[i] = -7;
    assert_int_equal(preprocess(&(struct pixels){W, H, sizeof loose[0], loose[0]}, &how, &allocator,
                                &(struct preprocess_target){TH, TW, 3 * TW + GAP, 3, values[0]}, NULL),
                     RESNET_OK);
    for (int y = 0; y < TH; y++) {
        assert_memory_equal(values[y], expected[y], sizeof expected[y]);
        for (int i = 3 * TW; i < 3 * TW + GAP; i++)
            assert_true(values[y][i] == -7);
    }
    free(tight);
}

/* 16.7 million pixels long after the resize: only the crop may be computed. */
static void takes_extreme_shapes(void **state) {
    static const struct {
        uint32_t width, height, resize;
    } cases[] = {{1, 65535, 256}, {65535, 1, 256}, {1, 65535, 16384}, {65535, 1, 1}, {65535, 2, 0}, {1, 1, 16384}};
    static float values[224 * 224 * 3];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bicubic = 0; bicubic < 2; bicubic++) {
            size_t size = (size_t)3 * cases[i].width * cases[i].height;
            uint8_t *pixels = malloc(size);
            struct faults faults = {.fill = 1};
            resnet_allocator allocator = faults_allocator(&faults);
            resnet_preprocess how = plain;
            assert_non_null(pixels);
            memset(pixels, 200, size);
            how.resize = cases[i].resize;
            how.interpolation = bicubic ? RESNET_BICUBIC : RESNET_BILINEAR;
            assert_int_equal(
                preprocess(&(struct pixels){cases[i].width, cases[i].height, (size_t)3 * cases[i].width, pixels}, &how,
                           &allocator, &(struct preprocess_target){224, 224, 672, 3, values}, NULL),
                RESNET_OK);
            assert_true(values[3 * (112 * 224 + 112)] == 200 / 255.0f || cases[i].resize <= 1);
            assert_true(faults.peak < (size_t)4 << 20);
            free(pixels);
        }
}

static void refuses_wrong_arguments(void **state) {
    uint8_t pixel[3] = {1, 2, 3};
    float out[3];
    resnet_preprocess how;
    resnet_error error;
    (void)state;
    assert_int_equal(run(pixel, 0, 1, &preset, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "0 x 1 pixels"));
    assert_int_equal(run(pixel, 1, 65536, &preset, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    assert_int_equal(run(pixel, 65536, 1, &preset, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    assert_int_equal(run(pixel, 1, 0, &preset, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    how = preset, how.resize = 16385;
    assert_int_equal(run(pixel, 1, 1, &how, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "16385"));
    how = preset, how.interpolation = (resnet_interpolation)2;
    assert_int_equal(run(pixel, 1, 1, &how, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    how = preset, how.std[2] = 0;
    assert_int_equal(run(pixel, 1, 1, &how, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "channel 2"));
    how = preset, how.std[0] = INFINITY;
    assert_int_equal(run(pixel, 1, 1, &how, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
    how = preset, how.mean[1] = NAN;
    assert_int_equal(run(pixel, 1, 1, &how, 1, 1, out, &error), RESNET_ERROR_ARGUMENT);
}

static void survives_refused_memory(void **state) {
    uint8_t *pixels = make_image(30, 20, 1);
    float out[3 * 8 * 8];
    resnet_error error;
    (void)state;
    for (size_t k = 1;; k++) {
        struct faults faults = {.fail_at = k, .fail_forever = k % 2};
        resnet_allocator allocator = faults_allocator(&faults);
        resnet_status status = preprocess(&(struct pixels){30, 20, 90, pixels}, &preset, &allocator,
                                          &(struct preprocess_target){8, 8, 24, 3, out}, &error);
        assert_int_equal(faults.blocks, 0);
        if (faults.calls < k) {
            assert_int_equal(status, RESNET_OK);
            assert_true(k > 1);
            break;
        }
        assert_int_equal(status, RESNET_ERROR_MEMORY);
    }
    free(pixels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow_and_torchvision), cmocka_unit_test(equals_pillow_pixel_by_pixel),
        cmocka_unit_test(normalises_as_torch),           cmocka_unit_test(keeps_to_its_rows),
        cmocka_unit_test(takes_extreme_shapes),          cmocka_unit_test(refuses_wrong_arguments),
        cmocka_unit_test(survives_refused_memory),
    };
    return cmocka_run_group_tests_name("preprocess", tests, NULL, NULL);
}
