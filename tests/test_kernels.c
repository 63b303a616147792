/*
 * test_kernels.c - every kernel that this CPU can run, in every format, against the formulas of kernels.h.
 *
 * Everything that a kernel reads or writes lies flush against a page that cannot be touched, once at its end and once
 * at its start; what it must not write is filled with a pattern and looked at afterwards. Sums of u8 are integers, and
 * what follows is prescribed to the operation: there, every kernel must give the very same bits.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "candidates.h"
#include "numbers.h"
#include "support.h"

/* ---- Guarded memory ---- */

enum role { X, PANEL, BIAS, Y, RESIDUAL, ROLES };
enum side { AT_END, AT_START };

/* Words that each role has room for. */
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

/* `count` words that touch a guard. */
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

/* For each candidate and kernel. */
static int random_shapes(void) {
    return test_quick() ? 1000 : 10000;
}

static struct test_random generator;

static uint32_t pick(uint32_t low, uint32_t high) {
    return test_between(&generator, low, high);
}

/* Integers, whose sums are exact in any order, or numbers in [-1, 1). Of u8, the ends of its range, or all of it. */
enum numbers { INTEGERS, FRACTIONS };

static float pick_number(enum numbers numbers) {
    float value = test_float(&generator, -1, 1);
    return numbers == INTEGERS ? rintf(16 * value) : value;
}

/* A byte of activations, and of weights: there, -128 and 127. */
static uint8_t pick_byte(enum numbers numbers, bool weight) {
    uint8_t end = (uint8_t)(-(int)pick(0, 1)) ^ (weight ? 0x80 : 0);
    return numbers == INTEGERS ? end : (uint8_t)test_u64(&generator);
}

/* Of these words of a role. */
static void fill(enum role role, enum format format, size_t begin, size_t end, enum numbers numbers) {
    assert_true(end <= room[role]);
    uint32_t each = word_numbers(format);
    for (size_t i = begin * each; i < end * each; i++)
        set_number(format, master[role], i,
                   format == FORMAT_U8 ? (float)pick_byte(numbers, role == PANEL) : pick_number(numbers));
}

/* ---- Convolution: one case ---- */

enum residual { NO_RESIDUAL, APART, IN_PLACE };

struct conv_case {
    const struct candidate *candidate;
    struct conv_tile tile; /* sizes and strides; no pointers yet */
    enum residual residual;
    enum numbers numbers;
};

/* Whether it is a case for group_tile. */
static bool is_grouped(const struct conv_case *c) {
    return c->tile.group != 0;
}

static uint32_t nr_of(const struct conv_case *c) {
    return is_grouped(c) ? c->candidate->kernels->group_nr : c->candidate->kernels->nr;
}

/* A panel has several groups, or a part of one. */
static bool has_groups(const struct conv_case *c) {
    return is_grouped(c) && c->tile.group < nr_of(c);
}

static void run_kernel(const struct conv_case *c, const struct conv_tile *tile) {
    (is_grouped(c) ? c->candidate->kernels->group_tile : c->candidate->kernels->conv_tile)(tile);
}

/* What y is stored in. */
static enum format stored(const struct conv_case *c) {
    return c->tile.floats ? FORMAT_F32 : c->candidate->format;
}

/* Words of an input pixel that a tile reads. */
static size_t tap_words(const struct conv_case *c) {
    return has_groups(c) ? c->tile.channels / c->tile.group * c->tile.run : c->tile.run;
}

static size_t x_words(const struct conv_case *c) {
    const struct conv_tile *t = &c->tile;
    return (t->pixels - 1) * t->x_pixel + (t->rows - 1) * t->x_row + (t->columns - 1) * t->x_column + tap_words(c);
}

static size_t y_pixel_words(const struct conv_case *c) {
    return c->tile.channels / word_numbers(stored(c));
}

static size_t y_words(const struct conv_case *c) {
    return (c->tile.pixels - 1) * c->tile.y_pixel + y_pixel_words(c);
}

/* Biases, and scales of u8. */
static size_t head_rows(const struct conv_case *c) {
    return c->candidate->format == FORMAT_U8 ? 2 : 1;
}

static size_t panel_rows(const struct conv_case *c) {
    return head_rows(c) + (size_t)c->tile.rows * c->tile.columns * c->tile.run;
}

/* Scales that bring sums of this many products into 0..255 and around; powers of two, so that some end at one half. */
static void fill_u8_head(const struct conv_case *c) {
    uint32_t nr = nr_of(c), products = 4 * c->tile.rows * c->tile.columns * c->tile.run;
    int exponent = (int)lrint(log2(128 / (74 * 150 * sqrt(products))));
    for (uint32_t n = 0; n < nr; n++) {
        int32_t bias = (int32_t)pick(0, 200000) - 100000;
        memcpy(&master[PANEL][n], &bias, sizeof bias);
        float factor = c->numbers == INTEGERS ? 1 : test_float(&generator, 0.5F, 2);
        master[PANEL][nr + n] = ldexpf(factor, exponent);
    }
}

static void fill_case(const struct conv_case *c) {
    uint32_t nr = nr_of(c);
    enum format format = c->candidate->format;
    fill(X, format, 0, x_words(c), c->numbers);
    fill(RESIDUAL, format, 0, y_words(c), c->numbers);
    fill(PANEL, FORMAT_F32, 0, nr, c->numbers);
    if (format == FORMAT_U8)
        fill_u8_head(c);
    fill(PANEL, format, head_rows(c) * nr, panel_rows(c) * nr, c->numbers);
    for (size_t row = 0; row < panel_rows(c); row++)
        for (uint32_t n = c->tile.channels; n < nr; n++)
            master[PANEL][row * nr + n] = 0;
}

/* Run with everything on this side of its guards; returns y. */
static float *run_conv(const struct conv_case *c, enum side side) {
    struct conv_tile tile = c->tile;
    size_t y_count = y_words(c);
    tile.x = place_copy(X, x_words(c), side);
    tile.panel = place_copy(PANEL, panel_rows(c) * nr_of(c), side);
    tile.ahead = tile.panel;
    tile.y = place(Y, y_count, side);
    fill_canary(tile.y, y_count);
    if (c->residual == APART)
        tile.residual = place_copy(RESIDUAL, y_count, side);
    if (c->residual == IN_PLACE) {
        tile.residual = tile.y;
        for (uint32_t p = 0; p < tile.pixels; p++)
            memcpy(tile.y + p * tile.y_pixel, master[RESIDUAL] + p * tile.y_pixel, y_pixel_words(c) * sizeof(float));
    }
    run_kernel(c, &tile);
    return tile.y;
}

/* Where a tap has the weight of word k and channel n: row by row, but where a panel has groups. There, lane n ^ r of
 * row r is channel n's, and it stands in the place of the word that it goes with. */
static size_t weight_place(const struct conv_case *c, uint32_t k, uint32_t n) {
    uint32_t run = c->tile.run;
    return has_groups(c) ? (size_t)(k ^ n % run) * nr_of(c) + n / run * run + k : (size_t)k * nr_of(c) + n;
}

/* Call `visit` for each product of one output number: a word of weights, and the word of x that it goes with. */
static void each_product(const struct conv_case *c, uint32_t p, uint32_t n,
                         void (*visit)(void *sum, const float *x, const float *w), void *sum) {
    const struct conv_tile *t = &c->tile;
    const float *w = master[PANEL] + head_rows(c) * nr_of(c);
    const float *x = master[X] + p * t->x_pixel + (has_groups(c) ? n / t->group * t->run : 0);
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++, w += t->run * nr_of(c))
            for (uint32_t k = 0; k < t->run; k++)
                visit(sum, x + i * t->x_row + j * t->x_column + k, w + weight_place(c, k, n));
}

/* ---- f32 and bf16 ---- */

static void add_f32(void *sum, const float *x, const float *w) {
    add_term(sum, (double)*x * (double)*w);
}

static void add_bf16(void *sum, const float *x, const float *w) {
    for (size_t i = 0; i < 2; i++)
        add_term(sum, number_at(FORMAT_BF16, x, i) * number_at(FORMAT_BF16, w, i));
}

/* The formula above struct conv_tile, before the activation. */
static struct sum naive_conv(const struct conv_case *c, uint32_t p, uint32_t n) {
    enum format format = c->candidate->format;
    struct sum sum = {0};
    add_term(&sum, (double)master[PANEL][n]);
    each_product(c, p, n, format == FORMAT_BF16 ? add_bf16 : add_f32, &sum);
    if (c->residual != NO_RESIDUAL)
        add_term(&sum, number_at(format, master[RESIDUAL] + p * c->tile.y_pixel, n));
    return sum;
}

/* Small integers have no error at all. */
static double bound(const struct conv_case *c, struct sum sum) {
    return c->numbers == INTEGERS ? 0 : sum_bound(c->candidate->format, sum);
}

static bool is_right(const struct conv_case *c, uint32_t p, uint32_t n, double got, double *wanted) {
    struct sum sum = naive_conv(c, p, n);
    *wanted = c->tile.relu && sum.value < 0 ? 0 : sum.value;
    return is_near(stored(c), got, *wanted, bound(c, sum));
}

/* ---- u8 ---- */

static void add_u8(void *sum, const float *x, const float *w) {
    for (size_t i = 0; i < 4; i++)
        *(int64_t *)sum += ((const uint8_t *)x)[i] * ((const int8_t *)w)[i];
}

static bool is_right_u8(const struct conv_case *c, uint32_t p, uint32_t n, double got, double *wanted) {
    int32_t bias;
    memcpy(&bias, &master[PANEL][n], sizeof bias);
    int64_t sum = bias;
    each_product(c, p, n, add_u8, &sum);
    assert_true(sum == (int32_t)sum);
    float a = (float)(int32_t)sum * master[PANEL][nr_of(c) + n];
    if (c->residual != NO_RESIDUAL)
        a += (float)number_at(FORMAT_U8, master[RESIDUAL] + p * c->tile.y_pixel, n) * c->tile.residual_scale;
    *wanted = c->tile.floats ? (double)a : round_to_u8(a + c->tile.offset);
    return got == *wanted;
}

/* ---- Convolution: check ---- */

static void check_value(const struct conv_case *c, const float *y, uint32_t p, uint32_t n) {
    double got = number_at(stored(c), y + p * c->tile.y_pixel, n), wanted;
    bool good = (c->candidate->format == FORMAT_U8 ? is_right_u8 : is_right)(c, p, n, got, &wanted);
    if (!good)
        print_error("%s: groups of %u, pixel %u of %u, channel %u of %u, window %ux%ux%u, residual %d, relu %d, floats "
                    "%d: %.9g, not "
                    "%.9g\n",
                    c->candidate->name, c->tile.group, p, c->tile.pixels, n, c->tile.channels, c->tile.rows,
                    c->tile.columns, c->tile.run, (int)c->residual, c->tile.relu, c->tile.floats, got, wanted);
    assert_true(good);
}

static void check_gaps(const struct conv_case *c, const float *y) {
    for (uint32_t p = 0; p + 1 < c->tile.pixels; p++)
        for (size_t i = y_pixel_words(c); i < c->tile.y_pixel; i++)
            assert_true(is_canary(y + p * c->tile.y_pixel + i));
}

static void check_case(const struct conv_case *c) {
    static float first[1U << 14];
    size_t size = y_words(c) * sizeof(float);
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
    uint32_t rows, columns, run, stride, gap; /* gap: words between a pixel's channels and the next pixel */
};

enum finish { LINEAR, RELU, FLOATS };

/* What a tile writes. */
struct result {
    uint32_t pixels, channels, gap; /* of channels, at least: whole words are written */
    enum residual residual;
    enum finish finish;
};

/* A tile as the executor would place it: `run` words a pixel in rows just wide enough for the tile. */
static struct conv_case make_case(const struct candidate *candidate, struct window w, struct result r,
                                  enum numbers numbers) {
    bool floats = r.finish == FLOATS;
    uint32_t each = floats ? 1 : word_numbers(candidate->format), words = (r.channels + each - 1) / each;
    size_t pixel = w.run + w.gap;
    struct conv_tile tile = {.x_pixel = w.stride * pixel,
                             .x_row = ((r.pixels - 1) * w.stride + w.columns) * pixel,
                             .x_column = pixel,
                             .rows = w.rows,
                             .columns = w.columns,
                             .run = w.run,
                             .y_pixel = words + r.gap,
                             .pixels = r.pixels,
                             .channels = words * each,
                             .relu = r.finish == RELU,
                             .floats = floats,
                             .residual_scale = test_float(&generator, 0, 2),
                             .offset = test_float(&generator, -100, 200)};
    if (numbers == INTEGERS) {
        tile.residual_scale = 0.5F;
        tile.offset = rintf(tile.offset);
    }
    return (struct conv_case){candidate, tile, floats ? NO_RESIDUAL : r.residual, numbers};
}

/* The same of a convolution in groups of so many channels; `channels` become whole groups, where a panel has them. */
static struct conv_case make_grouped(const struct candidate *candidate, uint32_t group, struct window w,
                                     struct result r, enum numbers numbers) {
    w.run = group / word_numbers(candidate->format);
    w.gap += w.run * (candidate->kernels->group_nr / group); /* at least the words that are not in `run` */
    r.channels = group < candidate->kernels->group_nr ? (r.channels + group - 1) / group * group : r.channels;
    struct conv_case c = make_case(candidate, w, r, numbers);
    c.tile.group = group;
    return c;
}

static const uint32_t groups[] = {4, 8, 16, 48}; /* channels */

static void random_groups(const struct candidate *candidate) {
    static const uint32_t side[] = {1, 2, 3, 3, 3, 7};
    for (int i = 0; i < random_shapes(); i++) {
        struct window w = {side[pick(0, 5)], side[pick(0, 5)], 0, pick(1, 3), pick(0, 1) * pick(1, 20)};
        struct result r = {pick(1, candidate->kernels->mr), pick(1, candidate->kernels->group_nr),
                           pick(0, 1) * pick(1, 20), (enum residual)pick(NO_RESIDUAL, IN_PLACE),
                           (enum finish)pick(LINEAR, FLOATS)};
        struct conv_case c =
            make_grouped(candidate, groups[pick(0, COUNT(groups) - 1)], w, r, (enum numbers)pick(INTEGERS, FRACTIONS));
        check_case(&c);
    }
}

/* Every count of pixels and channels with every ending, dense. */
static void edge_groups(const struct candidate *candidate) {
    for (size_t g = 0; g < COUNT(groups); g++)
        for (uint32_t pixels = 1; pixels <= candidate->kernels->mr; pixels++)
            for (uint32_t channels = 1; channels <= candidate->kernels->group_nr; channels++)
                for (uint32_t ending = 0; ending < 9; ending++) {
                    struct result r = {pixels, channels, 0, (enum residual)(ending % 3), (enum finish)(ending / 3)};
                    struct conv_case c =
                        make_grouped(candidate, groups[g], (struct window){3, 3, 0, 1, 0}, r, FRACTIONS);
                    check_case(&c);
                }
}

static void random_convolutions(const struct candidate *candidate) {
    const int shapes = random_shapes();
    const uint32_t mr = candidate->kernels->mr, nr = candidate->kernels->nr;
    static const uint32_t side[] = {1, 1, 1, 2, 3, 3, 3, 7};
    for (int i = 0; i < shapes; i++) {
        struct window w = {side[pick(0, 7)], side[pick(0, 7)], pick(1, pick(1, 70)), pick(1, 3),
                           pick(0, 1) * pick(1, 20)};
        struct result r = {pick(1, mr), pick(0, 1) ? nr : pick(1, nr), pick(0, 1) * pick(1, 20),
                           (enum residual)pick(NO_RESIDUAL, IN_PLACE), (enum finish)pick(LINEAR, FLOATS)};
        struct conv_case c = make_case(candidate, w, r, (enum numbers)pick(INTEGERS, FRACTIONS));
        check_case(&c);
    }
}

/* Every count of pixels and channels with every ending. */
static void edge_tiles(const struct candidate *candidate) {
    static const uint32_t runs[] = {1, 2, 3, 5, 17};
    uint32_t turn = 0;
    for (uint32_t pixels = 1; pixels <= candidate->kernels->mr; pixels++)
        for (uint32_t channels = 1; channels <= candidate->kernels->nr; channels++)
            for (uint32_t ending = 0; ending < 18; ending++, turn++) {
                struct window w = {1 + turn % 3, 1 + turn % 2, runs[turn % 5], 1 + turn % 2, 0};
                struct result r = {pixels, channels, ending / 9 * 3, (enum residual)(ending % 3),
                                   (enum finish)(ending / 3 % 3)};
                struct conv_case c = make_case(candidate, w, r, FRACTIONS);
                check_case(&c);
            }
}

/* Every window up to 7x7, dense and not, with runs around the lengths of vectors. */
static void edge_windows(const struct candidate *candidate) {
    static const uint32_t runs[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33};
    const uint32_t mr = candidate->kernels->mr, nr = candidate->kernels->nr;
    uint32_t turn = 0;
    for (uint32_t rows = 1; rows <= 7; rows++)
        for (uint32_t columns = 1; columns <= 7; columns++)
            for (uint32_t i = 0; i < COUNT(runs); i++, turn++) {
                struct window w = {rows, columns, runs[i], 1 + turn % 3, turn % 2 * 16};
                struct result r = {turn % 2 ? mr : 1 + turn % mr, turn % 4 < 2 ? nr : 1 + turn % nr, turn % 5,
                                   (enum residual)(turn % 3), turn % 7 < 3 ? RELU : LINEAR};
                struct conv_case c = make_case(candidate, w, r, (enum numbers)(turn % 2));
                check_case(&c);
            }
}

static void test_random_convolutions(void **state) {
    (void)state;
    each_candidate(random_convolutions);
}

static void test_edge_tiles(void **state) {
    (void)state;
    each_candidate(edge_tiles);
}

static void test_edge_windows(void **state) {
    (void)state;
    each_candidate(edge_windows);
}

static void test_groups(void **state) {
    (void)state;
    each_candidate(edge_groups);
    each_candidate(random_groups);
}

/* ---- Convolution: what the tile's size must not change ---- */

#define MOST_Y (64 * 64) /* words of a dense tile */

/* The whole tile's result, which is then dense. */
static void run_whole(const struct conv_case *c, float wanted[MOST_Y]) {
    assert_true(y_words(c) <= MOST_Y);
    fill_case(c);
    memcpy(wanted, run_conv(c, AT_END), y_words(c) * sizeof(float));
}

/* Compute `pixels` of them from pixel `first` on, as a tile of its own, and compare with the whole tile's result. */
static void check_part(const struct conv_case *whole, const float *wanted, uint32_t first, uint32_t pixels) {
    float y[MOST_Y];
    const struct conv_tile *t = &whole->tile;
    struct conv_tile part = *t;
    part.pixels = pixels;
    part.x = master[X] + first * t->x_pixel;
    part.panel = part.ahead = master[PANEL];
    part.residual = t->floats ? NULL : master[RESIDUAL] + first * t->y_pixel;
    part.y = y;
    run_kernel(whole, &part);
    assert_memory_equal(y, wanted + first * t->y_pixel, pixels * t->y_pixel * sizeof(float));
}

/* Every part of a tile. */
static void check_parts(const struct conv_case *whole) {
    float wanted[MOST_Y];
    uint32_t all = whole->tile.pixels;
    run_whole(whole, wanted);
    for (uint32_t pixels = 1; pixels <= all; pixels++)
        for (uint32_t first = 0; first + pixels <= all; first++)
            check_part(whole, wanted, first, pixels);
}

static void splits_of_a_tile(const struct candidate *candidate) {
    const uint32_t mr = candidate->kernels->mr, nr = candidate->kernels->nr;
    for (int i = 0; i < 24; i++) {
        struct window w = {pick(1, 3), pick(1, 3), pick(1, 40), pick(1, 2), 0};
        struct result r = {mr, i % 2 ? nr : pick(1, nr), 0, APART, (enum finish)(i % 3)};
        struct conv_case c = make_case(candidate, w, r, FRACTIONS);
        check_parts(&c);
    }
}

static void splits_of_groups(const struct candidate *candidate) {
    for (uint32_t i = 0; i < 6 * COUNT(groups); i++) {
        struct window w = {pick(1, 3), pick(1, 3), 0, pick(1, 2), 0};
        struct result r = {candidate->kernels->mr, pick(1, candidate->kernels->group_nr), 0, APART,
                           (enum finish)(i % 3)};
        struct conv_case c = make_grouped(candidate, groups[i % COUNT(groups)], w, r, FRACTIONS);
        check_parts(&c);
    }
}

/* The last panel's channels are computed as they would be among others. */
static void narrow_panels(const struct candidate *candidate) {
    const uint32_t mr = candidate->kernels->mr, nr = candidate->kernels->nr, each = word_numbers(candidate->format);
    struct conv_case c =
        make_case(candidate, (struct window){3, 1, 21, 1, 0}, (struct result){mr, nr, 0, APART, RELU}, FRACTIONS);
    float wanted[MOST_Y];
    run_whole(&c, wanted);
    for (c.tile.channels = each; c.tile.channels < nr; c.tile.channels += each) {
        const float *y = run_conv(&c, AT_END);
        for (uint32_t p = 0; p < mr; p++)
            assert_memory_equal(y + p * c.tile.y_pixel, wanted + p * c.tile.y_pixel, y_pixel_words(&c) * sizeof(float));
    }
}

static void test_result_does_not_depend_on_the_tile(void **state) {
    (void)state;
    each_candidate(splits_of_a_tile);
    each_candidate(splits_of_groups);
    each_candidate(narrow_panels);
}

/* ---- Convolution: special numbers ---- */

/* All numbers in these words of a role. */
static void fill_with(enum role role, enum format format, size_t begin, size_t end, float value) {
    for (size_t i = begin * word_numbers(format); i < end * word_numbers(format); i++)
        set_number(format, master[role], i, value);
}

/* One word of products, all `x` times 1, at every place of a tile of this many channels. */
static struct conv_case one_product(const struct candidate *candidate, uint32_t channels, enum finish finish, float x) {
    struct result r = {candidate->kernels->mr, channels, 0, APART, finish};
    struct conv_case c = make_case(candidate, (struct window){1, 1, 1, 1, 0}, r, INTEGERS);
    fill_case(&c);
    fill_with(X, candidate->format, 0, x_words(&c), x);
    fill_with(PANEL, candidate->format, head_rows(&c) * nr_of(&c), panel_rows(&c) * nr_of(&c), 1);
    return c;
}

static void check_special(const struct candidate *candidate, uint32_t channels, const float in[3], enum finish finish,
                          float wanted) {
    struct conv_case c = one_product(candidate, channels, finish, in[0]);
    fill_with(PANEL, FORMAT_F32, 0, nr_of(&c), in[1]);
    fill_with(RESIDUAL, candidate->format, 0, y_words(&c), in[2]);
    const float *y = run_conv(&c, AT_END);
    for (size_t i = 0; i < y_words(&c) * word_numbers(candidate->format); i++) {
        double got = number_at(candidate->format, y, i);
        bool good = isnan(wanted) ? isnan(got) != 0 : got == (double)wanted;
        if (!good)
            print_error("%s, %u channels: x %g, bias %g, residual %g, relu %d: %g, not %g\n", candidate->name, channels,
                        (double)in[0], (double)in[1], (double)in[2], finish, got, (double)wanted);
        assert_true(good);
    }
}

static void special_numbers(const struct candidate *candidate) {
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
    uint32_t nr = candidate->kernels->nr;
    for (size_t i = 0; candidate->format != FORMAT_U8 && i < COUNT(cases); i++)
        for (uint32_t channels = nr - word_numbers(candidate->format); channels <= nr;
             channels += word_numbers(candidate->format)) {
            check_special(candidate, channels, cases[i].in, LINEAR, cases[i].linear);
            check_special(candidate, channels, cases[i].in, RELU, cases[i].rectified);
        }
}

/* Every half from -10 to 265, then what only a broken model gives: each of these is a sum of integers, its scale and an
 * offset. */
static void check_rounding(const struct candidate *candidate, uint32_t channels) {
    static const struct {
        float scale, offset;
        uint8_t wanted; /* of 20 */
    } broken[] = {{1e30F, 0, 255},   {INFINITY, 0, 255}, {-INFINITY, 0, 0}, {1, 3e38F, 255},
                  {1, -3e38F, 0},    {NAN, 0, 0},        {1, NAN, 0},       {1, INFINITY, 255},
                  {1, -INFINITY, 0}, {1e8F, 0, 255},     {2.2e8F, 0, 255},  {-1e8F, 0, 0}};
    struct conv_case c = one_product(candidate, channels, LINEAR, 0);
    c.residual = NO_RESIDUAL;
    for (int32_t sum = -20; sum <= 530 + (int32_t)COUNT(broken); sum++) {
        bool whole = sum <= 530;
        int32_t bias = whole ? sum : 20;
        float scale = whole ? 0.5F : broken[sum - 531].scale;
        c.tile.offset = whole ? 0 : broken[sum - 531].offset;
        for (uint32_t n = 0; n < nr_of(&c); n++) {
            memcpy(&master[PANEL][n], &bias, sizeof bias);
            master[PANEL][nr_of(&c) + n] = scale;
        }
        int32_t even = (sum + 1) / 2 - (sum % 4 == 1 ? 1 : 0); /* the even one of two neighbours */
        uint8_t wanted = !whole ? broken[sum - 531].wanted : sum < 0 ? 0 : even > 255 ? 255 : (uint8_t)even;
        const uint8_t *y = (const uint8_t *)run_conv(&c, AT_END);
        for (size_t i = 0; i < y_words(&c) * 4; i++)
            assert_int_equal(y[i], wanted);
    }
}

static void rounding_to_bytes(const struct candidate *candidate) {
    if (candidate->format != FORMAT_U8)
        return;
    check_rounding(candidate, candidate->kernels->nr);
    check_rounding(candidate, candidate->kernels->nr - 4);
}

static void test_special_numbers(void **state) {
    (void)state;
    each_candidate(special_numbers);
    each_candidate(rounding_to_bytes);
}

/* ---- Winograd's transforms ---- */

/* B' and A' of a tile's side of 4 outputs and of 2; see winograd_tmpl.h. */
struct side_transform {
    uint32_t outputs;
    double input[6][6], output[4][6];
};
static const struct side_transform four = {
    4,
    {{4, 0, -5, 0, 1, 0},
     {0, -4, -4, 1, 1, 0},
     {0, 4, -4, -1, 1, 0},
     {0, -2, -1, 2, 1, 0},
     {0, 2, -1, -2, 1, 0},
     {0, 4, 0, -5, 0, 1}},
    {{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}}};
static const struct side_transform two = {
    2, {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}}, {{1, 2, 2, 0}, {0, 2, -2, 1}}};

/* Of each enum winograd_tile, down and across. */
static const struct side_transform *const tile_sides[WINOGRAD_TILES][2] = {
    [WINOGRAD_4X4] = {&four, &four}, [WINOGRAD_4X2] = {&four, &two}, [WINOGRAD_2X2] = {&two, &two}};

/* Each of two passes rounds at most four times, bias and residual once each: ten times 2^-24 of no more than the
 * magnitude, doubled for the higher orders. Integers are exact: so are the factors. */
static double transform_bound(enum numbers numbers, struct sum sum) {
    return numbers == INTEGERS ? 0 : 2 * 10 * UNIT * sum.magnitude;
}

struct winograd_case {
    const struct candidate *candidate;
    enum winograd_tile tile;
    const struct side_transform *down, *across;
    struct winograd_output output; /* sizes and strides; no pointers yet */
    enum residual residual;
    enum numbers numbers;
};

/* Pixels of a patch. */
static size_t winograd_elements(const struct winograd_case *c) {
    return (c->down->outputs + 2) * (c->across->outputs + 2);
}

/* Floats from the first element to the end of the last. */
static size_t winograd_floats(const struct winograd_case *c) {
    return (winograd_elements(c) - 1) * c->output.element + c->output.channels;
}

/* Words of a pixel's channels. */
static size_t winograd_words(const struct winograd_case *c) {
    return c->output.channels / word_numbers(c->candidate->format);
}

static size_t rows_words(const struct winograd_case *c, size_t row) {
    return (c->output.rows - 1) * row + (c->output.columns - 1) * c->output.y_pixel + winograd_words(c);
}

static float *run_winograd_input(const struct winograd_case *c, enum side side) {
    size_t count = winograd_floats(c), words = winograd_words(c);
    const float *x = place_copy(X, winograd_elements(c) * words, side), *patch[WINOGRAD_ELEMENTS];
    for (size_t e = 0; e < winograd_elements(c); e++)
        patch[e] = x + e * words;
    float *v = place(PANEL, count, side);
    fill_canary(v, count);
    c->candidate->winograd->tiles[c->tile].input(patch, c->output.channels, v, c->output.element);
    return v;
}

/* (row' m column)[n] of a patch of pixels that lie `step` words apart. */
static struct sum naive_transform(const struct winograd_case *c, const double row[6], const double column[6],
                                  enum format format, const float *m, size_t step, uint32_t n) {
    struct sum sum = {0};
    size_t height = c->down->outputs + 2, width = c->across->outputs + 2;
    for (size_t i = 0; i < height; i++)
        for (size_t j = 0; j < width; j++)
            add_term(&sum, row[i] * column[j] * number_at(format, m + (width * i + j) * step, n));
    return sum;
}

static void check_winograd_input(const struct winograd_case *c, const float *v) {
    size_t width = c->across->outputs + 2, elements = winograd_elements(c);
    for (size_t e = 0; e < elements; e++) {
        for (uint32_t n = 0; n < c->output.channels; n++) {
            struct sum sum = naive_transform(c, c->down->input[e / width], c->across->input[e % width],
                                             c->candidate->format, master[X], winograd_words(c), n);
            double got = (double)v[e * c->output.element + n];
            assert_true(fabs(got - sum.value) <= transform_bound(c->numbers, sum));
        }
        for (size_t n = c->output.channels; e + 1 < elements && n < c->output.element; n++)
            assert_true(is_canary(v + e * c->output.element + n));
    }
}

static float *run_winograd_output(const struct winograd_case *c, enum side side) {
    struct winograd_output t = c->output;
    size_t y_count = rows_words(c, t.y_row);
    t.products = place_copy(PANEL, winograd_floats(c), side);
    t.bias = place_copy(BIAS, t.channels, side);
    t.y = place(Y, y_count, side);
    fill_canary(t.y, y_count);
    if (c->residual == APART)
        t.residual = place_copy(RESIDUAL, rows_words(c, t.residual_row), side);
    if (c->residual == IN_PLACE) {
        t.residual = t.y;
        for (size_t i = 0; i < t.rows; i++)
            for (size_t j = 0; j < t.columns; j++)
                memcpy(t.y + i * t.y_row + j * t.y_pixel, master[RESIDUAL] + i * t.y_row + j * t.y_pixel,
                       winograd_words(c) * sizeof(float));
    }
    c->candidate->winograd->tiles[c->tile].output(&t);
    return t.y;
}

static void check_winograd_pixel(const struct winograd_case *c, const float *y, uint32_t i, uint32_t j) {
    const struct winograd_output *t = &c->output;
    enum format format = c->candidate->format;
    for (uint32_t n = 0; n < t->channels; n++) {
        struct sum sum =
            naive_transform(c, c->down->output[i], c->across->output[j], FORMAT_F32, master[PANEL], t->element, n);
        add_term(&sum, (double)master[BIAS][n]);
        if (c->residual != NO_RESIDUAL)
            add_term(&sum, number_at(format, master[RESIDUAL] + i * t->residual_row + j * t->y_pixel, n));
        double wanted = t->relu && sum.value < 0 ? 0 : sum.value;
        double got = number_at(format, y + i * t->y_row + j * t->y_pixel, n);
        assert_true(is_near(format, got, wanted, transform_bound(c->numbers, sum)));
    }
}

/* Every word of y that is no pixel's. */
static void check_winograd_gaps(const struct winograd_case *c, const float *y) {
    const struct winograd_output *t = &c->output;
    for (size_t at = 0; at < rows_words(c, t->y_row); at++) {
        size_t column = at % t->y_row / t->y_pixel, word = at % t->y_row % t->y_pixel;
        assert_true((column < t->columns && word < winograd_words(c)) || is_canary(y + at));
    }
}

static void check_winograd_to(const struct winograd_case *c) {
    static float first[1U << 18];
    size_t v_size = winograd_floats(c) * sizeof(float);
    fill(X, c->candidate->format, 0, winograd_elements(c) * winograd_words(c), c->numbers);
    float *v = run_winograd_input(c, AT_END);
    check_winograd_input(c, v);
    memcpy(first, v, v_size);
    assert_memory_equal(run_winograd_input(c, AT_START), first, v_size);
}

static void check_winograd_from(const struct winograd_case *c) {
    static float first[1U << 14];
    const struct winograd_output *t = &c->output;
    size_t y_size = rows_words(c, t->y_row) * sizeof(float);
    fill(PANEL, FORMAT_F32, 0, winograd_floats(c), c->numbers);
    fill(BIAS, FORMAT_F32, 0, t->channels, c->numbers);
    fill(RESIDUAL, c->candidate->format, 0, rows_words(c, t->residual_row), c->numbers);
    float *y = run_winograd_output(c, AT_END);
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++)
            check_winograd_pixel(c, y, i, j);
    check_winograd_gaps(c, y);
    memcpy(first, y, y_size);
    assert_memory_equal(run_winograd_output(c, AT_START), first, y_size);
}

static void winograd_shapes(const struct candidate *candidate, enum winograd_tile tile) {
    for (uint32_t i = 0; i < 2400; i++) {
        struct winograd_case c = {.candidate = candidate,
                                  .tile = tile,
                                  .down = tile_sides[tile][0],
                                  .across = tile_sides[tile][1],
                                  .residual = (enum residual)(i / 16 % 3),
                                  .numbers = (enum numbers)(i % 5 < 3)};
        struct winograd_output *t = &c.output;
        t->rows = 1 + i % c.down->outputs;
        t->columns = 1 + i / 4 % c.across->outputs;
        t->channels = 16 * pick(1, pick(1, 4));
        t->element = t->channels + pick(0, 1) * pick(1, 40);
        t->y_pixel = winograd_words(&c) + pick(0, 1) * pick(1, 20);
        t->y_row = t->columns * t->y_pixel + pick(0, 1) * pick(1, 50);
        t->residual_row = c.residual == IN_PLACE ? t->y_row : t->columns * t->y_pixel + pick(0, 50);
        t->relu = pick(0, 1);
        check_winograd_to(&c);
        check_winograd_from(&c);
    }
}

/* In f32 all tiles, in bf16 the largest. */
static void winograd_tiles(const struct candidate *candidate) {
    for (enum winograd_tile tile = 0; candidate->winograd && tile < WINOGRAD_TILES; tile++) {
        bool used = candidate->format == FORMAT_F32 || tile == WINOGRAD_4X4;
        assert_true(used == (candidate->winograd->tiles[tile].input && candidate->winograd->tiles[tile].output));
        if (used)
            winograd_shapes(candidate, tile);
    }
}

static void test_winograd_transforms(void **state) {
    (void)state;
    each_candidate(winograd_tiles);
}

/* ---- Pooling ---- */

typedef void pool_kernel(const struct pool_window *window);

struct pool_case {
    const struct candidate *candidate;
    struct pool_window window; /* no pointers yet */
    enum numbers numbers;
};

static size_t pool_words(const struct pool_case *c) {
    uint32_t numbers = word_numbers(c->candidate->format);
    return (c->window.channels + numbers - 1) / numbers;
}

static size_t pool_x_words(const struct pool_case *c) {
    return (c->window.rows - 1) * c->window.x_row + (c->window.columns - 1) * c->window.x_pixel + pool_words(c);
}

/* Words of the result, and what it is stored in. */
static size_t pool_y_words(const struct pool_case *c) {
    return c->window.floats ? c->window.channels : pool_words(c);
}

static enum format pool_stored(const struct pool_case *c) {
    return c->window.floats ? FORMAT_F32 : c->candidate->format;
}

static const float *run_pool(pool_kernel *kernel, const struct pool_case *c, enum side side) {
    struct pool_window w = c->window;
    w.x = place_copy(X, pool_x_words(c), side);
    w.y = place(Y, pool_y_words(c), side);
    fill_canary(w.y, pool_y_words(c));
    kernel(&w);
    return w.y;
}

/* Tap (i, j). */
static double tap_at(const struct pool_case *c, uint32_t i, uint32_t j, uint32_t channel) {
    const float *pixel = master[X] + i * c->window.x_row + j * c->window.x_pixel;
    return number_at(c->candidate->format, pixel, channel);
}

static bool max_is_right(const struct pool_case *c, double got, uint32_t channel) {
    double best = -INFINITY;
    for (uint32_t i = 0; i < c->window.rows; i++)
        for (uint32_t j = 0; j < c->window.columns; j++)
            if (tap_at(c, i, j, channel) > best)
                best = tap_at(c, i, j, channel);
    return got == best;
}

/* As for a convolution: one addition a term; besides, the scale is rounded, and its product. Exact where the area is a
 * power of two. Bytes are exact: their sum is, and the product is rounded to f32. */
static bool mean_is_right(const struct pool_case *c, double got, uint32_t channel) {
    struct sum sum = {0};
    for (uint32_t i = 0; i < c->window.rows; i++)
        for (uint32_t j = 0; j < c->window.columns; j++)
            add_term(&sum, tap_at(c, i, j, channel));
    if (c->candidate->format == FORMAT_U8) {
        float product = (float)sum.value * c->window.scale, mean = product + c->window.offset;
        return got == (c->window.floats ? (double)mean : round_to_u8(mean));
    }
    double mean = sum.value / sum.terms + (double)c->window.offset;
    bool exact = c->numbers == INTEGERS && (sum.terms & (sum.terms - 1)) == 0;
    double limit = 2 * (sum.terms + 2) * UNIT * sum.magnitude / sum.terms + UNIT * fabs(mean);
    return is_near(pool_stored(c), got, mean, exact ? 0 : limit);
}

static void check_pool(const struct pool_case *c, pool_kernel *kernel,
                       bool (*check)(const struct pool_case *c, double got, uint32_t channel)) {
    float first[1024];
    const float *y = run_pool(kernel, c, AT_END);
    for (uint32_t channel = 0; channel < c->window.channels; channel++)
        assert_true(check(c, number_at(pool_stored(c), y, channel), channel));
    memcpy(first, y, pool_y_words(c) * sizeof *y);
    assert_memory_equal(run_pool(kernel, c, AT_START), first, pool_y_words(c) * sizeof *y);
}

static void check_pools(const struct pool_case *c) {
    fill(X, c->candidate->format, 0, pool_x_words(c), c->numbers);
    check_pool(c, c->candidate->kernels->max_window, max_is_right);
    check_pool(c, c->candidate->kernels->mean_window, mean_is_right);
    struct pool_case floats = *c; /* of any count of channels */
    floats.window.floats = true;
    floats.window.channels -= pick(0, word_numbers(c->candidate->format) - 1);
    floats.window.offset = rintf(test_float(&generator, -100, 100));
    check_pool(&floats, c->candidate->kernels->mean_window, mean_is_right);
}

/* A window of so many words. */
static struct pool_case pool_over(const struct candidate *candidate, uint32_t rows, uint32_t columns, uint32_t words) {
    struct pool_window window = {.x_pixel = words,
                                 .x_row = words * columns,
                                 .rows = rows,
                                 .columns = columns,
                                 .channels = words * word_numbers(candidate->format),
                                 .scale = 1 / (float)(rows * columns)};
    return (struct pool_case){candidate, window, (enum numbers)pick(INTEGERS, FRACTIONS)};
}

static void random_pools(const struct candidate *candidate) {
    const int shapes = random_shapes();
    for (int i = 0; i < shapes; i++) {
        struct pool_case c = pool_over(candidate, pick(1, 9), pick(1, 9), pick(1, 130));
        c.window.x_pixel += pick(0, 1) * pick(1, 30);
        c.window.x_row = c.window.x_pixel * c.window.columns + pick(0, 1) * pick(1, 30);
        if (candidate->format == FORMAT_U8)
            c.window.scale *= test_float(&generator, 0.5F, 4); /* between two scales of activations */
        check_pools(&c);
    }
}

static void edge_pools(const struct candidate *candidate) {
    for (uint32_t rows = 1; rows <= 7; rows++)
        for (uint32_t columns = 1; columns <= 7; columns++)
            for (uint32_t words = 1; words <= 35; words++) {
                struct pool_case c = pool_over(candidate, rows, columns, words);
                check_pools(&c);
            }
}

static void infinite_pools(const struct candidate *candidate) {
    enum format format = candidate->format;
    struct pool_case c = pool_over(candidate, 3, 3, 37);
    if (format == FORMAT_U8)
        return;
    fill_with(X, format, 0, pool_x_words(&c), -INFINITY);
    check_pool(&c, candidate->kernels->max_window, max_is_right);
    for (size_t i = 0; i < 37; i++)
        fill_with(X, format, 4 * c.window.x_pixel + i, 4 * c.window.x_pixel + i + 1, i % 2 ? INFINITY : -1);
    check_pool(&c, candidate->kernels->max_window, max_is_right);
}

static void test_random_pools(void **state) {
    (void)state;
    each_candidate(random_pools);
}

static void test_edge_pools(void **state) {
    (void)state;
    each_candidate(edge_pools);
    each_candidate(infinite_pools);
}

/* ---- Gates ---- */

struct gate_case {
    const struct candidate *candidate;
    struct gated_row row; /* no pointers yet */
    bool in_place;
    enum numbers numbers;
};

/* From the first pixel's first word to the last pixel's last. */
static size_t row_words(const struct gate_case *c, size_t pixel) {
    return (c->row.pixels - 1) * pixel + c->row.channels / word_numbers(c->candidate->format);
}

static const float *run_gate(const struct gate_case *c, enum side side) {
    struct gated_row row = c->row;
    size_t words = c->row.channels / word_numbers(c->candidate->format), count = row_words(c, row.y_pixel);
    row.x = place_copy(X, row_words(c, row.x_pixel), side);
    row.gate = place_copy(BIAS, row.channels, side);
    row.residual = place_copy(RESIDUAL, row_words(c, row.residual_pixel), side);
    row.y = place(Y, count, side);
    fill_canary(row.y, count);
    for (uint32_t p = 0; c->in_place && p < row.pixels; p++)
        memcpy(row.y + p * row.y_pixel, row.residual + p * row.residual_pixel, words * sizeof(float));
    if (c->in_place)
        row.residual = row.y;
    c->candidate->kernels->gate_row(&row);
    return row.y;
}

/* The formula above struct gated_row; in f32 its product and its sum round once each. */
static bool gate_is_right(const struct gate_case *c, double got, uint32_t p, uint32_t n) {
    enum format format = c->candidate->format;
    double x = number_at(format, master[X] + p * c->row.x_pixel, n);
    double residual = number_at(format, master[RESIDUAL] + p * c->row.residual_pixel, n);
    float gate = master[BIAS][n];
    if (format == FORMAT_U8) {
        float product = ((float)x - c->row.x_zero) * (gate * c->row.scale);
        float scaled = (float)residual * c->row.residual_scale, sum = product + scaled;
        return got == round_to_u8(sum + c->row.offset);
    }
    double product = x * (double)gate, sum = product + residual;
    double limit = c->numbers == INTEGERS ? 0 : 2 * UNIT * (fabs(product) + fabs(sum));
    return is_near(format, got, sum < 0 ? 0 : sum, limit);
}

static void check_gate(const struct gate_case *c) {
    static float first[1U << 14];
    const struct gated_row *row = &c->row;
    enum format format = c->candidate->format;
    size_t count = row_words(c, row->y_pixel);
    fill(X, format, 0, row_words(c, row->x_pixel), c->numbers);
    fill(BIAS, FORMAT_F32, 0, row->channels, c->numbers);
    fill(RESIDUAL, format, 0, row_words(c, row->residual_pixel), c->numbers);
    const float *y = run_gate(c, AT_END);
    for (size_t at = 0; at < count; at++) {
        uint32_t p = (uint32_t)(at / row->y_pixel), word = (uint32_t)(at % row->y_pixel), each = word_numbers(format);
        for (uint32_t n = word * each; n < (word + 1) * each; n++)
            assert_true(n < row->channels ? gate_is_right(c, number_at(format, y + p * row->y_pixel, n), p, n)
                                          : is_canary(y + at));
    }
    memcpy(first, y, count * sizeof *y);
    assert_memory_equal(run_gate(c, AT_START), first, count * sizeof *y);
}

static void gated_rows(const struct candidate *candidate) {
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t words = 1 + i % 40;
        struct gate_case c = {.candidate = candidate, .in_place = pick(0, 1), .numbers = (enum numbers)pick(0, 1)};
        c.row = (struct gated_row){.x_pixel = words + pick(0, 1) * pick(1, 20),
                                   .residual_pixel = words + pick(0, 1) * pick(1, 20),
                                   .y_pixel = words + pick(0, 1) * pick(1, 20),
                                   .pixels = pick(1, 9),
                                   .channels = words * word_numbers(candidate->format),
                                   .x_zero = (float)pick(0, 255),
                                   .scale = test_float(&generator, 0, 2),
                                   .residual_scale = test_float(&generator, 0, 2),
                                   .offset = test_float(&generator, -100, 200)};
        if (c.in_place)
            c.row.residual_pixel = c.row.y_pixel;
        check_gate(&c);
    }
}

static void test_gates(void **state) {
    (void)state;
    each_candidate(gated_rows);
}

/* ---- Conversion from f32 ---- */

/* Numbers that a caller may pass as they are. */
static const float strange[] = {NAN, INFINITY, -INFINITY, 3e38F, -3e38F, 1e9F, -0.0F};

static double converted(enum format format, float x, float factor, float term) {
    float product = x * factor;
    float value = product + term;
    return format == FORMAT_U8     ? round_to_u8(value)
           : format == FORMAT_BF16 ? nearest_bf16((double)value)
                                   : (double)value;
}

static void check_conversion(const struct candidate *candidate, uint32_t count, const float factor[16],
                             const float term[16]) {
    uint32_t words = count / word_numbers(candidate->format);
    for (enum side side = AT_END; side <= AT_START; side++) {
        const float *x = place_copy(X, count, side);
        float *y = place(Y, words, side);
        candidate->kernels->convert(x, y, count, factor, term);
        for (uint32_t i = 0; i < count; i++) {
            double wanted = converted(candidate->format, x[i], factor[i % 16], term[i % 16]);
            double got = number_at(candidate->format, y, i);
            assert_true(isnan(wanted) ? isnan(got) : got == wanted);
        }
    }
}

/* Pixels and halves between them, numbers, and what is none. */
static void conversions(const struct candidate *candidate) {
    for (uint32_t turn = 0; turn < 1000; turn++) {
        float factor[16], term[16];
        uint32_t count = 4 * pick(1, 40);
        bool halves = turn % 2;
        for (uint32_t i = 0; i < 16; i++) {
            factor[i] = halves ? 0.5F : test_float(&generator, 10, 200);
            term[i] = halves ? 0 : test_float(&generator, 0, 255);
        }
        for (uint32_t i = 0; i < count; i++)
            master[X][i] = pick(0, 9) == 0 ? strange[pick(0, COUNT(strange) - 1)]
                           : halves        ? (float)pick(0, 520) - 5
                                           : test_float(&generator, -3, 3);
        check_conversion(candidate, count, factor, term);
    }
}

static void test_conversions(void **state) {
    (void)state;
    each_candidate(conversions);
}

/* ---- The tables themselves, and the peak ---- */

static void sane_candidate(const struct candidate *candidate) {
    const struct format_kernels *k = candidate->kernels;
    assert_true(k->mr >= 1 && k->nr >= 4 && k->nr % 4 == 0);
    assert_true(k->group_nr == 4 || k->group_nr == 8 || k->group_nr == 16); /* whole groups, or a part of one */
    assert_true(k->conv_tile && k->group_tile && k->max_window && k->mean_window && k->gate_row && k->convert);
    assert_true(!candidate->winograd || candidate->winograd->products->nr == k->nr);
    assert_true(k->ops_a_round >= 2);
    assert_true(k->dot_rounds(0) == 0 && k->dot_rounds(1000) == 0); /* products of zeros */
}

static struct candidate looked_for;
static bool found;

static void look_at(const struct candidate *candidate) {
    found |= candidate->kernels == looked_for.kernels && candidate->winograd == looked_for.winograd;
}

/* Whatever the library chooses has been tested here. */
static void check_choice(const struct kernel_set *set) {
    assert_non_null(set->formats[FORMAT_F32]);
    assert_non_null(set->formats[FORMAT_U8]);
    for (int format = 0; format < FORMATS; format++) {
        looked_for = (struct candidate){.kernels = set->formats[format], .winograd = set->winograd[format]};
        found = false;
        each_candidate(look_at);
        assert_true(found || (!looked_for.kernels && !looked_for.winograd));
    }
}

static void test_tables(void **state) {
    (void)state;
    each_candidate(sane_candidate);
    assert_null(cpu_kernels(RESNET_ISA_REFERENCE));
    assert_non_null(cpu_kernels(RESNET_ISA_SCALAR));
    assert_non_null(cpu_kernels(RESNET_ISA_AUTO));
    for (int isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AMX; isa++) {
        const struct kernel_set *set = cpu_kernels((resnet_isa)isa);
        assert_true(!set || set->isa == (resnet_isa)isa);
        assert_int_equal(resnet_isa_check((resnet_isa)isa, NULL) == RESNET_OK, set != NULL);
        if (set)
            check_choice(set);
    }
}

/* Between a machine that is emulated badly and any core that could be: 1 M and 100 T operations a second. */
static void test_peak(void **state) {
    (void)state;
    for (int isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_AMX; isa++)
        for (int precision = RESNET_PRECISION_AUTO; precision <= RESNET_PRECISION_BF16X3; precision++) {
            double peak = -1;
            resnet_error error;
            resnet_status status = resnet_peak((resnet_isa)isa, (resnet_precision)precision, &peak, &error);
            assert_int_equal(status, cpu_kernels((resnet_isa)isa) ? RESNET_OK : RESNET_ERROR_UNSUPPORTED);
            assert_true(status == RESNET_OK ? peak > 1e6 && peak < 1e14 : peak == -1 && error.message[0]);
        }
    assert_int_equal(resnet_peak(RESNET_ISA_SCALAR, RESNET_PRECISION_F32, NULL, NULL), RESNET_ERROR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_edge_tiles),
        cmocka_unit_test(test_edge_windows),
        cmocka_unit_test(test_random_convolutions),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_result_does_not_depend_on_the_tile),
        cmocka_unit_test(test_special_numbers),
        cmocka_unit_test(test_winograd_transforms),
        cmocka_unit_test(test_edge_pools),
        cmocka_unit_test(test_random_pools),
        cmocka_unit_test(test_gates),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_peak),
    };
    return cmocka_run_group_tests(tests, make_guards, free_guards);
}
