/* winograd.c - 3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3). */
#include "winograd.h"

#include <math.h>

#include "pack.h"
#include "split.h"

#define SIDE     4 /* outputs a tile, each way */
#define PATCH    (SIDE + 2)
#define ELEMENTS (PATCH * PATCH)
#define MULTIPLE 16 /* of channels: whole vectors in every instruction set */
#define MOST_WEIGHTS                                                                                                   \
    (256 * 256) /* pairs of channels: above, streaming four times the weights costs more than it saves */
#define BLOCK_FLOATS (128 * 1024) /* of a block's patches and products: they stay in a second-level cache */
#define GAP          16           /* keeps neighbours off each other's cache sets, as pixel_stride in plan.c */

bool winograd_suits(const struct node *node) {
    return node->op == OP_CONV && node->kernel == 3 && node->stride == 1 && node->in.channels % MULTIPLE == 0 &&
           node->out.channels % MULTIPLE == 0 && (size_t)node->in.channels * node->out.channels <= MOST_WEIGHTS;
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
    return biases_size(node, nr) + ELEMENTS * element_size(node, nr);
}

/* G g G' of one pair of channels; `g` has its 9 numbers `step` apart. */
static void transform_filter(const float *g, size_t step, double u[ELEMENTS]) {
    static const double G[PATCH][3] = {
        {1.0 / 4, 0, 0},
        {-1.0 / 6, -1.0 / 6, -1.0 / 6},
        {-1.0 / 6, 1.0 / 6, -1.0 / 6},
        {1.0 / 24, 1.0 / 12, 1.0 / 6},
        {1.0 / 24, -1.0 / 12, 1.0 / 6},
        {0, 0, 1},
    };
    double half[PATCH][3]; /* G g */
    for (int i = 0; i < PATCH; i++)
        for (int b = 0; b < 3; b++) {
            double sum = 0;
            for (int a = 0; a < 3; a++)
                sum += G[i][a] * (double)g[(size_t)(3 * a + b) * step];
            half[i][b] = sum;
        }
    for (int i = 0; i < PATCH; i++)
        for (int j = 0; j < PATCH; j++)
            u[i * PATCH + j] = half[i][0] * G[j][0] + half[i][1] * G[j][1] + half[i][2] * G[j][2];
}

/* One output channel: column n of a panel of each element, from column n of a direct panel. */
static bool pack_channel(const struct node *node, const float *column, uint32_t nr, float *elements) {
    size_t in = node->in.channels, step = element_size(node, nr);
    bool finite = true;
    for (size_t e = 0; e < ELEMENTS; e++)
        elements[e * step] = 0;
    for (size_t k = 0; k < in; k++) {
        double u[ELEMENTS];
        transform_filter(column + (1 + k) * nr, in * nr, u);
        for (size_t e = 0; e < ELEMENTS; e++) {
            float value = without_denormals(u[e]);
            elements[e * step + (1 + k) * nr] = value;
            finite &= isfinite(value) != 0;
        }
    }
    return finite;
}

bool winograd_pack(const struct node *node, const float *panels, uint32_t nr, float *packed) {
    size_t in = node->in.channels, channels = biases_size(node, nr);
    bool finite = true;
    for (size_t c = 0; c < channels; c++) {
        const float *column = panels + c / nr * panel_size(node, nr) + c % nr;
        packed[c] = column[0];
        finite &= pack_channel(node, column, nr, packed + channels + c / nr * (1 + in) * nr + c % nr);
    }
    return finite;
}

/* ---- Run ---- */

/*
 * What a thread works on: `tiles` tiles at a time. Patches and products lie element by element, as
 * [element][tile][channel] with GAP floats after each tile's channels.
 */
struct block {
    uint32_t tiles;
    size_t patch_tile, product_tile; /* floats from one tile to the next */
    float *patches, *products;
};

static struct block block_of(const struct node *node, const struct kernel_set *kernels) {
    struct block block = {.patch_tile = node->in.channels + GAP, .product_tile = node->out.channels + GAP};
    size_t tile = ELEMENTS * (block.patch_tile + block.product_tile);
    block.tiles = (uint32_t)(BLOCK_FLOATS / tile) / kernels->mr * kernels->mr;
    if (block.tiles == 0)
        block.tiles = kernels->mr;
    return block;
}

size_t winograd_scratch(const struct node *node, const struct kernel_set *kernels) {
    struct block block = block_of(node, kernels);
    return ELEMENTS * block.tiles * (block.patch_tile + block.product_tile);
}

/* Where tile `index` of a batch lies: its image and its first output pixel. */
struct corner {
    size_t image;
    uint32_t y, x;
};

static struct corner corner_of(const struct node *node, uint32_t index) {
    uint32_t across = divide_up(node->out.width, SIDE), down = divide_up(node->out.height, SIDE);
    return (struct corner){index / (across * down), index / across % down * SIDE, index % across * SIDE};
}

/* B' d B of one tile. Patches reach past the border where the map is no multiple of a tile: there, a border pixel will
 * do. */
static void transform_patch(const struct step *step, const struct block *block, uint32_t slot, uint32_t index) {
    const struct tensor *t = step->input;
    struct corner corner = corner_of(step->node, index);
    const float *image = step->arena + t->origin + corner.image * t->image;
    const float *outside = image - t->row - t->pixel;
    const float *patch[ELEMENTS];
    for (uint32_t i = 0; i < PATCH; i++)
        for (uint32_t j = 0; j < PATCH; j++) {
            uint32_t y = corner.y + i, x = corner.x + j; /* one more than the pixel's own */
            bool inside = y <= t->shape.height && x <= t->shape.width;
            patch[i * PATCH + j] = inside ? outside + y * t->row + x * t->pixel : outside;
        }
    step->kernels->winograd_input(patch, t->shape.channels, block->patches + slot * block->patch_tile,
                                  block->tiles * block->patch_tile);
}

/* The matrix products of all elements, for the first `tiles` tiles of the block. */
static void multiply_block(const struct step *step, const struct block *block, uint32_t tiles) {
    const struct node *node = step->node;
    uint32_t mr = step->kernels->mr, nr = step->kernels->nr, groups = divide_up(tiles, mr);
    uint32_t panels = divide_up(node->out.channels, nr);
    const float *panel = step->panels + biases_size(node, nr);
    for (uint32_t i = 0; i < ELEMENTS * panels; i++, panel += (1 + (size_t)node->in.channels) * nr) {
        uint32_t element = i / panels, first = i % panels * nr;
        const float *patches = block->patches + (size_t)element * block->tiles * block->patch_tile;
        float *products = block->products + (size_t)element * block->tiles * block->product_tile + first;
        for (uint32_t g = 0; g < groups; g++) {
            struct span span = part_of(tiles, g, groups);
            step->kernels->conv_tile(&(struct conv_tile){
                .x = patches + span.begin * block->patch_tile,
                .x_pixel = block->patch_tile,
                .rows = 1,
                .columns = 1,
                .run = node->in.channels,
                .panel = panel,
                .y = products + span.begin * block->product_tile,
                .y_pixel = block->product_tile,
                .pixels = span.end - span.begin,
                .channels = smaller(nr, node->out.channels - first),
            });
        }
    }
}

/* A' m A of one tile, then bias, residual and relu. */
static void transform_products(const struct step *step, const struct block *block, uint32_t slot, uint32_t index) {
    const struct node *node = step->node;
    const struct tensor *t = step->output, *r = step->residual;
    struct corner corner = corner_of(node, index);
    struct winograd_output output = {
        .products = block->products + slot * block->product_tile,
        .element = block->tiles * block->product_tile,
        .bias = step->panels,
        .y = step->arena + t->origin + corner.image * t->image + corner.y * t->row + corner.x * t->pixel,
        .y_row = t->row,
        .y_pixel = t->pixel,
        .rows = smaller(SIDE, node->out.height - corner.y),
        .columns = smaller(SIDE, node->out.width - corner.x),
        .channels = node->out.channels,
        .relu = node->relu,
    };
    if (r) {
        output.residual = step->arena + r->origin + corner.image * r->image + corner.y * r->row + corner.x * r->pixel;
        output.residual_row = r->row;
    }
    step->kernels->winograd_output(&output);
}

void winograd(const struct step *step, uint32_t index, uint32_t count) {
    const struct node *node = step->node;
    struct block block = block_of(node, step->kernels);
    block.patches = step->scratch + index * step->scratch_size;
    block.products = block.patches + ELEMENTS * block.tiles * block.patch_tile;
    uint32_t across = divide_up(node->out.width, SIDE), down = divide_up(node->out.height, SIDE);
    struct span mine = part_of(step->images * across * down, index, count);
    uint32_t blocks = divide_up(mine.end - mine.begin, block.tiles);
    for (uint32_t b = 0; b < blocks; b++) {
        struct span part = part_of(mine.end - mine.begin, b, blocks);
        uint32_t first = mine.begin + part.begin, tiles = part.end - part.begin;
        for (uint32_t i = 0; i < tiles; i++)
            transform_patch(step, &block, i, first + i);
        multiply_block(step, &block, tiles);
        for (uint32_t i = 0; i < tiles; i++)
            transform_products(step, &block, i, first + i);
    }
}
