/* interval.c - how sure a measured share is. */
#include "interval.h"

#include <math.h>

#define NORMAL_95 1.959963984540054 /* 95 % of the normal distribution lies within so many deviations */

void wilson(size_t hits, size_t n_, float interval[2]) {
    double n = (double)n_, p = (double)hits / n, z2 = NORMAL_95 * NORMAL_95;
    double centre = p + z2 / (2 * n), reach = NORMAL_95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n));
    interval[0] = (float)((centre - reach) / (1 + z2 / n));
    interval[1] = (float)((centre + reach) / (1 + z2 / n));
}
