/* container.c - tell by its first bytes what file a checkpoint is. */
#define _POSIX_C_SOURCE 200809L /* close */
#include "container.h"

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"

#define MOST_BYTES 512

/* A file while it is looked at. */
struct start {
    const uint8_t *bytes;
    size_t size;
    uint64_t file_size;
};

static bool has(const struct start *start, size_t at, const char *bytes, size_t size) {
    return at <= start->size && size <= start->size - at && memcmp(start->bytes + at, bytes, size) == 0;
}

/* The first member of a ZIP archive has a name that ends so. */
static bool is_zip_of(const struct start *start, const char *end) {
    if (!has(start, 0, "PK\3\4", 4) || start->size < 30)
        return false;
    size_t name = start->bytes[26] | (size_t)start->bytes[27] << 8, length = strlen(end);
    return name >= length && has(start, 30 + name - length, end, length);
}

/* torch.save before 1.6: a pickle of protocol 2 with the number 0x1950a86a20f9469cfc6c alone. */
static bool is_legacy_pickle(const struct start *start) {
    return has(start, 0, "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.", 15);
}

/* A length below the file's, then JSON. */
static bool is_safetensors(const struct start *start) {
    uint64_t length = 0;
    if (!has(start, 8, "{\"", 2))
        return false;
    for (int i = 8; i-- > 0;)
        length = length << 8 | start->bytes[i];
    return length < start->file_size - 8;
}

/* JSON that names the files of a model in parts, as Hugging Face writes it. */
static bool is_index(const struct start *start) {
    bool found = false;
    for (size_t at = 1; at < start->size && !found; at++)
        found = has(start, at, "\"weight_map\"", 12);
    return found && has(start, 0, "{", 1);
}

/* A ModelProto that starts with its first field, ir_version, then has another of the first ten. */
static bool is_onnx(const struct start *start) {
    return start->size > 3 && start->bytes[0] == 0x08 && start->bytes[1] < 0x20 && start->bytes[2] >= 0x10 &&
           start->bytes[2] < 0x58;
}

const char *container_of(const uint8_t *bytes, size_t size, uint64_t file_size) {
    const struct start start = {bytes, size, file_size};
    if (has(&start, 0, "\x89HDF\r\n\x1a\n", 8))
        return "HDF5, as Keras writes it";
    if (is_zip_of(&start, "/data.pkl"))
        return "a ZIP archive of PyTorch's";
    if (is_legacy_pickle(&start))
        return "a pickle of PyTorch's, from before 1.6";
    if (is_safetensors(&start))
        return "safetensors";
    if (is_index(&start))
        return "an index of safetensors in several files";
    return is_onnx(&start) ? "ONNX" : NULL;
}

resnet_status container_of_file(const char *path, const char **container, resnet_error *error) {
    uint8_t bytes[MOST_BYTES];
    uint64_t file_size = 0;
    int descriptor;
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = file_open(path, &descriptor, &file_size, &reason);
    size_t size = file_size < MOST_BYTES ? (size_t)file_size : MOST_BYTES;
    if (status == RESNET_OK)
        status = file_read(descriptor, 0, bytes, size, &reason);
    if (descriptor >= 0)
        close(descriptor);
    if (status != RESNET_OK)
        return fail_file(error, status, path, &reason);
    *container = container_of(bytes, size, file_size);
    return RESNET_OK;
}
