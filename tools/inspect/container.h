/* container.h - tell by its first bytes what file a checkpoint is. */
#ifndef CONTAINER_H
#define CONTAINER_H

#include "resnet.h"

/* What a checkpoint's file is, in a few words; NULL where it is none that is known. Errors: IO. */
resnet_status container_of_file(const char *path, const char **container, resnet_error *error);

/* Of a file of `file_size` bytes, the first of which are given. */
const char *container_of(const uint8_t *bytes, size_t size, uint64_t file_size);

#endif
