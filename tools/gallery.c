/* gallery.c - the images that are searched for similar ones: a matrix of embeddings, or a folder and its index. */
#define _POSIX_C_SOURCE 200809L
#include "gallery.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "labelled.h"
#include "model.h"
#include "progress.h"
#include "system.h"
#include "text.h"

#define INDEX_NAME ".resnet-index.npy"

static char *join(const char *folder, const char *name) {
    size_t length = folder ? strlen(folder) : 0;
    char *path = allocate(length + strlen(name) + 2, 1);
    if (length)
        memcpy(path, folder, length);
    if (length && folder[length - 1] != '/')
        path[length++] = '/';
    strcpy(path + length, name);
    return path;
}

/* ---- A matrix ---- */

int gallery_open_matrix(struct gallery *gallery, const struct batch *batch, const char *matrix) {
    char model[EMBEDDINGS_TEXT];
    *gallery = (struct gallery){0};
    if (!embeddings_model(batch, model) || !embeddings_read(&gallery->set, matrix))
        return EXIT_IO;
    for (uint32_t i = 0; i < gallery->set.count; i++)
        if (strcmp(gallery->set.rows[i].model, model) != 0) {
            complain("%s: row %" PRIu32 " was computed by the model %s; with %s, which is %s, it cannot be compared",
                     matrix, i, gallery->set.rows[i].model, batch->path, model);
            return EXIT_MODEL;
        }
    if (gallery->set.features != batch->info.features) {
        complain("%s: rows of %" PRIu32 " numbers; the model's embeddings have %" PRIu32, matrix, gallery->set.features,
                 batch->info.features);
        return EXIT_MODEL;
    }
    gallery->ready = true;
    return EXIT_FINE;
}

/* ---- A folder ---- */

/* A row of the index as it was found. */
struct known {
    const struct embedded *row;
    const float *values;
};

/* The making of a gallery of a folder. A row whose image failed loses its file. */
struct indexing {
    struct gallery *gallery;
    struct batch *batch;
    struct embeddings old; /* the index as it was found */
    struct known *known;   /* its rows, sorted by file */
    uint32_t *pending;     /* rows of the gallery that are to be embedded */
    uint32_t pending_count;
};

static int by_file(const void *a, const void *b) {
    return strcmp(((const struct known *)a)->row->file, ((const struct known *)b)->row->file);
}

static void read_old(struct indexing *x, const char *index) {
    if (access(index, F_OK) != 0)
        return;
    bool good = embeddings_read(&x->old, index);
    if (!good)
        complain("%s: the index is made anew", index);
    if (!good || x->old.features != x->batch->info.features) {
        embeddings_free(&x->old);
        x->old = (struct embeddings){0};
    }
    x->known = allocate(x->old.count, sizeof *x->known);
    for (uint32_t i = 0; i < x->old.count; i++)
        x->known[i] = (struct known){&x->old.rows[i], x->old.values + (size_t)i * x->old.features};
    qsort(x->known, x->old.count, sizeof *x->known, by_file);
}

static float *values_of(const struct embeddings *set, uint32_t row) {
    return set->values + (size_t)row * set->features;
}

/* Fill a row from the index, or note that it must be computed. */
static void look_up(struct indexing *x, uint32_t i) {
    struct embeddings *set = &x->gallery->set;
    const struct embedded *row = &set->rows[i];
    const struct known wanted = {.row = row};
    const struct known *found =
        x->old.count ? bsearch(&wanted, x->known, x->old.count, sizeof *x->known, by_file) : NULL;
    if (found && strcmp(found->row->stamp, row->stamp) == 0 && strcmp(found->row->model, row->model) == 0)
        memcpy(values_of(set, i), found->values, set->features * sizeof *set->values);
    else
        x->pending[x->pending_count++] = i;
}

/* Append a row for the file at `path`. */
static void add_row(struct indexing *x, const char *path, const char *name, const char *model) {
    struct embedded *row = &x->gallery->set.rows[x->gallery->set.count];
    row->file = copy_text(name);
    embeddings_stamp(path, row->stamp);
    snprintf(row->model, sizeof row->model, "%s", model);
    look_up(x, x->gallery->set.count++);
}

/* A row for each image of the folder. */
static bool list_rows(struct indexing *x) {
    struct gallery *gallery = x->gallery;
    struct embeddings *set = &gallery->set;
    struct labelled files = {0};
    char model[EMBEDDINGS_TEXT];
    size_t prefix = strlen(gallery->folder);
    prefix += gallery->folder[prefix - 1] != '/';
    bool good = embeddings_model(x->batch, model) && labelled_from_anywhere(&files, gallery->folder);
    set->features = x->batch->info.features;
    set->rows = allocate(files.count, sizeof *set->rows);
    set->values = allocate(files.count * set->features, sizeof *set->values);
    x->pending = allocate(files.count, sizeof *x->pending);
    for (size_t i = 0; good && i < files.count; i++) {
        const char *path = files.images[i].path;
        if (!names_image(path))
            continue;
        if (embeddings_can_name(path + prefix))
            add_row(x, path, path + prefix, model);
        else {
            complain("%s: left out: an index cannot hold its name", path);
            gallery->failed++;
        }
    }
    labelled_free(&files);
    return good;
}

/* Take in what the batch has computed, of the pending rows from `first` on. */
static void take(struct indexing *x, uint32_t first, const float *embeddings) {
    struct embeddings *set = &x->gallery->set;
    for (uint32_t slot = 0; slot < x->batch->count; slot++) {
        const struct picture *picture = &x->batch->pictures[slot];
        uint32_t i = x->pending[first + slot];
        if (picture->error.status == RESNET_OK) {
            memcpy(values_of(set, i), embeddings + (size_t)slot * set->features, set->features * sizeof *embeddings);
            continue;
        }
        library_failure(picture->path, &picture->error);
        x->gallery->failed++;
        free(set->rows[i].file);
        set->rows[i].file = NULL;
    }
}

static void embed_pending(struct indexing *x) {
    struct gallery *gallery = x->gallery;
    struct progress progress;
    float *embeddings = allocate((size_t)x->batch->size * gallery->set.features, sizeof *embeddings);
    const resnet_request request = {.embedding = embeddings};
    progress_start(&progress, x->pending_count);
    for (uint32_t first = 0; first < x->pending_count; first += x->batch->count) {
        batch_clear(x->batch);
        for (uint32_t i = first; i < x->pending_count && x->batch->count < x->batch->size; i++)
            batch_add(x->batch, (struct picture){.path = gallery_path(gallery, x->pending[i])});
        batch_request(x->batch, &request);
        progress_clear(&progress);
        take(x, first, embeddings);
        progress_add(&progress, x->batch->count);
    }
    progress_clear(&progress);
    free(embeddings);
}

/* Close the gaps that failed images have left. */
static void drop_failed(struct embeddings *set) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < set->count; i++)
        if (set->rows[i].file) {
            set->rows[left] = set->rows[i];
            memmove(values_of(set, left++), values_of(set, i), set->features * sizeof *set->values);
        }
    set->count = left;
}

/* Whether the index that was found has other rows than the gallery. */
static bool has_changed(const struct indexing *x, uint32_t embedded) {
    return embedded > 0 || x->old.count != x->gallery->set.count;
}

static bool write_index(const struct embeddings *set, const char *index) {
    struct embeddings_writer writer;
    if (!embeddings_create(&writer, index, set->features))
        return false;
    for (uint32_t i = 0; i < set->count; i++)
        embeddings_add(&writer, &set->rows[i], values_of(set, i));
    return embeddings_commit(&writer);
}

static int make_gallery(struct indexing *x, const char *index) {
    struct gallery *gallery = x->gallery;
    read_old(x, index);
    if (!list_rows(x))
        return EXIT_IO;
    uint32_t listed = gallery->set.count;
    embed_pending(x);
    drop_failed(&gallery->set);
    gallery->ready = true;
    uint32_t embedded = x->pending_count - (listed - gallery->set.count);
    if (has_changed(x, embedded) && !write_index(&gallery->set, index))
        return EXIT_IO;
    return gallery->failed ? EXIT_INPUTS : EXIT_FINE;
}

int gallery_open_folder(struct gallery *gallery, struct batch *batch, const char *folder, const char *index) {
    char *own = index ? NULL : join(folder, INDEX_NAME);
    struct indexing x = {.gallery = gallery, .batch = batch};
    *gallery = (struct gallery){.folder = folder};
    int code = make_gallery(&x, index ? index : own);
    embeddings_free(&x.old);
    free(x.known);
    free(x.pending);
    free(own);
    return code;
}

void gallery_close(struct gallery *gallery) {
    embeddings_free(&gallery->set);
}

/* ---- Both ---- */

char *gallery_path(const struct gallery *gallery, uint32_t row) {
    return join(gallery->folder, gallery->set.rows[row].file);
}

static double dot(const float *a, const float *b, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

void gallery_compare(const struct gallery *gallery, const float *embedding, float *cosines) {
    uint32_t features = gallery->set.features;
    double own = dot(embedding, embedding, features);
    for (uint32_t i = 0; i < gallery->set.count; i++) {
        const float *row = values_of(&gallery->set, i);
        cosines[i] = (float)(dot(embedding, row, features) / sqrt(own * dot(row, row, features)));
    }
}
