/*
 * mutate_model.c - change a model file in terms of its parts, and mend what would only hide the change: the size in the
 * header, the tensors' places, both checksums.
 */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include "crc.h"
#include "fuzz.h"
#include "model_file.h"

#define HEADER       256
#define MOST_CHANGES 4

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

struct file {
    uint8_t *data;
    size_t size, most;
    uint64_t random;
};

static uint32_t below(struct file *f, uint32_t bound) { /* splitmix64 */
    uint64_t z = f->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (uint32_t)((z ^ z >> 31) % bound);
}

static void put_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static void put_f32(uint8_t *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u32(to, bits);
}

/* ---- Changes ---- */

struct field {
    uint8_t offset, size;
    uint32_t low, high, usual; /* what a reader takes; up to here, networks stay tiny */
};

static const struct field fields[] = {
    {32, 1, 1, 2, 2},          {33, 1, 0, 1, 1},        {34, 1, 0, 3, 3},      {35, 1, 0, 2, 2},
    {36, 1, 0, 1, 1},          {37, 1, 0, 2, 2},        {38, 1, 0, 2, 2},      {39, 1, 0, 1, 1},
    {40, 4, 1, 1024, 2},       {44, 4, 0, 1024, 1},     {48, 4, 0, 1024, 1},   {52, 4, 0, 1024, 1},
    {56, 4, 1, 4096, 16},      {60, 4, 1, 4096, 4},     {64, 4, 1, 4096, 128}, {68, 4, 0, 16, 16},
    {72, 4, 1, 16, 4},         {76, 4, 1, 16384, 40},   {80, 4, 1, 16384, 40}, {84, 4, 0, 1 << 20, 20},
    {92, 4, 0, 16384, 64},     {96, 4, 0, 1 << 24, 40}, {100, 4, 0, 4096, 8},  {8, 4, 0, 2, 1},
    {28, 4, 0, 0, 1},          {104, 4, 0, 0, 1},       {124, 4, 0, 0, 1},     {16, 4, 0, UINT32_MAX, 20000},
    {20, 4, 0, UINT32_MAX, 1},
};

static void change_field(struct file *f) {
    const struct field *field = &fields[below(f, sizeof fields / sizeof *fields)];
    const uint32_t edges[] = {field->low, field->high, field->low - 1, field->high + 1, UINT32_MAX, 0x80000000};
    uint32_t value = below(f, 4) ? field->low + below(f, field->usual + 1) : edges[below(f, 6)];
    if (field->size == 1)
        f->data[field->offset] = (uint8_t)value;
    else
        put_u32(f->data + field->offset, value);
}

static void change_number(struct file *f) {
    static const uint32_t bits[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                    0x7fc00000, 0x00000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff,
                                    0x2b800000, 0x53800000, 0x4e800000, 0x3c000000};
    bool header = below(f, 4) == 0;
    size_t offset = header ? 88 + 4 * below(f, 42) : HEADER + 4 * below(f, (uint32_t)(f->size - HEADER) / 4 + 1);
    if (offset + 4 <= f->size)
        put_u32(f->data + offset, bits[below(f, sizeof bits / sizeof *bits)]);
}

static void change_byte(struct file *f) {
    if (f->size > HEADER)
        f->data[HEADER + below(f, (uint32_t)(f->size - HEADER))] = (uint8_t)below(f, 256);
}

static void change_size(struct file *f) {
    size_t size = below(f, 2) ? f->size + below(f, 130) - 65 : HEADER + below(f, (uint32_t)(f->most - HEADER) + 1);
    size = size < HEADER ? HEADER : size > f->most ? f->most : size;
    if (size > f->size)
        memset(f->data + f->size, 0, size - f->size);
    f->size = size;
}

static void change_anything(struct file *f) {
    f->size = LLVMFuzzerMutate(f->data, f->size, f->most);
}

/* ---- Mending ---- */

/* Numbers that every vector may have, and zeros between them. */
static void fill_vectors(uint8_t *data, const struct stored *stored, uint32_t count) {
    size_t channels = stored->node->out.channels, vector = align_up(4 * channels);
    memset(data + stored->vectors, 0, stored->end - stored->vectors);
    for (uint32_t v = 0; v < count; v++)
        for (size_t c = 0; c < channels && stored->vectors + v * vector + 4 * c + 4 <= stored->end; c++)
            put_f32(data + stored->vectors + v * vector + 4 * c, 0.0625F);
    if (stored->end - stored->vectors == count * vector + ALIGNMENT)
        put_f32(data + stored->end - ALIGNMENT, 0.0625F);
}

static void fill_weights(struct file *f, const struct stored *stored) {
    memset(f->data + stored->weights, 0, stored->vectors - stored->weights);
    uint64_t count = node_weights(stored->node);
    for (uint64_t i = 0; i < count; i++)
        if (stored->precision == RESNET_PRECISION_INT8)
            f->data[stored->weights + i] = (uint8_t)below(f, 256);
        else if (stored->precision == RESNET_PRECISION_F32)
            put_f32(f->data + stored->weights + 4 * i, (float)below(f, 1024) / 2048 - 0.25F);
        else
            f->data[stored->weights + 2 * i + 1] = (uint8_t)(0x3c | below(f, 2) << 7);
}

/* The tensors of the network that the header names, all of them new. */
static void fill_tensors(struct file *f, const struct graph *graph, resnet_precision precision, const bool *kept) {
    uint64_t offset = model_file_tensors(graph, precision, 0);
    memset(f->data + HEADER, 0, f->size - HEADER);
    if (precision == RESNET_PRECISION_INT8)
        for (uint32_t i = 0, layer = 0; i < graph->count; i++)
            if (node_has_weights(&graph->nodes[i]))
                f->data[HEADER + layer++] = kept[i];
    for (uint32_t i = 0; i < graph->count; i++) {
        const struct node *node = &graph->nodes[i];
        struct stored stored = model_file_node(node, precision, kept[i], offset);
        offset = stored.end;
        if (!node_has_weights(node))
            continue;
        bool folded = precision != RESNET_PRECISION_F32 || node->op != OP_CONV;
        fill_weights(f, &stored);
        fill_vectors(f->data, &stored, !folded ? 4 : precision == RESNET_PRECISION_INT8 && !kept[i] ? 2 : 1);
    }
}

/* Make the file that the header asks for, without labels, where there is room. */
static void refit(struct file *f) {
    struct model_file file = {0};
    resnet_allocator allocator = memory_allocator(NULL);
    struct graph graph;
    put_u32(f->data + 96, 0);
    put_u32(f->data + 20, 0);
    put_u32(f->data + 16, HEADER);
    put_u32(f->data + 12, 0);
    crc_prepare(&file.crc);
    put_u32(f->data + 12, crc_of(&file.crc, f->data, HEADER));
    if (model_file_open_memory(&file, f->data, HEADER, NULL) != RESNET_OK)
        return;
    const resnet_config *config = &file.config;
    struct shape shape = {config->height, config->width, config->in_channels};
    if (graph_build(&graph, config, shape, &allocator, NULL) != RESNET_OK)
        return;
    bool *kept = calloc(graph.count, 1);
    for (uint32_t i = 0; kept && config->precision == RESNET_PRECISION_INT8 && i < graph.count; i++)
        kept[i] = node_has_weights(&graph.nodes[i]) && (node_reads_floats(&graph, &graph.nodes[i]) || below(f, 4) == 0);
    uint64_t size = kept ? model_file_size(&graph, config->precision, kept, 0) : 0;
    if (size > HEADER && size <= f->most) {
        f->size = size;
        fill_tensors(f, &graph, config->precision, kept);
    }
    free(kept);
    graph_free(&graph, &allocator);
}

static void seal(struct file *f) {
    struct crc crc;
    crc_prepare(&crc);
    put_u32(f->data + 24, crc_of(&crc, f->data + HEADER, f->size - HEADER));
    put_u32(f->data + 12, 0);
    put_u32(f->data + 12, crc_of(&crc, f->data, HEADER));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    static void (*const changes[])(struct file *) = {change_field, change_field, change_field,   change_number,
                                                     change_byte,  change_size,  change_anything};
    struct file f = {data, size, most, seed};
    if (size < HEADER)
        return LLVMFuzzerMutate(data, size, most);
    for (uint32_t i = 1 + below(&f, MOST_CHANGES); i > 0 && f.size >= HEADER; i--)
        changes[below(&f, sizeof changes / sizeof *changes)](&f);
    if (f.size < HEADER)
        return f.size;
    if (below(&f, 3) == 0)
        refit(&f);
    if (below(&f, 16)) {
        put_u32(f.data + 16, (uint32_t)f.size);
        put_u32(f.data + 20, 0);
    }
    if (below(&f, 16))
        seal(&f);
    return f.size;
}
