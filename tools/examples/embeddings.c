/*
 * embeddings.c - how alike two photographs are: embeddings MODEL IMAGE IMAGE
 *
 * An embedding is what the network has of an image before it names a class: the mean of its last map. Images that look
 * alike have embeddings that point the same way, also of things that the network was never taught to name.
 */
#include <math.h>
#include <resnet.h>
#include <stdio.h>
#include <stdlib.h>

static double cosine(const float *a, const float *b, uint32_t count) {
    double ab = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < count; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

int main(int argc, char **argv) {
    resnet_error error = {RESNET_ERROR_MEMORY, "there is not enough memory"}; /* until the library says more */
    resnet_session_options options = {.batch = 2};
    resnet_request request = {0}; /* what is left out, as the logits here, is not computed */
    resnet_model *model = NULL;
    resnet_session *session = NULL;
    uint32_t features = 0;
    if (argc != 4)
        return fputs("usage: embeddings MODEL IMAGE IMAGE\n", stderr), 2;
    int failed = resnet_model_load_file(argv[1], NULL, &model, &error) ||
                 resnet_session_create(model, &options, &session, &error) ||
                 resnet_session_set_image_file(session, 0, argv[2], NULL, &error) ||
                 resnet_session_set_image_file(session, 1, argv[3], NULL, &error) ||
                 !(features = resnet_model_describe(model).features) ||
                 !(request.embedding = malloc(2 * features * sizeof(float))) ||
                 resnet_run(session, 2, &request, &error);
    if (failed)
        fprintf(stderr, "%s\n", error.message);
    else
        printf("cosine of the embeddings, %u numbers each: %.4f\n", features,
               cosine(request.embedding, request.embedding + features, features));
    free(request.embedding);
    resnet_session_free(session);
    resnet_model_free(model);
    return failed;
}
