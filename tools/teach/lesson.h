/* lesson.h - a file of the embeddings that a network was taught with, so that it can be taught more classes later.
 */
#ifndef LESSON_H
#define LESSON_H

#include <stdio.h>

#include "resnet.h"

/*
 * In the byte order of the machine: a header of 64 bytes, the labels and names, the pictures' hashes and classes, the
 * embeddings. Each part starts at a multiple of 8.
 */
struct lesson {
    uint64_t identity;            /* of the network: see taught_identity */
    uint32_t precision;           /* that it computed in */
    uint32_t flip, crops, resize; /* see struct viewer */
    uint32_t features, classes, count;
    uint32_t text_size;
    char *text;       /* terminated strings: a label a class, a name a photograph */
    uint64_t *hashes; /* [count] */
    uint32_t *class;  /* [count] */
    int descriptor;   /* of an open file */
};

/* Open a file and read all but the embeddings. It must be closed whether this succeeds or not. Errors: IO, MEMORY;
 * MODEL, where the bytes are no such file. */
resnet_status lesson_open(struct lesson *e, const char *path, resnet_error *error);
void lesson_close(struct lesson *e);

/* Read the views of a photograph: [views][features]. Errors: IO. */
resnet_status lesson_read(const struct lesson *e, uint32_t number, float *values, resnet_error *error);

/* Write a file with these values, [count][views][features]. Write errors show in the stream. */
void lesson_write(const struct lesson *e, const float *values, FILE *out);

#endif
