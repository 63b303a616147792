/* file.h - open and read a regular file that somebody named. */
#ifndef FILE_H
#define FILE_H

#include <stddef.h>
#include <stdint.h>

#include "resnet.h"

/* Open `path` for reading: a regular file and nothing else, without ever waiting for one. *descriptor is to be closed
 * where it is not -1, whether this succeeds or not. Errors: IO. */
resnet_status file_open(const char *path, int *descriptor, uint64_t *size, resnet_error *error);

/* `size` bytes from `offset` on, all of them; a signal or a short read only means to go on. Several threads may read at
 * once. Errors: IO. */
resnet_status file_read(int descriptor, uint64_t offset, void *bytes, size_t size, resnet_error *error);

#endif
