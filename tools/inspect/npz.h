/* npz.h - read the arrays of an .npz file: a ZIP archive of .npy arrays of floats, stored, not compressed. */
#ifndef NPZ_H
#define NPZ_H

#include "memory.h"
#include "npy.h"

struct npz_member {
    char name[64]; /* without ".npy" */
    uint32_t checksum;
    uint64_t offset, size; /* of the .npy in the archive, in bytes, all of which are in the file */
    struct npy_shape shape;
    size_t head, count; /* bytes of its head; numbers behind it, at least 1 */
};

struct npz {
    resnet_allocator allocator;
    int descriptor;
    uint64_t size; /* of the file */
    struct npz_member *members;
    uint32_t count;
};

/* Open an archive as numpy.savez writes it, and read the heads of all its arrays. npz_close must follow whether this
 * succeeds or not. Errors: IO (whatever is wrong with the file), MEMORY. */
resnet_status npz_open(struct npz *npz, const char *path, resnet_error *error);
void npz_close(struct npz *npz);

/* The member of that name, or NULL. */
const struct npz_member *npz_find(const struct npz *npz, const char *name);

/* Read the numbers of a member, `count` of them, and compare its checksum. Errors: IO. */
resnet_status npz_read(const struct npz *npz, const struct npz_member *member, float *values, resnet_error *error);

#endif
