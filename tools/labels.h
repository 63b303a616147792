/* labels.h - find the class that somebody means. */
#ifndef LABELS_H
#define LABELS_H

#include <stdbool.h>
#include <stdint.h>

#include "resnet.h"

/*
 * The class of this label; or whose label alone has this in it, in capitals or not; or of this index. False after a
 * complaint that names the labels that are nearest.
 */
bool labels_find(const resnet_model *model, const char *text, uint32_t *index);

#endif
