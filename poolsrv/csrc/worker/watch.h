/* The main thread of a worker. */
#ifndef POOLSRV_WATCH_H
#define POOLSRV_WATCH_H

#include <stdbool.h>

#include "worker/worker.h"

/* What the main thread is told. */
typedef enum {
    WATCH_SIGNAL,  /* the signal descriptor is readable */
    WATCH_NOTES,   /* something to log, to release or to interrupt: notes_pop,
                    * garbage_pop and overdue_pop */
    WATCH_BROKEN,  /* this process cannot go on; errno says why */
    WATCH_DRAINED, /* nothing is left; the threads are ending */
} WatchResult;

/* The main thread's life, piece by piece. What follows it needs the
 * interpreter: tell the watchdog when it is had. */
WatchResult watch_wait(Worker *w);
/* A request begins: the main thread's clock must run. */
void watch_arm(Worker *w);
/* A connection waits, with a deadline. */
void watch_attend(Worker *w);
/* A thread is between two requests, the first since a tick. */
void watch_pass(Worker *w, uint64_t now);

#endif
