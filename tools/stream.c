/*
 * stream.c - images through a network as a stream, for lists of any length: one thread reads names, workers decode and
 * run a few images each, all at once, and records leave in order.
 *
 * The reader fills a queue. Each worker has a session with one thread; it takes an image when it is free, decodes it,
 * and runs as soon as its session is full or no more images come for a while. What is done goes to a window, a ring of
 * places by number; whoever puts a record there and finds nobody writing writes all that are next, so that a slow
 * reader of the output delays one worker only. Nobody takes an image whose place is still taken: that bounds the
 * window.
 */
#define _POSIX_C_SOURCE 200809L
#include "stream.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "model.h"
#include "progress.h"
#include "stop.h"
#include "system.h"
#include "text.h"

#define QUEUED      4                  /* images in the queue for each worker */
#define MOST_QUEUED ((size_t)64 << 20) /* bytes of images in the queue, or one image */
#define PLACES      (2 * STREAM_BATCH) /* in the window, for each worker: what it fills while another is slow */

struct place {
    struct stream_item item;
    bool is_done;
};

struct worker {
    struct stream *stream;
    resnet_session *session;
    struct stream_item items[STREAM_BATCH];
    uint64_t numbers[STREAM_BATCH];
    uint32_t count; /* slots that are filled */
    float *values;  /* [STREAM_BATCH][stream->values] */
};

struct stream {
    const struct stream_plan *plan;
    const struct stream_job *job;
    struct worker *workers;
    uint32_t worker_count, values; /* numbers an image */
    struct progress progress;
    struct stream_result result;
    pthread_t reader;

    pthread_mutex_t lock;           /* of all that follows */
    pthread_cond_t filled, emptied; /* the queue; `filled` also: there are places again */
    struct stream_item *queue;      /* a ring */
    uint32_t queue_room, queue_start, queue_count;
    size_t queue_bytes;
    bool at_end, complete;           /* the reader adds no more; it has added all */
    uint64_t taken, placed, written; /* images that left the queue, came to the window, left it */
    struct place *window;            /* a ring: image i is at i mod places */
    uint32_t places;
    bool writing; /* somebody writes records */
    bool broken;  /* the output failed; the writer's own */
};

/* ---- The reader ---- */

static void free_item(struct stream_item *item) {
    free(item->input.name);
    free(item->data);
    free(item->record);
    *item = (struct stream_item){0};
}

/* The next image that is this run's, read where it is no file. */
static bool read_item(struct stream *stream, uint64_t *listed, struct stream_item *item) {
    const struct stream_plan *plan = stream->plan;
    const struct stream_job *job = stream->job;
    *item = (struct stream_item){0};
    while (!stop_asked() && inputs_next(plan->inputs, &item->input)) {
        if (shard_has(&plan->shard, (*listed)++) && !(job->skip && job->skip(job->context, item->input.name))) {
            if (item->input.kind != INPUT_FILE)
                item->data = inputs_read(plan->inputs, &item->input, &item->size, &item->error);
            return true;
        }
        free(item->input.name);
    }
    return false;
}

/* At the queue's end, when there is room; after a wish to stop, which leaves it there to be told, at once. */
static void add_item(struct stream *stream, const struct stream_item *item) {
    pthread_mutex_lock(&stream->lock);
    while (!stop_asked() && (stream->queue_count + 1 == stream->queue_room ||
                             (stream->queue_count && stream->queue_bytes + item->size > MOST_QUEUED)))
        pthread_cond_wait(&stream->emptied, &stream->lock);
    stream->queue[(stream->queue_start + stream->queue_count++) % stream->queue_room] = *item;
    stream->queue_bytes += item->size;
    pthread_cond_signal(&stream->filled);
    pthread_mutex_unlock(&stream->lock);
}

static void *read_all(void *stream_) {
    struct stream *stream = stream_;
    struct stream_item item;
    uint64_t listed = 0;
    while (read_item(stream, &listed, &item))
        add_item(stream, &item);
    pthread_mutex_lock(&stream->lock);
    stream->at_end = true;
    stream->complete = !stop_asked();
    pthread_cond_broadcast(&stream->filled);
    pthread_mutex_unlock(&stream->lock);
    return NULL;
}

/* ---- Records ---- */

/* A record that is to be printed. */
struct draft {
    const struct stream_job *job;
    const struct stream_item *item;
    const float *values;
};

static void print_draft(const void *draft_, FILE *out) {
    const struct draft *draft = draft_;
    draft->job->describe(draft->job->context, draft->item, draft->values, out);
}

/* Have the item's record written. */
static void describe(const struct stream_job *job, struct stream_item *item, const float *values) {
    item->record = print_to_memory(print_draft, &(struct draft){job, item, values}, &item->record_size);
}

/* Hand a record to the command. */
static void hand_on(const struct stream_job *job, struct stream_item *item, struct stream_result *result) {
    bool failed = item->error.status != RESNET_OK;
    if (failed)
        library_failure(item->input.name, &item->error);
    job->write(job->context, item);
    result->images++;
    result->failed += failed;
}

/* ---- The window ---- */

/* The records of images start..end-1, without the lock: nobody else touches what is done and not written. */
static void write_items(struct stream *stream, uint64_t start, uint64_t end) {
    for (uint64_t i = start; i < end; i++) {
        struct place *place = &stream->window[i % stream->places];
        if (place->item.error.status != RESNET_OK)
            progress_clear(&stream->progress);
        if (!stream->broken)
            hand_on(stream->job, &place->item, &stream->result);
        free_item(&place->item);
        place->is_done = false;
    }
    if (stream->broken)
        return;
    progress_add(&stream->progress, (size_t)(end - start));
    if (!stream->job->flush(stream->job->context)) {
        stream->broken = true;
        stop_ask();
    }
}

static bool is_done(const struct stream *stream, uint64_t image) {
    return image < stream->written + stream->places && stream->window[image % stream->places].is_done;
}

/* Write what is next, until that is not done. */
static void write_done(struct stream *stream) {
    stream->writing = true;
    while (is_done(stream, stream->written)) {
        uint64_t end = stream->written;
        while (is_done(stream, end))
            end++;
        pthread_mutex_unlock(&stream->lock);
        write_items(stream, stream->written, end);
        pthread_mutex_lock(&stream->lock);
        stream->written = end;
        pthread_cond_broadcast(&stream->filled);
    }
    stream->writing = false;
}

static void put(struct stream *stream, const struct stream_item *item, uint64_t number) {
    pthread_mutex_lock(&stream->lock);
    uint64_t image = stream->plan->unordered ? stream->placed++ : number;
    stream->window[image % stream->places] = (struct place){*item, true};
    if (!stream->writing)
        write_done(stream);
    pthread_mutex_unlock(&stream->lock);
}

/* ---- The workers ---- */

static bool has_place(const struct stream *stream) {
    return stream->taken < stream->written + stream->places;
}

/* Wait until there is an image to take and a place for its record. False where there will be none, or not until the
 * deadline, which may be NULL. */
static bool wait_for_item(struct stream *stream, const struct timespec *deadline) {
    bool late = false;
    while (!stop_asked() && !(stream->queue_count && has_place(stream))) {
        if (late || (deadline && !has_place(stream)) || (stream->at_end && !stream->queue_count))
            return false;
        if (deadline)
            late = pthread_cond_timedwait(&stream->filled, &stream->lock, deadline) != 0;
        else
            pthread_cond_wait(&stream->filled, &stream->lock);
    }
    return !stop_asked();
}

/* Take an image off the queue. */
static bool take(struct stream *stream, const struct timespec *deadline, struct stream_item *item, uint64_t *number) {
    pthread_mutex_lock(&stream->lock);
    bool good = wait_for_item(stream, deadline);
    if (good) {
        *item = stream->queue[stream->queue_start];
        stream->queue_start = (stream->queue_start + 1) % stream->queue_room;
        stream->queue_count--;
        stream->queue_bytes -= item->size;
        *number = stream->taken++;
        pthread_cond_signal(&stream->emptied);
    }
    pthread_mutex_unlock(&stream->lock);
    return good;
}

static void decode(struct worker *worker, struct stream_item *item) {
    const struct stream *stream = worker->stream;
    const resnet_preprocess *preprocess = &stream->plan->batch->preprocess;
    resnet_error *error = &item->error;
    if (stream->job->begin)
        stream->job->begin(stream->job->context, item);
    if (error->status == RESNET_OK && item->data)
        resnet_session_set_image_memory(worker->session, worker->count, item->data, item->size, preprocess, error);
    else if (error->status == RESNET_OK)
        resnet_session_set_image_file(worker->session, worker->count, item->input.name, preprocess, error);
    free(item->data);
    item->data = NULL;
}

static struct timespec deadline_after(double seconds) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += (time_t)seconds;
    time.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

/* Take and decode images until the session is full, or none comes in time. False at the end. */
static bool fill(struct worker *worker) {
    struct stream *stream = worker->stream;
    struct timespec deadline;
    struct stream_item item;
    uint64_t number;
    worker->count = 0;
    while (worker->count < STREAM_BATCH && take(stream, worker->count ? &deadline : NULL, &item, &number)) {
        decode(worker, &item);
        if (item.error.status != RESNET_OK) {
            describe(stream->job, &item, NULL);
            put(stream, &item, number);
            continue;
        }
        if (worker->count == 0)
            deadline = deadline_after(stream->plan->max_wait);
        worker->items[worker->count] = item;
        worker->numbers[worker->count++] = number;
    }
    return worker->count > 0;
}

/* How many numbers the network gives for an image. */
static uint32_t values_of(const struct batch *batch, const struct stream_job *job) {
    return job->embedding ? batch->info.features : batch->info.config.classes;
}

static resnet_request request_for(const struct stream_job *job, float *values) {
    resnet_request request = {0};
    *(job->embedding ? &request.embedding : &request.logits) = values;
    return request;
}

static void run(struct worker *worker) {
    struct stream *stream = worker->stream;
    resnet_error error = {.status = RESNET_OK};
    const resnet_request request = request_for(stream->job, worker->values);
    resnet_run(worker->session, worker->count, &request, &error);
    for (uint32_t i = 0; i < worker->count; i++) {
        struct stream_item *item = &worker->items[i];
        item->error = error;
        describe(stream->job, item, error.status == RESNET_OK ? worker->values + (size_t)i * stream->values : NULL);
        put(stream, item, worker->numbers[i]);
    }
}

static void work(void *stream_, uint32_t i) {
    struct stream *stream = stream_;
    while (fill(&stream->workers[i]))
        run(&stream->workers[i]);
    pthread_mutex_lock(&stream->lock);
    pthread_cond_signal(&stream->emptied); /* the reader may wait for room that nobody makes any more */
    pthread_mutex_unlock(&stream->lock);
}

/* ---- All together ---- */

/* For 0, as many as a session would have. */
uint32_t stream_threads(const struct batch *batch, uint32_t threads) {
    resnet_session *session;
    if (threads == 0 && resnet_session_create(batch->model, NULL, &session, NULL) == RESNET_OK) {
        threads = resnet_session_threads(session);
        resnet_session_free(session);
    }
    return threads ? threads : 1;
}

static int open_workers(struct stream *stream) {
    const struct batch *batch = stream->plan->batch;
    const resnet_session_options options = {.batch = STREAM_BATCH, .threads = 1};
    resnet_error error;
    stream->worker_count = stream_threads(batch, stream->plan->threads);
    stream->values = values_of(batch, stream->job);
    stream->workers = allocate(stream->worker_count, sizeof *stream->workers);
    for (uint32_t i = 0; i < stream->worker_count; i++) {
        struct worker *worker = &stream->workers[i];
        worker->stream = stream;
        worker->values = allocate((size_t)STREAM_BATCH * stream->values, sizeof *worker->values);
        if (resnet_session_create(batch->model, &options, &worker->session, &error) != RESNET_OK)
            return library_failure(batch->path, &error);
    }
    return EXIT_FINE;
}

static void open_queue(struct stream *stream) {
    pthread_condattr_t monotonic;
    stream->queue_room = QUEUED * stream->worker_count + 1;
    stream->queue = allocate(stream->queue_room, sizeof *stream->queue);
    stream->places = PLACES * stream->worker_count;
    stream->window = allocate(stream->places, sizeof *stream->window);
    pthread_mutex_init(&stream->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&stream->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&stream->emptied, NULL);
}

static void close_all(struct stream *stream) {
    for (; stream->queue_count; stream->queue_count--) {
        free_item(&stream->queue[stream->queue_start]);
        stream->queue_start = (stream->queue_start + 1) % stream->queue_room;
    }
    for (uint32_t i = 0; i < stream->worker_count; i++) {
        resnet_session_free(stream->workers[i].session);
        free(stream->workers[i].values);
    }
    free(stream->workers);
    free(stream->queue);
    free(stream->window);
    pthread_mutex_destroy(&stream->lock);
    pthread_cond_destroy(&stream->filled);
    pthread_cond_destroy(&stream->emptied);
}

static void start_progress(struct stream *stream) {
    const struct stream_plan *plan = stream->plan;
    bool shown = !plan->quiet && isatty(STDERR_FILENO);
    uint64_t total = shown ? inputs_total(plan->inputs) : 0;
    if (plan->shard.count && total)
        total = (total + plan->shard.count - 1 - plan->shard.index) / plan->shard.count;
    progress_start(&stream->progress, total > plan->done ? (size_t)(total - plan->done) : 0);
    stream->progress.shown = stream->progress.shown && shown;
}

static int run_all(struct stream *stream) {
    start_progress(stream);
    if (!stop_watch())
        return EXIT_IO;
    int refused = pthread_create(&stream->reader, NULL, read_all, stream);
    if (refused) {
        complain("a thread was refused: %s", strerror(refused));
        return EXIT_IO;
    }
    run_on_threads(stream->worker_count, work, stream);
    pthread_join(stream->reader, NULL);
    progress_clear(&stream->progress);
    return EXIT_FINE;
}

/* What to exit with at the end, and why the list was not done to its end. */
static int judge(const struct stream *stream) {
    int signal_number = stop_signal();
    if (inputs_failed(stream->plan->inputs) || stream->broken)
        return EXIT_IO;
    if (signal_number && !stream->complete) {
        const char *next = stream->queue_count ? stream->queue[stream->queue_start].input.name : "the next one";
        complain("stopped by %s after %llu images, before %s", signal_number == SIGINT ? "SIGINT" : "SIGTERM",
                 (unsigned long long)stream->result.images, next);
        return 128 + signal_number;
    }
    return stream->result.failed ? EXIT_INPUTS : EXIT_FINE;
}

/* ---- A few images ---- */

/* The pictures of the batch: each a record at once. */
static bool answer_few(struct batch *batch, const struct stream_job *job, float *values, struct stream_result *result) {
    struct stream_item *items = allocate(batch->count, sizeof *items);
    const resnet_request request = request_for(job, values);
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct picture *picture = &batch->pictures[i];
        items[i].input = (struct input){picture->path, picture->is_stdin ? INPUT_STDIN : INPUT_FILE};
        if (job->begin)
            job->begin(job->context, &items[i]);
    }
    batch_request(batch, &request);
    for (uint32_t i = 0; i < batch->count; i++) {
        if (items[i].error.status == RESNET_OK)
            items[i].error = batch->pictures[i].error;
        bool good = items[i].error.status == RESNET_OK;
        describe(job, &items[i], good ? values + (size_t)i * values_of(batch, job) : NULL);
        hand_on(job, &items[i], result);
        free(items[i].record);
    }
    free(items);
    return job->flush(job->context);
}

static int run_few(const struct stream_plan *plan, const struct stream_job *job, struct stream_result *result) {
    struct batch *batch = plan->batch;
    float *values = allocate((size_t)batch->size * values_of(batch, job), sizeof *values);
    bool good = true;
    while (good && batch_fill(batch, plan->inputs))
        good = answer_few(batch, job, values, result);
    free(values);
    return !good ? EXIT_IO : result->failed ? EXIT_INPUTS : EXIT_FINE;
}

int stream_run(const struct stream_plan *plan, const struct stream_job *job, struct stream_result *result) {
    *result = (struct stream_result){0};
    if (plan->batch->session)
        return run_few(plan, job, result);
    struct stream stream = {.plan = plan, .job = job};
    int code = open_workers(&stream);
    open_queue(&stream);
    if (code == EXIT_FINE)
        code = run_all(&stream);
    if (code == EXIT_FINE)
        code = judge(&stream);
    *result = stream.result;
    close_all(&stream);
    return code;
}
