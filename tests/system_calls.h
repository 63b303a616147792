/*
 * system_calls.h - calls to the system that a test answers itself. Programs that CMakeLists.txt links so call these
 * wherever they, or the library in them, name the functions.
 */
#ifndef SYSTEM_CALLS_H
#define SYSTEM_CALLS_H

#include <pthread.h>
#include <sched.h>
#include <sys/types.h>

/* Set one while nothing of the library's runs; NULL: the system answers. */
struct system_calls {
    int (*open)(const char *path, int flags);
    ssize_t (*pread)(int descriptor, void *bytes, size_t size, off_t offset);
    int (*pthread_create)(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
    int (*sched_getaffinity)(pid_t process, size_t size, cpu_set_t *set);
    long (*sysconf)(int name);
};
extern struct system_calls system_calls;

/* The system's own. */
int __real_open(const char *path, int flags, ...);
ssize_t __real_pread(int descriptor, void *bytes, size_t size, off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __real_sched_getaffinity(pid_t process, size_t size, cpu_set_t *set);
long __real_sysconf(int name);

#endif
