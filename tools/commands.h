/* commands.h - what a subcommand of the program is, and the codes that it may exit with. */
#ifndef COMMANDS_H
#define COMMANDS_H

enum exit_code {
    EXIT_FINE = 0,
    EXIT_INPUTS = 1, /* some inputs failed, the rest is done; of diff: a layer departs */
    EXIT_USAGE = 2,
    EXIT_MODEL = 3, /* a bad or unsupported model, an absent instruction set */
    EXIT_IO = 4     /* a file, the memory or a thread was refused */
};

struct command {
    const char *name, *operands;                                   /* "classify", " IMAGE..." */
    const char *summary;                                           /* one line */
    const char *notes;                                             /* more for --help, or NULL */
    int (*run)(const struct command *self, int argc, char **argv); /* argv[0] is the first argument */
};

extern const struct command command_classify, command_inspect, command_bench, command_eval, command_quantize,
    command_diff, command_embed, command_features, command_explain, command_similar, command_teach;

#endif
