/* threads.h - a pool that runs one task on all of its threads at once. */
#ifndef THREADS_H
#define THREADS_H

#include "memory.h"
#include "resnet.h"

struct pool;

/* Called once for each 0 <= index < count, at the same time. */
typedef void pool_task(void *argument, uint32_t index, uint32_t count);

/* What a pool of this many threads takes from the allocator. */
size_t pool_memory(uint32_t threads);

/* Start threads - 1 threads; the caller of pool_run is the other one. With `external`, none is started and the caller's
 * own pool is used. Errors: MEMORY, THREAD. */
resnet_status pool_create(struct pool **pool, uint32_t threads, const resnet_session_options *external,
                          const resnet_allocator *allocator, resnet_error *error);
void pool_free(struct pool *pool, const resnet_allocator *allocator);
uint32_t pool_threads(const struct pool *pool);

/* Run task(argument, i, threads) for every i and return when all are done. Allocates nothing. */
void pool_run(struct pool *pool, pool_task *task, void *argument);

#endif
