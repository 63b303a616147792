/* done.h - the names of images that an earlier run has finished. */
#ifndef DONE_H
#define DONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How often each name was done. The names are kept whole, so that none is taken for another: that costs 22 to 43 bytes
 * a name, and its length.
 */
struct done {
    char *text; /* the names, each with a NUL byte behind */
    size_t used, room;
    struct done_name *slots; /* a power of two of them, at most three quarters of them taken */
    size_t names, size;
    uint64_t count; /* images: names as often as they were done */
};

void done_add(struct done *done, const char *name, size_t length);

/* Whether the name was done once more than it was asked about. */
bool done_take(struct done *done, const char *name);

void done_free(struct done *done);

#endif
