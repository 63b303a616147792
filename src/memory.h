/* memory.h - every allocation of the library: the caller's allocator or the system's, and arithmetic that cannot wrap.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>

#include "resnet.h"

/* What a model file and a session may ask for is compared with limits of its own, which 32 bits do not hold. */
_Static_assert(sizeof(size_t) >= 8, "libresnet needs a 64-bit machine");

#define ALIGNMENT 64 /* a cache line, and the widest vector */

/* The allocator that `chosen` names, or, where it is NULL, the system's: aligned, in huge pages for large blocks. */
resnet_allocator memory_allocator(const resnet_allocator *chosen);

/* `size` bytes at a multiple of ALIGNMENT, or NULL. The content is undefined. Size 0 gives a valid pointer. */
void *memory_get(const resnet_allocator *allocator, size_t size);

/* Give back what memory_get returned for the same size. NULL is allowed. */
void memory_put(const resnet_allocator *allocator, void *memory, size_t size);

/* An array in a block: `pointer` is where its address goes. */
struct array {
    void *pointer;
    size_t count, size; /* of an element */
};

/* One block of zeros for all of these arrays, `*size` bytes, or NULL; each starts at a multiple of ALIGNMENT. */
void *memory_get_arrays(const resnet_allocator *allocator, const struct array *arrays, size_t count, size_t *size);

/* a * b and a + b; false, with *result untouched, where they do not fit. */
bool multiply(size_t a, size_t b, size_t *result);
bool add(size_t a, size_t b, size_t *result);

/* The next multiple of ALIGNMENT; the caller has made sure that it fits. */
static inline size_t align_up(size_t n) {
    return (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

#endif
