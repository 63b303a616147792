/* resnet.c - the program: find the subcommand and run it. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "options.h"
#include "resnet.h"
#include "text.h"

static const struct command *const commands[] = {
    &command_classify, &command_eval,     &command_explain, &command_embed, &command_features, &command_similar,
    &command_teach,    &command_quantize, &command_inspect, &command_diff,  &command_bench};
#define COMMANDS ((int)(sizeof commands / sizeof *commands))

#ifdef RESNET_WITH_TURBO
#define JPEG_DECODER "libjpeg-turbo"
#else
#define JPEG_DECODER "stb_image"
#endif

static void print_help(FILE *out) {
    fputs("usage: resnet COMMAND [OPTION]...\n\nResNet image classification on the CPU.\n\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nresnet help COMMAND tells more; resnet --version prints the version.\n"
          "Exit code: 0 all done, 1 some inputs failed, 2 usage, 3 model, 4 input or output.\n",
          out);
}

/* "info" is what inspect was called at first. */
static const struct command *find(const char *name) {
    if (strcmp(name, "info") == 0)
        return &command_inspect;
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int dispatch(int argc, char **argv) {
    char help[] = "--help", *help_only[] = {help, NULL};
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    bool wants_help = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--version") == 0) {
        printf("resnet %s\nJPEGs are decoded by %s\n", resnet_version(), JPEG_DECODER);
        return EXIT_FINE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (wants_help && argc == 2)) {
        print_help(stdout);
        return EXIT_FINE;
    }
    const char *name = argv[wants_help ? 2 : 1];
    const struct command *command = find(name);
    if (!command) {
        complain("there is no command \"%s\"", name);
        print_help(stderr);
        return EXIT_USAGE;
    }
    return wants_help ? command->run(command, 1, help_only) : command->run(command, argc - 2, argv + 2);
}

int main(int argc, char **argv) {
    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* a complaint is one write, whole beside those of other processes */
    int code = dispatch(argc, argv);
    return flush_output() ? code : EXIT_IO;
}
