/* teach_keep.c - between a set of photographs and a file of what a network was taught with. */
#define _POSIX_C_SOURCE 200809L /* stpcpy */
#include "teach_keep.h"

#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "model.h"
#include "output_file.h"
#include "system.h"

void keep_collect(const struct lesson *lesson, struct teach_set *set) {
    const char *text = lesson->text;
    uint32_t *classes = allocate(lesson->classes, sizeof *classes);
    for (uint32_t k = 0; k < lesson->classes; k++, text += strlen(text) + 1)
        classes[k] = set_class(set, text);
    for (uint32_t i = 0; i < lesson->count; i++, text += strlen(text) + 1)
        set_add(set,
                (struct teach_photograph){
                    .path = copy_text(text), .class = classes[lesson->class[i]], .kept = i, .hash = lesson->hashes[i]});
    free(classes);
}

int keep_read(const struct lesson *lesson, const char *name, struct teach_set *set) {
    resnet_error error;
    size_t row = (size_t)set->views * set->features;
    for (uint32_t i = 0; i < set->count; i++) {
        uint32_t kept = set->photographs[i].kept;
        if (kept != NOT_KEPT && lesson_read(lesson, kept, set->embeddings + i * row, &error) != RESNET_OK)
            return library_failure(name, &error);
    }
    return EXIT_FINE;
}

/* Labels, then names, as terminated strings. */
static void gather_text(const struct teach_set *set, struct lesson *lesson) {
    size_t size = 0;
    for (uint32_t k = 0; k < set->classes; k++)
        size += strlen(set->labels[k]) + 1;
    for (uint32_t i = 0; i < set->count; i++)
        size += strlen(set->photographs[i].path) + 1;
    char *end = lesson->text = allocate(size, 1);
    for (uint32_t k = 0; k < set->classes; k++)
        end = stpcpy(end, set->labels[k]) + 1;
    for (uint32_t i = 0; i < set->count; i++)
        end = stpcpy(end, set->photographs[i].path) + 1;
    lesson->text_size = (uint32_t)size;
}

int keep_write(const struct teach_set *set, struct lesson how, const char *name) {
    struct output_file output;
    struct lesson lesson = how;
    lesson.classes = set->classes;
    lesson.count = set->count;
    lesson.features = set->features;
    lesson.hashes = allocate(set->count, sizeof *lesson.hashes);
    lesson.class = allocate(set->count, sizeof *lesson.class);
    for (uint32_t i = 0; i < set->count; i++) {
        lesson.hashes[i] = set->photographs[i].hash;
        lesson.class[i] = set->photographs[i].class;
    }
    gather_text(set, &lesson);
    bool good = output_open(&output, name);
    if (good)
        lesson_write(&lesson, set->embeddings, output.file);
    good = good && output_commit(&output);
    lesson_close(&lesson);
    return good ? EXIT_FINE : EXIT_IO;
}
