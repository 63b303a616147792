/* test_crc.c - CRC-32C in every way and in pieces, against its definition a bit at a time. */
#include "crc.h"

#include <stdlib.h>
#include <string.h>

#include "support.h"

#define MOST_BYTES 3000

static uint32_t bit_by_bit(const uint8_t *bytes, size_t size) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78U : crc >> 1;
    }
    return ~crc;
}

static void test_check_value(void **state) {
    (void)state;
    struct crc crc;
    crc_prepare(&crc);
    assert_int_equal(crc_of(&crc, "123456789", 9), 0xe3069283U); /* RFC 3720's polynomial */
    assert_int_equal(crc_of(&crc, "", 0), 0);
}

static void fill(uint8_t *bytes, struct test_random *random) {
    for (size_t i = 0; i < MOST_BYTES; i++)
        bytes[i] = (uint8_t)test_u64(random);
}

/* Every way, from every alignment. */
static void test_all_ways(void **state) {
    (void)state;
    struct test_random random = {1};
    uint8_t bytes[MOST_BYTES];
    struct crc chosen, table;
    crc_prepare(&chosen);
    crc_prepare_table(&table);
    fill(bytes, &random);
    for (int i = 0; i < 2000; i++) {
        size_t start = test_below(&random, 64), size = test_below(&random, i % 2 ? 40 : MOST_BYTES - 64);
        uint32_t expected = bit_by_bit(bytes + start, size);
        assert_int_equal(crc_of(&table, bytes + start, size), expected);
        assert_int_equal(crc_of(&chosen, bytes + start, size), expected);
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) /* or it was not tested */
        assert_true(chosen.update == crc_by_sse42);
#endif
}

/* The whole from pieces, added up back to front. */
static void test_shares(void **state) {
    (void)state;
    struct test_random random = {2};
    uint8_t bytes[MOST_BYTES];
    struct crc crc;
    crc_prepare(&crc);
    for (int i = 0; i < 200; i++) {
        fill(bytes, &random);
        uint32_t whole = 0;
        for (size_t end = MOST_BYTES; end > 0;) {
            size_t size = test_below(&random, 700);
            size = size < end ? size : end;
            whole ^= crc_share(crc_of(&crc, bytes + end - size, size), MOST_BYTES - end);
            end -= size;
        }
        assert_int_equal(whole, bit_by_bit(bytes, MOST_BYTES));
    }
}

/* A gigabyte behind: what 2^30 zero bytes would do, in steps that were each checked. */
static void test_far_ahead(void **state) {
    (void)state;
    uint32_t value = 0x12345678;
    assert_int_equal(crc_share(value, 0), value);
    for (int step = 0; step < 1024; step++)
        value = crc_share(value, 1 << 20);
    assert_int_equal(crc_share(0x12345678, 1 << 30), value);
}

/* The check value of CRC-32, in one piece and in two. */
static void test_crc32(void **state) {
    (void)state;
    const uint8_t *digits = (const uint8_t *)"123456789";
    assert_int_equal(crc32_more(0, digits, 9), 0xcbf43926);
    assert_int_equal(crc32_more(crc32_more(0, digits, 4), digits + 4, 5), 0xcbf43926);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_value), cmocka_unit_test(test_all_ways), cmocka_unit_test(test_shares),
        cmocka_unit_test(test_far_ahead),   cmocka_unit_test(test_crc32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
