/* teach_embed.c - run a network over the photographs of a set and keep its embeddings of them. */
#include "teach_embed.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "model.h"
#include "progress.h"
#include "system.h"

/* A few photographs that go through the network together; the threads that decode take the next one when they are free.
 */
struct embedding {
    struct teach_set *set;
    const struct viewer *viewer;
    struct progress progress;
    uint32_t room, count;
    uint32_t *numbers;    /* [room] of the photographs in the set */
    resnet_error *errors; /* [room] */
    float *rows;          /* [room][views][features] */
    atomic_uint next;
};

static void decode(void *argument, uint32_t thread) {
    struct embedding *e = argument;
    uint32_t i;
    (void)thread;
    while ((i = atomic_fetch_add(&e->next, 1)) < e->count) {
        struct teach_photograph *photograph = &e->set->photographs[e->numbers[i]];
        e->errors[i].status = RESNET_OK;
        if (views_fill(e->viewer, i * e->set->views, photograph->path, &photograph->hash, &e->errors[i]) != RESNET_OK)
            photograph->dropped = true;
    }
}

static void tell_failures(struct embedding *e) {
    for (uint32_t i = 0; i < e->count; i++)
        if (e->errors[i].status != RESNET_OK) {
            progress_clear(&e->progress);
            library_failure(e->set->photographs[e->numbers[i]].path, &e->errors[i]);
            e->set->failed++;
        }
}

/* The views of a photograph that failed are run with whatever their slots hold, and nobody looks at the result. */
static resnet_status run_some(struct embedding *e, resnet_error *error) {
    uint32_t threads = resnet_session_threads(e->viewer->session);
    size_t row = (size_t)e->set->views * e->set->features;
    const resnet_request request = {.embedding = e->rows};
    atomic_store(&e->next, 0);
    run_on_threads(threads < e->count ? threads : e->count, decode, e);
    tell_failures(e);
    resnet_status status = resnet_run(e->viewer->session, e->count * e->set->views, &request, error);
    for (uint32_t i = 0; status == RESNET_OK && i < e->count; i++)
        memcpy(e->set->embeddings + e->numbers[i] * row, e->rows + i * row, row * sizeof *e->rows);
    progress_add(&e->progress, e->count);
    e->count = 0;
    return status;
}

static int embed_all(struct embedding *e) {
    struct teach_set *set = e->set;
    resnet_error error;
    resnet_status status = RESNET_OK;
    for (uint32_t i = 0; status == RESNET_OK && i < set->count; i++) {
        if (set->photographs[i].kept == NOT_KEPT)
            e->numbers[e->count++] = i;
        if (e->count == e->room)
            status = run_some(e, &error);
    }
    if (status == RESNET_OK && e->count)
        status = run_some(e, &error);
    return status == RESNET_OK ? EXIT_FINE : library_failure("the network", &error);
}

int teach_embed(struct teach_set *set, const struct viewer *viewer, uint32_t batch) {
    struct embedding e = {.set = set, .viewer = viewer, .room = batch / set->views};
    e.numbers = allocate(e.room, sizeof *e.numbers);
    e.errors = allocate(e.room, sizeof *e.errors);
    e.rows = allocate((size_t)e.room * set->views * set->features, sizeof *e.rows);
    progress_start(&e.progress, set->count);
    int code = embed_all(&e);
    progress_clear(&e.progress);
    free(e.numbers);
    free(e.errors);
    free(e.rows);
    return code;
}
