/* teach_report.h - how a taught model does on the photographs that were held out. */
#ifndef TEACH_REPORT_H
#define TEACH_REPORT_H

#include "teach_set.h"

/* What a model says of a photograph that was held out; with tags, of one of its classes. */
struct teach_answer {
    uint32_t photograph, truth, guess; /* with tags: truth is the class, guess 1 for yes */
    bool right;
    float belief; /* the probability that it gave to what is right */
};

struct teach_answers {
    struct teach_answer *answers; /* [count] */
    size_t count, right;
    uint32_t held, all_right; /* photographs; those of which all answers are right */
};

/* Put what is held out to the model. */
void teach_ask(struct teach_answers *answers, const struct teach_set *set, const resnet_model *model);

/* What was done. */
struct teach_summary {
    const struct teach_set *set;
    struct teach_answers answers;
    resnet_teach_report fit;
    const char *output;
    double seconds;
};

/* As JSON, or for people. */
void teach_report(struct teach_summary *summary, bool json);

#endif
