/* Finished answers that wait for others, to go out together. */
#ifndef POOLSRV_GATHER_H
#define POOLSRV_GATHER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/ready.h"
#include "worker/worker.h"

/* At most so many wait. */
#define GATHER_MOST 64

/* A worker's; its `lock` guards them. */
typedef struct {
    Chain conns; /* each in the state WRITING, owned */
    uint32_t count;
    uint64_t due; /* when the first of them must go */
} Gathered;

/* The answer that the thread has put together in t->out: does it wait for
 * others? Then it waits with the connection, and gather_add() must follow. */
bool gather_puts_off(Thread *t, Conn *c, const Request *r);
/* False: it must go now after all. */
bool gather_add(Thread *t, Conn *c);
/* Will it wait, most likely? Then what completes it needs no system call of its
 * own. */
bool gather_is_likely(const Thread *t);

/* Must they go, before the thread takes the next request or waits for one? The
 * worker's lock is held. */
bool gather_is_due(const Worker *w, uint64_t now);
/* The worker's lock is held, and let go meanwhile. */
void gather_send(Worker *w, Thread *t);
/* From the main thread: those that have waited for too long. Are any left,
 * which need another tick? */
bool gather_tick(Worker *w);
/* The main thread watches: ticks come. */
void gather_resume(Worker *w);
/* It is about to wait for the interpreter, which another call may keep: nothing
 * waits any more, until it watches again. */
void gather_pause(Worker *w);

#endif
