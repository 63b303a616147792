/* test_pack.c - folding and packing against the formulas, written out one number at a time. */
#include "pack.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* A float next to the true value: half an ulp, and the last bits of the double that it was rounded from. */
#define HALF_ULP (0x1p-24L * 1.000001L)

static struct node conv_node(uint32_t in, uint32_t out, uint32_t kernel) {
    return (struct node){
        .op = OP_CONV, .kernel = kernel, .in = {1, 1, in}, .out = {1, 1, out}, .residual = NO_NODE, .name = "conv"};
}

static struct node linear_node(uint32_t in, uint32_t out) {
    return (struct node){
        .op = OP_LINEAR, .kernel = 1, .in = {1, 1, in}, .out = {1, 1, out}, .residual = NO_NODE, .name = "fc"};
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

/* Place of (channel c; i, j, k) in panels of nr channels; the bias of a panel comes first. */
static size_t place_of(const struct node *node, uint32_t nr, uint32_t c, uint32_t i, uint32_t j, uint32_t k) {
    size_t rows = 1 + (size_t)node->kernel * node->kernel * node->in.channels;
    size_t row = 1 + ((size_t)i * node->kernel + j) * node->in.channels + k;
    return (c / nr * rows + row) * nr + c % nr;
}

static size_t place_of_bias(const struct node *node, uint32_t nr, uint32_t c) {
    size_t rows = 1 + (size_t)node->kernel * node->kernel * node->in.channels;
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
            for (uint32_t k = 0; k < node->in.channels; k++) {
                size_t from = (((size_t)c * node->in.channels + k) * node->kernel + i) * node->kernel + j;
                assert_true(is_near(panels[place_of(node, nr, c, i, j, k)], p.weight[from] * factor));
            }
}

static float *pack(const struct node *node, const float *block, uint32_t nr) {
    size_t size = panels_size(node, nr);
    float *panels = malloc((size + 1) * sizeof *panels);
    resnet_error error;
    assert_non_null(panels);
    for (size_t i = 0; i <= size; i++)
        panels[i] = -77; /* so that what is not written shows, and what is written beyond */
    assert_status(RESNET_OK, pack_panels(node, block, 1e-5, nr, panels, &error), &error);
    assert_true(panels[size] == -77);
    return panels;
}

static void check_node(const struct node *node, uint32_t nr, struct test_random *random) {
    float *block = random_block(node, random), *panels = pack(node, block, nr);
    size_t rows = 1 + (size_t)node->kernel * node->kernel * node->in.channels;
    uint32_t columns = (node->out.channels + nr - 1) / nr * nr;
    assert_int_equal(panels_size(node, nr), columns * rows);
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
    struct node pool = {.op = OP_MAXPOOL, .kernel = 3, .in = {1, 1, 5}, .out = {1, 1, 5}};
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
    assert_int_equal(panels_size(&pool, 16), 0);
}

/* A weight, a bias and a product of factors that are denormal floats become zeros; the smallest normal ones stay. */
static void test_denormals_are_flushed(void **state) {
    (void)state;
    static const float weights[] = {FLT_MIN, FLT_MIN / 2, -FLT_MIN / 2, 1e-45F, -FLT_MIN, FLT_MIN * 1.5F, 0, -1e-40F};
    struct node node = conv_node(COUNT(weights), 1, 1);
    float block[COUNT(weights) + 4], panels[COUNT(weights) + 1];
    memcpy(block, weights, sizeof weights);
    float *scale = block + COUNT(weights), *shift = scale + 1, *mean = scale + 2, *variance = scale + 3;
    *scale = *variance = 1;
    *shift = FLT_MIN / 4;
    *mean = 0;
    assert_int_equal(pack_panels(&node, block, 0, 1, panels, NULL), RESNET_OK);
    assert_true(panels[0] == 0);
    for (size_t i = 0; i < COUNT(weights); i++)
        assert_true(panels[1 + i] == (fabsf(weights[i]) < FLT_MIN ? 0 : weights[i]));
    *variance = 4; /* halves the weights: only 1.5 and more would stay */
    assert_int_equal(pack_panels(&node, block, 0, 1, panels, NULL), RESNET_OK);
    for (size_t i = 0; i < COUNT(weights); i++)
        assert_true(panels[1 + i] == 0);
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
        {0x1.fffffffp-127, 0}, /* a float would round it up to the smallest normal one */
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
    float block[5] = {1e-30F, 1e30F, 5, 0, 1e-38F}, panels[2];
    resnet_error error;
    assert_status(RESNET_OK, pack_panels(&node, block, 1e-10, 1, panels, &error), &error);
    assert_true(is_near(panels[1], 1e-30F * (1e30F / sqrtl(1e-38F + 1e-10L))));
    float cancelling[5] = {1, 1, 16777216, 16777215, 1}; /* shift - mean = 1 */
    assert_status(RESNET_OK, pack_panels(&node, cancelling, 0, 1, panels, &error), &error);
    assert_true(panels[0] == 1);
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
        float panels[2];
        resnet_error error;
        resnet_status status = pack_panels(&node, block, 0, 1, panels, &error);
        assert_status(cases[i].fine ? RESNET_OK : RESNET_ERROR_MODEL, status, &error);
    }
}

static void test_variance_is_not_negative(void **state) {
    (void)state;
    struct node conv = conv_node(1, 3, 1), linear = linear_node(1, 3);
    float block[15] = {0};
    resnet_error error;
    assert_status(RESNET_OK, parameters_check(&conv, block, &error), &error);
    block[14] = -0.0F;
    assert_status(RESNET_OK, parameters_check(&conv, block, &error), &error);
    block[14] = -1e-45F;
    assert_status(RESNET_ERROR_MODEL, parameters_check(&conv, block, &error), &error);
    assert_non_null(strstr(error.message, "conv variance: channel 2"));
    for (size_t i = 0; i < COUNT(block); i++)
        block[i] = -1;
    assert_status(RESNET_OK, parameters_check(&linear, block, &error), &error); /* which has none */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_formula), cmocka_unit_test(test_edges_of_panels),
        cmocka_unit_test(test_sizes_and_places),    cmocka_unit_test(test_denormals_are_flushed),
        cmocka_unit_test(test_without_denormals),   cmocka_unit_test(test_folding_is_done_in_double),
        cmocka_unit_test(test_not_finite),          cmocka_unit_test(test_variance_is_not_negative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
