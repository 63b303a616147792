/*
 * amx_emulator.h - AMX instructions on an x86-64 Linux machine without AMX: each raises SIGILL, and a handler does what
 * Intel documents for it. So the machine code of the kernels is tested, its encoding and its tile configurations, too.
 */
#ifndef AMX_EMULATOR_H
#define AMX_EMULATOR_H

#include <stdbool.h>
#include <stdint.h>

/* What this thread has executed since it began. */
struct amx_counts {
    uint64_t configures, releases, loads, stores, products;
};

/* Emulate from now on, in all threads, where the CPU has no AMX; false where it has, and instructions execute. Call it
 * in each test: cmocka takes the signal for itself before one. What AMX would answer with an exception, and any other
 * illegal instruction, fails the test with a message. */
bool amx_emulate(void);

struct amx_counts amx_counts(void);

/* Whether this thread's tiles are configured: they must not be once a caller has control again. */
bool amx_configured(void);

#endif
