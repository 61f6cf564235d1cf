/* Binding: environ["poolsrv.set_timeout"], by which the application says how
 * long it may go without a sign of life in the request at hand.
 */
#include "python/wsgi/wsgi.h"

#include "worker/deadline.h"

/* Nanoseconds of it fit 64 bits with room for sums. */
#define LONGEST (365 * 86400.0)

/* One for each thread, for all of its requests. */
typedef struct {
    PyObject_HEAD Context *context; /* NULL: the thread serves no more */
} SetTimeout;

static PyObject *
set_timeout_call(SetTimeout *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"seconds", NULL};
    const Context *x = self->context;
    double seconds;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "d:set_timeout", names,
                                     &seconds)) {
        return NULL;
    }
    if (!(seconds >= 0 && seconds <= LONGEST)) {
        PyErr_SetString(PyExc_ValueError,
                        "set_timeout takes seconds, from 0 (no limit) to a "
                        "year");
        return NULL;
    }
    /* On another thread, the request that it means may be over. */
    if (x == NULL || x->ident != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "call set_timeout on the thread of the request, before "
                        "its end");
        return NULL;
    }
    deadline_set(&x->thread->deadline,
                 atomic_load(&x->thread->row->current.sequence),
                 (uint64_t)(seconds * (double)CLOCK_SECOND));
    Py_RETURN_NONE;
}

static void
set_timeout_dealloc(SetTimeout *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot set_timeout_slots[] = {
    {Py_tp_doc, "set_timeout(seconds): how long this request may go without a "
                "sign of life; 0: for ever."},
    {Py_tp_call, set_timeout_call},
    {Py_tp_dealloc, set_timeout_dealloc},
    {0, NULL},
};

static PyType_Spec set_timeout_spec = {
    .name = "poolsrv._core.SetTimeout",
    .basicsize = sizeof(SetTimeout),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = set_timeout_slots,
};

PyObject *
set_timeout_new(Context *x)
{
    PyTypeObject *type = x->app->state->set_timeout_type;
    SetTimeout *self = (SetTimeout *)type->tp_alloc(type, 0);
    if (self) {
        self->context = x;
    }
    return (PyObject *)self;
}

void
set_timeout_end(PyObject *object)
{
    if (object) {
        ((SetTimeout *)object)->context = NULL;
        Py_DECREF(object);
    }
}

int
core_add_set_timeout(PyObject *module, CoreState *state)
{
    return core_add_type(module, &set_timeout_spec, &state->set_timeout_type);
}
