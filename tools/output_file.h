/* output_file.h - write a file whole or not at all, under another name first and then renamed into place; or go on with
 * one that is there. */
#ifndef OUTPUT_FILE_H
#define OUTPUT_FILE_H

#include <stdbool.h>
#include <stdio.h>

/* Until it is committed, a file that has this name stays as it was. It must stay where it is: a program that ends with
 * exit() in the meantime removes what was written. */
struct output_file {
    FILE *file;               /* to write to */
    const char *name;         /* the caller's; it must outlive this */
    char *temporary;          /* in the same folder; NULL in place */
    bool told;                /* that it cannot be written */
    struct output_file *next; /* of those that are open */
};

/* False after a complaint: where the name cannot be written, or is that of something other than a regular file. */
bool output_open(struct output_file *output, const char *name);

/* Open the file itself to go on with it, reading and writing; it is made where it is not there. False after a
 * complaint: as above, or where another process goes on with it. What is written shows at once, and neither
 * output_abandon nor the end of the program undoes it. */
bool output_open_in_place(struct output_file *output, const char *name);

/* Hand what was written to the system. False after a complaint. */
bool output_flush(struct output_file *output);

/* Hand what was written to the disk and give it its name. False after a complaint: then nothing has changed. */
bool output_commit(struct output_file *output);

/* Close the file and remove what was written. Does nothing to a file that was committed or not opened. */
void output_abandon(struct output_file *output);

#endif
