/* system.h - what the commands need of the operating system: memory, the clock, threads. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Zeroed memory for `count` things of `size` bytes; where there is none, the program says so and ends. */
void *allocate(size_t count, size_t size);
char *copy_text(const char *text);

/* What `print` prints, all of it or the program ends; owned by the caller. It may be called more than once, and must
 * print the same. */
char *print_to_memory(void (*print)(const void *context, FILE *out), const void *context, size_t *size);

/* Seconds since some fixed moment. */
double now(void);

/* The memory that the process has resident now, and the most that it has had so far, in bytes; 0 where that is not
 * known. */
double resident_bytes(void);
double peak_resident_bytes(void);

/* Call task(argument, i) for each 0 <= i < count, each on a thread of its own, the last on the caller's; return when
 * all have returned. */
void run_on_threads(uint32_t count, void (*task)(void *argument, uint32_t i), void *argument);

#endif
