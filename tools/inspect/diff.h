/* diff.h - compare a network, layer by layer, with what another program computed from the same input. */
#ifndef DIFF_H
#define DIFF_H

#include <stdbool.h>

#include "resnet.h"

enum layer_state {
    LAYER_ABSENT,    /* from the dump */
    LAYER_MISSHAPEN, /* of another shape there: it departs */
    LAYER_DEPARTS,
    LAYER_AGREES
};

/* A layer's output here against that in the dump. */
struct layer_difference {
    char name[32]; /* as in resnet_layer */
    enum layer_state state;
    uint32_t shape[3], dumped[3]; /* channels, height, width; here and in the dump */
    double relative;              /* root mean square of the differences, as a part of that of the dump's numbers */
    double difference;            /* the largest; infinite where a number is not finite on one side alone */
    double largest;               /* absolute value in the dump */
    uint32_t place[3];            /* channel, y, x of the largest difference */
    float ours, theirs;           /* there */
};

struct diff {
    resnet_allocator allocator;
    struct layer_difference *layers; /* all of the network's, in the order in which it runs */
    uint32_t count, first;           /* first: the first that departs; count where none does */
    uint32_t compared;               /* layers that the dump has */
    double tolerance;
    uint32_t unknown; /* arrays in the dump that are no layers here */
    char unknown_name[64];
};

/* What layer_difference.relative may be in the precision that the model computes in. It is of root mean squares, since
 * the largest difference of an int8 layer is that of its largest number, which calibration may have cut off by half. */
double diff_tolerance(const resnet_model *model);

/*
 * Run the model on the array "input" of the dump, an .npz file, and compare each layer that the dump has. Arrays are
 * [1][channels][height][width], or of fewer dimensions where height and width are 1; "input" is normalised already.
 * diff_free may follow either way. Errors: IO (the dump), ARGUMENT, MEMORY, THREAD.
 */
resnet_status diff_run(struct diff *diff, const resnet_model *model, const char *dump, double tolerance,
                       resnet_error *error);
void diff_free(struct diff *diff);

#endif
