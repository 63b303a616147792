/* sheet.c - a contact sheet: a row a question, the picture that was asked about and then those that answer. */
#include "sheet.h"

#include <string.h>

#define SIDE   160 /* of a picture, pixels */
#define GAP    8
#define MARGIN 16 /* between the picture that was asked about and the others, besides the gap */
#define PITCH  (SIDE + GAP)
#define GREY   224

resnet_status sheet_create(struct sheet *sheet, uint32_t rows, uint32_t columns, resnet_error *error) {
    const uint32_t most = UINT32_MAX / PITCH - 1; /* far more than a raster takes */
    *sheet = (struct sheet){.columns = columns};
    rows = rows < most ? rows : most;
    columns = columns < most ? columns : most;
    return raster_create(&sheet->raster, columns * PITCH + GAP + MARGIN, rows * PITCH + GAP, error);
}

void sheet_free(struct sheet *sheet) {
    raster_free(&sheet->raster);
}

void sheet_begin_row(struct sheet *sheet) {
    sheet->rows++;
    sheet->taken = 0;
}

static void fill_grey(struct raster *raster, const struct square *where) {
    for (uint32_t row = 0; row < where->side; row++)
        memset(raster->pixels + (size_t)3 * ((size_t)(where->y + row) * raster->width + where->x), GREY,
               (size_t)3 * where->side);
}

resnet_status sheet_add(struct sheet *sheet, const char *path, resnet_error *error) {
    struct raster picture;
    const struct square where = {GAP + PITCH * sheet->taken + (sheet->taken ? MARGIN : 0),
                                 GAP + PITCH * (sheet->rows - 1), SIDE};
    sheet->taken++;
    fill_grey(&sheet->raster, &where);
    resnet_status status = raster_read(&picture, path, error);
    if (status == RESNET_OK)
        status = raster_put(&sheet->raster, &where, &picture, error);
    raster_free(&picture);
    return status;
}

void sheet_finish(struct sheet *sheet) {
    sheet->raster.height = PITCH * sheet->rows + GAP;
}
