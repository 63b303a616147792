/* teach_set.c - the photographs that a network is to be taught: their classes, which are held out, their embeddings. */
#include "teach_set.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "labelled.h"
#include "lines.h"
#include "system.h"
#include "text.h"

#define MOST_PHOTOGRAPHS (1U << 24)
#define MOST_CLASSES     (1U << 20)

/* ---- Build ---- */

void set_add(struct teach_set *set, struct teach_photograph photograph) {
    if (set->count == set->room) {
        struct teach_photograph *larger = allocate(set->room = 2 * set->room + 64, sizeof *larger);
        if (set->count)
            memcpy(larger, set->photographs, set->count * sizeof *larger);
        free(set->photographs);
        set->photographs = larger;
    }
    set->photographs[set->count++] = photograph;
}

uint32_t set_class(struct teach_set *set, const char *label) {
    for (uint32_t k = 0; k < set->classes; k++)
        if (strcmp(set->labels[k], label) == 0)
            return k;
    if ((set->classes & (set->classes - 1)) == 0) { /* full: room is a power of two */
        char **larger = allocate(2 * (size_t)set->classes + 1, sizeof *larger);
        if (set->classes)
            memcpy(larger, set->labels, set->classes * sizeof *larger);
        free(set->labels);
        set->labels = larger;
    }
    set->labels[set->classes] = copy_text(label);
    return set->classes++;
}

/* Take over what was found, whose classes have these numbers. */
static bool take_images(struct teach_set *set, struct labelled *images, const uint32_t *classes) {
    bool good = images->count <= MOST_PHOTOGRAPHS - set->count;
    for (size_t i = 0; good && i < images->count; i++) {
        set_add(set, (struct teach_photograph){images->images[i].path, classes[images->images[i].class], NOT_KEPT, 0,
                                               false});
        images->images[i].path = NULL;
    }
    if (!good)
        complain("%zu photographs; at most %u", images->count, MOST_PHOTOGRAPHS);
    labelled_free(images);
    return good;
}

bool set_from_folder(struct teach_set *set, const char *folder) {
    struct labelled images = {0}, names = {0};
    bool good = labelled_from_classes(&images, folder, &names);
    uint32_t *classes = allocate(names.count, sizeof *classes);
    for (size_t i = 0; i < names.count; i++)
        classes[i] = set_class(set, strrchr(names.images[i].path, '/') + 1);
    if (good && names.count < 2) {
        complain("%s: %zu folders in it; a folder for each class is needed, and at least two", folder, names.count);
        good = false;
    }
    labelled_free(&names);
    good = take_images(set, &images, classes) && good;
    free(classes);
    return good;
}

bool set_add_class(struct teach_set *set, const char *class_and_folder) {
    struct labelled images = {0};
    const char *equals = strchr(class_and_folder, '=');
    if (!equals || equals == class_and_folder || !equals[1]) {
        complain("--add takes CLASS=FOLDER, not \"%s\"", class_and_folder);
        return false;
    }
    char *label = copy_text(class_and_folder);
    label[equals - class_and_folder] = '\0';
    uint32_t class = set_class(set, label);
    free(label);
    bool good = labelled_add_folder(&images, equals + 1, 0);
    return take_images(set, &images, &class) && good;
}

/* ---- Tables ---- */

struct tag {
    uint32_t photograph, class;
};

struct tags {
    struct tag *tags;
    size_t count, room;
};

static void add_tag(struct tags *tags, struct tag tag) {
    if (tags->count == tags->room) {
        struct tag *larger = allocate(tags->room = 2 * tags->room + 64, sizeof *larger);
        if (tags->count)
            memcpy(larger, tags->tags, tags->count * sizeof *larger);
        free(tags->tags);
        tags->tags = larger;
    }
    tags->tags[tags->count++] = tag;
}

/* The file's name, behind the table's folder where it is relative. */
static char *beside(const char *table, const char *name) {
    const char *slash = strrchr(table, '/');
    size_t folder = slash && *name != '/' ? (size_t)(slash - table) + 1 : 0;
    char *path = allocate(folder + strlen(name) + 1, 1);
    memcpy(path, table, folder);
    strcpy(path + folder, name);
    return path;
}

/* A row's labels, each behind a tab. */
static void add_labels(struct teach_set *set, struct tags *tags, char *labels) {
    while (labels) {
        char *next = strchr(labels, '\t');
        if (next)
            *next++ = '\0';
        labels[strcspn(labels, "\r")] = '\0';
        if (*labels)
            add_tag(tags, (struct tag){set->count - 1, set_class(set, labels)});
        labels = next;
    }
}

bool set_from_table(struct teach_set *set, const char *table) {
    struct lines lines = {0};
    struct tags tags = {0};
    if (!lines_open(&lines, table))
        return false;
    while (set->count < MOST_PHOTOGRAPHS && set->classes < MOST_CLASSES && lines_next(&lines)) {
        char *tab = strchr(lines.text, '\t');
        if (lines.number == 1 && strncmp(lines.text, "file\t", 5) == 0)
            continue;
        if (tab)
            *tab = '\0';
        set_add(set, (struct teach_photograph){beside(table, lines.text), 0, NOT_KEPT, 0, false});
        add_labels(set, &tags, tab ? tab + 1 : NULL);
    }
    lines_close(&lines);
    set->tags = allocate((size_t)set->count * set->classes, 1);
    for (size_t i = 0; i < tags.count; i++)
        set->tags[(size_t)tags.tags[i].photograph * set->classes + tags.tags[i].class] = 1;
    free(tags.tags);
    if (!lines.failed && set->classes == 0)
        complain("%s: no line has a file, a tab and a label", table);
    return !lines.failed && set->classes > 0;
}

/* ---- Ask ---- */

bool set_is_right(const struct teach_set *set, uint32_t photograph, uint32_t class) {
    return set->tags ? set->tags[(size_t)photograph * set->classes + class] != 0
                     : set->photographs[photograph].class == class;
}

uint32_t set_count_right(const struct teach_set *set, uint32_t count, uint32_t class) {
    uint32_t right = 0;
    for (uint32_t i = 0; i < count; i++)
        right += set_is_right(set, i, class);
    return right;
}

/* ---- Order ---- */

/* A photograph on its way to its place. */
struct place {
    uint64_t key; /* from the seed */
    uint32_t number, class;
    bool held;
};

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (splitmix64). */
static uint64_t random_at(uint64_t seed, uint64_t index) {
    uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static int by_class(const void *a_, const void *b_) {
    const struct place *a = a_, *b = b_;
    int class = (a->class > b->class) - (a->class < b->class), key = (a->key > b->key) - (a->key < b->key);
    return class ? class : key;
}

/* Those held out last. */
static int by_use(const void *a_, const void *b_) {
    const struct place *a = a_, *b = b_;
    int held = a->held - b->held;
    return held ? held : by_class(a_, b_);
}

/* How many of a class of this many. */
static uint32_t held_of(uint32_t count, double part) {
    uint32_t held = (uint32_t)((double)count * part + 0.5);
    return held < count ? held : count - 1;
}

/* Put the photographs, and their tags, into the order of the places. */
static void reorder(struct teach_set *set, const struct place *places) {
    struct teach_photograph *photographs = allocate(set->room, sizeof *photographs);
    uint8_t *tags = set->tags ? allocate((size_t)set->count * set->classes, 1) : NULL;
    for (uint32_t i = 0; i < set->count; i++) {
        photographs[i] = set->photographs[places[i].number];
        if (tags)
            memcpy(tags + (size_t)i * set->classes, set->tags + (size_t)places[i].number * set->classes, set->classes);
    }
    free(set->photographs);
    free(set->tags);
    set->photographs = photographs;
    set->tags = tags;
}

void set_hold_out(struct teach_set *set, double part, uint64_t seed) {
    struct place *places = allocate(set->count, sizeof *places);
    for (uint32_t i = 0; i < set->count; i++)
        places[i] = (struct place){random_at(seed, i), i, set->tags ? 0 : set->photographs[i].class, false};
    qsort(places, set->count, sizeof *places, by_class);
    set->taught = set->count;
    for (uint32_t begin = 0, end; begin < set->count; begin = end) {
        for (end = begin; end < set->count && places[end].class == places[begin].class;)
            end++;
        uint32_t held = held_of(end - begin, part);
        for (uint32_t i = end - held; i < end; i++)
            places[i].held = true;
        set->taught -= held;
    }
    qsort(places, set->count, sizeof *places, by_use);
    reorder(set, places);
    free(places);
}

/* ---- Copies ---- */

struct copy {
    uint64_t hash;
    uint32_t number;
};

static int by_hash(const void *a_, const void *b_) {
    const struct copy *a = a_, *b = b_;
    int hash = (a->hash > b->hash) - (a->hash < b->hash);
    return hash ? hash : (a->number > b->number) - (a->number < b->number);
}

static bool same_classes(const struct teach_set *set, uint32_t a, uint32_t b) {
    for (uint32_t k = 0; k < set->classes; k++)
        if (set_is_right(set, a, k) != set_is_right(set, b, k))
            return false;
    return true;
}

/* One picture, and all photographs of it. */
static void judge_copies(struct teach_set *set, const struct copy *copies, uint32_t count) {
    bool disputed = false;
    for (uint32_t i = 1; i < count; i++) {
        bool same = same_classes(set, copies[0].number, copies[i].number);
        struct teach_photograph *copy = &set->photographs[copies[i].number];
        complain("%s: the same picture as %s, %s", copy->path, set->photographs[copies[0].number].path,
                 same ? "left out" : "but of another class: both left out");
        copy->dropped = true;
        disputed |= !same;
        set->twice += same;
        set->disputed += !same;
    }
    if (disputed) {
        set->photographs[copies[0].number].dropped = true;
        set->disputed++;
    }
}

void set_find_copies(struct teach_set *set) {
    struct copy *copies = allocate(set->count, sizeof *copies);
    uint32_t count = 0;
    for (uint32_t i = 0; i < set->count; i++)
        if (!set->photographs[i].dropped)
            copies[count++] = (struct copy){set->photographs[i].hash, i};
    qsort(copies, count, sizeof *copies, by_hash);
    for (uint32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin; end < count && copies[end].hash == copies[begin].hash;)
            end++;
        judge_copies(set, copies + begin, end - begin);
    }
    free(copies);
}

void set_compact(struct teach_set *set) {
    size_t row = (size_t)set->views * set->features;
    uint32_t left = 0, taught = 0;
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->photographs[i].dropped) {
            free(set->photographs[i].path);
            continue;
        }
        set->photographs[left] = set->photographs[i];
        memmove(set->embeddings + left * row, set->embeddings + i * row, row * sizeof *set->embeddings);
        if (set->tags)
            memmove(set->tags + (size_t)left * set->classes, set->tags + (size_t)i * set->classes, set->classes);
        left++;
        taught += i < set->taught;
    }
    set->count = left;
    set->taught = taught;
}

void set_free(struct teach_set *set) {
    for (uint32_t i = 0; i < set->count; i++)
        free(set->photographs[i].path);
    for (uint32_t k = 0; k < set->classes; k++)
        free(set->labels[k]);
    free(set->photographs);
    free(set->labels);
    free(set->tags);
    free(set->embeddings);
}
