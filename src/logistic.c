/* logistic.c - logistic regression with an L2 penalty, by Newton's method with conjugate gradients. */
#include "logistic.h"

#include <math.h>
#include <string.h>

#include "cpu.h"
#include "error.h"
#include "floats.h"
#include "split.h"
#include "threads.h"

#define LANES       4   /* rows, and classes, that are summed side by side */
#define MOST_STEPS  100 /* of Newton's method; some ten are usual */
#define MOST_TRIALS 30  /* of a step's length, each half of the one before */
#define MOST_INNER  250 /* conjugate gradients in a step */

/* Vectors of the solver, each as large as a solution. */
enum { GRADIENT, STEP, RESIDUAL, DIRECTION, PRODUCT, VECTORS };

struct logistic {
    struct logistic_problem problem;
    struct pool *pool;
    uint32_t width; /* classes, rounded up to LANES */
    double *mean;   /* [features] of all embeddings */
    double spread;
    double *vectors; /* [VECTORS][size] */
    double *balance; /* [2][width]: what a class weighs where it is not right, and where it is */

    /* Of the rows of a selection, a row a view: */
    struct selection selection;
    const double *solution; /* that the scores are of */
    double *scores;         /* [rows][width], and what is made of them */
    double *probabilities;  /* [rows][width] */
    double *losses;         /* [rows] */
    double *sums;           /* [size] that the rows are added up in */
    void *memory;           /* all arrays */
    size_t memory_size;
};

/* ---- Rows ---- */

static uint32_t views_of(const struct logistic *l) {
    return l->problem.examples->views ? l->problem.examples->views : 1;
}

static uint32_t rows_of(const struct logistic *l) {
    return l->selection.count * views_of(l);
}

static uint32_t photograph_of(const struct logistic *l, uint32_t row) {
    return l->selection.photographs[row / views_of(l)];
}

static const float *embedding_of(const struct logistic *l, uint32_t row) {
    size_t place = (size_t)photograph_of(l, row) * views_of(l) + row % views_of(l);
    return l->problem.examples->embeddings + place * l->problem.features;
}

/* The embeddings of LANES rows; past the last row, of that. */
static void embeddings_of(const struct logistic *l, uint32_t first, const float *x[LANES]) {
    for (uint32_t r = 0; r < LANES; r++)
        x[r] = embedding_of(l, smaller(first + r, rows_of(l) - 1));
}

static bool is_right(const struct logistic *l, uint32_t photograph, uint32_t class) {
    return example_is_right(l->problem.examples, photograph, class, l->problem.classes);
}

static double weight_of(const struct logistic *l, uint32_t class, bool right) {
    return l->balance[right * l->width + class] / views_of(l);
}

/* ---- Passes over all rows ---- */

/* Scores of LANES rows: x * solution + bias. */
static void score(const struct logistic *l, uint32_t first) {
    const float *x[LANES];
    uint32_t features = l->problem.features, rows = smaller(LANES, rows_of(l) - first);
    embeddings_of(l, first, x);
    for (uint32_t k = 0; k < l->width; k += LANES) {
        const double *w = l->solution + k;
        double sum[LANES][LANES] = {{0}};
        for (uint32_t j = 0; j < features; j++, w += l->width)
            for (uint32_t r = 0; r < LANES; r++) {
                double value = (double)x[r][j] - l->mean[j];
                for (uint32_t c = 0; c < LANES; c++)
                    sum[r][c] += value * w[c];
            }
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < LANES; c++)
                l->scores[(size_t)(first + r) * l->width + k + c] = sum[r][c] + w[c];
    }
}

/* From a row's scores to its loss, probabilities, and, in place of the scores, the loss's derivatives. */
static double judge_softmax(const struct logistic *l, uint32_t row, double *z, double *p) {
    uint32_t right = l->problem.examples->classes[photograph_of(l, row)], classes = l->problem.classes;
    double most = z[0], sum = 0, weight = weight_of(l, right, true), score_of_right = z[right];
    for (uint32_t k = 1; k < classes; k++)
        most = z[k] > most ? z[k] : most;
    for (uint32_t k = 0; k < classes; k++)
        sum += z[k] = exp(z[k] - most);
    for (uint32_t k = 0; k < classes; k++) {
        double share = z[k] / sum;
        p[k] = share;
        z[k] = weight * (share - (k == right));
    }
    return weight * (log(sum) + most - score_of_right);
}

static double judge_sigmoid(const struct logistic *l, uint32_t row, double *z, double *p) {
    double loss = 0;
    for (uint32_t k = 0; k < l->problem.classes; k++) {
        bool right = is_right(l, photograph_of(l, row), k);
        double weight = weight_of(l, k, right), small = exp(-fabs(z[k]));
        double share = (z[k] > 0 ? 1 : small) / (1 + small);
        loss += weight * (log1p(small) + fmax(right ? -z[k] : z[k], 0));
        p[k] = share;
        z[k] = weight * (share - right);
    }
    return loss;
}

/* From a row's scores for a direction to the change of the loss's derivatives along it. */
static void bend_softmax(const struct logistic *l, uint32_t row, double *z, const double *p) {
    double mean = 0, weight = weight_of(l, l->problem.examples->classes[photograph_of(l, row)], true);
    for (uint32_t k = 0; k < l->problem.classes; k++)
        mean += p[k] * z[k];
    for (uint32_t k = 0; k < l->problem.classes; k++)
        z[k] = weight * p[k] * (z[k] - mean);
}

static void bend_sigmoid(const struct logistic *l, uint32_t row, double *z, const double *p) {
    for (uint32_t k = 0; k < l->problem.classes; k++)
        z[k] *= weight_of(l, k, is_right(l, photograph_of(l, row), k)) * p[k] * (1 - p[k]);
}

/* A part of the rows, LANES at a time. */
static struct span rows_of_part(const struct logistic *l, uint32_t index, uint32_t count) {
    struct span part = part_of(divide_up(rows_of(l), LANES), index, count);
    return (struct span){part.begin * LANES, smaller(part.end * LANES, rows_of(l))};
}

/* Scores, and what is made of them: for a solution by judging, for a direction by bending. */
static void pass_rows(struct logistic *l, struct span part, bool judging) {
    bool tags = l->problem.examples->tags;
    for (uint32_t row = part.begin; row < part.end; row += LANES)
        score(l, row);
    for (uint32_t row = part.begin; row < part.end; row++) {
        double *z = l->scores + (size_t)row * l->width, *p = l->probabilities + (size_t)row * l->width;
        if (judging)
            l->losses[row] = (tags ? judge_sigmoid : judge_softmax)(l, row, z, p);
        else
            (tags ? bend_sigmoid : bend_softmax)(l, row, z, p);
    }
}

static void judge_rows(void *argument, uint32_t index, uint32_t count) {
    pass_rows(argument, rows_of_part(argument, index, count), true);
}

static void bend_rows(void *argument, uint32_t index, uint32_t count) {
    pass_rows(argument, rows_of_part(argument, index, count), false);
}

/* Add LANES rows to the sums of some features; past the last row, the scores are zeros. */
static void add_rows(const struct logistic *l, uint32_t first, struct span features) {
    const float *x[LANES];
    const double *z = l->scores + (size_t)first * l->width;
    uint32_t width = l->width;
    embeddings_of(l, first, x);
    for (uint32_t j = features.begin; j < features.end; j++) {
        double *sum = l->sums + (size_t)j * width, value[LANES];
        for (uint32_t r = 0; r < LANES; r++)
            value[r] = (double)x[r][j] - l->mean[j];
        for (uint32_t k = 0; k < width; k++)
            sum[k] +=
                value[0] * z[k] + value[1] * z[width + k] + value[2] * z[2 * width + k] + value[3] * z[3 * width + k];
    }
}

static void sum_features(void *argument, uint32_t index, uint32_t count) {
    struct logistic *l = argument;
    struct span part = part_of(l->problem.features, index, count);
    memset(l->sums + (size_t)part.begin * l->width, 0, (part.end - part.begin) * (size_t)l->width * sizeof *l->sums);
    for (uint32_t row = 0; row < rows_of(l); row += LANES)
        add_rows(l, row, part);
}

/* The scores of all rows, multiplied by their embeddings (by 1 for the biases) and added up in `sums`. */
static void sum_rows(struct logistic *l, double *sums) {
    double *biases = sums + (size_t)l->problem.features * l->width;
    l->sums = sums;
    memset(l->scores + (size_t)rows_of(l) * l->width, 0, (size_t)LANES * l->width * sizeof *l->scores);
    pool_run(l->pool, sum_features, l);
    memset(biases, 0, l->width * sizeof *biases);
    for (size_t i = 0; i < (size_t)rows_of(l) * l->width; i++)
        biases[i % l->width] += l->scores[i];
}

/* ---- The objective ---- */

static double *vector_of(const struct logistic *l, int which) {
    return l->vectors + (size_t)which * logistic_size(l);
}

static double losses_of(struct logistic *l, const double *solution) {
    double sum = 0;
    l->solution = solution;
    pool_run(l->pool, judge_rows, l);
    for (uint32_t row = 0; row < rows_of(l); row++)
        sum += l->losses[row];
    return sum;
}

/* The objective, its gradient, and the probabilities that its curvature is made of. */
static double evaluate(struct logistic *l, const struct fit *fit, const double *solution) {
    double sum = losses_of(l, solution), square = 0, *gradient = vector_of(l, GRADIENT);
    sum_rows(l, gradient);
    for (size_t i = 0; i < (size_t)l->problem.features * l->width; i++) {
        double away = solution[i] - (fit->anchor ? fit->anchor[i] : 0);
        square += away * away;
        gradient[i] += away / fit->strength;
    }
    return sum + square / (2 * fit->strength);
}

/* The second derivative along a direction. */
static void curvature(struct logistic *l, const struct fit *fit, const double *direction, double *product) {
    l->solution = direction;
    pool_run(l->pool, bend_rows, l);
    sum_rows(l, product);
    for (size_t i = 0; i < (size_t)l->problem.features * l->width; i++)
        product[i] += direction[i] / fit->strength;
}

static double dot(const double *a, const double *b, size_t size) {
    double sum[LANES] = {0};
    for (size_t i = 0; i < size; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            sum[lane] += a[i + lane] * b[i + lane];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void add_scaled(double *to, double factor, const double *from, size_t size) {
    for (size_t i = 0; i < size; i++)
        to[i] += factor * from[i];
}

/* ---- Newton's method ---- */

/* Solve curvature * step = -gradient until the residual is `share` of the gradient. */
static void find_step(struct logistic *l, const struct fit *fit, double share) {
    double *step = vector_of(l, STEP), *residual = vector_of(l, RESIDUAL), *direction = vector_of(l, DIRECTION);
    double *product = vector_of(l, PRODUCT);
    size_t size = logistic_size(l);
    memset(step, 0, size * sizeof *step);
    memset(residual, 0, size * sizeof *residual);
    add_scaled(residual, -1, vector_of(l, GRADIENT), size);
    memcpy(direction, residual, size * sizeof *direction);
    double square = dot(residual, residual, size), enough = share * share * square;
    for (int i = 0; i < MOST_INNER && square > enough; i++) {
        curvature(l, fit, direction, product);
        double along = dot(direction, product, size), before = square;
        if (along <= 0) /* rounding: the curvature is positive but for equal biases, along which no gradient is */
            break;
        add_scaled(step, before / along, direction, size);
        add_scaled(residual, -before / along, product, size);
        square = dot(residual, residual, size);
        for (size_t k = 0; k < size; k++)
            direction[k] = residual[k] + square / before * direction[k];
    }
}

/* Go along the step as far as the objective falls as it should; false where it does not. */
static bool take_step(struct logistic *l, const struct fit *fit, double *solution, double *objective) {
    const double *step = vector_of(l, STEP);
    size_t size = logistic_size(l);
    double slope = dot(vector_of(l, GRADIENT), step, size), length = 1;
    add_scaled(solution, length, step, size);
    for (int trial = 0; trial < MOST_TRIALS; trial++, length /= 2) {
        double there = evaluate(l, fit, solution);
        if (there <= *objective + 1e-4 * length * slope) {
            bool fell = there < *objective;
            *objective = there;
            return fell;
        }
        add_scaled(solution, -length / 2, step, size);
    }
    return false;
}

/* n / (2 * right) and the like for yes or no, n / (classes * right) among several, as scikit-learn's "balanced". */
static void balance(struct logistic *l) {
    double count = l->selection.count, parts = l->problem.examples->tags ? 2 : l->problem.classes;
    for (uint32_t k = 0; k < l->problem.classes; k++) {
        double right = 0;
        for (uint32_t i = 0; i < l->selection.count; i++)
            right += is_right(l, l->selection.photographs[i], k);
        l->balance[k] = count / (parts * fmax(count - right, 1));
        l->balance[l->width + k] = count / (parts * fmax(right, 1));
    }
}

void logistic_fit(struct logistic *l, struct selection selection, struct fit fit, double *solution) {
    const double *gradient = vector_of(l, GRADIENT);
    l->selection = selection;
    balance(l);
    double largest = selection.count * sqrt(l->spread), objective = evaluate(l, &fit, solution);
    for (int i = 0; i < MOST_STEPS; i++) {
        double part = sqrt(dot(gradient, gradient, logistic_size(l))) / largest;
        if (part <= fit.tolerance)
            break;
        find_step(l, &fit, fmin(0.3, sqrt(part))); /* nearer to the optimum, the better: superlinear convergence */
        if (!take_step(l, &fit, solution, &objective))
            break;
    }
}

double logistic_loss(struct logistic *l, struct selection selection, const double *solution) {
    l->selection = selection;
    return losses_of(l, solution);
}

void logistic_read(const struct logistic *l, const double *solution, float *weight, float *bias) {
    uint32_t features = l->problem.features;
    for (uint32_t k = 0; k < l->problem.classes; k++) {
        double moved = solution[(size_t)features * l->width + k];
        for (uint32_t j = 0; j < features; j++) {
            double w = solution[(size_t)j * l->width + k];
            weight[(size_t)k * features + j] = without_denormals(w);
            moved -= w * l->mean[j];
        }
        bias[k] = without_denormals(moved);
    }
}

/* ---- Create and free ---- */

double logistic_spread(const struct logistic *l) {
    return l->spread;
}

uint32_t logistic_width(const struct logistic *l) {
    return l->width;
}

size_t logistic_size(const struct logistic *l) {
    return ((size_t)l->problem.features + 1) * l->width;
}

static void center(struct logistic *l) {
    const float *x = l->problem.examples->embeddings;
    uint32_t features = l->problem.features;
    size_t rows = (size_t)l->problem.examples->count * views_of(l);
    double square = 0;
    for (uint32_t j = 0; j < features; j++)
        l->mean[j] = 0;
    for (size_t row = 0; row < rows; row++)
        for (uint32_t j = 0; j < features; j++)
            l->mean[j] += (double)x[row * features + j] / (double)rows;
    for (size_t row = 0; row < rows; row++)
        for (uint32_t j = 0; j < features; j++) {
            double away = (double)x[row * features + j] - l->mean[j];
            square += away * away;
        }
    l->spread = square > 0 ? square / (double)rows : 1;
}

static resnet_status prepare(struct logistic *l, resnet_error *error) {
    uint32_t here = cpu_threads(), threads = l->problem.threads ? l->problem.threads : here;
    const struct pool_options pool = {.parts = threads, .threads = here};
    size_t rows = (size_t)l->problem.examples->count * views_of(l) + LANES; /* a last few of zeros */
    const struct array arrays[] = {
        {&l->mean, l->problem.features, sizeof(double)},
        {&l->vectors, VECTORS * logistic_size(l), sizeof(double)},
        {&l->balance, 2 * (size_t)l->width, sizeof(double)},
        {&l->scores, rows * l->width, sizeof(double)},
        {&l->losses, rows, sizeof(double)},
        {&l->probabilities, rows * l->width, sizeof(double)},
    };
    l->memory = memory_get_arrays(&l->problem.allocator, arrays, sizeof arrays / sizeof *arrays, &l->memory_size);
    if (!l->memory)
        return fail_memory(error, "the classifier's fit", l->memory_size);
    center(l);
    return pool_create(&l->pool, &pool, &l->problem.allocator, error);
}

resnet_status logistic_create(struct logistic **result, const struct logistic_problem *problem, resnet_error *error) {
    struct logistic *l = memory_get(&problem->allocator, sizeof *l);
    *result = NULL;
    if (!l)
        return fail_memory(error, "the classifier's fit", sizeof *l);
    *l = (struct logistic){.problem = *problem, .width = divide_up(problem->classes, LANES) * LANES};
    resnet_status status = prepare(l, error);
    if (status == RESNET_OK)
        *result = l;
    else
        logistic_free(l);
    return status;
}

void logistic_free(struct logistic *l) {
    if (!l)
        return;
    resnet_allocator allocator = l->problem.allocator;
    pool_free(l->pool, &allocator);
    memory_put(&allocator, l->memory, l->memory_size);
    memory_put(&allocator, l, sizeof *l);
}
