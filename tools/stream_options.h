/* stream_options.h - the options of the commands that take images as a stream. */
#ifndef STREAM_OPTIONS_H
#define STREAM_OPTIONS_H

#include "inputs.h"
#include "options.h"
#include "shard.h"
#include "stream.h"

struct stream_options {
    struct inputs_settings inputs;
    const char *shard_text, *resume; /* or NULL */
    struct shard shard;
    double max_wait;
    bool unordered;
};

#define STREAM_DEFAULTS                                                                                                \
    { .max_wait = 0.05 }

/* Rows of a table of options (options.h). */
#define STREAM_OPTIONS(o)                                                                                              \
    option_text("files-from", "FILE", "also the images that this file lists, a path a line (-: stdin)",                \
                &(o).inputs.files_from),                                                                               \
        option_switch("null", "names in that list end with NUL bytes, not lines; also -0", &(o).inputs.null),          \
        option_text("tar", "FILE", "also the images in this tar archive (-: stdin)", &(o).inputs.tar),                 \
        option_text("shard", "I/N", "every Nth image from the Ith on; auto: as the scheduler says", &(o).shard_text),  \
        option_text("resume", "FILE", "write to FILE, going on behind what an earlier run left there", &(o).resume),   \
        option_switch("unordered", "answers as they come, not in the images' order", &(o).unordered),                  \
        option_seconds("max-wait", "seconds that an image waits for others to run with (0.05)", &(o).max_wait)

/* For a command's notes. */
#define STREAM_NOTES                                                                                                   \
    "Lists and archives may be of any length, and their writers slow. SIGINT and SIGTERM finish the\n"                 \
    "images that are being computed, and exit with 130 and 143. --resume FILE skips each image that\n"                 \
    "FILE names as often as it does there."

/* Look at what the user has chosen: GO_ON, or EXIT_USAGE after a complaint. */
int stream_options_check(const struct command *command, struct stream_options *options, int argc, char **argv);

/* Open the model, and a session where there are so few images that all threads together answer each sooner (stream.h).
 * As batch_open. */
int stream_options_open(const struct stream_options *options, int argc, struct batch *batch,
                        const struct batch_settings *settings);

/* The plan; batch, inputs and threads are the caller's. */
struct stream_plan stream_options_plan(const struct stream_options *options, struct batch *batch, struct inputs *inputs,
                                       uint32_t threads);

#endif
