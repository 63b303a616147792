/* system_calls.c - calls to the system that a test answers itself. */
#define _GNU_SOURCE /* cpu_set_t */
#include "system_calls.h"

struct system_calls system_calls;

/* The linker's names for them (--wrap). */
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_pread(int descriptor, void *bytes, size_t size, off_t offset);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_sched_getaffinity(pid_t process, size_t size, cpu_set_t *set);
long __wrap_sysconf(int name);

/* Neither the library nor a test that is linked so creates a file by it: no mode. */
int __wrap_open(const char *path, int flags, ...) {
    return system_calls.open ? system_calls.open(path, flags) : __real_open(path, flags);
}

ssize_t __wrap_pread(int descriptor, void *bytes, size_t size, off_t offset) {
    return system_calls.pread ? system_calls.pread(descriptor, bytes, size, offset)
                              : __real_pread(descriptor, bytes, size, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    return system_calls.pthread_create ? system_calls.pthread_create(thread, attributes, start, argument)
                                       : __real_pthread_create(thread, attributes, start, argument);
}

int __wrap_sched_getaffinity(pid_t process, size_t size, cpu_set_t *set) {
    return system_calls.sched_getaffinity ? system_calls.sched_getaffinity(process, size, set)
                                          : __real_sched_getaffinity(process, size, set);
}

long __wrap_sysconf(int name) {
    return system_calls.sysconf ? system_calls.sysconf(name) : __real_sysconf(name);
}
