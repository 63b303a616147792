/* support.c - seeded numbers, model files made in memory, and an allocator that counts and fails on demand. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- How a test is run ---- */

resnet_isa test_isa(void) {
    const char *name = getenv("RESNET_TEST_ISA");
    if (!name)
        return RESNET_ISA_AUTO;
    for (unsigned isa = RESNET_ISA_AUTO; isa <= RESNET_ISA_AMX; isa++) {
        resnet_error error;
        if (strcmp(name, resnet_isa_name((resnet_isa)isa)) != 0)
            continue;
        if (resnet_isa_check((resnet_isa)isa, &error) == RESNET_OK)
            return (resnet_isa)isa;
        fprintf(stderr, "skipped: %s\n", error.message);
        exit(77);
    }
    fprintf(stderr, "RESNET_TEST_ISA: there is no instruction set called '%s'\n", name);
    exit(1);
}

bool test_quick(void) {
    return TEST_SANITIZED || getenv("RESNET_TEST_QUICK") != NULL;
}

/* ---- Seeded numbers ---- */

uint64_t test_u64(struct test_random *random) {
    uint64_t z = random->state += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

uint32_t test_below(struct test_random *random, uint32_t bound) {
    return (uint32_t)((test_u64(random) >> 32) * bound >> 32);
}

uint32_t test_between(struct test_random *random, uint32_t low, uint32_t high) {
    return low + test_below(random, high - low + 1);
}

float test_float(struct test_random *random, float low, float high) {
    return low + (high - low) * ((float)(test_u64(random) >> 40) * 0x1p-24F);
}

/* ---- Checksum ---- */

/* A bit at a time makes the table, a byte at a time uses it: the definition, at a speed for files of 200 MB. */
uint32_t test_crc32c(const uint8_t *data, size_t size) {
    uint32_t table[256], crc = UINT32_MAX;
    for (uint32_t byte = 0; byte < 256; byte++) {
        table[byte] = byte;
        for (int bit = 0; bit < 8; bit++)
            table[byte] = table[byte] & 1 ? table[byte] >> 1 ^ 0x82f63b78U : table[byte] >> 1;
    }
    for (size_t i = 0; i < size; i++)
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    return ~crc;
}

/* ---- Model files ---- */

#define HEADER 256

static size_t to_64(size_t size) {
    return (size + 63) / 64 * 64;
}

void test_put_u32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

void test_put_f32(uint8_t *to, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    test_put_u32(to, bits);
}

void test_seal(struct test_bytes *bytes) {
    test_put_u32(bytes->data + 24, test_crc32c(bytes->data + HEADER, bytes->size - HEADER));
    test_put_u32(bytes->data + 12, 0);
    test_put_u32(bytes->data + 12, test_crc32c(bytes->data, HEADER));
}

void test_header(uint8_t header[HEADER], const resnet_config *config, const resnet_preprocess *how,
                 uint32_t labels_size) {
    static const uint8_t magic[] = {0x8b, 'R', 'N', 'T', '\r', '\n', 0x1a, '\n'};
    memset(header, 0, HEADER);
    memcpy(header, magic, sizeof magic);
    test_put_u32(header + 8, 1);
    header[32] = (uint8_t)config->block;
    header[33] = (uint8_t)config->stride_at;
    header[34] = (uint8_t)config->stem;
    header[35] = (uint8_t)config->shortcut;
    header[36] = (uint8_t)config->attention;
    header[37] = (uint8_t)config->head;
    header[38] = (uint8_t)(config->precision ? config->precision - 1 : 0);
    header[39] = (uint8_t)how->interpolation;
    const uint32_t numbers[] = {config->blocks[0],   config->blocks[1], config->blocks[2],       config->blocks[3],
                                config->base_width,  config->groups,    config->width_per_group, config->output_stride,
                                config->in_channels, config->height,    config->width,           config->classes};
    for (size_t i = 0; i < COUNT(numbers); i++)
        test_put_u32(header + 40 + 4 * i, numbers[i]);
    test_put_f32(header + 88, config->bn_epsilon);
    test_put_u32(header + 92, how->resize);
    test_put_u32(header + 96, labels_size);
    test_put_u32(header + 100, config->attention_width);
    for (uint32_t c = 0; c < config->in_channels; c++) {
        test_put_f32(header + 128 + 4 * c, how->mean[c]);
        test_put_f32(header + 192 + 4 * c, how->std[c]);
    }
}

/* The tensors of one layer in each kind of file; NULL ends a list. */
static const struct {
    const char *name;
    int bytes; /* of a number */
    bool single;
} layouts[][6] = {
    {{"weight", 4, false}, {"scale", 4, false}, {"shift", 4, false}, {"mean", 4, false}, {"variance", 4, false}, {0}},
    {{"weight", 4, false}, {"bias", 4, false}, {0}},
    {{"weight", 2, false}, {"bias", 4, false}, {0}},
    {{"weight", 1, false}, {"scale", 4, false}, {"bias", 4, false}, {"activation", 4, true}, {0}},
    {{"weight", 4, false}, {"bias", 4, false}, {"activation", 4, true}, {0}},
};

/* The `layer`-th with tensors. */
static bool is_kept(uint64_t kept, const struct node *node, uint32_t layer) {
    return (layer < 64 && kept >> layer & 1) || strstr(node->name, ".se.");
}

static size_t layout_of(const struct test_layout *layout, const struct node *node, uint32_t layer) {
    if (layout->precision == RESNET_PRECISION_BF16)
        return 2;
    if (layout->precision == RESNET_PRECISION_INT8)
        return is_kept(layout->kept, node, layer) ? 4 : 3;
    return node->op == OP_CONV ? 0 : 1;
}

static size_t filter_of(const struct node *node) {
    return (size_t)node->in.channels / node->groups * node->kernel * node->kernel;
}

static bool has_tensors(const struct node *node) {
    return node->op == OP_CONV || node->op == OP_LINEAR;
}

size_t test_kinds(const struct test_layout *layout, uint32_t *count) {
    *count = 0;
    for (uint32_t i = 0; layout->precision == RESNET_PRECISION_INT8 && i < layout->graph->count; i++)
        *count += has_tensors(&layout->graph->nodes[i]);
    return to_64(HEADER + (size_t)layout->labels_size);
}

size_t test_each_tensor(const struct test_layout *layout,
                        void (*visit)(void *context, const struct test_tensor *tensor), void *context) {
    uint32_t index = 0, layer = 0, kinds;
    size_t offset = test_kinds(layout, &kinds);
    offset += to_64(kinds);
    for (uint32_t i = 0; i < layout->graph->count; i++) {
        const struct node *node = &layout->graph->nodes[i];
        if (!has_tensors(node))
            continue;
        size_t which = layout_of(layout, node, layer++), filter = filter_of(node);
        for (size_t t = 0; layouts[which][t].name; t++) {
            size_t count = layouts[which][t].single ? 1 : node->out.channels * (t ? 1 : filter);
            struct test_tensor tensor = {node, layouts[which][t].name, index++, count, offset, layouts[which][t].bytes};
            if (visit)
                visit(context, &tensor);
            offset = to_64(offset + count * (size_t)tensor.bytes);
        }
    }
    return offset;
}

float test_fill_random(void *context, const struct test_tensor *tensor, size_t element) {
    struct test_random *random = context;
    const struct node *node = tensor->node;
    (void)element;
    if (strcmp(tensor->name, "weight") == 0) {
        float limit = sqrtf(6.0F / (float)filter_of(node));
        return test_float(random, -limit, limit);
    }
    if (strcmp(tensor->name, "scale") == 0)
        return (node->residual == NO_NODE ? 1.0F : 0.25F) * test_float(random, 0.75F, 1.25F);
    if (strcmp(tensor->name, "variance") == 0)
        return test_float(random, 0.5F, 1.5F);
    return test_float(random, -0.25F, 0.25F);
}

/* A file while it is written; for bf16 and int8, with the layer that is being written, batch normalisation folded. */
struct writing {
    uint8_t *data;
    const struct test_content *content;
    const resnet_config *config;
    const resnet_preprocess *preprocess;
    uint32_t index; /* of the next tensor, in the order of an f32 file */
    float *weight, *bias;
};

static float *filled(struct writing *to, const struct node *node, const char *name, size_t count) {
    float *values = malloc(count * sizeof *values);
    struct test_tensor tensor = {node, name, to->index++, count, 0, 4};
    if (!values)
        fail_msg("no memory for the test itself");
    for (size_t i = 0; values && i < count; i++)
        values[i] = to->content->fill(to->content->context, &tensor, i);
    return values;
}

static float to_float(double value) {
    return fabs(value) < 0x1p-126 ? 0 : (float)value;
}

/* Batch normalisation into weights and bias. */
static void fold_layer(struct writing *to, const struct node *node) {
    size_t out = node->out.channels, filter = filter_of(node);
    to->weight = filled(to, node, "weight", out * filter);
    if (node->op == OP_LINEAR) {
        to->bias = filled(to, node, "bias", out);
        return;
    }
    float *scale = filled(to, node, "scale", out);
    to->bias = filled(to, node, "shift", out);
    float *mean = filled(to, node, "mean", out), *variance = filled(to, node, "variance", out);
    for (size_t c = 0; c < out; c++) {
        double factor = (double)scale[c] / sqrt((double)variance[c] + (double)to->config->bn_epsilon);
        to->bias[c] = to_float((double)to->bias[c] - factor * (double)mean[c]);
        for (size_t i = c * filter; i < (c + 1) * filter; i++)
            to->weight[i] = to_float((double)to->weight[i] * factor);
    }
    free(scale);
    free(mean);
    free(variance);
}

/* From weights for (u / 255 - mean) / std to weights for u. */
static void fold_pixels(struct writing *to, const struct node *node) {
    size_t area = (size_t)node->kernel * node->kernel, in = node->in.channels, i = 0;
    for (size_t c = 0; c < node->out.channels; c++) {
        double sum = 0;
        for (size_t k = 0; k < in; k++)
            for (size_t tap = 0; tap < area; tap++, i++) {
                double real = (double)to->weight[i] / (double)to->preprocess->std[k];
                sum += real * (double)to->preprocess->mean[k];
                to->weight[i] = (float)(real / 255);
            }
        to->bias[c] = (float)((double)to->bias[c] - sum);
    }
}

static float channel_scale(const struct writing *to, const struct node *node, size_t channel) {
    size_t filter = filter_of(node);
    float largest = 0;
    for (size_t i = channel * filter; i < (channel + 1) * filter; i++)
        largest = fmaxf(largest, fabsf(to->weight[i]));
    return largest > 0 ? largest / 127 : 1;
}

static void put_bf16(uint8_t *to, float value) { /* the nearest, to even between two */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    to[0] = (uint8_t)(bits >> 16);
    to[1] = (uint8_t)(bits >> 24);
}

static void write_weights(struct writing *to, const struct test_tensor *tensor) {
    size_t filter = tensor->count / tensor->node->out.channels;
    uint8_t *place = to->data + tensor->offset;
    float scale = 1;
    free(to->weight);
    free(to->bias);
    fold_layer(to, tensor->node);
    if (to->config->precision == RESNET_PRECISION_INT8 && tensor->node->input == 0)
        fold_pixels(to, tensor->node);
    for (size_t i = 0; i < tensor->count; i++, place += tensor->bytes) {
        if (i % filter == 0)
            scale = channel_scale(to, tensor->node, i / filter);
        if (tensor->bytes == 4)
            test_put_f32(place, to->weight[i]);
        else if (tensor->bytes == 2)
            put_bf16(place, to->weight[i]);
        else
            *place = (uint8_t)(int8_t)rintf(to->weight[i] / scale);
    }
}

static void write_folded(struct writing *to, const struct test_tensor *tensor) {
    if (strcmp(tensor->name, "weight") == 0) {
        write_weights(to, tensor);
        return;
    }
    float activation = strstr(tensor->node->name, ".se.fc1") ? 1 : TEST_ACTIVATION;
    for (size_t i = 0; i < tensor->count; i++)
        test_put_f32(to->data + tensor->offset + 4 * i, strcmp(tensor->name, "scale") == 0
                                                            ? channel_scale(to, tensor->node, i)
                                                        : strcmp(tensor->name, "bias") == 0 ? to->bias[i]
                                                                                            : activation);
}

static void write_tensor(void *context, const struct test_tensor *tensor) {
    struct writing *to = context;
    if (to->config->precision >= RESNET_PRECISION_BF16) {
        write_folded(to, tensor);
        return;
    }
    for (size_t i = 0; i < tensor->count; i++)
        test_put_f32(to->data + tensor->offset + 4 * i, to->content->fill(to->content->context, tensor, i));
}

static void write_kinds(const struct test_layout *layout, uint8_t *data) {
    uint32_t kinds;
    uint8_t *to = data + test_kinds(layout, &kinds);
    for (uint32_t i = 0, layer = 0; kinds && i < layout->graph->count; i++)
        if (has_tensors(&layout->graph->nodes[i])) {
            to[layer] = is_kept(layout->kept, &layout->graph->nodes[i], layer);
            layer++;
        }
}

static struct test_bytes new_bytes(size_t size) {
    struct test_bytes bytes = {calloc(size ? size : 1, 1), size};
    if (!bytes.data)
        fail_msg("no %zu bytes for the test itself", size);
    return bytes;
}

struct test_bytes test_model_file(const resnet_config *config, const struct test_content *content) {
    struct test_random random = {1};
    struct test_content filled = *content;
    resnet_preprocess how = {.resize = 256};
    for (int c = 0; c < RESNET_MAX_CHANNELS; c++) {
        how.mean[c] = 0.5F;
        how.std[c] = 0.25F;
    }
    if (!filled.fill) {
        filled.fill = test_fill_random;
        filled.context = filled.context ? filled.context : &random;
    }
    struct graph graph;
    resnet_error error;
    resnet_allocator allocator = memory_allocator(NULL);
    struct shape input = {config->height, config->width, config->in_channels};
    assert_status(RESNET_OK, graph_build(&graph, config, input, &allocator, &error), &error);
    struct test_layout layout = {&graph, content->labels ? (uint32_t)strlen(content->labels) : 0, config->precision,
                                 content->kept};
    struct test_bytes bytes = new_bytes(test_each_tensor(&layout, NULL, NULL));
    struct writing writing = {.data = bytes.data, .content = &filled, .config = config};
    writing.preprocess = content->preprocess ? content->preprocess : &how;
    test_header(bytes.data, config, writing.preprocess, layout.labels_size);
    test_put_u32(bytes.data + 16, (uint32_t)bytes.size); /* below 2^30: the upper half of the field stays 0 */
    if (layout.labels_size)
        memcpy(bytes.data + HEADER, content->labels, layout.labels_size);
    write_kinds(&layout, bytes.data);
    test_each_tensor(&layout, write_tensor, &writing);
    free(writing.weight);
    free(writing.bias);
    graph_free(&graph, &allocator);
    test_seal(&bytes);
    return bytes;
}

struct test_bytes test_bytes_copy(const struct test_bytes *from) {
    struct test_bytes bytes = new_bytes(from->size);
    memcpy(bytes.data, from->data, from->size);
    return bytes;
}

void test_bytes_free(struct test_bytes *bytes) {
    free(bytes->data);
    *bytes = (struct test_bytes){0};
}

resnet_config test_tiny_config(void) {
    return (resnet_config){
        .block = RESNET_BLOCK_BASIC,
        .blocks = {1},
        .base_width = 4,
        .groups = 1,
        .width_per_group = 64,
        .in_channels = 3,
        .height = 8,
        .width = 8,
        .classes = 2,
        .precision = RESNET_PRECISION_F32,
        .bn_epsilon = 1e-5F,
    };
}

resnet_config test_odd_config(void) {
    resnet_config config = test_tiny_config();
    config.block = RESNET_BLOCK_BASIC;
    memcpy(config.blocks, (uint32_t[]){2, 1, 1, 0}, sizeof config.blocks);
    config.base_width = 13;
    config.height = 19;
    config.width = 30;
    config.classes = 7;
    return config;
}

resnet_config test_stored_in(resnet_config config, resnet_precision precision) {
    config.precision = precision;
    return config;
}

resnet_config test_any_config(struct test_random *random) {
    uint32_t stages = test_between(random, 1, 4);
    resnet_config config = test_tiny_config();
    bool bottleneck = test_below(random, 2), dilates = bottleneck && stages == 4 && test_below(random, 2);
    config.block = bottleneck ? RESNET_BLOCK_BOTTLENECK : RESNET_BLOCK_BASIC;
    for (uint32_t stage = 0; stage < stages; stage++)
        config.blocks[stage] = test_between(random, 1, 3);
    config.stride_at = (resnet_stride_at)test_below(random, 2);
    config.stem = (resnet_stem)test_below(random, dilates ? RESNET_STEM_CIFAR : RESNET_STEM_CIFAR + 1);
    config.shortcut = (resnet_shortcut)test_below(random, dilates ? 1 : bottleneck ? 2 : 3);
    config.output_stride = dilates ? 8U << test_below(random, 2) : 0;
    bool deep = config.stem == RESNET_STEM_DEEP || config.stem == RESNET_STEM_TIERED;
    config.base_width = deep ? 8 * test_between(random, 1, 3) : test_between(random, 1, 24);
    config.width_per_group = test_between(random, 64, 130);
    if (bottleneck && test_below(random, 2)) { /* of 4 or 8 channels in the first stage, and twice as many in each */
        config.groups = test_between(random, 2, 4);
        config.base_width = 16;
        config.width_per_group = 16U << test_below(random, 2);
    }
    config.attention = (resnet_attention)test_below(random, 2);
    config.attention_width = config.attention ? test_between(random, 1, 9) : 0;
    config.head = (resnet_head)test_below(random, 3);
    config.classes = config.head == RESNET_HEAD_NONE ? 0 : test_between(random, 1, 20);
    config.in_channels = test_between(random, 1, RESNET_MAX_CHANNELS);
    config.height = config.width = 24;
    return config;
}

resnet_model *test_model(const resnet_config *config, uint64_t seed, const resnet_load_options *options) {
    struct test_random random = {seed};
    struct test_bytes bytes = test_model_file(config, &(struct test_content){.context = &random});
    resnet_model *model;
    resnet_error error;
    assert_status(RESNET_OK, resnet_model_load_memory(bytes.data, bytes.size, options, &model, &error), &error);
    test_bytes_free(&bytes);
    return model;
}

/* ---- Errors ---- */

void test_assert_status(resnet_status expected, resnet_status actual, const resnet_error *error, const char *file,
                        int line) {
    bool explained = error && actual != RESNET_OK;
    if (actual != expected) {
        print_error("%s instead of %s: %s\n", resnet_status_name(actual), resnet_status_name(expected),
                    explained ? error->message : "");
        _fail(file, line);
    }
    if (!explained)
        return;
    size_t length = strnlen(error->message, sizeof error->message);
    if (error->status != actual || length == 0 || length == sizeof error->message || strchr(error->message, '\n')) {
        print_error("an error that does not say what went wrong: status %d, message '%.*s'\n", (int)error->status,
                    (int)length, error->message);
        _fail(file, line);
    }
}

/* ---- Memory ---- */

#define RED_ZONE 64 /* before and after each block; the one before starts with the size */

static const uint8_t red = 0xe5;

static bool must_refuse(const struct test_memory *memory) {
    return memory->refuse &&
           (memory->calls == memory->refuse || (memory->refuse_later && memory->calls > memory->refuse));
}

static void *counted_allocate(void *context, size_t size) {
    struct test_memory *memory = context;
    void *whole = NULL;
    pthread_mutex_lock(&memory->mutex);
    memory->calls++;
    if (!size)
        memory->fault = "asked for no bytes";
    if (!must_refuse(memory) && posix_memalign(&whole, 64, size + 2 * RED_ZONE) == 0) {
        uint8_t *block = whole;
        memset(block, red, RED_ZONE);
        memcpy(block, &size, sizeof size);
        memset(block + RED_ZONE, memory->pattern, size);
        memset(block + RED_ZONE + size, red, RED_ZONE);
        memory->live_blocks++;
        memory->live_bytes += size;
        if (memory->peak_bytes < memory->live_bytes)
            memory->peak_bytes = memory->live_bytes;
    }
    pthread_mutex_unlock(&memory->mutex);
    return whole ? (uint8_t *)whole + RED_ZONE : NULL;
}

static bool zone_is_whole(const uint8_t *zone, size_t from) {
    for (size_t i = from; i < RED_ZONE; i++)
        if (zone[i] != red)
            return false;
    return true;
}

static void counted_release(void *context, void *released, size_t size) {
    struct test_memory *memory = context;
    uint8_t *block = (uint8_t *)released - RED_ZONE;
    size_t allocated;
    memcpy(&allocated, block, sizeof allocated);
    pthread_mutex_lock(&memory->mutex);
    if (size != allocated)
        memory->fault = "released with another size than it was allocated with";
    else if (!zone_is_whole(block, sizeof size) || !zone_is_whole(block + RED_ZONE + allocated, 0))
        memory->fault = "wrote beyond a block";
    memory->live_blocks--;
    memory->live_bytes -= allocated;
    pthread_mutex_unlock(&memory->mutex);
    memset(block, 0xdd, RED_ZONE + allocated); /* who reads on will notice */
    free(block);
}

void test_memory_init(struct test_memory *memory, uint8_t pattern) {
    *memory = (struct test_memory){.allocator = {counted_allocate, counted_release, memory}, .pattern = pattern};
    pthread_mutex_init(&memory->mutex, NULL);
}

void test_memory_check(struct test_memory *memory) {
    if (memory->fault)
        fail_msg("%s", memory->fault);
    if (memory->live_blocks || memory->live_bytes)
        fail_msg("%zu blocks with %zu bytes were not given back", memory->live_blocks, memory->live_bytes);
}
