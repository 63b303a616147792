/* sheet.h - a contact sheet: a row a question, the picture that was asked about and then those that answer. */
#ifndef SHEET_H
#define SHEET_H

#include "raster.h"

struct sheet {
    struct raster raster;
    uint32_t columns;
    uint32_t rows;  /* that are begun */
    uint32_t taken; /* pictures in the last of them */
};

/* Room for `rows` rows of `columns` pictures. Errors: ARGUMENT where that is too large for a raster, MEMORY. */
resnet_status sheet_create(struct sheet *sheet, uint32_t rows, uint32_t columns, resnet_error *error);
void sheet_free(struct sheet *sheet);

void sheet_begin_row(struct sheet *sheet);

/* Put the picture of a file into the next place of the row; the place stays grey where it cannot be read. Errors: as
 * raster_read. */
resnet_status sheet_add(struct sheet *sheet, const char *path, resnet_error *error);

/* Cut off the rows that were not begun, at least one being there. */
void sheet_finish(struct sheet *sheet);

#endif
