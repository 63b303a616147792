/*
 * fuzz_lists.c - any bytes as what the program reads besides models and images: lists, tables of classes, embeddings,
 * heads of arrays, archives of them, JSON, tar; and any text on its way to a terminal.
 *
 * The first byte says which. Complaints go to the standard error, of which a fuzzer sees nothing (-close_fd_mask=2).
 */
#define _GNU_SOURCE /* memfd_create, open_memstream */
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include "container.h"
#include "embeddings.h"
#include "fuzz.h"
#include "json.h"
#include "labelled.h"
#include "lines.h"
#include "npy.h"
#include "npz.h"
#include "tar.h"
#include "text.h"

/* A regular file without a place on a disk; its name. */
struct temporary {
    int descriptor;
    char name[64];
};

static struct temporary make_file(const uint8_t *data, size_t size) {
    struct temporary file = {memfd_create("fuzz", MFD_CLOEXEC), ""};
    REQUIRE(file.descriptor >= 0);
    REQUIRE(write(file.descriptor, data, size) == (ssize_t)size);
    snprintf(file.name, sizeof file.name, "/proc/self/fd/%d", file.descriptor);
    return file;
}

static void try_list(const uint8_t *data, size_t size) {
    struct temporary file = make_file(data, size);
    struct lines lines = {0};
    size_t count = 0;
    REQUIRE(lines_open(&lines, file.name));
    while (lines_next(&lines)) {
        size_t length = strlen(lines.text);
        REQUIRE(length > 0 && length < sizeof lines.text && !strchr(lines.text, '\n'));
        count++;
    }
    REQUIRE(count <= size && lines.number <= size + 1);
    lines_close(&lines);
    close(file.descriptor);
}

static void try_table(const uint8_t *data, size_t size) {
    uint32_t classes = size ? 1 + data[0] : 1;
    struct temporary file = make_file(data, size);
    struct labelled set = {0};
    labelled_from_table(&set, file.name, classes);
    for (size_t i = 0; i < set.count; i++)
        REQUIRE(set.images[i].class < classes && !strchr(set.images[i].path, '\t'));
    labelled_free(&set);
    close(file.descriptor);
}

static void try_array(const uint8_t *data, size_t size) {
    struct fuzz_stream stream = {data, size};
    struct npy_shape shape = {.dimensions = 1 + fuzz_take(&stream, 1) % NPY_MAX_DIMENSIONS};
    const char *reason = NULL;
    struct temporary temporary = make_file(stream.data, stream.size);
    FILE *file = fopen(temporary.name, "rb");
    REQUIRE(file);
    if (npy_read_head(file, &shape, &reason)) {
        uint64_t numbers = 1;
        for (uint32_t d = 0; d < shape.dimensions; d++)
            REQUIRE(!__builtin_mul_overflow(numbers, shape.sizes[d], &numbers) || numbers == 0);
        REQUIRE(numbers * sizeof(float) == stream.size - (size_t)ftell(file));
    } else
        REQUIRE(reason && *reason);
    fclose(file);
    close(temporary.descriptor);
}

static void write_file(const char *name, const uint8_t *data, size_t size) {
    FILE *file = fopen(name, "wb");
    REQUIRE(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

/* A matrix and the table beside it: two bytes say where the one ends and the other begins. */
static void try_embeddings(const uint8_t *data, size_t size) {
    static char matrix[64], table[64];
    if (!*matrix) {
        snprintf(matrix, sizeof matrix, "/tmp/resnet-fuzz-%ld.npy", (long)getpid());
        snprintf(table, sizeof table, "/tmp/resnet-fuzz-%ld.tsv", (long)getpid());
    }
    struct fuzz_stream stream = {data, size};
    size_t cut = fuzz_take(&stream, 2);
    cut = cut < stream.size ? cut : stream.size;
    write_file(matrix, stream.data, cut);
    write_file(table, stream.data + cut, stream.size - cut);
    struct embeddings set = {0};
    if (embeddings_read(&set, matrix))
        for (uint32_t i = 0; i < set.count; i++)
            REQUIRE(embeddings_can_name(set.rows[i].file));
    embeddings_free(&set);
    unlink(matrix);
    unlink(table);
}

static void try_archive(const uint8_t *data, size_t size) {
    struct temporary file = make_file(data, size);
    struct npz npz = {0};
    resnet_error error = {RESNET_OK, ""};
    const char *container;
    REQUIRE(container_of_file(file.name, &container, &error) == RESNET_OK);
    resnet_status status = npz_open(&npz, file.name, &error);
    fuzz_check_error(status, &error);
    for (uint32_t i = 0; status == RESNET_OK && i < npz.count; i++) {
        const struct npz_member *member = &npz.members[i];
        REQUIRE(member->count * sizeof(float) <= size && member->offset <= size && member->size <= size);
        REQUIRE(npz_find(&npz, member->name));
        float *values = malloc(member->count * sizeof *values);
        REQUIRE(values);
        npz_read(&npz, member, values, NULL);
        free(values);
    }
    npz_close(&npz);
    close(file.descriptor);
}

static void visit(void *context, const struct json_value *value) {
    ++*(size_t *)context;
    REQUIRE(strlen(value->path) < 128 && (!value->text || strlen(value->text) < 64));
    REQUIRE(!value->text || isnan(value->number));
}

static void try_json(const uint8_t *data, size_t size) {
    char *copy = (char *)fuzz_copy(data, size);
    size_t count = 0;
    json_read(copy, size, visit, &count);
    REQUIRE(count <= size);
    free(copy);
}

/* What is printed has no control characters and is valid UTF-8. */
static void try_text(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1), *printed = NULL;
    size_t length = 0;
    REQUIRE(text);
    memcpy(text, data, size);
    text[size] = '\0';
    FILE *stream = open_memstream(&printed, &length);
    REQUIRE(stream);
    print_clean(stream, text);
    REQUIRE(fclose(stream) == 0);
    for (const char *at = printed; *at;)
        REQUIRE(!is_control(utf8_next(&at)));
    free(printed);
    const char *half = text + strlen(text) / 2;
    const char *rest = without_name(text, half);
    REQUIRE(rest >= text && rest <= text + strlen(text));
    free(text);
}

/* Make the checksum right in each block that looks like a header, which chance would not. */
static void mend_sums(uint8_t *data, size_t size) {
    for (size_t at = 0; size - at >= 512; at += 512) {
        uint8_t *block = data + at;
        unsigned sum = 0;
        if (memcmp(block + 257, "ustar", 5) != 0)
            continue;
        memset(block + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += block[i];
        snprintf((char *)block + 148, 8, "%06o", sum);
    }
}

/* Every other member is read, the rest passed over. */
static void try_tar(const uint8_t *data, size_t size) {
    uint8_t *mended = fuzz_copy(data, size);
    mend_sums(mended, size);
    struct temporary file = make_file(mended, size);
    free(mended);
    struct tar tar;
    REQUIRE(tar_open(&tar, file.name));
    for (size_t count = 0; tar_next(&tar); count++) {
        size_t length = strlen(tar.path);
        REQUIRE(length > 4 && length <= TAR_MOST_PATH && count < size / 512);
        if (count % 2 || tar.size > size)
            continue;
        uint8_t *member = malloc((size_t)tar.size + 1);
        REQUIRE(member);
        tar_read(&tar, member);
        free(member);
    }
    REQUIRE(tar.at <= size);
    tar_close(&tar);
    close(file.descriptor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const targets[])(const uint8_t *, size_t) = {try_list, try_table, try_array,   try_embeddings,
                                                               try_json, try_text,  try_archive, try_tar};
    if (size > 0)
        targets[data[0] % 8](data + 1, size - 1);
    return 0;
}
