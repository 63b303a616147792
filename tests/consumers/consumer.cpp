// consumer.cpp - the same in C++, with owners that free: consumer MODEL IMAGE prints the best label.
#include <cstdio>
#include <memory>
#include <resnet.h>
#include <stdexcept>
#include <vector>

static resnet_error error;

static void check(resnet_status status) {
    if (status != RESNET_OK)
        throw std::runtime_error(error.message);
}

static void classify(const char *file, const char *image) {
    resnet_model *loaded;
    check(resnet_model_load_file(file, nullptr, &loaded, &error));
    std::unique_ptr<resnet_model, decltype(&resnet_model_free)> model(loaded, resnet_model_free);
    resnet_session *made;
    check(resnet_session_create(model.get(), nullptr, &made, &error));
    std::unique_ptr<resnet_session, decltype(&resnet_session_free)> session(made, resnet_session_free);
    check(resnet_session_set_image_file(session.get(), 0, image, nullptr, &error));
    std::vector<float> scores(resnet_model_describe(model.get()).config.classes);
    check(resnet_session_run(session.get(), 1, scores.data(), &error));
    uint32_t best;
    resnet_top_k(scores.data(), static_cast<uint32_t>(scores.size()), 1, &best);
    std::puts(resnet_model_label(model.get(), best));
}

int main(int argc, char **argv) try {
    if (argc != 3)
        throw std::runtime_error("usage: consumer MODEL IMAGE");
    classify(argv[1], argv[2]);
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
