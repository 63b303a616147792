/* options.c - a command's options as a table: parsed by it, and shown by --help. */
#include "options.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

static bool parse_text(const struct option *option, const char *text) {
    *(const char **)option->value = text;
    return true;
}

static bool parse_count(const struct option *option, const char *text) {
    char *end;
    unsigned long long number = strtoull(text, &end, 10); /* the largest there is, where it does not fit */
    if (!isdigit((unsigned char)*text) || *end || number < option->least || number > option->most) {
        complain("--%s takes a whole number from %" PRIu32 " to %" PRIu32 ", not \"%s\"", option->name, option->least,
                 option->most, text);
        return false;
    }
    *(uint32_t *)option->value = (uint32_t)number;
    return true;
}

static bool parse_seconds(const struct option *option, const char *text) {
    char *end;
    double number = strtod(text, &end);
    if (!isdigit((unsigned char)*text) || text[strspn(text, "0123456789.")] || *end || !(number <= 3600)) {
        complain("--%s takes a number from 0 to 3600, not \"%s\"", option->name, text);
        return false;
    }
    *(double *)option->value = number;
    return true;
}

static const char *isa_choice(int i) {
    return resnet_isa_name((resnet_isa)i);
}

static const char *precision_choice(int i) {
    return resnet_precision_name((resnet_precision)i);
}

/* "auto", "f32", ... separated by commas. */
static void list_choices(const struct option *option, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; strcmp(option->choice(i), "unknown") != 0 && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", option->choice(i));
}

/* The number of the choice that is named, or -1 after a complaint. */
static int find_choice(const struct option *option, const char *text) {
    char list[128];
    for (int i = 0; strcmp(option->choice(i), "unknown") != 0; i++)
        if (strcmp(option->choice(i), text) == 0)
            return i;
    list_choices(option, list, sizeof list);
    complain("--%s takes one of %s, not \"%s\"", option->name, list, text);
    return -1;
}

static bool parse_isa(const struct option *option, const char *text) {
    int i = find_choice(option, text);
    if (i >= 0)
        *(resnet_isa *)option->value = (resnet_isa)i;
    return i >= 0;
}

static bool parse_precision(const struct option *option, const char *text) {
    int i = find_choice(option, text);
    if (i >= 0)
        *(resnet_precision *)option->value = (resnet_precision)i;
    return i >= 0;
}

struct option option_switch(const char *name, const char *help, bool *value) {
    return (struct option){.name = name, .help = help, .value = value};
}

struct option option_text(const char *name, const char *argument, const char *help, const char **value) {
    return (struct option){.name = name, .argument = argument, .help = help, .parse = parse_text, .value = value};
}

struct option option_count(const char *name, const char *help, uint32_t *value, uint32_t least, uint32_t most) {
    return (struct option){.name = name,
                           .argument = "N",
                           .help = help,
                           .parse = parse_count,
                           .value = value,
                           .least = least,
                           .most = most};
}

struct option option_seconds(const char *name, const char *help, double *value) {
    return (struct option){.name = name, .argument = "S", .help = help, .parse = parse_seconds, .value = value};
}

struct option option_model(const char **value) {
    return option_text("model", "FILE", "the model file (without it: the default model)", value);
}

struct option option_threads(uint32_t *value) {
    return option_count("threads", "threads to use (0: what this machine gives)", value, 0, 1024);
}

struct option option_isa(resnet_isa *value) {
    return (struct option){.name = "isa",
                           .argument = "NAME",
                           .help = "instruction set: ",
                           .choice = isa_choice,
                           .parse = parse_isa,
                           .value = value};
}

struct option option_precision(resnet_precision *value) {
    return (struct option){.name = "precision",
                           .argument = "NAME",
                           .help = "numbers to compute in: ",
                           .choice = precision_choice,
                           .parse = parse_precision,
                           .value = value};
}

struct option option_resize(uint32_t *value) {
    return option_count("resize", "short side before the crop (0: only crop; default: the model's)", value, 0, 16384);
}

struct option option_json(bool *value) {
    return option_switch("json", "write JSON", value);
}

static void print_row(const struct option *option) {
    char left[40], choices[128] = "";
    const char *argument = option->argument;
    snprintf(left, sizeof left, "--%s%s%s", option->name, argument ? " " : "", argument ? argument : "");
    if (option->choice)
        list_choices(option, choices, sizeof choices);
    printf("  %-18s  %s%s\n", left, option->help, choices);
}

static void print_help(const struct command *command, const struct option *options) {
    printf("usage: resnet %s [OPTION]...%s\n\n%s\n\n", command->name, command->operands, command->summary);
    for (; options->name; options++)
        print_row(options);
    print_row(&(struct option){.name = "help", .help = "show this and exit"});
    if (command->notes)
        printf("\n%s\n", command->notes);
}

static void print_usage(const struct command *command) {
    fprintf(stderr, "usage: resnet %s [OPTION]...%s (see resnet help %s)\n", command->name, command->operands,
            command->name);
}

int usage_error(const struct command *command, const char *what, const char *detail) {
    complain("%s: %s%s", command->name, what, detail);
    print_usage(command);
    return EXIT_USAGE;
}

static const struct option *find(const struct option *options, const char *name, size_t length) {
    for (; options->name; options++)
        if (strncmp(options->name, name, length) == 0 && !options->name[length])
            return options;
    return NULL;
}

/* Of the two that are short: -o as compilers have it, -0 as xargs has it. Else NULL. */
static const char *long_name(const char *argument) {
    return strcmp(argument, "-o") == 0 ? "output" : strcmp(argument, "-0") == 0 ? "null" : NULL;
}

/* The option at argv[0]; gives how many arguments it took, or 0 after a complaint. */
static int parse_one(const struct command *command, const struct option *options, int argc, char **argv) {
    const char *of_short = long_name(argv[0]), *name = of_short ? of_short : argv[0] + 2, *equals = strchr(name, '=');
    const struct option *option = find(options, name, equals ? (size_t)(equals - name) : strlen(name));
    if ((strncmp(argv[0], "--", 2) != 0 && !of_short) || !option)
        return usage_error(command, "unknown option ", argv[0]), 0;
    if (!option->parse) {
        if (equals)
            return usage_error(command, "this option takes no value: ", argv[0]), 0;
        *(bool *)option->value = true;
        return 1;
    }
    if (!equals && argc < 2)
        return usage_error(command, "a value is missing after ", argv[0]), 0;
    if (!option->parse(option, equals ? equals + 1 : argv[1]))
        return print_usage(command), 0;
    return equals ? 1 : 2;
}

int options_parse(const struct command *command, const struct option *options, int *argc, char **argv) {
    int operands = 0;
    for (int i = 0; i < *argc;) {
        if (strcmp(argv[i], "--") == 0) {
            while (++i < *argc)
                argv[operands++] = argv[i];
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(command, options);
            return EXIT_FINE;
        } else if (argv[i][0] == '-' && argv[i][1]) {
            int used = parse_one(command, options, *argc - i, argv + i);
            if (!used)
                return EXIT_USAGE;
            i += used;
        } else
            argv[operands++] = argv[i++];
    }
    *argc = operands;
    return GO_ON;
}
