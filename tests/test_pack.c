/* test_pack.c - folding, rounding, quantising and packing against the formulas, written out one number at a time. */
#include "pack.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "floats.h"
#include "support.h"
#include "winograd.h"

/* A float next to the true value: half an ulp, and the last bits of the double that it was rounded from. */
#define HALF_ULP (0x1p-24L * 1.000001L)

static struct node conv_node(uint32_t in, uint32_t out, uint32_t kernel) {
    return (struct node){.op = OP_CONV,
                         .kernel = kernel,
                         .groups = 1,
                         .in = {1, 1, in},
                         .out = {1, 1, out},
                         .residual = NO_NODE,
                         .name = "conv"};
}

/* With `width` channels in each group. */
static struct node grouped_node(uint32_t groups, uint32_t width, uint32_t kernel) {
    struct node node = conv_node(groups * width, groups * width, kernel);
    node.groups = groups;
    return node;
}

static struct node linear_node(uint32_t in, uint32_t out) {
    return (struct node){.op = OP_LINEAR,
                         .kernel = 1,
                         .groups = 1,
                         .in = {1, 1, in},
                         .out = {1, 1, out},
                         .residual = NO_NODE,
                         .name = "fc"};
}

static float *random_block(const struct node *node, struct test_random *random) {
    size_t size = parameters_size(node), vectors = node->op == OP_CONV ? 4 * (size_t)node->out.channels : 0;
    float *block = malloc(size * sizeof *block);
    assert_non_null(block);
    for (size_t i = 0; i < size; i++)
        block[i] = test_float(random, -2, 2);
    for (size_t i = size - vectors / 4; vectors && i < size; i++)
        block[i] = test_float(random, 0.001F, 4); /* variances */
    return block;
}

/* ---- The formulas ---- */

/* Word k of lane n among the `words` of a tap; where a panel has groups, word k stands in place k of its group (or of
 * each so many channels of it), in the row that says how far n is from there. */
static size_t place_in_tap(const struct node *node, uint32_t nr, size_t words, uint32_t n, size_t k) {
    bool has_groups = node->groups > 1 && node_group_inputs(node) < nr;
    return has_groups ? (k ^ n % words) * nr + n / words * words + k : k * nr + n;
}

/* Place of (channel c; i, j, k) in panels of nr channels; the bias of a panel comes first. */
static size_t place_of(const struct node *node, uint32_t nr, uint32_t c, uint32_t i, uint32_t j, uint32_t k) {
    size_t inputs = node_group_inputs(node), rows = 1 + (size_t)node->kernel * node->kernel * inputs;
    size_t row = 1 + ((size_t)i * node->kernel + j) * inputs;
    return (c / nr * rows + row) * nr + place_in_tap(node, nr, inputs, c % nr, k);
}

static size_t place_of_bias(const struct node *node, uint32_t nr, uint32_t c) {
    size_t rows = 1 + (size_t)node->kernel * node->kernel * node_group_inputs(node);
    return c / nr * rows * nr + c % nr;
}

static bool is_near(float actual, long double expected) {
    if (fabsl(expected) < (long double)FLT_MIN)
        return actual == 0 && !signbit(actual);
    return fabsl((long double)actual - expected) <= fabsl(expected) * HALF_ULP;
}

static void check_channel(const struct node *node, const float *block, uint32_t nr, const float *panels, uint32_t c) {
    struct parameters p = parameters_at(node, block);
    long double factor = 1, offset = p.shift[c];
    if (node->op == OP_CONV) {
        factor = p.scale[c] / sqrtl((long double)p.variance[c] + 1e-5L);
        offset = p.shift[c] - factor * p.mean[c];
    }
    /* The difference may cancel, so it is as exact as its terms in double. */
    long double slack = (fabsl(factor * (p.mean ? p.mean[c] : 0)) + fabsl(offset)) * 0x1p-50L;
    float bias = panels[place_of_bias(node, nr, c)];
    assert_true(fabsl(bias - offset) <= fabsl(offset) * HALF_ULP + slack);
    for (uint32_t i = 0; i < node->kernel; i++)
        for (uint32_t j = 0; j < node->kernel; j++)
            for (uint32_t k = 0; k < node_group_inputs(node); k++) {
                size_t from = (((size_t)c * node_group_inputs(node) + k) * node->kernel + i) * node->kernel + j;
                assert_true(is_near(panels[place_of(node, nr, c, i, j, k)], p.weight[from] * factor));
            }
}

/* Fold a copy of the block; free what comes back. */
static float *fold_copy(const struct node *node, const float *block, double epsilon, struct layer *layer,
                        resnet_status expected) {
    size_t size = parameters_size(node);
    float *copy = malloc(size * sizeof *copy);
    resnet_error error;
    assert_non_null(copy);
    memcpy(copy, block, size * sizeof *copy);
    assert_status(expected, fold(node, copy, epsilon, layer, &error), &error);
    return copy;
}

static float *new_panels(const struct node *node, enum format format, uint32_t nr) {
    size_t size = panels_size(node, format, nr);
    float *panels = malloc((size + 1) * sizeof *panels);
    assert_non_null(panels);
    for (size_t i = 0; i <= size; i++)
        panels[i] = -77; /* so that what is not written shows, and what is written beyond */
    return panels;
}

static float *pack_layer(const struct node *node, const struct layer *layer, enum format format, uint32_t nr) {
    float *panels = new_panels(node, format, nr);
    resnet_error error;
    assert_status(RESNET_OK, pack_panels(node, layer, format, nr, panels, &error), &error);
    assert_true(panels[panels_size(node, format, nr)] == -77);
    return panels;
}

static float *pack(const struct node *node, const float *block, uint32_t nr) {
    struct layer layer;
    float *copy = fold_copy(node, block, 1e-5, &layer, RESNET_OK);
    float *panels = pack_layer(node, &layer, FORMAT_F32, nr);
    free(copy);
    return panels;
}

static void check_node(const struct node *node, uint32_t nr, struct test_random *random) {
    float *block = random_block(node, random), *panels = pack(node, block, nr);
    size_t rows = 1 + (size_t)node->kernel * node->kernel * node_group_inputs(node);
    uint32_t columns = (node->out.channels + nr - 1) / nr * nr;
    assert_int_equal(panels_size(node, FORMAT_F32, nr), columns * rows);
    for (uint32_t c = 0; c < node->out.channels; c++)
        check_channel(node, block, nr, panels, c);
    for (uint32_t c = node->out.channels; c < columns; c++) /* a narrow last panel */
        for (size_t row = 0; row < rows; row++)
            assert_true(panels[(c / nr * rows + row) * nr + c % nr] == 0);
    free(panels);
    free(block);
}

/* ---- Tests ---- */

static void test_against_the_formula(void **state) {
    (void)state;
    static const uint32_t kernels[] = {1, 3, 7}, widths[] = {1, 4, 8, 12, 16, 32};
    struct test_random random = {1};
    for (int i = 0; i < 400; i++) {
        uint32_t kernel = kernels[test_below(&random, 3)];
        struct node node = conv_node(test_between(&random, 1, 20), test_between(&random, 1, 70), kernel);
        check_node(&node, widths[test_below(&random, COUNT(widths))], &random);
        node = linear_node(test_between(&random, 1, 100), test_between(&random, 1, 70));
        check_node(&node, widths[test_below(&random, COUNT(widths))], &random);
    }
}

/* What a network may have, in panels narrower and wider than a group. */
static const struct {
    uint32_t width, nr;
} group_shapes[] = {{4, 4}, {4, 8}, {4, 16}, {8, 4}, {8, 8}, {8, 16}, {16, 4}, {16, 8}, {16, 16}, {48, 16}, {32, 32}};

static void test_groups(void **state) {
    (void)state;
    struct test_random random = {10};
    for (uint32_t i = 0; i < 20 * COUNT(group_shapes); i++) {
        uint32_t width = group_shapes[i % COUNT(group_shapes)].width, nr = group_shapes[i % COUNT(group_shapes)].nr;
        struct node node = grouped_node(test_between(&random, 2, 7), width, 1 + 2 * test_below(&random, 2));
        check_node(&node, nr, &random);
    }
}

static void test_panels_for_kernels(void **state) {
    (void)state;
    static const struct {
        uint32_t groups, width, channels; /* of a panel, for kernels of 32 and 16 channels a tile */
    } cases[] = {{1, 4, 32}, {1, 48, 32}, {2, 4, 16}, {2, 16, 16}, {2, 48, 16}, {2, 32, 32}, {2, 96, 32}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct node node = grouped_node(cases[i].groups, cases[i].width, 3);
        const struct format_kernels kernels = {.nr = 32, .group_nr = 16};
        assert_int_equal(panel_channels(&node, &kernels), cases[i].channels);
        assert_int_equal(takes_group_tile(&node, &kernels), cases[i].channels == 16);
    }
}

static void test_edges_of_panels(void **state) {
    (void)state;
    struct test_random random = {2};
    for (uint32_t out = 1; out <= 50; out++) {
        struct node node = conv_node(3, out, 3);
        check_node(&node, 16, &random);
    }
}

static void test_sizes_and_places(void **state) {
    (void)state;
    struct node conv = conv_node(5, 7, 3), linear = linear_node(11, 13);
    struct node pool = {.op = OP_MAXPOOL, .kernel = 3, .groups = 1, .in = {1, 1, 5}, .out = {1, 1, 5}};
    float block[5 * 7 * 9 + 4 * 7];
    assert_int_equal(parameters_size(&conv), COUNT(block));
    struct parameters p = parameters_at(&conv, block);
    assert_ptr_equal(p.weight, block);
    assert_ptr_equal(p.scale, block + 315);
    assert_ptr_equal(p.shift, block + 322);
    assert_ptr_equal(p.mean, block + 329);
    assert_ptr_equal(p.variance, block + 336);
    assert_int_equal(parameters_size(&linear), 11 * 13 + 13);
    p = parameters_at(&linear, block);
    assert_ptr_equal(p.shift, block + 143);
    assert_true(!p.scale && !p.mean && !p.variance);
    assert_int_equal(parameters_size(&pool), 0);
    assert_int_equal(panels_size(&pool, FORMAT_F32, 16), 0);
}

/* A weight, a bias and a product of factors that are denormal floats become zeros; the smallest normal ones stay. */
static void test_denormals_are_flushed(void **state) {
    (void)state;
    static const float weights[] = {FLT_MIN, FLT_MIN / 2, -FLT_MIN / 2, 1e-45F, -FLT_MIN, FLT_MIN * 1.5F, 0, -1e-40F};
    struct node node = conv_node(COUNT(weights), 1, 1);
    float block[COUNT(weights) + 4];
    struct layer layer;
    memcpy(block, weights, sizeof weights);
    float *scale = block + COUNT(weights), *shift = scale + 1, *mean = scale + 2, *variance = scale + 3;
    *scale = *variance = 1;
    *shift = FLT_MIN / 4;
    *mean = 0;
    float *folded = fold_copy(&node, block, 0, &layer, RESNET_OK);
    assert_true(layer.bias[0] == 0);
    for (size_t i = 0; i < COUNT(weights); i++)
        assert_true(layer.weight[i] == (fabsf(weights[i]) < FLT_MIN ? 0 : weights[i]));
    free(folded);
    *variance = 4; /* halves the weights: only 1.5 and more would stay */
    folded = fold_copy(&node, block, 0, &layer, RESNET_OK);
    for (size_t i = 0; i < COUNT(weights); i++)
        assert_true(layer.weight[i] == 0);
    free(folded);
}

static void test_without_denormals(void **state) {
    (void)state;
    static const struct {
        double in;
        float out;
    } cases[] = {
        {0, 0},
        {1, 1},
        {-3.5, -3.5F},
        {0.1, 0.1F},
        {0x1p-126, 0x1p-126F},
        {-0x1p-126, -0x1p-126F},
        {0x1.fffffffp-127, 0x1p-126F}, /* its nearest float is the smallest normal one */
        {0x1.fffffdp-127, 0},
        {0x1p-149, 0},
        {-0x1p-140, 0},
        {1e300, INFINITY},
        {-1e300, -INFINITY},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_true(without_denormals(cases[i].in) == cases[i].out);
    assert_true(isnan(without_denormals(NAN)));
}

/* Folded in float, most of these would be off by an ulp; and 1e-30 beside 1e30 would vanish or overflow. */
static void test_folding_is_done_in_double(void **state) {
    (void)state;
    struct node node = conv_node(1, 1, 1);
    struct layer layer;
    float block[5] = {1e-30F, 1e30F, 5, 0, 1e-38F};
    float *folded = fold_copy(&node, block, 1e-10, &layer, RESNET_OK);
    assert_true(is_near(layer.weight[0], 1e-30F * (1e30F / sqrtl(1e-38F + 1e-10L))));
    free(folded);
    float cancelling[5] = {1, 1, 16777216, 16777215, 1}; /* shift - mean = 1 */
    folded = fold_copy(&node, cancelling, 0, &layer, RESNET_OK);
    assert_true(layer.bias[0] == 1);
    free(folded);
}

static void test_not_finite(void **state) {
    (void)state;
    static const struct {
        float weight, scale, shift, mean, variance;
        bool fine;
    } cases[] = {
        {1, 1, 1, 1, 1, true},
        {FLT_MAX, 1, 0, 0, 1, true},
        {FLT_MAX, 2, 0, 0, 1, false},       /* the weight overflows */
        {-2, FLT_MAX, 0, 0, 1, false},      /* and below */
        {0, FLT_MAX, 0, FLT_MAX, 1, false}, /* the offset */
        {1, 1, 0, 0, 0, false},             /* divided by zero, since epsilon is 0 here */
        {0, 1, 1, 0, 0, false},             /* 0 * inf */
        {1, 1, NAN, 0, 1, false},
        {0, 1e30F, FLT_MAX, -1e-10F, 1, true},
    };
    struct node node = conv_node(1, 1, 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        float block[5] = {cases[i].weight, cases[i].scale, cases[i].shift, cases[i].mean, cases[i].variance};
        struct layer layer;
        free(fold_copy(&node, block, 0, &layer, cases[i].fine ? RESNET_OK : RESNET_ERROR_MODEL));
    }
}

static void test_all_finite(void **state) {
    (void)state;
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    float values[100];
    for (size_t i = 0; i < COUNT(values); i++)
        values[i] = i % 3 == 0 ? -FLT_MAX : i % 3 == 1 ? 0x1p-149F : -0.0F;
    assert_true(all_finite(values, COUNT(values)) && all_finite(values, 0));
    for (size_t i = 0; i < COUNT(values); i++)
        for (size_t k = 0; k < COUNT(bad); k++) {
            float before = values[i];
            values[i] = bad[k];
            assert_false(all_finite(values, COUNT(values)));
            assert_true(all_finite(values, i));
            values[i] = before;
        }
}

/* ---- bf16 ---- */

static void test_rounding_to_bf16(void **state) {
    (void)state;
    static const struct {
        float in, out;
    } cases[] = {
        {0, 0},
        {1, 1},
        {-0x1.02p0F, -0x1.02p0F},
        {0x1.01p0F, 1},             /* half way: to even, below */
        {0x1.03p0F, 0x1.04p0F},     /* and above */
        {0x1.010002p0F, 0x1.02p0F}, /* just over */
        {0x1.00fffep0F, 1},
        {0x1.fffffep9F, 0x1p10F},
        {FLT_MIN, FLT_MIN},
        {FLT_MIN / 2, 0},
        {FLT_MAX, INFINITY},
        {-0x1.fep127F, -0x1.fep127F}, /* the largest */
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        float value = cases[i].in;
        round_to_bf16(&value, 1);
        assert_true(value == cases[i].out);
    }
    struct test_random random = {5};
    for (int i = 0; i < 100000; i++) { /* as the conversion of activations */
        uint32_t bits = (uint32_t)test_u64(&random);
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isnan(value))
            continue;
        float expected = bf16_to_float(bf16_from_float(value));
        round_to_bf16(&value, 1);
        assert_memory_equal(&value, &expected, sizeof value);
    }
}

/* ---- Panels of bf16 and int8 ---- */

/* The number of (channel c; i, j, k) in panels of words with `numbers` numbers each, behind `heads` rows. */
static size_t number_of(const struct node *node, uint32_t nr, uint32_t numbers, uint32_t heads, uint32_t c,
                        const uint32_t ijk[3]) {
    size_t words = (node_group_inputs(node) + numbers - 1) / numbers;
    size_t rows = heads + words * node->kernel * node->kernel;
    size_t row = heads + (ijk[0] * (size_t)node->kernel + ijk[1]) * words;
    size_t word = (c / nr * rows + row) * nr + place_in_tap(node, nr, words, c % nr, ijk[2] / numbers);
    return word * numbers + ijk[2] % numbers;
}

/* Every number of the panels that is no weight of `format` is 0; the weights are as `weight` says. */
static void check_numbers(const struct node *node, const struct layer *layer, enum format format, uint32_t nr,
                          const float *panels) {
    uint32_t numbers = word_numbers(format), heads = format == FORMAT_U8 ? 2 : 1, area = node->kernel * node->kernel;
    uint32_t whole_in = (node_group_inputs(node) + numbers - 1) / numbers * numbers;
    uint32_t whole_out = (node->out.channels + nr - 1) / nr * nr;
    for (uint32_t c = 0; c < whole_out; c++)
        for (uint32_t tap = 0; tap < area; tap++)
            for (uint32_t k = 0; k < whole_in; k++) {
                bool inside = c < node->out.channels && k < node_group_inputs(node);
                size_t from = ((size_t)c * node_group_inputs(node) + k) * area + tap;
                size_t at =
                    number_of(node, nr, numbers, heads, c, (uint32_t[]){tap / node->kernel, tap % node->kernel, k});
                if (format == FORMAT_U8)
                    assert_int_equal(((const int8_t *)panels)[at], inside ? layer->integers[from] : 0);
                else
                    assert_int_equal(((const uint16_t *)panels)[at], inside ? bf16_from_float(layer->weight[from]) : 0);
            }
}

static void check_other_formats(const struct node *node, uint32_t nr, struct test_random *random) {
    size_t count = (size_t)node_weights(node), out = node->out.channels;
    float *weight = malloc(count * sizeof *weight), *bias = malloc(out * sizeof *bias);
    float *scale = malloc(out * sizeof *scale);
    int8_t *integers = malloc(count);
    assert_true(weight && bias && scale && integers);
    for (size_t i = 0; i < count; i++) {
        weight[i] = test_float(random, -2, 2);
        integers[i] = (int8_t)((int)test_below(random, 256) - 128);
    }
    for (size_t c = 0; c < out; c++) {
        bias[c] = test_float(random, -2, 2);
        scale[c] = test_float(random, 0.001F, 1);
    }
    struct layer layer = {weight, bias, integers, scale, 0.5F, 0.25F};
    float *panels = pack_layer(node, &layer, FORMAT_BF16, nr);
    check_numbers(node, &layer, FORMAT_BF16, nr, panels);
    for (uint32_t c = 0; c < out; c++)
        assert_true(panels[c / nr * panel_size(node, FORMAT_BF16, nr) + c % nr] == bias[c]);
    free(panels);
    panels = pack_layer(node, &layer, FORMAT_U8, nr);
    check_numbers(node, &layer, FORMAT_U8, nr, panels);
    for (uint32_t c = 0; c < out; c++) {
        const float *head = panels + c / nr * panel_size(node, FORMAT_U8, nr) + c % nr;
        int32_t whole;
        memcpy(&whole, head, sizeof whole);
        assert_true((double)whole == rint((double)bias[c] / (0.5 * (double)scale[c])));
        assert_true(head[nr] == (float)(0.5 * (double)scale[c] / 0.25));
    }
    free(panels);
    free(weight);
    free(bias);
    free(scale);
    free(integers);
}

static void test_panels_of_other_formats(void **state) {
    (void)state;
    static const uint32_t kernels[] = {1, 3, 7}, widths[] = {4, 8, 16, 32};
    struct test_random random = {6};
    for (uint32_t i = 0; i < 300; i++) {
        struct node node =
            conv_node(test_between(&random, 1, 90), test_between(&random, 1, 70), kernels[test_below(&random, 3)]);
        check_other_formats(&node, widths[test_below(&random, 4)], &random);
        node = grouped_node(test_between(&random, 2, 7), group_shapes[i % COUNT(group_shapes)].width, 3);
        check_other_formats(&node, group_shapes[i % COUNT(group_shapes)].nr, &random);
    }
}

static void test_ranges_of_int8(void **state) {
    (void)state;
    static const struct {
        float bias, scale, input, output;
        bool fine;
    } cases[] = {
        {1, 1, 1, 1, true},
        {0x1.fffffep29F, 1, 1, 1, true},
        {0x1p30F, 1, 1, 1, false}, /* does not fit */
        {-0x1p30F, 1, 1, 1, false},
        {1, 0x1p-15F, 0x1p-15F, 1, false},
        {0, 0x1p30F, 0x1p29F, 1, true},
        {0, 0x1p30F, 0x1p30F, 1, false}, /* more units of the output than a float should have to hold */
        {0, 0x1p20F, 0x1p20F, 0x1p-20F, false},
        {0, FLT_MIN, 0x1p-40F, 0x1p40F, true}, /* all of it is 0 */
    };
    struct node node = conv_node(1, 1, 1);
    int8_t integer = 1;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct layer layer = {NULL, &cases[i].bias, &integer, &cases[i].scale, cases[i].input, cases[i].output};
        float panels[12];
        resnet_error error;
        resnet_status status = pack_panels(&node, &layer, FORMAT_U8, 4, panels, &error);
        assert_status(cases[i].fine ? RESNET_OK : RESNET_ERROR_MODEL, status, &error);
    }
}

static void test_quantizing(void **state) {
    (void)state;
    struct test_random random = {8};
    for (int round = 0; round < 200; round++) {
        struct node node = conv_node(test_between(&random, 1, 20), test_between(&random, 1, 20), 3);
        size_t count = (size_t)node_weights(&node), filter = count / node.out.channels;
        float *weight = malloc(count * sizeof *weight), *scale = malloc(node.out.channels * sizeof *scale);
        int8_t *integers = malloc(count);
        assert_true(weight && scale && integers);
        float size = ldexpf(1, (int)test_between(&random, 0, 200) - 100);
        for (size_t i = 0; i < count; i++)
            weight[i] = size * test_float(&random, -1, 1);
        quantize_weights(&node, weight, integers, scale);
        for (uint32_t c = 0; c < node.out.channels; c++) {
            int largest = 0;
            for (size_t i = c * filter; i < (c + 1) * filter; i++) {
                assert_int_equal(integers[i], (int)rintf(weight[i] / scale[c]));
                largest = abs(integers[i]) > largest ? abs(integers[i]) : largest;
            }
            assert_int_equal(largest, 127);
        }
        free(weight);
        free(scale);
        free(integers);
    }
}

static void test_quantizing_nothing(void **state) {
    (void)state;
    static const float weight[] = {0, -0.0F, 100 * FLT_MIN, -FLT_MIN, -1, 0.5F}; /* a channel of each kind */
    struct node node = conv_node(2, 3, 1);
    int8_t integers[6];
    float scale[3];
    quantize_weights(&node, weight, integers, scale);
    assert_true(scale[0] == 1 && scale[1] == 1 && scale[2] == 1.0F / 127);
    assert_memory_equal(integers, ((int8_t[]){0, 0, 0, 0, -127, 64}), 6);
}

/* ---- Back from panels ---- */

/* What a format makes of a layer's weight i, of output channel c. */
static float kept_weight(const struct layer *layer, enum format format, size_t i, uint32_t c) {
    if (format == FORMAT_U8)
        return layer->scale[c] * (float)layer->integers[i];
    return format == FORMAT_BF16 ? bf16_to_float(bf16_from_float(layer->weight[i])) : layer->weight[i];
}

/* Weights to the bit, but for int8's scale, which is rounded once in the panel, once in the product there and once
 * here; its bias to half of a unit of the products. */
static void check_unpacked(const struct node *node, const struct layer *layer, const struct packed *packed) {
    size_t filter = node_filter(node);
    float *weight = malloc((filter + 1) * sizeof *weight);
    assert_non_null(weight);
    bool is_u8 = packed->format == FORMAT_U8;
    for (uint32_t c = 0; c < node->out.channels; c++) {
        weight[filter] = -77;
        float bias = unpack_channel(packed, c, weight);
        for (size_t i = 0; i < filter; i++) {
            float expected = kept_weight(layer, packed->format, c * filter + i, c);
            assert_true(fabsf(weight[i] - expected) <= (is_u8 ? 0x1.8p-23F * fabsf(expected) : 0));
        }
        float unit = is_u8 ? layer->input * layer->scale[c] : 0;
        assert_true(fabsf(bias - layer->bias[c]) <= unit * 0.50001F);
        assert_true(weight[filter] == -77);
    }
    free(weight);
}

static void check_round_trips(const struct node *node, uint32_t nr, struct test_random *random) {
    size_t count = (size_t)node_weights(node), out = node->out.channels;
    float *floats = malloc((count + 2 * out) * sizeof *floats);
    int8_t *integers = malloc(count);
    assert_true(floats && integers);
    for (size_t i = 0; i < count + 2 * out; i++)
        floats[i] = i < count + out ? test_float(random, -2, 2) : test_float(random, 0.001F, 1);
    for (size_t i = 0; i < count; i++)
        integers[i] = (int8_t)((int)test_below(random, 256) - 128);
    struct layer layer = {floats, floats + count, integers, floats + count + out, 0.3F, 0.7F};
    for (enum format format = FORMAT_F32; format < FORMATS; format++) {
        float *panels = pack_layer(node, &layer, format, nr);
        struct packed packed = {node, format, nr, panels, layer.input, layer.output};
        check_unpacked(node, &layer, &packed);
        free(panels);
    }
    free(floats);
    free(integers);
}

static void test_unpacking(void **state) {
    (void)state;
    static const uint32_t kernels[] = {1, 3, 7}, widths[] = {4, 8, 16, 32};
    struct test_random random = {10};
    for (int round = 0; round < 100; round++) {
        uint32_t kernel = kernels[test_below(&random, 3)];
        struct node node = conv_node(test_between(&random, 1, 40), test_between(&random, 1, 70), kernel);
        check_round_trips(&node, widths[test_below(&random, 4)], &random);
        node = linear_node(test_between(&random, 1, 100), test_between(&random, 1, 70));
        check_round_trips(&node, widths[test_below(&random, 4)], &random);
    }
}

/* ---- Winograd's filters ---- */

typedef const long double filter_transform[6][3];

static filter_transform to_6 = {
    {1 / 4.0L, 0, 0},
    {-1 / 6.0L, -1 / 6.0L, -1 / 6.0L},
    {-1 / 6.0L, 1 / 6.0L, -1 / 6.0L},
    {1 / 24.0L, 1 / 12.0L, 1 / 6.0L},
    {1 / 24.0L, -1 / 12.0L, 1 / 6.0L},
    {0, 0, 1},
};
static filter_transform to_4 = {
    {1, 0, 0},
    {1 / 4.0L, 1 / 4.0L, 1 / 4.0L},
    {1 / 4.0L, -1 / 4.0L, 1 / 4.0L},
    {0, 0, 1},
};

/* (G g H')[i][j], and the sum of its terms' magnitudes, of which a double keeps 2^-50. */
static long double transformed(const long double G[3], const long double H[3], const float *g, long double *slack) {
    long double sum = 0;
    *slack = 0;
    for (uint32_t a = 0; a < 3; a++)
        for (uint32_t b = 0; b < 3; b++) {
            long double term = G[a] * (long double)g[3 * a + b] * H[b];
            sum += term;
            *slack += fabsl(term) * 0x1p-50L;
        }
    return sum;
}

/* `height` x `width` elements of each filter, of which there are so many that they get those. */
static void check_winograd_filters(uint32_t out, uint32_t height, uint32_t width) {
    const uint32_t nr = 8, in = 16;
    const long double(*G)[3] = height == 6 ? to_6 : to_4, (*H)[3] = width == 6 ? to_6 : to_4;
    struct node node = conv_node(in, out, 3);
    struct test_random random = {9};
    float *block = random_block(&node, &random);
    struct layer layer;
    float *folded = fold_copy(&node, block, 1e-5, &layer, RESNET_OK);
    float *panels = pack_layer(&node, &layer, FORMAT_F32, nr);
    size_t size = winograd_size(&node, nr), panel = panel_size(&node, FORMAT_F32, nr);
    float *packed = malloc(size * sizeof *packed);
    assert_non_null(packed);
    memset(packed, 0xff, size * sizeof *packed);
    for (uint32_t p = 0; p < out / nr; p += 2) /* two panels at a time */
        winograd_pack(&node, panels + p * panel, (struct span){p, p + 2}, nr, packed);
    for (uint32_t c = 0; c < out; c++) {
        assert_true(packed[c] == layer.bias[c]);
        for (uint32_t e = 0; e < height * width; e++) {
            const float *column = packed + out + ((size_t)e * (out / nr) + c / nr) * (1 + in) * nr + c % nr;
            assert_true(column[0] == 0);
            for (uint32_t k = 0; k < in; k++) {
                const float *g = layer.weight + ((size_t)c * in + k) * 9;
                long double slack, expected = transformed(G[e / width], H[e % width], g, &slack);
                assert_true(fabsl(column[(1 + k) * nr] - expected) <= fabsl(expected) * HALF_ULP + slack);
            }
        }
    }
    free(packed);
    free(panels);
    free(folded);
    free(block);
}

static void test_winograd_filters(void **state) {
    (void)state;
    check_winograd_filters(32, 6, 6);
    check_winograd_filters(1024, 6, 6);
    check_winograd_filters(1040, 6, 4);
    check_winograd_filters(4096, 6, 4);
    check_winograd_filters(4112, 4, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_formula),
        cmocka_unit_test(test_edges_of_panels),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_panels_for_kernels),
        cmocka_unit_test(test_sizes_and_places),
        cmocka_unit_test(test_denormals_are_flushed),
        cmocka_unit_test(test_without_denormals),
        cmocka_unit_test(test_folding_is_done_in_double),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_all_finite),
        cmocka_unit_test(test_rounding_to_bf16),
        cmocka_unit_test(test_panels_of_other_formats),
        cmocka_unit_test(test_ranges_of_int8),
        cmocka_unit_test(test_quantizing),
        cmocka_unit_test(test_quantizing_nothing),
        cmocka_unit_test(test_unpacking),
        cmocka_unit_test(test_winograd_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
