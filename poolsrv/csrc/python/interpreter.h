/* A further interpreter of this process, with a lock of its own. */
#ifndef POOLSRV_INTERPRETER_H
#define POOLSRV_INTERPRETER_H

#include "python/wsgi/wsgi.h"

/* Two names for one thing where a process has one interpreter only: number 0
 * is the one that the process began with, and has no Interpreter. */
typedef struct {
    PyObject_HEAD PyThreadState *tstate; /* of the thread that made it; NULL: it
                                          * has ended */
    App *app;       /* what is served there, an object of its own; or NULL */
    Worker *worker; /* that serves it, or NULL */
} Interpreter;

/* The calling thread, which has made it, goes there and comes back; what
 * interpreter_enter() returns is for interpreter_leave(). Objects of one are
 * never touched in the other. While a worker serves there, its watchdog finds
 * out if the lock cannot be had, as it does with ours. */
PyThreadState *interpreter_enter(const Interpreter *self);
void interpreter_leave(Interpreter *self, PyThreadState *own);

/* NULL and exception if it is none, or serves nothing. */
Interpreter *interpreter_of(CoreState *state, PyObject *object);

#endif
