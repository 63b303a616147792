/* embeddings.c - the embeddings of many images in two files: a matrix, NAME.npy, and a table beside it, NAME.tsv. */
#define _POSIX_C_SOURCE 200809L
#include "embeddings.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lines.h"
#include "npy.h"
#include "system.h"
#include "text.h"

#define COLUMNS       5
#define COLUMN_NAMES  "file\tbytes\tmodified\tmodel\tcheck"
#define MOST_FEATURES (1u << 20)
#define MOST_NAME     4096

/* ---- Columns ---- */

void embeddings_stamp(const char *file, char stamp[EMBEDDINGS_TEXT]) {
    struct stat status;
    if (stat(file, &status) == 0 && S_ISREG(status.st_mode))
        snprintf(stamp, EMBEDDINGS_TEXT, "%lld\t%lld.%09ld", (long long)status.st_size,
                 (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    else
        snprintf(stamp, EMBEDDINGS_TEXT, "-\t-");
}

/* The checksums stand in the model file's header (models/FORMAT.md), and the loader has checked them. */
bool embeddings_model(const struct batch *batch, char model[EMBEDDINGS_TEXT]) {
    uint32_t header[7];
    FILE *file = fopen(batch->path, "rb");
    bool good = file && fread(header, sizeof header, 1, file) == 1;
    if (file)
        fclose(file);
    if (good)
        snprintf(model, EMBEDDINGS_TEXT, "%08" PRIx32 "%08" PRIx32 "/%" PRIu32 "/%s", header[3], header[6],
                 batch->preprocess.resize, resnet_precision_name(batch->info.precision));
    else
        complain("%s: the model's checksums cannot be read", batch->path);
    return good;
}

bool embeddings_can_name(const char *file) {
    return *file && strlen(file) <= MOST_NAME && !strpbrk(file, "\t\n\r");
}

/* FNV-1a, a number at a time. */
static uint64_t check_of(const float *values, uint32_t count) {
    uint64_t hash = 0xcbf29ce484222325;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3;
    }
    return hash;
}

/* NAME.tsv for NAME.npy; where it has another ending, that stays in front. */
static char *table_of(const char *matrix) {
    size_t length = strlen(matrix);
    char *name = allocate(length + 5, 1);
    if (length > 4 && strcmp(matrix + length - 4, ".npy") == 0)
        length -= 4;
    memcpy(name, matrix, length);
    strcpy(name + length, ".tsv");
    return name;
}

/* ---- Reading ---- */

/* A regular file, without waiting for anything else. */
static FILE *open_regular(const char *name) {
    struct stat status;
    int descriptor = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    FILE *file = NULL;
    if (descriptor < 0)
        complain("%s: cannot be opened: %s", name, strerror(errno));
    else if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))
        complain("%s: cannot be read: it is not a regular file", name);
    else
        file = fdopen(descriptor, "rb");
    if (!file && descriptor >= 0)
        close(descriptor);
    return file;
}

static bool read_matrix(struct embeddings *set, const char *name) {
    struct npy_shape shape = {.dimensions = 2};
    const char *reason;
    FILE *file = open_regular(name);
    if (!file)
        return false;
    bool good = npy_read_head(file, &shape, &reason);
    if (good && (shape.sizes[0] >= UINT32_MAX || shape.sizes[1] < 1 || shape.sizes[1] > MOST_FEATURES)) {
        reason = "an array of a size that no embeddings have";
        good = false;
    }
    if (good) {
        size_t numbers = (size_t)(shape.sizes[0] * shape.sizes[1]); /* the file has that many */
        set->features = (uint32_t)shape.sizes[1];
        set->values = allocate(numbers, sizeof *set->values);
        set->rows = allocate((size_t)shape.sizes[0], sizeof *set->rows);
        set->count = (uint32_t)shape.sizes[0];
        reason = "cannot be read to its end";
        good = fread(set->values, sizeof *set->values, numbers, file) == numbers;
    }
    fclose(file);
    if (!good)
        complain("%s: %s", name, reason);
    return good;
}

/* Cut a line at its tabs. False unless it has all columns, none of them empty or too long. */
static bool split_row(char *line, char *fields[COLUMNS]) {
    for (int i = 0; i < COLUMNS; i++) {
        size_t length = strcspn(line, "\t");
        bool ends = line[length] == '\0';
        if (length < 1 || length > (i ? EMBEDDINGS_TEXT / 2 - 1 : MOST_NAME) || ends != (i == COLUMNS - 1))
            return false;
        fields[i] = line;
        line += length;
        if (!ends)
            *line++ = '\0';
    }
    return true;
}

/* Take a line apart; it must have the check of its row. */
static bool read_row(struct embedded *row, char *line, uint64_t check) {
    char *fields[COLUMNS], *end;
    if (!split_row(line, fields) || strlen(fields[4]) != 16 || strtoull(fields[4], &end, 16) != check || *end)
        return false;
    row->file = copy_text(fields[0]);
    snprintf(row->stamp, sizeof row->stamp, "%.31s\t%.31s", fields[1], fields[2]);
    snprintf(row->model, sizeof row->model, "%s", fields[3]);
    return true;
}

static bool refuse(const struct lines *lines, const char *why) {
    if (!lines->failed) /* else that was said */
        complain("%s: %s", lines->name, why);
    return false;
}

static bool read_rows(struct embeddings *set, struct lines *lines) {
    char why[64];
    if (!lines_next(lines) || strcmp(lines->text, COLUMN_NAMES) != 0)
        return refuse(lines, "not a table of embeddings");
    for (uint32_t i = 0; i < set->count; i++) {
        const float *values = set->values + (size_t)i * set->features;
        if (lines_next(lines) && read_row(&set->rows[i], lines->text, check_of(values, set->features)))
            continue;
        snprintf(why, sizeof why, "line %lu is not about row %" PRIu32 " of the matrix", lines->number, i);
        return refuse(lines, why);
    }
    if (lines_next(lines))
        return refuse(lines, "more lines than the matrix has rows");
    return !lines->failed;
}

bool embeddings_read(struct embeddings *set, const char *matrix) {
    struct lines lines = {0};
    char *table = table_of(matrix);
    bool good = read_matrix(set, matrix) && lines_open(&lines, table);
    good = good && read_rows(set, &lines);
    lines_close(&lines);
    free(table);
    return good;
}

void embeddings_free(struct embeddings *set) {
    for (uint32_t i = 0; i < set->count; i++)
        free(set->rows[i].file);
    free(set->rows);
    free(set->values);
}

/* ---- Writing ---- */

static void write_head(struct embeddings_writer *writer) {
    npy_write_head(writer->matrix.file, &(struct npy_shape){2, {writer->rows, writer->features}});
}

bool embeddings_create(struct embeddings_writer *writer, const char *matrix, uint32_t features) {
    *writer = (struct embeddings_writer){.table_name = table_of(matrix), .features = features};
    if (!output_open(&writer->matrix, matrix) || !output_open(&writer->table, writer->table_name)) {
        embeddings_abandon(writer);
        return false;
    }
    write_head(writer);
    fputs(COLUMN_NAMES "\n", writer->table.file);
    return true;
}

void embeddings_add(struct embeddings_writer *writer, const struct embedded *row, const float *values) {
    writer->rows++;
    fwrite(values, sizeof *values, writer->features, writer->matrix.file);
    fprintf(writer->table.file, "%s\t%s\t%s\t%016" PRIx64 "\n", row->file, row->stamp, row->model,
            check_of(values, writer->features));
}

bool embeddings_flush(struct embeddings_writer *writer) {
    return output_flush(&writer->matrix) && output_flush(&writer->table);
}

bool embeddings_commit(struct embeddings_writer *writer) {
    bool good = fseek(writer->matrix.file, 0, SEEK_SET) == 0;
    if (!good)
        complain("%s: cannot be written: %s", writer->matrix.name, strerror(errno));
    write_head(writer);
    good = good && output_commit(&writer->table) && output_commit(&writer->matrix);
    embeddings_abandon(writer);
    return good;
}

void embeddings_abandon(struct embeddings_writer *writer) {
    output_abandon(&writer->matrix);
    output_abandon(&writer->table);
    free(writer->table_name);
    writer->table_name = NULL;
}

/* ---- Going on ---- */

static bool refuse_file(const struct output_file *file, const char *why) {
    complain("%s: cannot go on with it: %s", file->name, why);
    return false;
}

/* How many whole rows the matrix has, whose first number is next then; 0 also where there is no more than a part of its
 * head. */
static bool count_rows(const struct embeddings_writer *writer, uint64_t *rows) {
    uint8_t bytes[NPY_HEAD];
    struct npy_shape shape;
    struct stat status;
    const char *reason = "";
    FILE *file = writer->matrix.file;
    size_t got = fread(bytes, 1, sizeof bytes, file);
    *rows = 0;
    if (got < NPY_HEAD && memcmp(bytes, "\x93NUMPY", got < 6 ? got : 6) == 0)
        return true;
    if (npy_parse_head(bytes, got, &shape, &reason) != NPY_HEAD)
        return refuse_file(&writer->matrix, *reason ? reason : "its head is not as resnet embed writes it");
    if (shape.dimensions != 2 || shape.sizes[1] != writer->features || fstat(fileno(file), &status) != 0)
        return refuse_file(&writer->matrix, "its rows are not as long as what this model gives");
    *rows = ((uint64_t)status.st_size - NPY_HEAD) / (sizeof(float) * writer->features);
    return true;
}

/* Bytes up to the end of the line that was read last; 0 where it has no end. */
static off_t end_of(const struct lines *lines) {
    off_t read = lseek(lines->descriptor, 0, SEEK_CUR);
    return lines->at > 0 && lines->buffer[lines->at - 1] == '\n' ? read - (off_t)(lines->filled - lines->at) : 0;
}

/* What is whole in both files, from their starts. */
struct whole {
    uint64_t rows;
    off_t table; /* bytes */
};

/* The next row and its line, where both are whole; *good becomes false after a complaint. */
static bool continue_row(const struct embeddings_writer *writer, struct lines *lines, const char *model, bool *good,
                         struct done *done) {
    float *values = allocate(writer->features, sizeof *values);
    struct embedded row;
    bool whole = lines_next(lines) && end_of(lines) > 0;
    *good = !lines->failed &&
            (!whole || fread(values, sizeof *values, writer->features, writer->matrix.file) == writer->features);
    if (*good && whole && !read_row(&row, lines->text, check_of(values, writer->features))) {
        complain("%s: cannot go on with it: line %lu is not about its row of the matrix", lines->name, lines->number);
        *good = false;
    } else if (*good && whole) {
        *good = strcmp(row.model, model) == 0 ||
                refuse_file(&writer->matrix, "another model, --resize or --precision has made it");
        done_add(done, row.file, strlen(row.file));
        free(row.file);
    }
    free(values);
    return *good && whole;
}

static bool find_whole(const struct embeddings_writer *writer, const char *model, struct whole *whole,
                       struct done *done) {
    struct lines lines = {.descriptor = fileno(writer->table.file), .name = writer->table_name};
    uint64_t rows;
    bool good = count_rows(writer, &rows);
    bool has_line = good && lines_next(&lines), has_names = has_line && end_of(&lines) > 0;
    if (!good || lines.failed)
        return false;
    if (has_line && strncmp(lines.text, COLUMN_NAMES, has_names ? sizeof COLUMN_NAMES : strlen(lines.text)) != 0)
        return refuse_file(&writer->table, "it is not a table of embeddings");
    if (!has_names)
        return rows == 0 || refuse_file(&writer->table, "the matrix has rows, and this, which names them, is missing");
    whole->table = end_of(&lines);
    while (whole->rows < rows && continue_row(writer, &lines, model, &good, done)) {
        whole->rows++;
        whole->table = end_of(&lines);
    }
    return good;
}

/* Cut both files off behind what is whole. */
static bool cut(struct embeddings_writer *writer, const struct whole *whole) {
    FILE *matrix = writer->matrix.file, *table = writer->table.file;
    off_t end = NPY_HEAD + (off_t)(whole->rows * writer->features * sizeof(float));
    bool good = ftruncate(fileno(table), whole->table) == 0 && fseeko(table, whole->table, SEEK_SET) == 0;
    writer->rows = whole->rows;
    if (whole->table == 0)
        fputs(COLUMN_NAMES "\n", table);
    good = good && output_flush(&writer->table); /* first: a matrix with rows has a table */
    good = good && ftruncate(fileno(matrix), end) == 0 && fseek(matrix, 0, SEEK_SET) == 0;
    if (!good)
        return refuse_file(&writer->matrix, strerror(errno));
    write_head(writer);
    return output_flush(&writer->matrix) && fseeko(matrix, end, SEEK_SET) == 0;
}

bool embeddings_continue(struct embeddings_writer *writer, const char *matrix, uint32_t features, const char *model,
                         struct done *done) {
    struct whole whole = {0};
    *writer = (struct embeddings_writer){.table_name = table_of(matrix), .features = features};
    if (output_open_in_place(&writer->matrix, matrix) && output_open_in_place(&writer->table, writer->table_name) &&
        find_whole(writer, model, &whole, done) && cut(writer, &whole))
        return true;
    embeddings_abandon(writer);
    return false;
}
