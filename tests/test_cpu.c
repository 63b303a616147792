/* test_cpu.c - which kernels there are here, and how many threads this process may run at once. */
#define _GNU_SOURCE /* sched_setaffinity, CPU_COUNT, syscall */
#include "cpu.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "support.h"

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
#else
static void test_threads_follow_affinity(void **state) {
    (void)state;
    assert_true(cpu_threads() >= 1);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),   cmocka_unit_test(test_kernel_sets),
        cmocka_unit_test(test_formats), cmocka_unit_test(test_auto_is_the_best),
        cmocka_unit_test(test_check),   cmocka_unit_test(test_detection),
        cmocka_unit_test(test_amx),     cmocka_unit_test(test_threads_follow_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
