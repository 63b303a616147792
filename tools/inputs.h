/* inputs.h - the images that a command line names, one after the other: arguments, then the lines of a list. */
#ifndef INPUTS_H
#define INPUTS_H

#include <stdbool.h>

#include "lines.h"

struct inputs {
    char **operands;
    int count, next;
    bool listed; /* there is a list */
    struct lines lines;
};

/* How often stdin is asked for. */
int inputs_stdin_uses(const char *list, int count, char **operands);

/* `list` is NULL, a file, or "-" for stdin. False after a complaint. */
bool inputs_open(struct inputs *inputs, char **operands, int count, const char *list);
void inputs_close(struct inputs *inputs);

/* The next image's path, which the caller frees, or NULL at the end. *is_stdin: it is the argument "-". */
char *inputs_next(struct inputs *inputs, bool *is_stdin);

/* Whether inputs_next can go on without waiting for whoever writes the list. */
bool inputs_ready(const struct inputs *inputs);

#endif
