/* tar.h - the images in a tar archive that may be anything: ustar, pax, and GNU's long names. */
#ifndef TAR_H
#define TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAR_MOST_PATH 4096 /* bytes of a member's name */

struct tar {
    const char *name;             /* of the archive */
    bool failed;                  /* ended by something other than its end; it was said on stderr */
    char path[TAR_MOST_PATH + 1]; /* the member's name, and */
    uint64_t size;                /* bytes */
    int descriptor;
    uint64_t at;     /* bytes from the archive's start */
    uint64_t ahead;  /* bytes of the member that are not read, with its padding */
    uint64_t length; /* of an archive that is a regular file, which can be skipped in; else 0 */
};

/* Open the file, or stdin where the name is "-". False after a complaint. */
bool tar_open(struct tar *tar, const char *name);
void tar_close(struct tar *tar);

/* Go to the next regular file whose name ends in .jpg, .jpeg, .png or .bmp, in any case; false at the end, after a
 * complaint (tar->failed), and after a wish to stop (stop.h). */
bool tar_next(struct tar *tar);

/* Read the member, tar->size bytes. False as above. */
bool tar_read(struct tar *tar, uint8_t *data);

#endif
