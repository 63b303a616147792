/* text.h - text of unknown origin (file names, labels) on its way out, and complaints. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define UTF8_INVALID 0xffffffffu

/* The code point at *s, which moves past it; for a byte that starts none, UTF8_INVALID and one byte on. */
uint32_t utf8_next(const char **s);

/* Whether a terminal may take this code point as a command: C0, DEL, C1 and what is no character. */
bool is_control(uint32_t code_point);

/* Write a string for people: control characters and invalid bytes become '?'. */
void print_clean(FILE *out, const char *s);

/* "resnet: ..." as one clean line on stderr. */
void complain(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

/* The library's message about a file, less the file's name in front, which may be shortened ("...") and cleaned there.
 */
const char *without_name(const char *message, const char *file);

/* Whether this is the name of an image, by its ending: folders and archives may hold other files besides. */
bool names_image(const char *file);

/* Hand what was printed to the system; at the first failure say so. */
bool flush_output(void);

/* Whether this stream takes colours: a terminal, and NO_COLOR is not set. */
bool takes_colour(FILE *stream);

#endif
