/* npy.c - the head of NumPy's array files (.npy), of arrays of f32 in C order. */
#define _POSIX_C_SOURCE 200809L
#include "npy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAGIC   "\x93NUMPY"
#define PRELUDE 10 /* bytes: magic, version 1.0, size of the text */

/* Of f32 as they are in memory: so they are read and written. */
#define NUMBERS (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? "'<f4'" : "'>f4'")

void npy_write_head(FILE *file, const struct npy_shape *shape) {
    char text[NPY_HEAD - PRELUDE + 1];
    int used = snprintf(text, sizeof text, "{'descr': %s, 'fortran_order': False, 'shape': (", NUMBERS);
    for (uint32_t d = 0; d < shape->dimensions; d++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%" PRIu64 ",", shape->sizes[d]);
    used += snprintf(text + used, sizeof text - (size_t)used, ")}");
    fwrite(MAGIC "\x01\x00", 1, 8, file);
    putc(NPY_HEAD - PRELUDE, file);
    putc(0, file);
    fprintf(file, "%-*s\n", NPY_HEAD - PRELUDE - 1, text);
}

/* What stands behind "'key':" and spaces; NULL where there is no such key. */
static const char *find_value(const char *text, const char *key) {
    const char *found = strstr(text, key);
    if (!found)
        return NULL;
    found += strlen(key);
    found += strspn(found, " ");
    if (*found != ':')
        return NULL;
    return found + 1 + strspn(found + 1, " ");
}

static bool starts_with(const char *text, const char *start) {
    return text && strncmp(text, start, strlen(start)) == 0;
}

/* "(3, 4)" or "(3,)". */
static bool read_sizes(const char *text, struct npy_shape *shape) {
    if (!starts_with(text, "("))
        return false;
    text++;
    for (shape->dimensions = 0; *text != ')'; shape->dimensions++) {
        size_t digits = strspn(text, "0123456789");
        if (digits == 0 || digits > 18 || shape->dimensions == NPY_MAX_DIMENSIONS)
            return false;
        shape->sizes[shape->dimensions] = strtoull(text, NULL, 10);
        text += digits;
        text += strspn(text, ", ");
    }
    return shape->dimensions > 0;
}

bool npy_fits(const struct npy_shape *shape, uint64_t bytes) {
    uint64_t numbers = bytes / sizeof(float);
    bool empty = false;
    for (uint32_t d = 0; d < shape->dimensions; d++)
        empty = empty || shape->sizes[d] == 0;
    if (empty)
        return bytes == 0;
    for (uint32_t d = 0; d < shape->dimensions; d++) {
        if (numbers % shape->sizes[d])
            return false;
        numbers /= shape->sizes[d];
    }
    return numbers == 1 && bytes % sizeof(float) == 0;
}

size_t npy_parse_head(const uint8_t *bytes, size_t available, struct npy_shape *shape, const char **reason) {
    char text[NPY_MOST_HEAD + 1];
    *reason = "not a NumPy array";
    if (available < PRELUDE + 2 || memcmp(bytes, MAGIC, 6) != 0 || bytes[6] < 1 || bytes[6] > 3)
        return 0;
    bool is_first = bytes[6] == 1; /* later versions have a length of four bytes */
    size_t start = is_first ? PRELUDE : PRELUDE + 2, size = bytes[8] + 256u * bytes[9];
    if ((!is_first && (bytes[10] || bytes[11])) || start + size > available || start + size > NPY_MOST_HEAD)
        return 0;
    memcpy(text, bytes + start, size);
    text[size] = '\0';
    *reason = "not an array of f32 ('<f4')";
    if (!starts_with(find_value(text, "'descr'"), NUMBERS))
        return 0;
    *reason = "not in C order, or of a shape that is not 1 to 4 sizes";
    if (!starts_with(find_value(text, "'fortran_order'"), "False") || !read_sizes(find_value(text, "'shape'"), shape))
        return 0;
    return start + size;
}

bool npy_read_head(FILE *file, struct npy_shape *shape, const char **reason) {
    uint8_t bytes[NPY_MOST_HEAD];
    struct stat status;
    uint32_t wanted = shape->dimensions;
    size_t head = npy_parse_head(bytes, fread(bytes, 1, sizeof bytes, file), shape, reason);
    if (!head)
        return false;
    *reason = "not an array of the expected number of dimensions";
    if (shape->dimensions != wanted)
        return false;
    *reason = "the file's size is not that of its array";
    return fseek(file, (long)head, SEEK_SET) == 0 && fstat(fileno(file), &status) == 0 &&
           (uint64_t)status.st_size >= head && npy_fits(shape, (uint64_t)status.st_size - head);
}
