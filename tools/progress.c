/* progress.c - a bar on stderr while a long list is worked through, where stderr is a terminal. */
#define _POSIX_C_SOURCE 200809L
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#include "system.h"
#include "text.h"

#define LONG_LIST 20  /* fewer are done before anyone wonders */
#define WIDTH     30  /* columns of the bar */
#define PAUSE     0.1 /* seconds between two drawings */

void progress_start(struct progress *progress, size_t total) {
    *progress = (struct progress){.total = total, .start = now()};
    progress->shown = isatty(fileno(stderr)) && (total == 0 || total >= LONG_LIST);
    progress->colour = takes_colour(stderr);
}

static void draw(const struct progress *progress, double seconds) {
    double rate = (double)progress->done / seconds;
    fputs("\r\033[K", stderr);
    if (progress->total) {
        int filled = (int)(WIDTH * progress->done / progress->total);
        fprintf(stderr, "%s%.*s%s%.*s  %3.0f %%  ", progress->colour ? "\033[32m" : "", filled,
                "##############################", progress->colour ? "\033[0m" : "", WIDTH - filled,
                "..............................", 100 * (double)progress->done / (double)progress->total);
        fprintf(stderr, "%zu of %zu, %.1f images/s, %.0f s left", progress->done, progress->total, rate,
                (double)(progress->total - progress->done) / rate);
    } else
        fprintf(stderr, "%zu images, %.1f images/s", progress->done, rate);
    fflush(stderr);
}

void progress_add(struct progress *progress, size_t more) {
    double time = now();
    progress->done += more;
    if (!progress->shown || time - progress->drawn < PAUSE)
        return;
    progress->drawn = time;
    draw(progress, time - progress->start);
}

void progress_clear(struct progress *progress) {
    if (progress->shown && progress->drawn > 0) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    progress->drawn = 0;
}
