/* test_memory.c - allocation through the caller's allocator or the system's, and arithmetic that cannot wrap. */
#include "memory.h"

#include <string.h>

#include "support.h"

static bool is_aligned(const void *memory, size_t alignment) {
    return (uintptr_t)memory % alignment == 0;
}

static void test_system_memory(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1000003, (4U << 20) - 1, 4U << 20, 9000001};
    resnet_allocator allocator = memory_allocator(NULL);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        unsigned char *memory = memory_get(&allocator, sizes[i]);
        assert_non_null(memory);
        assert_true(is_aligned(memory, ALIGNMENT));
        if (sizes[i] >= 4U << 20) /* or else a huge page could not begin where the block does */
            assert_true(is_aligned(memory, 2U << 20));
        memset(memory, 0xa5, sizes[i]);
        memory_put(&allocator, memory, sizes[i]);
    }
}

static void test_more_than_there_is(void **state) {
    (void)state;
    resnet_allocator allocator = memory_allocator(NULL);
    if (TEST_SANITIZED) /* they end a program that asks for as much */
        skip();
    assert_null(memory_get(&allocator, SIZE_MAX / 2)); /* more than an address space */
    memory_put(&allocator, NULL, SIZE_MAX / 2);
}

static void test_chosen_allocator(void **state) {
    (void)state;
    struct test_memory memory;
    test_memory_init(&memory, 0x11);
    resnet_allocator allocator = memory_allocator(&memory.allocator);
    unsigned char *block = memory_get(&allocator, 100), *empty = memory_get(&allocator, 0);
    assert_non_null(block);
    assert_non_null(empty); /* and never asked for 0 bytes, or test_memory_check says so */
    assert_int_equal(memory.calls, 2);
    assert_int_equal(block[99], 0x11);
    memory_put(&allocator, NULL, 100);
    assert_int_equal(memory.live_blocks, 2);
    memory_put(&allocator, block, 100);
    memory_put(&allocator, empty, 0);
    test_memory_check(&memory);
    memory.refuse = 3;
    assert_null(memory_get(&allocator, 1));
}

static void test_multiply(void **state) {
    (void)state;
    static const struct {
        size_t a, b;
        bool fits;
    } cases[] = {
        {0, 0, true},
        {0, SIZE_MAX, true},
        {1, SIZE_MAX, true},
        {2, SIZE_MAX / 2, true},
        {2, SIZE_MAX / 2 + 1, false},
        {SIZE_MAX, SIZE_MAX, false},
        {(size_t)1 << 32, ((size_t)1 << 32) - 1, true},
        {(size_t)1 << 32, (size_t)1 << 32, false},
        {3, SIZE_MAX / 3, true},
        {3, SIZE_MAX / 3 + 1, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int swap = 0; swap < 2; swap++) {
            size_t a = swap ? cases[i].b : cases[i].a, b = swap ? cases[i].a : cases[i].b, result = 42;
            assert_int_equal(multiply(a, b, &result), cases[i].fits);
            assert_true(!cases[i].fits || result == a * b);
        }
}

static void test_add(void **state) {
    (void)state;
    size_t result = 0;
    assert_true(add(SIZE_MAX - 1, 1, &result));
    assert_true(result == SIZE_MAX);
    assert_true(add(0, 0, &result));
    assert_true(result == 0);
    assert_false(add(SIZE_MAX, 1, &result));
    assert_false(add(SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 1, &result));
}

static void test_align_up(void **state) {
    (void)state;
    for (size_t n = 0; n < 1000; n++) {
        size_t up = align_up(n);
        assert_true(up >= n && up < n + ALIGNMENT && up % ALIGNMENT == 0);
    }
}

static void test_arrays(void **state) {
    (void)state;
    struct test_memory memory;
    double *first;
    uint8_t *second, *third;
    size_t size;
    const struct array arrays[] = {{&first, 9, sizeof *first}, {&second, 0, 1}, {&third, 3, 1}};
    const struct array large[] = {{&first, SIZE_MAX / 8, 8}, {&second, 64, 1}}, larger[] = {{&first, SIZE_MAX / 4, 8}};
    const struct array largest[] = {{&second, SIZE_MAX - 1, 1}};
    const struct array halves[] = {{&first, SIZE_MAX / 16 + 1, 8}, {&second, SIZE_MAX / 2 + 1, 1}};
    test_memory_init(&memory, 0xa5);
    void *block = memory_get_arrays(&memory.allocator, arrays, COUNT(arrays), &size);
    assert_non_null(block);
    assert_int_equal(size, 128 + 64);
    assert_true(is_aligned(first, ALIGNMENT) && is_aligned(second, ALIGNMENT) && is_aligned(third, ALIGNMENT));
    assert_true((uint8_t *)(first + 9) <= second && second <= third && third + 3 <= (uint8_t *)block + size);
    for (int i = 0; i < 9; i++)
        assert_true(first[i] == 0);
    assert_true(third[0] == 0 && third[2] == 0);
    memory_put(&memory.allocator, block, size);
    assert_null(memory_get_arrays(&memory.allocator, large, COUNT(large), &size));
    assert_null(memory_get_arrays(&memory.allocator, larger, COUNT(larger), &size));
    assert_null(memory_get_arrays(&memory.allocator, largest, COUNT(largest), &size));
    assert_true(size == SIZE_MAX);
    assert_null(memory_get_arrays(&memory.allocator, halves, COUNT(halves), &size));
    test_memory_check(&memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_system_memory),
        cmocka_unit_test(test_more_than_there_is),
        cmocka_unit_test(test_chosen_allocator),
        cmocka_unit_test(test_multiply),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_align_up),
        cmocka_unit_test(test_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
