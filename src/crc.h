/* crc.h - CRC-32C, of pieces in any order; and CRC-32. */
#ifndef CRC_H
#define CRC_H

#include <stddef.h>
#include <stdint.h>

/* How this CPU does it fastest; the table is filled where it takes one. */
struct crc {
    uint32_t (*update)(const struct crc *crc, uint32_t value, const uint8_t *bytes, size_t size);
    uint32_t table[8][256];
};

/* Choose the fastest way; choose the table's. */
void crc_prepare(struct crc *crc);
void crc_prepare_table(struct crc *crc);

/* The checksum of `size` bytes. */
uint32_t crc_of(const struct crc *crc, const void *bytes, size_t size);

/*
 * What a piece with checksum `value` adds to the checksum of a whole in which `behind` bytes follow it: the exclusive
 * or of what all pieces add, in any order, is the checksum of the whole.
 */
uint32_t crc_share(uint32_t value, uint64_t behind);

/* The ways: `value` is the inverted checksum of what came before, as is the result. */
uint32_t crc_by_table(const struct crc *crc, uint32_t value, const uint8_t *bytes, size_t size);
uint32_t crc_by_sse42(const struct crc *crc, uint32_t value, const uint8_t *bytes, size_t size);

/* CRC-32 as PNG, gzip and ZIP have it (polynomial 0xedb88320), of bytes behind those whose checksum is `before`; 0:
 * behind none. */
uint32_t crc32_more(uint32_t before, const uint8_t *bytes, size_t size);

#endif
