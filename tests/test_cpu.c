/* test_cpu.c - which kernels there are here, and how many threads this process may run at once. */
#define _GNU_SOURCE /* sched_setaffinity, CPU_COUNT */
#include "cpu.h"

#include <sched.h>
#include <string.h>

#include "support.h"

static const resnet_isa isas[] = {RESNET_ISA_AUTO, RESNET_ISA_REFERENCE, RESNET_ISA_SCALAR,
                                  RESNET_ISA_NEON, RESNET_ISA_AVX2,      RESNET_ISA_AVX512};

static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"auto", "reference", "scalar", "neon", "avx2", "avx512"};
    for (size_t i = 0; i < COUNT(isas); i++)
        assert_string_equal(resnet_isa_name(isas[i]), names[i]);
    assert_string_equal(resnet_isa_name((resnet_isa)COUNT(isas)), "unknown");
    assert_string_equal(resnet_isa_name((resnet_isa)-1), "unknown");
}

static void test_kernel_sets(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(isas); i++) {
        const struct kernel_set *set = cpu_kernels(isas[i]);
        if (!set)
            continue;
        assert_true(set->isa == isas[i] || isas[i] == RESNET_ISA_AUTO);
        assert_true(set->mr > 0 && set->nr > 0);
        assert_true(set->conv_tile && set->max_window && set->mean_window && set->fma_rounds);
    }
    assert_null(cpu_kernels(RESNET_ISA_REFERENCE));
    assert_non_null(cpu_kernels(RESNET_ISA_SCALAR)); /* runs everywhere */
}

/* AUTO is the best, and the enumeration goes from plain to wide. */
static void test_auto_is_the_best(void **state) {
    (void)state;
    const struct kernel_set *best = NULL;
    for (unsigned isa = RESNET_ISA_SCALAR; isa <= RESNET_ISA_AVX512; isa++)
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
    assert_int_equal(cpu_kernels(RESNET_ISA_NEON) != NULL, HAS_NEON);
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
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_kernel_sets),
        cmocka_unit_test(test_auto_is_the_best),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_detection),
        cmocka_unit_test(test_threads_follow_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
