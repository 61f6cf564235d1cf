/* Binding: environ["poolsrv.socket"], by which the application takes the
 * connection over. What it finds there is a socket that python/ has no type
 * for: poolsrv/worker/upgrade.py makes it, of the callable that stands here.
 */
#include "python/wsgi/wsgi.h"

#include <errno.h>
#include <unistd.h>

#include "worker/upgrade.h"

typedef struct {
    PyObject_HEAD Context *context; /* NULL: its request is over */
} Takeover;

static void
set_too_many(const Context *x)
{
    if (upgrade_limit(x->thread->worker) == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a connection that the application takes over keeps "
                        "its thread, and this worker has one thread only: "
                        "raise --threads");
    } else {
        PyErr_SetString(PyExc_RuntimeError, upgrade_refused);
    }
}

/* (descriptor, bytes); nobody is inside. What stood behind the head was for
 * whoever has the connection now. */
static PyObject *
take(Context *x, Http1Answer *answer)
{
    Request *r = x->request;
    PyObject *ahead, *taken;
    int fd;

    if (answer->framing != FRAMING_UNDECIDED) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the connection cannot be taken over: its answer has "
                        "begun");
        return NULL;
    }
    ahead = PyBytes_FromStringAndSize(r->buffer + r->next, r->size - r->next);
    taken = ahead ? PyTuple_New(2) : NULL;
    if (taken == NULL) {
        Py_XDECREF(ahead);
        return NULL;
    }
    PyTuple_SET_ITEM(taken, 1, ahead);
    if (!context_hold(x)) {
        PyErr_SetString(PyExc_ConnectionError, "the connection has ended");
        Py_DECREF(taken);
        return NULL;
    }
    fd = upgrade_take(x->thread, x->conn);
    if (fd >= 0) {
        r->next = r->size;
        http1_answer_forgo(answer);
    }
    context_let_go(x);
    if (fd < 0) {
        if (errno == EDQUOT) {
            set_too_many(x);
        } else {
            PyErr_SetFromErrno(PyExc_OSError);
        }
        Py_DECREF(taken);
        return NULL;
    }
    PyObject *number = PyLong_FromLong(fd);
    if (number == NULL) {
        close(fd);
        Py_DECREF(taken);
        return NULL;
    }
    PyTuple_SET_ITEM(taken, 0, number);
    return taken;
}

static PyObject *
takeover_call(Takeover *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    Context *x = self->context;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, ":takeover", names)) {
        return NULL;
    }
    if (x == NULL || !context_is_own(x)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "take the connection over on the thread of its "
                        "request, before its end");
        return NULL;
    }
    /* Another thread may be inside write(). */
    StartResponse *sr = x->start_response;
    if (gate_enter(sr->gate, &sr->context) != GATE_ENTERED) {
        return NULL; /* the request is not over: it is an exception */
    }
    PyObject *taken = take(x, &sr->answer);
    sr->called |= taken != NULL;
    gate_leave(sr->gate);
    return taken;
}

static void
takeover_dealloc(Takeover *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot takeover_slots[] = {
    {Py_tp_doc, "takeover(): the connection is the application's from now on. "
                "A descriptor that the caller owns, and the bytes that have "
                "been received already."},
    {Py_tp_call, takeover_call},
    {Py_tp_dealloc, takeover_dealloc},
    {0, NULL},
};

static PyType_Spec takeover_spec = {
    .name = "poolsrv._core.Takeover",
    .basicsize = sizeof(Takeover),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = takeover_slots,
};

int
takeover_offer(Context *x, PyObject *environ)
{
    const EnvironKeys *keys = &x->app->keys;
    const Request *r = x->request;
    PyTypeObject *type = x->app->state->takeover_type;
    int result = -1;

    if (worker_limits(x->thread->worker)->upgraded_connections == 0 ||
        !http1_upgrade_asked(&r->head, r->buffer + r->start)) {
        return 0;
    }
    Takeover *self = (Takeover *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return -1;
    }
    self->context = x;
    x->takeover = (PyObject *)self;
    PyObject *socket = PyObject_CallOneArg(x->app->offer, x->takeover);
    if (socket && PyDict_SetItem(environ, keys->socket, socket) == 0 &&
        PyDict_SetItem(environ, keys->werkzeug_socket, socket) == 0) {
        result = 0;
    }
    Py_XDECREF(socket);
    return result;
}

void
takeover_end(PyObject *object)
{
    ((Takeover *)object)->context = NULL;
    Py_DECREF(object);
}

int
core_add_takeover(PyObject *module, CoreState *state)
{
    return core_add_type(module, &takeover_spec, &state->takeover_type);
}
