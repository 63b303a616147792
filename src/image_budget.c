/* image_budget.c - the memory of one call of a foreign decoder: counted, cleared, and taken back whatever it forgot. */
#include <string.h>

#include "error.h"
#include "image_parts.h"

#define SLACK ((size_t)32 << 20) /* tables, compressed data, padding of small pictures */

/* In front of each block. The list is there because decoders forget some blocks when they fail. */
struct block {
    struct block *previous, *next;
    size_t size; /* with this header */
};
#define HEADER ((size_t)ALIGNMENT)
_Static_assert(sizeof(struct block) <= ALIGNMENT, "a block's header keeps the alignment of what follows it");

/* Four times the decoded pixels is what the worst legal files need: a progressive JPEG holds two bytes of coefficients,
 * one of samples and one of output for each sample; an interlaced PNG its stream, twice the inflated bytes, the passes.
 */
static size_t size_of(const struct picture *picture) {
    return SLACK + (size_t)4 * picture->width * picture->height * picture->pixel_bytes;
}

struct budget budget_begin(const struct picture *picture, const resnet_allocator *allocator) {
    return (struct budget){.picture = picture, .allocator = allocator, .left = size_of(picture)};
}

void *budget_get(struct budget *budget, size_t size) {
    size_t total = (size < budget->left ? size : budget->left) + HEADER; /* does not wrap */
    budget->asked = size;
    if (total > budget->left) {
        budget->exceeded = true;
        return NULL;
    }
    struct block *block = memory_get(budget->allocator, total);
    if (!block) {
        budget->refused = true;
        return NULL;
    }
    memset(block, 0, total); /* a corrupt file must not decode to what the heap held before */
    *block = (struct block){NULL, budget->blocks, total};
    if (budget->blocks)
        budget->blocks->previous = block;
    budget->blocks = block;
    budget->left -= total;
    return (uint8_t *)block + HEADER;
}

static struct block *block_of(void *memory) {
    return (struct block *)(void *)((uint8_t *)memory - HEADER);
}

static void detach(struct budget *budget, struct block *block) {
    if (block->next)
        block->next->previous = block->previous;
    if (block->previous)
        block->previous->next = block->next;
    else
        budget->blocks = block->next;
}

void budget_put(struct budget *budget, void *memory) {
    if (!memory)
        return;
    struct block *block = block_of(memory);
    detach(budget, block);
    budget->left += block->size;
    memory_put(budget->allocator, block, block->size);
}

static resnet_status explain(const struct budget *budget, resnet_error *error) {
    const struct picture *picture = budget->picture;
    unsigned width = picture->width, height = picture->height;
    if (budget->exceeded)
        return fail(
            error, RESNET_ERROR_IMAGE,
            "the image takes more than the %zu MiB that %u x %u pixels can need: it unpacks to more than it shows",
            size_of(picture) >> 20, width, height);
    if (budget->refused)
        return fail_memory(error, "decoding an image", budget->asked);
    return fail(error, RESNET_ERROR_IMAGE, "the compressed picture is corrupt or incomplete (%u x %u pixels)", width,
                height);
}

resnet_status budget_end(struct budget *budget, const struct image *decoded, struct image *image, resnet_error *error) {
    bool whole = decoded->pixels;
    if (whole) {
        struct block *block = block_of(decoded->pixels);
        detach(budget, block);
        *image = (struct image){decoded->width, decoded->height, decoded->pixels, block, block->size};
    }
    while (budget->blocks)
        budget_put(budget, (uint8_t *)budget->blocks + HEADER);
    return whole ? RESNET_OK : explain(budget, error);
}
