/* inputs.h - the images that a command line names, one after the other: arguments, the lines of a list, the members of
 * an archive. */
#ifndef INPUTS_H
#define INPUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lines.h"
#include "resnet.h"
#include "tar.h"

#define INPUTS_MOST_BYTES ((size_t)64 << 20) /* of an image that does not come from a file */

/* Where to look besides the arguments: a file, or "-" for stdin; NULL: nowhere. */
struct inputs_settings {
    const char *files_from, *tar;
    bool null; /* names in the list end with NUL bytes */
};

struct inputs {
    struct inputs_settings settings;
    char **operands;
    int count, next;
    struct lines lines;
    struct tar tar;
};

/* Where an image is. */
enum input_kind { INPUT_FILE, INPUT_STDIN, INPUT_MEMBER };

struct input {
    char *name; /* the receiver's, who frees it */
    enum input_kind kind;
};

/* How often stdin is asked for. */
int inputs_stdin_uses(const struct inputs_settings *settings, int count, char **operands);

/* False after a complaint. */
bool inputs_open(struct inputs *inputs, char **operands, int count, const struct inputs_settings *settings);
void inputs_close(struct inputs *inputs);

/* The next image; false at the end. */
bool inputs_next(struct inputs *inputs, struct input *input);

/* The bytes of an image on stdin; owned by the caller. NULL with an error where there are none. */
uint8_t *inputs_read_stdin(size_t *size, resnet_error *error);

/* The bytes of the image that came last, unless it is a file, in the same way. */
uint8_t *inputs_read(struct inputs *inputs, const struct input *input, size_t *size, resnet_error *error);

/* Whether the list or the archive ended by something other than its end. */
bool inputs_failed(const struct inputs *inputs);

/* How many images there are, where that can be found out without using them up; else 0. */
uint64_t inputs_total(const struct inputs *inputs);

#endif
