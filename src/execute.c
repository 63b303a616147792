/* execute.c - the fast executor: one node at a time, its output split between threads. */
#include "execute.h"

#include <string.h>

#include "pack.h"
#include "split.h"
#include "winograd.h"

/* Half of a small second-level cache: what one loop keeps there while another streams past it. */
#define CACHE_BYTES (512 * 1024)

/* ---- Borders ---- */

static void zero(float *start, size_t count) {
    memset(start, 0, count * sizeof *start);
}

/* Memory is shared between tensors, so the border of an output is cleared each time. */
static void clear_border(const struct step *step, uint32_t index, uint32_t count) {
    const struct tensor *t = step->output;
    if (!t->border || step->logits)
        return;
    uint32_t height = t->shape.height + 2 * t->border;
    size_t side = t->border * t->pixel;
    struct span rows = part_of(step->images * height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        float *row = step->arena + t->start + (size_t)(i / height) * t->image + (size_t)(i % height) * t->row;
        bool inside = i % height >= t->border && i % height < height - t->border;
        zero(row, inside ? side : t->row);
        if (inside)
            zero(row + t->row - side, side);
    }
}

/* ---- Convolution and classifier ---- */

/*
 * The output as lines of pixels, and each line as tiles. A line is a row of an image; where all tensors are dense
 * and a pixel depends on one pixel only, all images are one line, so that short rows need not leave tiles half empty.
 */
struct grid {
    uint32_t lines, pixels; /* pixels in a line */
    uint32_t line_tiles, tiles, panels;
};

static bool is_dense(const struct step *step) {
    return step->node->kernel == 1 && step->node->stride == 1 && !step->input->border && !step->output->border &&
           !(step->residual && step->residual->border);
}

static struct grid grid_of(const struct step *step) {
    struct shape out = step->node->out;
    struct grid grid = {step->images * out.height, out.width, 0, 0, divide_up(out.channels, step->kernels->nr)};
    if (is_dense(step))
        grid = (struct grid){1, step->images * out.height * out.width, 0, 0, grid.panels};
    grid.line_tiles = divide_up(grid.pixels, step->kernels->mr);
    grid.tiles = grid.lines * grid.line_tiles;
    return grid;
}

/* What all tiles of a node have in common. */
static struct conv_tile tile_template(const struct step *step) {
    const struct node *node = step->node;
    const struct tensor *x = step->input;
    struct conv_tile tile = {
        .x_pixel = node->stride * x->pixel,
        .x_row = x->row,
        .x_column = x->pixel,
        .rows = node->kernel,
        .columns = node->kernel,
        .run = node->in.channels,
        .y_pixel = step->output->pixel,
        .relu = node->relu,
    };
    if (x->pixel == node->in.channels) { /* a row of the window is one run */
        tile.columns = 1;
        tile.run *= node->kernel;
    }
    return tile;
}

/* Point a tile at the pixels of `span` in a line. */
static void place_tile(struct conv_tile *tile, const struct step *step, uint32_t line, struct span span) {
    const struct node *node = step->node;
    const struct tensor *x = step->input, *y = step->output;
    size_t image = line / node->out.height, row = line % node->out.height;
    ptrdiff_t top = (ptrdiff_t)(row * node->stride) - node->pad;
    ptrdiff_t left = (ptrdiff_t)((size_t)span.begin * node->stride) - node->pad;
    size_t place = image * y->image + row * y->row + span.begin * y->pixel;
    tile->pixels = span.end - span.begin;
    tile->x = step->arena + x->origin + image * x->image + top * (ptrdiff_t)x->row + left * (ptrdiff_t)x->pixel;
    tile->y = step->logits ? step->logits + place : step->arena + y->origin + place;
    if (step->residual) {
        const struct tensor *r = step->residual;
        tile->residual = step->arena + r->origin + image * r->image + row * r->row + span.begin * r->pixel;
    }
}

/* The tiles of `span`, in one panel of output channels. */
static void run_tiles(const struct step *step, const struct grid *grid, uint32_t panel, struct span span) {
    struct conv_tile tile = tile_template(step);
    uint32_t nr = step->kernels->nr, first = panel * nr;
    tile.panel = step->panels + panel * panel_size(step->node, nr);
    tile.channels = step->node->out.channels - first < nr ? step->node->out.channels - first : nr;
    for (uint32_t i = span.begin; i < span.end; i++) {
        place_tile(&tile, step, i / grid->line_tiles, part_of(grid->pixels, i % grid->line_tiles, grid->line_tiles));
        tile.y += first;
        if (tile.residual)
            tile.residual += first;
        step->kernels->conv_tile(&tile);
    }
}

/* Each thread takes a range of (panel, tile), panels outermost: it streams its own weights, once. */
static void split_panels(const struct step *step, const struct grid *grid, uint32_t index, uint32_t count) {
    uint64_t units = (uint64_t)grid->panels * grid->tiles;
    uint64_t unit = units * index / count, end = units * (index + 1) / count;
    while (unit < end) {
        uint32_t panel = (uint32_t)(unit / grid->tiles), tile = (uint32_t)(unit % grid->tiles);
        uint64_t left = end - unit;
        struct span span = {tile, left < grid->tiles - tile ? tile + (uint32_t)left : grid->tiles};
        run_tiles(step, grid, panel, span);
        unit += span.end - span.begin;
    }
}

/* Each thread takes a range of tiles, in blocks whose input stays in its cache while all panels pass over it. */
static void split_tiles(const struct step *step, const struct grid *grid, uint32_t index, uint32_t count) {
    size_t tile_bytes =
        (size_t)step->kernels->mr * step->node->stride * step->node->stride * step->input->pixel * sizeof(float);
    uint32_t block = CACHE_BYTES / 2 / tile_bytes > 1 ? (uint32_t)(CACHE_BYTES / 2 / tile_bytes) : 1;
    struct span mine = part_of(grid->tiles, index, count);
    for (uint32_t i = mine.begin; i < mine.end; i += block) {
        struct span span = {i, i + block < mine.end ? i + block : mine.end};
        for (uint32_t panel = 0; panel < grid->panels; panel++)
            run_tiles(step, grid, panel, span);
    }
}

static void convolve(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    struct grid grid = grid_of(step);
    uint64_t weight_bytes = node_weights(node) * sizeof(float);
    if (weight_bytes > CACHE_BYTES || grid.tiles < count)
        split_panels(step, &grid, index, count);
    else
        split_tiles(step, &grid, index, count);
}

/* ---- Pooling ---- */

/* The border is zeros where PyTorch pads with minus infinity: the same, since what is pooled has been through a ReLU.
 */
static void max_pool(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    const struct tensor *x = step->input, *y = step->output;
    struct span rows = part_of(step->images * node->out.height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        size_t image = i / node->out.height, row = i % node->out.height;
        ptrdiff_t top = (ptrdiff_t)(row * node->stride) - node->pad;
        struct pool_window window = {.x_pixel = x->pixel,
                                     .x_row = x->row,
                                     .rows = node->kernel,
                                     .columns = node->kernel,
                                     .channels = node->out.channels};
        window.x =
            step->arena + x->origin + image * x->image + top * (ptrdiff_t)x->row - (ptrdiff_t)(node->pad * x->pixel);
        window.y = step->arena + y->origin + image * y->image + row * y->row;
        for (uint32_t column = 0; column < node->out.width; column++) {
            step->kernels->max_window(&window);
            window.x += node->stride * x->pixel;
            window.y += y->pixel;
        }
    }
}

#define MEAN_CHANNELS 128 /* a thread's smallest share of an average pool */

static void average_pool(const struct step *step, uint32_t index, uint32_t count) {
    const struct tensor *x = step->input, *y = step->output;
    uint32_t channels = step->node->out.channels, groups = divide_up(channels, MEAN_CHANNELS);
    struct span mine = part_of(step->images * groups, index, count);
    for (uint32_t i = mine.begin; i < mine.end; i++) {
        size_t image = i / groups, first = i % groups * MEAN_CHANNELS;
        step->kernels->mean_window(&(struct pool_window){
            .x = step->arena + x->origin + image * x->image + first,
            .x_pixel = x->pixel,
            .x_row = x->row,
            .rows = x->shape.height,
            .columns = x->shape.width,
            .channels = channels - (uint32_t)first < MEAN_CHANNELS ? channels - (uint32_t)first : MEAN_CHANNELS,
            .y = step->arena + y->origin + image * y->image + first,
        });
    }
}

void execute(const struct step *step, uint32_t index, uint32_t count) {
    clear_border(step, index, count);
    switch (step->node->op) {
    case OP_CONV:
        (step->winograd ? winograd : convolve)(step, index, count);
        break;
    case OP_LINEAR:
        convolve(step, index, count);
        break;
    case OP_MAXPOOL:
        max_pool(step, index, count);
        break;
    case OP_AVGPOOL:
        average_pool(step, index, count);
        break;
    case OP_INPUT:
        break;
    }
}
