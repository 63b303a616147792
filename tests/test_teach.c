/* test_teach.c - a taught model is its backbone with a classifier that was fitted, in every precision, and alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "support.h"
#include "weights.h"

#define FEATURES    64 /* of a network of two stages of base width 32 */
#define CLASSES     3
#define PHOTOGRAPHS 24
#define PIXELS      (3 * 24 * 20)

static const char *const labels[CLASSES] = {"ant", "K\303\244fer", "a bee"};

static resnet_config config_of(resnet_head head, resnet_precision precision) {
    resnet_config config = test_tiny_config();
    config.base_width = 32;
    config.blocks[1] = 1;
    config.height = 24;
    config.width = 20;
    config.classes = head == RESNET_HEAD_NONE ? 0 : 7;
    config.head = head;
    config.precision = precision;
    return config;
}

static resnet_model *backbone_of(resnet_head head, resnet_precision precision, resnet_isa isa,
                                 const resnet_allocator *allocator) {
    resnet_config config = config_of(head, precision);
    resnet_load_options options = {.isa = isa, .allocator = allocator};
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_random(&config, 5, &options, &model, &error), &error);
    return model;
}

/* Photographs of class i % CLASSES, which the first features tell. */
struct data {
    float embeddings[PHOTOGRAPHS * FEATURES];
    uint32_t classes[PHOTOGRAPHS];
    uint8_t tags[PHOTOGRAPHS * CLASSES];
    resnet_examples examples;
};

static void make(struct data *data, bool tags) {
    struct test_random random = {9};
    memset(data, 0, sizeof *data);
    for (uint32_t i = 0; i < PHOTOGRAPHS; i++) {
        data->classes[i] = i % CLASSES;
        data->tags[i * CLASSES + i % CLASSES] = 1;
        data->tags[i * CLASSES] |= i % 2;
        for (uint32_t j = 0; j < FEATURES; j++)
            data->embeddings[i * FEATURES + j] =
                test_float(&random, 0, 1) + (j < CLASSES && (tags ? data->tags[i * CLASSES + j] : j == i % CLASSES));
    }
    data->examples = (resnet_examples){.count = PHOTOGRAPHS, .embeddings = data->embeddings};
    if (tags)
        data->examples.tags = data->tags;
    else
        data->examples.classes = data->classes;
}

static resnet_model *teach(const resnet_model *backbone, const resnet_examples *examples,
                           resnet_teach_options options) {
    resnet_model *model;
    resnet_error error;
    options.classes = CLASSES;
    options.labels = labels;
    assert_status(RESNET_OK, resnet_teach(backbone, examples, &options, &model, &error), &error);
    return model;
}

static void read_classifier(const resnet_model *model, float weight[CLASSES * FEATURES], float bias[CLASSES]) {
    for (uint32_t k = 0; k < CLASSES; k++)
        bias[k] = weights_of_channel(model, model_pool(model) + 1, k, weight + k * FEATURES);
}

/* Logits of the taught model, the embedding that it makes them of, and that of the backbone, for one random image. */
static void run(const resnet_model *model, float *logits, float *embedding) {
    struct test_random random = {7};
    resnet_session *session;
    resnet_error error;
    float input[PIXELS];
    for (size_t i = 0; i < PIXELS; i++)
        input[i] = test_float(&random, -2, 2);
    const resnet_request request = {.logits = logits, .embedding = embedding};
    assert_status(RESNET_OK, resnet_session_create(model, NULL, &session, &error), &error);
    assert_status(RESNET_OK, resnet_session_set_floats(session, 0, input, RESNET_NHWC, &error), &error);
    assert_status(RESNET_OK, resnet_run(session, 1, &request, &error), &error);
    resnet_session_free(session);
}

/* ---- The model ---- */

/* By how much the classifier's input may differ from an embedding, which is f32. */
static double rounding_of(const resnet_model *model, double embedding) {
    if (model->format == FORMAT_U8) {
        double scale = (double)model->scales[model_pool(model)];
        return embedding > 255 * scale ? embedding - 255 * scale : 0.501 * scale;
    }
    return model->format == FORMAT_BF16 ? embedding * 0x1p-8 : 0;
}

static void check_model(resnet_head head, resnet_precision precision, resnet_isa isa) {
    struct data data;
    float before[FEATURES], after[FEATURES], logits[CLASSES], weight[CLASSES * FEATURES], bias[CLASSES];
    make(&data, false);
    resnet_model *backbone = backbone_of(head, precision, isa, NULL);
    resnet_model *model = teach(backbone, &data.examples, (resnet_teach_options){.threads = 1});
    run(backbone, NULL, before);
    resnet_model_free(backbone); /* the new one shares nothing with it */
    run(model, logits, after);
    read_classifier(model, weight, bias);
    resnet_model_info info = resnet_model_describe(model);
    assert_int_equal(info.config.classes, CLASSES);
    assert_int_equal(info.config.head, RESNET_HEAD_SOFTMAX);
    assert_string_equal(resnet_model_label(model, 1), labels[1]);
    assert_memory_equal(before, after, sizeof before);
    for (uint32_t k = 0; k < CLASSES; k++) {
        double sum = (double)bias[k], magnitude = fabs(sum), rounding = 0;
        for (uint32_t j = 0; j < FEATURES; j++) {
            double factor = (double)weight[k * FEATURES + j];
            sum += factor * (double)after[j];
            magnitude += fabs(factor * (double)after[j]);
            rounding += fabs(factor) * rounding_of(model, (double)after[j]);
        }
        /* Sums in f32, of embeddings as the network's format has them. */
        assert_true(fabs(sum - (double)logits[k]) <= 2 * (FEATURES + 1) * 0x1p-24 * magnitude + rounding);
    }
    resnet_model_free(model);
}

static void test_model_is_the_backbone_with_the_classifier(void **state) {
    (void)state;
    const resnet_head heads[] = {RESNET_HEAD_SOFTMAX, RESNET_HEAD_SIGMOID, RESNET_HEAD_NONE};
    const resnet_precision precisions[] = {RESNET_PRECISION_F32, RESNET_PRECISION_BF16, RESNET_PRECISION_INT8};
    const resnet_isa isas[] = {RESNET_ISA_AUTO, RESNET_ISA_SCALAR, RESNET_ISA_REFERENCE};
    for (size_t h = 0; h < COUNT(heads); h++)
        for (size_t p = 0; p < COUNT(precisions); p++)
            for (size_t i = 0; i < COUNT(isas); i++)
                check_model(heads[h], precisions[p], isas[i]);
}

/* Which of the examples' classes gets the largest logit, or with tags, which logits are above 0. */
static void check_answers(const resnet_model *model, const struct data *data) {
    float weight[CLASSES * FEATURES], bias[CLASSES];
    read_classifier(model, weight, bias);
    for (uint32_t i = 0; i < PHOTOGRAPHS; i++) {
        float logits[CLASSES];
        uint32_t best;
        for (uint32_t k = 0; k < CLASSES; k++) {
            logits[k] = bias[k];
            for (uint32_t j = 0; j < FEATURES; j++)
                logits[k] += weight[k * FEATURES + j] * data->embeddings[i * FEATURES + j];
        }
        resnet_top_k(logits, CLASSES, 1, &best);
        for (uint32_t k = 0; data->examples.tags && k < CLASSES; k++)
            assert_int_equal(logits[k] > 0, data->tags[i * CLASSES + k]);
        assert_true(data->examples.tags || best == data->classes[i]);
    }
}

static void test_examples_are_learnt(void **state) {
    (void)state;
    for (int tags = 0; tags < 2; tags++) {
        struct data data;
        resnet_teach_report report;
        make(&data, tags);
        resnet_model *backbone = backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
        resnet_model *model = teach(backbone, &data.examples, (resnet_teach_options){.report = &report});
        assert_int_equal(resnet_model_describe(model).config.head, tags ? RESNET_HEAD_SIGMOID : RESNET_HEAD_SOFTMAX);
        assert_int_equal(report.folds, 5);
        assert_true(report.loss > 0 &&
                    report.loss < (tags ? 3 : 1) * 0.7); /* ln 2 and more are for who knows nothing */
        check_answers(model, &data);
        resnet_model_free(model);
        resnet_model_free(backbone);
    }
}

/* Two photographs a class that look as the old classifier imagines its classes. */
static void test_the_old_classifier_helps_where_it_knows(void **state) {
    (void)state;
    struct data data;
    resnet_teach_report report, plain;
    struct test_random random = {4};
    make(&data, false);
    data.examples.count = 6;
    resnet_model *backbone = backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    for (uint32_t i = 0; i < 6; i++) {
        float weight[FEATURES];
        weights_of_channel(backbone, model_pool(backbone) + 1, 2 * data.classes[i], weight);
        for (uint32_t j = 0; j < FEATURES; j++)
            data.embeddings[i * FEATURES + j] = 5 * weight[j] + test_float(&random, -3, 3);
    }
    resnet_model_free(teach(backbone, &data.examples, (resnet_teach_options){.report = &report}));
    resnet_model_free(teach(backbone, &data.examples, (resnet_teach_options){.report = &plain, .from_zero = 1}));
    assert_int_equal(report.folds, 2);
    assert_false(report.from_zero);
    assert_true(plain.from_zero);
    assert_true(report.loss < plain.loss);
    resnet_model_free(backbone);
}

static void test_the_same_for_any_threads_and_for_the_same_seed(void **state) {
    (void)state;
    struct data data;
    float weights[4][CLASSES * FEATURES], bias[CLASSES];
    resnet_teach_report reports[4];
    memset(reports, 0, sizeof reports);
    make(&data, false);
    resnet_model *backbone = backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        resnet_teach_options options = {.seed = i == 3 ? 8 : 7, .threads = i + 1, .report = &reports[i]};
        resnet_model *model = teach(backbone, &data.examples, options);
        read_classifier(model, weights[i], bias);
        resnet_model_free(model);
        assert_true(i == 3 || (memcmp(weights[i], weights[0], sizeof weights[i]) == 0 &&
                               memcmp(&reports[i], &reports[0], sizeof reports[i]) == 0));
    }
    assert_true(reports[3].loss != reports[0].loss); /* another split */
    resnet_model_free(backbone);
}

/* Nothing to validate with: one photograph a class. A lone photograph of one class is never held out. */
static void test_few_photographs(void **state) {
    (void)state;
    struct data data;
    resnet_teach_report report;
    make(&data, false);
    resnet_model *backbone = backbone_of(RESNET_HEAD_NONE, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    data.examples.count = CLASSES;
    resnet_model_free(teach(backbone, &data.examples, (resnet_teach_options){.report = &report}));
    assert_int_equal(report.folds, 0);
    assert_true(report.strength > 0 && report.loss == 0);
    data.examples.count = CLASSES + 2;
    resnet_model_free(teach(backbone, &data.examples, (resnet_teach_options){.report = &report}));
    assert_int_equal(report.folds, 2);
    assert_true(report.loss > 0 && report.loss < 3); /* ln 3 for a guess; far more for a class not fitted at all */
    resnet_model_free(backbone);
}

/* Three photographs, each the only one of some label, two of which share another. */
static void test_tags_that_nothing_can_be_held_out_of(void **state) {
    (void)state;
    static const uint8_t tags[3 * 4] = {1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1};
    struct data data;
    resnet_teach_report report;
    const resnet_teach_options options = {.classes = 4, .report = &report};
    resnet_model *model;
    resnet_error error;
    make(&data, true);
    data.examples.count = 3;
    data.examples.tags = tags;
    resnet_model *backbone = backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    assert_status(RESNET_OK, resnet_teach(backbone, &data.examples, &options, &model, &error), &error);
    assert_int_equal(report.folds, 0);
    assert_true(report.loss == 0 && report.strength > 0);
    resnet_model_free(model);
    resnet_model_free(backbone);
}

/* Some with several tags, of which the rarest says where they are dealt to; one with none. */
static void test_several_tags(void **state) {
    (void)state;
    static const uint8_t tags[5 * CLASSES] = {1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0};
    struct data data;
    resnet_teach_report report;
    make(&data, true);
    data.examples.count = 5;
    data.examples.tags = tags;
    resnet_model *backbone = backbone_of(RESNET_HEAD_NONE, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    resnet_model_free(teach(backbone, &data.examples, (resnet_teach_options){.report = &report}));
    assert_int_equal(report.folds, 3); /* as many as photographs of the second class */
    assert_true(report.loss > 0 && isfinite(report.loss));
    resnet_model_free(backbone);
}

/* Where the photographs do not tell the classes, the search ends early, at the strongest penalty. */
static void test_nothing_to_learn(void **state) {
    (void)state;
    struct data data;
    struct test_random random = {17};
    resnet_teach_report report;
    make(&data, false);
    for (size_t i = 0; i < COUNT(data.embeddings); i++)
        data.embeddings[i] = test_float(&random, 0, 1);
    resnet_model *backbone = backbone_of(RESNET_HEAD_NONE, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    resnet_model_free(teach(backbone, &data.examples, (resnet_teach_options){.report = &report}));
    resnet_model_free(backbone);
    assert_true(report.loss > 0.9 * log(CLASSES)); /* what a guess has */
}

/* A layer of the backbone that is kept in f32 is kept, too, in what is taught. */
static void test_kept_layers_stay(void **state) {
    (void)state;
    struct data data;
    make(&data, false);
    resnet_config config = config_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_INT8);
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.kept = 1 << 1});
    resnet_model *backbone;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes.data, bytes.size, NULL, &backbone, &error), &error);
    resnet_model *model = teach(backbone, &data.examples, (resnet_teach_options){.strength = 1});
    uint32_t kept = 0, classifier = model->graph.count - 1;
    for (uint32_t i = 0; i < classifier; i++) {
        assert_int_equal(model_keeps(model, i), model_keeps(backbone, i));
        kept += model_keeps(model, i);
    }
    assert_int_equal(kept, 1);
    assert_true(model_keeps(model, classifier));
    resnet_model_free(model);
    resnet_model_free(backbone);
    test_bytes_free(&bytes);
}

/* ---- What is refused ---- */

/* Each case spoils one thing, and names a part of what must be said. */
enum spoil {
    NO_EMBEDDINGS,
    NEITHER,
    BOTH,
    ONE_CLASS,
    EMPTY_CLASS,
    CLASS_BEYOND,
    NOT_FINITE,
    NEGATIVE,
    ENDLESS,
    MANY_CLASSES,
    NO_TAGS,
    LABEL,
    NO_LABEL,
    LONG_LABELS,
    NAMELESS,
    MANY,
    TAG,
    EVERYWHERE,
    THREADS
};

/* More than a model file may have. */
static const char *long_label(void) {
    static char text[(1 << 24) + 1];
    memset(text, 'x', sizeof text - 1);
    return text;
}

static void spoil(enum spoil how, struct data *data, resnet_teach_options *options, const char **own_labels) {
    switch (how) {
    case NO_EMBEDDINGS:
        data->examples.embeddings = NULL;
        break;
    case NEITHER:
        data->examples.classes = NULL;
        break;
    case BOTH:
        data->examples.tags = data->tags;
        break;
    case ONE_CLASS:
        options->classes = 1;
        break;
    case EMPTY_CLASS:
        options->classes = CLASSES, data->examples.count = 2;
        break;
    case CLASS_BEYOND:
        options->classes = 2;
        break;
    case NOT_FINITE:
        data->embeddings[PHOTOGRAPHS * FEATURES - 1] = INFINITY;
        break;
    case NEGATIVE:
        options->strength = -1;
        break;
    case ENDLESS:
        options->strength = INFINITY;
        break;
    case MANY_CLASSES:
        options->classes = (1U << 20) + 1;
        break;
    case NO_TAGS:
        data->examples.classes = NULL, data->examples.tags = data->tags, options->classes = 0;
        break;
    case LABEL:
        own_labels[2] = "two\nlines";
        break;
    case NO_LABEL:
        own_labels[1] = NULL;
        break;
    case LONG_LABELS:
        own_labels[0] = long_label();
        break;
    case NAMELESS:
        options->labels = NULL, data->examples.count = 2;
        break;
    case MANY:
        data->examples.views = UINT32_MAX;
        break;
    case THREADS:
        options->threads = 1025;
        break;
    case TAG:
        data->examples.classes = NULL, data->examples.tags = data->tags, data->tags[5] = 2;
        break;
    case EVERYWHERE:
        data->examples.classes = NULL, data->examples.tags = data->tags;
        for (uint32_t i = 0; i < PHOTOGRAPHS; i++)
            data->tags[i * CLASSES] = 1;
        break;
    }
}

static void test_bad_examples_are_refused(void **state) {
    (void)state;
    static const char *const said[] = {[NO_EMBEDDINGS] = "need embeddings",
                                       [NEITHER] = "either classes or tags",
                                       [BOTH] = "either classes or tags",
                                       [ONE_CLASS] = "1 classes; it takes 2",
                                       [EMPTY_CLASS] = "(a bee) is right for no photograph",
                                       [CLASS_BEYOND] = "photograph 2 is of class 2; there are 2",
                                       [NOT_FINITE] = "not finite",
                                       [NEGATIVE] = "a strength of -1",
                                       [ENDLESS] = "a strength of inf",
                                       [MANY_CLASSES] = "1048577 classes; it takes 2 to 1048576",
                                       [NO_TAGS] = "0 classes; it takes 1 to",
                                       [LABEL] = "label of class 2",
                                       [NO_LABEL] = "label of class 1 is empty",
                                       [LONG_LABELS] = "bytes of labels; at most 16777216",
                                       [NAMELESS] = "class 2 (no label) is right for no photograph",
                                       [MANY] = "24 photographs of 4294967295 views",
                                       [TAG] = "tag 2 of photograph 1",
                                       [EVERYWHERE] = "(ant) is right for every photograph",
                                       [THREADS] = "1025 threads"};
    resnet_model *backbone = backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    for (size_t i = 0; i < COUNT(said); i++) {
        struct data data;
        const char *own_labels[CLASSES] = {labels[0], labels[1], labels[2]};
        resnet_teach_options options = {.classes = CLASSES, .labels = own_labels};
        resnet_model *model = backbone;
        resnet_error error = {RESNET_OK, ""};
        make(&data, false);
        spoil((enum spoil)i, &data, &options, own_labels);
        assert_status(RESNET_ERROR_ARGUMENT, resnet_teach(backbone, &data.examples, &options, &model, &error), &error);
        assert_null(model);
        if (!strstr(error.message, said[i]))
            fail_msg("\"%s\" does not say \"%s\"", error.message, said[i]);
    }
    resnet_model_free(backbone);
}

static void test_null_is_refused(void **state) {
    (void)state;
    struct data data;
    resnet_teach_options options = {.classes = CLASSES};
    resnet_model *model;
    resnet_error error;
    make(&data, false);
    resnet_model *backbone = backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_F32, RESNET_ISA_AUTO, NULL);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_teach(NULL, &data.examples, &options, &model, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_teach(backbone, NULL, &options, &model, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_teach(backbone, &data.examples, NULL, &model, &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_teach(backbone, &data.examples, &options, NULL, &error), &error);
    resnet_model_free(backbone);
}

static void test_any_memory_may_be_refused(void **state) {
    (void)state;
    struct data data;
    size_t calls = 0;
    make(&data, false);
    for (size_t refuse = 0; refuse <= calls; refuse++) {
        struct test_memory memory;
        resnet_model *model = NULL;
        resnet_error error = {RESNET_OK, ""};
        const resnet_teach_options options = {.classes = CLASSES, .labels = labels, .threads = 2, .strength = 1};
        test_memory_init(&memory, 0xa5);
        resnet_model *backbone =
            backbone_of(RESNET_HEAD_SOFTMAX, RESNET_PRECISION_INT8, RESNET_ISA_AUTO, &memory.allocator);
        size_t before = memory.calls;
        memory.refuse = refuse ? before + refuse : 0;
        assert_status(refuse ? RESNET_ERROR_MEMORY : RESNET_OK,
                      resnet_teach(backbone, &data.examples, &options, &model, &error), &error);
        calls = refuse ? calls : memory.calls - before;
        assert_true((model == NULL) == (refuse > 0));
        resnet_model_free(model);
        resnet_model_free(backbone);
        test_memory_check(&memory);
    }
    assert_true(calls > 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_is_the_backbone_with_the_classifier),
        cmocka_unit_test(test_examples_are_learnt),
        cmocka_unit_test(test_the_old_classifier_helps_where_it_knows),
        cmocka_unit_test(test_the_same_for_any_threads_and_for_the_same_seed),
        cmocka_unit_test(test_few_photographs),
        cmocka_unit_test(test_tags_that_nothing_can_be_held_out_of),
        cmocka_unit_test(test_several_tags),
        cmocka_unit_test(test_nothing_to_learn),
        cmocka_unit_test(test_kept_layers_stay),
        cmocka_unit_test(test_bad_examples_are_refused),
        cmocka_unit_test(test_null_is_refused),
        cmocka_unit_test(test_any_memory_may_be_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
