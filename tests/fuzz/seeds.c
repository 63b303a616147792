/* seeds.c - write the inputs that the fuzzers start from: seeds FOLDER makes FOLDER/TARGET/NAME for each target. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "memory_faults.h"
#include "support.h"

#define IMAGES TEST_DATA "/images/"

static const char *folder;

static void write_seed(const char *target, const char *name, const void *data, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, target);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        perror(path);
    snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        fail_msg("%s cannot be written", path);
}

/* ---- Model files ---- */

static void write_model(const char *name, const resnet_config *config, const char *labels) {
    struct test_bytes bytes = test_model_file(config, &(struct test_content){.labels = labels, .kept = 4});
    write_seed("model", name, bytes.data, bytes.size);
    write_seed("loader", name, bytes.data, bytes.size);
    test_bytes_free(&bytes);
}

static void write_models(void **state) {
    static const char *const names[] = {"", "f32", "bf16", "int8"};
    (void)state;
    for (int precision = RESNET_PRECISION_F32; precision <= RESNET_PRECISION_INT8; precision++) {
        resnet_config config = test_tiny_config();
        config.precision = (resnet_precision)precision;
        write_model(names[precision], &config, "cat\ndog\n");
        config.block = RESNET_BLOCK_BOTTLENECK;
        config.blocks[1] = 1;
        char name[32];
        snprintf(name, sizeof name, "bottleneck-%s", names[precision]);
        write_model(name, &config, NULL);
    }
}

/* ---- Images ---- */

static size_t read_image(const char *name, uint8_t *data, size_t most) {
    char path[512];
    snprintf(path, sizeof path, IMAGES "%s", name);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be read", path);
    size_t size = fread(data, 1, most, file);
    fclose(file);
    return size;
}

/* The files themselves, and without their signatures, for the guards: fuzz_guards.c says what the first byte is. */
static void write_images(void **state) {
    static uint8_t data[1 << 16];
    char name[64];
    FILE *list = fopen(IMAGES "good.txt", "r");
    (void)state;
    assert_non_null(list);
    while (fscanf(list, "%63s %*u %*u %*d", name) == 1) {
        size_t size = read_image(name, data, sizeof data);
        size_t kind = strstr(name, ".jpg") ? 0 : strstr(name, ".png") ? 1 : 2;
        static const size_t signature[] = {3, 8, 2};
        write_seed("image", name, data, size);
        data[signature[kind] - 1] = (uint8_t)kind;
        write_seed("guards", name, data + signature[kind] - 1, size - signature[kind] + 1);
    }
    fclose(list);
}

/* ---- The rest ---- */

static void write_text(const char *name, char kind, const char *text) {
    char seed[512];
    int size = snprintf(seed, sizeof seed, "%c%s", kind, text);
    write_seed("lists", name, seed, (size_t)size);
}

/* A matrix of one row of two numbers and its table, behind the byte that says which and the two that say where. */
static void write_embeddings(void) {
    static const char start[] = "\3\x88\0\x93NUMPY\1\0\x76", numbers[] = "\0\0\x80\x3f\0\0\0\x40";
    char seed[512];
    memcpy(seed, start, sizeof start); /* and the upper half of the text's size */
    size_t size = sizeof start;
    size += (size_t)sprintf(seed + size, "%-117s\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }");
    memcpy(seed + size, numbers, sizeof numbers - 1);
    size += sizeof numbers - 1;
    size += (size_t)sprintf(seed + size, "file\tbytes\tmodified\tmodel\tcheck\n"
                                         "a.png\t1\t2.0\t0123456789abcdef/256/f32\t083327da586b6fed\n");
    write_seed("lists", "embeddings", seed, size);
}

/* Little-endian numbers of 16 bits. */
static char *put_numbers(char *to, const uint32_t *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        *to++ = (char)numbers[i];
        *to++ = (char)(numbers[i] >> 8);
    }
    return to;
}

/* An archive of one array "a" as numpy.savez writes it, behind the byte that says which. */
static void write_archive(void) {
    static const char array[] =
        "\x93NUMPY\1\0\x38\0{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n\0\0\x80\x3f";
    const uint32_t size = sizeof array - 1, crc = crc32_of((const uint8_t *)array, size), high = crc >> 16;
    const uint32_t local[] = {0x4b50, 0x0403, 20, 0, 0, 0, 0x21, crc, high, size, 0, size, 0, 5, 0};
    const uint32_t central[] = {0x4b50, 0x0201, 20, 20, 0, 0, 0, 0x21, crc, high, size, 0,
                                size,   0,      5,  0,  0, 0, 0, 0,    0,   0,    0};
    const uint32_t directory = 2 * COUNT(local) + 5 + size, directory_size = 2 * COUNT(central) + 5;
    const uint32_t end[] = {0x4b50, 0x0605, 0, 0, 1, 1, directory_size, 0, directory, 0, 0};
    char seed[512] = "\6", *at = seed + 1;
    at = put_numbers(at, local, COUNT(local));
    at += sprintf(at, "a.npy");
    memcpy(at, array, size);
    at = put_numbers(at + size, central, COUNT(central));
    at += sprintf(at, "a.npy");
    at = put_numbers(at, end, COUNT(end));
    write_seed("lists", "archive", seed, (size_t)(at - seed));
}

/* A name of more than 100 bytes in a pax header, and its member; fuzz_lists.c makes the checksums right. */
static void write_tar(void) {
    static char seed[1 + 6 * 512];
    seed[0] = '\7';
    for (int i = 0; i < 2; i++) {
        char *header = seed + 1 + 1024 * i;
        memcpy(header, i ? "short.png" : "pax", i ? 10 : 4);
        memcpy(header + 124, i ? "00000000003" : "00000000021", 12);
        header[156] = i ? '0' : 'x';
        memcpy(header + 257, "ustar\00000", 8);
        memcpy(header + 512, i ? "png" : "17 path=long.jpg\n", i ? 3 : 17);
    }
    write_seed("lists", "tar", seed, sizeof seed);
}

static void write_rest(void **state) {
    static const uint8_t sizes[] = {40, 0, 0, 30, 0, 0, 16, 0, 0, 16, 0, 0, 20, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0};
    (void)state;
    write_text("list", '\0', ""); /* snprintf ends there: the byte alone */
    write_text("list-of-two", '\10', "a.png\nb c.jpg\n\nlast");
    write_text("table", '\1', "\7file\tclass\na.png\t0\nb.png\t-1\tmore\r\n");
    write_text("json", '\4', "{\"a\": [1, -2.5e3, true, null, {\"b\\\"c\": \"text\"}], \"d\": {}}");
    write_text("text", '\5',
               "resnet: K\xc3\xa4"
               "fer: \x1b[31mred\x7f \xf0\x9f\x90\xb1 \xed\xa0\x80");
    write_embeddings();
    write_archive();
    write_tar();
    static const char array[] =
        "\2\1\x93NUMPY\1\0\x39\0{'descr': '<f4', 'fortran_order': False, 'shape': (1,1)}\n\0\0\0\0";
    write_seed("lists", "array", array, sizeof array - 1);
    write_seed("preprocess", "small", sizes, sizeof sizes);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_models),
        cmocka_unit_test(write_images),
        cmocka_unit_test(write_rest),
    };
    if (argc != 2)
        return fprintf(stderr, "usage: seeds FOLDER\n"), 2;
    folder = argv[1];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return perror(folder), 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
