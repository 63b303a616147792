/* test_cpu.c - which kernels there are here, and how many threads this process may run at once. */
#define _GNU_SOURCE /* sched_setaffinity, CPU_COUNT, syscall */
#include "cpu.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#endif

#include "support.h"
#include "system_calls.h"

static const resnet_isa isas[] = {RESNET_ISA_AUTO, RESNET_ISA_REFERENCE, RESNET_ISA_SCALAR, RESNET_ISA_NEON,
                                  RESNET_ISA_AVX2, RESNET_ISA_AVX512,    RESNET_ISA_AMX};

static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"auto", "reference", "scalar", "neon", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < COUNT(isas); i++)
        assert_string_equal(resnet_isa_name(isas[i]), names[i]);
    assert_string_equal(resnet_isa_name((resnet_isa)COUNT(isas)), "unknown");
    assert_string_equal(resnet_isa_name((resnet_isa)-1), "unknown");
}

static void check_format(const struct format_kernels *kernels) {
    assert_true(kernels->mr > 0 && kernels->nr > 0 && kernels->nr % 4 == 0);
    assert_true(kernels->conv_tile && kernels->max_window && kernels->mean_window && kernels->dot_rounds);
    assert_true(kernels->ops_a_round > 0);
}

static void test_kernel_sets(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(isas); i++) {
        const struct kernel_set *set = cpu_kernels(isas[i]);
        if (!set)
            continue;
        assert_true(set->isa == isas[i] || isas[i] == RESNET_ISA_AUTO);
        assert_true(set->formats[FORMAT_F32] && set->formats[FORMAT_U8] && set->winograd[FORMAT_F32]);
        for (enum format format = FORMAT_F32; format < FORMATS; format++)
            if (set->formats[format])
                check_format(set->formats[format]);
    }
    assert_null(cpu_kernels(RESNET_ISA_REFERENCE));
    assert_non_null(cpu_kernels(RESNET_ISA_SCALAR)); /* runs everywhere */
}

/* int8 is always u8; bf16 falls back to f32 where that is as fast. */
static void test_formats(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(isas); i++) {
        const struct kernel_set *set = cpu_kernels(isas[i]);
        if (!set)
            continue;
        enum format bf16 = set->formats[FORMAT_BF16] ? FORMAT_BF16 : FORMAT_F32;
        assert_int_equal(cpu_format(set, RESNET_PRECISION_F32), FORMAT_F32);
        assert_int_equal(cpu_format(set, RESNET_PRECISION_BF16X3), FORMAT_F32);
        assert_int_equal(cpu_format(set, RESNET_PRECISION_BF16), bf16);
        assert_int_equal(cpu_format(set, RESNET_PRECISION_INT8), FORMAT_U8);
    }
}

/* AUTO is the best, and the enumeration goes from plain to wide. */
static void test_auto_is_the_best(void **state) {
    (void)state;
    const struct kernel_set *best = NULL;
    for (unsigned isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AMX; isa++)
        best = cpu_kernels((resnet_isa)isa) ? cpu_kernels((resnet_isa)isa) : best;
    assert_ptr_equal(cpu_kernels(RESNET_ISA_AUTO), best);
}

static void test_check(void **state) {
    (void)state;
    resnet_error error;
    for (size_t i = 0; i < COUNT(isas); i++) {
        bool here = cpu_kernels(isas[i]) || isas[i] == RESNET_ISA_REFERENCE;
        assert_status(here ? RESNET_OK : RESNET_ERROR_UNSUPPORTED, resnet_isa_check(isas[i], &error), &error);
        assert_int_equal(resnet_isa_check(isas[i], NULL), here ? RESNET_OK : RESNET_ERROR_UNSUPPORTED);
        for (size_t j = 1; !here && j < COUNT(isas); j++) /* the message names those that can */
            if (resnet_isa_check(isas[j], NULL) == RESNET_OK)
                assert_non_null(strstr(error.message, resnet_isa_name(isas[j])));
    }
    assert_status(RESNET_ERROR_ARGUMENT, resnet_isa_check((resnet_isa)COUNT(isas), &error), &error);
    assert_status(RESNET_ERROR_ARGUMENT, resnet_isa_check((resnet_isa)-1, &error), &error);
}

/* What the compiler's own detection says of the CPU, which also asks the system for the wide registers. */
#if defined(__x86_64__)
static void test_detection(void **state) {
    (void)state;
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    assert_int_equal(cpu_kernels(RESNET_ISA_AVX2) != NULL, avx2);
    assert_int_equal(cpu_kernels(RESNET_ISA_AVX512) != NULL, __builtin_cpu_supports("avx512f") != 0);
    assert_null(cpu_kernels(RESNET_ISA_NEON));
}
#else
#if defined(__aarch64__)
#define HAS_NEON true /* every one of them */
#else
#define HAS_NEON false
#endif
static void test_detection(void **state) {
    (void)state;
    assert_null(cpu_kernels(RESNET_ISA_AVX2));
    assert_null(cpu_kernels(RESNET_ISA_AVX512));
    assert_null(cpu_kernels(RESNET_ISA_AMX));
    assert_int_equal(cpu_kernels(RESNET_ISA_NEON) != NULL, HAS_NEON);
}
#endif

#if defined(__x86_64__) && defined(__linux__)
/* The kernel lists AMX of a CPU that it runs it on; and a process may use the tiles once it has them from cpu_kernels.
 */
static void test_amx(void **state) {
    (void)state;
    const long get_permission = 0x1022; /* arch_prctl's ARCH_GET_XCOMP_PERM: a mask of what may be used */
    char line[8192];
    bool listed = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    assert_non_null(file);
    while (!listed && fgets(line, sizeof line, file))
        listed = strstr(line, " amx_tile") && strstr(line, " amx_int8") && strstr(line, " amx_bf16");
    fclose(file);
    const struct kernel_set *set = cpu_kernels(RESNET_ISA_AMX);
    if (!listed)
        assert_null(set);
    if (!set)
        return; /* what is listed may still be refused, in a sandbox */
    uint64_t permitted = 0;
    assert_int_equal(syscall(SYS_arch_prctl, get_permission, &permitted), 0);
    assert_true(permitted >> 18 & 1);
    assert_ptr_equal(cpu_kernels(RESNET_ISA_AMX), set);
    assert_ptr_not_equal(cpu_kernels(RESNET_ISA_AVX512), set);
}
#else
static void test_amx(void **state) {
    (void)state;
    assert_null(cpu_kernels(RESNET_ISA_AMX));
}
#endif

#if defined(__linux__)
static void test_threads_follow_affinity(void **state) {
    (void)state;
    cpu_set_t before, one;
    if (sched_getaffinity(0, sizeof before, &before) != 0)
        skip();
    uint32_t all = cpu_threads();
    assert_true(all >= 1 && all <= (uint32_t)CPU_COUNT(&before));
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        skip();
    uint32_t pinned = cpu_threads();
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(pinned, 1);
    assert_int_equal(cpu_threads(), all);
}

/* ---- Other machines ---- */

/* What the files of a machine hold; NULL: it can be opened, not read. */
struct made_up {
    const char *path, *content;
};

static const struct made_up *machine; /* until a path is NULL */

static int open_made_up(const char *path, int flags) {
    const struct made_up *file = machine;
    while (file->path && strcmp(file->path, path) != 0)
        file++;
    errno = ENOENT;
    if (!file->path)
        return -1;
    if (!file->content)
        return __real_open("/", flags);
    int ends[2];
    ssize_t length = (ssize_t)strlen(file->content);
    assert_true(pipe(ends) == 0 && write(ends[1], file->content, (size_t)length) == length);
    close(ends[1]);
    return ends[0];
}

static int allow_16(pid_t process, size_t size, cpu_set_t *set) {
    (void)process;
    memset(set, 0, size);
    for (size_t cpu = 0; cpu < 32; cpu += 2)
        CPU_SET(cpu, set);
    return 0;
}

static uint32_t threads_of(const struct made_up *files) {
    machine = files;
    system_calls = (struct system_calls){.open = open_made_up, .sched_getaffinity = allow_16};
    uint32_t threads = cpu_threads();
    system_calls = (struct system_calls){0};
    return threads;
}

#define OWN  "/proc/self/cgroup"
#define MAX  "/sys/fs/cgroup/cpu.max"
#define MAX1 "/sys/fs/cgroup/a/cpu.max"
#define MAX2 "/sys/fs/cgroup/a/b c/cpu.max"

static void test_threads_follow_quotas(void **state) {
    (void)state;
    static const struct {
        struct made_up files[5];
        uint32_t threads;
    } machines[] = {
        {{{NULL, NULL}}, 16},
        {{{OWN, NULL}}, 16},
        {{{OWN, ""}}, 16},
        {{{OWN, "0::/\n"}}, 16},
        {{{OWN, "0::/\n"}, {MAX, "300000 100000\n"}}, 3},
        {{{OWN, "0::/"}, {MAX, "300000 100000"}}, 3},
        {{{OWN, "0::/a/b c\n"}, {MAX2, "150000 100000\n"}}, 2},                            /* rounded up */
        {{{OWN, "0::/a/b c\n"}, {MAX2, "10 100000\n"}}, 1},                                /* at least 1 */
        {{{OWN, "0::/a/b c\n"}, {MAX2, "max 100000\n"}, {MAX1, "400000 100000\n"}}, 4},    /* inherited */
        {{{OWN, "0::/a/b c\n"}, {MAX2, "200000 100000\n"}, {MAX, "5000000 100000\n"}}, 2}, /* the least */
        {{{OWN, "0::/a/b c\n"}, {MAX2, "9000000 100000\n"}}, 16},                          /* more than CPUs */
        {{{OWN, "12:cpu:/a\n1:name=systemd:/\n0::/a\n"}, {MAX1, "200000 100000\n"}}, 2},   /* both versions */
        {{{OWN, "12:cpu:/a\n"}, {MAX1, "200000 100000\n"}, {MAX, "100000 100000\n"}}, 16}, /* version 1 */
        {{{OWN, "0::/a\n"}, {MAX1, NULL}, {MAX, "700000 100000\n"}}, 7},
        {{{OWN, "0::/a\n"}, {MAX1, "0 100000\n"}}, 16},
        {{{OWN, "0::/a\n"}, {MAX1, "100000 0\n"}}, 16},
        {{{OWN, "0::/a\n"}, {MAX1, "100000\n"}}, 16},
        {{{OWN, "0::/a\n"}, {MAX1, "nonsense"}}, 16},
        {{{OWN, "0::/a\n"}, {MAX1, "-1 100000"}}, 16},
        {{{OWN, "0::/a\n"}, {MAX1, "18446744073709551615 3"}}, 16},
    };
    for (size_t i = 0; i < COUNT(machines); i++)
        if (threads_of(machines[i].files) != machines[i].threads)
            fail_msg("machine %zu has %u threads, not %u", i, threads_of(machines[i].files), machines[i].threads);
}

/* A path that is longer than what is read of it names another group, or none. */
static void test_a_long_path_of_a_group(void **state) {
    (void)state;
    static char line[6000] = "0::";
    const struct made_up files[] = {{OWN, line}, {MAX, "600000 100000"}, {NULL, NULL}};
    for (size_t i = 3; i < sizeof line - 1; i++)
        line[i] = i % 200 == 3 ? '/' : 'a';
    assert_int_equal(threads_of(files), 6);
}

static int allow_none(pid_t process, size_t size, cpu_set_t *set) {
    (void)process;
    memset(set, 0, size);
    return 0;
}

static int refuse_affinity(pid_t process, size_t size, cpu_set_t *set) {
    (void)process, (void)size, (void)set;
    errno = EINVAL; /* a kernel with more CPUs than the set has room for */
    return -1;
}

static long online;
static long tell_online(int name) {
    return name == _SC_NPROCESSORS_ONLN ? online : -1;
}

static void test_no_affinity(void **state) {
    (void)state;
    static const struct made_up nothing[] = {{NULL, NULL}};
    static const long answers[][2] = {{3000, 3000}, {1, 1}, {0, 1}, {-1, 1}};
    machine = nothing;
    for (size_t i = 0; i < 2 * COUNT(answers); i++) {
        online = answers[i / 2][0];
        system_calls = (struct system_calls){
            .open = open_made_up, .sched_getaffinity = i % 2 ? allow_none : refuse_affinity, .sysconf = tell_online};
        uint32_t threads = cpu_threads();
        system_calls = (struct system_calls){0};
        assert_int_equal(threads, answers[i / 2][1]);
    }
}
#else
static void test_threads_follow_affinity(void **state) {
    (void)state;
    assert_true(cpu_threads() >= 1);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_kernel_sets),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_auto_is_the_best),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_detection),
        cmocka_unit_test(test_amx),
        cmocka_unit_test(test_threads_follow_affinity),
#if defined(__linux__)
        cmocka_unit_test(test_threads_follow_quotas),
        cmocka_unit_test(test_a_long_path_of_a_group),
        cmocka_unit_test(test_no_affinity),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
