/* heatmap.h - lay over a photograph, as warm colours, how much each place of it speaks for a class. */
#ifndef HEATMAP_H
#define HEATMAP_H

#include "raster.h"

/* A class-activation map, and how the network came to see the photograph. */
struct heatmap {
    const float *values; /* [map.height][map.width] */
    resnet_map map;
    uint32_t input_width, input_height; /* of the network, in pixels */
    resnet_preprocess preprocess;
};

/* The place of the largest value in pixels of the photograph, where a map has one above 0. */
struct heat_peak {
    float value;
    double x, y;
};

struct heat_peak heatmap_peak(const struct heatmap *heat, const struct raster *photograph);

/*
 * Colour the photograph: as it was where nothing speaks for the class (0 and below), glowing where the most does, by
 * bilinear interpolation between the map's values; grey and darker around the crop, which the network did not see.
 */
void heatmap_draw(const struct heatmap *heat, struct raster *photograph);

#endif
