/* stream_options.c - the options of the commands that take images as a stream. */
#include "stream_options.h"

#define FEW 16 /* images, which would not keep many workers busy */

int stream_options_check(const struct command *command, struct stream_options *options, int argc, char **argv) {
    const struct inputs_settings *inputs = &options->inputs;
    if (argc == 0 && !inputs->files_from && !inputs->tar)
        return usage_error(command, "no image is named", "");
    if (inputs->null && !inputs->files_from)
        return usage_error(command, "--null is about the list of --files-from", "");
    if (inputs_stdin_uses(inputs, argc, argv) > 1)
        return usage_error(command, "stdin can be read only once", "");
    return options->shard_text && !shard_parse(&options->shard, options->shard_text) ? EXIT_USAGE : GO_ON;
}

int stream_options_open(const struct stream_options *options, int argc, struct batch *batch,
                        const struct batch_settings *settings) {
    bool is_stream =
        options->inputs.files_from || options->inputs.tar || options->resume || options->shard.count || argc > FEW;
    return is_stream ? batch_open_model(batch, settings) : batch_open(batch, settings);
}

struct stream_plan stream_options_plan(const struct stream_options *options, struct batch *batch, struct inputs *inputs,
                                       uint32_t threads) {
    return (struct stream_plan){.batch = batch,
                                .inputs = inputs,
                                .shard = options->shard,
                                .threads = threads,
                                .max_wait = options->max_wait,
                                .unordered = options->unordered};
}
