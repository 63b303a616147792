/* model.c - open the model that the user named, or the default one. */
#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "commands.h"
#include "text.h"

#define DEFAULT_NAME "/default.resnet"

/* In the order of the search; the build says where they are. */
static const char *const default_places[] = {
#ifdef RESNET_DATADIR
    RESNET_DATADIR DEFAULT_NAME,
#endif
#ifdef RESNET_SOURCE_MODELS
    RESNET_SOURCE_MODELS DEFAULT_NAME,
#endif
    NULL,
};

int library_failure(const char *what, const resnet_error *error) {
    static const int codes[] = {
        [RESNET_ERROR_ARGUMENT] = EXIT_USAGE,    [RESNET_ERROR_MODEL] = EXIT_MODEL,
        [RESNET_ERROR_UNSUPPORTED] = EXIT_MODEL, [RESNET_ERROR_IO] = EXIT_IO,
        [RESNET_ERROR_MEMORY] = EXIT_IO,         [RESNET_ERROR_IMAGE] = EXIT_INPUTS,
        [RESNET_ERROR_THREAD] = EXIT_IO,
    };
    complain("%s: %s", what, without_name(error->message, what));
    return codes[error->status];
}

static const char *find_default(void) {
    const char *const *place = default_places;
    while (*place && access(*place, F_OK) != 0)
        place++;
    if (!*place) {
        complain("there is no default model; name one with --model FILE");
        for (place = default_places; *place; place++)
            complain("looked for %s", *place);
        return NULL;
    }
    return *place;
}

int model_open(const char **path, const resnet_load_options *options, resnet_model **model) {
    resnet_error error;
    if (!*path && !(*path = find_default()))
        return EXIT_IO;
    if (resnet_model_load_file(*path, options, model, &error) == RESNET_OK)
        return EXIT_FINE;
    return library_failure(*path, &error);
}

const char *class_name(const resnet_model *model, uint32_t index, char buffer[32]) {
    const char *label = resnet_model_label(model, index);
    if (label)
        return label;
    snprintf(buffer, 32, "class %" PRIu32, index);
    return buffer;
}
