/* error.c - fill the caller's resnet_error, and name the status codes. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void replace_control_bytes(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

resnet_status fail(resnet_error *error, resnet_status status, const char *format, ...) {
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        replace_control_bytes(error->message);
        error->status = status;
    }
    return status;
}

resnet_status fail_file(resnet_error *error, resnet_status status, const char *path, const resnet_error *reason) {
    size_t length = strlen(path), shown = 96;
    return fail(error, status, "%s%s: %s", length > shown ? "..." : "", length > shown ? path + length - shown : path,
                reason->message);
}

resnet_status fail_memory(resnet_error *error, const char *what, size_t bytes) {
    return fail(error, RESNET_ERROR_MEMORY, "out of memory: %zu bytes for %s were refused", bytes, what);
}

const char *resnet_status_name(resnet_status status) {
    static const char *const names[] = {
        "RESNET_OK",          "RESNET_ERROR_ARGUMENT",    "RESNET_ERROR_MEMORY", "RESNET_ERROR_IO",
        "RESNET_ERROR_MODEL", "RESNET_ERROR_UNSUPPORTED", "RESNET_ERROR_IMAGE",  "RESNET_ERROR_THREAD",
    };
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown";
}
