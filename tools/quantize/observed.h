/* observed.h - the numbers in an observation, whatever their format. */
#ifndef OBSERVED_H
#define OBSERVED_H

#include "bf16.h"
#include "model.h"
#include "session.h"

/* Where the numbers of a pixel come from. */
struct decoder {
    enum format format;
    float scale, zero; /* of u8 */
};

static inline struct decoder decoder_of(const resnet_model *model, const struct observation *seen) {
    struct decoder decoder = {.format = seen->format};
    if (seen->format == FORMAT_U8) {
        decoder.scale = model->scales[seen->node];
        decoder.zero = node_zero(&model->graph.nodes[seen->node]);
    }
    return decoder;
}

static inline const float *pixel_of(const struct observation *seen, uint32_t y, uint32_t x) {
    return seen->values + y * seen->tensor->row + x * seen->tensor->pixel;
}

static inline float decode(const struct decoder *decoder, const float *pixel, uint32_t channel) {
    switch (decoder->format) {
    case FORMAT_U8:
        return decoder->scale * (((const uint8_t *)pixel)[channel] - decoder->zero);
    case FORMAT_BF16:
        return bf16_to_float(((const uint16_t *)pixel)[channel]);
    default:
        return pixel[channel];
    }
}

#endif
