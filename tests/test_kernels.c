/*
 * test_kernels.c - every kernel of every instruction set that this CPU has, against the formula of kernels.h in double.
 *
 * Everything that a kernel reads or writes lies flush against a page that cannot be touched, once at its end and once
 * at its start; what it must not write is filled with a pattern and looked at afterwards.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu.h"
#include "support.h"

#define UNIT 0x1p-24

/* ---- Guarded memory ---- */

enum role { X, PANEL, BIAS, Y, RESIDUAL, ROLES };
enum side { AT_END, AT_START };

/* Floats that each role has room for. */
static const size_t room[ROLES] = {1U << 16, 1U << 18, 1U << 10, 1U << 14, 1U << 14};
static unsigned char *guarded[ROLES];      /* between two pages without access */
static float master[ROLES][1U << 18];      /* what a kernel is to find there */
static const uint32_t canary = 0x7fa0dead; /* a NaN that no arithmetic makes */

static size_t page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

static int make_guards(void **state) {
    (void)state;
    size_t page = page_size();
    for (int role = 0; role < ROLES; role++) {
        size_t size = room[role] * sizeof(float);
        unsigned char *all = mmap(NULL, size + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED || size % page || mprotect(all, page, PROT_NONE) ||
            mprotect(all + page + size, page, PROT_NONE))
            return -1;
        guarded[role] = all + page;
    }
    return 0;
}

static int free_guards(void **state) {
    (void)state;
    for (int role = 0; role < ROLES; role++)
        munmap(guarded[role] - page_size(), room[role] * sizeof(float) + 2 * page_size());
    return 0;
}

/* `count` floats that touch a guard. */
static float *place(enum role role, size_t count, enum side side) {
    assert_true(count <= room[role]);
    return (float *)(void *)guarded[role] + (side == AT_END ? room[role] - count : 0);
}

static float *place_copy(enum role role, size_t count, enum side side) {
    return memcpy(place(role, count, side), master[role], count * sizeof(float));
}

static void fill_canary(float *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        memcpy(values + i, &canary, sizeof canary);
}

static bool is_canary(const float *value) {
    return memcmp(value, &canary, sizeof canary) == 0;
}

/* ---- Numbers ---- */

/* For each kernel set and kernel. */
static int random_shapes(void) {
    return test_quick() ? 2000 : 10000;
}

static struct test_random generator;

static uint32_t pick(uint32_t low, uint32_t high) {
    return test_between(&generator, low, high);
}

/* Small integers, whose sums are exact whatever the order; or numbers in [-1, 1). */
enum numbers { INTEGERS, FRACTIONS };

static void fill(enum role role, size_t count, enum numbers numbers) {
    assert_true(count <= room[role]);
    for (size_t i = 0; i < count; i++) {
        float value = test_float(&generator, -1, 1);
        master[role][i] = numbers == INTEGERS ? rintf(4 * value) : value;
    }
}

/* ---- Convolution: one case ---- */

enum residual { NO_RESIDUAL, APART, IN_PLACE };

struct conv_case {
    const struct kernel_set *set;
    struct conv_tile tile; /* sizes and strides; no pointers yet */
    enum residual residual;
    enum numbers numbers;
};

static size_t x_floats(const struct conv_tile *t) {
    return (t->pixels - 1) * t->x_pixel + (t->rows - 1) * t->x_row + (t->columns - 1) * t->x_column + t->run;
}

static size_t y_floats(const struct conv_tile *t) {
    return (t->pixels - 1) * t->y_pixel + t->channels;
}

static size_t panel_rows(const struct conv_tile *t) {
    return 1 + (size_t)t->rows * t->columns * t->run;
}

static void fill_case(const struct conv_case *c) {
    uint32_t nr = c->set->nr;
    fill(X, x_floats(&c->tile), c->numbers);
    fill(PANEL, panel_rows(&c->tile) * nr, c->numbers);
    fill(RESIDUAL, y_floats(&c->tile), c->numbers);
    for (size_t row = 0; row < panel_rows(&c->tile); row++)
        for (uint32_t n = c->tile.channels; n < nr; n++)
            master[PANEL][row * nr + n] = 0;
}

/* Run with everything on this side of its guards; returns y. */
static float *run_conv(const struct conv_case *c, enum side side) {
    struct conv_tile tile = c->tile;
    size_t y_count = y_floats(&tile);
    tile.x = place_copy(X, x_floats(&tile), side);
    tile.panel = place_copy(PANEL, panel_rows(&tile) * c->set->nr, side);
    tile.y = place(Y, y_count, side);
    fill_canary(tile.y, y_count);
    if (c->residual == APART)
        tile.residual = place_copy(RESIDUAL, y_count, side);
    if (c->residual == IN_PLACE) {
        tile.residual = tile.y;
        for (uint32_t p = 0; p < tile.pixels; p++)
            memcpy(tile.y + p * tile.y_pixel, master[RESIDUAL] + p * tile.y_pixel, tile.channels * sizeof(float));
    }
    c->set->conv_tile(&tile);
    return tile.y;
}

struct sum {
    double value, magnitude; /* of what is added, and of its absolute values */
    uint32_t terms;
};

static void add_term(struct sum *sum, double term) {
    sum->value += term;
    sum->magnitude += fabs(term);
    sum->terms++;
}

/* The formula above struct conv_tile, before the activation. */
static struct sum naive_conv(const struct conv_case *c, uint32_t p, uint32_t n) {
    const struct conv_tile *t = &c->tile;
    const float *w = master[PANEL] + n;
    struct sum sum = {0};
    add_term(&sum, (double)*w);
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++)
            for (uint32_t k = 0; k < t->run; k++) {
                w += c->set->nr;
                add_term(&sum, (double)*w * (double)master[X][p * t->x_pixel + i * t->x_row + j * t->x_column + k]);
            }
    if (c->residual != NO_RESIDUAL)
        add_term(&sum, (double)master[RESIDUAL][p * t->y_pixel + n]);
    return sum;
}

/*
 * Each term is rounded once by every addition after it, and once more where multiply and add are two instructions: at
 * most terms + 1 times by 2^-24 of what stands there, which is no more than the magnitude. Twice that leaves room for
 * the higher orders. A ReLU brings two numbers no further apart. Small integers have no error at all.
 */
static double bound(const struct conv_case *c, struct sum sum) {
    return c->numbers == INTEGERS ? 0 : 2 * sum.terms * UNIT * sum.magnitude;
}

static void check_value(const struct conv_case *c, const float *y, uint32_t p, uint32_t n) {
    struct sum sum = naive_conv(c, p, n);
    double wanted = c->tile.relu && sum.value < 0 ? 0 : sum.value;
    double got = (double)y[p * c->tile.y_pixel + n];
    bool good = fabs(got - wanted) <= bound(c, sum);
    if (!good)
        print_error("%s: pixel %u of %u, channel %u of %u, window %ux%ux%u, residual %d, relu %d: %.9g, not %.9g\n",
                    resnet_isa_name(c->set->isa), p, c->tile.pixels, n, c->tile.channels, c->tile.rows, c->tile.columns,
                    c->tile.run, (int)c->residual, c->tile.relu, got, wanted);
    assert_true(good);
}

static void check_gaps(const struct conv_case *c, const float *y) {
    for (uint32_t p = 0; p + 1 < c->tile.pixels; p++)
        for (size_t n = c->tile.channels; n < c->tile.y_pixel; n++)
            assert_true(is_canary(y + p * c->tile.y_pixel + n));
}

static void check_case(const struct conv_case *c) {
    static float first[1U << 14];
    size_t size = y_floats(&c->tile) * sizeof(float);
    fill_case(c);
    float *y = run_conv(c, AT_END);
    for (uint32_t p = 0; p < c->tile.pixels; p++)
        for (uint32_t n = 0; n < c->tile.channels; n++)
            check_value(c, y, p, n);
    check_gaps(c, y);
    memcpy(first, y, size);
    assert_memory_equal(run_conv(c, AT_START), first, size);
}

/* ---- Convolution: which cases ---- */

struct window {
    uint32_t rows, columns, run, stride, gap; /* gap: floats between a pixel's channels and the next pixel */
};

/* A tile as the executor would place it: `run` channels a pixel in rows just wide enough for the tile. */
static struct conv_tile tile_over(struct window w, uint32_t pixels, uint32_t channels, uint32_t y_gap) {
    size_t pixel = w.run + w.gap;
    return (struct conv_tile){.x_pixel = w.stride * pixel,
                              .x_row = ((pixels - 1) * w.stride + w.columns) * pixel,
                              .x_column = pixel,
                              .rows = w.rows,
                              .columns = w.columns,
                              .run = w.run,
                              .y_pixel = channels + y_gap,
                              .pixels = pixels,
                              .channels = channels};
}

static void each_set(void (*test)(const struct kernel_set *set)) {
    for (int isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AVX512; isa++) {
        const struct kernel_set *set = cpu_kernels((resnet_isa)isa);
        generator.state = (uint64_t)isa;
        if (set)
            test(set);
    }
}

static void random_convolutions(const struct kernel_set *set) {
    const int shapes = random_shapes();
    static const uint32_t side[] = {1, 1, 1, 2, 3, 3, 3, 7};
    for (int i = 0; i < shapes; i++) {
        struct window w = {side[pick(0, 7)], side[pick(0, 7)], pick(1, pick(1, 70)), pick(1, 3),
                           pick(0, 1) * pick(1, 20)};
        struct conv_case c = {set, tile_over(w, pick(1, set->mr), pick(1, set->nr), pick(0, 1) * pick(1, 20)),
                              (enum residual)pick(NO_RESIDUAL, IN_PLACE), (enum numbers)pick(INTEGERS, FRACTIONS)};
        c.tile.relu = pick(0, 1);
        check_case(&c);
    }
}

/* Every count of pixels and channels with every ending. */
static void edge_tiles(const struct kernel_set *set) {
    static const uint32_t runs[] = {1, 2, 3, 5, 17};
    uint32_t turn = 0;
    for (uint32_t pixels = 1; pixels <= set->mr; pixels++)
        for (uint32_t channels = 1; channels <= set->nr; channels++)
            for (uint32_t ending = 0; ending < 12; ending++, turn++) {
                struct window w = {1 + turn % 3, 1 + turn % 2, runs[turn % 5], 1 + turn % 2, 0};
                struct conv_case c = {set, tile_over(w, pixels, channels, ending / 6 * 3), (enum residual)(ending % 3),
                                      FRACTIONS};
                c.tile.relu = ending / 3 % 2;
                check_case(&c);
            }
}

/* Every window up to 7x7, dense and not, with runs around the lengths of vectors. */
static void edge_windows(const struct kernel_set *set) {
    static const uint32_t runs[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33};
    uint32_t turn = 0;
    for (uint32_t rows = 1; rows <= 7; rows++)
        for (uint32_t columns = 1; columns <= 7; columns++)
            for (uint32_t r = 0; r < COUNT(runs); r++, turn++) {
                struct window w = {rows, columns, runs[r], 1 + turn % 3, turn % 2 * 16};
                uint32_t pixels = turn % 2 ? set->mr : 1 + turn % set->mr;
                uint32_t channels = turn % 4 < 2 ? set->nr : 1 + turn % set->nr;
                struct conv_case c = {set, tile_over(w, pixels, channels, turn % 5), (enum residual)(turn % 3),
                                      (enum numbers)(turn % 2)};
                c.tile.relu = turn % 7 < 3;
                check_case(&c);
            }
}

static void test_random_convolutions(void **state) {
    (void)state;
    each_set(random_convolutions);
}

static void test_edge_tiles(void **state) {
    (void)state;
    each_set(edge_tiles);
}

static void test_edge_windows(void **state) {
    (void)state;
    each_set(edge_windows);
}

/* ---- Convolution: what the tile's size must not change ---- */

/* Compute `pixels` of them from pixel `first` on, as a tile of its own, and compare with the whole tile's result. */
static void check_part(const struct conv_case *whole, const float *wanted, uint32_t first, uint32_t pixels) {
    float y[64 * 64];
    const struct conv_tile *t = &whole->tile;
    struct conv_tile part = *t;
    part.pixels = pixels;
    part.x = master[X] + first * t->x_pixel;
    part.panel = master[PANEL];
    part.residual = master[RESIDUAL] + first * t->y_pixel;
    part.y = y;
    whole->set->conv_tile(&part);
    assert_memory_equal(y, wanted + first * t->y_pixel, pixels * t->y_pixel * sizeof(float));
}

static void splits_of_a_tile(const struct kernel_set *set) {
    for (int i = 0; i < 20; i++) {
        struct window w = {pick(1, 3), pick(1, 3), pick(1, 40), pick(1, 2), 0};
        struct conv_case c = {set, tile_over(w, set->mr, i % 2 ? set->nr : pick(1, set->nr), 0), APART, FRACTIONS};
        float wanted[64 * 64];
        assert_true(set->mr <= 64 && set->nr <= 64);
        c.tile.relu = pick(0, 1);
        fill_case(&c);
        memcpy(wanted, run_conv(&c, AT_END), y_floats(&c.tile) * sizeof(float));
        for (uint32_t pixels = 1; pixels <= set->mr; pixels++)
            for (uint32_t first = 0; first + pixels <= set->mr; first++)
                check_part(&c, wanted, first, pixels);
    }
}

/* The last panel's channels are computed as they would be among others. */
static void narrow_panels(const struct kernel_set *set) {
    struct window w = {3, 1, 21, 1, 0};
    struct conv_case c = {set, tile_over(w, set->mr, set->nr, 0), APART, FRACTIONS};
    float wanted[64 * 64];
    c.tile.relu = true;
    fill_case(&c);
    memcpy(wanted, run_conv(&c, AT_END), y_floats(&c.tile) * sizeof(float));
    for (c.tile.channels = 1; c.tile.channels < set->nr; c.tile.channels++) {
        const float *y = run_conv(&c, AT_END);
        for (uint32_t p = 0; p < set->mr; p++)
            assert_memory_equal(y + p * c.tile.y_pixel, wanted + p * c.tile.y_pixel, c.tile.channels * sizeof(float));
    }
}

static void test_result_does_not_depend_on_the_tile(void **state) {
    (void)state;
    each_set(splits_of_a_tile);
    each_set(narrow_panels);
}

/* ---- Convolution: special numbers ---- */

/* One product, x * 1 + bias + residual, at every place of a tile of this many channels. */
static void check_special(const struct kernel_set *set, uint32_t channels, const float in[3], bool relu, float wanted) {
    struct conv_case c = {set, tile_over((struct window){1, 1, 1, 1, 0}, set->mr, channels, 0), APART, INTEGERS};
    c.tile.relu = relu;
    fill_case(&c);
    for (uint32_t p = 0; p < set->mr; p++)
        master[X][p] = in[0];
    for (uint32_t n = 0; n < channels; n++) {
        master[PANEL][n] = in[1];
        master[PANEL][set->nr + n] = 1;
    }
    for (uint32_t i = 0; i < y_floats(&c.tile); i++)
        master[RESIDUAL][i] = in[2];
    const float *y = run_conv(&c, AT_END);
    for (uint32_t i = 0; i < set->mr * channels; i++) {
        bool good = isnan(wanted) ? isnan(y[i]) != 0 : y[i] == wanted;
        if (!good)
            print_error("%s, %u channels: x %g, bias %g, residual %g, relu %d: %g, not %g\n", resnet_isa_name(set->isa),
                        channels, (double)in[0], (double)in[1], (double)in[2], relu, (double)y[i], (double)wanted);
        assert_true(good);
    }
}

static void special_numbers(const struct kernel_set *set) {
    static const struct {
        float in[3]; /* x, bias, residual */
        float linear, rectified;
    } cases[] = {
        {{NAN, 1, 1}, NAN, NAN}, /* a NaN must show, not become a zero */
        {{1, 1, NAN}, NAN, NAN},
        {{1, NAN, 1}, NAN, NAN},
        {{INFINITY, 1, -INFINITY}, NAN, NAN},
        {{INFINITY, 1, 1}, INFINITY, INFINITY},
        {{-INFINITY, 1, 1}, -INFINITY, 0},
        {{1, 1, -INFINITY}, -INFINITY, 0},
        {{-0.0F, -0.0F, -0.0F}, 0, 0}, /* a zero of either sign */
        {{3e38F, 3e38F, 0}, INFINITY, INFINITY},
        {{-3e38F, -3e38F, 0}, -INFINITY, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (uint32_t channels = set->nr - 1; channels <= set->nr; channels++) {
            check_special(set, channels, cases[i].in, false, cases[i].linear);
            check_special(set, channels, cases[i].in, true, cases[i].rectified);
        }
}

static void test_special_numbers(void **state) {
    (void)state;
    each_set(special_numbers);
}

/* ---- Winograd's transforms ---- */

/* One factor of a transform: a row of B' or A', which each side of `m` is multiplied by; see winograd_tmpl.h. */
static const double input_rows[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                        {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
static const double output_rows[4][6] = {
    {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};

/* (row' m column) of 6x6 numbers that lie `step` apart. */
static struct sum naive_transform(const double row[6], const double column[6], const float *m, size_t step) {
    struct sum sum = {0};
    for (size_t i = 0; i < 6; i++)
        for (size_t j = 0; j < 6; j++)
            add_term(&sum, row[i] * column[j] * (double)m[(6 * i + j) * step]);
    return sum;
}

/* Each of two passes rounds at most four times, bias and residual once each: ten times 2^-24 of no more than the
 * magnitude, doubled for the higher orders. Integers are exact: so are the factors. */
static double transform_bound(enum numbers numbers, struct sum sum) {
    return numbers == INTEGERS ? 0 : 2 * 10 * UNIT * sum.magnitude;
}

struct winograd_case {
    const struct kernel_set *set;
    struct winograd_output output; /* sizes and strides; no pointers yet */
    enum residual residual;
    enum numbers numbers;
};

static float *run_winograd_input(const struct winograd_case *c, enum side side) {
    uint32_t channels = c->output.channels;
    size_t count = 35 * c->output.element + channels;
    const float *x = place_copy(X, 36 * (size_t)channels, side), *patch[36];
    for (size_t e = 0; e < 36; e++)
        patch[e] = x + e * channels;
    float *v = place(PANEL, count, side);
    fill_canary(v, count);
    c->set->winograd_input(patch, channels, v, c->output.element);
    return v;
}

static void check_winograd_input(const struct winograd_case *c, const float *v) {
    uint32_t channels = c->output.channels;
    for (size_t e = 0; e < 36; e++) {
        for (uint32_t n = 0; n < channels; n++) {
            struct sum sum = naive_transform(input_rows[e / 6], input_rows[e % 6], master[X] + n, channels);
            double got = (double)v[e * c->output.element + n];
            assert_true(fabs(got - sum.value) <= transform_bound(c->numbers, sum));
        }
        for (size_t n = channels; e < 35 && n < c->output.element; n++)
            assert_true(is_canary(v + e * c->output.element + n));
    }
}

static size_t rows_floats(const struct winograd_output *t, size_t row) {
    return (t->rows - 1) * row + (t->columns - 1) * t->y_pixel + t->channels;
}

static float *run_winograd_output(const struct winograd_case *c, enum side side) {
    struct winograd_output t = c->output;
    size_t y_count = rows_floats(&t, t.y_row);
    t.products = place_copy(PANEL, 35 * t.element + t.channels, side);
    t.bias = place_copy(BIAS, t.channels, side);
    t.y = place(Y, y_count, side);
    fill_canary(t.y, y_count);
    if (c->residual == APART)
        t.residual = place_copy(RESIDUAL, rows_floats(&t, t.residual_row), side);
    if (c->residual == IN_PLACE) {
        t.residual = t.y;
        for (size_t i = 0; i < t.rows; i++)
            for (size_t j = 0; j < t.columns; j++)
                memcpy(t.y + i * t.y_row + j * t.y_pixel, master[RESIDUAL] + i * t.y_row + j * t.y_pixel,
                       t.channels * sizeof(float));
    }
    c->set->winograd_output(&t);
    return t.y;
}

static void check_winograd_pixel(const struct winograd_case *c, const float *y, uint32_t i, uint32_t j) {
    const struct winograd_output *t = &c->output;
    for (uint32_t n = 0; n < t->channels; n++) {
        struct sum sum = naive_transform(output_rows[i], output_rows[j], master[PANEL] + n, t->element);
        add_term(&sum, (double)master[BIAS][n]);
        if (c->residual != NO_RESIDUAL)
            add_term(&sum, (double)master[RESIDUAL][i * t->residual_row + j * t->y_pixel + n]);
        double wanted = t->relu && sum.value < 0 ? 0 : sum.value;
        double got = (double)y[i * t->y_row + j * t->y_pixel + n];
        assert_true(fabs(got - wanted) <= transform_bound(c->numbers, sum));
    }
}

/* Every float of y that is no pixel's. */
static void check_winograd_gaps(const struct winograd_output *t, const float *y) {
    for (size_t at = 0; at < rows_floats(t, t->y_row); at++) {
        size_t column = at % t->y_row / t->y_pixel, channel = at % t->y_row % t->y_pixel;
        assert_true((column < t->columns && channel < t->channels) || is_canary(y + at));
    }
}

static void check_winograd(const struct winograd_case *c) {
    static float first[1U << 18];
    const struct winograd_output *t = &c->output;
    size_t v_size = (35 * t->element + t->channels) * sizeof(float);
    size_t y_size = rows_floats(t, t->y_row) * sizeof(float);
    fill(X, 36 * (size_t)t->channels, c->numbers);
    float *v = run_winograd_input(c, AT_END);
    check_winograd_input(c, v);
    memcpy(first, v, v_size);
    assert_memory_equal(run_winograd_input(c, AT_START), first, v_size);

    fill(PANEL, v_size / sizeof(float), c->numbers);
    fill(BIAS, t->channels, c->numbers);
    fill(RESIDUAL, rows_floats(t, t->residual_row), c->numbers);
    float *y = run_winograd_output(c, AT_END);
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++)
            check_winograd_pixel(c, y, i, j);
    check_winograd_gaps(t, y);
    memcpy(first, y, y_size);
    assert_memory_equal(run_winograd_output(c, AT_START), first, y_size);
}

static void winograd_shapes(const struct kernel_set *set) {
    for (uint32_t i = 0; i < 2400; i++) {
        struct winograd_case c = {
            .set = set, .residual = (enum residual)(i / 16 % 3), .numbers = (enum numbers)(i % 5 < 3)};
        struct winograd_output *t = &c.output;
        t->rows = 1 + i % 4;
        t->columns = 1 + i / 4 % 4;
        t->channels = 16 * pick(1, pick(1, 4));
        t->element = t->channels + pick(0, 1) * pick(1, 40);
        t->y_pixel = t->channels + pick(0, 1) * pick(1, 20);
        t->y_row = t->columns * t->y_pixel + pick(0, 1) * pick(1, 50);
        t->residual_row = c.residual == IN_PLACE ? t->y_row : t->columns * t->y_pixel + pick(0, 50);
        t->relu = pick(0, 1);
        check_winograd(&c);
    }
}

static void test_winograd_transforms(void **state) {
    (void)state;
    each_set(winograd_shapes);
}

/* ---- Pooling ---- */

typedef void pool_kernel(const struct pool_window *window);

struct pool_case {
    const struct kernel_set *set;
    struct pool_window window; /* no pointers yet */
    enum numbers numbers;
};

static size_t pool_x_floats(const struct pool_window *w) {
    return (w->rows - 1) * w->x_row + (w->columns - 1) * w->x_pixel + w->channels;
}

static const float *run_pool(pool_kernel *kernel, const struct pool_window *window, enum side side) {
    struct pool_window w = *window;
    w.x = place_copy(X, pool_x_floats(&w), side);
    w.y = place(Y, w.channels, side);
    fill_canary(w.y, w.channels);
    kernel(&w);
    return w.y;
}

static void check_max(const struct pool_case *c, const float *y, uint32_t channel) {
    float best = -INFINITY;
    for (uint32_t i = 0; i < c->window.rows; i++)
        for (uint32_t j = 0; j < c->window.columns; j++)
            best = fmaxf(best, master[X][i * c->window.x_row + j * c->window.x_pixel + channel]);
    assert_true(y[channel] == best);
}

/* As for a convolution: one addition a term, and the division by the area, as one or two operations. */
static void check_mean(const struct pool_case *c, const float *y, uint32_t channel) {
    struct sum sum = {0};
    for (uint32_t i = 0; i < c->window.rows; i++)
        for (uint32_t j = 0; j < c->window.columns; j++)
            add_term(&sum, (double)master[X][i * c->window.x_row + j * c->window.x_pixel + channel]);
    bool exact = c->numbers == INTEGERS && (sum.terms & (sum.terms - 1)) == 0;
    double limit = exact ? 0 : 2 * sum.terms * UNIT * sum.magnitude / sum.terms;
    assert_true(fabs((double)y[channel] - sum.value / sum.terms) <= limit);
}

static void check_pool(const struct pool_case *c, pool_kernel *kernel,
                       void (*check)(const struct pool_case *c, const float *y, uint32_t channel)) {
    float first[512];
    const float *y = run_pool(kernel, &c->window, AT_END);
    for (uint32_t channel = 0; channel < c->window.channels; channel++)
        check(c, y, channel);
    memcpy(first, y, c->window.channels * sizeof *y);
    assert_memory_equal(run_pool(kernel, &c->window, AT_START), first, c->window.channels * sizeof *y);
}

static void check_pools(const struct pool_case *c) {
    fill(X, pool_x_floats(&c->window), c->numbers);
    check_pool(c, c->set->max_window, check_max);
    check_pool(c, c->set->mean_window, check_mean);
}

static struct pool_window window_over(uint32_t rows, uint32_t columns, uint32_t channels, uint32_t gap) {
    return (struct pool_window){.x_pixel = channels + gap,
                                .x_row = (channels + gap) * columns + gap,
                                .rows = rows,
                                .columns = columns,
                                .channels = channels};
}

static void random_pools(const struct kernel_set *set) {
    const int shapes = random_shapes();
    for (int i = 0; i < shapes; i++) {
        struct pool_case c = {set, window_over(pick(1, 9), pick(1, 9), pick(1, 130), pick(0, 1) * pick(1, 30)),
                              (enum numbers)pick(INTEGERS, FRACTIONS)};
        check_pools(&c);
    }
}

static void edge_pools(const struct kernel_set *set) {
    for (uint32_t rows = 1; rows <= 7; rows++)
        for (uint32_t columns = 1; columns <= 7; columns++)
            for (uint32_t channels = 1; channels <= 35; channels++)
                check_pools(&(struct pool_case){set, window_over(rows, columns, channels, channels % 3),
                                                (enum numbers)(channels % 2)});
}

static void infinite_pools(const struct kernel_set *set) {
    struct pool_window w = window_over(3, 3, 37, 0);
    for (size_t i = 0; i < pool_x_floats(&w); i++)
        master[X][i] = -INFINITY;
    for (uint32_t c = 0; c < 37; c++)
        assert_true(run_pool(set->max_window, &w, AT_END)[c] == -INFINITY);
    for (uint32_t c = 0; c < 37; c++)
        master[X][4 * w.x_pixel + c] = c % 2 ? INFINITY : -1;
    for (uint32_t c = 0; c < 37; c++)
        assert_true(run_pool(set->max_window, &w, AT_END)[c] == (c % 2 ? INFINITY : -1));
}

static void test_random_pools(void **state) {
    (void)state;
    each_set(random_pools);
}

static void test_edge_pools(void **state) {
    (void)state;
    each_set(edge_pools);
    each_set(infinite_pools);
}

/* ---- The tables themselves, and the peak ---- */

static void sane_set(const struct kernel_set *set) {
    assert_true(set->mr >= 1 && set->nr >= 1);
    assert_non_null(set->conv_tile);
    assert_non_null(set->max_window);
    assert_non_null(set->mean_window);
    assert_non_null(set->winograd_input);
    assert_non_null(set->winograd_output);
    assert_true(set->flops_a_round >= 2);
    assert_true(isfinite(set->fma_rounds(0)) && isfinite(set->fma_rounds(1000)));
}

static void test_tables(void **state) {
    (void)state;
    each_set(sane_set);
    assert_null(cpu_kernels(RESNET_ISA_REFERENCE));
    assert_non_null(cpu_kernels(RESNET_ISA_SCALAR));
    assert_non_null(cpu_kernels(RESNET_ISA_AUTO));
    for (int isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AVX512; isa++) {
        const struct kernel_set *set = cpu_kernels((resnet_isa)isa);
        assert_true(!set || set->isa == (resnet_isa)isa);
        assert_int_equal(resnet_isa_check((resnet_isa)isa, NULL) == RESNET_OK, set != NULL);
    }
}

/* Between a machine that is emulated badly and any core that could be: 1 MFLOP/s and 100 TFLOP/s. */
static void test_peak(void **state) {
    (void)state;
    for (int isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_AVX512; isa++) {
        double flops = -1;
        resnet_error error;
        resnet_status status = resnet_fma_peak((resnet_isa)isa, &flops, &error);
        assert_int_equal(status, cpu_kernels((resnet_isa)isa) ? RESNET_OK : RESNET_ERROR_UNSUPPORTED);
        assert_true(status == RESNET_OK ? flops > 1e6 && flops < 1e14 : flops == -1 && error.message[0]);
    }
    assert_int_equal(resnet_fma_peak(RESNET_ISA_SCALAR, NULL, NULL), RESNET_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_edge_tiles),
        cmocka_unit_test(test_edge_windows),
        cmocka_unit_test(test_random_convolutions),
        cmocka_unit_test(test_result_does_not_depend_on_the_tile),
        cmocka_unit_test(test_special_numbers),
        cmocka_unit_test(test_winograd_transforms),
        cmocka_unit_test(test_edge_pools),
        cmocka_unit_test(test_random_pools),
        cmocka_unit_test(test_peak),
    };
    return cmocka_run_group_tests(tests, make_guards, free_guards);
}
