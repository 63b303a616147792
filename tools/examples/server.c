/*
 * server.c - a server's pool of threads that share one model: server MODEL WORKERS <LIST-OF-IMAGES
 *
 * The model is loaded once and never changes. Each worker has a session of its own with one thread, so that requests do
 * not wait for each other, and keeps it from request to request. Here requests are lines of standard input, and answers
 * come in the order in which they are ready.
 */
#include <pthread.h>
#include <resnet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_WORKERS 64
#define MOST_CLASSES 1000

/* The queue is standard input, and the lock lets one worker at a time take a line of it. */
static pthread_mutex_t queue = PTHREAD_MUTEX_INITIALIZER;

static int next_request(char *path, int size) {
    pthread_mutex_lock(&queue);
    int found = fgets(path, size, stdin) != NULL;
    pthread_mutex_unlock(&queue);
    path[found ? strcspn(path, "\n") : 0] = '\0';
    return found;
}

static resnet_status answer(const resnet_model *model, resnet_session *session, const char *path, resnet_error *error) {
    float scores[MOST_CLASSES];
    uint32_t best;
    resnet_status status = resnet_session_set_image_file(session, 0, path, NULL, error);
    if (status == RESNET_OK)
        status = resnet_session_run(session, 1, scores, error);
    if (status == RESNET_OK) {
        resnet_top_k(scores, resnet_model_describe(model).config.classes, 1, &best);
        const char *label = resnet_model_label(model, best); /* NULL in a model without labels */
        printf("%s: %s\n", path, label ? label : "?");       /* stdio locks, so lines stay whole */
    }
    return status;
}

/* A request that fails is its own affair: the session stays usable for the next. */
static void *work(void *argument) {
    const resnet_model *model = argument;
    resnet_session_options options = {.threads = 1};
    resnet_session *session;
    resnet_error error;
    char path[4096];
    if (resnet_session_create(model, &options, &session, &error))
        return fprintf(stderr, "%s\n", error.message), NULL;
    while (next_request(path, sizeof path))
        if (answer(model, session, path, &error))
            fprintf(stderr, "%s\n", error.message);
    resnet_session_free(session);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t workers[MOST_WORKERS];
    resnet_error error = {RESNET_ERROR_UNSUPPORTED, "the model has more than 1000 classes"};
    resnet_model *model = NULL;
    int count = argc == 3 ? atoi(argv[2]) : 0, started = 0;
    if (count < 1 || count > MOST_WORKERS)
        return fputs("usage: server MODEL WORKERS (1 to 64) <LIST-OF-IMAGES\n", stderr), 2;
    if (resnet_model_load_file(argv[1], NULL, &model, &error) ||
        resnet_model_describe(model).config.classes > MOST_CLASSES)
        return fprintf(stderr, "%s\n", error.message), 1;
    while (started < count && pthread_create(&workers[started], NULL, work, model) == 0)
        started++;
    for (int i = 0; i < started; i++)
        pthread_join(workers[i], NULL);
    resnet_model_free(model);
    return started != count;
}
