/* teach_report.c - how a taught model does on the photographs that were held out. */
#include "teach_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interval.h"
#include "report.h"
#include "system.h"
#include "taught.h"
#include "text.h"

#define MOST_CONFUSIONS 10
#define MOST_DOUBTFUL   10

/* ---- Ask ---- */

static void add_answer(struct teach_answers *a, struct teach_answer answer) {
    a->answers[a->count++] = answer;
    a->right += answer.right;
}

static void judge_one(struct teach_answers *a, const struct teach_set *set, uint32_t photograph, float *scores) {
    uint32_t best, truth = set->photographs[photograph].class;
    resnet_softmax(scores, set->classes);
    resnet_top_k(scores, set->classes, 1, &best);
    add_answer(a, (struct teach_answer){photograph, truth, best, best == truth, scores[truth]});
    a->all_right += best == truth;
}

static void judge_tags(struct teach_answers *a, const struct teach_set *set, uint32_t photograph, const float *scores) {
    size_t before = a->right;
    for (uint32_t k = 0; k < set->classes; k++) {
        bool truth = set_is_right(set, photograph, k), guess = scores[k] > 0;
        float belief = 1 / (1 + expf(truth ? -scores[k] : scores[k]));
        add_answer(a, (struct teach_answer){photograph, k, guess, guess == truth, belief});
    }
    a->all_right += a->right - before == set->classes;
}

void teach_ask(struct teach_answers *a, const struct teach_set *set, const resnet_model *model) {
    size_t features = set->features;
    float *weight = allocate(set->classes * features, sizeof *weight), *bias = allocate(set->classes, sizeof *bias);
    float *scores = allocate(set->classes, sizeof *scores);
    *a = (struct teach_answers){.held = set->count - set->taught};
    a->answers = allocate((size_t)a->held * (set->tags ? set->classes : 1), sizeof *a->answers);
    taught_classifier(model, weight, bias);
    for (uint32_t i = set->taught; i < set->count; i++) {
        const float *embedding = set->embeddings + (size_t)i * set->views * features; /* its first view */
        for (uint32_t k = 0; k < set->classes; k++) {
            double sum = (double)bias[k];
            for (size_t j = 0; j < features; j++)
                sum += (double)weight[k * features + j] * (double)embedding[j];
            scores[k] = (float)sum;
        }
        (set->tags ? judge_tags(a, set, i, scores) : judge_one(a, set, i, scores));
    }
    free(scores);
    free(bias);
    free(weight);
}

/* ---- Report ---- */

static int compare(uint64_t a, uint64_t b) {
    return (a > b) - (a < b);
}

/* What is wrong first, by what it was taken for. */
static int by_pair(const void *a_, const void *b_) {
    const struct teach_answer *a = a_, *b = b_;
    int right = a->right - b->right, truth = compare(a->truth, b->truth), guess = compare(a->guess, b->guess);
    return right ? right : truth ? truth : guess ? guess : compare(a->photograph, b->photograph);
}

static int by_belief(const void *a_, const void *b_) {
    const struct teach_answer *a = a_, *b = b_;
    int belief = (a->belief > b->belief) - (a->belief < b->belief);
    return belief ? belief : by_pair(a_, b_);
}

/* How often a class was taken for another. */
struct confusion {
    const struct teach_answer *answer;
    size_t count;
};

static int by_count(const void *a_, const void *b_) {
    const struct confusion *a = a_, *b = b_;
    int count = compare(b->count, a->count);
    return count ? count : by_pair(a->answer, b->answer);
}

static const char *guess_name(const struct teach_set *set, const struct teach_answer *answer) {
    return set->tags ? (answer->guess ? "there" : "absent") : set->labels[answer->guess];
}

static void report_confusion(struct report *r, const struct teach_set *set, const struct confusion *c) {
    const char *truth = set->labels[c->answer->truth], *guess = guess_name(set, c->answer);
    if (r->people) {
        printf("%7zu  ", c->count);
        print_clean(stdout, truth);
        fputs(", taken for ", stdout);
        print_clean(stdout, guess);
        putchar('\n');
        return;
    }
    report_open(r, NULL, '{');
    report_text(r, "label", truth);
    report_text(r, "taken_for", guess);
    report_integer(r, "count", c->count);
    report_close(r, '}');
}

static void report_confusions(struct report *r, const struct teach_set *set, struct teach_answers *a) {
    size_t wrong = a->count - a->right, pairs = 0;
    struct confusion *confusions = allocate(wrong, sizeof *confusions);
    qsort(a->answers, a->count, sizeof *a->answers, by_pair);
    for (size_t i = 0; i < wrong; i++) {
        const struct teach_answer *answer = &a->answers[i], *last = pairs ? confusions[pairs - 1].answer : NULL;
        if (last && last->truth == answer->truth && last->guess == answer->guess)
            confusions[pairs - 1].count++;
        else
            confusions[pairs++] = (struct confusion){answer, 1};
    }
    qsort(confusions, pairs, sizeof *confusions, by_count);
    if (r->people && pairs)
        puts("\nmost frequent confusions");
    report_open(r, "confusions", '[');
    for (size_t i = 0; i < pairs && i < MOST_CONFUSIONS; i++)
        report_confusion(r, set, &confusions[i]);
    report_close(r, ']');
    free(confusions);
}

static void report_doubt(struct report *r, const struct teach_set *set, const struct teach_answer *answer) {
    const char *path = set->photographs[answer->photograph].path;
    const char *truth = set->labels[answer->truth], *guess = guess_name(set, answer);
    if (r->people) {
        printf("  %.3f  ", (double)answer->belief);
        print_clean(stdout, path);
        fputs(": ", stdout);
        print_clean(stdout, truth);
        fputs(answer->right ? "" : ", taken for ", stdout);
        print_clean(stdout, answer->right ? "" : guess);
        putchar('\n');
        return;
    }
    report_open(r, NULL, '{');
    report_text(r, "file", path);
    report_text(r, "label", truth);
    report_text(r, "taken_for", guess);
    report_number(r, "probability", (double)answer->belief);
    report_close(r, '}');
}

static void report_doubtful(struct report *r, const struct teach_set *set, struct teach_answers *a) {
    qsort(a->answers, a->count, sizeof *a->answers, by_belief);
    if (r->people && a->count)
        puts("\nmost doubtful of those held out: the probability of what they are said to be");
    report_open(r, "doubtful", '[');
    for (size_t i = 0; i < a->count && i < MOST_DOUBTFUL; i++)
        report_doubt(r, set, &a->answers[i]);
    report_close(r, ']');
}

/* With tags, of each label: where it is right, where it was found, where it was found and is not. */
static void report_tags(struct report *r, const struct teach_set *set, const struct teach_answers *a) {
    if (r->people)
        puts("\n   there   found  wrongly  label");
    report_open(r, "labels", '[');
    for (uint32_t k = 0; k < set->classes; k++) {
        size_t there = 0, found = 0, wrongly = 0;
        for (size_t i = 0; i < a->count; i++)
            if (a->answers[i].truth == k) {
                there += set_is_right(set, a->answers[i].photograph, k);
                found += a->answers[i].guess && a->answers[i].right;
                wrongly += a->answers[i].guess && !a->answers[i].right;
            }
        if (r->people) {
            printf("%8zu%8zu%9zu  ", there, found, wrongly);
            print_clean(stdout, set->labels[k]);
            putchar('\n');
            continue;
        }
        report_open(r, NULL, '{');
        report_text(r, "label", set->labels[k]);
        report_integer(r, "there", there);
        report_integer(r, "found", found);
        report_integer(r, "wrongly", wrongly);
        report_close(r, '}');
    }
    report_close(r, ']');
}

static void report_held_out(struct report *r, const struct teach_set *set, struct teach_answers *a) {
    float interval[2];
    report_integer(r, "held_out", a->held);
    if (!a->held)
        return;
    wilson(a->all_right, a->held, interval);
    report_integer(r, "right", a->all_right);
    report_number(r, "accuracy", (double)a->all_right / a->held);
    report_floats(r, "interval", interval, 2);
    if (set->tags)
        report_tags(r, set, a);
    report_confusions(r, set, a);
    report_doubtful(r, set, a);
}

void teach_report(struct teach_summary *summary, bool json) {
    const struct teach_set *set = summary->set;
    struct report report = {.people = !json}, *r = &report;
    report_open(r, NULL, '{');
    report_text(r, "model", summary->output);
    report_integer(r, "classes", set->classes);
    report_integer(r, "photographs", set->count);
    report_integer(r, "views_of_each", set->views);
    report_integer(r, "failed", set->failed);
    report_integer(r, "copies", set->twice);
    report_integer(r, "disputed", set->disputed);
    report_number(r, "strength", summary->fit.strength);
    report_text(r, "near_to", summary->fit.from_zero ? "zero" : "the old classifier");
    report_integer(r, "folds", summary->fit.folds);
    report_number(r, "seconds", summary->seconds);
    report_held_out(r, set, &summary->answers);
    report_close(r, '}');
    if (json)
        putchar('\n');
}
