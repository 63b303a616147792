/* batch.h - take a few images at a time through a session: decode them on all threads, then run. */
#ifndef BATCH_H
#define BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "inputs.h"
#include "resnet.h"

/* What the user may choose about it. */
struct batch_settings {
    const char *model; /* NULL: the default model */
    resnet_isa isa;
    resnet_precision precision;
    uint32_t threads, size;
    uint32_t resize; /* or RESIZE_AS_MODEL */
};

struct picture {
    char *path; /* owned */
    bool is_stdin;
    uint32_t truth;     /* its class, for who knows it */
    resnet_error error; /* after batch_run: status RESNET_OK where there are logits */
};

struct batch {
    const char *path; /* the model's file */
    resnet_model *model;
    resnet_session *session;
    resnet_model_info info;
    resnet_preprocess preprocess;
    uint32_t size, count; /* pictures that fit, and that are there */
    struct picture *pictures;
    float *logits; /* [size][classes] */
};

/* EXIT_FINE, or the code to exit with after a complaint. batch_close may follow either. batch_open_model leaves out the
 * session and what it needs. */
int batch_open_model(struct batch *batch, const struct batch_settings *settings);
int batch_open(struct batch *batch, const struct batch_settings *settings);
void batch_close(struct batch *batch);

/* Append a picture, taking over its path. There must be room. */
void batch_add(struct batch *batch, struct picture picture);

/* Take the next images in place of those that are there; false where none is left. */
bool batch_fill(struct batch *batch, struct inputs *inputs);

/* Decode the pictures into the session's slots. Returns how many could be. */
uint32_t batch_decode(struct batch *batch);

/* Decode the pictures and compute what is asked for, of each slot. */
void batch_request(struct batch *batch, const resnet_request *request);

/* Decode and classify the pictures. */
void batch_run(struct batch *batch);

/* Forget the pictures. */
void batch_clear(struct batch *batch);

#endif
