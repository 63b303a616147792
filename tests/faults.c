/*
 * faults.c - a library for LD_PRELOAD under which a call to the system fails: the FAULT_AT-th of those named
 * FAULT_CALL, and, with FAULT_FOREVER set, all later ones. How many there were goes to the file FAULT_COUNT when the
 * program ends.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static const char *failing; /* NULL until main's libraries are there: nothing fails before */
static long at;
static int forever, kills;
static atomic_long calls;

__attribute__((constructor)) static void start(void) {
    const char *number = getenv("FAULT_AT");
    at = number ? strtol(number, NULL, 10) : 0;
    forever = getenv("FAULT_FOREVER") != NULL;
    kills = getenv("FAULT_KILL") != NULL;
    failing = getenv("FAULT_CALL");
}

__attribute__((destructor)) static void finish(void) {
    const char *name = getenv("FAULT_COUNT");
    char text[32];
    failing = NULL;
    int file = name ? open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (file >= 0 && write(file, text, (size_t)sprintf(text, "%ld", atomic_load(&calls))) > 0)
        close(file);
}

/* Whether this call is to fail; then errno says why. */
static int fails(const char *name, int reason) {
    if (!failing || strcmp(failing, name) != 0)
        return 0;
    long call = atomic_fetch_add(&calls, 1) + 1;
    if (!at || call < at || (call > at && !forever))
        return 0;
    if (kills)
        raise(SIGKILL);
    errno = reason;
    return 1;
}

/* The function that `name` is without this library. */
#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

/* ---- Memory, of any kind: "memory" ---- */

void *malloc(size_t size) {
    return fails("memory", ENOMEM) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return fails("memory", ENOMEM) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    return fails("memory", ENOMEM) ? NULL : __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return fails("memory", ENOMEM) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    if (fails("memory", ENOMEM))
        return ENOMEM;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

/* ---- Files: each by its name ---- */

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fails("open", EMFILE) ? -1 : REAL(open)(path, flags, mode);
}

ssize_t pread(int file, void *bytes, size_t size, off_t offset) {
    return fails("pread", EIO) ? -1 : REAL(pread)(file, bytes, size, offset);
}

FILE *fopen(const char *path, const char *mode) {
    return fails("fopen", EMFILE) ? NULL : REAL(fopen)(path, mode);
}

FILE *fdopen(int file, const char *mode) {
    return fails("fdopen", ENOMEM) ? NULL : REAL(fdopen)(file, mode);
}

size_t fread(void *bytes, size_t size, size_t count, FILE *file) {
    return fails("fread", EIO) ? 0 : REAL(fread)(bytes, size, count, file);
}

int fflush(FILE *file) {
    return fails("fflush", ENOSPC) ? EOF : REAL(fflush)(file);
}

int fsync(int file) {
    return fails("fsync", EIO) ? -1 : REAL(fsync)(file);
}

int fclose(FILE *file) {
    int failed = fails("fclose", EIO);
    int result = REAL(fclose)(file);
    errno = failed ? EIO : errno;
    return failed ? EOF : result;
}

int rename(const char *from, const char *to) {
    return fails("rename", EACCES) ? -1 : REAL(rename)(from, to);
}

/* ---- Threads ---- */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start_routine)(void *),
                   void *argument) {
    return fails("pthread_create", EAGAIN) ? EAGAIN : REAL(pthread_create)(thread, attributes, start_routine, argument);
}
