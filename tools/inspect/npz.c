/* npz.c - read the arrays of an .npz file: a ZIP archive of .npy arrays of floats, stored, not compressed. */
#define _POSIX_C_SOURCE 200809L /* close */
#include "npz.h"

#include <string.h>
#include <unistd.h>

#include "crc.h"
#include "error.h"
#include "file.h"

/* Sizes and signatures of ZIP's records (PKWARE's APPNOTE.TXT, 4.3). */
#define END_SIZE        22
#define ENTRY_SIZE      46
#define LOCAL_SIZE      30
#define END_SIGNATURE   0x06054b50U
#define ENTRY_SIGNATURE 0x02014b50U
#define LOCAL_SIGNATURE 0x04034b50U
#define MOST_MEMBERS    8192      /* the deepest ResNet here has some 1200 layers */
#define MOST_BYTES      INT32_MAX /* of the file: beyond it, ZIP needs records that are not read here */
#define FLAG_ENCRYPTED  1U

static uint32_t u16_at(const uint8_t *p) {
    return (uint32_t)(p[0] | p[1] << 8);
}

static uint32_t u32_at(const uint8_t *p) {
    return u16_at(p) | u16_at(p + 2) << 16;
}

static resnet_status bad(resnet_error *error, const char *reason) {
    return fail(error, RESNET_ERROR_IO, "%s", reason);
}

static resnet_status bad_member(resnet_error *error, const struct npz_member *member, const char *reason) {
    return fail(error, RESNET_ERROR_IO, "array %s: %s", member->name, reason);
}

/* ---- Directory ---- */

/* The archive's list of members, as it lies in the file. */
struct directory {
    uint8_t *bytes;
    uint32_t offset, size, count;
};

static resnet_status find_directory(const struct npz *npz, struct directory *directory, resnet_error *error) {
    uint8_t end[END_SIZE];
    if (npz->size > MOST_BYTES)
        return bad(error, "is larger than 2 GiB");
    if (npz->size < END_SIZE)
        return bad(error, "is no .npz file: it is too short");
    resnet_status status = file_read(npz->descriptor, npz->size - END_SIZE, end, END_SIZE, error);
    if (status != RESNET_OK)
        return status;
    directory->count = u16_at(end + 10);
    directory->size = u32_at(end + 12);
    directory->offset = u32_at(end + 16);
    if (u32_at(end) != END_SIGNATURE)
        return bad(error, "is no .npz file, or cut off: its last bytes do not end a ZIP archive");
    if (u32_at(end + 4) || u16_at(end + 8) != directory->count || u16_at(end + 20))
        return bad(error, "is a ZIP archive of several parts or with a comment, which numpy does not write");
    if (directory->offset > npz->size || directory->size != npz->size - END_SIZE - directory->offset)
        return bad(error, "the archive's list of members is not where its end says");
    if (!directory->count || directory->count > MOST_MEMBERS)
        return fail(error, RESNET_ERROR_IO, "has %u arrays; 1 to %d are read", directory->count, MOST_MEMBERS);
    return RESNET_OK;
}

static resnet_status read_directory(const struct npz *npz, struct directory *directory, resnet_error *error) {
    directory->bytes = memory_get(&npz->allocator, directory->size);
    if (!directory->bytes)
        return fail_memory(error, "the archive's list of members", directory->size);
    return file_read(npz->descriptor, directory->offset, directory->bytes, directory->size, error);
}

/* "conv1.npy" gives conv1. */
static resnet_status take_name(struct npz_member *member, const uint8_t *raw, size_t length, resnet_error *error) {
    if (length < 5 || length - 4 >= sizeof member->name || memcmp(raw + length - 4, ".npy", 4) != 0 ||
        memchr(raw, '\0', length))
        return bad(error, "a member's name is not that of an array: up to 63 bytes, then .npy");
    memcpy(member->name, raw, length - 4);
    member->name[length - 4] = '\0';
    return RESNET_OK;
}

/* Take the entry at *at, and move past it. The offset is still that of the member's own header. */
static resnet_status take_entry(const struct directory *directory, size_t *at, struct npz_member *member,
                                resnet_error *error) {
    const uint8_t *entry = directory->bytes + *at;
    size_t left = directory->size - *at;
    if (left < ENTRY_SIZE || u32_at(entry) != ENTRY_SIGNATURE)
        return bad(error, "the archive's list of members is damaged");
    size_t name = u16_at(entry + 28), size = ENTRY_SIZE + name + u16_at(entry + 30) + u16_at(entry + 32);
    if (size > left)
        return bad(error, "the archive's list of members is cut off");
    resnet_status status = take_name(member, entry + ENTRY_SIZE, name, error);
    if (status != RESNET_OK)
        return status;
    if (u16_at(entry + 8) & FLAG_ENCRYPTED)
        return bad_member(error, member, "is encrypted");
    if (u16_at(entry + 10))
        return bad_member(error, member, "is compressed; write the file with numpy.savez, not savez_compressed");
    member->checksum = u32_at(entry + 16);
    member->size = u32_at(entry + 24);
    member->offset = u32_at(entry + 42);
    if (u32_at(entry + 20) != member->size)
        return bad_member(error, member, "is stored, and yet has two sizes");
    *at += size;
    return RESNET_OK;
}

/* ---- Members ---- */

/* Move the member's offset over its own header, whose names may be longer than the list's. */
static resnet_status skip_local_header(const struct npz *npz, const struct directory *directory,
                                       struct npz_member *member, resnet_error *error) {
    uint8_t local[LOCAL_SIZE];
    if (member->offset > directory->offset || directory->offset - member->offset < LOCAL_SIZE)
        return bad_member(error, member, "lies outside of the archive");
    resnet_status status = file_read(npz->descriptor, member->offset, local, LOCAL_SIZE, error);
    if (status != RESNET_OK)
        return status;
    if (u32_at(local) != LOCAL_SIGNATURE)
        return bad_member(error, member, "does not start where the archive's list says");
    member->offset += LOCAL_SIZE + u16_at(local + 26) + u16_at(local + 28);
    if (member->offset > directory->offset || directory->offset - member->offset < member->size)
        return bad_member(error, member, "lies outside of the archive");
    return RESNET_OK;
}

static resnet_status read_head(const struct npz *npz, struct npz_member *member, resnet_error *error) {
    uint8_t bytes[NPY_MOST_HEAD];
    size_t available = member->size < sizeof bytes ? (size_t)member->size : sizeof bytes;
    resnet_status status = file_read(npz->descriptor, member->offset, bytes, available, error);
    if (status != RESNET_OK)
        return status;
    const char *reason;
    member->head = npy_parse_head(bytes, available, &member->shape, &reason);
    if (!member->head)
        return bad_member(error, member, reason);
    member->count = (size_t)(member->size - member->head) / sizeof(float);
    if (!member->count || !npy_fits(&member->shape, member->size - member->head))
        return bad_member(error, member, "is empty, or its shape does not agree with its size");
    return RESNET_OK;
}

static resnet_status read_members(struct npz *npz, const struct directory *directory, resnet_error *error) {
    size_t at = 0, size = directory->count * sizeof *npz->members;
    npz->members = memory_get(&npz->allocator, size);
    if (!npz->members)
        return fail_memory(error, "the list of arrays", size);
    npz->count = directory->count;
    for (uint32_t i = 0; i < npz->count; i++) {
        struct npz_member *member = &npz->members[i];
        resnet_status status = take_entry(directory, &at, member, error);
        if (status == RESNET_OK)
            status = skip_local_header(npz, directory, member, error);
        if (status == RESNET_OK)
            status = read_head(npz, member, error);
        if (status != RESNET_OK)
            return status;
        if (npz_find(npz, member->name) != member)
            return bad_member(error, member, "is there twice");
    }
    return at == directory->size ? RESNET_OK : bad(error, "the archive's list of members is longer than it says");
}

/* ---- Open, find, read ---- */

resnet_status npz_open(struct npz *npz, const char *path, resnet_error *error) {
    struct directory directory = {0};
    *npz = (struct npz){.allocator = memory_allocator(NULL), .descriptor = -1};
    resnet_error reason = {RESNET_OK, ""};
    resnet_status status = file_open(path, &npz->descriptor, &npz->size, &reason);
    if (status == RESNET_OK)
        status = find_directory(npz, &directory, &reason);
    if (status == RESNET_OK)
        status = read_directory(npz, &directory, &reason);
    if (status == RESNET_OK)
        status = read_members(npz, &directory, &reason);
    memory_put(&npz->allocator, directory.bytes, directory.size);
    return status == RESNET_OK ? status : fail_file(error, status, path, &reason);
}

void npz_close(struct npz *npz) {
    memory_put(&npz->allocator, npz->members, npz->count * sizeof *npz->members);
    if (npz->descriptor >= 0)
        close(npz->descriptor);
    npz->members = NULL;
    npz->descriptor = -1;
}

/* Among those that are read already. */
const struct npz_member *npz_find(const struct npz *npz, const char *name) {
    for (uint32_t i = 0; i < npz->count; i++)
        if (strcmp(npz->members[i].name, name) == 0)
            return &npz->members[i];
    return NULL;
}

static void to_machine_order(float *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits = u32_at((const uint8_t *)(values + i));
        memcpy(values + i, &bits, sizeof bits);
    }
}

resnet_status npz_read(const struct npz *npz, const struct npz_member *member, float *values, resnet_error *error) {
    uint8_t head[NPY_MOST_HEAD];
    size_t size = member->count * sizeof *values;
    resnet_status status = file_read(npz->descriptor, member->offset, head, member->head, error);
    if (status == RESNET_OK)
        status = file_read(npz->descriptor, member->offset + member->head, values, size, error);
    if (status != RESNET_OK)
        return status;
    if (crc32_more(crc32_more(0, head, member->head), (const uint8_t *)values, size) != member->checksum)
        return bad_member(error, member, "its checksum does not match: the file is damaged");
    to_machine_order(values, member->count);
    return RESNET_OK;
}
