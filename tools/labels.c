/* labels.c - find the class that somebody means. */
#include "labels.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system.h"
#include "text.h"

#define MOST_NAMED 3 /* labels in a complaint */

/* Of ASCII letters: what else a label holds must match as it is. */
static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

static bool starts_with(const char *text, const char *start) {
    for (; *start; text++, start++)
        if (lower(*text) != lower(*start))
            return false;
    return true;
}

static bool has_part(const char *label, const char *part) {
    for (; *label; label++)
        if (starts_with(label, part))
            return true;
    return false;
}

static bool is_label(const char *label, const char *text) {
    return strcmp(label, text) == 0;
}

/* How many labels match; *first becomes the first that does. */
static uint32_t count_matches(const resnet_model *model, const char *text, bool (*matches)(const char *, const char *),
                              uint32_t *first) {
    const char *label;
    uint32_t count = 0;
    for (uint32_t i = 0; (label = resnet_model_label(model, i)); i++)
        if (matches(label, text) && count++ == 0)
            *first = i;
    return count;
}

static bool read_index(const char *text, uint32_t classes, uint32_t *index) {
    size_t digits = strspn(text, "0123456789");
    unsigned long number = strtoul(text, NULL, 10);
    if (digits < 1 || digits > 9 || text[digits] || number >= classes)
        return false;
    *index = (uint32_t)number;
    return true;
}

/* ---- Complaints ---- */

/* How many letters must change to make one of the other (Levenshtein); `row` has room for a number more than `to`. */
static uint32_t distance(const char *from, const char *to, uint32_t *row) {
    size_t length = strlen(to);
    for (size_t j = 0; j <= length; j++)
        row[j] = (uint32_t)j;
    for (; *from; from++) {
        uint32_t diagonal = row[0]++;
        for (size_t j = 0; j < length; j++) {
            uint32_t changed = diagonal + (lower(*from) != lower(to[j]));
            uint32_t shorter = row[j] < row[j + 1] ? row[j] : row[j + 1];
            diagonal = row[j + 1];
            row[j + 1] = changed < shorter + 1 ? changed : shorter + 1;
        }
    }
    return row[length];
}

/* Minus the distance of each label: the largest are the nearest. */
static float *nearness(const resnet_model *model, const char *text, uint32_t classes) {
    float *near = allocate(classes, sizeof *near);
    uint32_t *row = allocate(strlen(text) + 1, sizeof *row);
    for (uint32_t i = 0; i < classes; i++)
        near[i] = -(float)distance(resnet_model_label(model, i), text, row);
    free(row);
    return near;
}

/* "a" (3), "b" (17) */
static void list_labels(const resnet_model *model, const uint32_t *classes, uint32_t count, char list[512]) {
    size_t used = 0;
    list[0] = '\0';
    for (uint32_t i = 0; i < count && used < 512; i++)
        used += (size_t)snprintf(list + used, 512 - used, "%s\"%.100s\" (%" PRIu32 ")", i ? ", " : "",
                                 resnet_model_label(model, classes[i]), classes[i]);
}

static void complain_of_several(const resnet_model *model, const char *text, uint32_t count,
                                bool (*matches)(const char *, const char *)) {
    uint32_t found[MOST_NAMED], named = 0;
    char list[512];
    for (uint32_t i = 0; named < MOST_NAMED && named < count; i++)
        if (matches(resnet_model_label(model, i), text))
            found[named++] = i;
    list_labels(model, found, named, list);
    complain("\"%s\" may be any of %" PRIu32 " classes: %s%s; their indices are in brackets", text, count, list,
             named < count ? ", ..." : "");
}

static void complain_of_none(const resnet_model *model, const char *text, uint32_t classes) {
    uint32_t nearest[MOST_NAMED];
    char list[512];
    if (!resnet_model_label(model, 0)) {
        complain("\"%s\" is no class: the model has no labels, only indices from 0 to %" PRIu32, text, classes - 1);
        return;
    }
    float *near = nearness(model, text, classes);
    list_labels(model, nearest, resnet_top_k(near, classes, MOST_NAMED, nearest), list);
    free(near);
    complain("\"%s\" is no class of the model; the nearest are %s", text, list);
}

bool labels_find(const resnet_model *model, const char *text, uint32_t *index) {
    uint32_t classes = resnet_model_describe(model).config.classes;
    bool (*matches)(const char *, const char *) = is_label;
    uint32_t count = count_matches(model, text, matches, index);
    if (count == 0 && read_index(text, classes, index))
        return true;
    if (count == 0) {
        matches = has_part;
        count = count_matches(model, text, matches, index);
    }
    if (count == 0)
        complain_of_none(model, text, classes);
    else if (count > 1)
        complain_of_several(model, text, count, matches);
    return count == 1;
}
