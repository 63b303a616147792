/* taught.h - a model that resnet_teach made: its classifier, and a model file of it. */
#ifndef TAUGHT_H
#define TAUGHT_H

#include <stdio.h>

#include "resnet.h"

/* Read the classifier of a model back: weight[classes][features] and bias[classes]. */
void taught_classifier(const resnet_model *model, float *weight, float *bias);

/* A number that tells the networks in model files apart: size and checksum. Errors: as resnet_model_load_file. */
resnet_status taught_identity(const char *path, uint64_t *identity, resnet_error *error);

/* A taught model, and what it was made of. */
struct taught {
    const resnet_model *model, *backbone;
    const char *path;      /* of the backbone's file, from which all else is copied */
    uint64_t identity;     /* of that file when it was loaded */
    resnet_preprocess how; /* for the header */
};

/* Write the model file, in what the backbone's is stored in, but for int8 with the classifier in f32. Write errors show
 * in the stream. Errors: as resnet_model_load_file; MODEL, where the backbone's file is no longer what was loaded. */
resnet_status taught_write(const struct taught *taught, FILE *out, resnet_error *error);

#endif
