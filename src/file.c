/* file.c - open and read a regular file that somebody named. */
#define _POSIX_C_SOURCE 200809L
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

/* Not blocking, so that opening a named pipe returns at once. */
resnet_status file_open(const char *path, int *descriptor, uint64_t *size, resnet_error *error) {
    struct stat about;
    *descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*descriptor < 0)
        return fail(error, RESNET_ERROR_IO, "cannot be opened: %s", strerror(errno));
    if (fstat(*descriptor, &about) != 0)
        return fail(error, RESNET_ERROR_IO, "cannot be examined: %s", strerror(errno));
    if (!S_ISREG(about.st_mode))
        return fail(error, RESNET_ERROR_IO, "is %s, not a regular file",
                    S_ISDIR(about.st_mode)    ? "a directory"
                    : S_ISFIFO(about.st_mode) ? "a named pipe"
                                              : "a device or a socket");
    *size = (uint64_t)about.st_size;
    return RESNET_OK;
}

resnet_status file_read(int descriptor, uint64_t offset, void *bytes, size_t size, resnet_error *error) {
    uint8_t *to = bytes;
    while (size) {
        ssize_t got = pread(descriptor, to, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(error, RESNET_ERROR_IO, "cannot be read: %s", strerror(errno));
        if (got == 0)
            return fail(error, RESNET_ERROR_IO, "became shorter while it was read: %zu bytes are missing", size);
        to += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return RESNET_OK;
}
