/* interval.h - how sure a measured share is. */
#ifndef INTERVAL_H
#define INTERVAL_H

#include <stddef.h>

/* Wilson's 95 % interval for the share that `hits` of `n` show. */
void wilson(size_t hits, size_t n, float interval[2]);

#endif
