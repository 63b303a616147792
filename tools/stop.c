/* stop.c - SIGINT and SIGTERM as the wish to stop in good order, of which whoever waits for input hears. */
#define _POSIX_C_SOURCE 200809L
#include "stop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

#define NO_SIGNAL (-1)

static atomic_int reason;         /* 0, the signal that asked, or NO_SIGNAL */
static int wake_up[2] = {-1, -1}; /* a pipe: the byte in it is for whoever waits in stop_read */

static void ask(int why) {
    int none = 0;
    if (atomic_compare_exchange_strong(&reason, &none, why) && write(wake_up[1], "", 1) < 0)
        return; /* nobody can be woken who has not seen `reason` */
}

static void on_signal(int number) {
    int error = errno;
    if (atomic_load(&reason)) { /* once more: then as if this were not here */
        signal(number, SIG_DFL);
        raise(number);
    } else
        ask(number);
    errno = error;
}

static void watch(int number) {
    struct sigaction old, new = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&new.sa_mask);
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaction(number, &new, NULL);
}

bool stop_watch(void) {
    if (pipe(wake_up) != 0) {
        complain("a pipe was refused: %s", strerror(errno));
        return false;
    }
    for (int i = 0; i < 2; i++)
        fcntl(wake_up[i], F_SETFD, FD_CLOEXEC);
    watch(SIGINT);
    watch(SIGTERM);
    return true;
}

void stop_ask(void) {
    ask(NO_SIGNAL);
}

bool stop_asked(void) {
    return atomic_load(&reason) != 0;
}

int stop_signal(void) {
    int why = atomic_load(&reason);
    return why == NO_SIGNAL ? 0 : why;
}

ssize_t stop_read(int descriptor, void *data, size_t size) {
    for (;;) {
        struct pollfd polled[] = {{.fd = descriptor, .events = POLLIN}, {.fd = wake_up[0], .events = POLLIN}};
        if (stop_asked()) {
            errno = ECANCELED;
            return -1;
        }
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            return -1;
        ssize_t got = polled[0].revents ? read(descriptor, data, size) : -1;
        if (got >= 0 || (polled[0].revents && errno != EINTR))
            return got;
    }
}
