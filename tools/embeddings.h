/*
 * embeddings.h - the embeddings of many images in two files: a matrix, NAME.npy, and a table beside it, NAME.tsv.
 *
 * Row i of the matrix [rows][features] belongs to line i of the table behind the line of column names:
 *     file      as it was named
 *     bytes     the file's size, and
 *     modified  when it was last changed, in seconds since 1970; both "-" where there was no file (stdin)
 *     model     what embedded it: checksums of the model file, pixels of the short side, precision
 *     check     of the row's numbers: tells a matrix that is not this table's
 */
#ifndef EMBEDDINGS_H
#define EMBEDDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "batch.h"
#include "done.h"
#include "output_file.h"

#define EMBEDDINGS_TEXT 64

/* A line of the table but for the check. */
struct embedded {
    char *file;                  /* owned where it is in a struct embeddings */
    char stamp[EMBEDDINGS_TEXT]; /* bytes, tab, modified */
    char model[EMBEDDINGS_TEXT];
};

struct embeddings {
    uint32_t count, features;
    struct embedded *rows;
    float *values; /* [count][features] */
};

/* What stands in the columns bytes and modified for a file as it is now. */
void embeddings_stamp(const char *file, char stamp[EMBEDDINGS_TEXT]);

/* What stands in the column model for what this batch computes. False after a complaint. */
bool embeddings_model(const struct batch *batch, char model[EMBEDDINGS_TEXT]);

/* Whether a table can hold this name: without tabs and line feeds, and not too long. */
bool embeddings_can_name(const char *file);

/* Read both files, which may be anything. False after a complaint; embeddings_free may follow either. */
bool embeddings_read(struct embeddings *set, const char *matrix);
void embeddings_free(struct embeddings *set);

/* Writes both files, a row at a time. */
struct embeddings_writer {
    struct output_file matrix, table;
    char *table_name;
    uint32_t features;
    uint64_t rows;
};

/* False after a complaint, each. After commit or abandon, older files are as they were or replaced. */
bool embeddings_create(struct embeddings_writer *writer, const char *matrix, uint32_t features);
void embeddings_add(struct embeddings_writer *writer, const struct embedded *row, const float *values);
bool embeddings_flush(struct embeddings_writer *writer);
bool embeddings_commit(struct embeddings_writer *writer);
void embeddings_abandon(struct embeddings_writer *writer);

/*
 * Go on with the two files, which need not be there: `model` must be what has embedded their rows, whose names are
 * added to *done. What does not make a whole row in both is cut off; anything else is refused. What is written shows at
 * once, but for the number of rows in the matrix's head, which grows at embeddings_commit and here. False after a
 * complaint.
 */
bool embeddings_continue(struct embeddings_writer *writer, const char *matrix, uint32_t features, const char *model,
                         struct done *done);

#endif
