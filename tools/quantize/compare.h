/* compare.h - run two models of one network on the same images, and add up how far apart their layers are. */
#ifndef COMPARE_H
#define COMPARE_H

#include "model.h"
#include "session.h"

/* Numbers that a network gives for an image: its logits or, without a head, its embedding. */
uint32_t outputs_of(const resnet_model *model);

/* Run slots 0..count-1 of a session of the model: outputs[count][outputs_of(model)]. Errors: those of resnet_run. */
resnet_status run_outputs(resnet_session *session, const resnet_model *model, uint32_t count, float *outputs,
                          resnet_error *error);

/* Sums of squares over all numbers of a node's output, of all images. */
struct difference {
    double signal, noise; /* of the exact model's, and of the difference */
};

struct comparison {
    resnet_allocator allocator;
    const resnet_model *exact, *other;       /* exact is in f32 */
    resnet_session *exact_session, *session; /* of one image */
    float *exact_outputs, *outputs;          /* of the networks */
    float *maps;                             /* of all nodes of exact_session, one after the other, dense */
    size_t *starts;                          /* of each node's */
    size_t maps_size;
    struct difference *differences; /* of each node */
    uint64_t images, agreeing;      /* agreeing: with the same largest logit; 0 without a head */
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
