/* cpu.c - what this machine can do, and how much of it this process may use. Compiled without instruction-set flags. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT, syscall */
#include "cpu.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#endif

#include "error.h"

static const char *const isa_names[] = {"auto", "reference", "scalar", "neon", "avx2", "avx512", "amx"};
#define ISAS (sizeof isa_names / sizeof *isa_names)
static const char *const precision_names[] = {"auto", "f32", "bf16", "int8", "bf16x3"};
#define PRECISIONS (sizeof precision_names / sizeof *precision_names)

const char *resnet_isa_name(resnet_isa isa) {
    return (unsigned)isa < ISAS ? isa_names[isa] : "unknown";
}

const char *resnet_precision_name(resnet_precision precision) {
    return (unsigned)precision < PRECISIONS ? precision_names[precision] : "unknown";
}

/* ---- Kernel sets ---- */

static const struct kernel_set scalar = {RESNET_ISA_SCALAR, {&f32_scalar, NULL, &u8_scalar}, {&winograd_scalar}};

#if defined(__x86_64__)
static const struct kernel_set avx2 = {RESNET_ISA_AVX2, {&f32_avx2, NULL, &u8_avx2}, {&winograd_avx2}};
static const struct kernel_set avx2_vnni = {RESNET_ISA_AVX2, {&f32_avx2, NULL, &u8_avx2_vnni}, {&winograd_avx2}};
static const struct kernel_set avx512 = {RESNET_ISA_AVX512, {&f32_avx512, NULL, &u8_avx2}, {&winograd_avx512}};
static const struct kernel_set avx512_vnni = {RESNET_ISA_AVX512, {&f32_avx512, NULL, &u8_avx512}, {&winograd_avx512}};
static const struct kernel_set avx512_bf16 = {
    RESNET_ISA_AVX512, {&f32_avx512, &bf16_avx512, &u8_avx512}, {&winograd_avx512, &winograd_bf16_avx512}};
static const struct kernel_set amx = {RESNET_ISA_AMX, {&f32_avx512, &bf16_amx, &u8_amx}, {&winograd_avx512}};

#if defined(__linux__)
/* Neither compiler's own detection knows AMX: leaf 7 names the three parts that the kernels use. */
static bool cpu_has_amx(void) {
    unsigned eax, ebx, ecx, edx;
    const unsigned amx_bf16 = 1U << 22, amx_tile = 1U << 24, amx_int8 = 1U << 25, all = amx_bf16 | amx_tile | amx_int8;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & all) == all;
}

/* Whether the system saves the tiles (XCR0) and lets this process use them, which it must ask for: asking again does no
 * harm. Other systems have no such question. */
static bool may_use_tiles(void) {
    const long request_permission = 0x1023, tile_data = 18;
    const unsigned both = 3U << 17; /* tile configuration and data */
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & both) == both && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
static bool cpu_has_amx(void) {
    return false;
}
static bool may_use_tiles(void) {
    return false;
}
#endif

/* Not every compiler's own detection knows AVX-VNNI. */
static bool cpu_has_avx_vnni(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1U << 4);
}

/* The best that a CPU with AVX-512 has. */
static const struct kernel_set *best_avx512(bool tiles) {
    if (!__builtin_cpu_supports("avx512vnni"))
        return &avx512;
    if (!__builtin_cpu_supports("avx512bf16"))
        return &avx512_vnni;
    return tiles && cpu_has_amx() && may_use_tiles() ? &amx : &avx512_bf16;
}

/* The best that this CPU has, `wanted` at the most. What it has is asked once for each load; the answer takes the
 * operating system's support into account. */
static const struct kernel_set *best_kernels(resnet_isa wanted) {
    __builtin_cpu_init();
    if (wanted != RESNET_ISA_AVX2 && wanted != RESNET_ISA_SCALAR && __builtin_cpu_supports("avx512f"))
        return best_avx512(wanted == RESNET_ISA_AUTO || wanted == RESNET_ISA_AMX);
    if (wanted != RESNET_ISA_SCALAR && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return cpu_has_avx_vnni() ? &avx2_vnni : &avx2;
    return &scalar;
}
#elif defined(__aarch64__)
static const struct kernel_set neon = {RESNET_ISA_NEON, {&f32_neon, NULL, &u8_neon}, {&winograd_neon}};

#if defined(__linux__)
static const struct kernel_set neon_dot = {RESNET_ISA_NEON, {&f32_neon, NULL, &u8_neon_dot}, {&winograd_neon}};
static const struct kernel_set neon_i8mm = {RESNET_ISA_NEON, {&f32_neon, NULL, &u8_neon_i8mm}, {&winograd_neon}};
static const struct kernel_set neon_bf16 = {RESNET_ISA_NEON, {&f32_neon, &bf16_neon, &u8_neon_i8mm}, {&winograd_neon}};

/* ARMv8.2 brought dot products; i8mm and bf16 came together in most CPUs. */
static const struct kernel_set *best_neon(void) {
    unsigned long features = getauxval(AT_HWCAP), more = getauxval(AT_HWCAP2);
    if (!(more & HWCAP2_I8MM))
        return features & HWCAP_ASIMDDP ? &neon_dot : &neon;
    return more & HWCAP2_BF16 ? &neon_bf16 : &neon_i8mm;
}
#else
static const struct kernel_set *best_neon(void) {
    return &neon;
}
#endif

static const struct kernel_set *best_kernels(resnet_isa wanted) {
    return wanted == RESNET_ISA_SCALAR ? &scalar : best_neon(); /* every AArch64 CPU has NEON */
}
#else
static const struct kernel_set *best_kernels(resnet_isa wanted) {
    (void)wanted;
    return &scalar;
}
#endif

const struct kernel_set *cpu_kernels(resnet_isa isa) {
    const struct kernel_set *best = best_kernels(isa);
    return isa == RESNET_ISA_AUTO || isa == best->isa ? best : NULL;
}

enum format cpu_format(const struct kernel_set *kernels, resnet_precision precision) {
    if (precision == RESNET_PRECISION_INT8)
        return FORMAT_U8;
    return precision == RESNET_PRECISION_BF16 && kernels->formats[FORMAT_BF16] ? FORMAT_BF16 : FORMAT_F32;
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

/* ---- Threads ---- */

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
    unsigned long cpus = quota / period + (quota % period != 0);
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
