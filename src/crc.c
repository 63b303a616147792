/* crc.c - CRC-32C, of pieces in any order. */
#include "crc.h"

#define POLYNOMIAL 0x82f63b78U /* Castagnoli's; here the top bit is the number 1, and the next one x */
#define ONE        0x80000000U

/* table[0] is the usual byte table; table[i] takes a byte that i more follow. */
static void fill_table(uint32_t table[8][256]) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int i = 1; i < 8; i++)
            table[i][byte] = table[i - 1][byte] >> 8 ^ table[0][table[i - 1][byte] & 0xff];
}

uint32_t crc_by_table(const struct crc *crc, uint32_t value, const uint8_t *p, size_t size) {
    const uint32_t(*table)[256] = crc->table;
    for (; size >= 8; p += 8, size -= 8) {
        value ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        value = table[7][value & 0xff] ^ table[6][value >> 8 & 0xff] ^ table[5][value >> 16 & 0xff] ^
                table[4][value >> 24] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; size > 0; p++, size--)
        value = value >> 8 ^ table[0][(value ^ *p) & 0xff];
    return value;
}

void crc_prepare_table(struct crc *crc) {
    fill_table(crc->table);
    crc->update = crc_by_table;
}

void crc_prepare(struct crc *crc) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2")) {
        crc->update = crc_by_sse42;
        return;
    }
#endif
    crc_prepare_table(crc);
}

uint32_t crc_of(const struct crc *crc, const void *bytes, size_t size) {
    return ~crc->update(crc, UINT32_MAX, bytes, size);
}

/* a * b modulo the polynomial. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (; a; a <<= 1) {
        product ^= a & ONE ? b : 0;
        b = b >> 1 ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return product;
}

/* value * x^(8 * behind): what zeros behind it would make of the remainder. */
uint32_t crc_share(uint32_t value, uint64_t behind) {
    uint32_t square = ONE >> 8; /* x^8, then its square, ... */
    for (; behind; behind >>= 1, square = multiply(square, square))
        if (behind & 1)
            value = multiply(value, square);
    return value;
}

/* Four bits at a time. */
uint32_t crc32_more(uint32_t before, const uint8_t *bytes, size_t size) {
    static const uint32_t nibble[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = ~before;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return ~crc;
}
