/* done.c - the names of images that an earlier run has finished. */
#include "done.h"

#include <stdlib.h>
#include <string.h>

#include "system.h"

struct done_name {
    size_t place; /* in the text, from 1; 0: the slot is free */
    uint32_t hash;
    uint32_t count;
};

/* FNV-1a. */
static uint32_t hash_of(const char *name, size_t length) {
    uint32_t hash = 0x811c9dc5;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 0x01000193;
    return hash;
}

/* The slot that has the name, or that it can have. */
static struct done_name *find(const struct done *done, const char *name, size_t length, uint32_t hash) {
    for (size_t i = hash;; i++) {
        struct done_name *slot = &done->slots[i & (done->size - 1)];
        const char *text = slot->place ? done->text + slot->place - 1 : NULL;
        if (!text || (slot->hash == hash && strncmp(text, name, length) == 0 && !text[length]))
            return slot;
    }
}

static void grow_slots(struct done *done) {
    struct done_name *old = done->slots;
    size_t size = done->size;
    done->size = size ? 2 * size : 1024;
    done->slots = allocate(done->size, sizeof *done->slots);
    for (size_t i = 0; i < size; i++)
        if (old[i].place) {
            const char *name = done->text + old[i].place - 1;
            *find(done, name, strlen(name), old[i].hash) = old[i];
        }
    free(old);
}

/* Gives its place. */
static size_t keep_text(struct done *done, const char *name, size_t length) {
    size_t start = done->used;
    if (done->room - start <= length) {
        char *larger = allocate(done->room = 2 * done->room + length + 4096, 1);
        if (start)
            memcpy(larger, done->text, start);
        free(done->text);
        done->text = larger;
    }
    memcpy(done->text + start, name, length);
    done->text[start + length] = '\0';
    done->used += length + 1;
    return start + 1;
}

void done_add(struct done *done, const char *name, size_t length) {
    uint32_t hash = hash_of(name, length);
    if (4 * done->names >= 3 * done->size)
        grow_slots(done);
    struct done_name *slot = find(done, name, length, hash);
    if (!slot->place) {
        *slot = (struct done_name){.place = keep_text(done, name, length), .hash = hash};
        done->names++;
    }
    slot->count++;
    done->count++;
}

bool done_take(struct done *done, const char *name) {
    size_t length = strlen(name);
    if (done->names == 0)
        return false;
    struct done_name *slot = find(done, name, length, hash_of(name, length));
    if (slot->count == 0)
        return false;
    slot->count--;
    return true;
}

void done_free(struct done *done) {
    free(done->text);
    free(done->slots);
    *done = (struct done){0};
}
