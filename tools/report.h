/* report.h - named values: as JSON, or as lines for people. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Commas, escapes and missing numbers are taken care of. For people, a value is a line "  name   value". */
struct report {
    FILE *out; /* NULL: stdout */
    bool people;
    bool comma; /* JSON: the next value follows another one */
};

/* `key` is NULL in an array and at the top; `bracket` is one of {[}]. For people, brackets are nothing. */
void report_open(struct report *report, const char *key, char bracket);
void report_close(struct report *report, char bracket);

/* NULL gives null. Bytes that are no UTF-8 become U+FFFD; for people, '?'. */
void report_text(struct report *report, const char *key, const char *text);

/* Nine significant digits, which any float survives. What is not finite gives null. */
void report_number(struct report *report, const char *key, double number);
void report_integer(struct report *report, const char *key, uint64_t number);

/* An array of numbers. */
void report_floats(struct report *report, const char *key, const float *values, uint32_t count);

#endif
