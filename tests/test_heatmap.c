/* test_heatmap.c - a class-activation map lies over the photograph where the network saw what it tells. */
#include "heatmap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define GREY 100

/* A network with an input of 64 x 32 pixels and a map of 4 x 2 values. */
static struct heatmap heat_of(const float *values, uint32_t resize) {
    return (struct heatmap){.values = values,
                            .map = {.channels = 1, .height = 2, .width = 4, .stride = 16},
                            .input_width = 64,
                            .input_height = 32,
                            .preprocess = {.resize = resize, .std = {1, 1, 1}}};
}

static struct raster grey(uint32_t width, uint32_t height) {
    struct raster raster;
    resnet_error error;
    assert_status(RESNET_OK, raster_create(&raster, width, height, &error), &error);
    memset(raster.pixels, GREY, raster.memory_size);
    return raster;
}

static const uint8_t *pixel_at(const struct raster *raster, uint32_t x, uint32_t y) {
    return raster->pixels + 3 * ((size_t)y * raster->width + x);
}

static bool is_grey(const uint8_t *pixel, uint8_t value) {
    return pixel[0] == value && pixel[1] == value && pixel[2] == value;
}

static void test_the_peak_is_found_through_crop_and_resize(void **state) {
    (void)state;
    const float values[8] = {0, 0, 0, 0, 0, 0, 7, 0}; /* column 2, row 1: middle 40, 24 of the input */
    struct heatmap heat = heat_of(values, 0);
    struct {
        uint32_t width, height, resize;
        double x, y;
    } cases[] = {{64, 32, 0, 40, 24},   /* as it is */
                 {84, 52, 0, 50, 34},   /* 10 pixels are cut on all sides */
                 {60, 20, 0, 38, 18},   /* 2 are added left and right, 6 above and below */
                 {128, 64, 32, 80, 48}, /* halved */
                 {256, 64, 32, 144, 48}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct raster photograph = {.width = cases[i].width, .height = cases[i].height};
        heat.preprocess.resize = cases[i].resize;
        struct heat_peak peak = heatmap_peak(&heat, &photograph);
        assert_true(peak.value == 7 && peak.x == cases[i].x && peak.y == cases[i].y);
    }
}

static void test_what_speaks_against_the_class_leaves_the_photograph_as_it_was(void **state) {
    (void)state;
    const float values[8] = {-1, 0, -3, NAN, 0, 0, -1, -INFINITY};
    struct heatmap heat = heat_of(values, 0);
    struct raster photograph = grey(64, 32);
    struct heat_peak peak = heatmap_peak(&heat, &photograph);
    assert_true(peak.value == 0);
    heatmap_draw(&heat, &photograph);
    for (size_t i = 0; i < photograph.memory_size; i++)
        assert_int_equal(photograph.pixels[i], GREY);
    raster_free(&photograph);
}

/* One hot place: warm in its middle, alike on all sides, nothing a whole value away. */
static void test_heat_falls_off_to_the_next_values(void **state) {
    (void)state;
    const float values[8] = {0, 5, 0, 0, 0, 0, 0, 0}; /* middle between pixels 23 and 24, 7 and 8 */
    struct heatmap heat = heat_of(values, 0);
    struct raster photograph = grey(64, 32);
    heatmap_draw(&heat, &photograph);
    assert_true(pixel_at(&photograph, 24, 7)[0] > 200);
    for (uint32_t x = 0; x < 16; x++) /* as far left as right, as far up as down */
        assert_memory_equal(pixel_at(&photograph, 23 - x, 7), pixel_at(&photograph, 24 + x, 7), 3);
    assert_memory_equal(pixel_at(&photograph, 24, 0), pixel_at(&photograph, 24, 7), 3);
    assert_true(is_grey(pixel_at(&photograph, 7, 7), GREY) && is_grey(pixel_at(&photograph, 40, 7), GREY));
    assert_true(!is_grey(pixel_at(&photograph, 8, 7), GREY) && !is_grey(pixel_at(&photograph, 39, 7), GREY));
    assert_true(is_grey(pixel_at(&photograph, 24, 24), GREY) && !is_grey(pixel_at(&photograph, 24, 22), GREY));
    raster_free(&photograph);
}

static void test_what_the_network_did_not_see_is_dark(void **state) {
    (void)state;
    const float values[8] = {0};
    struct heatmap heat = heat_of(values, 32);
    struct raster photograph = grey(256, 64); /* halved, the middle half of it is seen */
    heatmap_draw(&heat, &photograph);
    for (uint32_t x = 0; x < 256; x++)
        for (uint32_t y = 0; y < 64; y += 63)
            assert_true(is_grey(pixel_at(&photograph, x, y), x >= 64 && x < 192 ? GREY : GREY / 2));
    raster_free(&photograph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_peak_is_found_through_crop_and_resize),
        cmocka_unit_test(test_what_speaks_against_the_class_leaves_the_photograph_as_it_was),
        cmocka_unit_test(test_heat_falls_off_to_the_next_values),
        cmocka_unit_test(test_what_the_network_did_not_see_is_dark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
