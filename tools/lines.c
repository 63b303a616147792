/* lines.c - read a list, one entry a line, from a file that may be anything. */
#define _POSIX_C_SOURCE 200809L
#include "lines.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "text.h"

bool lines_open(struct lines *lines, const char *name) {
    struct stat status;
    lines->name = name;
    lines->file = strcmp(name, "-") == 0 ? stdin : fopen(name, "r");
    if (!lines->file || fstat(fileno(lines->file), &status) != 0) {
        complain("%s: the list cannot be opened: %s", name, strerror(errno));
        return false;
    }
    /* No buffer between us and a pipe, so that lines_ready can ask the system. */
    if (!S_ISREG(status.st_mode))
        setvbuf(lines->file, NULL, _IONBF, 0);
    return true;
}

void lines_close(struct lines *lines) {
    if (lines->file && lines->file != stdin)
        fclose(lines->file);
    lines->file = NULL;
}

static bool refuse(struct lines *lines, const char *why) {
    complain("%s: line %lu of the list %s", lines->name, lines->number, why);
    lines->failed = true;
    return false;
}

static bool read_line(struct lines *lines) {
    size_t length = 0;
    int c;
    lines->number++;
    while ((c = getc(lines->file)) != EOF && c != '\n') {
        if (c == '\0')
            return refuse(lines, "has a NUL byte: expected text");
        if (length + 1 == sizeof lines->text)
            return refuse(lines, "is too long");
        lines->text[length++] = (char)c;
    }
    lines->text[length] = '\0';
    if (ferror(lines->file))
        return refuse(lines, strerror(errno));
    return c == '\n' || length > 0;
}

bool lines_next(struct lines *lines) {
    while (!lines->failed && read_line(lines))
        if (*lines->text)
            return true;
    return false;
}

bool lines_ready(const struct lines *lines) {
    struct pollfd poll_file = {.fd = fileno(lines->file), .events = POLLIN};
    return poll(&poll_file, 1, 0) > 0;
}
