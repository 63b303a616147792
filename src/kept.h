/* kept.h - a layer of an int8 network whose weights are f32: widen its input, convolve in f32, round the output. */
#ifndef KEPT_H
#define KEPT_H

#include "execute.h"

/* Floats of scratch that a thread needs for a layer, where `images` go through it together. */
size_t kept_scratch(const struct node *node, uint32_t images);

/* What execute does, where step->kept has the kernels. */
void kept_execute(const struct step *step, uint32_t index, uint32_t count);

#endif
