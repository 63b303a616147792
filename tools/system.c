/* system.c - what the commands need of the operating system: memory, the clock, threads. */
#define _POSIX_C_SOURCE 200809L
#include "system.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "commands.h"
#include "text.h"

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        complain("out of memory: %zu times %zu bytes were refused", count, size);
        exit(EXIT_IO);
    }
    return memory;
}

char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    return memcpy(allocate(size, 1), text, size);
}

/* Not open_memstream, which loses bytes in silence where it is refused the memory for more. */
char *print_to_memory(void (*print)(const void *context, FILE *out), const void *context, size_t *size) {
    for (size_t room = 1 << 16;; room *= 2) {
        char *text = allocate(room, 1);
        FILE *memory = fmemopen(text, room, "w");
        if (!memory) {
            complain("out of memory: that of a record was refused");
            exit(EXIT_IO);
        }
        print(context, memory);
        int fits = fflush(memory) == 0 && !ferror(memory);
        long end = ftell(memory);
        fclose(memory);
        if (fits && end >= 0 && (size_t)end < room) {
            char *trimmed = realloc(text, (size_t)end + 1);
            *size = (size_t)end;
            return trimmed ? trimmed : text;
        }
        free(text);
    }
}

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What Linux says of this process: "VmRSS:" and the like. */
static double status_bytes(const char *field) {
    double kib = 0;
    char line[128];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = strtod(line + strlen(field), NULL);
    if (status)
        fclose(status);
    return 1024 * kib;
}

double resident_bytes(void) {
    return status_bytes("VmRSS:");
}

/* On Linux, getrusage's figure would count the process that started this one, too. */
double peak_resident_bytes(void) {
    struct rusage usage;
    double bytes = status_bytes("VmHWM:");
    return bytes == 0 && getrusage(RUSAGE_SELF, &usage) == 0 ? 1024 * (double)usage.ru_maxrss : bytes;
}

struct job {
    void (*task)(void *argument, uint32_t i);
    void *argument;
    uint32_t i;
    pthread_t thread;
    bool started;
};

static void *run_job(void *job_) {
    struct job *job = job_;
    job->task(job->argument, job->i);
    return NULL;
}

void run_on_threads(uint32_t count, void (*task)(void *argument, uint32_t i), void *argument) {
    struct job *jobs = allocate(count, sizeof *jobs);
    for (uint32_t i = 0; i < count; i++) {
        jobs[i] = (struct job){.task = task, .argument = argument, .i = i};
        jobs[i].started = i + 1 < count && pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]) == 0;
    }
    for (uint32_t i = 0; i < count; i++) /* the caller's own, and any that the system refused a thread */
        if (!jobs[i].started)
            run_job(&jobs[i]);
    for (uint32_t i = 0; i < count; i++)
        if (jobs[i].started)
            pthread_join(jobs[i].thread, NULL);
    free(jobs);
}
