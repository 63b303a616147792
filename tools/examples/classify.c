/* classify.c - the five best classes of a photograph: classify MODEL IMAGE */
#include <resnet.h>
#include <stdio.h>
#include <stdlib.h>

#define BEST 5

static void print_best(const resnet_model *model, float *scores) {
    uint32_t classes = resnet_model_describe(model).config.classes, best[BEST];
    resnet_softmax(scores, classes);
    uint32_t count = resnet_top_k(scores, classes, BEST, best);
    for (uint32_t i = 0; i < count; i++) {
        const char *label = resnet_model_label(model, best[i]); /* NULL in a model without labels */
        printf("%6.2f %%  %s\n", 100 * (double)scores[best[i]], label ? label : "(no label)");
    }
}

int main(int argc, char **argv) {
    resnet_error error = {RESNET_ERROR_MEMORY, "there is not enough memory"}; /* until the library says more */
    resnet_model *model = NULL;
    resnet_session *session = NULL;
    float *scores = NULL;
    if (argc != 3)
        return fputs("usage: classify MODEL IMAGE\n", stderr), 2;
    int failed = resnet_model_load_file(argv[1], NULL, &model, &error) ||
                 resnet_session_create(model, NULL, &session, &error) ||
                 resnet_session_set_image_file(session, 0, argv[2], NULL, &error) ||
                 !(scores = malloc(resnet_model_describe(model).config.classes * sizeof *scores)) ||
                 resnet_session_run(session, 1, scores, &error);
    if (failed)
        fprintf(stderr, "%s\n", error.message);
    else
        print_best(model, scores);
    free(scores);
    resnet_session_free(session);
    resnet_model_free(model);
    return failed;
}
