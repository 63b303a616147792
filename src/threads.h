/* threads.h - a pool that runs the parts of a task on all of its threads at once. */
#ifndef THREADS_H
#define THREADS_H

#include "memory.h"
#include "resnet.h"

struct pool;

/* Called once for each 0 <= index < count; by different threads at the same time. */
typedef void pool_task(void *argument, uint32_t index, uint32_t count);

/* How a pool cuts its work up, and who does it. */
struct pool_options {
    uint32_t parts;                    /* of a task, at least 1: they say what each part is, so that results do not
                                          depend on the threads that there are */
    uint32_t threads;                  /* that share them, the caller of pool_run being one; at most `parts` are used */
    resnet_parallel_for *parallel_for; /* the caller's own pool in their place, or NULL */
    void *parallel_context;
};

/* What such a pool takes from the allocator. */
size_t pool_memory(const struct pool_options *options);

/* Start threads - 1 threads; none with `parallel_for`. The child of a fork may run and free its copy of a pool, on the
 * thread that calls. Errors: MEMORY, THREAD. */
resnet_status pool_create(struct pool **pool, const struct pool_options *options, const resnet_allocator *allocator,
                          resnet_error *error);
void pool_free(struct pool *pool, const resnet_allocator *allocator);

/* Run task(argument, i, parts) for every i < parts and return when all are done. Allocates nothing. */
void pool_run(struct pool *pool, pool_task *task, void *argument);

#endif
