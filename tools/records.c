/* records.c - records, a JSON object a line for each image: on stdout, or behind those that an earlier run left. */
#define _POSIX_C_SOURCE 200809L
#include "records.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "commands.h"
#include "report.h"
#include "system.h"
#include "text.h"

#define START     "{\"file\":\""
#define START_END (sizeof START - 1)

/* The start of a line, which has the name, and that can have 128 KiB, six times as many escaped; the rest can be long.
 */
struct line {
    char text[1 << 20];
    size_t length; /* of the line */
    int last;      /* its last byte */
};

/* Whether the file has one more line with a line feed behind. */
static bool read_line(FILE *file, struct line *line) {
    int c;
    line->length = 0;
    while ((c = getc_unlocked(file)) != EOF && c != '\n') {
        if (line->length < sizeof line->text - 1)
            line->text[line->length] = (char)c;
        line->length++;
        line->last = c;
    }
    line->text[line->length < sizeof line->text ? line->length : sizeof line->text - 1] = '\0';
    return c == '\n';
}

/* What a record begins with. */
struct head {
    size_t length; /* of the name, as it is written, behind START */
    bool failed;
};

/* Whether the line is a record of an error or of this kind. */
static bool read_head(const struct line *line, const char *kind, struct head *head) {
    const char *end = line->text + START_END;
    if (strncmp(line->text, START, START_END) != 0 || line->last != '}')
        return false;
    while (*end && *end != '"')
        end += *end == '\\' && end[1] ? 2 : 1;
    size_t key = strlen(kind);
    head->length = (size_t)(end - line->text) - START_END;
    head->failed = strncmp(end, "\",\"error\":", 10) == 0;
    return head->failed || (strncmp(end, "\",\"", 3) == 0 && strncmp(end + 3, kind, key) == 0 && end[3 + key] == '"');
}

/* Take note of the records in the file, and go behind the last one. */
static bool read_records(struct records *records, const char *kind) {
    static struct line line;
    FILE *file = records->file.file;
    off_t end = 0;
    for (unsigned long number = 1; read_line(file, &line); number++) {
        struct head head;
        if (!read_head(&line, kind, &head)) {
            complain("%s: line %lu is no record with \"%s\": it does not come from this command", records->file.name,
                     number, kind);
            return false;
        }
        done_add(&records->done, line.text + START_END, head.length);
        records->failed += head.failed;
        end = ftello(file);
    }
    if (ferror(file) || strncmp(line.text, START, line.length < START_END ? line.length : START_END) != 0) {
        complain("%s: %s", records->file.name,
                 ferror(file) ? strerror(errno) : "its last line is not the start of a record");
        return false;
    }
    if (ftruncate(fileno(file), end) == 0 && fseeko(file, end, SEEK_SET) == 0)
        return true;
    complain("%s: cannot be written: %s", records->file.name, strerror(errno));
    return false;
}

bool records_open(struct records *records, const char *file, const char *kind) {
    *records = (struct records){0};
    if (!file)
        return true;
    if (output_open_in_place(&records->file, file) && read_records(records, kind))
        return true;
    output_abandon(&records->file);
    done_free(&records->done);
    return false;
}

static void print_name(const void *image, FILE *out) {
    report_text(&(struct report){.out = out}, NULL, image);
}

/* The name as a record has it, in which bytes that are no UTF-8 all look alike: of names that differ in nothing else,
 * as many are left as are not done. */
bool records_take(struct records *records, const char *image) {
    size_t size;
    if (records->done.count == 0)
        return false;
    char *escaped = print_to_memory(print_name, image, &size);
    escaped[size - 1] = '\0'; /* the quotes */
    bool taken = done_take(&records->done, escaped + 1);
    free(escaped);
    return taken;
}

static FILE *out(const struct records *records) {
    return records->file.file ? records->file.file : stdout;
}

void records_write(struct records *records, const char *record, size_t size) {
    fwrite(record, 1, size, out(records));
}

bool records_flush(struct records *records) {
    return records->file.file ? output_flush(&records->file) : flush_output();
}

int records_close(struct records *records, int code) {
    bool written = !records->file.file || output_commit(&records->file);
    done_free(&records->done);
    if (!written && code <= EXIT_IO)
        return EXIT_IO;
    return code == EXIT_FINE && records->failed ? EXIT_INPUTS : code;
}
