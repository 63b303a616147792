/*
 * test_reference.c - the reference executor, which all else is tested against, held against numbers that were worked
 * out by hand.
 */
#include "reference.h"

#include <math.h>
#include <string.h>

#include "support.h"

#define ROOM 256 /* floats of each tensor */

/* ---- Run one node ---- */

static struct node node_over(struct shape in, struct conv conv, enum op op) {
    struct node nodes[2];
    struct graph graph = {.nodes = nodes, .capacity = COUNT(nodes)};
    uint32_t input = graph_input(&graph, in);
    if (op == OP_CONV)
        graph_conv(&graph, input, conv, "conv");
    else if (op == OP_MAXPOOL)
        graph_maxpool(&graph, input, conv.kernel, conv.stride);
    else if (op == OP_GLOBAL_AVGPOOL)
        graph_global_avgpool(&graph, input, "avgpool");
    else
        graph_linear(&graph, input, conv.channels, "fc");
    return nodes[1];
}

static struct tensor dense(struct shape shape, size_t start) {
    size_t row = (size_t)shape.width * shape.channels, image = row * shape.height;
    assert_true(image <= ROOM);
    return (struct tensor){.shape = shape,
                           .pixel = shape.channels,
                           .row = row,
                           .image = image,
                           .start = start,
                           .size = image,
                           .origin = start};
}

struct example {
    struct node node;
    const float *parameters; /* as in a model file */
    const float *x, *residual;
    const float *y; /* wanted */
    uint32_t images;
    float epsilon;
};

/* All examples are of numbers whose sums, quotients and roots are exact. */
static void check(const struct example *e) {
    float arena[3 * ROOM] = {0}, logits[ROOM];
    struct tensor in = dense(e->node.in, 0), residual = dense(e->node.out, ROOM), out = dense(e->node.out, 2 * ROOM);
    memcpy(arena, e->x, e->images * in.image * sizeof(float));
    if (e->residual)
        memcpy(arena + ROOM, e->residual, e->images * out.image * sizeof(float));
    bool linear = e->node.op == OP_LINEAR;
    struct step step = {.node = &e->node,
                        .input = &in,
                        .output = &out,
                        .residual = e->residual ? &residual : NULL,
                        .panels = e->parameters,
                        .arena = arena,
                        .logits = linear ? logits : NULL,
                        .images = e->images};
    reference_execute(&step, e->epsilon);
    const float *y = linear ? logits : arena + 2 * ROOM;
    for (size_t i = 0; i < e->images * out.image; i++) {
        if (y[i] != e->y[i])
            print_error("value %zu: %g, not %g\n", i, (double)y[i], (double)e->y[i]);
        assert_true(y[i] == e->y[i]);
    }
}

/* ---- Convolution ---- */

/* The counting image and the counting filter. The first output: 1*5 + 2*6 + 5*8 + 6*9 = 111, its neighbour:
 * 1*4 + 2*5 + 3*6 + 5*7 + 6*8 + 7*9 = 178. */
static const float counting[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const float counting_filter[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, /* batch norm */ 1, 0, 0, 1};

static void test_3x3(void **state) {
    (void)state;
    static const float y[] = {111, 178, 217, 145, 231, 348, 393, 252, 363, 528, 573, 360, 197, 274, 295, 175};
    static const float strided[] = {111, 217, 363, 573};
    struct shape in = {4, 4, 1};
    check(&(struct example){.node = node_over(in, (struct conv){1, 3, 1, NO_NODE, false, 1, 1}, OP_CONV),
                            .parameters = counting_filter,
                            .x = counting,
                            .y = y,
                            .images = 1});
    check(&(struct example){.node = node_over(in, (struct conv){1, 3, 2, NO_NODE, false, 1, 1}, OP_CONV),
                            .parameters = counting_filter,
                            .x = counting,
                            .y = strided,
                            .images = 1});
}

/* One pixel sees the middle of the filter, two in a row its middle and one side. */
static void test_3x3_on_almost_nothing(void **state) {
    (void)state;
    static const float y[] = {10, 2 * 5 + 3 * 6, 2 * 4 + 3 * 5};
    struct conv conv = {1, 3, 1, NO_NODE, false, 1, 1};
    check(&(struct example){.node = node_over((struct shape){1, 1, 1}, conv, OP_CONV),
                            .parameters = counting_filter,
                            .x = (float[]){2},
                            .y = y,
                            .images = 1});
    check(&(struct example){.node = node_over((struct shape){1, 2, 1}, conv, OP_CONV),
                            .parameters = counting_filter,
                            .x = (float[]){2, 3},
                            .y = y + 1,
                            .images = 1});
}

/* Two channels to three, [out][in]; two images of one row of two pixels. */
static void test_1x1(void **state) {
    (void)state;
    static const float parameters[] = {1, 10, 2, 20, 3, 30, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1};
    static const float x[] = {1, 2, 3, 4, /* second image */ 5, 6, 7, 8};
    static const float y[] = {21, 42, 63, 43, 86, 129, 65, 130, 195, 87, 174, 261};
    check(&(struct example){
        .node = node_over((struct shape){1, 2, 2}, (struct conv){3, 1, 1, NO_NODE, false, 1, 1}, OP_CONV),
        .parameters = parameters,
        .x = x,
        .y = y,
        .images = 2});
}

/* Filters that hold a single one move the map: output 0 is input channel 1 from the lower left, output 1 is input
 * channel 0 from above. */
static void test_order_of_weights(void **state) {
    (void)state;
    float parameters[2 * 2 * 9 + 8] = {
        [0 * 18 + 1 * 9 + 6] = 1, [1 * 18 + 0 * 9 + 1] = 1, [36] = 1, [37] = 1, [42] = 1, [43] = 1};
    static const float x[] = {1, 10, 2, 20, 3, 30, 4, 40}; /* 1 2 / 3 4 in channel 0, ten times that in channel 1 */
    static const float y[] = {0, 0, 30, 0, 0, 1, 0, 2};
    check(&(struct example){
        .node = node_over((struct shape){2, 2, 2}, (struct conv){2, 3, 1, NO_NODE, false, 1, 1}, OP_CONV),
        .parameters = parameters,
        .x = x,
        .y = y,
        .images = 1});
}

/* The stem, 7x7 with stride 2: a single one in its upper right corner takes the pixel 3 above and 3 to the right. */
static void test_7x7(void **state) {
    (void)state;
    float parameters[49 + 4] = {[6] = 1, [49] = 1, [52] = 1};
    static const float x[25] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
                                14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25};
    static const float y[] = {0, 0, 0, 0, 0, 0, 9, 0, 0}; /* output (2, 0) takes input (4 - 3, 0 + 3) */
    check(&(struct example){
        .node = node_over((struct shape){5, 5, 1}, (struct conv){1, 7, 2, NO_NODE, false, 1, 1}, OP_CONV),
        .parameters = parameters,
        .x = x,
        .y = y,
        .images = 1});
}

/* (x - mean) / sqrt(variance + epsilon) * scale + shift: (3 - 1) / sqrt(4) * 10 + 5 and (3 - 5) / sqrt(15 + 1) * -2. */
static void test_batch_norm(void **state) {
    (void)state;
    static const float parameters[] = {1, 1, /* scale */ 10, -2, /* shift */ 5, 0, /* mean */ 1, 5, /* variance */ 3,
                                       15};
    check(&(struct example){
        .node = node_over((struct shape){1, 1, 1}, (struct conv){2, 1, 1, NO_NODE, false, 1, 1}, OP_CONV),
        .parameters = parameters,
        .x = (float[]){3},
        .y = (float[]){15, 1},
        .images = 1,
        .epsilon = 1});
}

/* The residual is added behind batch normalisation and before the ReLU. */
static void test_residual_and_relu(void **state) {
    (void)state;
    static const float parameters[] = {2, /* batch norm */ 1, -4, 0, 1}; /* 2 x - 4 */
    static const float x[] = {1, 2, 3}, residual[] = {-1, 1, -5};
    static const float sums[] = {-3, 1, -3}, rectified[] = {0, 1, 0}, alone[] = {0, 0, 2};
    struct shape in = {1, 3, 1};
    struct example e = {.parameters = parameters, .x = x, .residual = residual, .y = sums, .images = 1};
    e.node = node_over(in, (struct conv){1, 1, 1, 0, false, 1, 1}, OP_CONV);
    check(&e);
    e.y = rectified;
    e.node = node_over(in, (struct conv){1, 1, 1, 0, true, 1, 1}, OP_CONV);
    check(&e);
    e.y = alone;
    e.residual = NULL;
    check(&e);
}

static void test_relu_keeps_nan(void **state) {
    (void)state;
    static const float parameters[] = {1, 1, 0, 0, 1};
    float arena[2] = {NAN, 0};
    struct node node = node_over((struct shape){1, 1, 1}, (struct conv){1, 1, 1, NO_NODE, true, 1, 1}, OP_CONV);
    struct tensor in = dense(node.in, 0), out = dense(node.out, 1);
    reference_execute(
        &(struct step){.node = &node, .input = &in, .output = &out, .panels = parameters, .arena = arena, .images = 1},
        0);
    assert_true(isnan(arena[1]));
}

/* Tensors with borders and gaps: a border is not read, since a window's outside is known without it. */
static void test_strides(void **state) {
    (void)state;
    float arena[2 * ROOM];
    for (size_t i = 0; i < COUNT(arena); i++)
        arena[i] = NAN;
    struct node node = node_over((struct shape){4, 4, 1}, (struct conv){1, 3, 2, NO_NODE, false, 1, 1}, OP_CONV);
    struct tensor in = {.shape = node.in, .border = 1, .pixel = 3, .row = 18, .image = 108, .origin = 21};
    struct tensor out = {.shape = node.out, .border = 1, .pixel = 2, .row = 8, .image = 32, .origin = ROOM + 10};
    for (size_t i = 0; i < 32; i++)
        arena[in.origin + i / 16 * in.image + i / 4 % 4 * in.row + i % 4 * in.pixel] = counting[i % 16];
    reference_execute(
        &(struct step){
            .node = &node, .input = &in, .output = &out, .panels = counting_filter, .arena = arena, .images = 2},
        0);
    static const float y[] = {111, 217, 363, 573};
    for (size_t i = 0; i < 8; i++)
        assert_true(arena[out.origin + i / 4 * out.image + i / 2 % 2 * out.row + i % 2 * out.pixel] == y[i % 4]);
}

/* ---- The rest ---- */

/* 3x3 with stride 2: what lies outside counts as less than anything, not as zero. */
static void test_max_pool(void **state) {
    (void)state;
    static const float x[] = {-9, -8, -7, -6, -5, -4, -3, -2, -1}, y[] = {-5, -4, -2, -1};
    static const float wide[] = {4, -1, 2, -7, 3, -9, 1, -2}; /* two channels, one row */
    static const float wide_y[] = {4, -1, 3, -2};
    struct conv pool = {0, 3, 2, NO_NODE, false, 1, 1};
    check(&(struct example){.node = node_over((struct shape){3, 3, 1}, pool, OP_MAXPOOL), .x = x, .y = y, .images = 1});
    check(&(struct example){
        .node = node_over((struct shape){1, 4, 2}, pool, OP_MAXPOOL), .x = wide, .y = wide_y, .images = 1});
    check(&(struct example){.node = node_over((struct shape){1, 1, 1}, pool, OP_MAXPOOL), .x = x, .y = x, .images = 1});
}

static void test_average_pool(void **state) {
    (void)state;
    static const float x[] = {1, 10, 2, 20, 3, 30, 6, 60, /* second image */ 4, 0, 4, 0, 4, 0, 4, -2};
    static const float y[] = {3, 30, 4, -0.5F};
    check(&(struct example){
        .node = node_over((struct shape){2, 2, 2}, (struct conv){0}, OP_GLOBAL_AVGPOOL), .x = x, .y = y, .images = 2});
}

/* weight [2][3], bias [2]; two images. */
static void test_linear(void **state) {
    (void)state;
    static const float parameters[] = {1, 2, 3, 4, 5, 6, /* bias */ 100, 200};
    static const float x[] = {1, 1, 1, 2, 0, -1}, y[] = {106, 215, 99, 202};
    check(&(struct example){.node = node_over((struct shape){1, 1, 3}, (struct conv){.channels = 2}, OP_LINEAR),
                            .parameters = parameters,
                            .x = x,
                            .y = y,
                            .images = 2});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_3x3),
        cmocka_unit_test(test_3x3_on_almost_nothing),
        cmocka_unit_test(test_1x1),
        cmocka_unit_test(test_order_of_weights),
        cmocka_unit_test(test_7x7),
        cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_residual_and_relu),
        cmocka_unit_test(test_relu_keeps_nan),
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_max_pool),
        cmocka_unit_test(test_average_pool),
        cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
