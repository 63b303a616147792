/* options.h - a command's options as a table: parsed by it, and shown by --help. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "commands.h"
#include "resnet.h"

/* A row; a row without a name ends the table. The functions below make rows. */
struct option {
    const char *name, *argument, *help; /* "threads", "N" (NULL: a switch), one line */
    const char *(*choice)(int i);       /* NULL, or the names to choose from, then "unknown" */
    bool (*parse)(const struct option *option, const char *text); /* false: complained */
    void *value;
    uint32_t least, most;
};

struct option option_switch(const char *name, const char *help, bool *value);
struct option option_text(const char *name, const char *argument, const char *help, const char **value);
struct option option_count(const char *name, const char *help, uint32_t *value, uint32_t least, uint32_t most);
struct option option_seconds(const char *name, const char *help, double *value);

/* Options that several commands have. */
struct option option_model(const char **value);
struct option option_threads(uint32_t *value);
struct option option_isa(resnet_isa *value);
struct option option_precision(resnet_precision *value);
struct option option_resize(uint32_t *value);
struct option option_json(bool *value);

#define RESIZE_AS_MODEL UINT32_MAX /* what --resize is when it is not given */
#define GO_ON           (-1)

/*
 * Read the options among argv[0..*argc-1] ("--name value", "--name=value", "--" ends them) and leave the operands
 * there. GO_ON, or the code to exit with: after --help, or a mistake that was complained about.
 */
int options_parse(const struct command *command, const struct option *options, int *argc, char **argv);

/* Complain about how the command was called, with its usage line: EXIT_USAGE. */
int usage_error(const struct command *command, const char *what, const char *detail);

#endif
