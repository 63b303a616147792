/* gallery.h - the images that are searched for similar ones: a matrix of embeddings, or a folder and its index. */
#ifndef GALLERY_H
#define GALLERY_H

#include "batch.h"
#include "embeddings.h"

struct gallery {
    struct embeddings set;
    const char *folder; /* that names start at, or NULL */
    size_t failed;      /* images of the folder that have no row */
    bool ready;         /* it can be searched */
};

/*
 * Read the matrix that `batch` computed earlier. EXIT_FINE, or the code to exit with after a complaint, also where its
 * model is another one. gallery_close may follow either.
 */
int gallery_open_matrix(struct gallery *gallery, const struct batch *batch, const char *matrix);

/*
 * Embed the images in a folder and in the folders in it, but those that `index` has, a matrix from an earlier call, if
 * the file and the model are as they were. Then `index`, or .resnet-index.npy in the folder where that is NULL, is
 * written anew if it changes. EXIT_FINE, or the code to exit with after a complaint; the gallery is ready also where
 * only an image could not be read, or the index not be written.
 */
int gallery_open_folder(struct gallery *gallery, struct batch *batch, const char *folder, const char *index);

void gallery_close(struct gallery *gallery);

/* Where the image of a row is; the caller frees it. */
char *gallery_path(const struct gallery *gallery, uint32_t row);

/* The cosine of each row with `embedding`, from -1 to 1; NaN where one of the two has no direction. */
void gallery_compare(const struct gallery *gallery, const float *embedding, float *cosines);

#endif
