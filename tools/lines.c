/* lines.c - read a list, one entry a line, from a file that may be anything. */
#define _POSIX_C_SOURCE 200809L
#include "lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "stop.h"
#include "text.h"

bool lines_open(struct lines *lines, const char *name) {
    lines->name = name;
    lines->descriptor = strcmp(name, "-") == 0 ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    if (lines->descriptor < 0)
        complain("%s: the list cannot be opened: %s", name, strerror(errno));
    return lines->descriptor >= 0;
}

void lines_close(struct lines *lines) {
    if (lines->descriptor > STDIN_FILENO)
        close(lines->descriptor);
    lines->descriptor = -1;
}

static bool refuse(struct lines *lines, const char *why) {
    complain("%s: %s %lu of the list %s", lines->name, lines->null ? "name" : "line", lines->number, why);
    lines->failed = true;
    return false;
}

#define END (-1)

/* The next byte; END also where there was an error (lines->failed) or a wish to stop. */
static int next_byte(struct lines *lines) {
    if (lines->at == lines->filled) {
        ssize_t got = stop_read(lines->descriptor, lines->buffer, sizeof lines->buffer);
        if (got < 0 && !stop_asked())
            refuse(lines, strerror(errno));
        if (got <= 0)
            return END;
        lines->at = 0;
        lines->filled = (size_t)got;
    }
    return (unsigned char)lines->buffer[lines->at++];
}

static bool read_line(struct lines *lines) {
    size_t length = 0;
    int c, end = lines->null ? '\0' : '\n';
    lines->number++;
    while ((c = next_byte(lines)) != END && c != end) {
        if (c == '\0')
            return refuse(lines, "has a NUL byte: expected text");
        if (length + 1 == sizeof lines->text)
            return refuse(lines, "is too long");
        lines->text[length++] = (char)c;
    }
    lines->text[length] = '\0';
    if (c == END && (lines->failed || stop_asked())) /* half a name is none */
        return false;
    return c == end || length > 0;
}

bool lines_next(struct lines *lines) {
    while (!lines->failed && read_line(lines))
        if (*lines->text)
            return true;
    return false;
}
