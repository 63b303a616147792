/* teach_set.h - the photographs that a network is to be taught: their classes, which are held out, their embeddings. */
#ifndef TEACH_SET_H
#define TEACH_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "resnet.h"

struct teach_photograph {
    char *path;
    uint32_t class; /* not with tags */
    uint32_t kept;  /* its number among the embeddings that were kept from an earlier time, or NOT_KEPT */
    uint64_t hash;  /* of its pixels, once it is decoded */
    bool dropped;   /* it cannot be read, or is there twice */
};

#define NOT_KEPT UINT32_MAX

struct teach_set {
    uint32_t count, taught, room; /* photographs; those in front, which are not held out */
    struct teach_photograph *photographs;
    uint32_t classes;
    char **labels;
    uint8_t *tags; /* [count][classes]; NULL where each photograph is of one class */
    uint32_t views, features;
    float *embeddings;                /* [count][views][features] */
    uint32_t failed, twice, disputed; /* dropped: unreadable; copies in one class; in several classes */
};

/* Take a folder a class. False after a complaint. */
bool set_from_folder(struct teach_set *set, const char *folder);

/* Take "file<TAB>label<TAB>label..." lines; relative paths start at the table's folder. False after a complaint. */
bool set_from_table(struct teach_set *set, const char *table);

/* Append a photograph, taking over its path; give a class of this name, which is made where there is none. */
void set_add(struct teach_set *set, struct teach_photograph photograph);
uint32_t set_class(struct teach_set *set, const char *label);

/* Append the photographs of "CLASS=FOLDER". False after a complaint. */
bool set_add_class(struct teach_set *set, const char *class_and_folder);

/* Whether a class is right for a photograph; for how many of the first `count` it is. */
bool set_is_right(const struct teach_set *set, uint32_t photograph, uint32_t class);
uint32_t set_count_right(const struct teach_set *set, uint32_t count, uint32_t class);

/* Bring the photographs into an order made from `seed`, and hold out the last ones: `part` of each class, or, with
 * tags, of all, but never all of a class. */
void set_hold_out(struct teach_set *set, double part, uint64_t seed);

/* Mark the photographs that are there twice: a copy in the same class, or, where the classes differ, both. */
void set_find_copies(struct teach_set *set);

/* Forget the photographs that are marked as dropped. */
void set_compact(struct teach_set *set);

void set_free(struct teach_set *set);

#endif
