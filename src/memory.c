/* memory.c - every allocation of the library: the caller's allocator or the system's, and arithmetic that cannot wrap.
 */
#define _DEFAULT_SOURCE /* madvise */
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Blocks of at least two huge pages come straight from the system, at a huge page's boundary; weights and activations
 * in huge pages cost a few per cent less time than in small ones, and go back to the system when freed. */
#define HUGE_PAGE  ((size_t)2 << 20)
#define HUGE_BLOCK (2 * HUGE_PAGE)

#ifdef MADV_HUGEPAGE
static void ask_for_huge_pages(void *memory, size_t size) {
    (void)madvise(memory, size, MADV_HUGEPAGE); /* a wish: nothing depends on the answer */
}
#else
static void ask_for_huge_pages(void *memory, size_t size) {
    (void)memory, (void)size;
}
#endif

static void *system_allocate(void *context, size_t size) {
    (void)context;
    void *memory = NULL;
    size_t alignment = size >= HUGE_BLOCK ? HUGE_PAGE : ALIGNMENT;
    if (posix_memalign(&memory, alignment, size ? size : 1))
        return NULL;
    if (size >= HUGE_BLOCK)
        ask_for_huge_pages(memory, size);
    return memory;
}

static void system_release(void *context, void *memory, size_t size) {
    (void)context, (void)size;
    free(memory);
}

resnet_allocator memory_allocator(const resnet_allocator *chosen) {
    static const resnet_allocator system_allocator = {system_allocate, system_release, NULL};
    return chosen ? *chosen : system_allocator;
}

void *memory_get(const resnet_allocator *allocator, size_t size) {
    return allocator->allocate(allocator->context, size ? size : 1);
}

void memory_put(const resnet_allocator *allocator, void *memory, size_t size) {
    if (memory)
        allocator->release(allocator->context, memory, size ? size : 1);
}

bool multiply(size_t a, size_t b, size_t *result) {
    return !__builtin_mul_overflow(a, b, result);
}

bool add(size_t a, size_t b, size_t *result) {
    return !__builtin_add_overflow(a, b, result);
}

/* The size of the arrays so far, each rounded up; SIZE_MAX where it does not fit. */
static size_t arrays_size(const struct array *arrays, size_t count) {
    size_t all = 0, bytes;
    for (size_t i = 0; i < count; i++)
        if (!multiply(arrays[i].count, arrays[i].size, &bytes) || !add(bytes, ALIGNMENT - 1, &bytes) ||
            !add(all, bytes & ~(size_t)(ALIGNMENT - 1), &all))
            return SIZE_MAX;
    return all;
}

void *memory_get_arrays(const resnet_allocator *allocator, const struct array *arrays, size_t count, size_t *size) {
    *size = arrays_size(arrays, count);
    uint8_t *block = *size < SIZE_MAX ? memory_get(allocator, *size) : NULL;
    if (!block)
        return NULL;
    memset(block, 0, *size);
    for (size_t i = 0; i < count; i++) {
        void *address = block + arrays_size(arrays, i);
        memcpy(arrays[i].pointer, &address, sizeof address);
    }
    return block;
}
