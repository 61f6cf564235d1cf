/* The end of a worker: what is there is finished, and nothing new is taken. */
#ifndef POOLSRV_DRAIN_H
#define POOLSRV_DRAIN_H

#include <stdbool.h>

#include "worker/worker.h"

/* What the end waits for. A worker that ends with its process waits for all,
 * until it is killed; what ends within a process that goes on has no such end,
 * and goes down these steps. */
typedef enum {
    DRAIN_ALL,        /* until the last connection has ended */
    DRAIN_REQUESTS,   /* those that idle, or linger, are closed */
    DRAIN_INTERRUPTS, /* the same, and requests that run are overdue by now */
    DRAIN_NOTHING,    /* threads that do not come back are left behind */
} DrainStep;

/* Finish what is there, hand the idle connections back, take nothing new; or go
 * on to a later step. On the thread that calls watch_wait: what it does for
 * connections has one owner, and of two that look for events one takes what was
 * to wake the other. */
void drain_start(Worker *w, DrainStep step);
/* The supervisor is gone: so is the worker, soon. */
void drain_orphan(Worker *w);
/* Does all of the server end, or is nobody left to send anything to? */
bool drain_is_last(const Worker *w);
/* Do idle connections, and requests that nobody has begun to read, go back? Not
 * if all of the server ends: then nobody else would serve them, so what comes
 * is served here, and our side of the idle ones is ended. */
bool drain_hands_back(const Worker *w);
/* Is nothing here, and nothing on its way to us? */
bool drain_is_done(Worker *w);
/* Let the threads end: drain_is_done. */
void drain_quit(Worker *w);

#endif
