/* views.c - a photograph in several views: as it is classified, its mirror image, its corners. */
#include "views.h"

#include <string.h>

#include "image.h"
#include "session.h"

#define CORNERS 4U

uint32_t views_count(const struct viewer *viewer) {
    return 1U + viewer->flip + (viewer->crops ? CORNERS : 0);
}

/* The finalizer of MurmurHash3, over words of eight bytes. */
static uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0xff51afd7ed558ccdU;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53U;
    return hash ^ hash >> 33;
}

static uint64_t hash_of(const struct image *image) {
    size_t size = (size_t)image->width * image->height * 3;
    uint64_t hash = mix(image->width, image->height), word;
    for (size_t i = 0; i < size; i += sizeof word) {
        word = 0;
        memcpy(&word, image->pixels + i, size - i < sizeof word ? size - i : sizeof word);
        hash = mix(hash, word);
    }
    return hash;
}

/* A square in a corner, resized to the whole input: 7/8 of the short side, as 224 of 256 in ten-crop testing. */
static resnet_status fill_corner(const struct viewer *viewer, uint32_t slot, const struct image *image, uint32_t corner,
                                 resnet_error *error) {
    uint32_t most = image->width < image->height ? image->width : image->height, side = most - most / 8;
    uint32_t x = corner % 2 ? image->width - side : 0, y = corner / 2 ? image->height - side : 0;
    resnet_preprocess how = viewer->how;
    how.resize = viewer->config.width > viewer->config.height ? viewer->config.width : viewer->config.height;
    return resnet_session_set_rgb(viewer->session, slot, image->pixels + 3 * ((size_t)y * image->width + x), side, side,
                                  3 * (size_t)image->width, &how, error);
}

static resnet_status fill(const struct viewer *viewer, uint32_t slot, const struct image *image, resnet_error *error) {
    resnet_session *session = viewer->session;
    resnet_status status =
        resnet_session_set_rgb(session, slot, image->pixels, image->width, image->height, 0, &viewer->how, error);
    if (status == RESNET_OK && viewer->flip) {
        session_copy_slot(session, slot + 1, session, slot);
        session_mirror_slot(session, ++slot);
    }
    for (uint32_t corner = 0; status == RESNET_OK && viewer->crops && corner < CORNERS; corner++) {
        status = fill_corner(viewer, ++slot, image, corner, error);
        if (status == RESNET_OK && viewer->flip && (corner == 1 || corner == 2)) /* on different sides */
            session_mirror_slot(session, slot);
    }
    return status;
}

resnet_status views_fill(const struct viewer *viewer, uint32_t slot, const char *path, uint64_t *hash,
                         resnet_error *error) {
    const resnet_allocator allocator = memory_allocator(NULL);
    struct image image;
    resnet_status status = image_decode_file(path, &allocator, &image, error);
    if (status != RESNET_OK)
        return status;
    *hash = hash_of(&image);
    status = fill(viewer, slot, &image, error);
    image_free(&image, &allocator);
    return status;
}
