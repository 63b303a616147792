/* heatmap.c - lay over a photograph, as warm colours, how much each place of it speaks for a class. */
#include "heatmap.h"

#include <stdbool.h>

#include "preprocess.h"

#define CHANNELS 3

/* What a share of the largest value looks like, in equal steps from 0 to 1: a colour, and how much of it covers the
 * photograph. Lightness and cover only grow, so that the order shows without colour vision, too. */
struct stop {
    float colour[CHANNELS], cover;
};
static const struct stop stops[] = {{{30, 10, 90}, 0},
                                    {{120, 20, 130}, 0.35f},
                                    {{225, 70, 50}, 0.55f},
                                    {{250, 160, 30}, 0.65f},
                                    {{255, 240, 120}, 0.7f}};
#define STEPS (sizeof stops / sizeof *stops - 1)

/* One direction: pixel p of the input has its middle at start + (p + 0.5) * scale in the photograph. */
struct axis {
    double start, scale;
    uint32_t input, cells, stride;
};

/* Where a pixel of the photograph lies on an axis of the map: `share` of the way from a cell to the next. */
struct spot {
    bool seen; /* in the crop */
    uint32_t cell, next;
    float share;
};

static void find_axes(const struct heatmap *heat, const struct raster *photograph, struct axis *x, struct axis *y) {
    const struct pixels source = {.width = photograph->width, .height = photograph->height};
    const struct preprocess_target target = {.width = heat->input_width, .height = heat->input_height};
    struct preprocess_window window;
    preprocess_window(&source, &heat->preprocess, &target, &window);
    *x = (struct axis){window.left, window.scale_x, heat->input_width, heat->map.width, heat->map.stride};
    *y = (struct axis){window.top, window.scale_y, heat->input_height, heat->map.height, heat->map.stride};
}

/* Value i of a map is drawn in the middle of pixels i * stride to (i + 1) * stride - 1 of the input. (Padding alone
 * would have it on the first of them; but of ResNet-50, maps of photographs and of their mirror images fit best 10
 * pixels further, which is nearer to the middle.) */
static struct spot find_spot(const struct axis *axis, uint32_t position) {
    double pixel = (position + 0.5 - axis->start) / axis->scale - 0.5, cell = (pixel + 0.5) / axis->stride - 0.5;
    double last = axis->cells - 1;
    bool seen = pixel >= -0.5 && pixel < axis->input - 0.5;
    cell = cell < 0 ? 0 : cell > last ? last : cell;
    uint32_t before = (uint32_t)cell;
    return (struct spot){seen, before, before < axis->cells - 1 ? before + 1 : before, (float)(cell - before)};
}

static float mix(float a, float b, float share) {
    return a + (b - a) * share;
}

static float value_at(const struct heatmap *heat, const struct spot *x, const struct spot *y) {
    const float *upper = heat->values + (size_t)y->cell * heat->map.width;
    const float *lower = heat->values + (size_t)y->next * heat->map.width;
    return mix(mix(upper[x->cell], upper[x->next], x->share), mix(lower[x->cell], lower[x->next], x->share), y->share);
}

/* `heat` is a share of the largest value; what is not above 0, or no number, leaves the pixel as it is. */
static void glow(uint8_t *pixel, float heat) {
    if (!(heat > 0))
        return;
    float place = (heat < 1 ? heat : 1) * STEPS;
    size_t step = place < STEPS ? (size_t)place : STEPS - 1;
    const struct stop *a = &stops[step], *b = a + 1;
    float share = place - (float)step, cover = mix(a->cover, b->cover, share);
    for (int c = 0; c < CHANNELS; c++)
        pixel[c] = (uint8_t)(mix(pixel[c], mix(a->colour[c], b->colour[c], share), cover) + 0.5f);
}

static void fade(uint8_t *pixel) {
    unsigned grey = (2u * pixel[0] + 5u * pixel[1] + pixel[2]) / 8; /* of the luminances, roughly */
    pixel[0] = pixel[1] = pixel[2] = (uint8_t)(grey / 2);
}

struct heat_peak heatmap_peak(const struct heatmap *heat, const struct raster *photograph) {
    struct heat_peak peak = {0};
    struct axis x, y;
    find_axes(heat, photograph, &x, &y);
    for (uint32_t i = 0; i < heat->map.height * heat->map.width; i++)
        if (heat->values[i] > peak.value)
            peak =
                (struct heat_peak){heat->values[i], x.start + (i % heat->map.width + 0.5) * heat->map.stride * x.scale,
                                   y.start + (i / heat->map.width + 0.5) * heat->map.stride * y.scale};
    return peak;
}

void heatmap_draw(const struct heatmap *heat, struct raster *photograph) {
    float largest = heatmap_peak(heat, photograph).value;
    uint8_t *pixel = photograph->pixels;
    struct axis x, y;
    find_axes(heat, photograph, &x, &y);
    for (uint32_t row = 0; row < photograph->height; row++) {
        struct spot down = find_spot(&y, row);
        for (uint32_t column = 0; column < photograph->width; column++, pixel += CHANNELS) {
            struct spot across = find_spot(&x, column);
            if (!across.seen || !down.seen)
                fade(pixel);
            else
                glow(pixel, value_at(heat, &across, &down) / largest);
        }
    }
}
