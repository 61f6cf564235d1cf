/* Binding: one thread at a time inside a request. See Gate in wsgi.h. */
#include "python/wsgi/wsgi.h"

#include <stdlib.h>

#include "common/forks.h"

Gate *
gate_new(void)
{
    Gate *gate = malloc(sizeof *gate);
    if (gate == NULL || pthread_mutex_init(&gate->lock, NULL) != 0) {
        free(gate);
        PyErr_NoMemory();
        return NULL;
    }
    atomic_init(&gate->inside, 0);
    atomic_init(&gate->references, 1);
    return gate;
}

Gate *
gate_hold(Gate *gate)
{
    atomic_fetch_add_explicit(&gate->references, 1, memory_order_relaxed);
    return gate;
}

void
gate_release(Gate *gate)
{
    if (gate && atomic_fetch_sub(&gate->references, 1) == 1) {
        pthread_mutex_destroy(&gate->lock);
        free(gate);
    }
}

GateResult
gate_enter(Gate *gate, Context *const *place)
{
    const unsigned long self = PyThread_get_thread_ident();
    if (*place == NULL) {
        return GATE_OVER;
    }
    if (pthread_mutex_trylock(&gate->lock) != 0) {
        if (atomic_load_explicit(&gate->inside, memory_order_relaxed) == self) {
            PyErr_SetString(PyExc_RuntimeError,
                            "wsgi.input or write() was called from within "
                            "itself");
            return GATE_FAILED;
        }
        if (forks_left()) { /* who was inside has stayed in the worker */
            PyErr_SetString(PyExc_OSError,
                            "wsgi.input or write(): a thread of the worker was "
                            "inside when this process was forked");
            return GATE_FAILED;
        }
        PyThreadState *own = PyEval_SaveThread();
        pthread_mutex_lock(&gate->lock);
        PyEval_RestoreThread(own);
    }
    atomic_store_explicit(&gate->inside, self, memory_order_relaxed);
    if (*place == NULL) { /* it ended while we waited */
        gate_leave(gate);
        return GATE_OVER;
    }
    return GATE_ENTERED;
}

bool
gate_try(Gate *gate)
{
    if (pthread_mutex_trylock(&gate->lock) != 0) {
        return false;
    }
    atomic_store_explicit(&gate->inside, PyThread_get_thread_ident(),
                          memory_order_relaxed);
    return true;
}

void
gate_leave(Gate *gate)
{
    atomic_store_explicit(&gate->inside, 0, memory_order_relaxed);
    pthread_mutex_unlock(&gate->lock);
}
