/* views.h - a photograph in several views: as it is classified, its mirror image, its corners. */
#ifndef VIEWS_H
#define VIEWS_H

#include <stdbool.h>

#include "resnet.h"

/* Where views go, and which. */
struct viewer {
    resnet_session *session; /* at the model's own size */
    resnet_config config;
    resnet_preprocess how;
    bool flip, crops;
};

#define MOST_VIEWS 6

/* 1; 2 with flip; 5 with crops; 6 with both: then two of the corners are mirrored. */
uint32_t views_count(const struct viewer *viewer);

/* Fill slots slot..slot + views_count - 1 with the views of a picture, the first as the model's users will see it.
 * *hash tells pictures of different pixels apart. Different slots may be filled by different threads at once. Errors:
 * as resnet_session_set_image_file. */
resnet_status views_fill(const struct viewer *viewer, uint32_t slot, const char *path, uint64_t *hash,
                         resnet_error *error);

#endif
