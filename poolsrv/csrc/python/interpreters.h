/* The interpreters that a worker calls applications in, and the place of each
 * of its threads in them.
 *
 * Number 0 is the Worker's own. In each a thread has a state and a context;
 * it serves in the one where it is at home (threads.h), or where the
 * application is. All but interpreters_sit() and _stand() is called by the
 * thread that has made the others.
 */
#ifndef POOLSRV_INTERPRETERS_H
#define POOLSRV_INTERPRETERS_H

#include "python/interpreter.h"

typedef struct {
    Worker *worker;
    App *app;                                /* of our interpreter */
    Interpreter *further[INTERPRETERS_MOST]; /* from number 1 on */
    uint32_t count;
    uint64_t named; /* those where all threads have a place: bits by number */
} Interpreters;

/* Applications and a tuple of Interpreter become those of a worker. `homes` is
 * a tuple of numbers from 1, or 0: by application, the only interpreter that
 * has it. 0, or -1 and exception; in either case they must be freed. */
int interpreters_read(Interpreters *all, CoreState *state, PyObject *app,
                      PyObject *further, PyObject *homes, Common *common,
                      uint32_t thread_count);
/* It serves from now on. */
void interpreters_begin(Interpreters *all, Worker *worker);
/* The worker has ended: the interpreters serve nothing any more. */
void interpreters_clear(Interpreters *all);

/* The calling thread is number `index` from now on: fill `contexts`. 0, or -1
 * and exception. Comes with the interpreter, leaves without it. */
int interpreters_sit(Interpreters *all, uint32_t index, Context **contexts);
/* And is it no more: the other way round. */
void interpreters_stand(Interpreters *all, Context **contexts);

/* Release what has been sent, in each where there is something; or go
 * everywhere, to see that each lock can be had. */
void interpreters_visit(Interpreters *all, bool everywhere);

/* Where that thread is, as text; empty if it does not serve. NULL and
 * exception. sys._current_frames() would do, but touches the objects of all
 * interpreters (CPython 3.13). */
PyObject *interpreters_stack(Interpreters *all, uint32_t index);

/* Raise the timeout in that thread, if it is in that request. Was it? */
bool interpreters_interrupt(Interpreters *all, uint32_t index,
                            uint32_t sequence);

#endif
