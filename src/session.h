/* session.h - what the library's other modules may do with a session beyond what resnet.h offers. */
#ifndef SESSION_H
#define SESSION_H

#include "graph.h"
#include "kernels/kernels.h"
#include "plan.h"

/* A node's output that is there now and may be overwritten soon. */
struct observation {
    uint32_t node; /* 0: the input, in the session's format */
    uint32_t images;
    enum format format; /* F32 for the logits whatever the session's */
    const struct tensor *tensor;
    const float *values; /* of pixel (0, 0) of the first image; the strides are the tensor's */
};

typedef void session_observer(void *context, const struct observation *observation);

/* Have every run call `observer`, where it is not NULL, after each node, on the thread that runs the session. */
void session_observe(resnet_session *session, session_observer *observer, void *context);

/* Fill slot `slot` of `to` with what slot `from_slot` of `from` holds: both must have the same input size. */
void session_copy_slot(resnet_session *to, uint32_t slot, const resnet_session *from, uint32_t from_slot);

/* Turn what slot `slot` holds into its mirror image. */
void session_mirror_slot(resnet_session *session, uint32_t slot);

#endif
