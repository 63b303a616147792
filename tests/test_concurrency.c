/*
 * test_concurrency.c - sessions in the midst of what else a program does: threads that load and free, forks, signals,
 * numbers and buffers of the caller's own making; the bits of the results stay what they are, and so does what is the
 * caller's.
 */
#define _GNU_SOURCE /* sigaction, setitimer, CPU_SET */
#include <errno.h>
#include <fenv.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/personality.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sessions.h"
#include "system_calls.h"

/* A machine on which sessions start the threads that they are told to. */
static int allow_16(pid_t process, size_t size, cpu_set_t *set) {
    (void)process;
    memset(set, 0, size);
    for (size_t cpu = 0; cpu < 16; cpu++)
        CPU_SET(cpu, set);
    return 0;
}

/* Two stages on a few pixels. */
static resnet_config few_pixels(resnet_precision precision) {
    resnet_config config = test_stored_in(test_odd_config(), precision);
    config.blocks[0] = config.blocks[1] = 1;
    config.blocks[2] = config.blocks[3] = 0;
    config.height = 12;
    config.width = 10;
    config.classes = 3;
    return config;
}

static struct test_bytes file_of(const resnet_config *config) {
    struct test_random random = {5};
    return test_model_file(config, &(struct test_content){.fill = test_fill_random, .context = &random});
}

/* A caller's pool of no threads. */
static void in_order(void *context, uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    (void)context;
    for (uint32_t i = 0; i < count; i++)
        task(argument, i);
}

/* Whether slot 0 gives what image `image` gives alone. Without cmocka's assertions, which belong to the main thread of
 * the first process. */
static bool gives(const struct fixture *f, resnet_session *session, uint32_t image) {
    float logits[MOST_CLASSES];
    const float *values = f->images + image * f->image;
    return resnet_session_set_floats(session, 0, values, RESNET_NHWC, NULL) == RESNET_OK &&
           resnet_session_run(session, 1, logits, NULL) == RESNET_OK &&
           memcmp(logits, f->logits[image], f->classes * sizeof *logits) == 0;
}

/* ---- Other threads ---- */

/* Runs until it is told to stop, and once at least. */
struct runner {
    const struct fixture *fixture;
    pthread_t thread;
    atomic_bool runs, stop; /* `runs`: it has its session, and will start no more threads */
    bool equal;
};

static void *run_on(void *argument) {
    struct runner *runner = argument;
    resnet_session_options options = options_for(runner->fixture->model, 1, 2);
    resnet_session *session;
    uint32_t runs = 0;
    runner->equal = resnet_session_create(runner->fixture->model, &options, &session, NULL) == RESNET_OK;
    atomic_store(&runner->runs, true);
    while (runner->equal && (runs == 0 || !atomic_load(&runner->stop)))
        runner->equal = gives(runner->fixture, session, runs++ % MOST_BATCH);
    resnet_session_free(session);
    return NULL;
}

static void start_runner(struct runner *runner, const struct fixture *f) {
    *runner = (struct runner){.fixture = f};
    assert_int_equal(pthread_create(&runner->thread, NULL, run_on, runner), 0);
    while (!atomic_load(&runner->runs))
        sched_yield();
}

static void stop_runner(struct runner *runner) {
    atomic_store(&runner->stop, true);
    assert_int_equal(pthread_join(runner->thread, NULL), 0);
    assert_true(runner->equal);
}

/* Loads the model anew, runs and frees it, again and again. */
struct loader {
    const struct fixture *fixture;
    const struct test_bytes *bytes;
    bool equal;
};

static bool live_once(const struct fixture *f, const struct test_bytes *bytes) {
    resnet_load_options options = {.isa = isa, .threads = 2};
    resnet_model *model;
    resnet_session *session = NULL;
    bool equal = resnet_model_load_memory(bytes->data, bytes->size, &options, &model, NULL) == RESNET_OK &&
                 resnet_session_create(model, &(resnet_session_options){.threads = 2}, &session, NULL) == RESNET_OK &&
                 gives(f, session, 0);
    resnet_session_free(session);
    resnet_model_free(model);
    return equal;
}

static void *load_on(void *argument) {
    struct loader *loader = argument;
    loader->equal = true;
    for (int i = 0; loader->equal && i < (test_quick() ? 10 : 50); i++)
        loader->equal = live_once(loader->fixture, loader->bytes);
    return NULL;
}

static struct fixture loaded_fixture(const struct test_bytes *bytes) {
    resnet_model *model;
    resnet_error error;
    resnet_load_options options = {.isa = isa};
    assert_status(RESNET_OK, resnet_model_load_memory(bytes->data, bytes->size, &options, &model, &error), &error);
    return fixture_of(model, NULL);
}

static void check_loading(resnet_precision precision) {
    enum { RUNNERS = 3, LOADERS = 2 };
    resnet_config config = few_pixels(precision);
    struct test_bytes bytes = file_of(&config);
    struct fixture f = loaded_fixture(&bytes);
    struct runner runners[RUNNERS];
    struct loader loaders[LOADERS];
    pthread_t threads[LOADERS];
    for (int i = 0; i < RUNNERS; i++)
        start_runner(&runners[i], &f);
    for (int i = 0; i < LOADERS; i++) {
        loaders[i] = (struct loader){&f, &bytes, false};
        assert_int_equal(pthread_create(&threads[i], NULL, load_on, &loaders[i]), 0);
    }
    for (int i = 0; i < LOADERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(loaders[i].equal);
    }
    for (int i = 0; i < RUNNERS; i++)
        stop_runner(&runners[i]);
    free_fixture(&f);
    test_bytes_free(&bytes);
}

static void test_models_come_and_go(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++)
        check_loading(precisions[p]);
}

/* ---- Fork ---- */

/* Sessions of one thread, of a pool of ours, of the caller's pool. */
struct family {
    struct fixture fixture;
    struct test_bytes bytes;
    resnet_session *sessions[3];
};

static void make_family(struct family *family) {
    resnet_config config = few_pixels(RESNET_PRECISION_F32);
    family->bytes = file_of(&config);
    family->fixture = loaded_fixture(&family->bytes);
    const resnet_session_options options[] = {{.threads = 1}, {.threads = 5}, {.threads = 5, .parallel_for = in_order}};
    for (size_t i = 0; i < COUNT(options); i++)
        family->sessions[i] = open_session(family->fixture.model, &options[i]);
}

static bool all_give(const struct family *family) {
    bool equal = true;
    for (uint32_t i = 0; i < COUNT(family->sessions); i++)
        equal = equal && gives(&family->fixture, family->sessions[i], i);
    return equal;
}

static void free_family(struct family *family) {
    for (size_t i = 0; i < COUNT(family->sessions); i++)
        resnet_session_free(family->sessions[i]);
    free_fixture(&family->fixture);
    test_bytes_free(&family->bytes);
}

/* What the child does; 0: all of it went well. */
static int inherit(struct family *family) {
    bool equal = all_give(family) && live_once(&family->fixture, &family->bytes) && all_give(family);
    free_family(family);
    return equal ? 0 : 1;
}

/* Within a minute: one that waits for a lock that nobody will open is killed, since an emulator may not let it be
 * interrupted. */
static bool ends_well(pid_t child) {
    int status;
    pid_t ended = 0;
    for (int i = 0; i < 60000 && (ended = waitpid(child, &status, WNOHANG)) == 0; i++)
        usleep(1000);
    if (ended == 0) {
        kill(child, SIGKILL);
        ended = waitpid(child, &status, 0);
    }
    assert_int_equal(ended, child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void *do_nothing(void *argument) {
    return argument;
}

/* Neither the thread sanitizer nor every emulator lets the child of a process of several threads start one. */
static bool child_may_start_threads(void) {
    pthread_t thread;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(pthread_create(&thread, NULL, do_nothing, NULL) == 0 && pthread_join(thread, NULL) == 0 ? 0 : 1);
    return ends_well(child);
}

static void fork_once(struct family *family) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(inherit(family));
    assert_true(all_give(family)); /* at the same time */
    assert_true(ends_well(child));
}

/* While another thread runs a session, whose locks are not the child's. */
static void test_fork(void **state) {
    (void)state;
    struct family family;
    struct runner runner;
    system_calls.sched_getaffinity = allow_16;
    make_family(&family);
    start_runner(&runner, &family.fixture);
    bool may = child_may_start_threads();
    for (int i = 0; may && i < (test_quick() ? 3 : 20); i++)
        fork_once(&family);
    stop_runner(&runner);
    free_family(&family);
    system_calls.sched_getaffinity = NULL;
    if (!may)
        skip();
}

/* ---- Signals ---- */

static volatile sig_atomic_t alarms;
static volatile double disturbance = 1;

/* As a handler of somebody's who calculates. */
static void disturb(int number) {
    (void)number;
    alarms = alarms + 1;
    disturbance = disturbance * 1.25 > 1e300 ? 1 : disturbance * 1.25;
}

static void every_microseconds(long period) {
    const struct timeval time = {.tv_usec = period};
    setitimer(ITIMER_REAL, &(struct itimerval){time, time}, NULL);
}

/* From the file to the logits of a picture. */
static bool picture_gives(const char *path, const uint8_t *pixels, float *logits) {
    resnet_load_options load = {.isa = isa, .threads = 2};
    resnet_model *model;
    resnet_session *session = NULL;
    bool fine = resnet_model_load_file(path, &load, &model, NULL) == RESNET_OK &&
                resnet_session_create(model, &(resnet_session_options){.threads = 2}, &session, NULL) == RESNET_OK &&
                resnet_session_set_rgb(session, 0, pixels, 41, 37, 0, NULL, NULL) == RESNET_OK &&
                resnet_session_run(session, 1, logits, NULL) == RESNET_OK;
    resnet_session_free(session);
    resnet_model_free(model);
    return fine;
}

static void check_signals(const char *path, int flags) {
    uint8_t pixels[41 * 37 * 3];
    float expected[MOST_CLASSES] = {0}, logits[MOST_CLASSES] = {0};
    struct sigaction before, disturbing = {.sa_handler = disturb, .sa_flags = flags};
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * i / 7);
    assert_true(picture_gives(path, pixels, expected));
    sigaction(SIGALRM, &disturbing, &before);
    alarms = 0;
    every_microseconds(100);
    bool equal = true;
    for (int i = 0; equal && (i < 10 || (i < 1000 && alarms < (test_quick() ? 50 : 500))); i++) {
        equal = picture_gives(path, pixels, logits) && memcmp(logits, expected, sizeof logits) == 0;
        memset(logits, 0, sizeof logits);
    }
    every_microseconds(0);
    sigaction(SIGALRM, &before, NULL);
    assert_true(equal);
}

static void test_signals_in_the_middle(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        char path[] = "/tmp/test_concurrency_XXXXXX";
        resnet_config config = few_pixels(precisions[p]);
        struct test_bytes bytes = file_of(&config);
        int descriptor = mkstemp(path);
        assert_true(descriptor >= 0 && write(descriptor, bytes.data, bytes.size) == (ssize_t)bytes.size);
        close(descriptor);
        check_signals(path, 0);
        check_signals(path, SA_RESTART);
        assert_int_equal(unlink(path), 0);
        test_bytes_free(&bytes);
    }
}

/* ---- What is the caller's ---- */

#if defined(__x86_64__)
#include <xmmintrin.h>
struct floating {
    uint32_t mxcsr;
    uint16_t x87_control, x87_status;
};
static struct floating floating_now(void) {
    struct floating now = {.mxcsr = _mm_getcsr()};
    __asm__ volatile("fnstcw %0" : "=m"(now.x87_control));
    __asm__ volatile("fnstsw %0" : "=m"(now.x87_status));
    return now;
}
static void flush_denormals(void) {
    _mm_setcsr(_mm_getcsr() | 0x8040U);
}
/* Any inexact sum of the library's in this state would end the process. */
static void trap_all(void) {
    _mm_setcsr(_mm_getcsr() & ~0x1fbfU);
}
static void round_x87_to_floats(void) {
    const uint16_t control = 0x007f; /* sums of 24 bits, to nearest */
    __asm__ volatile("fldcw %0" : : "m"(control));
}
#else
struct floating {
    fenv_t environment;
};
static struct floating floating_now(void) {
    struct floating now;
    memset(&now, 0, sizeof now);
    fegetenv(&now.environment);
    return now;
}
static void flush_denormals(void) {}
static void trap_all(void) {}
static void round_x87_to_floats(void) {}
#endif

static void usual(void) {}

static void round_up(void) {
    fesetround(FE_UPWARD);
}

static void raise_flags(void) {
    feraiseexcept(FE_DIVBYZERO | FE_UNDERFLOW);
}

static void (*const settings[])(void) = {usual, round_up, raise_flags, flush_denormals, trap_all, round_x87_to_floats};

#define SIGNALS 64

/* All that a process has which a call might change. */
struct surroundings {
    struct floating floating;
    sigset_t mask;
    void (*handlers[SIGNALS + 1])(int);
};

/* The floating-point state comes last when it is set, and first when it is looked at. */
static void look_around(struct surroundings *s) {
    s->floating = floating_now();
    pthread_sigmask(SIG_BLOCK, NULL, &s->mask);
    for (int i = 1; i <= SIGNALS; i++) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        s->handlers[i] = sigaction(i, NULL, &action) == 0 ? action.sa_handler : NULL;
    }
}

static void check_surroundings(const struct surroundings *before, const char *call) {
    struct surroundings after;
    look_around(&after);
    fesetenv(FE_DFL_ENV);
    if (memcmp(&after.floating, &before->floating, sizeof after.floating) != 0)
        fail_msg("%s changed the floating-point environment", call);
    for (int i = 1; i <= SIGNALS; i++)
        if (after.handlers[i] != before->handlers[i] || sigismember(&after.mask, i) != sigismember(&before->mask, i))
            fail_msg("%s changed what signal %d does", call, i);
}

/* Whatever errno holds from before. */
#define assert_untouched(set, call)                                                                                    \
    do {                                                                                                               \
        struct surroundings before_;                                                                                   \
        fesetenv(FE_DFL_ENV);                                                                                          \
        (set)();                                                                                                       \
        look_around(&before_);                                                                                         \
        errno = EINTR;                                                                                                 \
        resnet_status status_ = (call);                                                                                \
        check_surroundings(&before_, #call);                                                                           \
        assert_int_equal(status_, RESNET_OK);                                                                          \
    } while (0)

/* A BMP of 2 x 2 pixels. */
static const uint8_t bmp[70] = {
    'B', 'M', 70, 0, 0, 0, 0,  0,         0,        0,   54, 0,  0, 0, 40, 0, 0,   0, 2, 0,  0,  0,
    2,   0,   0,  0, 1, 0, 24, [34] = 16, [54] = 9, 200, 30, 77, 1, 2, 0,  0, 255, 3, 5, 80, 90, 66};

static void check_model_calls(void (*set)(void), const struct test_bytes *bytes) {
    resnet_config config;
    resnet_model *model;
    resnet_layer layer;
    char path[] = "/tmp/test_concurrency_XXXXXX";
    resnet_load_options load = {.isa = isa, .threads = 2};
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0 && write(descriptor, bytes->data, bytes->size) == (ssize_t)bytes->size);
    close(descriptor);
    assert_untouched(set, resnet_isa_check(isa, NULL));
    assert_untouched(set, resnet_config_preset("resnet50d", &config, NULL));
    assert_untouched(set, resnet_model_load_file(path, &load, &model, NULL));
    assert_untouched(set, resnet_model_layer(model, 1, 0, 0, &layer, NULL));
    config = resnet_model_describe(model).config;
    assert_untouched(set, (resnet_model_free(model), RESNET_OK));
    assert_untouched(set, resnet_model_random(&config, 1, &load, &model, NULL));
    resnet_model_free(model);
    assert_int_equal(unlink(path), 0);
}

static resnet_request everything(float *results) {
    enum { ROOM = 20000 };
    resnet_request request = {.logits = results, .embedding = results + ROOM, .cam = results + 2 * ROOM};
    for (size_t s = 0; s < 2; s++)
        request.maps[s] = results + (3 + s) * ROOM;
    return request;
}

static void check_session_calls(void (*set)(void), const struct fixture *f) {
    static float results[5 * 20000];
    uint8_t pixels[9 * 7 * 3] = {50, 70, 200, 0, 255};
    size_t bytes;
    resnet_map map;
    resnet_session *session;
    resnet_session_options options = options_for(f->model, 1, 3);
    resnet_request request = everything(results);
    assert_untouched(set, resnet_session_memory(f->model, &options, &bytes, NULL));
    assert_untouched(set, resnet_session_create(f->model, &options, &session, NULL));
    assert_untouched(set, resnet_session_map(session, 0, &map, NULL));
    assert_untouched(set, resnet_session_set_rgb(session, 0, pixels, 9, 7, 0, NULL, NULL));
    assert_untouched(set, resnet_session_set_image_memory(session, 0, bmp, sizeof bmp, NULL, NULL));
    assert_untouched(set, resnet_session_set_floats(session, 0, f->images, RESNET_NHWC, NULL));
    assert_untouched(set, resnet_session_run(session, 1, results, NULL));
    assert_memory_equal(results, f->logits[0], f->classes * sizeof *results);
    assert_untouched(set, resnet_run(session, 1, &request, NULL));
    assert_memory_equal(results, f->logits[0], f->classes * sizeof *results);
    assert_untouched(set, (resnet_session_free(session), RESNET_OK));
}

static void check_teach_calls(void (*set)(void), const struct fixture *f) {
    enum { COUNT_ = 12, MOST_FEATURES = 128 };
    static float embeddings[COUNT_ * MOST_FEATURES];
    uint32_t classes[COUNT_], features = resnet_model_describe(f->model).features;
    struct test_random random = {3};
    resnet_model *model;
    assert_true(features <= MOST_FEATURES);
    for (uint32_t i = 0; i < COUNT_ * features; i++)
        embeddings[i] = test_float(&random, 0, 1);
    for (uint32_t i = 0; i < COUNT_; i++)
        classes[i] = i % 2;
    const resnet_examples examples = {.count = COUNT_, .embeddings = embeddings, .classes = classes};
    const resnet_teach_options options = {.classes = 2, .threads = 2};
    assert_untouched(set, resnet_teach(f->model, &examples, &options, &model, NULL));
    resnet_model_free(model);
}

static void test_surroundings(void **state) {
    (void)state;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        resnet_config config = few_pixels(precisions[p]);
        struct test_bytes bytes = file_of(&config);
        struct fixture f = loaded_fixture(&bytes);
        for (size_t i = 0; i < COUNT(settings); i++) {
            check_model_calls(settings[i], &bytes);
            check_session_calls(settings[i], &f);
            check_teach_calls(settings[i], &f);
        }
        free_fixture(&f);
        test_bytes_free(&bytes);
    }
}

/* ---- Denormal numbers ---- */

/* One basic block behind a 3x3 of weights of `first`, no biases, so that what the 3x3 gives goes through the shortcut.
 */
struct few_weights {
    struct test_random random;
    float first;
};

static float fill_first(void *context, const struct test_tensor *tensor, size_t element) {
    struct few_weights *weights = context;
    if (strcmp(tensor->name, "weight") == 0)
        return strcmp(tensor->node->name, "conv1") == 0 ? weights->first
                                                        : test_fill_random(&weights->random, tensor, element);
    return strcmp(tensor->name, "scale") == 0 || strcmp(tensor->name, "variance") == 0 ? 1 : 0;
}

static resnet_model *first_times(float first, resnet_precision precision) {
    resnet_config config = few_pixels(precision);
    struct few_weights weights = {{1}, first};
    config.stem = RESNET_STEM_CIFAR;
    config.blocks[1] = 0;
    config.height = config.width = 24;
    struct test_bytes bytes = test_model_file(&config, &(struct test_content){.fill = fill_first, .context = &weights});
    resnet_model *model;
    resnet_error error;
    resnet_load_options options = {.isa = isa};
    assert_status(RESNET_OK, resnet_model_load_memory(bytes.data, bytes.size, &options, &model, &error), &error);
    test_bytes_free(&bytes);
    return model;
}

/* How many numbers behind the block are not 0, for an image of `number` alone. */
static uint32_t not_zero(const resnet_model *model, const resnet_session_options *options, float number) {
    static float values[24 * 24 * 3], map[24 * 24 * 64];
    resnet_session *session = open_session(model, options);
    resnet_map shape;
    uint32_t others = 0;
    for (size_t i = 0; i < COUNT(values); i++)
        values[i] = number;
    set_slot(session, 0, values);
    assert_int_equal(resnet_session_map(session, 0, &shape, NULL), RESNET_OK);
    uint32_t count = shape.channels * shape.height * shape.width;
    assert_true(count <= COUNT(map));
    assert_int_equal(resnet_run(session, 1, &(resnet_request){.maps = {map}}, NULL), RESNET_OK);
    for (uint32_t i = 0; i < count; i++)
        others += map[i] != 0;
    resnet_session_free(session);
    return others;
}

/* A caller's pool that starts a thread for each part, in the usual state. */
static void thread_each(void *context, uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    pthread_t threads[16];
    struct job jobs[16];
    (void)context;
    assert_true(count <= COUNT(threads));
    for (uint32_t i = 0; i < count; i++) {
        jobs[i] = (struct job){task, argument, i};
        assert_int_equal(pthread_create(&threads[i], NULL, do_job, &jobs[i]), 0);
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* Products and inputs that are denormal are 0 in every thread, ours or the caller's: a core would take a hundred times
 * as long for them. */
static void test_denormals_are_zeros_in_every_thread(void **state) {
    (void)state;
    static const struct {
        float weight, number;
        bool zero;
    } cases[] = {{1e-10F, 1e-10F, false}, {1e-20F, 1e-20F, true}, {1e20F, 1e-40F, true}};
    static const resnet_session_options options[] = {
        {.threads = 1}, {.threads = 8}, {.threads = 8, .parallel_for = thread_each}};
    system_calls.sched_getaffinity = allow_16;
    for (resnet_precision p = RESNET_PRECISION_F32; p <= RESNET_PRECISION_BF16; p++)
        for (size_t c = 0; c < COUNT(cases); c++) {
            resnet_model *model = first_times(cases[c].weight, p);
            for (size_t i = 0; i < COUNT(options); i++) {
                uint32_t others = not_zero(model, &options[i], cases[c].number);
                assert_true(cases[c].zero ? others == 0 : others > 0);
            }
            resnet_model_free(model);
        }
    system_calls.sched_getaffinity = NULL;
}

/* ---- The same bits ---- */

/* All of them with the smallest network: with parts that the caller runs, and some with threads of our own. */
static void check_threads_and_batches(resnet_precision precision) {
    struct fixture f = fixture_of(model_of(test_stored_in(test_tiny_config(), precision), 0), NULL);
    for (uint32_t threads = 1; threads <= 64; threads += test_quick() ? 9 : 1)
        for (uint32_t batch = 1; batch <= MOST_SLOTS; batch += test_quick() ? 5 : 1) {
            resnet_session_options options = options_for(f.model, batch, threads);
            options.parallel_for = in_order;
            check_session(&f, &options);
            options.parallel_for = NULL;
            if (batch == 1 + threads % MOST_SLOTS)
                check_session(&f, &options);
        }
    free_fixture(&f);
}

/* The caller's buffers at every multiple of their element's size, a thousand times. */
static void check_alignments(const struct fixture *f) {
    enum { STEPS = 16 };
    resnet_session_options options = options_for(f->model, 2, 2);
    resnet_session *session = open_session(f->model, &options);
    float *input = malloc((f->image + STEPS) * sizeof *input), logits[2 * MOST_CLASSES + STEPS];
    assert_non_null(input);
    for (uint32_t i = 0; i < (test_quick() ? 50 : 1000); i++) {
        float *from = input + i % STEPS, *to = logits + i / STEPS % STEPS;
        memcpy(from, f->images + i % MOST_BATCH * f->image, f->image * sizeof *from);
        set_slot(session, i % 2, from);
        memset(from, 0xff, f->image * sizeof *from); /* NaN: the session has its own */
        run(session, 2, to);
        check_logits(f, to + i % 2 * f->classes, i % MOST_BATCH, 1);
    }
    free(input);
    resnet_session_free(session);
}

/* Rows of a picture at any address, any number of bytes apart. */
static void check_pictures(const struct fixture *f) {
    enum { WIDTH = 13, HEIGHT = 11, STEPS = 8 };
    static uint8_t room[STEPS + HEIGHT * (3 * WIDTH + STEPS)];
    float expected[MOST_CLASSES], logits[MOST_CLASSES];
    resnet_session_options options = options_for(f->model, 1, 2);
    resnet_session *session = open_session(f->model, &options);
    for (uint32_t i = 0; i < STEPS * STEPS; i++) {
        size_t stride = 3 * WIDTH + i / STEPS;
        for (size_t j = 0; j < HEIGHT * 3 * WIDTH; j++)
            room[i % STEPS + j / (3 * WIDTH) * stride + j % (3 * WIDTH)] = (uint8_t)(j * j / 5);
        resnet_status status = resnet_session_set_rgb(session, 0, room + i % STEPS, WIDTH, HEIGHT, stride, NULL, NULL);
        assert_int_equal(status, RESNET_OK);
        run(session, 1, i ? logits : expected);
        if (i)
            assert_memory_equal(logits, expected, f->classes * sizeof *logits);
    }
    resnet_session_free(session);
}

/* Memory at any multiple of 64, rather than where the system has it. */
struct shifted {
    size_t shift;
};

static void *allocate_shifted(void *context, size_t size) {
    const struct shifted *shifted = context;
    uint8_t *block = NULL;
    if (posix_memalign((void **)&block, 4096, size + shifted->shift))
        return NULL;
    return block + shifted->shift;
}

static void release_shifted(void *context, void *memory, size_t size) {
    const struct shifted *shifted = context;
    (void)size;
    free((uint8_t *)memory - shifted->shift);
}

static void check_addresses(const struct fixture *f, const struct test_bytes *bytes) {
    for (size_t line = 0; line < 64; line += test_quick() ? 9 : 1) {
        struct shifted shifted = {.shift = 64 * line};
        const resnet_allocator allocator = {allocate_shifted, release_shifted, &shifted};
        resnet_load_options load = {.isa = isa, .allocator = &allocator};
        struct fixture g = *f;
        assert_int_equal(resnet_model_load_memory(bytes->data, bytes->size, &load, &g.model, NULL), RESNET_OK);
        resnet_session_options options = options_for(g.model, 3, 2);
        check_session(&g, &options);
        resnet_model_free(g.model);
    }
}

static void test_the_same_bits(void **state) {
    (void)state;
    system_calls.sched_getaffinity = allow_16;
    for (size_t p = 0; p < COUNT(precisions); p++) {
        resnet_config config = few_pixels(precisions[p]);
        struct test_bytes bytes = file_of(&config);
        struct fixture f = loaded_fixture(&bytes);
        check_threads_and_batches(precisions[p]);
        check_alignments(&f);
        check_pictures(&f);
        check_addresses(&f, &bytes);
        free_fixture(&f);
        test_bytes_free(&bytes);
    }
    system_calls.sched_getaffinity = NULL;
}

/* ---- Processes ---- */

/* Write to a file what images give in each precision. */
static void write_logits(FILE *file) {
    for (size_t p = 0; p < COUNT(precisions); p++) {
        resnet_config config = few_pixels(precisions[p]);
        struct test_bytes bytes = file_of(&config);
        struct fixture f = loaded_fixture(&bytes);
        assert_int_equal(fwrite(f.logits, sizeof f.logits, 1, file), 1);
        free_fixture(&f);
        test_bytes_free(&bytes);
    }
}

/* This program once more, for its logits alone, at random addresses or always the same. Code 77: it cannot be. */
static void become_another(int output, bool random_addresses) {
    char *const arguments[] = {"test_concurrency", "logits", NULL};
    int persona = personality(0xffffffff);
    if (persona < 0 || (!random_addresses && personality((unsigned long)persona | ADDR_NO_RANDOMIZE) < 0))
        _exit(77);
    dup2(output, STDOUT_FILENO);
    execv("/proc/self/exe", arguments);
    _exit(77); /* as under an emulator */
}

/* What another process writes, for free; NULL where there is none. */
static uint8_t *logits_of_another(bool random_addresses, size_t size) {
    int status;
    FILE *file = tmpfile();
    uint8_t *bytes = malloc(size + 1);
    assert_true(file && bytes);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        become_another(fileno(file), random_addresses);
    assert_int_equal(waitpid(child, &status, 0), child);
    rewind(file);
    size_t got = fread(bytes, 1, size + 1, file);
    fclose(file);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 0) {
        assert_int_equal(got, size);
        return bytes;
    }
    assert_int_equal(WEXITSTATUS(status), 77);
    free(bytes);
    return NULL;
}

static void test_other_processes(void **state) {
    (void)state;
    size_t size;
    char *expected;
    resnet_model *model = model_of(few_pixels(RESNET_PRECISION_F32), 0);
    FILE *file = open_memstream(&expected, &size);
    setenv("RESNET_TEST_ISA", resnet_isa_name(resnet_model_describe(model).isa), 1); /* not what AUTO is there */
    resnet_model_free(model);
    assert_non_null(file);
    write_logits(file);
    fclose(file);
    int compared = 0;
    for (int i = 0; i < (test_quick() ? 2 : 10); i++) {
        uint8_t *logits = logits_of_another(i % 2, size);
        compared += logits != NULL;
        if (logits)
            assert_memory_equal(logits, expected, size);
        free(logits);
    }
    free(expected);
    if (!compared)
        skip();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models_come_and_go),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_signals_in_the_middle),
        cmocka_unit_test(test_surroundings),
        cmocka_unit_test(test_denormals_are_zeros_in_every_thread),
        cmocka_unit_test(test_the_same_bits),
        cmocka_unit_test(test_other_processes),
    };
    isa = test_isa();
    if (argc == 2 && strcmp(argv[1], "logits") == 0) {
        write_logits(stdout);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
