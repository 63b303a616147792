/* session_parts.h - what session.c, which makes a session, and run.c, which runs it, share. */
#ifndef SESSION_PARTS_H
#define SESSION_PARTS_H

#include "model.h"
#include "session.h"
#include "threads.h"

struct resnet_session {
    const resnet_model *model;
    struct resnet_session_options options; /* with every default filled in */
    struct graph graph;                    /* at this session's input size */
    struct plan plan;                      /* its scratch: scratch_size floats for each thread, then, with a head, for
                                              class-activation maps the logits of a group and the weights of a class */
    uint32_t group;                        /* images that go through the network together */
    size_t scratch_size;                   /* floats a thread */
    float *arena;
    struct pool *pool;
    session_observer *observer; /* NULL: none */
    void *observer_context;
};

/* Errors: ARGUMENT. */
resnet_status check_layout(resnet_layout layout, resnet_error *error);

#endif
