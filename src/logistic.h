/*
 * logistic.h - logistic regression with an L2 penalty: multinomial, or an independent one for each class.
 *
 * What is minimised is scikit-learn's: the sum of losses + |weights - anchor|^2 / (2 strength), with biases free, the
 * classes balanced, and an anchor of 0 unless there is one. So features are not scaled, which would change the penalty;
 * they are centred, which only moves the biases and lets the solver converge sooner.
 */
#ifndef LOGISTIC_H
#define LOGISTIC_H

#include "memory.h"
#include "resnet.h"

/* Examples in the network's own numbers, and where memory and threads come from. */
struct logistic_problem {
    const resnet_examples *examples; /* referred to */
    uint32_t features, classes;
    uint32_t threads; /* they split outputs, never sums: the solutions are the same for any number */
    resnet_allocator allocator;
};

/* Whether a class, of so many, is right for a photograph. */
static inline bool example_is_right(const resnet_examples *examples, uint32_t photograph, uint32_t class,
                                    uint32_t classes) {
    return examples->tags ? examples->tags[(size_t)photograph * classes + class] != 0
                          : examples->classes[photograph] == class;
}

/* Some of the photographs. */
struct selection {
    const uint32_t *photographs;
    uint32_t count;
};

/* What is wanted of a solution. */
struct fit {
    double strength;
    double tolerance;     /* the gradient that may be left, as a part of the largest that there can be */
    const double *anchor; /* a solution, or NULL: 0 */
};

struct logistic;

/* Errors: MEMORY, THREAD. */
resnet_status logistic_create(struct logistic **logistic, const struct logistic_problem *problem, resnet_error *error);
void logistic_free(struct logistic *logistic);

/* The mean square distance of an embedding from their mean, above 0: the natural unit of 1 / strength. */
double logistic_spread(const struct logistic *logistic);

/* Numbers in a solution: [features + 1][logistic_width], in the last row the biases; what is past the classes is 0. */
uint32_t logistic_width(const struct logistic *logistic);
size_t logistic_size(const struct logistic *logistic);

/* Improve `solution` for some photographs, among which every class is; of any number of views each weighs the same. */
void logistic_fit(struct logistic *logistic, struct selection selection, struct fit fit, double *solution);

/* The sum of losses over other photographs, with the classes weighed as in the last fit. */
double logistic_loss(struct logistic *logistic, struct selection selection, const double *solution);

/* A solution as weight[classes][features] and bias[classes], for embeddings that are not centred. */
void logistic_read(const struct logistic *logistic, const double *solution, float *weight, float *bias);

#endif
