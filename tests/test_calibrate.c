/* test_calibrate.c - statistics of tensors are exact where they can be, and the scale is the one of least error. */
#include "calibrate.h"

#include <math.h>
#include <stdlib.h>

#include "support.h"

/* Two images of 3 x 2 pixels and 2 channels with a border of 1, which, like the unused words of a pixel, is poisoned.
 */
struct map {
    float numbers[2 * 4 * 5 * 16];
    struct tensor tensor;
    struct observation seen;
};

static struct map *map_new(float poison) {
    struct map *map = malloc(sizeof *map);
    map->tensor = (struct tensor){
        .shape = {2, 3, 2}, .border = 1, .pixel = 16, .row = 80, .image = 320, .size = 640, .origin = 96};
    map->seen = (struct observation){.images = 2, .tensor = &map->tensor, .values = map->numbers + 96};
    for (size_t i = 0; i < COUNT(map->numbers); i++)
        map->numbers[i] = poison;
    return map;
}

static float *number_at(struct map *map, uint32_t index) {
    uint32_t c = index % 2, x = index / 2 % 3, y = index / 6 % 2, image = index / 12;
    return map->numbers + 96 + image * 320 + y * 80 + x * 16 + c;
}

static struct statistics statistics_of(struct map *map) {
    const resnet_allocator allocator = memory_allocator(NULL);
    struct statistics s;
    resnet_error error;
    assert_status(RESNET_OK, statistics_create(&s, 2, &allocator, &error), &error);
    statistics_add(&s, &map->seen);
    return s;
}

static void release(struct statistics *s, struct map *map) {
    const resnet_allocator allocator = memory_allocator(NULL);
    statistics_free(s, &allocator);
    free(map);
}

static void test_moments_are_of_the_numbers_alone(void **state) {
    (void)state;
    struct map *map = map_new(NAN);
    for (uint32_t i = 0; i < 24; i++)
        *number_at(map, i) = i % 2 ? -2 : (float)(i / 2);
    struct statistics s = statistics_of(map);
    assert_int_equal(s.pixels, 12);
    assert_true(statistics_finite(&s));
    assert_true(statistics_mean(&s, 0) == 5.5 && statistics_mean(&s, 1) == -2);
    assert_true(statistics_power(&s, 0) == 506.0 / 12 && statistics_power(&s, 1) == 4);
    statistics_add(&s, &map->seen);
    assert_int_equal(s.pixels, 24);
    assert_true(statistics_mean(&s, 0) == 5.5 && statistics_power(&s, 1) == 4);
    release(&s, map);
}

static void test_what_is_not_finite_is_told(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct map *map = map_new(0);
        *number_at(map, 23) = bad[i];
        struct statistics s = statistics_of(map);
        assert_false(statistics_finite(&s));
        release(&s, map);
    }
}

static void test_nothing_gives_a_scale_all_the_same(void **state) {
    (void)state;
    static const float small[] = {0, -0.0F, 1e-40F, 1e-37F};
    for (size_t i = 0; i < COUNT(small); i++) {
        struct map *map = map_new(0);
        *number_at(map, 5) = small[i];
        struct statistics s = statistics_of(map);
        assert_true(statistics_scale(&s, 0) == 1);
        assert_true(statistics_scale(&s, 128) == 1);
        release(&s, map);
    }
}

/* 2.4 million even numbers up to 10, then one that is far larger: `outlier`. */
static struct statistics even_numbers(struct map *map, float outlier) {
    struct statistics s = statistics_of(map);
    for (uint32_t i = 0; i < 100000; i++) {
        for (uint32_t k = 0; k < 24; k++)
            *number_at(map, k) = (float)((i * 24 + k) % 1000 + 1) / 100;
        statistics_add(&s, &map->seen);
    }
    *number_at(map, 0) = outlier;
    statistics_add(&s, &map->seen);
    return s;
}

/* No number can be spared of even ones: the scale reaches to the largest, whose bin is an eighth of an octave wide, so
 * at most 13 % further. */
static void test_even_numbers_use_the_whole_range(void **state) {
    (void)state;
    struct map *map = map_new(0);
    struct statistics s = even_numbers(map, 0);
    float scale = statistics_scale(&s, 0), half = statistics_scale(&s, 128);
    assert_true(scale >= 10.0F / 255 && scale <= 11.3F / 255);
    assert_true(fabsf(half / scale * 127 / 255 - 1) < 1e-6F);
    release(&s, map);
}

/* To reach to 20 would add (20^2 - 10^2) / 255^2 / 12 to the mean square error, to cut it off adds 10^2 / 2400000. The
 * headroom is 1.3. */
static void test_an_outlier_is_cut_off(void **state) {
    (void)state;
    struct map *map = map_new(0);
    struct statistics s = even_numbers(map, 20);
    float scale = statistics_scale(&s, 0);
    assert_true(scale >= 10.0F / 255 && scale <= 1.3F * 11.3F / 255);
    release(&s, map);
}

/* Where to cut 1000 costs much, the range gives way: (1000 - r)^2 / 2400000 + r^2 / 255^2 / 12 is least at r = 245. */
static void test_an_outlier_widens_the_range_as_far_as_it_weighs(void **state) {
    (void)state;
    struct map *map = map_new(0);
    struct statistics s = even_numbers(map, 1000);
    float range = statistics_scale(&s, 0) * 255;
    assert_true(range > 1.3F * 230 && range < 1.3F * 260); /* ranges that are tried are 4 % apart */
    release(&s, map);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments_are_of_the_numbers_alone),
        cmocka_unit_test(test_what_is_not_finite_is_told),
        cmocka_unit_test(test_nothing_gives_a_scale_all_the_same),
        cmocka_unit_test(test_even_numbers_use_the_whole_range),
        cmocka_unit_test(test_an_outlier_is_cut_off),
        cmocka_unit_test(test_an_outlier_widens_the_range_as_far_as_it_weighs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
