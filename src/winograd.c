/* winograd.c - 3x3 convolutions with stride 1 by Winograd's method. */
#include "winograd.h"

#include <string.h>

#include "floats.h"
#include "pack.h"
#include "split.h"

#define MOST_SIDE    6            /* of a patch */
#define MULTIPLE     16           /* of channels: whole vectors in every instruction set */
#define BLOCK_FLOATS (128 * 1024) /* of a block's patches and products: they stay in a second-level cache */
#define FEW_TILES    28           /* of one 14x14 map in tiles of 4x2, of one 7x7 map in tiles of 2x2 */
#define LINE_FLOATS  16           /* a cache line */
#define GAP          16           /* keeps neighbours off each other's cache sets, as pixel_stride in plan.c */

/* A larger tile takes fewer products and streams more weights: 36/9, 24/9 or 16/9 of what the sum streams. On two
 * threads, 512 x 512 channels of 7x7 pixels take 1.06 ms by the sum and 0.71 by tiles of 2x2; 256 x 256 of 14x14 take
 * 0.48 with tiles of 4x4 and 0.46 with 4x2, and two thirds of the memory. */
struct tile {
    uint32_t rows, columns; /* of outputs */
    uint32_t height, width; /* of a patch */
    uint32_t elements;
    size_t most_pairs; /* of channels, up to which it is the fastest in f32 */
};
#define TILE(rows, columns, most_pairs)                                                                                \
    { rows, columns, rows + 2, columns + 2, (rows + 2) * (columns + 2), most_pairs }
static const struct tile kinds[WINOGRAD_TILES] = {
    [WINOGRAD_4X4] = TILE(4, 4, 128 * 128),
    [WINOGRAD_4X2] = TILE(4, 2, 256 * 256),
    [WINOGRAD_2X2] = TILE(2, 2, 512 * 512),
};

static size_t pairs_of(const struct node *node) {
    return (size_t)node->in.channels * node->out.channels;
}

/* bf16 streams half as much for the sum, and its products are twice as fast. */
bool winograd_suits(const struct node *node, enum format format) {
    enum winograd_tile last = format == FORMAT_F32 ? WINOGRAD_2X2 : WINOGRAD_4X4;
    return node->op == OP_CONV && node->kernel == 3 && node->stride == 1 && node->groups == 1 && node->dilation == 1 &&
           node->in.channels % MULTIPLE == 0 && node->out.channels % MULTIPLE == 0 &&
           pairs_of(node) <= kinds[last].most_pairs;
}

static enum winograd_tile kind_of(const struct node *node) {
    enum winograd_tile kind = WINOGRAD_4X4;
    while (pairs_of(node) > kinds[kind].most_pairs)
        kind++;
    return kind;
}

static const struct tile *tile_of(const struct node *node) {
    return &kinds[kind_of(node)];
}

/* ---- Pack ---- */

/* One element's panels. */
static size_t element_size(const struct node *node, uint32_t nr) {
    return (size_t)divide_up(node->out.channels, nr) * (1 + (size_t)node->in.channels) * nr;
}

static size_t biases_size(const struct node *node, uint32_t nr) {
    return (size_t)divide_up(node->out.channels, nr) * nr;
}

size_t winograd_size(const struct node *node, uint32_t nr) {
    return biases_size(node, nr) + tile_of(node)->elements * element_size(node, nr);
}

#define FILTERS 4 /* transformed side by side, so that the compiler makes vectors of them; nr is a multiple */

typedef double filters[FILTERS];

/*
 * G a: four or six from three, for two outputs or four.
 *
 *                                    |  1/4     0     0  |
 *         |   1    0    0 |          | -1/6  -1/6  -1/6  |
 *     G = | 1/4  1/4  1/4 |      G = | -1/6   1/6  -1/6  |
 *         | 1/4 -1/4  1/4 |          | 1/24  1/12   1/6  |
 *         |   0    0    1 |          | 1/24 -1/12   1/6  |
 *                                    |    0     0     1  |
 */
static void transform_to_4(const double *a0, const double *a1, const double *a2, filters *u) {
    for (int n = 0; n < FILTERS; n++) {
        double outer = (a0[n] + a2[n]) * (1.0 / 4), inner = a1[n] * (1.0 / 4);
        u[0][n] = a0[n];
        u[1][n] = outer + inner;
        u[2][n] = outer - inner;
        u[3][n] = a2[n];
    }
}

static void transform_to_6(const double *a0, const double *a1, const double *a2, filters *u) {
    for (int n = 0; n < FILTERS; n++) {
        double outer = (a0[n] + a2[n]) * (-1.0 / 6), inner = a1[n] * (1.0 / 6);
        double far = a0[n] * (1.0 / 24) + a2[n] * (1.0 / 6), near = a1[n] * (1.0 / 12);
        u[0][n] = a0[n] * (1.0 / 4);
        u[1][n] = outer - inner;
        u[2][n] = outer + inner;
        u[3][n] = far + near;
        u[4][n] = far - near;
        u[5][n] = a2[n];
    }
}

typedef void transform(const double *a0, const double *a1, const double *a2, filters *u);

static transform *transform_to(uint32_t count) {
    return count == 4 ? transform_to_4 : transform_to_6;
}

/* G g G' of one pair of channels, for neighbouring output channels; `g` has its 9 numbers `step` apart. */
static void transform_filters(const struct tile *tile, const float *g, size_t step, filters *u) {
    filters taps[9], half[3][MOST_SIDE]; /* half[j] is column j of G g */
    for (size_t tap = 0; tap < 9; tap++)
        for (int n = 0; n < FILTERS; n++)
            taps[tap][n] = (double)g[tap * step + (size_t)n];
    for (int j = 0; j < 3; j++)
        transform_to(tile->height)(taps[j], taps[3 + j], taps[6 + j], half[j]);
    for (uint32_t i = 0; i < tile->height; i++)
        transform_to(tile->width)(half[0][i], half[1][i], half[2][i], u + i * tile->width);
}

/* One vector of each element. */
static void store_filters(const struct tile *tile, filters *u, float *to, size_t element) {
    for (size_t e = 0; e < tile->elements; e++)
        for (size_t n = 0; n < FILTERS; n++)
            to[e * element + n] = without_denormals(u[e][n]);
}

/* One panel of each element, `element` floats apart, from a direct panel. */
static void pack_panel(const struct node *node, const float *panel, uint32_t nr, float *to, size_t element) {
    const struct tile *tile = tile_of(node);
    size_t in = node->in.channels;
    for (size_t e = 0; e < tile->elements; e++)
        memset(to + e * element, 0, nr * sizeof *to);
    for (size_t k = nr; k < (1 + in) * nr; k += FILTERS) {
        filters u[WINOGRAD_ELEMENTS];
        transform_filters(tile, panel + k, in * nr, u);
        store_filters(tile, u, to + k, element);
    }
}

void winograd_pack(const struct node *node, const float *panels, struct span which, uint32_t nr, float *packed) {
    size_t element = element_size(node, nr), size = (1 + (size_t)node->in.channels) * nr;
    float *elements = packed + biases_size(node, nr);
    for (uint32_t p = which.begin; p < which.end; p++, panels += panel_size(node, FORMAT_F32, nr)) {
        memcpy(packed + (size_t)p * nr, panels, nr * sizeof *packed);
        pack_panel(node, panels, nr, elements + p * size, element);
    }
}

/* ---- Run ---- */

/*
 * What a thread works on: `tiles` tiles at a time and the output channels of some panels. Patches and products lie
 * element by element, as [element][tile][channel] with GAP floats after each tile's channels.
 */
struct block {
    const struct tile *tile;
    const struct winograd_transforms *transforms;
    uint32_t tiles, used; /* room, and how many there are */
    bool shared;          /* of the output channels, this thread takes these panels: it streams its own weights, once */
    struct span panels;
    size_t patch_tile, product_tile; /* floats from one tile to the next */
    float *patches, *products;
};

static uint32_t tiles_of(const struct node *node) {
    const struct tile *tile = tile_of(node);
    return divide_up(node->out.width, tile->columns) * divide_up(node->out.height, tile->rows);
}

/* Few tiles are one block, which the threads share by output channels. */
static struct block block_of(const struct node *node, const struct format_kernels *kernels, uint32_t tiles) {
    struct block block = {.tile = tile_of(node),
                          .tiles = tiles,
                          .shared = tiles <= FEW_TILES,
                          .panels = {0, divide_up(node->out.channels, kernels->nr)},
                          .patch_tile = node->in.channels + GAP,
                          .product_tile = node->out.channels + GAP};
    size_t floats = block.tile->elements * (block.patch_tile + block.product_tile);
    if (!block.shared)
        block.tiles = (uint32_t)(BLOCK_FLOATS / floats) / kernels->mr * kernels->mr;
    if (block.tiles == 0)
        block.tiles = kernels->mr;
    return block;
}

size_t winograd_scratch(const struct node *node, const struct format_kernels *kernels) {
    struct block block = block_of(node, kernels, UINT32_MAX);
    uint32_t tiles = block.tiles > FEW_TILES ? block.tiles : FEW_TILES;
    return block.tile->elements * tiles * (block.patch_tile + block.product_tile);
}

/* Where tile `index` of a batch lies: its image and its first output pixel. */
struct corner {
    size_t image;
    uint32_t y, x;
};

static struct corner corner_of(const struct node *node, const struct tile *tile, uint32_t index) {
    uint32_t across = divide_up(node->out.width, tile->columns), down = divide_up(node->out.height, tile->rows);
    return (struct corner){index / (across * down), index / across % down * tile->rows, index % across * tile->columns};
}

/* B' d B of one tile. Patches reach past the border where the map is no multiple of a tile: there, a border pixel will
 * do. */
static void transform_patch(const struct step *step, const struct block *block, uint32_t slot, uint32_t index) {
    const struct tensor *t = step->input;
    struct corner corner = corner_of(step->node, block->tile, index);
    const float *image = step->arena + t->origin + corner.image * t->image;
    const float *outside = image - t->row - t->pixel;
    const float *patch[WINOGRAD_ELEMENTS];
    for (uint32_t i = 0; i < block->tile->height; i++)
        for (uint32_t j = 0; j < block->tile->width; j++) {
            uint32_t y = corner.y + i, x = corner.x + j; /* one more than the pixel's own */
            bool inside = y <= t->shape.height && x <= t->shape.width;
            patch[i * block->tile->width + j] = inside ? outside + y * t->row + x * t->pixel : outside;
        }
    block->transforms->input(patch, t->shape.channels, block->patches + slot * block->patch_tile,
                             block->tiles * block->patch_tile);
}

static const float *weights_of(const struct step *step, uint32_t element, uint32_t panel) {
    const struct node *node = step->node;
    uint32_t nr = step->winograd->products->nr;
    return step->panels + biases_size(node, nr) + element * element_size(node, nr) +
           panel * (1 + (size_t)node->in.channels) * nr;
}

/* Where all tiles are one block: the weights that this thread needs after these, of which each group of tiles fetches
 * another part. */
static const float *weights_ahead(const struct step *step, const struct block *block, uint32_t element, uint32_t panel,
                                  uint32_t group) {
    uint32_t in = step->node->in.channels;
    size_t place = (size_t)group * in * LINE_FLOATS;
    bool fetched = !block->shared || place >= (size_t)in * step->winograd->products->nr;
    if (!fetched && panel + 1 < block->panels.end)
        return weights_of(step, element, panel + 1) + place;
    if (!fetched && element + 1 < block->tile->elements)
        return weights_of(step, element + 1, block->panels.begin) + place;
    return weights_of(step, element, panel);
}

/* One element's products with one panel. */
static void multiply_panel(const struct step *step, const struct block *block, uint32_t element, uint32_t panel) {
    const struct node *node = step->node;
    uint32_t nr = step->winograd->products->nr, groups = divide_up(block->used, step->winograd->products->mr);
    const float *patches = block->patches + (size_t)element * block->tiles * block->patch_tile;
    float *products = block->products + (size_t)element * block->tiles * block->product_tile + panel * nr;
    const float *weights = weights_of(step, element, panel);
    for (uint32_t g = 0; g < groups; g++) {
        struct span span = part_of(block->used, g, groups);
        step->winograd->products->conv_tile(&(struct conv_tile){
            .x = patches + span.begin * block->patch_tile,
            .x_pixel = block->patch_tile,
            .rows = 1,
            .columns = 1,
            .run = node->in.channels,
            .panel = weights,
            .ahead = weights_ahead(step, block, element, panel, g),
            .y = products + span.begin * block->product_tile,
            .y_pixel = block->product_tile,
            .pixels = span.end - span.begin,
            .channels = smaller(nr, node->out.channels - panel * nr),
        });
    }
}

/* A' m A of one tile, then bias, residual and relu. */
static void transform_products(const struct step *step, const struct block *block, uint32_t slot, uint32_t index) {
    const struct node *node = step->node;
    const struct tensor *t = step->output, *r = step->residual;
    struct corner corner = corner_of(node, block->tile, index);
    uint32_t first = block->panels.begin * step->winograd->products->nr, word = first / word_numbers(step->format);
    struct winograd_output output = {
        .products = block->products + slot * block->product_tile + first,
        .element = block->tiles * block->product_tile,
        .bias = step->panels + first,
        .y = step->arena + t->origin + corner.image * t->image + corner.y * t->row + corner.x * t->pixel + word,
        .y_row = t->row,
        .y_pixel = t->pixel,
        .rows = smaller(block->tile->rows, node->out.height - corner.y),
        .columns = smaller(block->tile->columns, node->out.width - corner.x),
        .channels = smaller(node->out.channels, block->panels.end * step->winograd->products->nr) - first,
        .relu = node->relu,
    };
    if (r) {
        output.residual =
            step->arena + r->origin + corner.image * r->image + corner.y * r->row + corner.x * r->pixel + word;
        output.residual_row = r->row;
    }
    block->transforms->output(&output);
}

/* Tiles first..first+tiles-1 of the batch. */
static void run_block(const struct step *step, struct block *block, uint32_t first, uint32_t tiles) {
    block->used = tiles;
    for (uint32_t i = 0; i < tiles; i++)
        transform_patch(step, block, i, first + i);
    for (uint32_t element = 0; element < block->tile->elements; element++)
        for (uint32_t panel = block->panels.begin; panel < block->panels.end; panel++)
            multiply_panel(step, block, element, panel);
    for (uint32_t i = 0; i < tiles; i++)
        transform_products(step, block, i, first + i);
}

void winograd(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    uint32_t tiles = step->images * tiles_of(node);
    struct block block = block_of(node, step->winograd->products, tiles);
    block.transforms = &step->winograd->tiles[kind_of(node)];
    block.patches = step->scratch + index * step->scratch_size;
    block.products = block.patches + block.tile->elements * block.tiles * block.patch_tile;
    if (block.shared) {
        block.panels = part_of(block.panels.end, index, count);
        if (block.panels.begin < block.panels.end)
            run_block(step, &block, 0, tiles);
        return;
    }
    struct span mine = part_of(tiles, index, count);
    uint32_t blocks = divide_up(mine.end - mine.begin, block.tiles);
    for (uint32_t b = 0; b < blocks; b++) {
        struct span part = part_of(mine.end - mine.begin, b, blocks);
        run_block(step, &block, mine.begin + part.begin, part.end - part.begin);
    }
}
