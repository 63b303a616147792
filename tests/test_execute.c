/*
 * test_execute.c - whole layers through the fast executor, on every instruction set that this CPU has, against the
 * reference executor.
 *
 * A case is one node with tensors laid out at random as a plan might (borders, gaps between pixels, residual in place
 * or apart). It is split into parts that run in shuffled order over an output full of NaNs, and must come out the same
 * each time.
 */
#include "execute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "pack.h"
#include "reference.h"
#include "support.h"
#include "winograd.h"

#define UNIT       0x1p-24
#define EPSILON    1e-5F
#define MOST_PARTS 64
#define NOTHING    16 /* floats around each tensor that no one may touch */

static struct test_random generator;

static uint32_t pick(uint32_t low, uint32_t high) {
    return test_between(&generator, low, high);
}

/* ---- Memory ---- */

/* At a multiple of 64 bytes. */
static float *floats(size_t count) {
    float *memory = aligned_alloc(64, (count * sizeof *memory + 63) / 64 * 64);
    assert_non_null(memory);
    return memory;
}

static float *copy_of(const float *values, size_t count) {
    return memcpy(floats(count), values, count * sizeof *values);
}

/* NaNs that differ from place to place, so that one which was moved is found. */
static void poison(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = 0x7fc00001U + (uint32_t)(i % 0x3fff00);
        memcpy(values + i, &bits, sizeof bits);
    }
}

/* ---- A case ---- */

enum where { NO_RESIDUAL, APART, IN_PLACE };

/* What to lay out. Gaps and borders come on top of what the node needs. */
struct layer {
    struct node node; /* in, out, kernel, stride, pad as the graph builder sets them */
    uint32_t images;
    uint32_t in_border, in_gap, out_border, out_gap, residual_border;
    enum where residual;
    bool winograd; /* where it suits the node */
};

struct layer_case {
    struct layer layer;
    const struct kernel_set *set;
    struct tensor input, output;
    struct tensor residual;           /* apart; where it is used in place, the output starts as a copy of it */
    size_t floats;                    /* of the arena */
    float *arena;                     /* as it is before the node runs */
    float *parameters, *panels;       /* the node's tensors; the same, packed */
    float *logits;                    /* as it is before: for a linear node */
    float *scratch;                   /* for MOST_PARTS threads */
    size_t scratch_size, logit_count; /* floats a thread; floats of all images */
};

static bool is_linear(const struct layer_case *c) {
    return c->layer.node.op == OP_LINEAR;
}

static struct tensor lay_out(struct layer_case *c, struct shape shape, uint32_t border, uint32_t gap) {
    struct tensor t = {.shape = shape, .border = border, .pixel = shape.channels + gap};
    t.row = (shape.width + 2 * border) * t.pixel;
    t.image = (shape.height + 2 * border) * t.row;
    t.size = (t.image * c->layer.images + 15) / 16 * 16;
    t.start = c->floats + NOTHING;
    t.origin = t.start + border * (t.row + t.pixel);
    c->floats = t.start + t.size + NOTHING;
    return t;
}

/* Pixel (y, x) of an image in an arena; the border has places of its own, below 0 and above the size. */
static float *pixel_at(const struct tensor *t, float *arena, uint32_t image, int64_t y, int64_t x) {
    return arena + ((int64_t)(t->origin + image * t->image) + y * (int64_t)t->row + x * (int64_t)t->pixel);
}

static bool is_inside(const struct tensor *t, int64_t y, int64_t x) {
    return y >= 0 && y < t->shape.height && x >= 0 && x < t->shape.width;
}

/* A tensor as the node before leaves it: numbers, zeros in the border, and whatever between the pixels. */
static void fill_tensor(const struct tensor *t, float *arena, uint32_t images, float low) {
    int64_t border = t->border, height = t->shape.height, width = t->shape.width;
    for (uint32_t image = 0; image < images; image++)
        for (int64_t y = -border; y < height + border; y++)
            for (int64_t x = -border; x < width + border; x++) {
                bool inside = is_inside(t, y, x);
                for (size_t c = 0; c < (inside ? t->shape.channels : t->pixel); c++)
                    pixel_at(t, arena, image, y, x)[c] = inside ? test_float(&generator, low, 1) : 0;
            }
}

/* Numbers such as training leaves behind; variances are positive. */
static void fill_parameters(struct layer_case *c) {
    const struct node *node = &c->layer.node;
    size_t count = parameters_size(node), variances = node->op == OP_CONV ? count - node->out.channels : count;
    c->parameters = floats(count);
    for (size_t i = 0; i < count; i++)
        c->parameters[i] = i < variances ? test_float(&generator, -1, 1) : test_float(&generator, 0.1F, 2);
}

static void pack(struct layer_case *c) {
    const struct node *node = &c->layer.node;
    uint32_t nr = c->set->nr;
    if (!parameters_size(node))
        return;
    c->panels = floats(panels_size(node, nr));
    assert_int_equal(pack_panels(node, c->parameters, (double)EPSILON, nr, c->panels, NULL), RESNET_OK);
    if (c->layer.winograd) {
        float *packed = floats(winograd_size(node, nr));
        assert_true(winograd_pack(node, c->panels, nr, packed));
        free(c->panels);
        c->panels = packed;
        c->scratch_size = winograd_scratch(node, c->set);
        c->scratch = floats(MOST_PARTS * c->scratch_size);
    }
}

static struct layer_case make_case(const struct kernel_set *set, const struct layer *layer) {
    struct layer_case c = {.layer = *layer, .set = set};
    const struct node *node = &layer->node;
    c.input = lay_out(&c, node->in, node->pad + layer->in_border, layer->in_gap);
    c.output = lay_out(&c, node->out, layer->out_border, layer->out_gap);
    bool in_place = layer->residual == IN_PLACE;
    c.residual = lay_out(&c, node->out, in_place ? layer->out_border : layer->residual_border, layer->out_gap);
    c.arena = floats(c.floats);
    poison(c.arena, c.floats);
    fill_tensor(&c.input, c.arena, layer->images, node->op == OP_MAXPOOL ? 0 : -1); /* pools stand behind a ReLU */
    if (layer->residual != NO_RESIDUAL)
        fill_tensor(&c.residual, c.arena, layer->images, -1);
    if (in_place)
        memcpy(c.arena + c.output.start, c.arena + c.residual.start, c.output.size * sizeof(float));
    fill_parameters(&c);
    pack(&c);
    c.logit_count = (size_t)node->out.channels * layer->images;
    c.logits = floats(c.logit_count + NOTHING);
    poison(c.logits, c.logit_count + NOTHING);
    return c;
}

static void free_case(struct layer_case *c) {
    free(c->arena);
    free(c->parameters);
    free(c->panels);
    free(c->logits);
    free(c->scratch);
}

/* ---- Run ---- */

/* Where a run has left its results. */
struct outcome {
    float *arena, *logits;
};

static struct outcome start_of(const struct layer_case *c) {
    return (struct outcome){copy_of(c->arena, c->floats), copy_of(c->logits, c->logit_count + NOTHING)};
}

static void free_outcome(struct outcome *outcome) {
    free(outcome->arena);
    free(outcome->logits);
}

static const struct tensor *residual_of(const struct layer_case *c) {
    const struct tensor *const choice[] = {[NO_RESIDUAL] = NULL, [APART] = &c->residual, [IN_PLACE] = &c->output};
    return choice[c->layer.residual];
}

static struct step step_on(const struct layer_case *c, const struct outcome *outcome) {
    return (struct step){
        .kernels = c->set,
        .node = &c->layer.node,
        .input = &c->input,
        .output = &c->output,
        .residual = residual_of(c),
        .panels = c->panels,
        .arena = outcome->arena,
        .logits = is_linear(c) ? outcome->logits : NULL,
        .images = c->layer.images,
        .winograd = c->layer.winograd,
        .scratch = c->scratch,
        .scratch_size = c->scratch_size,
    };
}

static void shuffle(uint32_t *order, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t j = test_below(&generator, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

static struct outcome run_in_parts(const struct layer_case *c, uint32_t parts) {
    uint32_t order[MOST_PARTS] = {0};
    struct outcome outcome = start_of(c);
    struct step step = step_on(c, &outcome);
    shuffle(order, parts);
    for (uint32_t i = 0; i < parts; i++)
        execute(&step, order[i], parts);
    return outcome;
}

/* Never in place: it writes the sum before it reads the residual. */
static struct outcome run_reference(const struct layer_case *c) {
    struct outcome outcome = start_of(c);
    struct step step = step_on(c, &outcome);
    step.panels = c->parameters;
    step.residual = step.residual ? &c->residual : NULL;
    reference_execute(&step, EPSILON);
    return outcome;
}

static void make_absolute(float *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        values[i] = fabsf(values[i]);
}

/* The sums of the absolute values of all that the reference adds up: the node run on absolute values, with the means
 * below zero, since they are subtracted. */
static struct outcome run_magnitudes(const struct layer_case *c) {
    struct layer_case positive = *c;
    size_t count = parameters_size(&c->layer.node), channels = c->layer.node.out.channels;
    positive.layer.node.relu = false;
    positive.arena = copy_of(c->arena, c->floats);
    positive.parameters = copy_of(c->parameters, count);
    make_absolute(positive.arena, c->floats);
    make_absolute(positive.parameters, count);
    for (size_t i = 0; c->layer.node.op == OP_CONV && i < channels; i++)
        positive.parameters[count - 2 * channels + i] *= -1;
    struct outcome outcome = run_reference(&positive);
    free(positive.arena);
    free(positive.parameters);
    return outcome;
}

/* ---- Check ---- */

static float *result_at(const struct layer_case *c, const struct outcome *outcome, uint32_t image, uint32_t index) {
    uint32_t width = c->output.shape.width;
    if (is_linear(c))
        return outcome->logits + (size_t)image * c->output.shape.channels;
    return pixel_at(&c->output, outcome->arena, image, index / width, index % width);
}

/* The channels of one pixel in two outcomes. */
struct pair {
    const float *got, *wanted;
};

static struct pair pair_at(const struct layer_case *c, const struct outcome *got, const struct outcome *wanted,
                           uint32_t at) {
    uint32_t pixels = c->output.shape.height * c->output.shape.width;
    return (struct pair){result_at(c, got, at / pixels, at % pixels), result_at(c, wanted, at / pixels, at % pixels)};
}

static uint32_t result_pixels(const struct layer_case *c) {
    return c->layer.images * c->output.shape.height * c->output.shape.width;
}

/*
 * The direct sum adds `terms` numbers of no more than `magnitude` together: 2 * terms * 2^-24 * magnitude bounds its
 * error (see test_kernels.c). Folding rounds each weight once more, the reference's batch normalisation rounds six
 * times: 8 terms. Winograd's method has no such bound for each output, since its sums run over neighbours too: there,
 * the largest magnitude of the layer stands in.
 */
static double tolerance(const struct layer_case *c, double magnitude, double largest) {
    const struct node *node = &c->layer.node;
    double window = node->op == OP_AVGPOOL ? (double)node->in.height * node->in.width
                                           : (double)node->kernel * node->kernel * node->in.channels;
    if (node->op == OP_MAXPOOL)
        return 0;
    return 2 * (window + 2 + 8) * UNIT * (c->layer.winograd ? largest : magnitude);
}

static double largest_result(const struct layer_case *c, const struct outcome *outcome) {
    double largest = 0;
    for (uint32_t i = 0; i < result_pixels(c); i++)
        for (uint32_t n = 0; n < c->output.shape.channels; n++) {
            double result = (double)pair_at(c, outcome, outcome, i).got[n];
            largest = result > largest ? result : largest;
        }
    return largest;
}

static void check_values(const struct layer_case *c, const struct outcome *got) {
    struct outcome wanted = run_reference(c), magnitudes = run_magnitudes(c);
    double largest = largest_result(c, &magnitudes);
    for (uint32_t i = 0; i < result_pixels(c); i++)
        for (uint32_t n = 0; n < c->output.shape.channels; n++) {
            struct pair values = pair_at(c, got, &wanted, i);
            double limit = tolerance(c, (double)pair_at(c, &magnitudes, got, i).got[n], largest);
            bool good = fabs((double)values.got[n] - (double)values.wanted[n]) <= limit;
            if (!good)
                print_error("%s: pixel %u, channel %u: %.9g, not %.9g\n", resnet_isa_name(c->set->isa), i, n,
                            (double)values.got[n], (double)values.wanted[n]);
            assert_true(good);
        }
    free_outcome(&wanted);
    free_outcome(&magnitudes);
}

static void check_border(const struct layer_case *c, const struct outcome *outcome) {
    const struct tensor *t = &c->output;
    int64_t border = t->border;
    for (uint32_t image = 0; !is_linear(c) && image < c->layer.images; image++)
        for (int64_t y = -border; y < t->shape.height + border; y++)
            for (int64_t x = -border; x < t->shape.width + border; x++)
                for (uint32_t n = 0; !is_inside(t, y, x) && n < t->shape.channels; n++)
                    assert_true(pixel_at(t, outcome->arena, image, y, x)[n] == 0);
}

/* Nothing but the output has changed. */
static void check_rest(const struct layer_case *c, const struct outcome *outcome) {
    size_t begin = is_linear(c) ? c->floats : c->output.start, end = is_linear(c) ? c->floats : begin + c->output.size;
    assert_memory_equal(outcome->arena, c->arena, begin * sizeof(float));
    if (end < c->floats)
        assert_memory_equal(outcome->arena + end, c->arena + end, (c->floats - end) * sizeof(float));
    size_t first = is_linear(c) ? c->logit_count : 0;
    assert_memory_equal(outcome->logits + first, c->logits + first, (c->logit_count + NOTHING - first) * sizeof(float));
}

static void check_equal(const struct layer_case *c, const struct outcome *got, const struct outcome *wanted) {
    for (uint32_t i = 0; i < result_pixels(c); i++) {
        struct pair values = pair_at(c, got, wanted, i);
        assert_memory_equal(values.got, values.wanted, c->output.shape.channels * sizeof(float));
    }
}

/* How many of these differ, bit by bit. */
static size_t count_changed(const float *a, const float *b, uint32_t count) {
    size_t changed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            changed++;
    return changed;
}

/* How many results a part has written over their poison. */
static size_t count_written(const struct layer_case *c, const struct outcome *after) {
    const struct outcome before = {c->arena, c->logits};
    size_t written = 0;
    for (uint32_t i = 0; i < result_pixels(c); i++) {
        struct pair values = pair_at(c, after, &before, i);
        written += count_changed(values.got, values.wanted, c->output.shape.channels);
    }
    return written;
}

/* Each part alone: together they write every result once. (In place there is no poison to look for.) */
static void check_disjoint(const struct layer_case *c, uint32_t parts) {
    size_t written = 0;
    if (c->layer.residual == IN_PLACE)
        return;
    for (uint32_t i = 0; i < parts; i++) {
        struct outcome outcome = start_of(c);
        struct step step = step_on(c, &outcome);
        execute(&step, i, parts);
        written += count_written(c, &outcome);
        free_outcome(&outcome);
    }
    assert_int_equal(written, (size_t)result_pixels(c) * c->output.shape.channels);
}

static void check_layer(const struct kernel_set *set, const struct layer *layer) {
    static const uint32_t parts[] = {2, 3, 8, MOST_PARTS};
    struct layer_case c = make_case(set, layer);
    struct outcome whole = run_in_parts(&c, 1);
    check_values(&c, &whole);
    check_border(&c, &whole);
    check_rest(&c, &whole);
    for (size_t i = 0; i < COUNT(parts); i++) {
        struct outcome split = run_in_parts(&c, parts[i]);
        check_equal(&c, &split, &whole);
        check_border(&c, &split);
        check_rest(&c, &split);
        free_outcome(&split);
    }
    check_disjoint(&c, parts[pick(0, COUNT(parts) - 1)]);
    free_outcome(&whole);
    free_case(&c);
}

/* ---- Which layers ---- */

/* The node that the graph builder makes of it, behind an input of this shape. */
static struct node conv_node(struct shape in, struct conv conv) {
    struct node nodes[2];
    struct graph graph = {nodes, 0, COUNT(nodes)};
    graph_conv(&graph, graph_input(&graph, in), conv, "conv");
    return nodes[1];
}

static void each_set(void (*test)(const struct kernel_set *set)) {
    for (int isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AVX512; isa++) {
        const struct kernel_set *set = cpu_kernels((resnet_isa)isa);
        generator.state = (uint64_t)isa;
        if (set)
            test(set);
    }
}

/* Borders, gaps and batch that a plan could have chosen. */
static void pick_layout(struct layer *layer) {
    layer->images = pick(1, 3);
    layer->in_border = pick(0, 3) == 0;
    layer->in_gap = pick(0, 2) == 0 ? pick(1, 20) : 0;
    layer->out_border = pick(0, 1) * pick(1, 3);
    layer->out_gap = pick(0, 2) == 0 ? pick(1, 20) : 0;
    layer->residual_border = pick(0, 1);
}

/* Mostly small: the reference takes its time. */
static struct shape pick_shape(uint32_t most_side, uint32_t most_channels) {
    return (struct shape){pick(1, most_side), pick(1, most_side), pick(1, pick(1, most_channels))};
}

/* Where Winograd's method suits the layer, it is checked that way and by the direct sum. */
static void check_both_ways(const struct kernel_set *set, struct layer *layer) {
    check_layer(set, layer);
    layer->winograd = winograd_suits(&layer->node);
    if (layer->winograd)
        check_layer(set, layer);
}

static void random_convolutions(const struct kernel_set *set) {
    static const uint32_t kernels[] = {1, 1, 3, 3, 7};
    const int layers = test_quick() ? 100 : 300;
    for (int i = 0; i < layers; i++) {
        uint32_t kernel = kernels[pick(0, COUNT(kernels) - 1)];
        struct conv conv = {pick(1, pick(1, 70)), kernel, pick(1, 2), NO_NODE, pick(0, 1)};
        struct layer layer = {.node = conv_node(pick_shape(13, kernel == 7 ? 6 : 60), conv),
                              .residual = (enum where)pick(NO_RESIDUAL, IN_PLACE)};
        pick_layout(&layer);
        check_both_ways(set, &layer);
    }
}

/* 3x3 layers that Winograd's method takes, with every remainder of a 4x4 tile. */
static void winograd_convolutions(const struct kernel_set *set) {
    for (uint32_t i = 0; i < 48; i++) {
        struct shape in = {1 + i % 9, 1 + i / 4 % 9, 16 * pick(1, 2)};
        struct layer layer = {.node = conv_node(in, (struct conv){16 * pick(1, 4), 3, 1, NO_NODE, pick(0, 1)}),
                              .residual = (enum where)(i % 3)};
        pick_layout(&layer);
        check_both_ways(set, &layer);
    }
}

/* Sizes at which work is divided in another way: much weight and few pixels, much input and many tiles. */
static void large_convolutions(const struct kernel_set *set) {
    static const struct {
        struct shape in;
        struct conv conv;
        uint32_t images, in_gap, out_border;
        enum where residual;
    } cases[] = {
        {{3, 3, 130}, {150, 3, 1, NO_NODE, true}, 1, 0, 0, IN_PLACE},
        {{2, 2, 512}, {300, 1, 1, NO_NODE, true}, 3, 16, 1, APART},
        {{1, 1, 512}, {300, 1, 1, NO_NODE, false}, 1, 16, 0, NO_RESIDUAL},
        {{17, 23, 512}, {40, 1, 1, NO_NODE, true}, 1, 16, 0, IN_PLACE},
        {{19, 31, 256}, {33, 1, 2, NO_NODE, false}, 2, 0, 1, NO_RESIDUAL},
        {{30, 26, 3}, {64, 7, 2, NO_NODE, true}, 2, 0, 0, NO_RESIDUAL},
        {{1, 200, 8}, {8, 3, 1, NO_NODE, true}, 1, 0, 1, APART},
        {{200, 1, 8}, {8, 3, 2, NO_NODE, true}, 2, 0, 1, NO_RESIDUAL},
        {{28, 28, 48}, {32, 3, 1, NO_NODE, true}, 2, 0, 1, IN_PLACE},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct layer layer = {.node = conv_node(cases[i].in, cases[i].conv),
                              .images = cases[i].images,
                              .in_gap = cases[i].in_gap,
                              .out_border = cases[i].out_border,
                              .residual_border = cases[i].out_border,
                              .residual = cases[i].residual};
        check_both_ways(set, &layer);
    }
}

static void linear_layers(const struct kernel_set *set) {
    for (uint32_t i = 0; i < 40; i++) {
        struct node nodes[2];
        struct graph graph = {nodes, 0, COUNT(nodes)};
        uint32_t in = i == 0 ? 512 : pick(1, 300), out = i == 0 ? 1000 : pick(1, 300);
        graph_linear(&graph, graph_input(&graph, (struct shape){1, 1, in}), out);
        check_layer(set, &(struct layer){.node = nodes[1], .images = pick(1, 3), .in_gap = i % 2 * 16});
    }
}

static void pool_layers(const struct kernel_set *set) {
    for (uint32_t i = 0; i < (test_quick() ? 50U : 150U); i++) {
        struct node nodes[2];
        struct graph graph = {nodes, 0, COUNT(nodes)};
        struct shape in = pick_shape(15, 300);
        uint32_t input = graph_input(&graph, in);
        if (i % 3)
            graph_maxpool(&graph, input, 3, pick(1, 2));
        else
            graph_avgpool(&graph, input);
        struct layer layer = {.node = nodes[1]};
        pick_layout(&layer);
        check_layer(set, &layer);
    }
}

static void test_random_convolutions(void **state) {
    (void)state;
    each_set(random_convolutions);
}

static void test_winograd_convolutions(void **state) {
    (void)state;
    each_set(winograd_convolutions);
}

static void test_large_convolutions(void **state) {
    (void)state;
    each_set(large_convolutions);
}

static void test_linear_layers(void **state) {
    (void)state;
    each_set(linear_layers);
}

static void test_pool_layers(void **state) {
    (void)state;
    each_set(pool_layers);
}

/* ---- Packing ---- */

/* Weights that the transform makes denormal become zeros, as in other layers (test_pack.c). */
static void pack_denormals(const struct kernel_set *set) {
    struct node node = conv_node((struct shape){4, 4, 16}, (struct conv){96, 3, 1, NO_NODE, false});
    size_t count = panels_size(&node, set->nr), packed_count = winograd_size(&node, set->nr);
    float *panels = floats(count), *packed = floats(packed_count);
    for (size_t i = 0; i < count; i++)
        panels[i] = ldexpf(test_float(&generator, -1, 1), -124);
    assert_true(winograd_pack(&node, panels, set->nr, packed));
    for (size_t i = node.out.channels; i < packed_count; i++) /* behind the biases: 96 are whole panels */
        assert_true(fpclassify(packed[i]) != FP_SUBNORMAL);
    free(panels);
    free(packed);
}

static void test_winograd_drops_denormals(void **state) {
    (void)state;
    each_set(pack_denormals);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_convolutions), cmocka_unit_test(test_winograd_convolutions),
        cmocka_unit_test(test_large_convolutions),  cmocka_unit_test(test_linear_layers),
        cmocka_unit_test(test_pool_layers),         cmocka_unit_test(test_winograd_drops_denormals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
