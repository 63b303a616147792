/* png.h - write a picture as a PNG file. */
#ifndef PNG_H
#define PNG_H

#include <stdbool.h>

#include "raster.h"

/* Whole or not at all. False after a complaint: then an older file is as it was. */
bool png_write(const char *name, const struct raster *raster);

#endif
