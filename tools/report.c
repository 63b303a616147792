/* report.c - named values: as JSON, or as lines for people. */
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "text.h"

static FILE *stream(const struct report *report) {
    return report->out ? report->out : stdout;
}

static void put_string(FILE *out, const char *text) {
    putc('"', out);
    while (*text) {
        const char *start = text;
        uint32_t code = utf8_next(&text);
        if (code == UTF8_INVALID)
            fputs("\\ufffd", out);
        else if (is_control(code))
            fprintf(out, "\\u%04" PRIx32, code);
        else {
            if (code == '"' || code == '\\')
                putc('\\', out);
            fwrite(start, 1, (size_t)(text - start), out);
        }
    }
    putc('"', out);
}

/* "images_per_second", as people would write it, with two spaces in front and up to the column of the values. */
static void put_name(FILE *out, const char *key) {
    int width = fprintf(out, "  ") - 2;
    for (; *key; key++, width++)
        putc(*key == '_' ? ' ' : *key, out);
    fprintf(out, "%*s", 20 - width, "");
}

/* What comes before a value. */
static void lead(struct report *report, const char *key) {
    FILE *out = stream(report);
    if (report->people) {
        put_name(out, key);
        return;
    }
    if (report->comma)
        putc(',', out);
    report->comma = true;
    if (key) {
        put_string(out, key);
        putc(':', out);
    }
}

static void trail(const struct report *report) {
    FILE *out = stream(report);
    if (report->people)
        putc('\n', out);
}

void report_open(struct report *report, const char *key, char bracket) {
    FILE *out = stream(report);
    if (report->people)
        return;
    lead(report, key);
    putc(bracket, out);
    report->comma = false;
}

void report_close(struct report *report, char bracket) {
    FILE *out = stream(report);
    if (report->people)
        return;
    putc(bracket, out);
    report->comma = true;
}

void report_text(struct report *report, const char *key, const char *text) {
    FILE *out = stream(report);
    lead(report, key);
    if (!text)
        fputs(report->people ? "-" : "null", out);
    else if (report->people)
        print_clean(out, text);
    else
        put_string(out, text);
    trail(report);
}

static void put_number(const struct report *report, double number) {
    FILE *out = stream(report);
    if (isfinite(number))
        fprintf(out, report->people ? "%.5g" : "%.9g", number);
    else
        fputs(report->people ? "-" : "null", out);
}

void report_number(struct report *report, const char *key, double number) {
    lead(report, key);
    put_number(report, number);
    trail(report);
}

void report_integer(struct report *report, const char *key, uint64_t number) {
    FILE *out = stream(report);
    lead(report, key);
    fprintf(out, "%" PRIu64, number);
    trail(report);
}

void report_floats(struct report *report, const char *key, const float *values, uint32_t count) {
    FILE *out = stream(report);
    lead(report, key);
    if (!report->people)
        putc('[', out);
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            putc(report->people ? ' ' : ',', out);
        put_number(report, (double)values[i]);
    }
    if (!report->people)
        putc(']', out);
    trail(report);
}
