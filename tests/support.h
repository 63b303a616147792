/*
 * support.h - what several tests need: seeded numbers, whole model files made in memory, and an allocator that counts
 * and fails on demand.
 *
 * The model files are written here from models/FORMAT.md, with a checksum of our own, so that they check the library's
 * reader rather than repeat it.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "graph.h"
#include "resnet.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- How a test is run ---- */

/* The instruction set that the environment variable RESNET_TEST_ISA names, or AUTO. Ends the program with code 77
 * ("skipped") and a line on stderr where this CPU lacks it, and with code 1 where there is none of that name. */
resnet_isa test_isa(void);

/* 1 in a build with the address or the thread sanitizer, which have limits of their own on memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEST_SANITIZED 1
#endif
#endif
#ifndef TEST_SANITIZED
#define TEST_SANITIZED 0
#endif

/* Whether to leave out what takes minutes under an emulator or a sanitizer: in a build with one of those sanitizers, or
 * where the environment variable RESNET_TEST_QUICK is set. */
bool test_quick(void);

/* ---- Seeded numbers (splitmix64) ---- */

struct test_random {
    uint64_t state;
};

uint64_t test_u64(struct test_random *random);
uint32_t test_below(struct test_random *random, uint32_t bound);                /* 0..bound-1 */
float test_float(struct test_random *random, float low, float high);            /* low <= x < high, but for rounding */
uint32_t test_between(struct test_random *random, uint32_t low, uint32_t high); /* low..high, both included */

/* ---- Model files ---- */

/* One tensor of a model file. */
struct test_tensor {
    const struct node *node;
    const char *name; /* "weight", "scale", "shift", "mean", "variance"; "bias", "activation" */
    uint32_t index;   /* from 0, in the file's order */
    size_t count;     /* of numbers */
    size_t offset;    /* of the first one's first byte in the file */
    int bytes;        /* of a number: 4, 2 in bf16, 1 in int8 */
};

/* The number that goes to place `element` of a tensor. */
typedef float test_fill(void *context, const struct test_tensor *tensor, size_t element);

/* A network that computes something reasonable: weights as He et al. have them, batch normalisation near identity.
 * `context` is a struct test_random. */
float test_fill_random(void *context, const struct test_tensor *tensor, size_t element);

struct test_bytes {
    uint8_t *data;
    size_t size;
};

/* The scale of every activation in an int8 file that is made here: random networks stay within 8. */
#define TEST_ACTIVATION 0.03F

/* What a file holds besides the config. For bf16 and int8, `fill` is asked for the tensors of an f32 file, and batch
 * normalisation is folded here. Zeroed: resize 256, bilinear, mean 0.5, std 0.25, no labels, random numbers. */
struct test_content {
    const resnet_preprocess *preprocess;
    const char *labels; /* the label block itself, a line feed after each label */
    test_fill *fill;
    void *context;
    uint64_t
        kept; /* of an int8 file: bit i is set where its i-th layer with tensors is kept in f32; attention is always */
};

/* The whole file, checksums and all; test_bytes_free it. The config need not be valid as long as a graph can be built.
 */
struct test_bytes test_model_file(const resnet_config *config, const struct test_content *content);

/* Bytes of `from`, alone in a block of their own, so that a sanitizer sees any access beyond them. */
struct test_bytes test_bytes_copy(const struct test_bytes *from);
void test_bytes_free(struct test_bytes *bytes);

/* The header of FORMAT.md for this network, but for file_size and the checksums, which are left 0. */
void test_header(uint8_t header[256], const resnet_config *config, const resnet_preprocess *how, uint32_t labels_size);

/* Little-endian numbers in a file's bytes. */
void test_put_u32(uint8_t *to, uint32_t value);
void test_put_f32(uint8_t *to, float value);

/* Recompute both checksums, after something was changed. Needs at least 256 bytes. */
void test_seal(struct test_bytes *bytes);

/* What says where everything lies. */
struct test_layout {
    const struct graph *graph;
    uint32_t labels_size;
    resnet_precision precision;
    uint64_t kept; /* as in test_content */
};

/* Call `visit` for each tensor of this network, in the file's order; returns the file's size. */
size_t test_each_tensor(const struct test_layout *layout,
                        void (*visit)(void *context, const struct test_tensor *tensor), void *context);

/* Where the kinds of an int8 file start; how many there are. */
size_t test_kinds(const struct test_layout *layout, uint32_t *count);

/* CRC-32C of a buffer. */
uint32_t test_crc32c(const uint8_t *data, size_t size);

/* The smallest network: one basic block, base width 4, two classes, 3 input channels of 8 x 8 pixels. */
resnet_config test_tiny_config(void);

/* Basic blocks of widths that are no multiple of a vector or of a word. */
resnet_config test_odd_config(void);

/* The same network with its weights stored in a precision. */
resnet_config test_stored_in(resnet_config config, resnet_precision precision);

/* Any member of the family, narrow and of a few blocks, for 24 x 24 pixels. */
resnet_config test_any_config(struct test_random *random);

/* A loaded model of random numbers on this instruction set. Fails the test where it cannot be had. */
resnet_model *test_model(const resnet_config *config, uint64_t seed, const resnet_load_options *options);

/* ---- Errors ---- */

/* Fail the test unless `actual` is `expected`; then, where it is an error, `error` must say the same and hold one
 * terminated line. */
#define assert_status(expected, actual, error) test_assert_status((expected), (actual), (error), __FILE__, __LINE__)
void test_assert_status(resnet_status expected, resnet_status actual, const resnet_error *error, const char *file,
                        int line);

/* ---- Memory ---- */

/* Counts, checks and refuses. Give &x.allocator to the library; x must stay where it is. Safe for several threads. */
struct test_memory {
    resnet_allocator allocator;
    size_t live_bytes, live_blocks, peak_bytes; /* now; at the worst moment */
    size_t calls;                               /* of allocate */
    size_t refuse;                              /* this call is refused, counted from 1; 0: none */
    bool refuse_later;                          /* and all calls after it */
    const char *fault;                          /* NULL, or what the library did wrong with its memory */
    uint8_t pattern;                            /* what fresh memory is filled with */
    pthread_mutex_t mutex;
};

void test_memory_init(struct test_memory *memory, uint8_t pattern);

/* Fail the test unless everything was given back properly. */
void test_memory_check(struct test_memory *memory);

#endif
