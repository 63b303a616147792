/*
 * maps.c - the maps that a detector takes from its backbone: maps MODEL IMAGE
 *
 * C3, C4 and C5 (stages 1 to 3) of an image of any size: here 640 x 640, whatever the network was trained at. A network
 * converted without its head gives them as well.
 */
#include <math.h>
#include <resnet.h>
#include <stdio.h>
#include <stdlib.h>

#define SIDE 640

/* A map's shape, and its largest value, which a detector's neck would go on from. */
static void print_map(uint32_t stage, const resnet_map *map, const float *values) {
    float most = 0;
    for (size_t i = 0; i < (size_t)map->channels * map->height * map->width; i++)
        most = fmaxf(most, values[i]);
    printf("C%u: %u channels of %u x %u, a value each %u pixels; the largest is %.3f\n", stage + 2, map->channels,
           map->height, map->width, map->stride, (double)most);
}

static resnet_status run(resnet_session *session, resnet_map maps[RESNET_MAX_STAGES], resnet_request *request,
                         resnet_error *error) {
    for (uint32_t stage = 1; stage < RESNET_MAX_STAGES; stage++) {
        resnet_status status = resnet_session_map(session, stage, &maps[stage], error);
        if (status != RESNET_OK)
            return status;
        request->maps[stage] =
            malloc((size_t)maps[stage].channels * maps[stage].height * maps[stage].width * sizeof(float));
        if (!request->maps[stage])
            return RESNET_ERROR_MEMORY;
    }
    return resnet_run(session, 1, request, error);
}

int main(int argc, char **argv) {
    resnet_error error = {RESNET_ERROR_MEMORY, "there is not enough memory"}; /* until the library says more */
    resnet_session_options options = {.height = SIDE, .width = SIDE};
    resnet_map maps[RESNET_MAX_STAGES];
    resnet_request request = {.layout = RESNET_NCHW};
    resnet_model *model = NULL;
    resnet_session *session = NULL;
    if (argc != 3)
        return fputs("usage: maps MODEL IMAGE\n", stderr), 2;
    int failed = resnet_model_load_file(argv[1], NULL, &model, &error) ||
                 resnet_session_create(model, &options, &session, &error) ||
                 resnet_session_set_image_file(session, 0, argv[2], NULL, &error) ||
                 run(session, maps, &request, &error);
    if (failed)
        fprintf(stderr, "%s\n", error.message);
    for (uint32_t stage = 1; stage < RESNET_MAX_STAGES; stage++) {
        if (!failed)
            print_map(stage, &maps[stage], request.maps[stage]);
        free(request.maps[stage]);
    }
    resnet_session_free(session);
    resnet_model_free(model);
    return failed;
}
