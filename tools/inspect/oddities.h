/* oddities.h - what about a model file an engineer would want to be told before using it. */
#ifndef ODDITIES_H
#define ODDITIES_H

#include "resnet.h"

#define ODDITIES_MOST 16

struct oddities {
    uint32_t count;
    char text[ODDITIES_MOST][160]; /* each a phrase, without a full stop */
};

/* Look at the labels and the preprocessing of a model, and at the tensors of the file `path` that it was loaded from.
 * Errors: IO, MODEL (the file is another one now), MEMORY. */
resnet_status oddities_find(struct oddities *odd, const resnet_model *model, const char *path, resnet_error *error);

#endif
