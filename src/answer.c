/* answer.c - from logits to an answer: softmax and the best classes. */
#include <math.h>

#include "resnet.h"

void resnet_softmax(float *values, uint32_t count) {
    float most = -INFINITY;
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        most = values[i] > most ? values[i] : most;
    for (uint32_t i = 0; i < count; i++) {
        values[i] = expf(values[i] - most);
        sum += (double)values[i];
    }
    for (uint32_t i = 0; i < count; i++)
        values[i] = (float)(values[i] / sum);
}

/* A strict order in which NaN comes last, and equal values by index. */
static int comes_before(const float *values, uint32_t a, uint32_t b) {
    if (isnan(values[a]) || isnan(values[b]))
        return isnan(values[b]) && !isnan(values[a]);
    return values[a] > values[b];
}

uint32_t resnet_top_k(const float *values, uint32_t count, uint32_t k, uint32_t *indices) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (found == k && (k == 0 || !comes_before(values, i, indices[k - 1])))
            continue;
        uint32_t place = found < k ? found++ : k - 1;
        for (; place > 0 && comes_before(values, i, indices[place - 1]); place--)
            indices[place] = indices[place - 1];
        indices[place] = i;
    }
    return found;
}
