/* The watchdog: does the main thread still get the interpreter?
 *
 * A call in C that keeps the interpreter's lock (a regular expression that
 * explodes) stops every thread of the worker that needs it, the main thread
 * first. So the main thread says when it asks for the lock and when it has got
 * it; in between a clock runs, and a thread that needs no interpreter waits
 * for it.
 */
#ifndef POOLSRV_WATCHDOG_H
#define POOLSRV_WATCHDOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/worker.h"

typedef struct {
    pthread_t thread;
    bool started;
    int timer; /* rings when the main thread did not get the lock in time */
    _Atomic uint64_t asked; /* since when the main thread asks for the lock; 0:
                               it does not */
    _Atomic bool is_ending;
    uint64_t had; /* when the main thread last had the lock; its own */
} Watchdog;

/* 0, or -1 and errno. Nothing is started without a limit. */
int watchdog_start(Worker *w);
void watchdog_end(Worker *w);

/* From the main thread: it asks for the lock; it has it. */
void watchdog_ask(Worker *w);
void watchdog_answer(Worker *w);
/* While requests run: is it time to ask, if only to see? */
bool watchdog_is_due(const Worker *w);

#endif
