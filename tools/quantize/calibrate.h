/* calibrate.h - what numbers a tensor held over all calibration images, and which 8-bit scale suits them. */
#ifndef CALIBRATE_H
#define CALIBRATE_H

#include "session.h"

/* All that |a float| can be, 8 bins to an octave: what is left of its bits without the last 20 of the mantissa. */
#define CALIBRATE_BINS  2048
#define CALIBRATE_SHIFT 20

/* Zeroed is the start. */
struct statistics {
    uint32_t channels;
    uint64_t pixels;               /* seen: numbers of each channel */
    double *moments;               /* of each channel, the sum of its numbers; behind them, of their squares */
    uint64_t bins[CALIBRATE_BINS]; /* how many numbers of each size */
};

/* Errors: MEMORY; statistics_free may follow either way. */
resnet_status statistics_create(struct statistics *statistics, uint32_t channels, const resnet_allocator *allocator,
                                resnet_error *error);
void statistics_free(struct statistics *statistics, const resnet_allocator *allocator);

/* Take in a tensor in f32. */
void statistics_add(struct statistics *statistics, const struct observation *seen);

/* Whether all numbers were finite; else nothing below means anything. */
bool statistics_finite(const struct statistics *statistics);

/* The mean of a channel's numbers, and of their squares; 0 where there were none. */
double statistics_mean(const struct statistics *statistics, uint32_t channel);
double statistics_power(const struct statistics *statistics, uint32_t channel);

/*
 * The scale for scale * (u - zero), u in 0..255. A small one cuts the largest numbers off, a large one rounds all
 * others coarsely: this is the one with the least square error over all numbers seen, and some headroom for those to
 * come, up to the largest number. 1 where all were 0.
 */
float statistics_scale(const struct statistics *statistics, float zero);

#endif
