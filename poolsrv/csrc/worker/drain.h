/* The end of a worker: what is there is finished, and nothing new is taken. */
#ifndef POOLSRV_DRAIN_H
#define POOLSRV_DRAIN_H

#include <stdbool.h>

#include "worker/worker.h"

/* Finish what is there, hand the idle connections back, take nothing new. On
 * the thread that calls watch_wait: what it does for connections has one owner,
 * and of two that look for events one takes what was to wake the other. */
void drain_start(Worker *w);
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
