/* model.c - open the model that the user named, or the default one. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "model.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "commands.h"
#include "text.h"

/* Where the default model is, seen from the program's folder: installed, and in a build. */
static const char *const default_places[] = {RESNET_DATADIR "/default.resnet", "models/default.resnet"};
#define PLACES (sizeof default_places / sizeof *default_places)

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

/* "/usr/bin/" of /usr/bin/resnet, whatever links led there; owned by the caller. NULL where it cannot be found out. The
 * kernel tells every program its path, where /proc is not mounted as well. */
static char *find_own_folder(void) {
    const char *name = (const char *)getauxval(AT_EXECFN);
    char *path = name ? realpath(name, NULL) : NULL, *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        slash[1] = '\0';
    return path;
}

static const char *find_default(void) {
    static char path[4096 + 256]; /* a folder and a place: what is found is told to the caller */
    char *folder = find_own_folder();
    const char *found = NULL;
    for (size_t i = 0; folder && i < PLACES && !found; i++) {
        snprintf(path, sizeof path, "%s%s", folder, default_places[i]);
        found = access(path, F_OK) == 0 ? path : NULL;
    }
    if (!found)
        complain("there is no default model; name one with --model FILE");
    for (size_t i = 0; folder && i < PLACES && !found; i++)
        complain("looked for %s%s", folder, default_places[i]);
    free(folder);
    return found;
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
