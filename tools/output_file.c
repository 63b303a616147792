/* output_file.c - write a file whole or not at all, under another name first and then renamed into place; or go on with
 * one that is there. */
#define _POSIX_C_SOURCE 200809L
#include "output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system.h"
#include "text.h"

static bool refuse(const char *name, int reason) {
    complain("%s: cannot be written: %s", name, strerror(reason));
    return false;
}

/* "NAME.123.part" with this process's number. */
static char *temporary_name(const char *name) {
    size_t size = strlen(name) + 32;
    char *text = allocate(size, 1);
    snprintf(text, size, "%s.%ld.part", name, (long)getpid());
    return text;
}

/* Those that are neither committed nor abandoned. */
static struct output_file *open_outputs;

static void remove_open(void) {
    for (const struct output_file *output = open_outputs; output; output = output->next)
        unlink(output->temporary);
}

static void note_open(struct output_file *output) {
    static bool registered;
    if (!registered)
        registered = atexit(remove_open) == 0;
    output->next = open_outputs;
    open_outputs = output;
}

static void note_closed(const struct output_file *output) {
    struct output_file **link = &open_outputs;
    while (*link && *link != output)
        link = &(*link)->next;
    if (*link)
        *link = output->next;
}

/* Whether it is a regular file or none: renaming would put a file in a device's place. */
static bool can_be_file(const char *name) {
    struct stat status;
    if (stat(name, &status) != 0 || S_ISREG(status.st_mode))
        return true;
    complain("%s: cannot be written: it is not a regular file", name);
    return false;
}

bool output_open(struct output_file *output, const char *name) {
    *output = (struct output_file){.name = name};
    if (!can_be_file(name))
        return false;
    output->temporary = temporary_name(name);
    int file = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0 && (output->file = fdopen(file, "w")) != NULL) {
        note_open(output);
        return true;
    }
    int reason = errno;
    if (file >= 0) {
        close(file);
        unlink(output->temporary);
    }
    free(output->temporary);
    *output = (struct output_file){0};
    return refuse(name, reason);
}

/* Whether no other process has the file locked; where a file system knows no locks, none has. */
static bool lock(int file) {
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(file, F_SETLK, &all) == 0 || (errno != EACCES && errno != EAGAIN);
}

bool output_open_in_place(struct output_file *output, const char *name) {
    *output = (struct output_file){.name = name};
    if (!can_be_file(name))
        return false;
    int file = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    bool is_free = file >= 0 && lock(file);
    if (is_free && (output->file = fdopen(file, "r+")) != NULL)
        return true;
    int reason = errno;
    if (file >= 0)
        close(file);
    if (file < 0 || is_free)
        return refuse(name, reason);
    complain("%s: another process is writing it", name);
    return false;
}

bool output_flush(struct output_file *output) {
    if (fflush(output->file) == 0 && !ferror(output->file))
        return true;
    output->told = output->told || !refuse(output->name, errno);
    return false;
}

bool output_commit(struct output_file *output) {
    bool written = fflush(output->file) == 0 && !ferror(output->file) && fsync(fileno(output->file)) == 0;
    int reason = errno;
    if (fclose(output->file) != 0 && written) {
        written = false;
        reason = errno;
    }
    output->file = NULL;
    if (written && output->temporary && rename(output->temporary, output->name) != 0) {
        written = false;
        reason = errno;
    }
    if (!written && !output->told)
        refuse(output->name, reason);
    else if (written)
        free(output->temporary), output->temporary = NULL;
    output_abandon(output);
    return written;
}

void output_abandon(struct output_file *output) {
    note_closed(output);
    if (output->file)
        fclose(output->file);
    if (output->temporary) {
        unlink(output->temporary);
        free(output->temporary);
    }
    *output = (struct output_file){0};
}
