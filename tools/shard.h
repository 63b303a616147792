/* shard.h - which images of a list are this process's, where several share it. */
#ifndef SHARD_H
#define SHARD_H

#include <stdbool.h>
#include <stdint.h>

/* Image j of the list is that of the process whose index is j mod count. */
struct shard {
    uint32_t index, count; /* from 0; a count of 0: all images are this process's */
};

/* From "I/N" (1 <= I <= N), or from what a scheduler says in the environment ("auto"). False after a complaint. */
bool shard_parse(struct shard *shard, const char *text);

bool shard_has(const struct shard *shard, uint64_t image);

#endif
