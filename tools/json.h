/* json.h - read a JSON text of unknown origin: each number and string in it, with its path. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

struct json_value {
    const char *path; /* such as ".layers[].name": a dot before each name, [] for any element of an array */
    const char *text; /* a string as it is written, escapes and all, its first 63 bytes; else NULL */
    double number;    /* NaN where it is none */
};

/* Call `visit` for each number, string, true, false and null of the text, in order. False where the text is no JSON, or
 * is nested deeper than a path of 127 bytes tells; values may have been visited before that is found. */
bool json_read(const char *text, size_t size, void (*visit)(void *context, const struct json_value *value),
               void *context);

#endif
