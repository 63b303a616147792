/* model_file.c - read a model file (models/FORMAT.md), front to back, from a file or from memory. */
#define _POSIX_C_SOURCE 200809L /* close */
#include "model_file.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"

#define HEADER_SIZE      256
#define MOST_LABEL_BYTES (1U << 24)
#define MOST_RESIZE      16384

static const uint8_t magic[8] = {0x8b, 'R', 'N', 'T', '\r', '\n', 0x1a, '\n'};

/* ---- CRC-32C, eight bytes at a time ---- */

/* table[0] is the usual byte table; table[i] takes a byte that i more follow. */
static void crc_prepare(uint32_t table[8][256]) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int i = 1; i < 8; i++)
            table[i][byte] = table[i - 1][byte] >> 8 ^ table[0][table[i - 1][byte] & 0xff];
}

static uint32_t crc_of(uint32_t table[8][256], uint32_t crc, const uint8_t *p, size_t size) {
    crc = ~crc;
    for (; size >= 8; p += 8, size -= 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = table[7][crc & 0xff] ^ table[6][crc >> 8 & 0xff] ^ table[5][crc >> 16 & 0xff] ^ table[4][crc >> 24] ^
              table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; size > 0; p++, size--)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

/* ---- Bytes ---- */

/* The caller has made sure that `size` bytes are left. */
static resnet_status read_bytes(struct model_file *file, void *bytes, size_t size, resnet_error *error) {
    if (size == 0)
        return RESNET_OK;
    if (file->descriptor < 0) {
        memcpy(bytes, file->data + file->position, size);
    } else {
        resnet_status status = file_read(file->descriptor, bytes, size, error);
        if (status != RESNET_OK)
            return status;
    }
    file->position += size;
    file->crc = crc_of(file->crc_table, file->crc, bytes, size);
    return RESNET_OK;
}

static resnet_status read_padding(struct model_file *file, resnet_error *error) {
    uint8_t padding[ALIGNMENT];
    size_t size = align_up(file->position) - file->position;
    resnet_status status = read_bytes(file, padding, size, error);
    for (size_t i = 0; status == RESNET_OK && i < size; i++)
        if (padding[i])
            status = fail(error, RESNET_ERROR_MODEL, "the padding before byte %llu is not zero",
                          (unsigned long long)file->position);
    return status;
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
    if (crc_of(file->crc_table, 0, copy, HEADER_SIZE) != u32_at(header, 12))
        return fail(error, RESNET_ERROR_MODEL, "the header's checksum does not match: the file is damaged");
    if (u64_at(header, 16) != file->size)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes where its header says %llu",
                    (unsigned long long)file->size, (unsigned long long)u64_at(header, 16));
    return RESNET_OK;
}

/* Bytes that must be zero: flags and reserved fields, and what is reserved for other members of the family. */
static resnet_status check_reserved(const uint8_t *header, resnet_error *error) {
    static const struct {
        const char *name;
        uint32_t first, end;
    } fields[] = {
        {"flags", 28, 32},         {"shortcut kind", 35, 36},     {"attention kind", 36, 37},     {"head kind", 37, 38},
        {"output stride", 68, 72}, {"attention width", 100, 104}, {"a reserved field", 104, 128},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (uint32_t byte = fields[i].first; byte < fields[i].end; byte++)
            if (header[byte])
                return fail(error, RESNET_ERROR_UNSUPPORTED, "%s (header byte %u) is %u; only 0 is supported",
                            fields[i].name, byte, header[byte]);
    return RESNET_OK;
}

static void parse_config(const uint8_t *header, resnet_config *config) {
    *config = (resnet_config){
        .block = (resnet_block)header[32],
        .stride_at = (resnet_stride_at)header[33],
        .stem = (resnet_stem)header[34],
        .precision = (resnet_precision)header[38],
        .base_width = u32_at(header, 56),
        .groups = u32_at(header, 60),
        .width_per_group = u32_at(header, 64),
        .in_channels = u32_at(header, 72),
        .height = u32_at(header, 76),
        .width = u32_at(header, 80),
        .classes = u32_at(header, 84),
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
    crc_prepare(file->crc_table);
    if (file->size < HEADER_SIZE)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes; a model file has at least %d",
                    (unsigned long long)file->size, HEADER_SIZE);
    if (file->size > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes; a model file has at most %llu",
                    (unsigned long long)file->size, (unsigned long long)MODEL_FILE_MOST_BYTES);
    resnet_status status = read_bytes(file, header, HEADER_SIZE, error);
    if (status == RESNET_OK)
        status = check_envelope(file, header, error);
    if (status == RESNET_OK)
        status = check_reserved(header, error);
    if (status != RESNET_OK)
        return status;
    parse_config(header, &file->config);
    file->labels_size = u32_at(header, 96);
    file->payload_crc = u32_at(header, 24);
    file->crc = 0;
    status = check_config(file, error);
    if (status == RESNET_OK && file->labels_size > MOST_LABEL_BYTES)
        status = fail(error, RESNET_ERROR_MODEL, "%u bytes of labels; at most %u", file->labels_size, MOST_LABEL_BYTES);
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

/* ---- Payload ---- */

/* Bytes that a node's tensors fill, padding included. The ranges that config_check allows keep every term below 2^62.
 */
static uint64_t node_bytes(const struct node *node) {
    uint64_t vectors = node->op == OP_CONV ? 4 : node->op == OP_LINEAR ? 1 : 0;
    uint64_t channels = node->out.channels;
    uint64_t weights = vectors ? node_weights(node) : 0;
    uint64_t pad = ALIGNMENT - 1;
    return ((weights * sizeof(float) + pad) & ~pad) + vectors * ((channels * sizeof(float) + pad) & ~pad);
}

uint64_t model_file_size(const struct graph *graph, uint32_t labels_size) {
    uint64_t size = align_up(HEADER_SIZE + (size_t)labels_size);
    for (uint32_t i = 0; i < graph->count && size <= MODEL_FILE_MOST_BYTES; i++)
        size += node_bytes(&graph->nodes[i]);
    return size;
}

resnet_status model_file_check_size(const struct model_file *file, const struct graph *graph, resnet_error *error) {
    uint64_t size = model_file_size(graph, file->labels_size);
    if (size > MODEL_FILE_MOST_BYTES)
        return fail(error, RESNET_ERROR_MODEL, "the network that its header names takes more than %llu bytes",
                    (unsigned long long)MODEL_FILE_MOST_BYTES);
    if (size != file->size)
        return fail(error, RESNET_ERROR_MODEL, "has %llu bytes where the network that its header names takes %llu",
                    (unsigned long long)file->size, (unsigned long long)size);
    return RESNET_OK;
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
    resnet_status status = read_bytes(file, text, file->labels_size, error);
    if (status == RESNET_OK)
        status = split_labels(file, text, error);
    return status == RESNET_OK ? read_padding(file, error) : status;
}

static void from_little_endian(float *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        values[i] = f32_at((const uint8_t *)values, i * sizeof(float));
}

resnet_status model_file_tensor(struct model_file *file, float *values, size_t count, const struct node *node,
                                const char *what, resnet_error *error) {
    resnet_status status = read_bytes(file, values, count * sizeof(float), error);
    if (status == RESNET_OK)
        status = read_padding(file, error);
    if (status != RESNET_OK)
        return status;
    from_little_endian(values, count);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return fail(error, RESNET_ERROR_MODEL, "%s %s: number %zu is not finite", node->name, what, i);
    return RESNET_OK;
}

resnet_status model_file_finish(const struct model_file *file, resnet_error *error) {
    if (file->crc != file->payload_crc)
        return fail(error, RESNET_ERROR_MODEL,
                    "the checksum of labels and tensors does not match: the file is damaged");
    return RESNET_OK;
}
