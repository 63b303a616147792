/* model.h - open the model that the user named, or the default one. */
#ifndef MODEL_H
#define MODEL_H

#include "resnet.h"

/* Complain about this file, or whatever it is; gives the exit code that goes with the library's status. */
int library_failure(const char *what, const resnet_error *error);

/*
 * Load the model file `path`; where that is NULL, the default model: the installed one, then the source tree's.
 * EXIT_FINE, or the code to exit with after a complaint. `*path` becomes the file that was loaded.
 */
int model_open(const char **path, const resnet_load_options *options, resnet_model **model);

/* The class's label, or, written into `buffer`, "class 123". */
const char *class_name(const resnet_model *model, uint32_t index, char buffer[32]);

#endif
