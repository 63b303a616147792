/* cpu.c - what this machine can do, and how much of it this process may use. Compiled without instruction-set flags. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#include "cpu.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"

static const char *const isa_names[] = {"auto", "reference", "scalar", "neon", "avx2", "avx512"};
#define ISAS (sizeof isa_names / sizeof *isa_names)

const char *resnet_isa_name(resnet_isa isa) {
    return (unsigned)isa < ISAS ? isa_names[isa] : "unknown";
}

/* Best first. What a CPU has is asked once for each load; the answer takes the operating system's support into account.
 */
#if defined(__x86_64__)
static const struct kernel_set *best_kernels(resnet_isa wanted) {
    __builtin_cpu_init();
    if (wanted != RESNET_ISA_AVX2 && wanted != RESNET_ISA_SCALAR && __builtin_cpu_supports("avx512f"))
        return &kernels_avx512;
    if (wanted != RESNET_ISA_SCALAR && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &kernels_avx2;
    return &kernels_scalar;
}
#elif defined(__aarch64__)
static const struct kernel_set *best_kernels(resnet_isa wanted) {
    return wanted == RESNET_ISA_SCALAR ? &kernels_scalar : &kernels_neon; /* every AArch64 CPU has NEON */
}
#else
static const struct kernel_set *best_kernels(resnet_isa wanted) {
    (void)wanted;
    return &kernels_scalar;
}
#endif

const struct kernel_set *cpu_kernels(resnet_isa isa) {
    const struct kernel_set *best = best_kernels(isa);
    return isa == RESNET_ISA_AUTO || isa == best->isa ? best : NULL;
}

static void list_isas(char *text, size_t size) {
    size_t used = 0;
    for (unsigned i = RESNET_ISA_REFERENCE; i < ISAS; i++)
        if ((i == RESNET_ISA_REFERENCE || cpu_kernels((resnet_isa)i)) && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", isa_names[i]);
}

resnet_status resnet_isa_check(resnet_isa isa, resnet_error *error) {
    if ((unsigned)isa >= ISAS)
        return fail(error, RESNET_ERROR_ARGUMENT, "instruction set %u does not exist", (unsigned)isa);
    if (isa == RESNET_ISA_AUTO || isa == RESNET_ISA_REFERENCE || cpu_kernels(isa))
        return RESNET_OK;
    char here[64] = "";
    list_isas(here, sizeof here);
    return fail(error, RESNET_ERROR_UNSUPPORTED, "this CPU has no %s; it has %s", isa_names[isa], here);
}

#if defined(__linux__)
static uint32_t affinity_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than the set holds */
    return online > 0 ? (uint32_t)online : 1;
}
#else
static uint32_t affinity_count(void) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (uint32_t)online : 1;
}
#endif

static bool read_text(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t got = read(file, text, size - 1);
    close(file);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* "max 100000" (no limit) or "QUOTA PERIOD" in microseconds; how many CPUs that is, rounded up, or `most`. */
static uint32_t quota_in(const char *path, uint32_t most) {
    char text[64];
    unsigned long quota, period;
    if (!read_text(path, text, sizeof text) || sscanf(text, "%lu %lu", &quota, &period) != 2 || !period || !quota)
        return most;
    unsigned long cpus = (quota + period - 1) / period;
    return cpus < most ? (uint32_t)cpus : most;
}

/* The quotas of this process's cgroup (version 2: the line that begins with "0::") and of all above it. */
static uint32_t cgroup_limit(uint32_t most) {
    char own[4096], path[4096 + 32];
    if (!read_text("/proc/self/cgroup", own, sizeof own))
        return most;
    const char *line = strncmp(own, "0::/", 4) == 0 ? own : strstr(own, "\n0::/");
    if (!line)
        return most;
    char *group = strchr(line, '/');
    group[strcspn(group, "\n")] = '\0';
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        most = quota_in(path, most);
        char *slash = strrchr(group, '/');
        if (!slash)
            return most;
        *slash = '\0';
    }
}

uint32_t cpu_threads(void) {
    return cgroup_limit(affinity_count());
}
