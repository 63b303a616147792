/* teach.c - a new classifier for a network, fitted to embeddings of photographs whose classes are known. */
#include <math.h>
#include <string.h>

#include "error.h"
#include "floats.h"
#include "fpenv.h"
#include "logistic.h"
#include "model.h"
#include "random.h"
#include "split.h"
#include "weights.h"

#define MOST_CLASSES   (1U << 20)
#define MOST_THREADS   1024
#define MOST_FOLDS     5U
#define NO_FOLD        UINT32_MAX /* of a photograph that is the only one of its class: it is never held out */
#define STRENGTHS      9          /* that cross-validation tries, in units of 1 / spread: 1/16, 1/4, 1 ... */
#define FIRST_STRENGTH 0.0625
#define STRENGTH_RATIO 4
#define USUAL_STRENGTH 16   /* where there is nothing to validate with */
#define ROUGH          1e-3 /* tolerance of fits that are compared */
#define FINE           1e-9 /* and of the one that is kept */

struct teaching {
    const resnet_model *backbone;
    const resnet_examples *examples;
    const resnet_teach_options *options;
    uint32_t features, old_classes; /* 0: there is no old classifier to be near to */
    struct logistic *logistic;
    resnet_teach_report best;

    uint32_t *right;      /* [classes]: for how many photographs a class is right */
    uint32_t *next;       /* [classes + 1]: how many photographs were dealt out up to the next one of a class */
    uint32_t *folds;      /* [count]: in which each photograph is held out */
    uint32_t *selected;   /* [count]: photographs to fit to, then those held out */
    double *solutions;    /* [folds][logistic_size] */
    double *anchors;      /* likewise */
    float *old_weight;    /* [old_classes][features] */
    float *old_answers;   /* [count][old_classes]: its probabilities for the first view of each photograph */
    double *old_shares;   /* [old_classes][logistic_width]: of an old class in a new one */
    float *weight, *bias; /* of the new classifier */
    void *memory;         /* all of these */
    size_t memory_size;
};

static bool is_right(const struct teaching *t, uint32_t photograph, uint32_t class) {
    return example_is_right(t->examples, photograph, class, t->options->classes);
}

/* ---- Checks ---- */

static resnet_status check_classes(const resnet_examples *examples, uint32_t classes, resnet_error *error) {
    for (uint32_t i = 0; i < examples->count; i++)
        if (examples->classes && examples->classes[i] >= classes)
            return fail(error, RESNET_ERROR_ARGUMENT, "photograph %u is of class %u; there are %u", i,
                        examples->classes[i], classes);
    for (size_t i = 0; examples->tags && i < (size_t)examples->count * classes; i++)
        if (examples->tags[i] > 1)
            return fail(error, RESNET_ERROR_ARGUMENT, "tag %u of photograph %zu; tags are 0 and 1", examples->tags[i],
                        i / classes);
    return RESNET_OK;
}

static resnet_status check_examples(const struct teaching *t, resnet_error *error) {
    const resnet_examples *examples = t->examples;
    uint32_t classes = t->options->classes, views = examples->views ? examples->views : 1;
    uint64_t rows = (uint64_t)examples->count * views;
    if (!(t->options->strength >= 0) || !isfinite(t->options->strength))
        return fail(error, RESNET_ERROR_ARGUMENT, "a strength of %g; it is above 0, or 0 for cross-validation",
                    t->options->strength);
    if (t->options->threads > MOST_THREADS)
        return fail(error, RESNET_ERROR_ARGUMENT, "%u threads; at most %d", t->options->threads, MOST_THREADS);
    if (!examples->embeddings || !examples->classes == !examples->tags)
        return fail(error, RESNET_ERROR_ARGUMENT, "examples need embeddings, and either classes or tags");
    if (classes < (examples->tags ? 1 : 2) || classes > MOST_CLASSES)
        return fail(error, RESNET_ERROR_ARGUMENT, "%u classes; it takes %d to %u", classes, examples->tags ? 1 : 2,
                    MOST_CLASSES);
    if (rows > INT32_MAX)
        return fail(error, RESNET_ERROR_ARGUMENT, "%u photographs of %u views; at most %d views in all",
                    examples->count, views, INT32_MAX);
    if (!all_finite(examples->embeddings, (size_t)rows * t->features)) /* numbers that the caller has in memory */
        return fail(error, RESNET_ERROR_ARGUMENT, "a number of the embeddings is not finite");
    return check_classes(examples, classes, error);
}

/* Count for how many photographs each class is right: some, and not all. */
static resnet_status count_right(const struct teaching *t, resnet_error *error) {
    for (uint32_t k = 0; k < t->options->classes; k++) {
        const char *label = t->options->labels ? t->options->labels[k] : NULL;
        for (uint32_t i = 0; i < t->examples->count; i++)
            t->right[k] += is_right(t, i, k);
        if (!t->right[k] || t->right[k] == t->examples->count)
            return fail(error, RESNET_ERROR_ARGUMENT, "class %u (%.64s) is right for %s photograph", k,
                        label ? label : "no label", t->right[k] ? "every" : "no");
    }
    return RESNET_OK;
}

/* ---- Folds ---- */

/* The rarest class that is right for a photograph; where there is none, classes. */
static uint32_t rarest_of(const struct teaching *t, uint32_t photograph) {
    uint32_t classes = t->options->classes, rarest = classes;
    if (t->examples->classes)
        return t->examples->classes[photograph];
    for (uint32_t k = 0; k < classes; k++)
        if (is_right(t, photograph, k) && (rarest == classes || t->right[k] < t->right[rarest]))
            rarest = k;
    return rarest;
}

/* Deal the photographs out to the folds in random order, class by class. */
static void deal(struct teaching *t) {
    uint32_t count = t->examples->count, classes = t->options->classes, most = 0;
    for (uint32_t k = 0; k < classes; k++)
        most = t->right[k] > most ? t->right[k] : most;
    t->best.folds = most < 2 ? 0 : smaller(most, MOST_FOLDS);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = (uint32_t)(random_at(t->options->seed, i) % (i + 1));
        t->selected[i] = t->selected[other];
        t->selected[other] = i;
    }
    for (uint32_t i = 0; i < count; i++)
        t->next[rarest_of(t, i)]++;
    for (uint32_t k = 0, first = 0; k <= classes; k++) {
        uint32_t end = first + t->next[k];
        t->next[k] = first;
        first = end;
    }
    for (uint32_t i = 0; t->best.folds && i < count; i++) {
        uint32_t class = rarest_of(t, t->selected[i]), number = t->next[class]++;
        t->folds[t->selected[i]] = class < classes && t->right[class] < 2 ? NO_FOLD : number % t->best.folds;
    }
}

/* Those that are not held out in this fold; behind them, those that are. */
static struct selection select_for(const struct teaching *t, uint32_t fold) {
    uint32_t first = 0, last = t->examples->count;
    for (uint32_t i = 0; i < t->examples->count; i++)
        t->selected[t->folds[i] == fold ? --last : first++] = i;
    return (struct selection){t->selected, first};
}

static struct selection held_out(const struct teaching *t, struct selection fitted) {
    return (struct selection){t->selected + fitted.count, t->examples->count - fitted.count};
}

/* ---- What the old classifier knows ---- */

static double score(const float *weight, const float *embedding, uint32_t features) {
    double sum[4] = {0};
    for (uint32_t j = 0; j < features; j++)
        sum[j % 4] += (double)weight[j] * (double)embedding[j];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void ask_old(const struct teaching *t) {
    uint32_t count = t->examples->count, views = t->examples->views ? t->examples->views : 1;
    for (uint32_t c = 0; c < t->old_classes; c++) {
        float *weight = t->old_weight + (size_t)c * t->features;
        double bias = (double)weights_of_channel(t->backbone, model_pool(t->backbone) + 1, c, weight);
        for (uint32_t i = 0; i < count; i++)
            t->old_answers[(size_t)i * t->old_classes + c] =
                (float)(bias + score(weight, t->examples->embeddings + (size_t)i * views * t->features, t->features));
    }
    for (uint32_t i = 0; i < count; i++)
        resnet_softmax(t->old_answers + (size_t)i * t->old_classes, t->old_classes);
}

/* Mean answers over the photographs for which a class is right; of tags, less those over the others. */
static void mean_answers(const struct teaching *t, struct selection from, uint32_t class) {
    uint32_t width = logistic_width(t->logistic), right = 0;
    for (uint32_t i = 0; i < from.count; i++)
        right += is_right(t, from.photographs[i], class);
    for (uint32_t i = 0; i < from.count; i++) {
        const float *answers = t->old_answers + (size_t)from.photographs[i] * t->old_classes;
        double share = is_right(t, from.photographs[i], class) ? 1.0 / right
                       : t->examples->tags                     ? -1.0 / (from.count - right)
                                                               : 0;
        for (uint32_t c = 0; share != 0 && c < t->old_classes; c++)
            t->old_shares[(size_t)c * width + class] += share * (double)answers[c];
    }
}

/* For each class, the old classifier's weights in the proportions in which it takes the class for those it knows. */
static void find_anchor(const struct teaching *t, struct selection from, double *anchor) {
    uint32_t width = logistic_width(t->logistic);
    memset(t->old_shares, 0, (size_t)t->old_classes * width * sizeof *t->old_shares);
    memset(anchor, 0, logistic_size(t->logistic) * sizeof *anchor);
    for (uint32_t k = 0; k < t->options->classes; k++)
        mean_answers(t, from, k);
    for (uint32_t c = 0; c < t->old_classes; c++) {
        const double *shares = t->old_shares + (size_t)c * width;
        for (uint32_t j = 0; j < t->features; j++)
            for (uint32_t k = 0; k < width; k++)
                anchor[(size_t)j * width + k] += shares[k] * (double)t->old_weight[(size_t)c * t->features + j];
    }
}

/* ---- Fits ---- */

/* The mean loss over all photographs that are held out in some fold. */
static double validate(struct teaching *t, double strength, bool from_zero) {
    size_t size = logistic_size(t->logistic);
    uint32_t held = 0;
    double loss = 0;
    for (uint32_t f = 0; f < t->best.folds; f++) {
        struct selection fitted = select_for(t, f), others = held_out(t, fitted);
        struct fit fit = {strength, ROUGH, from_zero ? NULL : t->anchors + f * size};
        logistic_fit(t->logistic, fitted, fit, t->solutions + f * size);
        loss += logistic_loss(t->logistic, others, t->solutions + f * size);
        held += others.count;
    }
    return loss / held;
}

/* Try strengths from the least on, each from the solutions of the one before, until the loss has risen twice. */
static void try_strengths(struct teaching *t, bool from_zero) {
    double strength = FIRST_STRENGTH / logistic_spread(t->logistic);
    size_t all = t->best.folds * logistic_size(t->logistic) * sizeof *t->solutions;
    if (from_zero)
        memset(t->solutions, 0, all);
    else
        memcpy(t->solutions, t->anchors, all);
    for (int i = 0, risen = 0; i < STRENGTHS && risen < 2; i++, strength *= STRENGTH_RATIO) {
        double loss = validate(t, strength, from_zero);
        risen++;
        if (loss < t->best.loss) {
            t->best = (resnet_teach_report){strength, from_zero, t->best.folds, loss};
            risen = 0;
        }
    }
}

/* By cross-validation, if need be and if there are photographs for it. */
static void choose(struct teaching *t) {
    t->best.from_zero = !t->old_classes;
    t->best.strength = t->options->strength > 0 ? t->options->strength : USUAL_STRENGTH / logistic_spread(t->logistic);
    if (t->options->strength > 0 || !t->best.folds) {
        t->best.folds = 0;
        return;
    }
    t->best.loss = INFINITY;
    try_strengths(t, true);
    for (uint32_t f = 0; t->old_classes && f < t->best.folds; f++)
        find_anchor(t, select_for(t, f), t->anchors + f * logistic_size(t->logistic));
    if (t->old_classes)
        try_strengths(t, false);
    if (t->best.loss == INFINITY) /* no photograph was held out: each is the only one of some class */
        t->best.folds = 0, t->best.loss = 0;
}

static void fit_to_all(struct teaching *t) {
    struct selection all = select_for(t, NO_FOLD - 1);
    struct fit fit = {t->best.strength, FINE, t->best.from_zero ? NULL : t->anchors};
    size_t size = logistic_size(t->logistic) * sizeof *t->solutions;
    memset(t->solutions, 0, size);
    if (!t->best.from_zero) {
        find_anchor(t, all, t->anchors);
        memcpy(t->solutions, t->anchors, size);
    }
    logistic_fit(t->logistic, all, fit, t->solutions);
    logistic_read(t->logistic, t->solutions, t->weight, t->bias);
}

/* ---- The new model ---- */

static resnet_status take_memory(struct teaching *t, resnet_error *error) {
    size_t count = t->examples->count, classes = t->options->classes, size = logistic_size(t->logistic);
    const struct array arrays[] = {
        {&t->right, classes, sizeof *t->right},
        {&t->next, classes + 1, sizeof *t->next},
        {&t->folds, count, sizeof *t->folds},
        {&t->selected, count, sizeof *t->selected},
        {&t->solutions, MOST_FOLDS * size, sizeof *t->solutions},
        {&t->anchors, t->old_classes ? MOST_FOLDS * size : 0, sizeof *t->anchors},
        {&t->old_weight, (size_t)t->old_classes * t->features, sizeof *t->old_weight},
        {&t->old_answers, t->old_classes * count, sizeof *t->old_answers},
        {&t->old_shares, (size_t)t->old_classes * logistic_width(t->logistic), sizeof *t->old_shares},
        {&t->weight, classes * t->features, sizeof *t->weight},
        {&t->bias, classes, sizeof *t->bias},
    };
    t->memory = memory_get_arrays(&t->backbone->allocator, arrays, sizeof arrays / sizeof *arrays, &t->memory_size);
    return t->memory ? RESNET_OK : fail_memory(error, "teaching", t->memory_size);
}

/* Where the largest embedding is the largest of 8 bits. */
static float activation_of(const struct teaching *t) {
    size_t rows = (size_t)t->examples->count * (t->examples->views ? t->examples->views : 1);
    float most = 0;
    for (size_t i = 0; i < rows * t->features; i++)
        most = t->examples->embeddings[i] > most ? t->examples->embeddings[i] : most;
    return fminf(fmaxf(most / 255, 0x1p-40F), 0x1p40F);
}

static resnet_status teach(struct teaching *t, resnet_model **model, resnet_error *error) {
    struct logistic_problem problem = {t->examples, t->features, t->options->classes, t->options->threads,
                                       t->backbone->allocator};
    resnet_status status = check_examples(t, error);
    if (status == RESNET_OK)
        status = logistic_create(&t->logistic, &problem, error);
    if (status == RESNET_OK)
        status = take_memory(t, error);
    if (status == RESNET_OK)
        status = count_right(t, error);
    if (status != RESNET_OK)
        return status;
    ask_old(t);
    deal(t);
    choose(t);
    fit_to_all(t);
    const struct classifier classifier = {t->examples->tags ? RESNET_HEAD_SIGMOID : RESNET_HEAD_SOFTMAX,
                                          t->options->classes,
                                          t->options->labels,
                                          t->weight,
                                          t->bias,
                                          activation_of(t)};
    return model_with_classifier(t->backbone, &classifier, model, error);
}

resnet_status resnet_teach(const resnet_model *backbone, const resnet_examples *examples,
                           const resnet_teach_options *options, resnet_model **model, resnet_error *error) {
    if (!model)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_teach: model must not be NULL");
    *model = NULL;
    if (!backbone || !examples || !options)
        return fail(error, RESNET_ERROR_ARGUMENT, "resnet_teach: backbone, examples and options must not be NULL");
    bool has_old = backbone->config.head == RESNET_HEAD_SOFTMAX && !options->from_zero;
    struct teaching t = {.backbone = backbone,
                         .examples = examples,
                         .options = options,
                         .features = resnet_model_describe(backbone).features,
                         .old_classes = has_old ? backbone->config.classes : 0};
    uint64_t before = fpenv_enter(false);
    resnet_status status = teach(&t, model, error);
    fpenv_leave(before);
    logistic_free(t.logistic);
    memory_put(&backbone->allocator, t.memory, t.memory_size);
    if (status == RESNET_OK && options->report)
        *options->report = t.best;
    return status;
}
