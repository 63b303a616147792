/*
 * tar.c - the images in a tar archive that may be anything: ustar, pax, and GNU's long names.
 *
 * An archive is a sequence of blocks of 512 bytes: a header, then the member's bytes, padded; at its end blocks of
 * zeros. Members of the types x and L say something about the member behind them. POSIX.1-2017, pax; GNU tar, "Basic
 * Tar Format".
 */
#define _POSIX_C_SOURCE 200809L
#include "tar.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stop.h"
#include "system.h"
#include "text.h"

#define BLOCK          512u
#define MOST_EXTENSION (1u << 20) /* bytes of a member that describes another: names and times have a few hundred */
#define MOST_SIZE      ((uint64_t)1 << 62)
#define MOST_TRAILER   (1u << 20) /* bytes behind the end that are read, for whoever writes them into a pipe */

/* Where the fields of a header are, in bytes. */
enum {
    NAME = 0,
    NAME_SIZE = 100,
    SIZE = 124,
    SIZE_SIZE = 12,
    CHECKSUM = 148,
    CHECKSUM_SIZE = 8,
    TYPE = 156,
    MAGIC = 257,
    PREFIX = 345,
    PREFIX_SIZE = 155,
    SPARSE_GOES_ON = 482, /* GNU: blocks with more of the map of a sparse file follow */
    SPARSE_GOES_ON_THERE = 504
};

/* What members in front of a member said about it. */
struct extensions {
    bool named, sized, sparse; /* tar->path, `size`, and that its bytes are not simply the file's */
    uint64_t size;
};

static bool refuse(struct tar *tar, const char *why) {
    if (!stop_asked())
        complain("%s: at byte %" PRIu64 " of the archive: %s", tar->name, tar->at, why);
    tar->failed = !stop_asked();
    return false;
}

/* ---- Bytes ---- */

bool tar_open(struct tar *tar, const char *name) {
    struct stat status;
    *tar = (struct tar){.name = name};
    tar->descriptor = strcmp(name, "-") == 0 ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    if (tar->descriptor < 0 || fstat(tar->descriptor, &status) != 0) {
        complain("%s: the archive cannot be opened: %s", name, strerror(errno));
        return false;
    }
    off_t start = S_ISREG(status.st_mode) ? lseek(tar->descriptor, 0, SEEK_CUR) : -1;
    if (start >= 0 && start < status.st_size)
        tar->length = (uint64_t)(status.st_size - start);
    return true;
}

void tar_close(struct tar *tar) {
    if (tar->descriptor > STDIN_FILENO)
        close(tar->descriptor);
    tar->descriptor = -1;
}

/* As many bytes as there are, up to `size`; fewer at the end. False after a complaint. */
static bool read_up_to(struct tar *tar, void *data, size_t size, size_t *got) {
    ssize_t more = 1;
    for (*got = 0; *got < size && more > 0; *got += more > 0 ? (size_t)more : 0)
        more = stop_read(tar->descriptor, (char *)data + *got, size - *got);
    tar->at += *got;
    return more >= 0 || refuse(tar, strerror(errno));
}

static bool read_all(struct tar *tar, void *data, size_t size) {
    size_t got;
    return read_up_to(tar, data, size, &got) && (got == size || refuse(tar, "it ends in the middle of a member"));
}

static bool read_past(struct tar *tar, uint64_t size) {
    char nowhere[16384];
    while (size > 0) {
        size_t part = size < sizeof nowhere ? (size_t)size : sizeof nowhere;
        if (!read_all(tar, nowhere, part))
            return false;
        size -= part;
    }
    return true;
}

/* Go to the next header. */
static bool skip(struct tar *tar) {
    uint64_t size = tar->ahead;
    tar->ahead = 0;
    if (!tar->length)
        return read_past(tar, size);
    if (size > tar->length - tar->at)
        return refuse(tar, "it ends in the middle of a member");
    tar->at += size;
    return lseek(tar->descriptor, (off_t)size, SEEK_CUR) >= 0 || refuse(tar, strerror(errno));
}

/* A program that writes the archive into a pipe writes more blocks of zeros than its end needs. */
static void read_trailer(struct tar *tar) {
    char nowhere[BLOCK];
    size_t got = sizeof nowhere;
    for (size_t read = 0; !tar->length && got == sizeof nowhere && read < MOST_TRAILER; read += got)
        if (!read_up_to(tar, nowhere, sizeof nowhere, &got))
            return;
}

/* ---- Headers ---- */

/* A number in octal digits between spaces and NUL bytes, or, where its first bit is set, in base 256. */
static bool read_number(const uint8_t *field, size_t size, uint64_t *number) {
    size_t i = 0;
    *number = field[0] & 0x80 ? field[i++] & 0x7f : 0;
    for (; field[0] & 0x80 && i < size; i++) {
        if (*number >= MOST_SIZE >> 8)
            return false;
        *number = *number << 8 | field[i];
    }
    while (i < size && field[i] == ' ')
        i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
        *number = *number << 3 | (field[i] - '0');
    while (i < size && (field[i] == ' ' || field[i] == '\0'))
        i++;
    return i == size;
}

/* The sum of all bytes, where those of the sum itself count as spaces; some old programs had signed bytes. */
static bool sum_is_right(const uint8_t header[BLOCK]) {
    uint64_t sum;
    int64_t with_sign = 0, without = 0;
    for (unsigned i = 0; i < BLOCK; i++) {
        uint8_t byte = i >= CHECKSUM && i < CHECKSUM + CHECKSUM_SIZE ? ' ' : header[i];
        without += byte;
        with_sign += (int8_t)byte;
    }
    return read_number(header + CHECKSUM, CHECKSUM_SIZE, &sum) &&
           ((int64_t)sum == without || (int64_t)sum == with_sign);
}

static bool is_compressed(const uint8_t *bytes) {
    return memcmp(bytes, "\x1f\x8b", 2) == 0 || memcmp(bytes, "BZh", 3) == 0 || memcmp(bytes, "\xfd\x37zXZ", 5) == 0 ||
           memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0;
}

/* False also at the end. */
static bool read_header(struct tar *tar, uint8_t header[BLOCK]) {
    static const uint8_t zeros[BLOCK];
    size_t got;
    if (!read_up_to(tar, header, BLOCK, &got))
        return false;
    if (got < BLOCK)
        return refuse(tar, got ? "it ends in the middle of a header" : "it ends without the mark of its end: cut off?");
    if (memcmp(header, zeros, BLOCK) == 0) {
        read_trailer(tar);
        return false;
    }
    tar->at -= BLOCK; /* where a complaint sees it */
    if (!sum_is_right(header))
        return refuse(tar, is_compressed(header) ? "it is compressed: expand it into a pipe, and name - here"
                                                 : "no header of tar is here: its checksum is wrong");
    if (!read_number(header + SIZE, SIZE_SIZE, &tar->size))
        return refuse(tar, "the size of a member is no number, or too large");
    tar->at += BLOCK;
    return true;
}

static uint64_t padded(uint64_t size) {
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* Append the field, which ends with it or with a NUL byte, to tar->path. */
static void append(struct tar *tar, const uint8_t *field, size_t size) {
    size_t length = strlen(tar->path), more = strnlen((const char *)field, size);
    memcpy(tar->path + length, field, more);
    tar->path[length + more] = '\0';
}

static void read_name(struct tar *tar, const uint8_t header[BLOCK]) {
    tar->path[0] = '\0';
    if (memcmp(header + MAGIC, "ustar", 6) == 0 && header[PREFIX]) { /* GNU has no NUL there, and no prefix */
        append(tar, header + PREFIX, PREFIX_SIZE);
        strcat(tar->path, "/");
    }
    append(tar, header + NAME, NAME_SIZE);
}

/* ---- Extensions ---- */

/* The bytes of a member that describes another, with a NUL byte behind, owned by the caller; NULL after a complaint. */
static char *read_extension(struct tar *tar) {
    if (tar->size > MOST_EXTENSION) {
        refuse(tar, "a member that describes another has more than 1 MiB");
        return NULL;
    }
    char *data = allocate((size_t)tar->size + 1, 1);
    tar->ahead = padded(tar->size);
    if (tar_read(tar, (uint8_t *)data))
        return data;
    free(data);
    return NULL;
}

static bool set_path(struct tar *tar, const char *path, size_t length) {
    if (length == 0 || length > TAR_MOST_PATH || memchr(path, '\0', length))
        return refuse(tar, "the name of a member is empty, has a NUL byte or more than 4096 bytes");
    memcpy(tar->path, path, length);
    tar->path[length] = '\0';
    return true;
}

static bool read_long_name(struct tar *tar, struct extensions *more) {
    char *name = read_extension(tar);
    more->named = name && set_path(tar, name, strlen(name));
    free(name);
    return more->named;
}

/* "path=photo.jpg" and the like, `length` bytes with the key. */
static bool read_pair(struct tar *tar, const char *pair, size_t length, struct extensions *more) {
    char *end;
    if (strncmp(pair, "path=", 5) == 0)
        return more->named = set_path(tar, pair + 5, length - 5);
    if (strncmp(pair, "size=", 5) == 0) {
        size_t digits = strspn(pair + 5, "0123456789");
        more->size = strtoull(pair + 5, &end, 10);
        more->sized = digits > 0 && digits == length - 5 && digits <= 18;
        return more->sized || refuse(tar, "the size of a member is no number, or too large");
    }
    more->sparse = more->sparse || strncmp(pair, "GNU.sparse.", 11) == 0;
    return true;
}

/* Records "LENGTH KEY=VALUE\n", where the length is that of all of the record. */
static bool read_pax(struct tar *tar, struct extensions *more) {
    char *data = read_extension(tar), *at = data;
    bool good = data != NULL;
    for (const char *end = good ? data + tar->size : NULL; good && at < end;) {
        char *pair = at;
        size_t digits = strspn(at, "0123456789"), length = digits > 0 && digits < 8 ? strtoul(at, &pair, 10) : 0;
        if (length < digits + 3 || length > (size_t)(end - at) || *pair != ' ' || at[length - 1] != '\n')
            good = refuse(tar, "a record of a pax header is malformed");
        else {
            at[length - 1] = '\0';
            good = read_pair(tar, pair + 1, (size_t)(at + length - 1 - (pair + 1)), more);
            at += length;
        }
    }
    free(data);
    return good;
}

/* ---- Members ---- */

/* GNU's sparse files: their map may have blocks of its own. */
static bool pass_map(struct tar *tar, uint8_t header[BLOCK]) {
    bool more = header[SPARSE_GOES_ON] != 0;
    while (more) {
        if (!read_all(tar, header, BLOCK))
            return false;
        more = header[SPARSE_GOES_ON_THERE] != 0;
    }
    return true;
}

/* A member that stands for itself: whether it is an image. */
static bool take(struct tar *tar, const uint8_t header[BLOCK], struct extensions *more) {
    char type = (char)header[TYPE];
    bool is_regular = (type == '0' || type == '\0' || type == '7') && !more->sparse;
    bool is_bare = type >= '1' && type <= '6'; /* a link, device or folder: no bytes, whatever the size says */
    if (more->sized)
        tar->size = more->size;
    if (!more->named)
        read_name(tar, header);
    *more = (struct extensions){0};
    tar->ahead = is_bare ? 0 : padded(tar->size);
    return is_regular && names_image(tar->path);
}

bool tar_next(struct tar *tar) {
    uint8_t header[BLOCK];
    struct extensions more = {0};
    while (!tar->failed && skip(tar) && read_header(tar, header)) {
        char type = (char)header[TYPE];
        bool good = true;
        if (type == 'x')
            good = read_pax(tar, &more);
        else if (type == 'L')
            good = read_long_name(tar, &more);
        else if (type == 'g' || type == 'K') /* of all members; where a link leads to */
            tar->ahead = padded(tar->size);
        else if (type == 'S' && !pass_map(tar, header))
            good = false;
        else if (take(tar, header, &more))
            return true;
        if (!good)
            return false;
    }
    return false;
}

bool tar_read(struct tar *tar, uint8_t *data) {
    tar->ahead -= tar->size;
    return read_all(tar, data, (size_t)tar->size);
}
