/* What is done about applications that give no sign of life (deadline.h). */
#ifndef POOLSRV_OVERDUE_H
#define POOLSRV_OVERDUE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/worker.h"

/* A thread that is late, or lost: then its client has its answer, or none. */
typedef struct {
    uint32_t thread;
    uint32_t sequence; /* of its request */
    bool lost;
} Overdue;

/* From the main thread's tick: is there anything that overdue_pop() tells? */
bool overdue_tick(Worker *w);
/* From the watchdog: no thread gets the interpreter to come back with. */
void overdue_give_up_all(Worker *w);
bool overdue_pop(Worker *w, Overdue *overdue);

/* From the main thread: may an exception be raised in the thread, if it is in
 * that request? Then, and only then, overdue_raised() follows at once. */
bool overdue_raise(Thread *t, uint32_t sequence);
void overdue_raised(Thread *t, bool done);

/* Threads that do not come back from the application, as far as is known. */
uint32_t overdue_lost(const Worker *w);

/* The application of a thread has returned: nothing will be raised in it, and
 * nothing taken away, from now on. If the connection was, it is gone. */
void overdue_end(Thread *t);

#endif
