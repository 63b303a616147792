/*
 * threads.c - a pool that runs one task on all of its threads at once.
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

#include "error.h"

#define SPINS 1000 /* 25 to 40 us: longer than between two layers, shorter than anyone would notice */

struct worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
};

struct pool {
    uint32_t threads;
    uint32_t started; /* workers to join */
    resnet_parallel_for *external;
    void *external_context;

    pool_task *task; /* of this round; NULL asks the workers to leave */
    void *argument;
    atomic_uint round, working;
    pthread_mutex_t mutex; /* guards the two conditions, for those that sleep */
    pthread_cond_t begin, end;
    struct worker workers[];
};

size_t pool_memory(uint32_t threads) {
    return sizeof(struct pool) + threads * sizeof(struct worker);
}

uint32_t pool_threads(const struct pool *pool) {
    return pool->threads;
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

static void *work(void *argument) {
    const struct worker *self = argument;
    struct pool *pool = self->pool;
    for (unsigned round = 0;; round++) {
        wait_for(pool, &pool->round, &pool->begin, round, true);
        if (!pool->task)
            return NULL;
        pool->task(pool->argument, self->index, pool->threads);
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
    uint32_t threads;
};

static void external_task(void *argument, uint32_t i) {
    const struct external_round *round = argument;
    round->task(round->argument, i, round->threads);
}

void pool_run(struct pool *pool, pool_task *task, void *argument) {
    if (pool->threads == 1) {
        task(argument, 0, 1);
    } else if (pool->external) {
        struct external_round round = {task, argument, pool->threads};
        pool->external(pool->external_context, pool->threads, external_task, &round);
    } else {
        begin_round(pool, task, argument);
        task(argument, 0, pool->threads);
        wait_for(pool, &pool->working, &pool->end, 0, false);
    }
}

void pool_free(struct pool *pool, const resnet_allocator *allocator) {
    if (!pool)
        return;
    if (pool->started)
        begin_round(pool, NULL, NULL);
    for (uint32_t i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->end);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->mutex);
    memory_put(allocator, pool, pool_memory(pool->threads));
}

/* Signals are for the caller's threads: the workers start with all of them blocked. */
static int start_workers(struct pool *pool) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = 0;
    while (!code && pool->started + 1 < pool->threads) {
        struct worker *worker = &pool->workers[pool->started];
        *worker = (struct worker){.pool = pool, .index = pool->started + 1};
        code = pthread_create(&worker->thread, NULL, work, worker);
        pool->started += !code;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

resnet_status pool_create(struct pool **result, uint32_t threads, const resnet_session_options *external,
                          const resnet_allocator *allocator, resnet_error *error) {
    struct pool *pool = memory_get(allocator, pool_memory(threads));
    if (!pool)
        return fail_memory(error, "the thread pool", pool_memory(threads));
    memset(pool, 0, pool_memory(threads));
    pool->threads = threads;
    pool->external = external->parallel_for;
    pool->external_context = external->parallel_context;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->begin, NULL);
    pthread_cond_init(&pool->end, NULL);
    int code = pool->external ? 0 : start_workers(pool);
    if (code) {
        uint32_t started = pool->started;
        pool_free(pool, allocator);
        return fail(error, RESNET_ERROR_THREAD, "thread %u of %u could not be started: error %d", started + 1,
                    threads - 1, code);
    }
    *result = pool;
    return RESNET_OK;
}
