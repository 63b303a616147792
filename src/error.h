/* error.h - fill the caller's resnet_error. */
#ifndef ERROR_H
#define ERROR_H

#include "resnet.h"

/* Write `status` and the formatted sentence to `error` (which may be NULL) and return `status`. A sentence that is too
 * long is cut; control bytes, which a file name may hold, become '?'. */
resnet_status fail(resnet_error *error, resnet_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As fail, with the sentence of `reason` behind the name of the file that it is about: of a long path its end, since
 * the reason must fit behind it. */
resnet_status fail_file(resnet_error *error, resnet_status status, const char *path, const resnet_error *reason);

/* As fail, for an allocation of `bytes` for `what` that was refused. */
resnet_status fail_memory(resnet_error *error, const char *what, size_t bytes);

#endif
