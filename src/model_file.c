/* model_file.c - read a model file (models/FORMAT.md), piece by piece, from a file or from memory. */
#define _POSIX_C_SOURCE 200809L /* close */
#include "model_file.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"
#include "floats.h"

#define HEADER_SIZE 256
#define MOST_RESIZE 16384

static const uint8_t magic[8] = {0x8b, 'R', 'N', 'T', '\r', '\n', 0x1a, '\n'};

/* ---- Bytes ---- */

/* The caller has made sure that the file has these bytes. */
static resnet_status copy_bytes(const struct model_file *file, uint64_t offset, void *bytes, size_t size,
                                resnet_error *error) {
    if (file->descriptor >= 0)
        return file_read(file->descriptor, offset, bytes, size, error);
    if (size)
        memcpy(bytes, file->data + offset, size);
    return RESNET_OK;
}

/* Likewise; and they count for the checksum of the payload. */
static resnet_status read_bytes(struct model_file *file, uint64_t offset, void *bytes, size_t size,
                                resnet_error *error) {
    resnet_status status = copy_bytes(file, offset, bytes, size, error);
    if (status == RESNET_OK)
        atomic_fetch_xor_explicit(&file->payload,
                                  crc_share(crc_of(&file->crc, bytes, size), file->size - offset - size),
                                  memory_order_relaxed);
    return status;
}

static resnet_status check_padding(const uint8_t *bytes, uint64_t offset, uint64_t end, resnet_error *error) {
    for (uint64_t i = offset; i < end; i++)
        if (bytes[i - offset])
            return fail(error, RESNET_ERROR_MODEL, "the padding before byte %llu is not zero", (unsigned long long)end);
    return RESNET_OK;
}

/* From `offset` on, up to where the next tensor starts. */
static resnet_status read_padding(struct model_file *file, uint64_t offset, resnet_error *error) {
    uint8_t padding[ALIGNMENT];
    resnet_status status = read_bytes(file, offset, padding, align_up(offset) - offset, error);
    return status == RESNET_OK ? check_padding(padding, offset, align_up(offset), error) : status;
}

/* ---- Header ---- */

static uint32_t u32_at(const uint8_t *header, size_t offset) {
    const uint8_t *p = header + offset;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t u64_at(const uint8_t *header, size_t offset) {
    return u32_at(header, offset) | (uint64_t)u32_at(header, offset + 4) << 32;
}

static float f32_at(const uint8_t *header, size_t offset) {
    uint32_t bits = u32_at(header, offset);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Is this a model file of this version, whole and unchanged? */
static resnet_status check_envelope(struct model_file *file, const uint8_t *header, resnet_error *error) {
    if (memcmp(header, magic, sizeof magic) != 0)
        return fail(error, RESNET_ERROR_MODEL, "not a model file: its first bytes are not those of one");
    uint32_t version = u32_at(header, 8);
    if (version != 1)
        return fail(error, RESNET_ERROR_MODEL, "format version %u; this library reads version 1", version);
    uint8_t copy[HEADER_SIZE];
    memcpy(copy, header, HEADER_SIZE);
    memset(copy + 12, 0, 4);
    if (crc_of(&file->crc, copy, HEADER_SIZE) != u32_at(header, 12))
        return fail(error, RESNET_ERROR_MODEL, "the header's checksum does not match: the file is damaged");
    if (u64_at(header, 16) != file->size)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes where its header says %llu",
                    (unsigned long long)file->size, (unsigned long long)u64_at(header, 16));
    return RESNET_OK;
}

/* Bytes that must be zero: flags and reserved fields. */
static resnet_status check_reserved(const uint8_t *header, resnet_error *error) {
    for (uint32_t byte = 28; byte < 128; byte++) {
        bool is_flag = byte < 32, is_reserved = byte >= 104;
        if ((is_flag || is_reserved) && header[byte])
            return fail(error, RESNET_ERROR_UNSUPPORTED, "%s (header byte %u) is %u; only 0 is supported",
                        is_flag ? "flags" : "a reserved field", byte, header[byte]);
    }
    return RESNET_OK;
}

static void parse_config(const uint8_t *header, resnet_config *config) {
    *config = (resnet_config){
        .block = (resnet_block)header[32],
        .stride_at = (resnet_stride_at)header[33],
        .stem = (resnet_stem)header[34],
        .shortcut = (resnet_shortcut)header[35],
        .attention = (resnet_attention)header[36],
        .head = (resnet_head)header[37],
        .precision = (resnet_precision)(header[38] + 1),
        .base_width = u32_at(header, 56),
        .groups = u32_at(header, 60),
        .width_per_group = u32_at(header, 64),
        .output_stride = u32_at(header, 68),
        .in_channels = u32_at(header, 72),
        .height = u32_at(header, 76),
        .width = u32_at(header, 80),
        .classes = u32_at(header, 84),
        .attention_width = u32_at(header, 100),
        .bn_epsilon = f32_at(header, 88),
    };
    for (uint32_t stage = 0; stage < RESNET_MAX_STAGES; stage++)
        config->blocks[stage] = u32_at(header, 40 + 4 * stage);
}

static resnet_status parse_preprocess(struct model_file *file, const uint8_t *header, resnet_error *error) {
    resnet_preprocess *how = &file->preprocess;
    how->interpolation = (resnet_interpolation)header[39];
    how->resize = u32_at(header, 92);
    if (header[39] > RESNET_BICUBIC)
        return fail(error, RESNET_ERROR_MODEL, "interpolation %u is neither bilinear (0) nor bicubic (1)", header[39]);
    if (how->resize > MOST_RESIZE)
        return fail(error, RESNET_ERROR_MODEL, "resize to %u pixels; at most %d", how->resize, MOST_RESIZE);
    for (uint32_t c = 0; c < RESNET_MAX_CHANNELS; c++) {
        how->mean[c] = f32_at(header, 128 + 4 * c);
        how->std[c] = f32_at(header, 192 + 4 * c);
        bool used = c < file->config.in_channels;
        bool unused_zero = u32_at(header, 128 + 4 * c) == 0 && u32_at(header, 192 + 4 * c) == 0;
        bool sound = isfinite(how->mean[c]) && isfinite(how->std[c]) && how->std[c] > 0;
        if (used ? !sound : !unused_zero)
            return fail(error, RESNET_ERROR_MODEL,
                        "mean %g and std %g of channel %u; std must be above 0, and both 0 %s", (double)how->mean[c],
                        (double)how->std[c], c, "from in_channels on");
    }
    return RESNET_OK;
}

/* config_check speaks of a config; here it came from a file, and a value out of range makes the file invalid. */
static resnet_status check_config(const struct model_file *file, resnet_error *error) {
    resnet_error detail;
    resnet_status status = config_check(&file->config, &detail);
    if (status == RESNET_OK)
        return RESNET_OK;
    status = status == RESNET_ERROR_UNSUPPORTED ? status : RESNET_ERROR_MODEL;
    return fail(error, status, "%s", detail.message);
}

static resnet_status read_header(struct model_file *file, resnet_error *error) {
    uint8_t header[HEADER_SIZE];
    crc_prepare(&file->crc);
    if (file->size < HEADER_SIZE)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes; a model file has at least %d",
                    (unsigned long long)file->size, HEADER_SIZE);
    if (file->size > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes; a model file has at most %llu",
                    (unsigned long long)file->size, (unsigned long long)MODEL_FILE_MOST_BYTES);
    resnet_status status = copy_bytes(file, 0, header, HEADER_SIZE, error);
    if (status == RESNET_OK)
        status = check_envelope(file, header, error);
    if (status == RESNET_OK)
        status = check_reserved(header, error);
    if (status != RESNET_OK)
        return status;
    parse_config(header, &file->config);
    file->labels_size = u32_at(header, 96);
    file->payload_crc = u32_at(header, 24);
    status = check_config(file, error);
    if (status == RESNET_OK && file->labels_size > MODEL_FILE_MOST_LABELS)
        status = fail(error, RESNET_ERROR_MODEL, "%u bytes of labels; at most %u", file->labels_size,
                      MODEL_FILE_MOST_LABELS);
    return status == RESNET_OK ? parse_preprocess(file, header, error) : status;
}

/* ---- Open and close ---- */

resnet_status model_file_open(struct model_file *file, const char *path, resnet_error *error) {
    memset(file, 0, sizeof *file);
    resnet_status status = file_open(path, &file->descriptor, &file->size, error);
    return status == RESNET_OK ? read_header(file, error) : status;
}

resnet_status model_file_open_memory(struct model_file *file, const void *data, size_t size, resnet_error *error) {
    memset(file, 0, sizeof *file);
    file->descriptor = -1;
    file->data = data;
    file->size = size;
    return read_header(file, error);
}

void model_file_close(struct model_file *file) {
    if (file->descriptor >= 0)
        close(file->descriptor);
    file->descriptor = -1;
}

/* ---- Places ---- */

/* What the numbers of a vector must satisfy besides being finite. */
enum rule { ANY, NOT_NEGATIVE, NORMAL, ACTIVATION, ONE };

struct vector_kind {
    const char *name; /* NULL ends a list */
    enum rule rule;
    bool single; /* one number, rather than one for each output channel */
};

/* The vectors behind the weights, in the file's order. */
static const struct vector_kind *vector_kinds(const struct node *node, resnet_precision precision, bool kept) {
    static const struct vector_kind batchnorm[] = {
        {.name = "scale"}, {.name = "shift"}, {.name = "mean"}, {.name = "variance", .rule = NOT_NEGATIVE}, {0}};
    static const struct vector_kind bias[] = {{.name = "bias"}, {0}};
    static const struct vector_kind kept_in_f32[] = {{.name = "bias"}, {"activation", ACTIVATION, true}, {0}};
    static const struct vector_kind quantised[] = {
        {.name = "scale", .rule = NORMAL}, {.name = "bias"}, {"activation", ACTIVATION, true}, {0}};
    static const struct vector_kind squeezing[] = {{.name = "bias"}, {"activation", ONE, true}, {0}};
    static const struct vector_kind none[] = {{0}};
    if (!node_has_weights(node))
        return none;
    if (precision == RESNET_PRECISION_INT8 && kept)
        return node->op == OP_LINEAR && node->relu ? squeezing : kept_in_f32;
    if (precision == RESNET_PRECISION_INT8)
        return quantised;
    return precision == RESNET_PRECISION_F32 && node->op == OP_CONV ? batchnorm : bias;
}

static uint64_t vector_count(const struct stored *stored, const struct vector_kind *kind) {
    return kind->single ? 1 : stored->node->out.channels;
}

static size_t weight_size(const struct stored *stored) {
    return stored->precision == RESNET_PRECISION_INT8   ? 1
           : stored->precision == RESNET_PRECISION_BF16 ? sizeof(uint16_t)
                                                        : sizeof(float);
}

static uint64_t weights_end(const struct stored *stored) {
    return stored->weights + node_weights(stored->node) * weight_size(stored);
}

/* The ranges that config_check allows keep every term below 2^62. */
struct stored model_file_node(const struct node *node, resnet_precision precision, bool kept, uint64_t offset) {
    struct stored stored = {.node = node, .precision = kept ? RESNET_PRECISION_F32 : precision};
    stored.kinds = vector_kinds(node, precision, kept);
    stored.weights = stored.vectors = stored.end = offset;
    if (stored.kinds->name)
        stored.vectors = stored.end = align_up(weights_end(&stored));
    for (const struct vector_kind *kind = stored.kinds; kind->name; kind++)
        stored.end += align_up(vector_count(&stored, kind) * sizeof(float));
    return stored;
}

static uint64_t kinds_offset(uint32_t labels_size) {
    return align_up(HEADER_SIZE + (size_t)labels_size);
}

static uint32_t kinds_count(const struct graph *graph) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < graph->count; i++)
        count += node_has_weights(&graph->nodes[i]);
    return count;
}

uint64_t model_file_tensors(const struct graph *graph, resnet_precision precision, uint32_t labels_size) {
    uint64_t offset = kinds_offset(labels_size);
    return precision == RESNET_PRECISION_INT8 ? offset + align_up(kinds_count(graph)) : offset;
}

uint64_t model_file_size(const struct graph *graph, resnet_precision precision, const bool *kept,
                         uint32_t labels_size) {
    uint64_t size = model_file_tensors(graph, precision, labels_size);
    for (uint32_t i = 0; i < graph->count && size <= MODEL_FILE_MOST_BYTES; i++)
        size = model_file_node(&graph->nodes[i], precision, kept && kept[i], size).end;
    return size;
}

resnet_status model_file_check_size(const struct model_file *file, const struct graph *graph, const bool *kept,
                                    resnet_error *error) {
    uint64_t size = model_file_size(graph, file->config.precision, kept, file->labels_size);
    if (size > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_MODEL, "the network that its header names takes more than %llu bytes",
                    (unsigned long long)MODEL_FILE_MOST_BYTES);
    if (size != file->size)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes where the network that its header names takes %llu",
                    (unsigned long long)file->size, (unsigned long long)size);
    return RESNET_OK;
}

/* ---- Kinds and labels ---- */

/* One byte from the file for each node that has tensors. */
static resnet_status read_kind(struct model_file *file, const struct node *node, uint64_t offset, bool *kept,
                               resnet_error *error) {
    uint8_t kind = 0;
    resnet_status status = read_bytes(file, offset, &kind, 1, error);
    if (status == RESNET_OK && kind > 1)
        status = fail(error, RESNET_ERROR_MODEL, "%s: kind %u is neither int8 (0) nor f32 (1)", node->name, kind);
    *kept = kind != 0;
    return status;
}

resnet_status model_file_kinds(struct model_file *file, const struct graph *graph, bool *kept, resnet_error *error) {
    uint64_t offset = kinds_offset(file->labels_size);
    uint64_t end = model_file_tensors(graph, RESNET_PRECISION_INT8, file->labels_size);
    if (end > file->size)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes where the kinds of its layers alone end at %llu",
                    (unsigned long long)file->size, (unsigned long long)end);
    resnet_status status = RESNET_OK;
    for (uint32_t i = 0; status == RESNET_OK && i < graph->count; i++) {
        const struct node *node = &graph->nodes[i];
        kept[i] = false;
        if (!node_has_weights(node))
            continue;
        status = read_kind(file, node, offset++, &kept[i], error);
        if (status == RESNET_OK && !kept[i] && node_reads_floats(graph, node)) /* which have no scale as integers */
            status =
                fail(error, RESNET_ERROR_MODEL, "%s: kind 0, int8; attention is always kept in f32 (1)", node->name);
    }
    return status == RESNET_OK ? read_padding(file, offset, error) : status;
}

/* One label a class, each ended by a line feed; none empty, no other control byte. */
static resnet_status split_labels(const struct model_file *file, char *text, resnet_error *error) {
    uint32_t labels = 0;
    for (uint32_t i = 0; i < file->labels_size; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool empty = byte == '\n' && (i == 0 || text[i - 1] == '\0');
        if (empty || (byte < 0x20 && byte != '\n') || byte == 0x7f)
            return fail(error, RESNET_ERROR_MODEL, "label %u is empty or holds control byte %u", labels, byte);
        if (byte == '\n') {
            text[i] = '\0';
            labels++;
        }
    }
    if (file->labels_size && (labels != file->config.classes || text[file->labels_size - 1]))
        return fail(error, RESNET_ERROR_MODEL, "%u labels, each with a line feed, for %u classes", labels,
                    file->config.classes);
    return RESNET_OK;
}

resnet_status model_file_labels(struct model_file *file, char *text, resnet_error *error) {
    resnet_status status = read_bytes(file, HEADER_SIZE, text, file->labels_size, error);
    if (status == RESNET_OK)
        status = split_labels(file, text, error);
    return status == RESNET_OK ? read_padding(file, HEADER_SIZE + (uint64_t)file->labels_size, error) : status;
}

/* ---- Tensors ---- */

static resnet_status check_finite(const float *values, struct weight_range range, const struct stored *stored,
                                  const char *what, resnet_error *error) {
    if (all_finite(values, range.count))
        return RESNET_OK;
    size_t i = 0;
    while (isfinite(values[i]))
        i++;
    return fail(error, RESNET_ERROR_MODEL, "%s %s: number %llu is not finite", stored->node->name, what,
                (unsigned long long)(range.first + i));
}

static resnet_status check_rule(const float *values, size_t count, const struct stored *stored,
                                const struct vector_kind *kind, resnet_error *error) {
    static const char *const wanted[] = {
        [NOT_NEGATIVE] = "it cannot be negative",
        [NORMAL] = "it must be a normal number above 0",
        [ACTIVATION] = "it must be between 2^-40 and 2^40",
        [ONE] = "it must be 1",
    };
    resnet_status status = check_finite(values, (struct weight_range){0, count}, stored, kind->name, error);
    for (size_t i = 0; status == RESNET_OK && i < count; i++) {
        bool good = kind->rule == NOT_NEGATIVE ? values[i] >= 0
                    : kind->rule == NORMAL     ? values[i] >= FLT_MIN
                    : kind->rule == ACTIVATION ? values[i] >= 0x1p-40F && values[i] <= 0x1p40F
                    : kind->rule == ONE        ? values[i] == 1
                                               : true;
        if (!good)
            status = fail(error, RESNET_ERROR_MODEL, "%s %s: number %zu is %g; %s", stored->node->name, kind->name, i,
                          (double)values[i], wanted[kind->rule]);
    }
    return status;
}

/* Take the vectors out of their bytes, which start at `offset` of the file. */
static resnet_status unpack_vectors(const struct stored *stored, const uint8_t *bytes, uint64_t offset, float *vectors,
                                    resnet_error *error) {
    resnet_status status = check_padding(bytes, offset, stored->vectors, error);
    uint64_t place = stored->vectors;
    for (const struct vector_kind *kind = stored->kinds; status == RESNET_OK && kind->name; kind++) {
        size_t count = vector_count(stored, kind);
        for (size_t i = 0; i < count; i++)
            vectors[i] = f32_at(bytes, place - offset + i * sizeof(float));
        status = check_rule(vectors, count, stored, kind, error);
        place += count * sizeof(float);
        if (status == RESNET_OK)
            status = check_padding(bytes + (place - offset), place, align_up(place), error);
        place = align_up(place);
        vectors += count;
    }
    return status;
}

resnet_status model_file_vectors(struct model_file *file, const struct stored *stored,
                                 const resnet_allocator *allocator, float *vectors, resnet_error *error) {
    uint64_t offset = weights_end(stored);
    size_t size = stored->end - offset;
    uint8_t *bytes = memory_get(allocator, size);
    if (!bytes)
        return fail_memory(error, "a layer's vectors", size);
    resnet_status status = read_bytes(file, offset, bytes, size, error);
    if (status == RESNET_OK)
        status = unpack_vectors(stored, bytes, offset, vectors, error);
    memory_put(allocator, bytes, size);
    return status;
}

static resnet_status take_floats(float *values, const struct stored *stored, struct weight_range range,
                                 resnet_error *error) {
    for (size_t i = 0; i < range.count; i++)
        values[i] = f32_at((const uint8_t *)values, i * sizeof(float));
    return check_finite(values, range, stored, "weight", error);
}

/* The largest exponent stands for what is not finite. */
static resnet_status take_bf16(uint16_t *values, const struct stored *stored, struct weight_range range,
                               resnet_error *error) {
    int16_t largest = 0;
    for (size_t i = 0; i < range.count; i++) {
        const uint8_t *p = (const uint8_t *)(values + i);
        values[i] = (uint16_t)(p[0] | p[1] << 8);
        int16_t exponent = (int16_t)(values[i] & 0x7f80);
        largest = exponent > largest ? exponent : largest;
    }
    if (largest < 0x7f80)
        return RESNET_OK;
    size_t i = 0;
    while ((values[i] & 0x7f80) != 0x7f80)
        i++;
    return fail(error, RESNET_ERROR_MODEL, "%s weight: number %llu is not finite", stored->node->name,
                (unsigned long long)(range.first + i));
}

resnet_status model_file_weights(struct model_file *file, const struct stored *stored, struct weight_range range,
                                 void *weights, resnet_error *error) {
    size_t size = weight_size(stored);
    resnet_status status = read_bytes(file, stored->weights + range.first * size, weights, range.count * size, error);
    if (status != RESNET_OK || stored->precision == RESNET_PRECISION_INT8)
        return status;
    return stored->precision == RESNET_PRECISION_BF16 ? take_bf16(weights, stored, range, error)
                                                      : take_floats(weights, stored, range, error);
}

resnet_status model_file_finish(const struct model_file *file, resnet_error *error) {
    if (atomic_load_explicit(&file->payload, memory_order_relaxed) != file->payload_crc)
        return fail(error, RESNET_ERROR_MODEL,
                    "the checksum of labels and tensors does not match: the file is damaged");
    return RESNET_OK;
}
