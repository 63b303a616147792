/* inputs.c - the images that a command line names, one after the other: arguments, the lines of a list, the members of
 * an archive. */
#define _POSIX_C_SOURCE 200809L
#include "inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stop.h"
#include "system.h"

static bool is_stdin(const char *name) {
    return name && strcmp(name, "-") == 0;
}

int inputs_stdin_uses(const struct inputs_settings *settings, int count, char **operands) {
    int uses = is_stdin(settings->files_from) + is_stdin(settings->tar);
    for (int i = 0; i < count; i++)
        uses += is_stdin(operands[i]);
    return uses;
}

bool inputs_open(struct inputs *inputs, char **operands, int count, const struct inputs_settings *settings) {
    *inputs = (struct inputs){.settings = *settings, .operands = operands, .count = count};
    inputs->lines.null = settings->null;
    return (!settings->files_from || lines_open(&inputs->lines, settings->files_from)) &&
           (!settings->tar || tar_open(&inputs->tar, settings->tar));
}

void inputs_close(struct inputs *inputs) {
    lines_close(&inputs->lines);
    tar_close(&inputs->tar);
}

bool inputs_next(struct inputs *inputs, struct input *input) {
    const char *name;
    input->kind = INPUT_FILE;
    if (inputs->next < inputs->count) {
        name = inputs->operands[inputs->next++];
        input->kind = is_stdin(name) ? INPUT_STDIN : INPUT_FILE;
    } else if (inputs->settings.files_from && lines_next(&inputs->lines))
        name = inputs->lines.text;
    else if (inputs->settings.tar && !inputs->lines.failed && tar_next(&inputs->tar)) {
        name = inputs->tar.path;
        input->kind = INPUT_MEMBER;
    } else
        return false;
    input->name = copy_text(name);
    return true;
}

/* ---- Bytes ---- */

static uint8_t *refuse(resnet_error *error, uint8_t *data, const char *why) {
    error->status = RESNET_ERROR_IO;
    snprintf(error->message, sizeof error->message, "%s", why);
    free(data);
    return NULL;
}

uint8_t *inputs_read_stdin(size_t *size, resnet_error *error) {
    size_t room = 1 << 20;
    uint8_t *data = allocate(room, 1);
    ssize_t got;
    for (*size = 0; (got = stop_read(STDIN_FILENO, data + *size, room - *size)) > 0;) {
        if ((*size += (size_t)got) > INPUTS_MOST_BYTES)
            return refuse(error, data, "stdin has more than the 64 MiB that an image may have");
        if (*size < room)
            continue;
        uint8_t *larger = allocate(2 * room, 1);
        memcpy(larger, data, *size);
        free(data);
        data = larger;
        room *= 2;
    }
    return got < 0 ? refuse(error, data, "stdin cannot be read") : data;
}

static uint8_t *read_member(struct tar *tar, size_t *size, resnet_error *error) {
    if (tar->size > INPUTS_MOST_BYTES)
        return refuse(error, NULL, "a member of more than the 64 MiB that an image may have");
    *size = (size_t)tar->size;
    uint8_t *data = allocate(*size, 1);
    return tar_read(tar, data) ? data : refuse(error, data, "the archive ends in the middle of it");
}

uint8_t *inputs_read(struct inputs *inputs, const struct input *input, size_t *size, resnet_error *error) {
    return input->kind == INPUT_STDIN ? inputs_read_stdin(size, error) : read_member(&inputs->tar, size, error);
}

/* ---- All of them ---- */

bool inputs_failed(const struct inputs *inputs) {
    return inputs->lines.failed || inputs->tar.failed;
}

uint64_t inputs_total(const struct inputs *inputs) {
    const struct inputs_settings *settings = &inputs->settings;
    struct lines lines = {.null = settings->null};
    struct stat status;
    uint64_t total = (uint64_t)inputs->count;
    if (settings->tar)
        return 0;
    if (!settings->files_from)
        return total;
    if (stat(settings->files_from, &status) != 0 || !S_ISREG(status.st_mode) ||
        !lines_open(&lines, settings->files_from))
        return 0;
    while (lines_next(&lines))
        total++;
    lines_close(&lines);
    return total;
}
