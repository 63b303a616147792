/*
 * test_logistic.c - a fit is where the gradient of what logistic.h says is minimised vanishes, whatever the threads.
 *
 * The objective is convex, so this is all that an optimum needs; the gradient is computed here once more, in the
 * plainest way.
 */
#include "logistic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define PHOTOGRAPHS 37
#define VIEWS       3
#define FEATURES    10
#define CLASSES     5
#define SELECTED    29

/* Examples that overlap, some classes being rare, and a choice of them. */
struct data {
    float embeddings[PHOTOGRAPHS * VIEWS * FEATURES];
    uint32_t classes[PHOTOGRAPHS];
    uint8_t tags[PHOTOGRAPHS * CLASSES];
    uint32_t selected[PHOTOGRAPHS];
    double anchor[(FEATURES + 1) * 8]; /* 5 classes are padded to 8 */
    resnet_examples examples;
};

static void make(struct data *data, bool tags) {
    struct test_random random = {3};
    memset(data, 0, sizeof *data);
    for (uint32_t i = 0; i < PHOTOGRAPHS; i++) {
        data->selected[i] = (i * 7 + 3) % PHOTOGRAPHS; /* 7 and 37 have no common divisor */
        data->classes[i] = i < CLASSES ? i : test_below(&random, 2) ? 0 : test_below(&random, CLASSES);
        for (uint32_t k = 0; k < CLASSES; k++)
            data->tags[i * CLASSES + k] = test_below(&random, k + 2) == 0;
        for (uint32_t j = 0; j < VIEWS * FEATURES; j++)
            data->embeddings[i * VIEWS * FEATURES + j] =
                test_float(&random, 0, 2) + (float)(j % FEATURES == data->classes[i]);
    }
    for (size_t i = 0; i < COUNT(data->anchor); i++)
        data->anchor[i] = i % 8 < CLASSES && i < 8 * FEATURES ? (double)test_float(&random, -1, 1) : 0;
    data->examples = (resnet_examples){.count = PHOTOGRAPHS, .views = VIEWS, .embeddings = data->embeddings};
    if (tags)
        data->examples.tags = data->tags;
    else
        data->examples.classes = data->classes;
}

static struct logistic *create(const struct data *data, uint32_t threads) {
    struct logistic_problem problem = {&data->examples, FEATURES, CLASSES, threads, memory_allocator(NULL)};
    struct logistic *logistic;
    resnet_error error;
    assert_status(RESNET_OK, logistic_create(&logistic, &problem, &error), &error);
    assert_int_equal(logistic_size(logistic), COUNT(data->anchor));
    return logistic;
}

/* ---- Once more, plainly ---- */

static bool right(const struct data *data, uint32_t photograph, uint32_t class) {
    return data->examples.tags ? data->tags[photograph * CLASSES + class] : data->classes[photograph] == class;
}

static double weight_of(const struct data *data, uint32_t photograph, uint32_t class) {
    double same = 0, groups = data->examples.tags ? 2 : CLASSES;
    bool wanted = right(data, photograph, class);
    for (uint32_t i = 0; i < SELECTED; i++)
        same += right(data, data->selected[i], class) == wanted;
    return SELECTED / (groups * same) / VIEWS;
}

static uint32_t class_of(const struct data *data, uint32_t photograph) {
    return data->examples.tags ? 0 : data->classes[photograph];
}

struct classifier {
    float weight[CLASSES * FEATURES], bias[CLASSES];
};

/* What the classifier says of a view, as probabilities. */
static void answer(const struct data *data, const struct classifier *c, const float *x, double p[CLASSES]) {
    double sum = 0;
    for (uint32_t k = 0; k < CLASSES; k++) {
        double z = (double)c->bias[k];
        for (uint32_t j = 0; j < FEATURES; j++)
            z += (double)c->weight[k * FEATURES + j] * (double)x[j];
        p[k] = data->examples.tags ? 1 / (1 + exp(-z)) : exp(z);
        sum += p[k];
    }
    for (uint32_t k = 0; k < CLASSES && !data->examples.tags; k++)
        p[k] /= sum;
}

/* The largest component of the gradient at the classifier. */
static double gradient(const struct data *data, const struct classifier *c, double strength, const double *anchor) {
    double sums[CLASSES][FEATURES + 1] = {{0}}, largest = 0;
    for (uint32_t i = 0; i < SELECTED * VIEWS; i++) {
        uint32_t photograph = data->selected[i / VIEWS];
        const float *x = data->embeddings + (photograph * VIEWS + i % VIEWS) * FEATURES;
        double p[CLASSES];
        answer(data, c, x, p);
        for (uint32_t k = 0; k < CLASSES; k++) {
            double weight = weight_of(data, photograph, data->examples.tags ? k : class_of(data, photograph));
            double slope = weight * (p[k] - right(data, photograph, k));
            for (uint32_t j = 0; j < FEATURES; j++)
                sums[k][j] += slope * (double)x[j];
            sums[k][FEATURES] += slope;
        }
    }
    for (uint32_t k = 0; k < CLASSES; k++)
        for (uint32_t j = 0; j <= FEATURES; j++) {
            double away = j < FEATURES ? (double)c->weight[k * FEATURES + j] - (anchor ? anchor[j * 8 + k] : 0) : 0;
            largest = fmax(largest, fabs(sums[k][j] + away / strength));
        }
    return largest;
}

static double loss(const struct data *data, const struct classifier *c, const uint32_t *photographs, uint32_t count) {
    double sum = 0, p[CLASSES];
    for (uint32_t i = 0; i < count * VIEWS; i++) {
        uint32_t photograph = photographs[i / VIEWS];
        answer(data, c, data->embeddings + (photograph * VIEWS + i % VIEWS) * FEATURES, p);
        for (uint32_t k = 0; k < CLASSES; k++)
            if (data->examples.tags)
                sum -= weight_of(data, photograph, k) * log(right(data, photograph, k) ? p[k] : 1 - p[k]);
            else if (right(data, photograph, k))
                sum -= weight_of(data, photograph, k) * log(p[k]);
    }
    return sum;
}

/* ---- Tests ---- */

static void check_fit(bool tags, double strength, bool anchored) {
    struct data data;
    make(&data, tags);
    struct logistic *logistic = create(&data, 2);
    double solution[COUNT(data.anchor)] = {0};
    struct classifier c;
    struct selection fitted = {data.selected, SELECTED}, others = {data.selected + SELECTED, PHOTOGRAPHS - SELECTED};
    logistic_fit(logistic, fitted, (struct fit){strength, 1e-9, anchored ? data.anchor : NULL}, solution);
    logistic_read(logistic, solution, c.weight, c.bias);
    /* The weights are rounded to f32: each off by 2^-24 of at most 100, and multiplied by less than 3 for each of 111
     * views and 1 / strength. */
    assert_true(gradient(&data, &c, strength, anchored ? data.anchor : NULL) < 0x1p-24 * 100 * (300 + 1 / strength));
    double expected = loss(&data, &c, others.photographs, others.count);
    assert_true(fabs(logistic_loss(logistic, others, solution) - expected) < 1e-4 * expected); /* likewise */
    logistic_free(logistic);
}

static void test_gradient_vanishes(void **state) {
    (void)state;
    const double strengths[] = {1e-3, 0.1, 1, 30};
    for (size_t i = 0; i < COUNT(strengths); i++)
        for (int kind = 0; kind < 4; kind++)
            check_fit(kind % 2, strengths[i], kind / 2);
}

static void test_weak_strength_leaves_the_anchor(void **state) {
    (void)state;
    struct data data;
    make(&data, false);
    struct logistic *logistic = create(&data, 1);
    double solution[COUNT(data.anchor)] = {0};
    logistic_fit(logistic, (struct selection){data.selected, SELECTED}, (struct fit){1e-7, 1e-9, data.anchor},
                 solution);
    /* The losses' gradient is at most a number of 3 for each photograph, which weighs at most 6. */
    for (size_t i = 0; i < 8 * FEATURES; i++)
        assert_true(fabs(solution[i] - data.anchor[i]) <= 1e-7 * 3 * 6 * SELECTED);
    logistic_free(logistic);
}

static void test_threads_leave_no_trace(void **state) {
    (void)state;
    struct data data;
    double solutions[4][COUNT(data.anchor)] = {{0}};
    const uint32_t threads[] = {1, 2, 3, 8};
    for (size_t i = 0; i < COUNT(threads); i++) {
        make(&data, false);
        struct logistic *logistic = create(&data, threads[i]);
        logistic_fit(logistic, (struct selection){data.selected, SELECTED}, (struct fit){1, 1e-6, NULL}, solutions[i]);
        assert_memory_equal(solutions[i], solutions[0], sizeof solutions[i]);
        logistic_free(logistic);
    }
}

/* Examples that a plane divides: the losses go to 0, and the penalty alone holds the weights. */
static void test_strong_fit_of_separable_examples_ends(void **state) {
    (void)state;
    float embeddings[] = {0, 0, 1, 1, 0, 3, 1, 4};
    uint32_t classes[] = {0, 0, 1, 1}, all[] = {0, 1, 2, 3};
    double solution[3 * 4] = {0};
    float weight[4], bias[2];
    resnet_examples examples = {.count = 4, .embeddings = embeddings, .classes = classes};
    struct logistic_problem problem = {&examples, 2, 2, 1, memory_allocator(NULL)};
    struct logistic *logistic;
    resnet_error error;
    assert_status(RESNET_OK, logistic_create(&logistic, &problem, &error), &error);
    logistic_fit(logistic, (struct selection){all, 4}, (struct fit){1e9, 1e-9, NULL}, solution);
    logistic_read(logistic, solution, weight, bias);
    for (int i = 0; i < 4; i++) {
        double z[2];
        for (int k = 0; k < 2; k++)
            z[k] = (double)(weight[2 * k] * embeddings[2 * i] + weight[2 * k + 1] * embeddings[2 * i + 1] + bias[k]);
        assert_true((z[1] > z[0]) == (classes[i] == 1));
    }
    logistic_free(logistic);
}

static void test_equal_embeddings(void **state) {
    (void)state;
    float embeddings[8] = {1, 1, 1, 1, 1, 1, 1, 1}, weight[4], bias[2];
    uint32_t classes[] = {0, 1, 1, 1}, all[] = {0, 1, 2, 3};
    double solution[3 * 4] = {0};
    resnet_examples examples = {.count = 4, .embeddings = embeddings, .classes = classes};
    struct logistic_problem problem = {&examples, 2, 2, 1, memory_allocator(NULL)};
    struct logistic *logistic;
    resnet_error error;
    assert_status(RESNET_OK, logistic_create(&logistic, &problem, &error), &error);
    assert_true(logistic_spread(logistic) > 0);
    logistic_fit(logistic, (struct selection){all, 4}, (struct fit){1, 1e-9, NULL}, solution);
    logistic_read(logistic, solution, weight, bias);
    for (int i = 0; i < 4; i++)
        assert_true(weight[i] == 0);
    assert_true(fabsf(bias[0] - bias[1]) < 1e-6F); /* balanced: both are as likely; to the tolerance of the fit */
    logistic_free(logistic);
}

static void test_refused_memory(void **state) {
    (void)state;
    struct data data;
    make(&data, false);
    for (size_t refuse = 1; refuse <= 3; refuse++) {
        struct test_memory memory;
        struct logistic *logistic = (struct logistic *)&memory;
        resnet_error error = {RESNET_OK, ""};
        test_memory_init(&memory, 0xa5);
        memory.refuse = refuse;
        struct logistic_problem problem = {&data.examples, FEATURES, CLASSES, 2, memory.allocator};
        assert_status(RESNET_ERROR_MEMORY, logistic_create(&logistic, &problem, &error), &error);
        assert_null(logistic);
        test_memory_check(&memory);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient_vanishes),      cmocka_unit_test(test_weak_strength_leaves_the_anchor),
        cmocka_unit_test(test_threads_leave_no_trace), cmocka_unit_test(test_strong_fit_of_separable_examples_ends),
        cmocka_unit_test(test_equal_embeddings),       cmocka_unit_test(test_refused_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
