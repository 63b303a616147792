/* lines.h - read a list, one entry a line, from a file that may be anything. */
#ifndef LINES_H
#define LINES_H

#include <stdbool.h>
#include <stddef.h>

struct lines {
    int descriptor;
    const char *name;
    bool null;            /* to be set before: entries end with a NUL byte, and may hold line feeds */
    unsigned long number; /* of the line read last, from 1 */
    bool failed;          /* ended by something other than its end; it was said on stderr */
    char text[8192];      /* the line read last */
    size_t at, filled;    /* of the buffer: bytes that are taken, and that are there */
    char buffer[16384];
};

/* Open the file, or stdin where the name is "-". On failure complain. */
bool lines_open(struct lines *lines, const char *name);
void lines_close(struct lines *lines);

/* The next line that is not empty, without what ends it, in lines->text; false at the end, and after a wish to stop
 * (stop.h). It waits for no more than this line. */
bool lines_next(struct lines *lines);

#endif
