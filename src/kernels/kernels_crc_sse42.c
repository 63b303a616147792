/* kernels_crc_sse42.c - CRC-32C by the instruction of SSE4.2. */
#include <nmmintrin.h>
#include <string.h>

#include "../crc.h"

uint32_t crc_by_sse42(const struct crc *crc, uint32_t value, const uint8_t *p, size_t size) {
    (void)crc;
    uint64_t wide = value;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t eight;
        memcpy(&eight, p, sizeof eight);
        wide = _mm_crc32_u64(wide, eight);
    }
    value = (uint32_t)wide;
    for (; size > 0; p++, size--)
        value = _mm_crc32_u8(value, *p);
    return value;
}
