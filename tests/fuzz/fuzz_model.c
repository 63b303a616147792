/*
 * fuzz_model.c - any bytes as a model file: loaded in some way or refused with a line; what is tiny and loads, is run.
 *
 * How it is loaded and run follows from the bytes. In int8, unless a layer is kept in f32, the logits must be the same
 * bits on all instruction sets; in any precision they must be so on 1 and 2 threads.
 */
#define _POSIX_C_SOURCE 200809L /* strnlen, posix_memalign */
#include <math.h>

#include "fuzz.h"

#define MOST_MEMORY ((size_t)64 << 20)
#define MOST_MACS   ((uint64_t)1 << 20) /* of a network that is run; sanitizers make a slow machine */
#define MOST_FLOATS 4096                /* of an input */

struct run {
    const resnet_model *model;
    resnet_model_info info;
    uint32_t threads;
    float *logits;
};

static void check_model(const resnet_model *model) {
    resnet_model_info info = resnet_model_describe(model);
    resnet_error error = {RESNET_OK, ""};
    resnet_layer layer;
    REQUIRE(info.architecture && info.layers > 1 && info.features > 0);
    for (uint32_t i = 0; i < info.layers; i++) {
        REQUIRE(resnet_model_layer(model, i, 0, 0, &layer, &error) == RESNET_OK);
        REQUIRE(layer.out_channels > 0 && layer.out_height > 0 && layer.out_width > 0);
        REQUIRE(strnlen(layer.name, sizeof layer.name) < sizeof layer.name);
    }
    REQUIRE(resnet_model_layer(model, info.layers, 0, 0, &layer, NULL) == RESNET_ERROR_ARGUMENT);
    for (uint32_t i = 0; i < info.config.classes && resnet_model_label(model, i); i++)
        REQUIRE(*resnet_model_label(model, i));
    REQUIRE(!resnet_model_label(model, info.config.classes));
}

static void fill_input(resnet_session *session, const resnet_config *config) {
    resnet_error error = {RESNET_OK, ""};
    float values[MOST_FLOATS];
    for (uint32_t i = 0; i < MOST_FLOATS; i++)
        values[i] = (float)(i * 2654435761U >> 20) / 1024 - 2;
    REQUIRE(resnet_session_set_floats(session, 0, values, RESNET_NHWC, &error) == RESNET_OK);
    if (config->in_channels == 3) {
        uint8_t pixels[3 * 5 * 7];
        for (size_t i = 0; i < sizeof pixels; i++)
            pixels[i] = (uint8_t)(i * 97);
        resnet_status status = resnet_session_set_rgb(session, 0, pixels, 5, 7, 0, NULL, &error);
        REQUIRE(status == RESNET_OK || status == RESNET_ERROR_MEMORY);
    }
}

/* Everything that a run can give, into blocks of its size. False where there is no memory for it. */
static int run_once(const struct run *run, struct fuzz_memory *memory) {
    const resnet_config *config = &run->info.config;
    resnet_error error = {RESNET_OK, ""};
    resnet_session_options options = {.threads = run->threads};
    resnet_session *session;
    resnet_map map;
    size_t before = memory->bytes, promised = 0;
    if (resnet_session_create(run->model, &options, &session, &error) != RESNET_OK) {
        REQUIRE(error.status == RESNET_ERROR_MEMORY && !session);
        return 0;
    }
    REQUIRE(resnet_session_memory(run->model, &options, &promised, NULL) == RESNET_OK);
    REQUIRE(promised == memory->bytes - before);
    fill_input(session, config);
    uint32_t last = RESNET_MAX_STAGES;
    while (resnet_session_map(session, --last, &map, NULL) != RESNET_OK)
        REQUIRE(last > 0);
    size_t values = (size_t)map.channels * map.height * map.width;
    resnet_request request = {.logits = config->classes ? run->logits : NULL};
    float *embedding = request.embedding = malloc(run->info.features * sizeof *embedding);
    float *floats = request.maps[last] = malloc(values * sizeof *floats);
    float *cam = malloc((size_t)map.height * map.width * sizeof *cam);
    REQUIRE(embedding && floats && cam);
    request.cam = config->classes ? cam : NULL;
    before = memory->bytes;
    REQUIRE(resnet_run(session, 1, &request, &error) == RESNET_OK);
    REQUIRE(memory->bytes == before);
    free(embedding);
    free(floats);
    free(cam);
    resnet_session_free(session);
    return 1;
}

static int is_tiny(const resnet_model_info *info) {
    const resnet_config *config = &info->config;
    return info->macs <= MOST_MACS && (uint64_t)config->height * config->width * config->in_channels <= MOST_FLOATS;
}

/* Whether an int8 file has a layer that is kept in f32, whose sums each instruction set rounds in its own way. */
static int keeps_a_layer(const uint8_t *data, size_t size, uint32_t layers) {
    struct fuzz_stream labels = {data + 96, 4};
    size_t at = (256 + (size_t)fuzz_take(&labels, 4) + 63) / 64 * 64;
    for (size_t i = at; i < at + layers && i < size; i++)
        if (data[i] == 1)
            return 1;
    return 0;
}

/* The same file on another instruction set must load, and, in int8, give the same bits. */
static void compare(const struct run *run, const uint8_t *data, size_t size, struct fuzz_memory *memory) {
    resnet_load_options options = {
        .isa = RESNET_ISA_SCALAR, .precision = run->info.precision, .threads = 1, .allocator = &memory->allocator};
    resnet_model *plain;
    resnet_error error = {RESNET_OK, ""};
    if (resnet_model_load_memory(data, size, &options, &plain, &error) != RESNET_OK) {
        REQUIRE(error.status == RESNET_ERROR_MEMORY);
        return;
    }
    struct run other = {plain, resnet_model_describe(plain), 1, malloc(run->info.config.classes * sizeof(float) + 1)};
    REQUIRE(other.logits);
    if (run_once(&other, memory))
        REQUIRE(memcmp(run->logits, other.logits, run->info.config.classes * sizeof(float)) == 0);
    free(other.logits);
    resnet_model_free(plain);
}

static void use(const resnet_model *model, const uint8_t *data, size_t size, struct fuzz_memory *memory) {
    struct run run = {model, resnet_model_describe(model), 1, NULL};
    check_model(model);
    if (!is_tiny(&run.info))
        return;
    size_t bytes = run.info.config.classes * sizeof(float);
    float *first = malloc(bytes + 1);
    run.logits = malloc(bytes + 1);
    REQUIRE(first && run.logits);
    if (run_once(&run, memory)) {
        memcpy(first, run.logits, bytes);
        run.threads = 2;
        if (fuzz_hash(data, size) % 16 == 0 && run_once(&run, memory))
            REQUIRE(memcmp(first, run.logits, bytes) == 0);
        if (run.info.precision == RESNET_PRECISION_INT8 && run.info.isa != RESNET_ISA_REFERENCE &&
            !keeps_a_layer(data, size, run.info.layers))
            compare(&run, data, size, memory);
    }
    free(first);
    free(run.logits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const resnet_isa sets[] = {RESNET_ISA_AUTO, RESNET_ISA_AUTO,   RESNET_ISA_SCALAR,
                                      RESNET_ISA_AVX2, RESNET_ISA_AVX512, RESNET_ISA_REFERENCE};
    static const resnet_precision precisions[] = {RESNET_PRECISION_AUTO,  RESNET_PRECISION_AUTO, RESNET_PRECISION_AUTO,
                                                  RESNET_PRECISION_F32,   RESNET_PRECISION_BF16, RESNET_PRECISION_INT8,
                                                  RESNET_PRECISION_BF16X3};
    uint32_t choice = fuzz_hash(data, size);
    struct fuzz_memory memory;
    fuzz_memory_init(&memory, MOST_MEMORY, (int)(choice >> 24));
    resnet_load_options options = {.isa = sets[choice % 6],
                                   .precision = precisions[choice / 6 % 7],
                                   .threads = choice / 42 % 32 == 0 ? 2 : 1,
                                   .no_winograd = choice / 1344 % 2,
                                   .allocator = &memory.allocator};
    resnet_error error = {RESNET_OK, ""};
    resnet_model *model = (resnet_model *)&memory; /* anything but NULL */
    uint8_t *copy = fuzz_copy(data, size);
    resnet_status status = resnet_model_load_memory(copy, size, &options, &model, &error);
    fuzz_check_error(status, &error);
    REQUIRE((status == RESNET_OK) == (model != NULL));
    if (status == RESNET_OK)
        use(model, copy, size, &memory);
    resnet_model_free(model);
    free(copy);
    fuzz_memory_check(&memory);
    return 0;
}
