/* text.c - text of unknown origin (file names, labels) on its way out, and complaints. */
#define _POSIX_C_SOURCE 200809L
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

uint32_t utf8_next(const char **s) {
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000}; /* by continuation bytes: less is overlong */
    const unsigned char *p = (const unsigned char *)*s;
    unsigned more = *p < 0x80 ? 0 : *p < 0xc0 ? 4 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf8 ? 3 : 4;

    ++*s;
    if (more == 4)
        return UTF8_INVALID;
    uint32_t code = more ? *p & (0x3fu >> more) : *p;
    for (unsigned i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return UTF8_INVALID;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < smallest[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return UTF8_INVALID;
    *s += more;
    return code;
}

bool is_control(uint32_t code_point) {
    return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0) || code_point == UTF8_INVALID;
}

void print_clean(FILE *out, const char *s) {
    while (*s) {
        const char *start = s;
        if (is_control(utf8_next(&s)))
            fputc('?', out);
        else
            fwrite(start, 1, (size_t)(s - start), out);
    }
}

void complain(const char *format, ...) {
    char line[8192]; /* a path of PATH_MAX and a sentence */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fputs("resnet: ", stderr);
    print_clean(stderr, line);
    fputc('\n', stderr);
}

const char *without_name(const char *message, const char *file) {
    const char *start = strncmp(message, "...", 3) == 0 ? message + 3 : message;
    for (; *file; file++) {
        size_t n = 0;
        while (file[n] && (start[n] == file[n] || start[n] == '?'))
            n++;
        if (!file[n] && strncmp(start + n, ": ", 2) == 0)
            return start + n + 2;
        if (start == message) /* not shortened */
            break;
    }
    return message;
}

bool names_image(const char *file) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".bmp"};
    const char *ending = strrchr(file, '.');
    for (size_t i = 0; ending && i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(ending, endings[i]) == 0)
            return true;
    return false;
}

bool flush_output(void) {
    static bool told;
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    if (!told && errno != EPIPE) /* a reader that has gone wants to hear nothing */
        complain("the output cannot be written: %s", errno ? strerror(errno) : "an earlier write failed");
    told = true;
    return false;
}

bool takes_colour(FILE *stream) {
    const char *no_color = getenv("NO_COLOR"); /* no-color.org: set, and not empty */
    return isatty(fileno(stream)) && !(no_color && *no_color);
}
