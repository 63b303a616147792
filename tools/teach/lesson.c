/* lesson.c - a file of the embeddings that a network was taught with. */
#include "lesson.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crc.h"
#include "error.h"
#include "file.h"
#include "memory.h"
#include "views.h"

#define ORDER        0x01020304U
#define MOST_COUNT   (1U << 24)
#define MOST_TEXT    (1U << 30)
#define CHUNK_BYTES  65536
#define PADDED(size) (((size) + 7) & ~(uint64_t)7)

static const uint8_t magic[8] = {0x8b, 'R', 'N', 'E', '\r', '\n', 0x1a, '\n'};

struct header {
    uint8_t magic[8];
    uint32_t order, crc; /* crc: of all that is behind it */
    uint64_t identity;
    uint32_t precision, views, resize, features, classes, count, text_size, zeros[3]; /* views: flip + 2 crops */
};

/* Where each part starts; the ranges that are checked keep all of it far below 2^64. */
struct places {
    uint64_t hashes, classes, values, end;
};

static uint64_t row_size(const struct lesson *e) {
    const struct viewer viewer = {.flip = e->flip, .crops = e->crops};
    return (uint64_t)views_count(&viewer) * e->features * sizeof(float);
}

static struct places places_of(const struct lesson *e) {
    struct places p = {.hashes = sizeof(struct header) + PADDED(e->text_size)};
    p.classes = p.hashes + (uint64_t)e->count * sizeof *e->hashes;
    p.values = p.classes + PADDED((uint64_t)e->count * sizeof *e->class);
    p.end = p.values + PADDED(e->count * row_size(e));
    return p;
}

/* ---- Read ---- */

static resnet_status parse(struct lesson *e, const struct header *h, resnet_error *error) {
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return fail(error, RESNET_ERROR_MODEL, "not a file of embeddings: its first bytes are not those of one");
    if (h->order != ORDER)
        return fail(error, RESNET_ERROR_MODEL, "a file of embeddings from a machine of another byte order");
    if (h->views > 3 || h->features == 0 || h->features > 1U << 20 || h->count == 0 || h->count > MOST_COUNT ||
        h->classes == 0 || h->classes > h->count || h->text_size > MOST_TEXT ||
        h->precision > RESNET_PRECISION_BF16X3 || h->resize > 16384)
        return fail(error, RESNET_ERROR_MODEL, "a number in the header is out of range");
    *e = (struct lesson){.identity = h->identity,
                         .precision = h->precision,
                         .flip = h->views % 2,
                         .crops = h->views / 2,
                         .resize = h->resize,
                         .features = h->features,
                         .classes = h->classes,
                         .count = h->count,
                         .text_size = h->text_size,
                         .descriptor = e->descriptor};
    return RESNET_OK;
}

static resnet_status check_crc(const struct lesson *e, uint32_t wanted, uint64_t size, resnet_error *error) {
    uint64_t at = offsetof(struct header, identity);
    uint8_t chunk[CHUNK_BYTES];
    uint32_t found = 0;
    struct crc crc;
    crc_prepare(&crc);
    while (at < size) {
        size_t part = size - at < sizeof chunk ? (size_t)(size - at) : sizeof chunk;
        resnet_status status = file_read(e->descriptor, at, chunk, part, error);
        if (status != RESNET_OK)
            return status;
        at += part;
        found ^= crc_share(crc_of(&crc, chunk, part), size - at);
    }
    return found == wanted ? RESNET_OK
                           : fail(error, RESNET_ERROR_MODEL, "the file is damaged: its checksum does not match");
}

static resnet_status check_content(const struct lesson *e, resnet_error *error) {
    uint32_t strings = 0;
    for (uint32_t i = 0; i < e->text_size; i++)
        strings += e->text[i] == '\0';
    if (strings != e->classes + e->count || e->text[e->text_size - 1])
        return fail(error, RESNET_ERROR_MODEL, "%u labels and names; there must be %u", strings, e->classes + e->count);
    for (uint32_t i = 0; i < e->count; i++)
        if (e->class[i] >= e->classes)
            return fail(error, RESNET_ERROR_MODEL, "photograph %u is of class %u; there are %u", i, e->class[i],
                        e -> classes);
    return RESNET_OK;
}

static resnet_status read_parts(struct lesson *e, resnet_error *error) {
    struct places p = places_of(e);
    e->text = malloc((size_t)e->text_size + 1);
    e->hashes = malloc(e->count * sizeof *e->hashes);
    e->class = malloc(e->count * sizeof *e->class);
    if (!e->text || !e->hashes || !e->class)
        return fail_memory(error, "the names of the photographs", e->text_size);
    resnet_status status = file_read(e->descriptor, sizeof(struct header), e->text, e->text_size, error);
    if (status == RESNET_OK)
        status = file_read(e->descriptor, p.hashes, e->hashes, e->count * sizeof *e->hashes, error);
    if (status == RESNET_OK)
        status = file_read(e->descriptor, p.classes, e->class, e->count * sizeof *e->class, error);
    return status == RESNET_OK ? check_content(e, error) : status;
}

resnet_status lesson_open(struct lesson *e, const char *path, resnet_error *error) {
    struct header header;
    uint64_t size = 0;
    resnet_error reason = {RESNET_OK, ""};
    *e = (struct lesson){.descriptor = -1};
    resnet_status status = file_open(path, &e->descriptor, &size, &reason);
    if (status == RESNET_OK && size < sizeof header)
        status =
            fail(&reason, RESNET_ERROR_MODEL, "not a file of embeddings: it has %llu bytes", (unsigned long long)size);
    if (status == RESNET_OK)
        status = file_read(e->descriptor, 0, &header, sizeof header, &reason);
    if (status == RESNET_OK)
        status = parse(e, &header, &reason);
    if (status == RESNET_OK && places_of(e).end != size)
        status = fail(&reason, RESNET_ERROR_MODEL, "has %llu bytes where its header says %llu",
                      (unsigned long long)size, (unsigned long long)places_of(e).end);
    if (status == RESNET_OK)
        status = check_crc(e, header.crc, size, &reason);
    if (status == RESNET_OK)
        status = read_parts(e, &reason);
    return status == RESNET_OK ? status : fail_file(error, status, path, &reason);
}

void lesson_close(struct lesson *e) {
    if (e->descriptor >= 0)
        close(e->descriptor);
    free(e->text);
    free(e->hashes);
    free(e->class);
    *e = (struct lesson){.descriptor = -1};
}

resnet_status lesson_read(const struct lesson *e, uint32_t number, float *values, resnet_error *error) {
    return file_read(e->descriptor, places_of(e).values + number * row_size(e), values, row_size(e), error);
}

/* ---- Write ---- */

/* A part with its padding; *crc becomes that of all so far. */
struct writing {
    FILE *out;
    struct crc crc;
    uint32_t value;
    uint64_t left; /* bytes behind this part */
};

static void put(struct writing *w, const void *bytes, uint64_t size) {
    static const uint8_t zeros[8] = {0};
    uint64_t padding = PADDED(size) - size;
    w->left -= size + padding;
    w->value ^= crc_share(crc_of(&w->crc, bytes, size), w->left + padding) ^
                crc_share(crc_of(&w->crc, zeros, padding), w->left);
    fwrite(bytes, 1, size, w->out);
    fwrite(zeros, 1, padding, w->out);
}

void lesson_write(const struct lesson *e, const float *values, FILE *out) {
    const size_t checked = offsetof(struct header, identity);
    struct header header = {.order = ORDER,
                            .identity = e->identity,
                            .precision = e->precision,
                            .views = e->flip + 2 * e->crops,
                            .resize = e->resize,
                            .features = e->features,
                            .classes = e->classes,
                            .count = e->count,
                            .text_size = e->text_size};
    struct writing w = {.out = out, .left = places_of(e).end - checked};
    memcpy(header.magic, magic, sizeof magic);
    crc_prepare(&w.crc);
    fwrite(&header, 1, checked, out);
    put(&w, &header.identity, sizeof header - checked);
    put(&w, e->text, e->text_size);
    put(&w, e->hashes, e->count * sizeof *e->hashes);
    put(&w, e->class, e->count * sizeof *e->class);
    put(&w, values, e->count * row_size(e));
    header.crc = w.value;
    rewind(out);
    fwrite(&header, 1, sizeof header, out); /* the stream remembers what fails */
}
