/* teach_keep.h - between a set of photographs and a file of what a network was taught with. */
#ifndef TEACH_KEEP_H
#define TEACH_KEEP_H

#include "lesson.h"
#include "teach_set.h"

/* Append the photographs of a lesson, which are not needed again. */
void keep_collect(const struct lesson *lesson, struct teach_set *set);

/* Fill in their embeddings; the set's views and features are the lesson's. EXIT_FINE, or the code to exit with after a
 * complaint about the file `name`. */
int keep_read(const struct lesson *lesson, const char *name, struct teach_set *set);

/* Write a lesson of this set; `how` says what network was used and how. EXIT_FINE, or the code to exit with after a
 * complaint. */
int keep_write(const struct teach_set *set, struct lesson how, const char *name);

#endif
