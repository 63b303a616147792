/* stop.h - SIGINT and SIGTERM as the wish to stop in good order, of which whoever waits for input hears. */
#ifndef STOP_H
#define STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* From now on the first SIGINT or SIGTERM only asks to stop, unless it was ignored so far; a second one ends the
 * program at once. False after a complaint. */
bool stop_watch(void);

/* Ask to stop without a signal. */
void stop_ask(void);

/* Whether somebody asked. */
bool stop_asked(void);

/* The signal that asked; 0 where none did. */
int stop_signal(void);

/* read(2), which is not interrupted; once somebody asks to stop, -1 with errno ECANCELED, however long the other side
 * takes. */
ssize_t stop_read(int descriptor, void *data, size_t size);

#endif
