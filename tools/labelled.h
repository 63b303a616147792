/* labelled.h - a set of images whose classes are known: a table, or a folder a class. */
#ifndef LABELLED_H
#define LABELLED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "resnet.h"

struct labelled_image {
    char *path;
    uint32_t class;
};

struct labelled {
    size_t count, room;
    struct labelled_image *images;
};

/*
 * Read "file<TAB>class index" lines, more columns ignored, a first line that starts with "file<TAB>class" skipped;
 * a class of -1 is not known, and the image is left out;
 * relative paths start at the table's folder. False after a complaint.
 */
bool labelled_from_table(struct labelled *set, const char *table, uint32_t classes);

/*
 * Take the files in the folders in `folder`. The folders are the model's classes by their names where every name is one
 * of its labels, else by their positions in the sorted names; which, is said on stderr. False after a complaint.
 */
bool labelled_from_folders(struct labelled *set, const char *folder, const resnet_model *model);

/* Take the files in the folders in `folder`, whose sorted names are the classes: *names becomes their list, of one
 * entry a class, whose path ends with the name. False after a complaint. */
bool labelled_from_classes(struct labelled *set, const char *folder, struct labelled *names);

/* Append the files in a folder, sorted. False after a complaint. */
bool labelled_add_folder(struct labelled *set, const char *folder, uint32_t class);

/* Take all images there are, of class 0: the files in a folder and in the folders in it, or, where `path` is no folder,
 * those that the lines of a list name. False after a complaint. */
bool labelled_from_anywhere(struct labelled *set, const char *path);

void labelled_free(struct labelled *set);

#endif
