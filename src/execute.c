/* execute.c - the fast executor: one node at a time, its output split between threads. */
#include "execute.h"

#include <math.h>
#include <string.h>

#include "kept.h"
#include "pack.h"
#include "split.h"
#include "winograd.h"

/* Half of a small second-level cache: what one loop keeps there while another streams past it. */
#define CACHE_BYTES (512 * 1024)
#define LINE_WORDS  (ALIGNMENT / sizeof(float))

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
    struct grid grid = {step->images * out.height, out.width, 0, 0,
                        divide_up(out.channels, panel_channels(step->node, step->kernels))};
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
        .x_row = node->dilation * x->row,
        .x_column = node->dilation * x->pixel,
        .rows = node->kernel,
        .columns = node->kernel,
        .run = divide_up(node_group_inputs(node), word_numbers(step->format)),
        .group = node->out.channels / node->groups,
        .y_pixel = step->output->pixel,
        .relu = node->relu,
        .floats = node->floats && step->format != FORMAT_F32,
    };
    if (step->format == FORMAT_U8) {
        tile.residual_scale = step->residual_scale.scale / step->output_scale.scale;
        tile.offset = step->output_scale.zero - step->residual_scale.zero * tile.residual_scale;
    }
    if (x->pixel == tile.run && node->dilation == 1) { /* a row of the window is one run */
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

/* While a panel is at work, its tiles fetch the next one, each a different part. */
static const float *panel_ahead(const struct conv_tile *tile, uint32_t index, size_t size, bool is_last) {
    size_t place = (size_t)index * tile->rows * tile->columns * tile->run * LINE_WORDS;
    return is_last || place >= size ? tile->panel : tile->panel + size + place;
}

/* In place, of a tile whose output is f32. */
static void sigmoid(const struct conv_tile *tile) {
    for (uint32_t p = 0; p < tile->pixels; p++)
        for (uint32_t n = 0; n < tile->channels; n++) {
            float *value = tile->y + p * tile->y_pixel + n;
            *value = 1 / (1 + expf(-*value));
        }
}

/* The tiles of `span`, in one panel of output channels. */
static void run_tiles(const struct step *step, const struct grid *grid, uint32_t panel, struct span span) {
    struct conv_tile tile = tile_template(step);
    bool grouped = takes_group_tile(step->node, step->kernels);
    uint32_t nr = panel_channels(step->node, step->kernels), first = panel * nr,
             numbers = tile.floats ? 1 : word_numbers(step->format);
    size_t size = panel_size(step->node, step->format, nr);
    tile.panel = step->panels + panel * size;
    tile.channels = smaller(nr, divide_up(step->node->out.channels - first, numbers) * numbers);
    for (uint32_t i = span.begin; i < span.end; i++) {
        uint32_t start = i % grid->line_tiles * step->kernels->mr;
        place_tile(&tile, step, i / grid->line_tiles,
                   (struct span){start, smaller(start + step->kernels->mr, grid->pixels)});
        tile.x += first / tile.group * tile.run;
        tile.y += first / numbers;
        if (tile.residual)
            tile.residual += first / numbers;
        tile.ahead = panel_ahead(&tile, i - span.begin, size, panel + 1 == grid->panels);
        (grouped ? step->kernels->group_tile : step->kernels->conv_tile)(&tile);
        if (step->node->sigmoid)
            sigmoid(&tile);
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
    uint64_t weight_bytes = node_weights(node) * sizeof(float) / word_numbers(step->format);
    if (weight_bytes > CACHE_BYTES || grid.tiles < count)
        split_panels(step, &grid, index, count);
    else
        split_tiles(step, &grid, index, count);
}

/* ---- Pooling ---- */

/* Channels, and those that fill up the last word. */
static uint32_t whole_words(const struct step *step, uint32_t channels) {
    uint32_t numbers = word_numbers(step->format);
    return divide_up(channels, numbers) * numbers;
}

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
                                     .channels = whole_words(step, node->out.channels)};
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

/* Windows of an average pool, cut off where the map ends. */
static void average_pool(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    const struct tensor *x = step->input, *y = step->output;
    struct span rows = part_of(step->images * node->out.height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        size_t image = i / node->out.height, row = i % node->out.height;
        struct pool_window window = {.x_pixel = x->pixel,
                                     .x_row = x->row,
                                     .rows = smaller(node->kernel, node->in.height - (uint32_t)row * node->stride),
                                     .channels = whole_words(step, node->out.channels)};
        window.x = step->arena + x->origin + image * x->image + row * node->stride * x->row;
        window.y = step->arena + y->origin + image * y->image + row * y->row;
        for (uint32_t column = 0; column < node->out.width; column++) {
            window.columns = smaller(node->kernel, node->in.width - column * node->stride);
            window.scale = 1 / (float)(window.rows * window.columns);
            step->kernels->mean_window(&window);
            window.x += node->stride * x->pixel;
            window.y += y->pixel;
        }
    }
}

#define MEAN_CHANNELS 128 /* a thread's smallest share of a global average pool */

static void global_average_pool(const struct step *step, uint32_t index, uint32_t count) {
    const struct tensor *x = step->input, *y = step->output;
    float *output = step->logits ? step->logits : step->arena + y->origin;
    bool floats = step->node->floats;
    uint32_t channels = floats ? step->node->out.channels : whole_words(step, step->node->out.channels);
    uint32_t groups = divide_up(channels, MEAN_CHANNELS);
    uint32_t numbers = word_numbers(step->format), y_numbers = floats ? 1 : numbers;
    struct pool_window window = {.x_pixel = x->pixel,
                                 .x_row = x->row,
                                 .rows = x->shape.height,
                                 .columns = x->shape.width,
                                 .scale = 1 / ((float)x->shape.height * (float)x->shape.width),
                                 .floats = floats};
    if (step->format == FORMAT_U8) {
        window.scale *= step->input_scale.scale / step->output_scale.scale;
        window.offset = -step->input_scale.zero * (step->input_scale.scale / step->output_scale.scale);
    }
    struct span mine = part_of(step->images * groups, index, count);
    for (uint32_t i = mine.begin; i < mine.end; i++) {
        uint32_t image = i / groups, first = i % groups * MEAN_CHANNELS;
        window.x = step->arena + x->origin + image * x->image + first / numbers;
        window.y = output + image * y->image + first / y_numbers;
        window.channels = smaller(channels - first, MEAN_CHANNELS);
        step->kernels->mean_window(&window);
    }
}

/* ---- Shortcuts of zeros, and attention ---- */

static void subsample(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    const struct tensor *x = step->input, *y = step->output;
    size_t size = sizeof(float) / word_numbers(step->format); /* of a number */
    size_t before = (node->out.channels - node->in.channels) / 2 * size;
    struct span rows = part_of(step->images * node->out.height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        size_t image = i / node->out.height, row = i % node->out.height;
        const float *from = step->arena + x->origin + image * x->image + row * node->stride * x->row;
        float *to = step->arena + y->origin + image * y->image + row * y->row;
        for (uint32_t column = 0; column < node->out.width; column++, from += node->stride * x->pixel, to += y->pixel) {
            zero(to, y->pixel);
            memcpy((char *)to + before, from, node->in.channels * size);
        }
    }
}

static void scale(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    const struct tensor *x = step->input, *y = step->output, *r = step->residual;
    struct gated_row gated = {.x_pixel = x->pixel,
                              .residual_pixel = r->pixel,
                              .y_pixel = y->pixel,
                              .pixels = node->out.width,
                              .channels = whole_words(step, node->out.channels)};
    if (step->format == FORMAT_U8) {
        gated.x_zero = step->input_scale.zero;
        gated.scale = step->input_scale.scale / step->output_scale.scale;
        gated.residual_scale = step->residual_scale.scale / step->output_scale.scale;
        gated.offset = step->output_scale.zero - step->residual_scale.zero * gated.residual_scale;
    }
    struct span rows = part_of(step->images * node->out.height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++) {
        size_t image = i / node->out.height, row = i % node->out.height;
        gated.x = step->arena + x->origin + image * x->image + row * x->row;
        gated.gate = step->arena + step->gate->origin + image * step->gate->image;
        gated.residual = step->arena + r->origin + image * r->image + row * r->row;
        gated.y = step->arena + y->origin + image * y->image + row * y->row;
        step->kernels->gate_row(&gated);
    }
}

/* ---- Input ---- */

/* What makes the format's numbers of normalised ones, repeated: bf16 has them as they are, u8 the pixels that they came
 * from; channels that fill up a pixel become 0. */
struct conversion {
    float factor[RESNET_MAX_CHANNELS], term[RESNET_MAX_CHANNELS];
};

static struct conversion conversion_of(const struct step *step) {
    struct conversion conversion = {{0}, {0}};
    for (uint32_t i = 0; i < RESNET_MAX_CHANNELS; i++) {
        uint32_t c = i % (uint32_t)step->input->pixel;
        if (c >= step->input->shape.channels)
            continue;
        conversion.factor[i] = step->format == FORMAT_U8 ? 255 * step->preprocess->std[c] : 1;
        conversion.term[i] = step->format == FORMAT_U8 ? 255 * step->preprocess->mean[c] : 0;
    }
    return conversion;
}

/* `count` pixels around the image: normalised zeros. */
static void convert_zeros(const struct step *step, const struct conversion *how, float *to, uint32_t count) {
    static const float zeros[RESNET_MAX_CHANNELS];
    for (uint32_t i = 0; i < count; i++)
        step->kernels->convert(zeros, to + i * step->output->pixel, (uint32_t)step->input->pixel, how->factor,
                               how->term);
}

/* One row of an image, its border included. */
static void convert_row(const struct step *step, const struct conversion *how, uint32_t image, uint32_t row) {
    const struct tensor *x = step->input, *y = step->output;
    float *to = step->arena + y->start + image * y->image + row * y->row;
    uint32_t width = y->shape.width, border = y->border;
    if (row < border || row - border >= y->shape.height) {
        convert_zeros(step, how, to, width + 2 * border);
        return;
    }
    const float *from = step->arena + x->origin + image * x->image + (row - border) * x->row;
    convert_zeros(step, how, to, border);
    step->kernels->convert(from, to + border * y->pixel, width * (uint32_t)x->pixel, how->factor, how->term);
    convert_zeros(step, how, to + (border + width) * y->pixel, border);
}

static void convert_input(const struct step *step, uint32_t index, uint32_t count) {
    struct conversion how = conversion_of(step);
    uint32_t height = step->output->shape.height + 2 * step->output->border;
    struct span rows = part_of(step->images * height, index, count);
    for (uint32_t i = rows.begin; i < rows.end; i++)
        convert_row(step, &how, i / height, i % height);
}

void execute(const struct step *step, uint32_t index, uint32_t count) {
    if (step->node->op != OP_INPUT)
        clear_border(step, index, count);
    if (step->kept) {
        kept_execute(step, index, count);
        return;
    }
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
    case OP_GLOBAL_AVGPOOL:
        global_average_pool(step, index, count);
        break;
    case OP_SUBSAMPLE:
        subsample(step, index, count);
        break;
    case OP_SCALE:
        scale(step, index, count);
        break;
    case OP_INPUT:
        convert_input(step, index, count);
        break;
    }
    if (step->kernels->leave)
        step->kernels->leave();
}
