/* report.c - named values on stdout: as JSON, or as lines for people. */
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "text.h"

static void put_string(const char *text) {
    putchar('"');
    while (*text) {
        const char *start = text;
        uint32_t code = utf8_next(&text);
        if (code == UTF8_INVALID)
            fputs("\\ufffd", stdout);
        else if (is_control(code))
            printf("\\u%04" PRIx32, code);
        else {
            if (code == '"' || code == '\\')
                putchar('\\');
            fwrite(start, 1, (size_t)(text - start), stdout);
        }
    }
    putchar('"');
}

/* "images_per_second", as people would write it, with two spaces in front and up to the column of the values. */
static void put_name(const char *key) {
    int width = printf("  ") - 2;
    for (; *key; key++, width++)
        putchar(*key == '_' ? ' ' : *key);
    printf("%*s", 20 - width, "");
}

/* What comes before a value. */
static void lead(struct report *report, const char *key) {
    if (report->people) {
        put_name(key);
        return;
    }
    if (report->comma)
        putchar(',');
    report->comma = true;
    if (key) {
        put_string(key);
        putchar(':');
    }
}

static void trail(const struct report *report) {
    if (report->people)
        putchar('\n');
}

void report_open(struct report *report, const char *key, char bracket) {
    if (report->people)
        return;
    lead(report, key);
    putchar(bracket);
    report->comma = false;
}

void report_close(struct report *report, char bracket) {
    if (report->people)
        return;
    putchar(bracket);
    report->comma = true;
}

void report_text(struct report *report, const char *key, const char *text) {
    lead(report, key);
    if (!text)
        fputs(report->people ? "-" : "null", stdout);
    else if (report->people)
        print_clean(stdout, text);
    else
        put_string(text);
    trail(report);
}

static void put_number(const struct report *report, double number) {
    if (isfinite(number))
        printf(report->people ? "%.5g" : "%.9g", number);
    else
        fputs(report->people ? "-" : "null", stdout);
}

void report_number(struct report *report, const char *key, double number) {
    lead(report, key);
    put_number(report, number);
    trail(report);
}

void report_integer(struct report *report, const char *key, uint64_t number) {
    lead(report, key);
    printf("%" PRIu64, number);
    trail(report);
}

void report_floats(struct report *report, const char *key, const float *values, uint32_t count) {
    lead(report, key);
    if (!report->people)
        putchar('[');
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            putchar(report->people ? ' ' : ',');
        put_number(report, (double)values[i]);
    }
    if (!report->people)
        putchar(']');
    trail(report);
}
