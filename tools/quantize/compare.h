/* compare.h - run two models of one network on the same images, and add up how far apart their layers are. */
#ifndef COMPARE_H
#define COMPARE_H

#include "model.h"
#include "session.h"

/* Sums of squares over all numbers of a node's output, of all images. */
struct difference {
    double signal, noise; /* of the exact model's, and of the difference */
};

struct comparison {
    resnet_allocator allocator;
    const resnet_model *exact, *other;       /* exact is in f32 */
    resnet_session *exact_session, *session; /* of one image */
    float *exact_logits, *logits;
    float *outputs; /* of all nodes of exact_session, one after the other, dense */
    size_t *starts; /* of each node's */
    size_t outputs_size;
    struct difference *differences; /* of each node */
    uint64_t images, agreeing;      /* agreeing: with the same largest logit */
};

/* The models must outlive it, and be of the same config. comparison_free may follow either way. Errors: MEMORY, THREAD.
 */
resnet_status comparison_create(struct comparison *comparison, const resnet_model *exact, const resnet_model *other,
                                uint32_t threads, resnet_error *error);
void comparison_free(struct comparison *comparison);

/* Take in the image of a slot of a session of the exact model. Errors: those of resnet_session_run. */
resnet_status comparison_add(struct comparison *comparison, const resnet_session *from, uint32_t slot,
                             resnet_error *error);

#endif
