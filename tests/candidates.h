/*
 * candidates.h - every table of kernels that this build has and this CPU can run, also where a better one would be
 * chosen (src/cpu.c).
 */
#ifndef CANDIDATES_H
#define CANDIDATES_H

#include <stdbool.h>
#include <stddef.h>

#include "cpu.h"

struct candidate {
    const char *name;
    enum format format;
    const struct format_kernels *kernels;
    const struct winograd_kernels *winograd; /* NULL: none */
};

#if defined(__x86_64__)
#include <cpuid.h>

/* The kernels for AVX-VNNI with the same instructions in the encoding of AVX-512, which more machines can run. */
extern const struct format_kernels u8_avx2_vnni_evex;

static inline bool cpu_has_avx_vnni(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 16);
}

#define CPU_HAS(feature) (__builtin_cpu_supports(feature) != 0)
#define AVX2             (CPU_HAS("avx2") && CPU_HAS("fma"))
#define AVX2_VNNI        (AVX2 && cpu_has_avx_vnni())
#define AVX512           CPU_HAS("avx512f")
#define AVX512_VNNI      (AVX512 && CPU_HAS("avx512vnni"))
#define AVX512_BF16      (AVX512 && CPU_HAS("avx512bf16"))
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

/* Call `test` for each of them. */
static inline void each_candidate(void (*test)(const struct candidate *candidate)) {
    const struct {
        struct candidate candidate;
        bool runs_here;
    } all[] = {
        {{"f32 scalar", FORMAT_F32, &f32_scalar, &winograd_scalar}, true},
        {{"u8 scalar", FORMAT_U8, &u8_scalar, NULL}, true},
#if defined(__x86_64__)
        {{"f32 avx2", FORMAT_F32, &f32_avx2, &winograd_avx2}, AVX2},
        {{"u8 avx2", FORMAT_U8, &u8_avx2, NULL}, AVX2},
        {{"u8 avx2 vnni", FORMAT_U8, &u8_avx2_vnni, NULL}, AVX2_VNNI},
        {{"u8 avx2 vnni, encoded as AVX-512", FORMAT_U8, &u8_avx2_vnni_evex, NULL}, AVX512_VNNI && CPU_HAS("avx512vl")},
        {{"f32 avx512", FORMAT_F32, &f32_avx512, &winograd_avx512}, AVX512},
        {{"u8 avx512", FORMAT_U8, &u8_avx512, NULL}, AVX512_VNNI},
        {{"bf16 avx512", FORMAT_BF16, &bf16_avx512, &winograd_bf16_avx512}, AVX512_BF16},
        {{"u8 amx", FORMAT_U8, &u8_amx, NULL}, cpu_kernels(RESNET_ISA_AMX) != NULL},
        {{"bf16 amx", FORMAT_BF16, &bf16_amx, NULL}, cpu_kernels(RESNET_ISA_AMX) != NULL},
#elif defined(__aarch64__)
        {{"f32 neon", FORMAT_F32, &f32_neon, &winograd_neon}, true},
        {{"u8 neon", FORMAT_U8, &u8_neon, NULL}, true},
        {{"u8 neon dot", FORMAT_U8, &u8_neon_dot, NULL}, getauxval(AT_HWCAP) & HWCAP_ASIMDDP},
        {{"u8 neon i8mm", FORMAT_U8, &u8_neon_i8mm, NULL}, getauxval(AT_HWCAP2) & HWCAP2_I8MM},
        {{"bf16 neon", FORMAT_BF16, &bf16_neon, NULL}, getauxval(AT_HWCAP2) & HWCAP2_BF16},
#endif
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].runs_here)
            test(&all[i].candidate);
}

#endif
