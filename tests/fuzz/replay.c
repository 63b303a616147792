/* replay.c - run a fuzz target over files and over all files in folders, without a fuzzer: replay PATH... */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

#define MOST_BYTES ((size_t)16 << 20)

static int replay_file(const char *name) {
    FILE *file = fopen(name, "rb");
    uint8_t *data = malloc(MOST_BYTES);
    int failed = !file || !data;
    if (failed)
        perror(name);
    else {
        size_t size = fread(data, 1, MOST_BYTES, file);
        fprintf(stderr, "%s: %zu bytes\n", name, size);
        LLVMFuzzerTestOneInput(data, size);
    }
    if (file)
        fclose(file);
    free(data);
    return failed;
}

static int replay_folder(const char *folder) {
    struct dirent **entries;
    char name[4096];
    int failed = 0, count = scandir(folder, &entries, NULL, alphasort);
    if (count < 0)
        return perror(folder), 1;
    for (int i = 0; i < count; i++) {
        struct stat about;
        snprintf(name, sizeof name, "%s/%s", folder, entries[i]->d_name);
        free(entries[i]);
        if (stat(name, &about) == 0 && S_ISREG(about.st_mode))
            failed |= replay_file(name);
    }
    free(entries);
    return failed;
}

int main(int argc, char **argv) {
    int failed = argc < 2;
    for (int i = 1; i < argc; i++) {
        struct stat about;
        failed |= stat(argv[i], &about) == 0 && S_ISDIR(about.st_mode) ? replay_folder(argv[i]) : replay_file(argv[i]);
    }
    return failed;
}
