/*
 * batch.c - many photographs in one run: batch MODEL IMAGE...
 *
 * A session of one slot for each image. Decoding and resizing take as long as a small network does, so each image has a
 * thread that fills its slot; then one run computes them all, split between the session's own threads.
 */
#include <pthread.h>
#include <resnet.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST 64 /* images, threads that decode, and slots */

struct slot {
    resnet_session *session;
    uint32_t index;
    const char *path;
    resnet_error error;
    pthread_t thread;
    int has_thread;
};

static void *fill(void *argument) {
    struct slot *slot = argument;
    resnet_session_set_image_file(slot->session, slot->index, slot->path, NULL, &slot->error);
    return NULL;
}

/* 0, or how many images could not be read: the run computes something for their slots, which nobody looks at. */
static int fill_all(resnet_session *session, struct slot *slots, uint32_t count, char **paths) {
    int failed = 0;
    for (uint32_t i = 0; i < count; i++) {
        slots[i] = (struct slot){.session = session, .index = i, .path = paths[i]};
        slots[i].has_thread = pthread_create(&slots[i].thread, NULL, fill, &slots[i]) == 0;
        if (!slots[i].has_thread)
            fill(&slots[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (slots[i].has_thread)
            pthread_join(slots[i].thread, NULL);
        failed += slots[i].error.status != RESNET_OK;
    }
    return failed;
}

static void print_answers(const resnet_model *model, const struct slot *slots, uint32_t count, const float *scores) {
    uint32_t classes = resnet_model_describe(model).config.classes, best;
    for (uint32_t i = 0; i < count; i++) {
        resnet_top_k(scores + i * classes, classes, 1, &best);
        const char *label = resnet_model_label(model, best); /* NULL in a model without labels */
        if (slots[i].error.status != RESNET_OK)
            fprintf(stderr, "%s\n", slots[i].error.message);
        else
            printf("%s: %s\n", slots[i].path, label ? label : "?");
    }
}

int main(int argc, char **argv) {
    static struct slot slots[MOST];
    resnet_error error = {RESNET_ERROR_MEMORY, "there is not enough memory"}; /* until the library says more */
    resnet_session_options options = {.batch = (uint32_t)(argc - 2)};
    resnet_model *model = NULL;
    resnet_session *session = NULL;
    float *scores = NULL;
    if (argc < 3 || argc > MOST + 2)
        return fputs("usage: batch MODEL IMAGE... (64 at most)\n", stderr), 2;
    int failed = resnet_model_load_file(argv[1], NULL, &model, &error) ||
                 resnet_session_create(model, &options, &session, &error) ||
                 !(scores = malloc(options.batch * resnet_model_describe(model).config.classes * sizeof *scores));
    if (!failed) {
        failed = fill_all(session, slots, options.batch, argv + 2);
        if (resnet_session_run(session, options.batch, scores, &error) == RESNET_OK)
            print_answers(model, slots, options.batch, scores);
    } else {
        fprintf(stderr, "%s\n", error.message);
    }
    free(scores);
    resnet_session_free(session);
    resnet_model_free(model);
    return failed != 0;
}
