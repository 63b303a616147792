/*
 * threads.c - a pool that runs the parts of a task on all of its threads at once.
 *
 * A round starts when `round` goes up and ends when `working` is down to zero. Whoever waits spins for a few
 * microseconds, since the layers of a network follow each other closely, and then sleeps, so that an idle session costs
 * nothing.
 */
#define _POSIX_C_SOURCE 200809L
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "split.h"

#define SPINS 1000 /* 25 to 40 us: longer than between two layers, shorter than anyone would notice */

struct worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
};

struct pool {
    struct pool_options options; /* `threads`: 1 with the caller's own pool, else at most `parts` */
    size_t size;                 /* bytes */
    uint32_t started;            /* workers to join */
    pid_t process;               /* that has them: they do not follow a fork */

    pool_task *task; /* of this round; NULL asks the workers to leave */
    void *argument;
    atomic_uint round, working;
    pthread_mutex_t mutex; /* guards the two conditions, for those that sleep */
    pthread_cond_t begin, end;
    struct worker workers[];
};

static uint32_t threads_of(const struct pool_options *options) {
    return options->parallel_for ? 1 : smaller(options->threads, options->parts);
}

size_t pool_memory(const struct pool_options *options) {
    return sizeof(struct pool) + threads_of(options) * sizeof(struct worker);
}

#if defined(__x86_64__) || defined(__i386__)
static void relax(void) {
    __builtin_ia32_pause();
}
#elif defined(__aarch64__)
static void relax(void) {
    __asm__ volatile("yield");
}
#else
static void relax(void) {}
#endif

/* Wait until *value is `wanted` (or, with `differs`, is not). */
static void wait_for(struct pool *pool, atomic_uint *value, pthread_cond_t *condition, unsigned wanted, bool differs) {
    for (int i = 0; i < SPINS; i++) {
        if ((atomic_load_explicit(value, memory_order_acquire) == wanted) != differs)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while ((atomic_load_explicit(value, memory_order_acquire) == wanted) == differs)
        pthread_cond_wait(condition, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

/* The lock orders the change with a waiter's last look at the value, so that no wake-up is lost. */
static void wake(struct pool *pool, pthread_cond_t *condition) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(condition);
    pthread_mutex_unlock(&pool->mutex);
}

/* Each thread takes neighbouring parts. */
static void run_parts(const struct pool *pool, uint32_t thread) {
    struct span mine = part_of(pool->options.parts, thread, pool->options.threads);
    for (uint32_t i = mine.begin; i < mine.end; i++)
        pool->task(pool->argument, i, pool->options.parts);
}

static void *work(void *argument) {
    const struct worker *self = argument;
    struct pool *pool = self->pool;
    for (unsigned round = 0;; round++) {
        wait_for(pool, &pool->round, &pool->begin, round, true);
        if (!pool->task)
            return NULL;
        run_parts(pool, self->index);
        if (atomic_fetch_sub_explicit(&pool->working, 1, memory_order_acq_rel) == 1)
            wake(pool, &pool->end);
    }
}

static void begin_round(struct pool *pool, pool_task *task, void *argument) {
    pool->task = task;
    pool->argument = argument;
    atomic_store_explicit(&pool->working, pool->started, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    wake(pool, &pool->begin);
}

struct external_round {
    pool_task *task;
    void *argument;
    uint32_t parts;
};

static void external_task(void *argument, uint32_t i) {
    const struct external_round *round = argument;
    round->task(round->argument, i, round->parts);
}

/* In a fork's child nobody would answer, and the mutex may be locked for ever. */
static bool is_inherited(const struct pool *pool) {
    return pool->process != getpid();
}

void pool_run(struct pool *pool, pool_task *task, void *argument) {
    uint32_t parts = pool->options.parts;
    if (pool->options.parallel_for) {
        struct external_round round = {task, argument, parts};
        pool->options.parallel_for(pool->options.parallel_context, parts, external_task, &round);
    } else if (pool->started == 0 || is_inherited(pool)) {
        for (uint32_t i = 0; i < parts; i++)
            task(argument, i, parts);
    } else {
        begin_round(pool, task, argument);
        run_parts(pool, 0);
        wait_for(pool, &pool->working, &pool->end, 0, false);
    }
}

static void stop_workers(struct pool *pool) {
    if (pool->started)
        begin_round(pool, NULL, NULL);
    for (uint32_t i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->end);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->mutex);
}

void pool_free(struct pool *pool, const resnet_allocator *allocator) {
    if (!pool)
        return;
    if (!is_inherited(pool))
        stop_workers(pool);
    memory_put(allocator, pool, pool->size);
}

/* Signals are for the caller's threads: the workers start with all of them blocked. */
static int start_workers(struct pool *pool) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = 0;
    while (!code && pool->started + 1 < pool->options.threads) {
        struct worker *worker = &pool->workers[pool->started];
        *worker = (struct worker){.pool = pool, .index = pool->started + 1};
        code = pthread_create(&worker->thread, NULL, work, worker);
        pool->started += !code;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

resnet_status pool_create(struct pool **result, const struct pool_options *options, const resnet_allocator *allocator,
                          resnet_error *error) {
    size_t size = pool_memory(options);
    struct pool *pool = memory_get(allocator, size);
    if (!pool)
        return fail_memory(error, "the thread pool", size);
    memset(pool, 0, size);
    pool->options = *options;
    pool->options.threads = threads_of(options);
    pool->size = size;
    pool->process = getpid();
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->end, NULL);
    int code = start_workers(pool);
    if (code) {
        uint32_t started = pool->started, wanted = pool->options.threads - 1;
        pool_free(pool, allocator);
        return fail(error, RESNET_ERROR_THREAD, "thread %u of %u could not be started: error %d", started + 1, wanted,
                    code);
    }
    *result = pool;
    return RESNET_OK;
}
