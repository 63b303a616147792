/* npy.h - the head of NumPy's array files (.npy), of arrays of f32 in C order. */
#ifndef NPY_H
#define NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NPY_MAX_DIMENSIONS 4
#define NPY_HEAD           128  /* bytes of a head that is written: room for three sizes, and a multiple of 64 */
#define NPY_MOST_HEAD      1024 /* bytes of a head that is read; NumPy's own have 128 */

struct npy_shape {
    uint32_t dimensions;
    uint64_t sizes[NPY_MAX_DIMENSIONS];
};

/* Write a head at the file's position, the numbers to follow. It always has NPY_HEAD bytes: so it can be
 * written again when the shape is known. Errors show on the stream. */
void npy_write_head(FILE *file, const struct npy_shape *shape);

/* Parse the head of an array, of which `available` bytes are at hand, all or NPY_MOST_HEAD of them. Gives how many the
 * head has, the numbers being behind; 0, with the reason in *reason, where it is none. */
size_t npy_parse_head(const uint8_t *bytes, size_t available, struct npy_shape *shape, const char **reason);

/* Whether `bytes` are the numbers of this shape. */
bool npy_fits(const struct npy_shape *shape, uint64_t bytes);

/*
 * Read the head of a file that may be anything. The file then stands before the first number and has exactly as many
 * as the shape says. False, with the reason in *reason, where it is no such file, or its array has not as many
 * dimensions as `shape` has at the call.
 */
bool npy_read_head(FILE *file, struct npy_shape *shape, const char **reason);

#endif
