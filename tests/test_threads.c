/* test_threads.c - the pool: every index once a round, nothing lost between rounds, quiet when idle. */
#define _DEFAULT_SOURCE /* clock_gettime, setrlimit, fork */
#include "threads.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support.h"
#include "system_calls.h"

#define ROUNDS 10000
#define MOST   8 /* threads */

static struct pool *new_pool_of(const struct pool_options *options, struct test_memory *memory) {
    struct pool *pool = NULL;
    resnet_error error;
    test_memory_init(memory, 0xaa);
    assert_status(RESNET_OK, pool_create(&pool, options, &memory->allocator, &error), &error);
    assert_int_equal(memory->live_bytes, pool_memory(options));
    return pool;
}

/* A thread for each part. */
static struct pool *new_pool(uint32_t threads, struct test_memory *memory) {
    return new_pool_of(&(struct pool_options){.parts = threads, .threads = threads}, memory);
}

/* What a round left behind. Plain numbers, not atomic: the pool itself has to order them, and a thread sanitizer sees
 * where it does not. `seen` is on a line of its own for each thread. */
struct round {
    uint32_t number, threads;
    struct {
        uint32_t seen, wrong;
        char rest[56];
    } parts[MOST];
};

static void note(void *argument, uint32_t index, uint32_t count) {
    struct round *round = argument;
    bool right = index < MOST && count == round->threads && round->parts[index].seen == round->number - 1;
    if (index < MOST) {
        round->parts[index].seen++;
        round->parts[index].wrong += !right;
    }
}

static void check_rounds(struct pool *pool, uint32_t threads, uint32_t rounds) {
    struct round round = {.threads = threads};
    for (round.number = 1; round.number <= rounds; round.number++) {
        pool_run(pool, note, &round);
        for (uint32_t i = 0; i < MOST; i++)
            assert_int_equal(round.parts[i].seen, i < threads ? round.number : 0);
    }
    for (uint32_t i = 0; i < MOST; i++)
        assert_int_equal(round.parts[i].wrong, 0);
}

static void test_every_index_once(void **state) {
    (void)state;
    static const uint32_t threads[] = {1, 2, 3, MOST};
    for (size_t i = 0; i < COUNT(threads); i++) {
        struct test_memory memory;
        struct pool *pool = new_pool(threads[i], &memory);
        size_t calls = memory.calls;
        check_rounds(pool, threads[i], test_quick() ? ROUNDS / 10 : ROUNDS);
        assert_int_equal(memory.calls, calls); /* a round allocates nothing */
        pool_free(pool, &memory.allocator);
        test_memory_check(&memory);
    }
}

/* Fewer threads than parts share them, more find nothing to do; one thread alone does all. */
static void test_parts_are_shared(void **state) {
    (void)state;
    static const uint32_t threads[] = {1, 2, 3, MOST - 1, 2 * MOST};
    for (size_t i = 0; i < COUNT(threads); i++) {
        struct test_memory memory;
        struct pool *pool = new_pool_of(&(struct pool_options){.parts = MOST, .threads = threads[i]}, &memory);
        check_rounds(pool, MOST, ROUNDS / 10);
        pool_free(pool, &memory.allocator);
        test_memory_check(&memory);
    }
}

/* All parts must be under way at the same time: each waits for all others. */
struct meeting {
    atomic_uint here;
};

static void meet(void *argument, uint32_t index, uint32_t count) {
    struct meeting *meeting = argument;
    (void)index;
    atomic_fetch_add(&meeting->here, 1);
    while (atomic_load(&meeting->here) < count)
        usleep(100);
}

static void test_parts_run_at_the_same_time(void **state) {
    (void)state;
    struct test_memory memory;
    struct pool *pool = new_pool(MOST, &memory);
    for (int i = 0; i < 20; i++) {
        struct meeting meeting = {0};
        alarm(20);
        pool_run(pool, meet, &meeting);
        alarm(0);
    }
    pool_free(pool, &memory.allocator);
}

/* One thread late in each round: the others must wait, and nobody may start the next round twice. */
static void late(void *argument, uint32_t index, uint32_t count) {
    struct round *round = argument;
    if (index == round->number % count)
        usleep(200);
    note(argument, index, count);
}

static void test_slow_threads(void **state) {
    (void)state;
    struct test_memory memory;
    struct pool *pool = new_pool(3, &memory);
    struct round round = {.threads = 3};
    for (round.number = 1; round.number <= 500; round.number++) {
        pool_run(pool, late, &round);
        for (uint32_t i = 0; i < 3; i++)
            assert_int_equal(round.parts[i].seen, round.number);
    }
    pool_free(pool, &memory.allocator);
}

static double process_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void test_idle_pool_sleeps(void **state) {
    (void)state;
    struct test_memory memory;
    struct pool *pool = new_pool(MOST, &memory);
    check_rounds(pool, MOST, 10);
    usleep(20000); /* time to fall asleep */
    double before = process_seconds();
    usleep(300000);
    assert_true(process_seconds() - before < 0.03); /* a thread that spins would take 0.3 */
    check_rounds(pool, MOST, 10);                   /* and it wakes */
    pool_free(pool, &memory.allocator);
    test_memory_check(&memory);
}

static void test_free_at_any_time(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        struct test_memory memory;
        struct pool *pool = new_pool(1 + i % MOST, &memory);
        check_rounds(pool, 1 + i % MOST, i % 3); /* never run, run once, run twice */
        if (i % 5 == 0)
            usleep(1000);
        pool_free(pool, &memory.allocator);
        test_memory_check(&memory);
    }
    pool_free(NULL, NULL);
}

/* ---- The caller's pool ---- */

struct backwards {
    uint32_t calls, count;
};

static void run_backwards(void *context, uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    struct backwards *backwards = context;
    backwards->calls++;
    backwards->count = count;
    for (uint32_t i = count; i > 0; i--)
        task(argument, i - 1);
}

static void test_external_pool(void **state) {
    (void)state;
    struct backwards backwards = {0, 0};
    struct pool_options external = {5, 2, run_backwards, &backwards};
    struct test_memory memory;
    struct pool *pool = new_pool_of(&external, &memory);
    check_rounds(pool, 5, 100);
    assert_int_equal(backwards.calls, 100);
    assert_int_equal(backwards.count, 5);
    pool_free(pool, &memory.allocator);
    test_memory_check(&memory);
}

/* ---- Signals ---- */

static void look_at_signals(void *argument, uint32_t index, uint32_t count) {
    sigset_t *masks = argument;
    (void)count;
    pthread_sigmask(SIG_BLOCK, NULL, &masks[index]);
}

static void test_signals_are_for_the_caller(void **state) {
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGALRM, SIGPROF, SIGUSR1, SIGWINCH};
    sigset_t masks[MOST], before, after;
    struct test_memory memory;
    sigemptyset(&before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    struct pool *pool = new_pool(3, &memory);
    pool_run(pool, look_at_signals, masks);
    pool_free(pool, &memory.allocator);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (size_t i = 0; i < COUNT(signals); i++) {
        assert_int_equal(sigismember(&after, signals[i]), sigismember(&before, signals[i]));
        assert_int_equal(sigismember(&masks[0], signals[i]), sigismember(&before, signals[i]));
        assert_int_equal(sigismember(&masks[1], signals[i]), 1);
        assert_int_equal(sigismember(&masks[2], signals[i]), 1);
    }
}

/* ---- Fork ---- */

static void note_process(void *argument, uint32_t index, uint32_t count) {
    pid_t *processes = argument;
    (void)count;
    processes[index] = getpid();
}

/* Run and free a pool that the parent started; 0: all of it was done here. */
static int use_inherited(struct pool *pool, const resnet_allocator *allocator) {
    pid_t processes[MOST] = {0};
    alarm(20); /* in place of waiting for ever */
    for (int round = 0; round < 3; round++) {
        memset(processes, 0, sizeof processes);
        pool_run(pool, note_process, processes);
        for (uint32_t i = 0; i < MOST; i++)
            if (processes[i] != getpid())
                return 1;
    }
    pool_free(pool, allocator);
    return 0;
}

/* Neither whether the parent's workers spin or sleep, nor that one of them holds the lock, may matter. */
static void test_inherited_pool(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct test_memory memory;
        struct pool *pool = new_pool(MOST, &memory);
        check_rounds(pool, MOST, 3);
        if (i % 2)
            usleep(1000);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            _exit(use_inherited(pool, &memory.allocator));
        check_rounds(pool, MOST, 3);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        pool_free(pool, &memory.allocator);
        test_memory_check(&memory);
    }
}

/* ---- Failure ---- */

static void test_no_memory(void **state) {
    (void)state;
    struct test_memory memory;
    test_memory_init(&memory, 0);
    memory.refuse = 1;
    struct pool *pool = NULL;
    resnet_error error;
    assert_status(RESNET_ERROR_MEMORY,
                  pool_create(&pool, &(struct pool_options){.parts = 4, .threads = 4}, &memory.allocator, &error),
                  &error);
    assert_null(pool);
    test_memory_check(&memory);
}

static uint32_t startable; /* threads, before the system has no more */

static int start_some(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (startable == 0)
        return EAGAIN;
    startable--;
    return __real_pthread_create(thread, attributes, start, argument);
}

/* Those that have started are stopped again, and the caller's signals are his. */
static void test_each_thread_fails_to_start(void **state) {
    (void)state;
    const struct pool_options options = {.parts = MOST, .threads = MOST};
    system_calls.pthread_create = start_some;
    for (uint32_t k = 0; k < MOST - 1; k++) {
        struct test_memory memory;
        struct pool *pool = NULL;
        resnet_error error;
        char expected[64];
        sigset_t before, after;
        test_memory_init(&memory, 0xaa);
        startable = k;
        pthread_sigmask(SIG_BLOCK, NULL, &before);
        assert_status(RESNET_ERROR_THREAD, pool_create(&pool, &options, &memory.allocator, &error), &error);
        pthread_sigmask(SIG_BLOCK, NULL, &after);
        snprintf(expected, sizeof expected, "thread %u of 7 could not be started: error %d", k + 1, EAGAIN);
        assert_string_equal(error.message, expected);
        assert_null(pool);
        for (int number = 1; number < SIGRTMAX; number++)
            assert_int_equal(sigismember(&before, number), sigismember(&after, number));
        test_memory_check(&memory);
    }
    system_calls.pthread_create = NULL;
}

/* In a process of its own, which may not have the address space for 512 stacks. */
static int create_without_room(void) {
    struct rlimit limit = {256U << 20, 256U << 20};
    struct test_memory memory;
    struct pool *pool = NULL;
    resnet_error error = {RESNET_OK, ""};
    test_memory_init(&memory, 0);
    if (setrlimit(RLIMIT_AS, &limit) != 0 ||
        mmap(NULL, 512U << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        return 77; /* an emulator does not hold its guest to the limit */
    const struct pool_options options = {.parts = 512, .threads = 512};
    resnet_status status = pool_create(&pool, &options, &memory.allocator, &error);
    bool right = status == RESNET_ERROR_THREAD && error.status == status && strstr(error.message, "of 511") && !pool &&
                 !memory.live_blocks && !memory.fault;
    return right ? 0 : 1;
}

static void test_no_threads(void **state) {
    (void)state;
    if (TEST_SANITIZED) /* their shadow memory needs the address space */
        skip();
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(create_without_room());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_index_once),
        cmocka_unit_test(test_parts_are_shared),
        cmocka_unit_test(test_parts_run_at_the_same_time),
        cmocka_unit_test(test_slow_threads),
        cmocka_unit_test(test_idle_pool_sleeps),
        cmocka_unit_test(test_free_at_any_time),
        cmocka_unit_test(test_external_pool),
        cmocka_unit_test(test_signals_are_for_the_caller),
        cmocka_unit_test(test_inherited_pool),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_each_thread_fails_to_start),
        cmocka_unit_test(test_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
