/* test_answer.c - softmax and the best classes, for every kind of number that a network may give. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "support.h"

#define MOST 1000

static double sum_of(const float *values, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += (double)values[i];
    return sum;
}

/* Each probability is a float within an ulp or two, so the sum of all is off by about 1e-7 at most. */
static void assert_is_distribution(const float *values, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        assert_true(values[i] >= 0 && values[i] <= 1);
    assert_true(fabs(sum_of(values, count) - 1) < 1e-6);
}

static void test_softmax(void **state) {
    (void)state;
    struct test_random random = {1};
    float values[MOST], before[MOST];
    for (int round = 0; round < 100; round++) {
        uint32_t count = test_between(&random, 1, MOST);
        double sum = 0;
        for (uint32_t i = 0; i < count; i++) {
            before[i] = values[i] = test_float(&random, -20, 20);
            sum += exp((double)before[i]);
        }
        resnet_softmax(values, count);
        assert_is_distribution(values, count);
        for (uint32_t i = 0; i < count; i++) { /* the difference to the maximum is rounded: 20 * 2^-23 */
            double expected = exp((double)before[i]) / sum;
            assert_true(fabs((double)values[i] - expected) <= 1e-5 * expected);
        }
    }
}

static void test_softmax_of_extremes(void **state) {
    (void)state;
    static const struct {
        float in[4], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0.25F, 0.25F, 0.25F, 0.25F}},
        {{FLT_MAX, 0, -FLT_MAX, FLT_MAX}, {0.5F, 0, 0, 0.5F}},
        {{-FLT_MAX, -FLT_MAX, -FLT_MAX, -FLT_MAX}, {0.25F, 0.25F, 0.25F, 0.25F}},
        {{1e30F, 1e29F, 0, 1}, {1, 0, 0, 0}},
        {{-INFINITY, 3, -INFINITY, 3}, {0, 0.5F, 0, 0.5F}},
        {{1000, -1000, -1000, -1000}, {1, 0, 0, 0}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        float values[4];
        memcpy(values, cases[i].in, sizeof values);
        resnet_softmax(values, 4);
        for (int j = 0; j < 4; j++)
            assert_true(values[j] == cases[i].out[j]);
    }
}

/* No probability can be told; none may be invented, and nothing beyond the array is touched. */
static void test_softmax_of_what_is_no_number(void **state) {
    (void)state;
    float with_nan[] = {1, NAN, 2, 42};
    resnet_softmax(with_nan, 3);
    for (int i = 0; i < 3; i++)
        assert_true(isnan(with_nan[i]));
    assert_true(with_nan[3] == 42);
    float nothing[] = {-INFINITY, -INFINITY};
    resnet_softmax(nothing, 2);
    assert_true(isnan(nothing[0]) && isnan(nothing[1]));
    resnet_softmax(nothing, 0);
    resnet_softmax(NULL, 0);
}

static void test_softmax_of_one(void **state) {
    (void)state;
    float value = -123.5F;
    resnet_softmax(&value, 1);
    assert_true(value == 1);
}

/* By definition: repeatedly the best that is left, the first of equal ones. */
static uint32_t naive_top_k(const float *values, uint32_t count, uint32_t k, uint32_t *indices) {
    bool taken[MOST] = {false};
    uint32_t found = 0;
    for (; found < k && found < count; found++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < count; i++) {
            if (taken[i])
                continue;
            bool better = best == UINT32_MAX || (isnan(values[best]) && !isnan(values[i])) || values[i] > values[best];
            best = better ? i : best;
        }
        taken[best] = true;
        indices[found] = best;
    }
    return found;
}

/* Few different values, so that many are equal; NaN and the infinities among them. */
static float random_score(struct test_random *random) {
    switch (test_below(random, 12)) {
    case 0:
        return NAN;
    case 1:
        return INFINITY;
    case 2:
        return -INFINITY;
    case 3:
        return test_below(random, 2) ? 0.0F : -0.0F;
    default:
        return (float)test_below(random, 10) - 5;
    }
}

static void test_top_k_at_random(void **state) {
    (void)state;
    struct test_random random = {2};
    for (int round = 0; round < 2000; round++) {
        float values[60];
        uint32_t count = test_below(&random, COUNT(values) + 1), k = test_below(&random, 70), actual[71], expected[70];
        for (uint32_t i = 0; i < count; i++)
            values[i] = random_score(&random);
        memset(actual, 0xee, sizeof actual);
        uint32_t found = resnet_top_k(values, count, k, actual);
        assert_int_equal(found, naive_top_k(values, count, k, expected));
        assert_int_equal(found, k < count ? k : count);
        assert_memory_equal(actual, expected, found * sizeof *expected);
        assert_int_equal(actual[found], 0xeeeeeeee); /* nothing is written beyond */
    }
}

static void test_top_k_edges(void **state) {
    (void)state;
    static const float values[] = {1, 3, 3, NAN, 2};
    static const uint32_t expected[] = {1, 2, 4, 0, 3};
    uint32_t indices[8] = {0};
    assert_int_equal(resnet_top_k(values, 5, 0, indices), 0);
    assert_int_equal(resnet_top_k(values, 5, 0, NULL), 0);
    assert_int_equal(resnet_top_k(values, 0, 5, indices), 0);
    assert_int_equal(resnet_top_k(NULL, 0, 0, NULL), 0);
    for (uint32_t k = 1; k <= 8; k++) {
        assert_int_equal(resnet_top_k(values, 5, k, indices), k < 5 ? k : 5);
        assert_memory_equal(indices, expected, (k < 5 ? k : 5) * sizeof *indices);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_softmax_of_extremes),
        cmocka_unit_test(test_softmax_of_what_is_no_number),
        cmocka_unit_test(test_softmax_of_one),
        cmocka_unit_test(test_top_k_at_random),
        cmocka_unit_test(test_top_k_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
