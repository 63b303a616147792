/* bench_machine.c - what the machine can do at most: products a second, and bytes read a second from each cache. */
#define _DEFAULT_SOURCE /* madvise */
#include "bench_machine.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "system.h"

#define TRIES        3         /* the best of them: a roof is a roof */
#define TRY_SECONDS  0.005     /* of reading */
#define CLOCK_BYTES  (1 << 20) /* read between two looks at the clock */
#define LEAST_MEMORY 64e6      /* bytes that no cache holds, where its size is not known to be larger */
#define MOST_MEMORY  1e9
#define PAGE         ((size_t)2 << 20) /* of huge pages, which the library's own memory comes in, too */

/* ---- Products ---- */

struct product_job {
    resnet_isa isa;
    resnet_precision precision;
    double *rates; /* [threads] */
};

static void measure_products(void *job_, uint32_t thread) {
    struct product_job *job = job_;
    resnet_peak(job->isa, job->precision, &job->rates[thread], NULL);
}

static double sum_of(const double *values, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

static double best_products(resnet_isa isa, resnet_precision precision, uint32_t threads) {
    struct product_job job = {isa, precision, allocate(threads, sizeof *job.rates)};
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
        run_on_threads(threads, measure_products, &job);
        best = fmax(best, sum_of(job.rates, threads));
    }
    free(job.rates);
    return best > 0 ? best : (double)NAN; /* the reference executor has none */
}

/* ---- Reading ---- */

/* As wide as a cache line: one load in AVX-512, several in other instruction sets. */
typedef uint64_t line __attribute__((vector_size(64)));

/* `count` is a multiple of 4: four sums, so that none waits for the one before. */
static inline __attribute__((always_inline)) uint64_t sum_lines(const line *lines, size_t count) {
    line sums[4] = {{0}};
    for (size_t i = 0; i < count; i += 4)
        for (size_t j = 0; j < 4; j++)
            sums[j] += lines[i + j];
    sums[0] += sums[1] + sums[2] + sums[3];
    uint64_t sum = 0;
    for (size_t i = 0; i < 8; i++)
        sum += sums[0][i];
    return sum;
}

static uint64_t sum_plain(const line *lines, size_t count) {
    return sum_lines(lines, count);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const line *lines, size_t count) {
    return sum_lines(lines, count);
}

__attribute__((target("avx512f"))) static uint64_t sum_avx512(const line *lines, size_t count) {
    return sum_lines(lines, count);
}
#endif

typedef uint64_t sum_function(const line *lines, size_t count);

/* The widest loads that there are, whatever instruction set the network computes with. */
static sum_function *widest_sum(void) {
#if defined(__x86_64__)
    if (resnet_isa_check(RESNET_ISA_AVX512, NULL) == RESNET_OK)
        return sum_avx512;
    if (resnet_isa_check(RESNET_ISA_AVX2, NULL) == RESNET_OK)
        return sum_avx2;
#endif
    return sum_plain;
}

struct read_job {
    sum_function *sum;
    size_t lines;   /* each thread's, a multiple of 4 */
    line **buffers; /* [threads] */
    double *rates;  /* [threads] */
};

/* Touched by the thread that reads it, for machines whose memory is nearer to some cores; not zero, for pages of zeros
 * may be one and the same. */
static void fill_buffer(void *job_, uint32_t thread) {
    struct read_job *job = job_;
    size_t bytes = (job->lines * sizeof(line) + PAGE - 1) / PAGE * PAGE;
    void *buffer = NULL;
    if (posix_memalign(&buffer, PAGE, bytes) != 0)
        return;
#if defined(MADV_HUGEPAGE)
    madvise(buffer, bytes, MADV_HUGEPAGE);
#endif
    memset(buffer, 1, job->lines * sizeof(line));
    job->buffers[thread] = buffer;
}

static void measure_reading(void *job_, uint32_t thread) {
    struct read_job *job = job_;
    size_t bytes = job->lines * sizeof(line), passes = bytes < CLOCK_BYTES ? CLOCK_BYTES / bytes : 1;
    volatile uint64_t sink;
    double read = 0, start = now(), seconds = 0;
    for (; job->buffers[thread] && seconds < TRY_SECONDS; seconds = now() - start, read += (double)(passes * bytes))
        for (size_t i = 0; i < passes; i++)
            sink = job->sum(job->buffers[thread], job->lines);
    (void)sink;
    job->rates[thread] = seconds > 0 ? read / seconds : 0;
}

static double best_reading(double bytes, uint32_t threads) {
    struct read_job job = {.sum = widest_sum(),
                           .lines = (size_t)(bytes / threads / sizeof(line)) / 4 * 4,
                           .buffers = allocate(threads, sizeof *job.buffers),
                           .rates = allocate(threads, sizeof *job.rates)};
    double best = 0;
    run_on_threads(threads, fill_buffer, &job);
    for (int i = 0; i < TRIES; i++) {
        run_on_threads(threads, measure_reading, &job);
        best = fmax(best, sum_of(job.rates, threads));
    }
    for (uint32_t i = 0; i < threads; i++)
        free(job.buffers[i]);
    free(job.buffers);
    free(job.rates);
    return best > 0 ? best : (double)NAN;
}

/* ---- Caches ---- */

static bool read_line(const char *path, char *text, int size) {
    FILE *file = fopen(path, "r");
    bool good = file && fgets(text, size, file);
    if (file)
        fclose(file);
    return good;
}

/* Linux: the size in bytes of the first core's cache of `level` (1..3) that is not for instructions, or 0. */
static double size_in_sys(int level) {
    for (int i = 0; i < 8; i++) {
        char path[96], text[32], kind[32], unit = 0;
        double size;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (!read_line(path, text, sizeof text) || strtol(text, NULL, 10) != level)
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        if (!read_line(path, kind, sizeof kind) || strncmp(kind, "Instruction", 11) == 0)
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        if (read_line(path, text, sizeof text) && sscanf(text, "%lf%c", &size, &unit) == 2)
            return size * (unit == 'M' ? 1 << 20 : 1 << 10);
    }
    return 0;
}

/* Bytes of one cache of this level; 0 where there is none. */
static double cache_size(enum level level) {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    static const int names[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
    long told = sysconf(names[level]);
    if (told > 0)
        return (double)told;
#endif
    static const double usual[] = {32 << 10, 512 << 10, 0};
    double size = size_in_sys((int)level + 1);
    return size > 0 ? size : usual[level];
}

/* The first two levels are each core's own, the third is shared. */
static void find_capacities(double capacity[LEVELS], uint32_t cores) {
    capacity[LEVEL_L1] = cores * cache_size(LEVEL_L1);
    capacity[LEVEL_L2] = cores * cache_size(LEVEL_L2);
    capacity[LEVEL_L3] = cache_size(LEVEL_L3);
    capacity[LEVEL_MEMORY] = (double)INFINITY;
}

/* Bytes to read, all threads together, so that they come from this level; 0 where there is no such level. */
static double probe_size(const double capacity[LEVELS], enum level level) {
    if (level == LEVEL_MEMORY)
        return fmin(fmax(2 * fmax(capacity[LEVEL_L2], capacity[LEVEL_L3]), LEAST_MEMORY), MOST_MEMORY);
    double before = level == LEVEL_L1 ? 0 : capacity[level - 1];
    return capacity[level] > before ? (capacity[level] + before) / 2 : 0;
}

/* More threads than cores give no more, and measure the scheduler. */
static uint32_t cores_for(uint32_t threads) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && (uint32_t)online < threads ? (uint32_t)online : threads;
}

void machine_measure(struct machine *machine, resnet_isa isa, uint32_t threads) {
    uint32_t cores = cores_for(threads);
    find_capacities(machine->capacity, cores);
    for (int i = 0; i < LEVELS; i++) {
        double bytes = probe_size(machine->capacity, (enum level)i);
        machine->read[i] = bytes > 0 ? best_reading(bytes, cores) : (double)NAN;
    }
    machine->operations[RESNET_PRECISION_AUTO] = (double)NAN;
    for (int i = RESNET_PRECISION_F32; i <= RESNET_PRECISION_BF16X3; i++)
        machine->operations[i] = best_products(isa, (resnet_precision)i, cores);
}

double machine_bandwidth(const struct machine *machine, double bytes) {
    int level = LEVEL_L1;
    while (level < LEVEL_MEMORY && !(machine->capacity[level] >= bytes && machine->read[level] > 0))
        level++;
    return machine->read[level];
}
