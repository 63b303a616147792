/*
 * resnet.h - ResNet inference on a CPU: load a model, open a session, run it.
 *
 *     resnet_error error;
 *     resnet_model *model;
 *     resnet_session *session;
 *     float logits[1000]; // as many as the network has classes
 *     if (resnet_model_load_file("resnet50.resnet", NULL, &model, &error) != RESNET_OK ||
 *         resnet_session_create(model, NULL, &session, &error) != RESNET_OK ||
 *         resnet_session_set_image_file(session, 0, "cat.jpg", NULL, &error) != RESNET_OK ||
 *         resnet_session_run(session, 1, logits, &error) != RESNET_OK)
 *         puts(error.message);
 *
 * Rules that hold for every function:
 * - A function that can fail returns a resnet_status. On failure its last parameter, which may be NULL, receives the
 * same status and a sentence that says what was wrong, where, and what was expected; results are not written, objects
 * passed in stay usable, and an object that was to be made is NULL. On success the error is left as it was.
 * - A NULL options pointer, or a zeroed options struct, means the defaults.
 * - Nothing is printed, no environment variable is read, nothing aborts, there is no global state.
 * - Thread-safety: a resnet_model is immutable and may be shared by any number of threads; a resnet_session belongs to
 * one thread at a time, except where a function says otherwise.
 */
#ifndef RESNET_H
#define RESNET_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define RESNET_API __attribute__((visibility("default")))
#else
#define RESNET_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this header, by semantic versioning. While MAJOR is 0, a new MINOR may change the API; afterwards it only adds,
 * and a new MAJOR may change it. */
#define RESNET_VERSION_MAJOR 0
#define RESNET_VERSION_MINOR 1
#define RESNET_VERSION_PATCH 0

/* "MAJOR.MINOR.PATCH" of the library that is linked. */
RESNET_API const char *resnet_version(void);

/* ---- Errors ---- */

/* What became of a call. */
typedef enum resnet_status {
    RESNET_OK = 0,
    RESNET_ERROR_ARGUMENT,    /* the call is wrong: a NULL, a number out of range */
    RESNET_ERROR_MEMORY,      /* the allocator said no */
    RESNET_ERROR_IO,          /* a file cannot be opened or read, or is not a regular file */
    RESNET_ERROR_MODEL,       /* the bytes are no valid model file */
    RESNET_ERROR_UNSUPPORTED, /* valid, but not in this version, or not on this CPU */
    RESNET_ERROR_IMAGE,       /* the bytes are no image that can be read */
    RESNET_ERROR_THREAD       /* a thread could not be started */
} resnet_status;

/* Why a call failed. The caller's, and needs no initialisation. */
typedef struct resnet_error {
    resnet_status status;
    char message[256]; /* one line without a newline, always terminated */
} resnet_error;

/* A short name such as "RESNET_ERROR_IO"; for a value outside the enumeration, "unknown". */
RESNET_API const char *resnet_status_name(resnet_status status);

/* ---- What a network is ---- */

/* What stages are made of: two 3x3 convolutions, or a 3x3 between two 1x1. */
typedef enum resnet_block { RESNET_BLOCK_BASIC = 1, RESNET_BLOCK_BOTTLENECK = 2 } resnet_block;

/* Where a bottleneck that halves the map has its stride: in the 3x3 (torchvision, "v1.5") or in the first 1x1 ("v1").
 */
typedef enum resnet_stride_at { RESNET_STRIDE_AT_3X3 = 0, RESNET_STRIDE_AT_1X1 = 1 } resnet_stride_at;

/* The first layers. All but the CIFAR stem end with a 3x3 max pool with stride 2. */
typedef enum resnet_stem {
    RESNET_STEM_7X7 = 0,    /* one 7x7 convolution with stride 2 */
    RESNET_STEM_DEEP = 1,   /* three 3x3, the first with stride 2, of 1/2, 1/2 and 1 base_width (timm's c and d) */
    RESNET_STEM_TIERED = 2, /* the same, of 3/8, 1/2 and 1 base_width (timm's t) */
    RESNET_STEM_CIFAR = 3   /* one 3x3 with stride 1, and no pool */
} resnet_stem;

/* What a block adds to its branch where it changes the map's size or its channels. */
typedef enum resnet_shortcut {
    RESNET_SHORTCUT_PROJECTION = 0, /* a 1x1 convolution with the stride */
    RESNET_SHORTCUT_AVERAGE = 1,    /* a 2x2 average pool with the stride, then a 1x1 convolution (timm's d) */
    RESNET_SHORTCUT_ZEROS = 2       /* every second pixel, and zeros in the new channels: the paper's option A */
} resnet_shortcut;

/* What a block's branch goes through before the sum. */
typedef enum resnet_attention {
    RESNET_ATTENTION_NONE = 0,
    RESNET_ATTENTION_SE = 1 /* Hu, Shen, Sun: Squeeze-and-Excitation Networks */
} resnet_attention;

/* What the network ends with behind its average pool. */
typedef enum resnet_head {
    RESNET_HEAD_SOFTMAX = 0, /* a linear layer; exactly one class is right */
    RESNET_HEAD_SIGMOID = 1, /* a linear layer; any number of classes are right */
    RESNET_HEAD_NONE = 2     /* nothing: it gives embeddings and maps, and has 0 classes */
} resnet_head;

/*
 * The numbers that weights and activations are stored in and multiplied as; sums are f32, or int32 in INT8. Of 606
 * photographs, ResNet-18 and -50 gave the same class as in F32 for 99.7 % in BF16 and for 97 % in INT8.
 */
typedef enum resnet_precision {
    RESNET_PRECISION_AUTO = 0, /* in a config: F32; in load options: what the file's weights are stored in */
    RESNET_PRECISION_F32,
    RESNET_PRECISION_BF16,   /* 8 bits of mantissa; where the CPU has no products of bf16, such weights in f32 */
    RESNET_PRECISION_INT8,   /* u8 activations by s8 weights; only from a file that resnet quantize made */
    RESNET_PRECISION_BF16X3, /* at least as exact as two bf16 a number: f32, in this version */
} resnet_precision;

/* "auto", "f32", "bf16", "int8", "bf16x3"; for a value outside the enumeration, "unknown". */
RESNET_API const char *resnet_precision_name(resnet_precision precision);

/* How large a network may be. */
#define RESNET_MAX_STAGES   4
#define RESNET_MAX_CHANNELS 16 /* input channels */

/*
 * One member of the family. Stage s (0..3) has blocks[s] blocks of `planes` = base_width << s channels; a basic block
 * gives planes channels, a bottleneck 4 * planes with an inner width of planes * width_per_group / 64 * groups
 * (torchvision's rule). Stages after the last one used have 0 blocks.
 */
typedef struct resnet_config {
    resnet_block block;
    uint32_t blocks[RESNET_MAX_STAGES]; /* at least 1 in the first stage */
    uint32_t base_width;                /* channels of the stem and planes of the first stage: 64 in the paper */
    uint32_t groups; /* of the 3x3 in a bottleneck: 32 in ResNeXt-50; of 4, 8 or a multiple of 16 channels each */
    uint32_t width_per_group; /* 64; 128 makes a Wide ResNet */
    resnet_stride_at stride_at;
    resnet_stem stem;
    resnet_shortcut shortcut;
    resnet_attention attention;
    uint32_t attention_width; /* channels that are squeezed to: a 16th of a block's, and at least this; 0 without */
    uint32_t output_stride;   /* 0: as it comes. 16, 8: the fourth stage, the third and fourth dilate in place of their
                                 stride, so that C5 is 1/16, 1/8 of the input (torchvision's
                                 replace_stride_with_dilation) */
    uint32_t in_channels;     /* 1..RESNET_MAX_CHANNELS */
    uint32_t height;          /* input size in pixels: the crop of the preprocessing; a session may choose another */
    uint32_t width;
    uint32_t classes; /* 0 without a head */
    resnet_head head;
    resnet_precision precision;
    float bn_epsilon; /* 1e-5 in torchvision */
} resnet_config;

/*
 * The config of a network that is known by name, for ImageNet or CIFAR-10:
 *     resnet18, 34, 50, 101, 152             resnet18d ... resnet152d (deep stem, average pool shortcut)
 *     resnext50_32x4d, resnext101_32x8d, resnext101_64x4d, wide_resnet50_2, wide_resnet101_2
 *     seresnet18 ... seresnet152             resnet20, 32, 44, 56, 110, 1202 (CIFAR)
 * Any other name is RESNET_ERROR_ARGUMENT.
 */
RESNET_API resnet_status resnet_config_preset(const char *name, resnet_config *config, resnet_error *error);

/* Pillow's filters of these names. */
typedef enum resnet_interpolation { RESNET_BILINEAR = 0, RESNET_BICUBIC = 1 } resnet_interpolation;

/*
 * torchvision's ImageClassification preset: resize the short side to `resize` pixels as Pillow does (with antialias),
 * cut the network's height x width out of the middle (padding a smaller image with zeros), then (u / 255 - mean) / std.
 */
typedef struct resnet_preprocess {
    uint32_t resize; /* pixels of the short side; 0: no resize, centre crop only */
    resnet_interpolation interpolation;
    float mean[RESNET_MAX_CHANNELS];
    float std[RESNET_MAX_CHANNELS];
} resnet_preprocess;

/* ---- Models ---- */

/* Which kernels compute. AUTO takes the best that this CPU has; the others refuse with RESNET_ERROR_UNSUPPORTED where
 * absent. */
typedef enum resnet_isa {
    RESNET_ISA_AUTO = 0,
    RESNET_ISA_REFERENCE, /* naive, one operation at a time: slow, to check against and to learn from */
    RESNET_ISA_SCALAR,    /* the fast path in plain C */
    RESNET_ISA_NEON,
    RESNET_ISA_AVX2,   /* with FMA */
    RESNET_ISA_AVX512, /* with VNNI and BF16 where the CPU has them */
    RESNET_ISA_AMX     /* tiles for bf16 and int8, AVX-512 for the rest */
} resnet_isa;

/* "auto", "reference", "scalar", "neon", "avx2", "avx512", "amx"; for a value outside the enumeration, "unknown". */
RESNET_API const char *resnet_isa_name(resnet_isa isa);

/* RESNET_OK where `isa` can run here, else RESNET_ERROR_UNSUPPORTED with the names of those that can. */
RESNET_API resnet_status resnet_isa_check(resnet_isa isa, resnet_error *error);

/* Where memory comes from. `allocate` returns `size` bytes at a multiple of 64, or NULL; it need not clear them. Both
 * may be called from any thread that calls the library. */
typedef struct resnet_allocator {
    void *(*allocate)(void *context, size_t size);
    void (*release)(void *context, void *memory, size_t size);
    void *context;
} resnet_allocator;

/* How to load a model. */
typedef struct resnet_load_options {
    resnet_isa isa;
    resnet_precision precision; /* UNSUPPORTED where the file cannot give it: INT8 from anything but an int8 file */
    uint32_t threads;           /* to check, fold and pack with; 0: as many as CPU affinity and cgroup quota give */
    int no_winograd; /* 1: compute every convolution by its sum. 0: 3x3 layers with stride 1 and up to 512 x 512
                        channels (in bf16 128 x 128) use Winograd's method, which is faster, takes two to four times
                        the memory and rounds a little more */
    const resnet_allocator *allocator; /* copied; NULL: the system's memory, in huge pages where it offers them */
} resnet_load_options;

/* A network with its weights, packed for one instruction set and precision, and its labels. Made by resnet_model_load_*
 * or resnet_model_random, owned by the caller until resnet_model_free. Never changes: any number of threads and
 * sessions may share it. */
typedef struct resnet_model resnet_model;

/*
 * Load a model file (models/FORMAT.md). The file is checked to the byte, batch normalisation is folded into the
 * convolutions (in double) and the weights are packed for the instruction set. The file is read once, a part of a layer
 * at a time, and closed; memory stays near the size of the weights.
 *
 * Errors: IO, MODEL, UNSUPPORTED, MEMORY, THREAD, ARGUMENT.
 */
RESNET_API resnet_status resnet_model_load_file(const char *path, const resnet_load_options *options,
                                                resnet_model **model, resnet_error *error);

/* The same from `size` bytes of memory, which may go when the call returns. */
RESNET_API resnet_status resnet_model_load_memory(const void *data, size_t size, const resnet_load_options *options,
                                                  resnet_model **model, resnet_error *error);

/* A network of this shape with weights made from `seed` (He initialisation): for measuring, it knows nothing. The
 * same config and seed give the same weights everywhere. */
RESNET_API resnet_status resnet_model_random(const resnet_config *config, uint64_t seed,
                                             const resnet_load_options *options, resnet_model **model,
                                             resnet_error *error);

/* Free a model, after all of its sessions. NULL is allowed. */
RESNET_API void resnet_model_free(resnet_model *model);

/* What a model is. The name belongs to the library. */
typedef struct resnet_model_info {
    const char *architecture; /* "resnet50", ... or "resnet" for a shape without a name of its own */
    resnet_config config;
    resnet_preprocess preprocess;
    resnet_isa isa;             /* what AUTO became */
    resnet_precision precision; /* what is computed in; config.precision is the file's */
    uint64_t parameters;        /* as PyTorch counts them: weights, biases, batch normalisation's scale and shift */
    uint64_t macs;              /* multiply-adds of one image at config.height x config.width */
    size_t memory;              /* bytes that the model holds */
    uint32_t features;          /* numbers of an embedding */
    uint32_t layers;            /* how many resnet_model_layer knows */
} resnet_model_info;

/* What `model` is. Cannot fail. */
RESNET_API resnet_model_info resnet_model_describe(const resnet_model *model);

/* The label of class 0 <= index < classes; NULL beyond, or in a model without labels. Belongs to the model. */
RESNET_API const char *resnet_model_label(const resnet_model *model, uint32_t index);

/* One step of the network, in the order in which they run. */
typedef struct resnet_layer {
    char name[32];    /* torchvision's: "conv1", "layer3.0.downsample", "fc" */
    const char *kind; /* "conv", "maxpool", "avgpool", "linear", "subsample" or "scale" */
    uint32_t in_channels, out_channels;
    uint32_t kernel, stride;
    uint32_t out_height, out_width; /* at the size that was asked about */
    int relu, residual;             /* 1 where the convolution ends with it */
    uint64_t parameters;            /* as in resnet_model_info */
    uint64_t macs;                  /* one image */
} resnet_layer;

/* Layer 0 <= index < layers for an input of height x width pixels (0: the model's own size). Errors: ARGUMENT. */
RESNET_API resnet_status resnet_model_layer(const resnet_model *model, uint32_t index, uint32_t height, uint32_t width,
                                            resnet_layer *layer, resnet_error *error);

/* ---- Sessions ---- */

/* Call task(argument, i) once for each 0 <= i < count, in any order, on any threads, and return when all have returned.
 */
typedef void resnet_parallel_for(void *context, uint32_t count, void (*task)(void *argument, uint32_t i),
                                 void *argument);

/* How a session is to run. */
typedef struct resnet_session_options {
    uint32_t batch;                    /* images a run can take: the number of input slots; 0 means 1 */
    uint32_t height, width;            /* input size in pixels; 0: the model's own */
    uint32_t threads;                  /* 0: as many as the CPU affinity and the cgroup quota give; more than those are
                                          not started, and only cut the work into smaller parts */
    resnet_parallel_for *parallel_for; /* the caller's own pool in place of ours; `threads` says how far to split */
    void *parallel_context;
    double *layer_seconds; /* NULL, or an array of `layers` numbers to which each run adds what each layer took */
} resnet_session_options;

/* Memory and threads for runs of one model, at one input size. Made by resnet_session_create, owned by the caller until
 * resnet_session_free; used by one thread at a time. The model must outlive it. The child of a fork may use and free
 * its copy, which has no threads but the one that calls; the results are the same. */
typedef struct resnet_session resnet_session;

/* Bytes that a session with these options will hold: exactly what create asks its allocator for. Errors: as create. */
RESNET_API resnet_status resnet_session_memory(const resnet_model *model, const resnet_session_options *options,
                                               size_t *bytes, resnet_error *error);

/* Make a session: all memory that its runs need, and its threads. It uses the model's allocator. Errors: ARGUMENT,
 * MEMORY, THREAD. */
RESNET_API resnet_status resnet_session_create(const resnet_model *model, const resnet_session_options *options,
                                               resnet_session **session, resnet_error *error);

/* Free a session and stop its threads. NULL is allowed. */
RESNET_API void resnet_session_free(resnet_session *session);

/* How many threads the session splits its work between. */
RESNET_API uint32_t resnet_session_threads(const resnet_session *session);

/*
 * Fill input slot `slot` (0 <= slot < batch). Different slots may be filled by different threads at once. A slot keeps
 * its content until it is filled again.
 */

/* The order of an image's numbers: a plane for each channel, or all channels of each pixel together. */
typedef enum resnet_layout { RESNET_NCHW = 0, RESNET_NHWC = 1 } resnet_layout;

/* Numbers that are normalised already: in_channels * height * width floats in the layout that is named. Errors:
 * ARGUMENT. */
RESNET_API resnet_status resnet_session_set_floats(resnet_session *session, uint32_t slot, const float *values,
                                                   resnet_layout layout, resnet_error *error);

/* Preprocess 8-bit RGB pixels: `height` rows of 3 * width bytes, row starts `stride` bytes apart (0: 3 * width).
 * `preprocess` overrides the model's where it is not NULL. Allocates. Errors: ARGUMENT, MEMORY, UNSUPPORTED where
 * in_channels is not 3. */
RESNET_API resnet_status resnet_session_set_rgb(resnet_session *session, uint32_t slot, const uint8_t *pixels,
                                                uint32_t width, uint32_t height, size_t stride,
                                                const resnet_preprocess *preprocess, resnet_error *error);

/* Decode a JPEG, PNG or BMP (up to 64 megapixels; no EXIF rotation, alpha dropped, as PIL's convert("RGB")), then as
 * set_rgb. Errors: IO, IMAGE and those of set_rgb; UNSUPPORTED in a build without the image decoder. */
RESNET_API resnet_status resnet_session_set_image_file(resnet_session *session, uint32_t slot, const char *path,
                                                       const resnet_preprocess *preprocess, resnet_error *error);

/* The same from `size` bytes of memory, which may go when the call returns. Errors: as set_image_file, but for IO. */
RESNET_API resnet_status resnet_session_set_image_memory(resnet_session *session, uint32_t slot, const void *data,
                                                         size_t size, const resnet_preprocess *preprocess,
                                                         resnet_error *error);

/*
 * Run slots 0..count-1: logits[i * classes + c] is the score of class c for slot i, before softmax. Allocates nothing.
 * For one instruction set the result is the same to the bit for every thread count, batch size and slot. The caller's
 * floating-point environment is as before afterwards. The short form of resnet_run for logits. Errors: ARGUMENT, also
 * for a network without a head.
 */
RESNET_API resnet_status resnet_session_run(resnet_session *session, uint32_t count, float *logits,
                                            resnet_error *error);

/* A stage's output: C2 to C5 of detectors are those of stages 0 to 3. */
typedef struct resnet_map {
    uint32_t channels, height, width;
    uint32_t stride; /* pixels of the input from one value to the next, in both directions */
} resnet_map;

/* The map of stage 0 <= stage < RESNET_MAX_STAGES at this session's input size. Errors: ARGUMENT, where the network has
 * no such stage. */
RESNET_API resnet_status resnet_session_map(const resnet_session *session, uint32_t stage, resnet_map *map,
                                            resnet_error *error);

/* What a run is to give: each result goes where its pointer says, and NULL means that it is not wanted. Layers past the
 * last one that is needed are not run. */
typedef struct resnet_request {
    float *logits;                  /* [count][classes] */
    float *embedding;               /* [count][features]: the mean of the last stage's map, in f32 in any precision */
    float *maps[RESNET_MAX_STAGES]; /* stage s: [count][channels][height][width] of resnet_session_map; in NHWC,
                                       channels last */
    resnet_layout layout;           /* of maps */
    float *cam; /* [count][height][width] of the last stage's map: what each place adds to the score of a class. Its
                   mean is the logit without the bias, but for rounding (an int8 network's logit comes from averages in
                   8 bits). Zhou et al.: Learning Deep Features for Discriminative Localization */
    const uint32_t *cam_classes; /* [count]: of which class; NULL: of each image's largest logit */
} resnet_request;

/* Run slots 0..count-1. Allocates nothing; results as resnet_session_run's. Errors: ARGUMENT, also where logits or cam
 * are asked of a network without a head, or a map of a stage that it has not. */
RESNET_API resnet_status resnet_run(resnet_session *session, uint32_t count, const resnet_request *request,
                                    resnet_error *error);

/* ---- Answers ---- */

/* Turn `count` logits into probabilities in place. A NaN or +infinity among them makes all of them NaN. */
RESNET_API void resnet_softmax(float *values, uint32_t count);

/* The indices of the k largest of `count` values, largest first, equal ones in index order. Returns how many were
 * written: the smaller of k and count. NaN counts as smaller than any number. */
RESNET_API uint32_t resnet_top_k(const float *values, uint32_t count, uint32_t k, uint32_t *indices);

/* ---- Your own classes ---- */

/* Photographs whose classes are known, as embeddings (resnet_run) by the network that is to learn them. */
typedef struct resnet_examples {
    uint32_t count;          /* photographs */
    uint32_t views;          /* embeddings of each: crops, mirror images; 0 means 1 */
    const float *embeddings; /* [count][views][features], finite */
    const uint32_t *classes; /* [count]: the one class of each; NULL with tags */
    const uint8_t *tags; /* [count][classes], 1 where a class is right, else 0: any number may be; NULL with classes */
} resnet_examples;

/* What resnet_teach chose. */
typedef struct resnet_teach_report {
    double strength;
    int from_zero;
    uint32_t folds; /* of the cross-validation: 5, or as many as the largest class has photographs; 0: there was none */
    double loss;    /* in it: mean of -ln(probability of what is right), classes counted alike; 0: there was none */
} resnet_teach_report;

/* How to teach. */
typedef struct resnet_teach_options {
    uint32_t classes;          /* 2 to 2^20, with tags from 1 on; each right for some photograph, and not for all */
    const char *const *labels; /* [classes], as models/FORMAT.md allows them; NULL: none */
    double strength;           /* of the examples against the penalty: C in scikit-learn; 0: cross-validation chooses */
    int from_zero;    /* 1: the penalty is on weights. 0: on how far they are from those that the old classifier would
                         use, where that is a softmax and, with a strength of 0, where cross-validation finds it better */
    uint64_t seed;    /* of how the photographs are split for cross-validation */
    uint32_t threads; /* 0: as many as CPU affinity and cgroup quota give; the result is the same to the bit */
    resnet_teach_report *report; /* NULL, or where to write it */
} resnet_teach_options;

/*
 * A new model: the network of `backbone`, and nothing shared with it, with a new classifier. That is fitted by logistic
 * regression with an L2 penalty and balanced classes: multinomial for classes (the head becomes SOFTMAX), one for each
 * class for tags (SIGMOID). Errors: ARGUMENT, MEMORY, THREAD.
 */
RESNET_API resnet_status resnet_teach(const resnet_model *backbone, const resnet_examples *examples,
                                      const resnet_teach_options *options, resnet_model **model, resnet_error *error);

/* ---- Measuring ---- */

/* Operations a second (a multiply-add is two) that one core reaches here in the products of this instruction set and
 * precision, with all operands in registers: the roof that a layer's speed is held against. Takes about 10 ms. Errors:
 * UNSUPPORTED. */
RESNET_API resnet_status resnet_peak(resnet_isa isa, resnet_precision precision, double *operations,
                                     resnet_error *error);

#ifdef __cplusplus
}
#endif

#endif
