/* labelled.c - a set of images whose classes are known: a table, or a folder a class. */
#define _POSIX_C_SOURCE 200809L
#include "labelled.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lines.h"
#include "system.h"
#include "text.h"

/* Append folder/name, the folder's name being given by its length; an absolute name stands alone. */
static void add(struct labelled *set, const char *folder, size_t folder_length, const char *name, uint32_t class) {
    if (set->count == set->room) {
        struct labelled larger = {.count = set->count, .room = 2 * set->room + 64};
        larger.images = allocate(larger.room, sizeof *larger.images);
        if (set->count)
            memcpy(larger.images, set->images, set->count * sizeof *set->images);
        free(set->images);
        *set = larger;
    }
    if (*name == '/')
        folder_length = 0;
    char *path = allocate(folder_length + strlen(name) + 2, 1);
    memcpy(path, folder, folder_length);
    if (folder_length && folder[folder_length - 1] != '/')
        path[folder_length] = '/';
    strcat(path, name);
    set->images[set->count++] = (struct labelled_image){path, class};
}

/* The class index of a row, whose text is cut after the file's name; -1 where the row says so, -2 where it is none. */
static long split_row(char *row, uint32_t classes) {
    char *tab = strchr(row, '\t'), *end;
    if (!tab || tab[1 + (tab[1] == '-')] < '0' || tab[1 + (tab[1] == '-')] > '9')
        return -2;
    errno = 0;
    long class = strtol(tab + 1, &end, 10);
    if (errno || class < -1 || class >= (long)classes || (*end && *end != '\t' && *end != '\r'))
        return -2;
    *tab = '\0';
    return class;
}

bool labelled_from_table(struct labelled *set, const char *table, uint32_t classes) {
    static const char header[] = "file\tclass";
    struct lines lines = {0};
    size_t unknown = 0;
    const char *slash = strrchr(table, '/');
    if (!lines_open(&lines, table))
        return false;
    while (lines_next(&lines)) {
        if (lines.number == 1 && strncmp(lines.text, header, strlen(header)) == 0)
            continue;
        long class = split_row(lines.text, classes);
        if (class < -1) {
            complain("%s: line %lu is no file name, tab and class from 0 to %" PRIu32, table, lines.number,
                     classes - 1);
            lines.failed = true;
        } else if (class == -1)
            unknown++;
        else
            add(set, table, slash ? (size_t)(slash - table) + 1 : 0, lines.text, (uint32_t) class);
    }
    lines_close(&lines);
    if (unknown)
        complain("%s: %zu images of class -1, which is none, are left out", table, unknown);
    return !lines.failed;
}

static int not_hidden(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* Append the folders in `folder`, or else its files, sorted, hidden ones left out. */
static bool add_entries(struct labelled *set, const char *folder, bool folders, uint32_t class) {
    struct dirent **entries;
    struct stat status;
    int count = scandir(folder, &entries, not_hidden, alphasort);
    if (count < 0) {
        complain("%s: the folder cannot be read: %s", folder, strerror(errno));
        return false;
    }
    for (int i = 0; i < count; i++) {
        add(set, folder, strlen(folder), entries[i]->d_name, class);
        free(entries[i]);
        if ((stat(set->images[set->count - 1].path, &status) == 0 && S_ISDIR(status.st_mode)) != folders)
            free(set->images[--set->count].path);
    }
    free(entries);
    return true;
}

/* The class with this label, or UINT32_MAX. */
static uint32_t find_label(const resnet_model *model, const char *name) {
    const char *label;
    for (uint32_t i = 0; (label = resnet_model_label(model, i)); i++)
        if (strcmp(label, name) == 0)
            return i;
    return UINT32_MAX;
}

/* Number the folders: by the indices of labels, if every one has one, else by position. */
static void number_folders(struct labelled *folders, const resnet_model *model) {
    const char *missing = NULL;
    for (size_t i = 0; i < folders->count && !missing; i++) {
        const char *name = strrchr(folders->images[i].path, '/') + 1;
        missing = find_label(model, name) == UINT32_MAX ? name : NULL;
    }
    for (size_t i = 0; i < folders->count; i++)
        folders->images[i].class = missing ? (uint32_t)i : find_label(model, strrchr(folders->images[i].path, '/') + 1);
    if (missing)
        complain("classes by the order of the folders' names (\"%s\" is no label of the model)", missing);
    else
        complain("classes by the folders' names, which are the model's labels");
}

bool labelled_from_folders(struct labelled *set, const char *folder, const resnet_model *model) {
    struct labelled folders = {0};
    uint32_t classes = resnet_model_describe(model).config.classes;
    bool good = add_entries(&folders, folder, true, 0);
    if (good && (folders.count == 0 || folders.count > classes)) {
        complain("%s: %zu folders, expected 1 to %" PRIu32 ", one for each class of the model", folder, folders.count,
                 classes);
        good = false;
    }
    if (good)
        number_folders(&folders, model);
    for (size_t i = 0; i < folders.count && good; i++)
        good = add_entries(set, folders.images[i].path, false, folders.images[i].class);
    labelled_free(&folders);
    return good;
}

bool labelled_add_folder(struct labelled *set, const char *folder, uint32_t class) {
    return add_entries(set, folder, false, class);
}

bool labelled_from_classes(struct labelled *set, const char *folder, struct labelled *names) {
    bool good = add_entries(names, folder, true, 0);
    for (size_t i = 0; i < names->count && good; i++)
        good = add_entries(set, names->images[i].path, false, (uint32_t)i);
    return good;
}

static bool add_lines(struct labelled *set, const char *list) {
    struct lines lines = {0};
    if (!lines_open(&lines, list))
        return false;
    while (lines_next(&lines))
        add(set, "", 0, lines.text, 0);
    lines_close(&lines);
    return !lines.failed;
}

bool labelled_from_anywhere(struct labelled *set, const char *path) {
    struct labelled folders = {0};
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        return add_lines(set, path);
    bool good = add_entries(set, path, false, 0) && add_entries(&folders, path, true, 0);
    for (size_t i = 0; i < folders.count && good; i++)
        good = add_entries(set, folders.images[i].path, false, 0);
    labelled_free(&folders);
    return good;
}

void labelled_free(struct labelled *set) {
    for (size_t i = 0; i < set->count; i++)
        free(set->images[i].path);
    free(set->images);
}
