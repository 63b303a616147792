/*
 * test_amx.c - the AMX kernels against the formula of kernels.h, emulated where the CPU has no AMX.
 *
 * As in test_kernels.c, everything that a kernel reads or writes lies flush against a page that cannot be touched, once
 * at its end and once at its start.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "support.h"

#if defined(__x86_64__) && defined(__linux__)
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "amx_emulator.h"
#include "bf16.h"
#include "model.h"

#define UNIT      0x1p-24 /* what f32 rounds by, relative */
#define BF16_UNIT 0x1p-8  /* what bf16 rounds by */

static bool emulated; /* rather than executed by the CPU */

/* ---- Guarded memory ---- */

enum role { X, PANEL, Y, RESIDUAL, ROLES };
enum side { AT_END, AT_START };

/* Words that each role has room for. */
enum { ROOM = 1 << 18 };
static unsigned char *guarded[ROLES];      /* between two pages without access */
static float master[ROLES][ROOM];          /* what a kernel is to find there */
static const uint32_t canary = 0x7fa0dead; /* what no kernel writes */

static int make_guards(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = ROOM * sizeof(float);
    for (int role = 0; role < ROLES; role++) {
        unsigned char *all = mmap(NULL, size + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (all == MAP_FAILED || mprotect(all, page, PROT_NONE) || mprotect(all + page + size, page, PROT_NONE))
            return -1;
        guarded[role] = all + page;
    }
    return 0;
}

static int free_guards(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int role = 0; role < ROLES; role++)
        munmap(guarded[role] - page, ROOM * sizeof(float) + 2 * page);
    return 0;
}

/* `count` words that touch a guard, as in the master copy. */
static float *place_copy(enum role role, size_t count, enum side side) {
    assert_true(count <= ROOM);
    float *place = (float *)(void *)guarded[role] + (side == AT_END ? ROOM - count : 0);
    return memcpy(place, master[role], count * sizeof(float));
}

/* ---- One case ---- */

enum residual { NO_RESIDUAL, APART, IN_PLACE };
enum numbers { FRACTIONS, INTEGERS }; /* of bf16: [-1, 1), or small integers, whose sums are exact in any order */

struct amx_case {
    enum format format;
    const struct format_kernels *kernels;
    struct conv_tile tile; /* sizes, strides and scales; no pointers yet */
    enum residual residual;
    enum numbers numbers;
};

static struct test_random generator;

static uint32_t pick(uint32_t low, uint32_t high) {
    return test_between(&generator, low, high);
}

static uint32_t heads(const struct amx_case *c) {
    return c->format == FORMAT_U8 ? 2 : 1;
}

static size_t window_words(const struct amx_case *c) {
    return (size_t)c->tile.rows * c->tile.columns * c->tile.run;
}

static size_t x_words(const struct amx_case *c) {
    const struct conv_tile *t = &c->tile;
    return (t->pixels - 1) * t->x_pixel + (t->rows - 1) * t->x_row + (t->columns - 1) * t->x_column + t->run;
}

static size_t panel_words(const struct amx_case *c) {
    return (heads(c) + window_words(c)) * c->kernels->nr;
}

/* Words of the output that a pixel has. */
static size_t y_width(const struct amx_case *c) {
    return c->tile.floats ? c->tile.channels : c->tile.channels / word_numbers(c->format);
}

static size_t y_words(const struct amx_case *c) {
    return (c->tile.pixels - 1) * c->tile.y_pixel + y_width(c);
}

/* ---- Numbers ---- */

static uint16_t random_bf16(enum numbers numbers) {
    float a = test_float(&generator, -1, 1);
    return bf16_from_float(numbers == INTEGERS ? rintf(4 * a) : a);
}

static void fill_words(const struct amx_case *c, float *to, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t word = (uint32_t)test_u64(&generator);
        if (c->format == FORMAT_BF16)
            word = random_bf16(c->numbers) | (uint32_t)random_bf16(c->numbers) << 16;
        memcpy(to + i, &word, sizeof word);
    }
}

/* Biases; for u8 also scales that bring sums of random bytes into the order of 0..255. */
static void fill_heads(const struct amx_case *c) {
    uint32_t nr = c->kernels->nr;
    double spread = 10000 * sqrt(4.0 * (double)window_words(c));
    for (uint32_t n = 0; n < nr; n++) {
        float bias = test_float(&generator, -1, 1);
        int32_t whole = (int32_t)((double)bias * spread);
        master[PANEL][n] = c->numbers == INTEGERS ? rintf(4 * bias) : bias;
        if (c->format == FORMAT_U8) {
            memcpy(master[PANEL] + n, &whole, sizeof whole);
            master[PANEL][nr + n] = test_float(&generator, 0, (float)(200 / spread));
        }
    }
}

static void fill_case(struct amx_case *c) {
    uint32_t nr = c->kernels->nr;
    fill_words(c, master[X], x_words(c));
    fill_heads(c);
    fill_words(c, master[PANEL] + heads(c) * nr, window_words(c) * nr);
    fill_words(c, master[RESIDUAL], y_words(c));
    for (size_t row = 0; row < heads(c) + window_words(c); row++)
        for (uint32_t n = c->tile.channels; n < nr; n++)
            master[PANEL][row * nr + n] = 0;
    c->tile.residual_scale = test_float(&generator, -2, 2);
    c->tile.offset = test_float(&generator, -100, 200);
}

static float bf16_at(const float *words, size_t i) {
    uint16_t a;
    memcpy(&a, (const char *)words + i * sizeof a, sizeof a);
    return bf16_to_float(a);
}

/* ---- The formula above struct conv_tile ---- */

/* Visits the pairs of words of one output number; `visit` adds their product to `sum`. */
static void each_product(const struct amx_case *c, uint32_t p, uint32_t n,
                         void (*visit)(void *sum, const float *x, const float *w), void *sum) {
    const struct conv_tile *t = &c->tile;
    const float *w = master[PANEL] + heads(c) * c->kernels->nr + n;
    for (uint32_t i = 0; i < t->rows; i++)
        for (uint32_t j = 0; j < t->columns; j++)
            for (uint32_t k = 0; k < t->run; k++, w += c->kernels->nr)
                visit(sum, master[X] + p * t->x_pixel + i * t->x_row + j * t->x_column + k, w);
}

static void add_bytes(void *sum, const float *x, const float *w) {
    for (uint32_t i = 0; i < 4; i++)
        *(int32_t *)sum += ((const uint8_t *)x)[i] * ((const int8_t *)w)[i];
}

/* Exact: every operation rounds to f32 as the kernels' do. */
static float wanted_u8(const struct amx_case *c, uint32_t p, uint32_t n) {
    int32_t sum;
    memcpy(&sum, master[PANEL] + n, sizeof sum);
    each_product(c, p, n, add_bytes, &sum);
    float a = (float)sum * master[PANEL][c->kernels->nr + n];
    if (c->tile.floats)
        return a;
    if (c->residual != NO_RESIDUAL)
        a += (float)((const uint8_t *)(master[RESIDUAL] + p * c->tile.y_pixel))[n] * c->tile.residual_scale;
    a += c->tile.offset;
    return rintf(a > 255 ? 255 : a < 0 ? 0 : a);
}

struct bf16_sum {
    double value, magnitude; /* of what is added, and of its absolute values */
    uint32_t terms;
};

static void add_term(struct bf16_sum *sum, double term) {
    sum->value += term;
    sum->magnitude += fabs(term);
    sum->terms++;
}

static void add_pairs(void *sum, const float *x, const float *w) {
    for (uint32_t i = 0; i < 2; i++)
        add_term(sum, (double)bf16_at(x, i) * (double)bf16_at(w, i));
}

/*
 * Products of two bf16 are exact in f32; each of the additions, in whatever order, rounds once by 2^-24 of no more than
 * the magnitude. Twice that leaves room for the higher orders. A ReLU brings two numbers no further apart. The stored
 * bf16 is rounded once more. Sums of small integers have no error before that.
 */
static bool good_bf16(const struct amx_case *c, uint32_t p, uint32_t n, float got) {
    struct bf16_sum sum = {0};
    add_term(&sum, (double)master[PANEL][n]);
    each_product(c, p, n, add_pairs, &sum);
    if (c->residual != NO_RESIDUAL)
        add_term(&sum, (double)bf16_at(master[RESIDUAL] + p * c->tile.y_pixel, n));
    double wanted = c->tile.relu && !c->tile.floats && sum.value < 0 ? 0 : sum.value;
    double bound = c->numbers == INTEGERS ? 0 : 2 * sum.terms * UNIT * sum.magnitude;
    if (!c->tile.floats)
        bound += BF16_UNIT * (fabs(wanted) + bound);
    return fabs((double)got - wanted) <= bound;
}

/* ---- Run and check ---- */

/* Run with everything on this side of its guards; returns y. */
static float *run_case(const struct amx_case *c, enum side side) {
    struct conv_tile tile = c->tile;
    size_t count = y_words(c);
    tile.x = place_copy(X, x_words(c), side);
    tile.panel = tile.ahead = place_copy(PANEL, panel_words(c), side);
    tile.y = place_copy(Y, count, side);
    for (size_t i = 0; i < count; i++)
        memcpy(tile.y + i, &canary, sizeof canary);
    if (c->residual == APART)
        tile.residual = place_copy(RESIDUAL, count, side);
    if (c->residual == IN_PLACE) {
        tile.residual = tile.y;
        for (uint32_t p = 0; p < tile.pixels; p++)
            memcpy(tile.y + p * tile.y_pixel, master[RESIDUAL] + p * tile.y_pixel, y_width(c) * sizeof(float));
    }
    c->kernels->conv_tile(&tile);
    return tile.y;
}

static float number_at(const struct amx_case *c, const float *pixel, uint32_t n) {
    return c->tile.floats ? pixel[n] : c->format == FORMAT_U8 ? ((const uint8_t *)pixel)[n] : bf16_at(pixel, n);
}

static void check_number(const struct amx_case *c, const float *y, uint32_t p, uint32_t n) {
    const struct conv_tile *t = &c->tile;
    float got = number_at(c, y + p * t->y_pixel, n);
    if (c->format == FORMAT_U8 ? got == wanted_u8(c, p, n) : good_bf16(c, p, n, got))
        return;
    fail_msg("%s: pixel %u of %u, channel %u of %u, window %ux%ux%u, residual %d, relu %d, floats %d: %.9g is wrong",
             c->format == FORMAT_U8 ? "u8" : "bf16", p, t->pixels, n, t->channels, t->rows, t->columns, t->run,
             (int)c->residual, t->relu, t->floats, (double)got);
}

static void check_gaps(const struct amx_case *c, const float *y) {
    for (uint32_t p = 0; p + 1 < c->tile.pixels; p++)
        for (size_t i = y_width(c); i < c->tile.y_pixel; i++)
            assert_memory_equal(y + p * c->tile.y_pixel + i, &canary, sizeof canary);
}

static void check_case(struct amx_case c) {
    static float first[ROOM];
    fill_case(&c);
    const float *y = run_case(&c, AT_END);
    for (uint32_t p = 0; p < c.tile.pixels; p++)
        for (uint32_t n = 0; n < c.tile.channels; n++)
            check_number(&c, y, p, n);
    check_gaps(&c, y);
    memcpy(first, y, y_words(&c) * sizeof(float));
    assert_memory_equal(run_case(&c, AT_START), first, y_words(&c) * sizeof(float));
}

/* ---- Which cases ---- */

struct window {
    uint32_t rows, columns, run, stride, gap; /* gap: words between a pixel's channels and the next pixel */
};

/* A tile as the executor would place it: `run` words a pixel in rows just wide enough for the tile. `flags`: bit 0:
 * relu, bit 1: floats, bit 2: a gap behind each pixel of the output. */
static struct amx_case case_of(enum format format, struct window w, uint32_t pixels, uint32_t channels,
                               uint32_t flags) {
    size_t pixel = w.run + w.gap;
    uint32_t numbers = flags & 2 ? 1 : word_numbers(format);
    channels = (channels + numbers - 1) / numbers * numbers;
    return (struct amx_case){.format = format,
                             .kernels = format == FORMAT_U8 ? &u8_amx : &bf16_amx,
                             .tile = {.x_pixel = w.stride * pixel,
                                      .x_row = ((pixels - 1) * w.stride + w.columns) * pixel,
                                      .x_column = pixel,
                                      .rows = w.rows,
                                      .columns = w.columns,
                                      .run = w.run,
                                      .y_pixel = channels / numbers + (flags & 4 ? 3 : 0),
                                      .pixels = pixels,
                                      .channels = channels,
                                      .relu = flags & 1,
                                      .floats = (flags & 2) != 0}};
}

static void each_format(void (*test)(enum format format)) {
    emulated = amx_emulate();
    for (enum format format = FORMAT_BF16; format <= FORMAT_U8; format++) {
        generator.state = format;
        test(format);
    }
}

static void random_tiles(enum format format) {
    static const uint32_t side[] = {1, 1, 1, 1, 2, 3, 3, 7};
    for (int i = test_quick() ? 1000 : 5000; i > 0; i--) {
        struct window w = {side[pick(0, 7)], side[pick(0, 4)], pick(1, pick(1, 70)), pick(1, 3),
                           pick(0, 1) * pick(1, 20)};
        struct amx_case c = case_of(format, w, pick(1, pick(1, 32)), pick(1, 32), pick(0, 7));
        c.residual = c.tile.floats ? NO_RESIDUAL : (enum residual)pick(NO_RESIDUAL, IN_PLACE);
        c.numbers = (enum numbers)pick(FRACTIONS, INTEGERS);
        check_case(c);
    }
}

/* Every count of pixels and channels. */
static void edge_tiles(enum format format) {
    static const uint32_t runs[] = {1, 4, 7, 8, 14, 16, 17};
    uint32_t turn = 0;
    for (uint32_t pixels = 1; pixels <= 32; pixels++)
        for (uint32_t channels = 1; channels <= 32; channels++, turn++) {
            struct window w = {1 + turn % 2, 1, runs[turn % COUNT(runs)], 1 + turn % 2, 0};
            struct amx_case c = case_of(format, w, pixels, channels, turn % 8);
            c.residual = c.tile.floats ? NO_RESIDUAL : (enum residual)(turn % 3);
            check_case(c);
        }
}

/* Every run, and so every length of a step, in both halves of the tile. */
static void edge_runs(enum format format) {
    for (uint32_t run = 1; run <= 70; run++)
        for (uint32_t pixels = 15; pixels <= 32; pixels += 17) {
            check_case(case_of(format, (struct window){1, 1, run, 1, run % 5}, pixels, 32, 0));
            check_case(case_of(format, (struct window){2, 3, run, 2, 0}, pixels, 32, 1));
        }
}

static void test_random_tiles(void **state) {
    (void)state;
    each_format(random_tiles);
}

static void test_edge_tiles(void **state) {
    (void)state;
    each_format(edge_tiles);
}

static void test_edge_runs(void **state) {
    (void)state;
    each_format(edge_runs);
}

/* A part of a tile gives the bits that the whole gives, whichever way its run is computed. */
static void splits_of_a_tile(enum format format) {
    for (uint32_t run = 1; run <= 40; run++) {
        struct window w = {pick(1, 3), pick(1, 3), run, pick(1, 2), 0};
        struct amx_case c = case_of(format, w, 32, 32, 1);
        c.residual = APART;
        fill_case(&c);
        static float wanted[ROOM];
        memcpy(wanted, run_case(&c, AT_END), y_words(&c) * sizeof(float));
        for (uint32_t first = 0, pixels; first < 32; first += pixels) {
            float y[32 * 32];
            struct conv_tile part = c.tile;
            part.pixels = pixels = pick(1, 32 - first);
            part.x = master[X] + first * part.x_pixel;
            part.panel = part.ahead = master[PANEL];
            part.residual = master[RESIDUAL] + first * part.y_pixel;
            part.y = y;
            c.kernels->conv_tile(&part);
            assert_memory_equal(y, wanted + first * part.y_pixel, pixels * part.y_pixel * sizeof(float));
        }
    }
}

static void test_splits(void **state) {
    (void)state;
    each_format(splits_of_a_tile);
}

/* Groups narrower than a tile are computed in AVX-512: a tile has the bits of its pixels, one by one. */
static void group_tiles(enum format format) {
    const struct format_kernels *vectors = format == FORMAT_U8 ? &u8_avx512 : &bf16_avx512;
    for (uint32_t turn = 0; turn < 96; turn++) {
        uint32_t group = 4U << turn / 32, pixels = 1 + turn % 32;
        struct window w = {3, 3, group / word_numbers(format), pick(1, 2), 16};
        struct amx_case c = case_of(format, w, pixels, 16, turn % 8);
        c.residual = c.tile.floats ? NO_RESIDUAL : APART;
        fill_case(&c);
        float wanted[16], y[32 * 20];
        struct conv_tile tile = c.tile;
        tile.group = group;
        tile.x = master[X];
        tile.panel = tile.ahead = master[PANEL];
        tile.residual = c.tile.floats ? NULL : master[RESIDUAL];
        tile.y = y;
        c.kernels->group_tile(&tile);
        tile.y = wanted;
        for (tile.pixels = 1; tile.x < master[X] + pixels * tile.x_pixel; tile.x += tile.x_pixel) {
            size_t place = (size_t)(tile.x - master[X]) / tile.x_pixel * tile.y_pixel;
            if (tile.residual)
                tile.residual = master[RESIDUAL] + place;
            vectors->group_tile(&tile);
            assert_memory_equal(y + place, wanted, y_width(&c) * sizeof(float));
        }
    }
}

static void test_groups(void **state) {
    (void)state;
    each_format(group_tiles);
}

/* ---- What is executed ---- */

/* The instructions of one tile of a 3x3 with this run. */
static struct amx_counts counts_of(enum format format, uint32_t run, uint32_t pixels) {
    struct amx_case c = case_of(format, (struct window){3, 3, run, 1, 0}, pixels, 32, 0);
    struct amx_counts before = amx_counts();
    fill_case(&c);
    run_case(&c, AT_END);
    struct amx_counts after = amx_counts();
    return (struct amx_counts){after.configures - before.configures, after.releases - before.releases,
                               after.loads - before.loads, after.stores - before.stores,
                               after.products - before.products};
}

/* With as many steps for each of nine taps, where a step takes both blocks of pixels, or one. */
static void assert_counts(struct amx_counts counts, uint64_t steps, uint64_t blocks) {
    assert_int_equal(counts.configures, 1);
    assert_int_equal(counts.loads, 2 * blocks + 9 * steps * (2 + blocks));
    assert_int_equal(counts.products, 9 * steps * 2 * blocks);
    assert_int_equal(counts.stores, 2 * blocks);
}

static void counts(enum format format) {
    const struct format_kernels *kernels = format == FORMAT_U8 ? &u8_amx : &bf16_amx;
    assert_counts(counts_of(format, 32, 32), 2, 2);
    assert_counts(counts_of(format, 32, 16), 2, 1);
    assert_counts(counts_of(format, 7, 17), 1, 2);
    assert_counts(counts_of(format, 24, 1), 2, 1);           /* two steps of 12 words */
    assert_int_equal(counts_of(format, 17, 32).products, 0); /* nothing but steps of one word */
    assert_true(amx_configured());
    kernels->leave();
    assert_false(amx_configured());
}

static void test_counts(void **state) {
    (void)state;
    if (!amx_emulate())
        skip();
    each_format(counts);
}

/* The panels and pixels are laid out for AVX-512 as well, which takes the layers that tiles do not fit. */
static void test_same_panels(void **state) {
    (void)state;
    assert_int_equal(u8_amx.nr, u8_avx512.nr);
    assert_int_equal(bf16_amx.nr, bf16_avx512.nr);
    assert_int_equal(u8_amx.group_nr, u8_avx512.group_nr);
    assert_int_equal(bf16_amx.group_nr, bf16_avx512.group_nr);
}

static void dot_rounds(enum format format) {
    const struct format_kernels *kernels = format == FORMAT_U8 ? &u8_amx : &bf16_amx;
    uint64_t before = amx_counts().products;
    assert_true(kernels->dot_rounds(5) == 0);
    assert_false(amx_configured());
    if (emulated) {
        assert_int_equal(amx_counts().products - before, 5 * 4);
        assert_true(kernels->ops_a_round == 2.0 * 4 * 16 * 16 * 16 * word_numbers(format));
    }
}

static void test_dot_rounds(void **state) {
    (void)state;
    each_format(dot_rounds);
}

/* ---- A whole network ---- */

/* The caller's own pool, whose only thread takes the parts from the last to the first: workers of the library keep the
 * emulator's signal blocked. */
static void one_thread(void *context, uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    (void)context;
    for (uint32_t i = count; i > 0; i--)
        task(argument, i - 1);
}

enum { CLASSES = 10, SIDE = 32 };

/* Logits of a fixed random image, with these kernels, in so many parts. */
static void run_network(resnet_model *model, const struct kernel_set *kernels, uint32_t parts, float logits[CLASSES]) {
    static float pixels[3 * SIDE * SIDE];
    resnet_error error;
    resnet_session *session;
    struct test_random random = {7};
    for (size_t i = 0; i < COUNT(pixels); i++)
        pixels[i] = test_float(&random, 0, 1);
    model->kernels = kernels;
    resnet_session_options options = {.threads = parts, .parallel_for = one_thread};
    assert_status(RESNET_OK, resnet_session_create(model, &options, &session, &error), &error);
    assert_status(RESNET_OK, resnet_session_set_floats(session, 0, pixels, RESNET_NCHW, &error), &error);
    assert_status(RESNET_OK, resnet_session_run(session, 1, logits, &error), &error);
    resnet_session_free(session);
}

static resnet_model *random_network(uint32_t base_width, resnet_precision precision) {
    resnet_config config;
    resnet_error error;
    resnet_model *model;
    assert_status(RESNET_OK, resnet_config_preset("resnet50", &config, &error), &error);
    for (uint32_t i = 0; i < 4; i++)
        config.blocks[i] = 1;
    config.base_width = base_width;
    config.classes = CLASSES;
    config.height = config.width = SIDE;
    resnet_load_options options = {.isa = RESNET_ISA_AVX512, .precision = precision, .no_winograd = 1};
    assert_status(RESNET_OK, resnet_model_random(&config, 1, &options, &model, &error), &error);
    return model;
}

/* `amx` over the panels that were packed for AVX-512; the logits are not all the same. Returns those of AVX-512. */
static void compare_network(uint32_t base_width, resnet_precision precision, float vectors[CLASSES],
                            float tiles[CLASSES]) {
    resnet_model *model = random_network(base_width, precision);
    const struct kernel_set *avx512 = model->kernels;
    const struct kernel_set amx = {RESNET_ISA_AMX, {&f32_avx512, &bf16_amx, &u8_amx}, {&winograd_avx512}};
    float again[CLASSES];
    uint64_t before = amx_counts().products;
    run_network(model, avx512, 1, vectors);
    assert_int_equal(amx_counts().products, before);
    run_network(model, &amx, 1, tiles);
    assert_true(!emulated || amx_counts().products > before);
    run_network(model, &amx, 3, again);
    assert_memory_equal(again, tiles, sizeof again);
    assert_memory_not_equal(tiles, tiles + 1, (CLASSES - 1) * sizeof *tiles);
    resnet_model_free(model);
}

/* 64 has steps of 16 words, and of 7 in the stem; 68 leaves some layers, with 17 words a pixel, to vectors. */
static void test_network_int8(void **state) {
    (void)state;
    static const uint32_t base_widths[] = {64, 68};
    emulated = amx_emulate();
    for (size_t i = 0; i < COUNT(base_widths); i++) {
        float vectors[CLASSES], tiles[CLASSES];
        compare_network(base_widths[i], RESNET_PRECISION_INT8, vectors, tiles);
        assert_memory_equal(tiles, vectors, sizeof tiles);
    }
}

/* The sums differ in their order, by 2^-24 or so, and few of them round to another bf16 for that. The bound is as if
 * all terms of a logit did, by the 2^-8 that two neighbours are apart. */
static void test_network_bf16(void **state) {
    (void)state;
    emulated = amx_emulate();
    float vectors[CLASSES], tiles[CLASSES], largest = 0;
    compare_network(64, RESNET_PRECISION_BF16, vectors, tiles);
    for (int i = 0; i < CLASSES; i++)
        largest = fmaxf(largest, fabsf(vectors[i]));
    for (int i = 0; i < CLASSES; i++)
        assert_true(fabsf(tiles[i] - vectors[i]) <= 0x1p-8F * largest);
}

static bool has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_panels),  cmocka_unit_test(test_edge_tiles), cmocka_unit_test(test_edge_runs),
        cmocka_unit_test(test_random_tiles), cmocka_unit_test(test_splits),     cmocka_unit_test(test_groups),
        cmocka_unit_test(test_counts),       cmocka_unit_test(test_dot_rounds), cmocka_unit_test(test_network_int8),
        cmocka_unit_test(test_network_bf16),
    };
    return has_avx512() ? cmocka_run_group_tests(tests, make_guards, free_guards) : 77;
}
#else
int main(void) {
    return 77; /* skipped: AMX is x86-64's, and the library asks Linux for it */
}
#endif
