/* progress.h - a bar on stderr while a long list is worked through, where stderr is a terminal. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct progress {
    bool shown, colour;
    size_t done, total;  /* total 0: not known */
    double start, drawn; /* seconds */
};

void progress_start(struct progress *progress, size_t total);
void progress_add(struct progress *progress, size_t more);

/* Take the bar away, for a line of text or at the end; the next progress_add draws it again. */
void progress_clear(struct progress *progress);

#endif
