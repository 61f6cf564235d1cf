/* The main thread of a worker. */
#ifndef POOLSRV_WATCH_H
#define POOLSRV_WATCH_H

#include <stdbool.h>

#include "worker/worker.h"

/* What the main thread is told. */
typedef enum {
    WATCH_SIGNAL,  /* the signal descriptor is readable */
    WATCH_NOTES,   /* something to log, to release or to interrupt: notes_pop,
                    * output_garbage_pop and overdue_pop */
    WATCH_BROKEN,  /* this process cannot go on; errno says why */
    WATCH_DRAINED, /* nothing is left; the threads are ending */
} WatchResult;

/* The main thread's life, piece by piece. What follows it needs the
 * interpreter: tell the watchdog when it is had. */
WatchResult watch_wait(Worker *w);
/* Finish what is there, hand the idle connections back, take nothing new. */
void watch_drain(Worker *w);
/* Do idle connections, and requests that nobody has begun to read, go back? Not
 * if all of the server ends: then nobody else would serve them, so what comes
 * is served here, and our side of the idle ones is ended. */
bool watch_hands_back(const Worker *w);
/* A request begins: the main thread's clock must run. */
void watch_arm(Worker *w);
/* A connection waits, with a deadline. */
void watch_attend(Worker *w);

#endif
