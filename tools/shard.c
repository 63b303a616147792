/* shard.c - which images of a list are this process's, where several share it. */
#include "shard.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

/* How a scheduler tells a process which one it is: its index, counted from `least` in steps of `step`. */
static const struct scheme {
    const char *index, *count, *least, *step; /* variables; the last two may be NULL: 0 and 1 */
} schemes[] = {
    {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"},
    {"SLURM_PROCID", "SLURM_NTASKS", NULL, NULL},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL, NULL},
    {"PMI_RANK", "PMI_SIZE", NULL, NULL},
    {"JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", NULL, NULL}, /* Kubernetes; the manifest must set the second */
};
#define SCHEMES (sizeof schemes / sizeof *schemes)

/* A number from 0 to 2^32 - 1 and the character behind it; false where there is none. */
static bool read_number(const char *text, uint32_t *number, const char **end) {
    char *stop;
    unsigned long long value = strtoull(text, &stop, 10);
    *number = (uint32_t)value;
    *end = stop;
    return isdigit((unsigned char)*text) && value <= UINT32_MAX;
}

/* The number that a variable holds; `usual` where it has no name or, if there is such a usual value, is not set. */
static bool read_variable(const char *name, uint32_t usual, uint32_t *number) {
    const char *text = name ? getenv(name) : NULL, *end;
    *number = usual;
    if (!text && (!name || usual))
        return true;
    if (text && read_number(text, number, &end) && !*end)
        return true;
    complain("--shard auto: the variable %s is %s%s: expected a whole number", name, text ? "" : "not set",
             text ? text : "");
    return false;
}

static bool read_scheme(struct shard *shard, const struct scheme *scheme) {
    uint32_t index, least, step;
    if (!read_variable(scheme->index, 0, &index) || !read_variable(scheme->count, 0, &shard->count) ||
        !read_variable(scheme->least, 0, &least) || !read_variable(scheme->step, 1, &step))
        return false;
    shard->index = step ? (index - least) / step : 0;
    if (index >= least && step && (index - least) % step == 0 && shard->index < shard->count)
        return true;
    complain("--shard auto: %s is %s, which is none of %s processes without gaps (%s)", scheme->index,
             getenv(scheme->index), getenv(scheme->count), scheme->count);
    return false;
}

bool shard_parse(struct shard *shard, const char *text) {
    const char *end;
    if (strcmp(text, "auto") == 0) {
        for (size_t i = 0; i < SCHEMES; i++)
            if (getenv(schemes[i].index))
                return read_scheme(shard, &schemes[i]);
        complain("--shard auto: no scheduler has set %s, %s, %s, %s or %s", schemes[0].index, schemes[1].index,
                 schemes[2].index, schemes[3].index, schemes[4].index);
        return false;
    }
    if (read_number(text, &shard->index, &end) && *end == '/' && read_number(end + 1, &shard->count, &end) && !*end &&
        shard->index >= 1 && shard->index <= shard->count) {
        shard->index--;
        return true;
    }
    complain("--shard takes I/N with 1 <= I <= N, or auto, not \"%s\"", text);
    return false;
}

bool shard_has(const struct shard *shard, uint64_t image) {
    return shard->count == 0 || image % shard->count == shard->index;
}
