/* cmd_teach.c - resnet teach: give a network a classifier for classes of the user's own. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "model.h"
#include "options.h"
#include "output_file.h"
#include "system.h"
#include "taught.h"
#include "teach_embed.h"
#include "teach_keep.h"
#include "teach_report.h"
#include "teach_set.h"
#include "text.h"
#include "views.h"

#define PHOTOGRAPHS_A_RUN 4
#define MOST_ADDED        64
#define MOST_EMBEDDINGS   ((size_t)128 << 20) /* bytes: beyond, fewer views of each photograph are taken */

struct additions {
    const char *texts[MOST_ADDED]; /* CLASS=FOLDER */
    uint32_t count;
};

struct teach {
    const char *path, *folder, *table, *output;
    const char *from, *keep; /* files of embeddings */
    struct additions added;
    double holdout, strength;
    uint32_t seed, threads, resize;
    resnet_precision precision;
    struct viewer viewer; /* its flip and crops are the user's choice */
    bool from_zero, json;
    uint64_t identity; /* of the backbone's file */
    resnet_model *backbone;
    resnet_model_info info;
    struct lesson kept; /* of `from` */
    struct teach_set set;
    struct teach_summary summary;
};

/* ---- Photographs ---- */

/* Every class must have a photograph among the first `count`. */
static bool check_classes(const struct teach *t, uint32_t count, bool complaining) {
    for (uint32_t k = 0; k < t->set.classes; k++)
        if (set_count_right(&t->set, count, k) == 0) {
            if (complaining)
                complain("class \"%s\" has no photograph that can be used", t->set.labels[k]);
            return false;
        }
    return true;
}

static bool collect(struct teach *t) {
    if (t->from)
        keep_collect(&t->kept, &t->set);
    if ((t->table && !set_from_table(&t->set, t->table)) || (t->folder && !set_from_folder(&t->set, t->folder)))
        return false;
    for (uint32_t i = 0; i < t->added.count; i++)
        if (!set_add_class(&t->set, t->added.texts[i]))
            return false;
    return check_classes(t, t->set.count, true);
}

static void prepare_views(struct teach *t) {
    size_t one = (size_t)t->set.count * t->info.features * sizeof(float);
    if (one * views_count(&t->viewer) > MOST_EMBEDDINGS && (t->viewer.flip || t->viewer.crops) && !t->from) {
        t->viewer.crops = false;
        t->viewer.flip = t->viewer.flip && one * 2 <= MOST_EMBEDDINGS;
        complain("%" PRIu32 " photographs are many: of each only %s", t->set.count,
                 t->viewer.flip ? "the photograph and its mirror image are used" : "one view is used");
    }
    t->set.views = views_count(&t->viewer);
    t->set.features = t->info.features;
    t->set.embeddings = allocate((size_t)t->set.count * t->set.views * t->set.features, sizeof *t->set.embeddings);
}

/* Embeddings can be used with the network that made them alone, and as it was run. */
static int open_kept(struct teach *t) {
    resnet_error error;
    if (!t->from)
        return EXIT_FINE;
    if (lesson_open(&t->kept, t->from, &error) != RESNET_OK)
        return library_failure(t->from, &error);
    if (t->precision && t->precision != t->kept.precision) {
        complain("%s: made in %s, so --precision cannot be %s", t->from,
                 resnet_precision_name((resnet_precision)t->kept.precision), resnet_precision_name(t->precision));
        return EXIT_USAGE;
    }
    t->precision = (resnet_precision)t->kept.precision;
    t->resize = t->kept.resize;
    t->viewer.flip = t->kept.flip;
    t->viewer.crops = t->kept.crops;
    return EXIT_FINE;
}

static int check_kept(const struct teach *t) {
    if (!t->from || (t->kept.identity == t->identity && t->kept.features == t->info.features))
        return EXIT_FINE;
    complain("%s: made with another network than %s; name that one with --model", t->from, t->path);
    return EXIT_MODEL;
}

/* ---- The network ---- */

static int open_backbone(struct teach *t) {
    resnet_error error;
    /* For memory's sake: there will be two models. */
    const resnet_load_options load = {.precision = t->precision, .threads = t->threads, .no_winograd = 1};
    int code = model_open(&t->path, &load, &t->backbone);
    if (code != EXIT_FINE)
        return code;
    if (taught_identity(t->path, &t->identity, &error) != RESNET_OK)
        return library_failure(t->path, &error);
    t->info = resnet_model_describe(t->backbone);
    if (t->info.config.in_channels != 3) {
        complain("%s: the network takes %" PRIu32 " channels, and an image has 3", t->path, t->info.config.in_channels);
        return EXIT_MODEL;
    }
    t->viewer.config = t->info.config;
    t->viewer.how = t->info.preprocess;
    if (t->resize != RESIZE_AS_MODEL)
        t->viewer.how.resize = t->resize;
    return check_kept(t);
}

/* Decode and run all photographs, and leave those that are of use. */
static int look(struct teach *t) {
    resnet_error error;
    uint32_t batch = PHOTOGRAPHS_A_RUN * views_count(&t->viewer);
    const resnet_session_options options = {.batch = batch, .threads = t->threads};
    if (resnet_session_create(t->backbone, &options, &t->viewer.session, &error) != RESNET_OK)
        return library_failure(t->path, &error);
    int code = keep_read(&t->kept, t->from, &t->set);
    if (code == EXIT_FINE)
        code = teach_embed(&t->set, &t->viewer, batch);
    resnet_session_free(t->viewer.session);
    t->viewer.session = NULL;
    if (code != EXIT_FINE)
        return code;
    set_find_copies(&t->set);
    set_compact(&t->set);
    return check_classes(t, t->set.count, true) ? EXIT_FINE : EXIT_INPUTS;
}

/* ---- Teach ---- */

/* From the first `count` photographs, with what is known of the fit: its strength, or 0. */
static int teach_from(struct teach *t, uint32_t count, resnet_teach_report fit, resnet_model **model) {
    resnet_error error;
    const struct teach_set *set = &t->set;
    uint32_t *classes = allocate(count, sizeof *classes);
    for (uint32_t i = 0; i < count; i++)
        classes[i] = set->photographs[i].class;
    const resnet_examples examples = {count, set->views, set->embeddings, set->tags ? NULL : classes, set->tags};
    const resnet_teach_options options = {.classes = set->classes,
                                          .labels = (const char *const *)set->labels,
                                          .strength = fit.strength,
                                          .from_zero = fit.from_zero,
                                          .seed = t->seed,
                                          .threads = t->threads,
                                          .report = &t->summary.fit};
    resnet_status status = resnet_teach(t->backbone, &examples, &options, model, &error);
    free(classes);
    return status == RESNET_OK ? EXIT_FINE : library_failure(t->path, &error);
}

/* Measure with a model that is taught without what is held out. */
static int measure(struct teach *t) {
    resnet_model *model;
    if (t->set.taught == t->set.count || !check_classes(t, t->set.taught, false)) {
        if (t->holdout > 0)
            complain("there are too few photographs to hold any out: nothing is measured");
        t->set.taught = t->set.count;
        return EXIT_FINE;
    }
    int code = teach_from(t, t->set.taught, (resnet_teach_report){t->strength, t->from_zero, 0, 0}, &model);
    if (code != EXIT_FINE)
        return code;
    teach_ask(&t->summary.answers, &t->set, model);
    resnet_model_free(model);
    return EXIT_FINE;
}

static int write_model(const struct teach *t, const resnet_model *model) {
    const struct taught taught = {model, t->backbone, t->path, t->identity, t->viewer.how};
    struct output_file output;
    resnet_error error;
    if (!output_open(&output, t->output))
        return EXIT_IO;
    if (taught_write(&taught, output.file, &error) != RESNET_OK) {
        output_abandon(&output);
        return library_failure(t->path, &error);
    }
    return output_commit(&output) ? EXIT_FINE : EXIT_IO;
}

static int keep(const struct teach *t) {
    const struct lesson how = {.identity = t->identity,
                               .precision = t->info.precision,
                               .flip = t->viewer.flip,
                               .crops = t->viewer.crops,
                               .resize = t->viewer.how.resize,
                               .descriptor = -1};
    return t->keep ? keep_write(&t->set, how, t->keep) : EXIT_FINE;
}

/* The model that is written has seen all photographs; what was chosen without those held out stays. */
static int finish(struct teach *t) {
    resnet_model *model;
    int code = measure(t);
    if (code != EXIT_FINE)
        return code;
    resnet_teach_report chosen = t->summary.fit;
    bool measured = chosen.strength > 0;
    if (!measured)
        chosen = (resnet_teach_report){t->strength, t->from_zero, 0, 0};
    code = teach_from(t, t->set.count, chosen, &model);
    if (code != EXIT_FINE)
        return code;
    if (measured)
        t->summary.fit = chosen;
    code = write_model(t, model);
    resnet_model_free(model);
    return code == EXIT_FINE ? keep(t) : code;
}

/* Whether there will be a file to write to, before any work is done. */
static bool can_write(const struct teach *t) {
    struct output_file output;
    bool good = output_open(&output, t->output);
    if (good)
        output_abandon(&output);
    return good;
}

static int teach(struct teach *t) {
    double start = now();
    int code = can_write(t) ? open_kept(t) : EXIT_IO;
    if (code == EXIT_FINE)
        code = open_backbone(t);
    if (code == EXIT_FINE && !collect(t))
        code = EXIT_IO;
    if (code == EXIT_FINE) {
        set_hold_out(&t->set, t->holdout, t->seed);
        prepare_views(t);
        code = look(t);
    }
    if (code == EXIT_FINE)
        code = finish(t);
    if (code == EXIT_FINE) {
        t->summary.set = &t->set;
        t->summary.output = t->output;
        t->summary.seconds = now() - start;
        teach_report(&t->summary, t->json);
        code = t->set.failed || t->set.disputed ? EXIT_INPUTS : EXIT_FINE;
    }
    free(t->summary.answers.answers);
    set_free(&t->set);
    lesson_close(&t->kept);
    resnet_model_free(t->backbone);
    return code;
}

/* ---- Options ---- */

static bool parse_share(const struct option *option, const char *text) {
    char *end;
    double number = strtod(text, &end);
    if (!isdigit((unsigned char)*text) || strcmp(end, "%") != 0 || !(number <= 90)) {
        complain("--%s takes a share from 0%% to 90%%, not \"%s\"", option->name, text);
        return false;
    }
    *(double *)option->value = number / 100;
    return true;
}

static bool parse_strength(const struct option *option, const char *text) {
    char *end;
    double number = strtod(text, &end);
    if (!isdigit((unsigned char)*text) || *end || !(number >= 1e-30 && number <= 1e30)) {
        complain("--%s takes a number above 0, not \"%s\"", option->name, text);
        return false;
    }
    *(double *)option->value = number;
    return true;
}

static bool parse_augment(const struct option *option, const char *text) {
    struct viewer *viewer = option->value;
    viewer->flip = viewer->crops = false;
    for (const char *word = text; *word; word += strcspn(word, ","), word += *word == ',') {
        size_t length = strcspn(word, ",");
        bool flip = strncmp(word, "flip", length) == 0 && length == 4;
        bool crops = strncmp(word, "crops", length) == 0 && length == 5;
        if (!flip && !crops && strcmp(text, "none") != 0) {
            complain("--%s takes flip, crops, both with a comma, or none, not \"%s\"", option->name, text);
            return false;
        }
        viewer->flip |= flip;
        viewer->crops |= crops;
    }
    return true;
}

static bool parse_addition(const struct option *option, const char *text) {
    struct additions *added = option->value;
    if (added->count == MOST_ADDED) {
        complain("--%s is given more than %d times", option->name, MOST_ADDED);
        return false;
    }
    added->texts[added->count++] = text;
    return true;
}

static struct option option_of(const char *name, const char *argument, const char *help,
                               bool (*parse)(const struct option *, const char *), void *value) {
    return (struct option){.name = name, .argument = argument, .help = help, .parse = parse, .value = value};
}

static bool check_usage(const struct command *self, const struct teach *t) {
    const char *wrong = t->added.count && !t->from
                            ? "--add needs --from: a model keeps nothing of the photographs of its classes, so that "
                              "either their embeddings (--keep) or all photographs must be there"
                        : !t->folder + !t->table + !t->from != 2 ? "one of a folder, --multilabel and --from is needed"
                        : t->table && t->keep                    ? "--keep does not go with --multilabel"
                                                                 : NULL;
    if (wrong)
        usage_error(self, wrong, "");
    return !wrong;
}

static int run(const struct command *self, int argc, char **argv) {
    struct teach t = {
        .holdout = 0.2, .resize = RESIZE_AS_MODEL, .viewer = {.flip = true, .crops = true}, .kept = {.descriptor = -1}};
    const struct option options[] = {
        option_text("output", "FILE", "the model file to write, or -o FILE", &t.output),
        option_model(&t.path),
        option_text("multilabel", "TABLE", "any number of classes a photograph: lines of file, tab, label, ...",
                    &t.table),
        option_text("keep", "FILE", "write the embeddings, too, to add classes later", &t.keep),
        option_text("from", "FILE", "use embeddings that --keep wrote, in place of a folder", &t.from),
        option_of("add", "CLASS=FOLDER", "with --from, photographs of one more class", parse_addition, &t.added),
        option_of("holdout", "SHARE", "of the photographs, to measure with (20%)", parse_share, &t.holdout),
        option_of("augment", "LIST", "views of each photograph: flip, crops, none (flip,crops)", parse_augment,
                  &t.viewer),
        option_of("strength", "C", "of photographs against the penalty (by cross-validation)", parse_strength,
                  &t.strength),
        option_switch("from-zero", "do not start from what the old classifier knows", &t.from_zero),
        option_resize(&t.resize),
        option_precision(&t.precision),
        option_count("seed", "of what is held out, and of cross-validation (0)", &t.seed, 0, UINT32_MAX),
        option_threads(&t.threads),
        option_json(&t.json),
        {0},
    };
    int code = options_parse(self, options, &argc, argv);
    if (code != GO_ON)
        return code;
    if (argc > 1)
        return usage_error(self, "unexpected argument ", argv[1]);
    t.folder = argc ? argv[0] : NULL;
    if (!t.output)
        return usage_error(self, "--output is needed", "");
    return check_usage(self, &t) ? teach(&t) : EXIT_USAGE;
}

const struct command command_teach = {
    .name = "teach",
    .operands = " FOLDER -o FILE",
    .summary = "Teach a network classes of your own: a folder a class.",
    .notes = "The network stays as it is; what is made is a new last layer, in a model file like any other. Twenty\n"
             "photographs a class will often do. The accuracy is that of a model taught without the photographs\n"
             "that are held out; the one that is written has seen them all.",
    .run = run,
};
