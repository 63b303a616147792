/* test_quantize.c - a layer in 8 bits: weights, scales and biases, and when it has to stay in f32. */
#include "quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define OUT      3
#define IN       2
#define AREA     9
#define COUNT_IN (IN * AREA)

static const struct node conv = {.op = OP_CONV,
                                 .input = 1,
                                 .residual = NO_NODE,
                                 .kernel = 3,
                                 .stride = 1,
                                 .pad = 1,
                                 .groups = 1,
                                 .dilation = 1,
                                 .in = {4, 4, IN},
                                 .out = {4, 4, OUT},
                                 .name = "conv"};

struct fixture {
    float weight[OUT * COUNT_IN], bias[OUT];
    int8_t integers[OUT * COUNT_IN];
    float scale[OUT];
    double mean[IN], power[IN];
    struct quantized layer;
    struct moments seen;
};

static struct fixture *fixture_new(uint64_t seed) {
    struct fixture *f = calloc(1, sizeof *f);
    struct test_random random = {seed};
    for (size_t i = 0; i < COUNT(f->weight); i++)
        f->weight[i] = test_float(&random, -2, 2);
    for (size_t i = 0; i < OUT; i++)
        f->bias[i] = test_float(&random, -1, 1);
    for (size_t k = 0; k < IN; k++) {
        f->mean[k] = (double)test_float(&random, 0, 3);
        f->power[k] = f->mean[k] * f->mean[k] + 1;
    }
    f->layer = (struct quantized){.integers = f->integers, .scale = f->scale, .bias = f->bias};
    f->seen = (struct moments){f->mean, f->power};
    return f;
}

static void test_each_channel_has_its_own_scale(void **state) {
    (void)state;
    struct fixture *f = fixture_new(1);
    for (uint32_t o = 0; o < OUT; o++)
        f->weight[o * COUNT_IN + 5] = o == 1 ? -50.8F : 2.54F; /* the largest */
    quantize_layer(&conv, f->weight, &f->seen, 0.01F, &f->layer);
    for (uint32_t o = 0; o < OUT; o++) {
        assert_true(f->scale[o] == (o == 1 ? 50.8F : 2.54F) / 127);
        assert_int_equal(f->integers[o * COUNT_IN + 5], o == 1 ? -127 : 127);
        for (uint32_t i = 0; i < COUNT_IN; i++) /* half a step, and what a division in f32 rounds */
            assert_true(fabsf(f->weight[o * COUNT_IN + i] - f->scale[o] * f->integers[o * COUNT_IN + i]) <=
                        f->scale[o] * 0.50001F);
    }
    free(f);
}

/* With every number at its mean, the rounded layer gives what the exact one gives. */
static void test_bias_takes_back_the_mean_error(void **state) {
    (void)state;
    struct fixture *f = fixture_new(2);
    float before[OUT];
    memcpy(before, f->bias, sizeof before);
    quantize_layer(&conv, f->weight, &f->seen, 0.01F, &f->layer);
    for (uint32_t o = 0; o < OUT; o++) {
        double exact = (double)before[o], rounded = (double)f->bias[o], uncorrected = (double)before[o];
        for (uint32_t i = 0; i < COUNT_IN; i++) {
            double mean = f->mean[i / AREA], w = (double)f->scale[o] * f->integers[o * COUNT_IN + i];
            exact += mean * (double)f->weight[o * COUNT_IN + i];
            rounded += mean * w;
            uncorrected += mean * w;
        }
        assert_true(fabs(rounded - exact) < 1e-6); /* the bias is an f32 of about 1 */
        assert_true(fabs(uncorrected - exact) > 1e-4);
    }
    free(f);
}

static void test_noise_is_that_of_rounding(void **state) {
    (void)state;
    struct fixture *f = fixture_new(3);
    double signal = 0, noise = 0;
    quantize_layer(&conv, f->weight, &f->seen, 0.01F, &f->layer);
    for (uint32_t i = 0; i < OUT * COUNT_IN; i++) {
        double w = (double)f->weight[i], error = (double)f->scale[i / COUNT_IN] * f->integers[i] - w;
        signal += w * w * f->power[i / AREA % IN];
        noise += error * error * f->power[i / AREA % IN];
    }
    assert_true(fabs(f->layer.signal / signal - 1) < 1e-12 && fabs(f->layer.noise / noise - 1) < 1e-12);
    assert_false(quantized_badly(&conv, &f->layer));
    free(f);
}

/* A layer of groups is as many layers side by side, each with its own part of the input. */
static void test_groups_are_layers_of_their_own(void **state) {
    (void)state;
    struct fixture *whole = fixture_new(8), *part = fixture_new(8);
    struct node grouped = conv, single = conv;
    grouped.groups = IN; /* of one input channel each */
    grouped.out.channels = single.out.channels = IN;
    single.in.channels = single.out.channels = 1;
    whole->mean[1] = 9;
    whole->power[1] = 100;
    quantize_layer(&grouped, whole->weight, &whole->seen, 0.01F, &whole->layer);
    double signal = 0, noise = 0;
    for (uint32_t k = 0; k < IN; k++) {
        part->mean[0] = whole->mean[k];
        part->power[0] = whole->power[k];
        part->layer.bias = part->bias + k;
        quantize_layer(&single, part->weight + k * AREA, &part->seen, 0.01F, &part->layer);
        signal += part->layer.signal;
        noise += part->layer.noise;
        assert_memory_equal(part->integers, whole->integers + k * AREA, AREA);
        assert_true(part->scale[0] == whole->scale[k] && part->bias[k] == whole->bias[k]);
    }
    assert_true(fabs(whole->layer.signal / signal - 1) < 1e-12 && fabs(whole->layer.noise / noise - 1) < 1e-12);
    free(whole);
    free(part);
}

/* Whatever the weights are, the loader can have the bias in int32: |bias| / (input * scale) below 2^30. */
static void test_biases_fit_into_the_sums(void **state) {
    (void)state;
    static const float sizes[] = {0, 1e-42F, 1e-30F, 1e-12F, 1, 1e20F};
    static const float biases[] = {0, 1e-30F, 3, 1e9F}, inputs[] = {1e-9F, 1, 1e6F};
    struct fixture *f = fixture_new(4);
    for (size_t i = 0; i < COUNT(sizes) * COUNT(biases) * COUNT(inputs); i++) {
        float size = sizes[i % 6], bias = biases[i / 6 % 4], input = inputs[i / 24];
        for (size_t k = 0; k < COUNT(f->weight); k++)
            f->weight[k] = k % 2 ? size : -size;
        for (size_t o = 0; o < OUT; o++)
            f->bias[o] = o % 2 ? bias : -bias;
        quantize_layer(&conv, f->weight, &f->seen, input, &f->layer);
        for (size_t o = 0; o < OUT; o++) {
            assert_true(f->scale[o] > 0 && isfinite(f->scale[o]));
            assert_true(fabs((double)f->bias[o]) < 0x1p30 * (double)input * (double)f->scale[o]);
        }
    }
    free(f);
}

/* A weight that is large, but for an input that is always 0, leaves the others no room. */
static void test_a_layer_that_8_bits_spoil_is_kept(void **state) {
    (void)state;
    struct fixture *f = fixture_new(5);
    f->mean[0] = f->power[0] = 0;
    for (uint32_t o = 0; o < OUT; o++)
        f->weight[o * COUNT_IN] = 200;
    quantize_layer(&conv, f->weight, &f->seen, 0.01F, &f->layer);
    assert_true(quantized_badly(&conv, &f->layer));
    f->power[0] = 1; /* what is computed is now mostly that weight, and well */
    quantize_layer(&conv, f->weight, &f->seen, 0.01F, &f->layer);
    assert_false(quantized_badly(&conv, &f->layer));
    free(f);
}

static void test_a_sum_that_may_overflow_is_kept(void **state) {
    (void)state;
    struct quantized fine = {.signal = 1};
    struct node node = conv;
    node.kernel = 1;
    node.in.channels = MOST_PRODUCTS;
    assert_false(quantized_badly(&node, &fine));
    node.in.channels++;
    assert_true(quantized_badly(&node, &fine));
}

static void test_pixels_give_what_normalised_numbers_gave(void **state) {
    (void)state;
    const resnet_preprocess how = {.mean = {0.485F, 0.1F}, .std = {0.229F, 2}};
    struct fixture *f = fixture_new(6);
    float weight[OUT * COUNT_IN], bias[OUT];
    struct test_random random = {7};
    memcpy(weight, f->weight, sizeof weight);
    memcpy(bias, f->bias, sizeof bias);
    fold_pixels(&conv, &how, weight, bias);
    for (uint32_t o = 0; o < OUT; o++) {
        double exact = (double)f->bias[o], folded = (double)bias[o];
        for (uint32_t i = 0; i < COUNT_IN; i++) {
            uint32_t u = test_below(&random, 256), k = i / AREA;
            exact += (double)f->weight[o * COUNT_IN + i] * (u / 255.0 - (double)how.mean[k]) / (double)how.std[k];
            folded += (double)weight[o * COUNT_IN + i] * u;
        }
        assert_true(fabs(folded - exact) < 1e-5); /* sums of about 10, of numbers rounded to f32 */
    }
    free(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_channel_has_its_own_scale),
        cmocka_unit_test(test_bias_takes_back_the_mean_error),
        cmocka_unit_test(test_noise_is_that_of_rounding),
        cmocka_unit_test(test_groups_are_layers_of_their_own),
        cmocka_unit_test(test_biases_fit_into_the_sums),
        cmocka_unit_test(test_a_layer_that_8_bits_spoil_is_kept),
        cmocka_unit_test(test_a_sum_that_may_overflow_is_kept),
        cmocka_unit_test(test_pixels_give_what_normalised_numbers_gave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
