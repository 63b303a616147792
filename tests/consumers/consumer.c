/* consumer.c - the least that a program in C does with the library: consumer MODEL IMAGE prints the best label. */
#include <resnet.h>
#include <stdio.h>

static int classify(const char *file, const char *image, resnet_error *error) {
    resnet_model *model = NULL;
    resnet_session *session = NULL;
    float scores[1000];
    uint32_t best;
    int failed =
        resnet_model_load_file(file, NULL, &model, error) || resnet_session_create(model, NULL, &session, error) ||
        resnet_session_set_image_file(session, 0, image, NULL, error) || resnet_session_run(session, 1, scores, error);
    if (!failed) {
        resnet_top_k(scores, resnet_model_describe(model).config.classes, 1, &best);
        puts(resnet_model_label(model, best));
    }
    resnet_session_free(session);
    resnet_model_free(model);
    return failed;
}

int main(int argc, char **argv) {
    resnet_error error;
    if (argc != 3)
        return fputs("usage: consumer MODEL IMAGE\n", stderr), 2;
    if (classify(argv[1], argv[2], &error))
        return fprintf(stderr, "%s\n", error.message), 1;
    return 0;
}
