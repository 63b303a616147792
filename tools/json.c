/* json.c - read a JSON text of unknown origin: each number and string in it, with its path. */
#include "json.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TEXT 64

struct reader {
    const char *at, *end;
    void (*visit)(void *context, const struct json_value *value);
    void *context;
    char path[128];
    size_t length; /* of the path */
};

static bool read_value(struct reader *r);

static void skip_space(struct reader *r) {
    while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at)
        r->at++;
}

/* Whether this is the next character; then it is passed. */
static bool take(struct reader *r, char c) {
    skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* A string behind its opening quote, and the quote that closes it. */
static bool read_string(struct reader *r, char text[MOST_TEXT]) {
    size_t length = 0;
    for (bool escaped = false; r->at < r->end && (escaped || *r->at != '"'); r->at++) {
        if ((unsigned char)*r->at < 0x20)
            return false;
        escaped = !escaped && *r->at == '\\';
        if (length + 1 < MOST_TEXT)
            text[length++] = *r->at;
    }
    text[length] = '\0';
    return take(r, '"');
}

static void tell(struct reader *r, const char *text, double number) {
    r->visit(r->context, &(struct json_value){r->path, text, number});
}

/* A number, or one of the three words. */
static bool read_word(struct reader *r) {
    char text[MOST_TEXT], *end;
    size_t length = 0;
    while (r->at < r->end && (isalnum((unsigned char)*r->at) || (*r->at && strchr("+-.", *r->at)))) {
        if (length + 1 == sizeof text)
            return false;
        text[length++] = *r->at++;
    }
    text[length] = '\0';
    bool is_word = strcmp(text, "true") == 0 || strcmp(text, "false") == 0 || strcmp(text, "null") == 0;
    double number = is_word ? (double)NAN : strtod(text, &end);
    if (!is_word && (end == text || *end || !isfinite(number)))
        return false;
    tell(r, NULL, number);
    return true;
}

/* A value inside another. Each level makes the path longer, which bounds how deep they nest. */
static bool read_inside(struct reader *r, const char *mark, const char *name) {
    size_t before = r->length, more = strlen(mark) + strlen(name);
    if (before + more >= sizeof r->path)
        return false;
    strcpy(r->path + before, mark);
    strcat(r->path + before, name);
    r->length += more;
    bool good = read_value(r);
    r->length = before;
    r->path[before] = '\0';
    return good;
}

static bool read_members(struct reader *r) {
    char name[MOST_TEXT];
    if (take(r, '}'))
        return true;
    do {
        if (!take(r, '"') || !read_string(r, name) || !take(r, ':') || !read_inside(r, ".", name))
            return false;
    } while (take(r, ','));
    return take(r, '}');
}

static bool read_elements(struct reader *r) {
    if (take(r, ']'))
        return true;
    do {
        if (!read_inside(r, "[]", ""))
            return false;
    } while (take(r, ','));
    return take(r, ']');
}

static bool read_value(struct reader *r) {
    char text[MOST_TEXT];
    if (take(r, '{'))
        return read_members(r);
    if (take(r, '['))
        return read_elements(r);
    if (!take(r, '"'))
        return read_word(r);
    if (!read_string(r, text))
        return false;
    tell(r, text, (double)NAN);
    return true;
}

bool json_read(const char *text, size_t size, void (*visit)(void *context, const struct json_value *value),
               void *context) {
    struct reader reader = {.at = text, .end = text + size, .visit = visit, .context = context};
    if (!read_value(&reader))
        return false;
    skip_space(&reader);
    return reader.at == reader.end;
}
