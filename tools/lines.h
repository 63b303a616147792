/* lines.h - read a list, one entry a line, from a file that may be anything. */
#ifndef LINES_H
#define LINES_H

#include <stdbool.h>
#include <stdio.h>

struct lines {
    FILE *file;
    const char *name;
    unsigned long number; /* of the line read last, from 1 */
    bool failed;          /* ended by something other than its end; it was said on stderr */
    char text[8192];      /* the line read last */
};

/* Open the file, or stdin where the name is "-". On failure complain. */
bool lines_open(struct lines *lines, const char *name);
void lines_close(struct lines *lines);

/* The next line that is not empty, without its line feed, in lines->text; false at the end. */
bool lines_next(struct lines *lines);

/* Whether lines_next can go on without waiting for whoever writes the list. */
bool lines_ready(const struct lines *lines);

#endif
