/* plan.h - where every activation of a session lies: its strides, and its place in one arena. */
#ifndef PLAN_H
#define PLAN_H

#include "graph.h"
#include "kernels/kernels.h"

/*
 * A batch of maps in NHWC, with a border of zeros around each where a 3x3 or 7x7 window reads past the edge:
 *
 *     value (n, y, x, c) is at arena + origin + n * image + y * row + x * pixel + c       (-border <= y, x < size +
 * border)
 *
 * All in words (kernels.h); c counts numbers. A pixel may have more words than its channels fill; row = (width + 2 *
 * border) * pixel.
 */
struct tensor {
    struct shape shape;
    enum format format;
    uint32_t border;
    size_t pixel, row, image;
    size_t start, size; /* of the whole block in the arena */
    size_t origin;      /* of pixel (0, 0) of image 0 */
};

struct plan {
    struct tensor *tensors; /* one for each node */
    uint32_t count;
    struct tensor slots; /* the input in f32: in the f32 format tensor 0 itself, else as many channels a pixel as it */
    size_t arena;        /* bytes */
    size_t scratch;      /* where the scratch bytes start, in words */
};

struct plan_options {
    enum format format; /* of all tensors but the slots and those that are floats */
    uint32_t slots;     /* images that the input holds */
    uint32_t group;     /* images that go through the network together: what all other tensors hold */
    size_t scratch;     /* bytes at the arena's end, beside all tensors */
    bool share;         /* tensors that are never needed at the same time share memory */
};

/*
 * Place the output of every node but the last, which goes to the caller as images of `channels` floats. The slots keep
 * their place for good, so that they outlive a run. Errors: MEMORY (also where a size does not fit).
 */
resnet_status plan_make(struct plan *plan, const struct graph *graph, struct plan_options options,
                        const resnet_allocator *allocator, resnet_error *error);
void plan_free(struct plan *plan, const resnet_allocator *allocator);

#endif
