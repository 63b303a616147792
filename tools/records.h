/* records.h - records, a JSON object a line for each image: on stdout, or behind those that an earlier run left. */
#ifndef RECORDS_H
#define RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "done.h"
#include "output_file.h"

struct records {
    struct output_file file; /* not opened where they go to stdout */
    struct done done;        /* those that are in the file; names as JSON writes them */
    uint64_t failed;         /* of them */
};

/*
 * Go on with the records in `file`, which need not be there; NULL: write to stdout. A record has "file" first, then
 * "error" or what `kind` says. The last one is cut off where it is not whole; anything else is refused. False after a
 * complaint.
 */
bool records_open(struct records *records, const char *file, const char *kind);

/* Whether there is a record of this image, for each time that the image comes. */
bool records_take(struct records *records, const char *image);

/* Write the bytes of a record; hand all to the system, for whoever waits for it. False after a complaint. */
void records_write(struct records *records, const char *record, size_t size);
bool records_flush(struct records *records);

/* End the file behind a run that ended with this exit code (commands.h): gives that, or the one that what became of the
 * file and its older records makes of it. */
int records_close(struct records *records, int code);

#endif
