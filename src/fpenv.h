/*
 * fpenv.h - the floating-point environment that the library computes in: round to nearest, no traps.
 *
 * The kernels also flush denormals to zero: one such operand costs a core a hundred cycles and more, and means nothing
 * to a network. What the caller had set (rounding mode, sticky flags) is put back afterwards.
 */
#ifndef FPENV_H
#define FPENV_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

static inline uint64_t fpenv_enter(bool flush_denormals) {
    uint32_t before = _mm_getcsr();
    _mm_setcsr(0x1f80U | (flush_denormals ? 0x8040U : 0)); /* traps masked; results to zero, operands are zeros */
    __asm__ volatile("" : : : "memory");                   /* what follows is computed after this */
    return before;
}
static inline void fpenv_leave(uint64_t before) {
    __asm__ volatile("" : : : "memory");
    _mm_setcsr((uint32_t)before);
}
#elif defined(__aarch64__)
static inline uint64_t fpenv_enter(bool flush_denormals) {
    uint64_t control, flags, ours = (uint64_t)flush_denormals << 24;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    __asm__ volatile("msr fpcr, %0" : : "r"(ours) : "memory"); /* what follows is computed after this */
    return flags << 32 | (uint32_t)control;                    /* both have 32 bits */
}
static inline void fpenv_leave(uint64_t before) {
    __asm__ volatile("msr fpcr, %0" : : "r"(before & UINT32_MAX) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(before >> 32));
}
#else
static inline uint64_t fpenv_enter(bool flush_denormals) {
    (void)flush_denormals;
    return 0;
}
static inline void fpenv_leave(uint64_t before) {
    (void)before;
}
#endif

#endif
