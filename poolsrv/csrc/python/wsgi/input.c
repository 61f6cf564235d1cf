/* Binding: wsgi.input. It ends where the body ends (wsgi.input_terminated). */
#include "python/wsgi/body.h"

#include <string.h>

typedef struct {
    PyObject_HEAD Context *context; /* NULL: the request is over */
    Gate *gate;
    bool closed; /* by the application */
    Body body;
} Input;

PyObject *
input_new(Context *x)
{
    const Request *r = x->request;
    Input *self = PyObject_New(Input, x->app->state->input_type);
    if (self == NULL) {
        return NULL;
    }
    self->context = x;
    self->gate = gate_hold(x->reading);
    self->closed = false;
    self->body = (Body){
        .context = &self->context,
        .data = r->spool < 0 ? r->body : NULL,
        .spool = r->spool,
        .streaming = r->streaming,
        .size = r->body_size,
    };
    return (PyObject *)self;
}

void
input_shut(PyObject *object)
{
    ((Input *)object)->context = NULL;
}

void
input_clear(PyObject *object)
{
    body_clear(&((Input *)object)->body);
}

static void
input_dealloc(Input *self)
{
    PyTypeObject *type = Py_TYPE(self);
    body_clear(&self->body);
    gate_release(self->gate);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Begin to read: 0 and the gate must be left; or -1 and exception. */
static int
enter(Input *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_ValueError, "wsgi.input has been closed");
        return -1;
    }
    switch (gate_enter(self->gate, &self->context)) {
    case GATE_ENTERED:
        return 0;
    case GATE_OVER:
        PyErr_SetString(
            PyExc_ValueError,
            "wsgi.input was read after the end of its request; read "
            "the body before the response is complete");
        return -1;
    case GATE_FAILED:
        break;
    }
    return -1;
}

/* The optional size argument; None and negative mean all. */
static int
size_argument(PyObject *const *args, Py_ssize_t count, const char *name,
              uint64_t *size)
{
    Py_ssize_t number;
    *size = UINT64_MAX;
    if (count > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most one argument", name);
        return -1;
    }
    if (count == 0 || args[0] == Py_None) {
        return 0;
    }
    number = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (number >= 0) {
        *size = (uint64_t)number;
    }
    return 0;
}

static PyObject *
input_read(Input *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t size;
    if (size_argument(args, count, "read", &size) < 0 || enter(self) < 0) {
        return NULL;
    }
    PyObject *bytes = body_take(&self->body, size);
    gate_leave(self->gate);
    return bytes;
}

static PyObject *
input_read1(Input *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t size;
    if (size_argument(args, count, "read1", &size) < 0 || enter(self) < 0) {
        return NULL;
    }
    PyObject *bytes = body_take_some(&self->body, size);
    gate_leave(self->gate);
    return bytes;
}

static PyObject *
input_readinto(Input *self, PyObject *target)
{
    Py_buffer to;
    PyObject *count = NULL;
    if (PyObject_GetBuffer(target, &to, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if (enter(self) == 0) {
        PyObject *bytes = body_take_some(&self->body, (uint64_t)to.len);
        if (bytes) {
            memcpy(to.buf, PyBytes_AS_STRING(bytes),
                   (size_t)PyBytes_GET_SIZE(bytes));
            count = PyLong_FromSsize_t(PyBytes_GET_SIZE(bytes));
            Py_DECREF(bytes);
        }
        gate_leave(self->gate);
    }
    PyBuffer_Release(&to);
    return count;
}

/* A line of at most `most` bytes; empty at the end. */
static PyObject *
take_line(Input *self, uint64_t most)
{
    uint64_t size;
    if (enter(self) < 0) {
        return NULL;
    }
    PyObject *line = body_line_size(&self->body, most, &size) < 0
                         ? NULL
                         : body_take(&self->body, size);
    gate_leave(self->gate);
    return line;
}

static PyObject *
input_readline(Input *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t most;
    return size_argument(args, count, "readline", &most) < 0
               ? NULL
               : take_line(self, most);
}

static PyObject *
input_next(Input *self)
{
    PyObject *line = take_line(self, UINT64_MAX);
    if (line && PyBytes_GET_SIZE(line) == 0) {
        Py_CLEAR(line);
    }
    return line;
}

static PyObject *
input_readlines(Input *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t hint, got = 0;
    PyObject *list;
    if (size_argument(args, count, "readlines", &hint) < 0) {
        return NULL;
    }
    if (hint == 0) {
        hint = UINT64_MAX; /* as io.IOBase.readlines() has it */
    }
    list = PyList_New(0);
    while (list && got < hint) {
        PyObject *line = input_next(self);
        int failed;
        if (line == NULL) {
            if (PyErr_Occurred()) {
                Py_CLEAR(list);
            }
            break;
        }
        got += (uint64_t)PyBytes_GET_SIZE(line);
        failed = PyList_Append(list, line) < 0;
        Py_DECREF(line);
        if (failed) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* ------------------------------------------------------------------------
 * What io.BufferedReader and io.TextIOWrapper ask of what they wrap */

static PyObject *
input_true(Input *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    Py_RETURN_TRUE;
}

static PyObject *
input_false(Input *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    Py_RETURN_FALSE;
}

static PyObject *
input_flush(Input *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    Py_RETURN_NONE;
}

/* A wrapper closes what it wraps when it is freed. */
static PyObject *
input_close(Input *self, PyObject *Py_UNUSED(none))
{
    self->closed = true;
    Py_RETURN_NONE;
}

static PyObject *
input_closed(Input *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed || self->context == NULL);
}

static PyGetSetDef input_attributes[] = {
    {"closed", (getter)input_closed, NULL,
     "Whether close() was called or the request is over.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define METHOD(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef input_methods[] = {
    {"read", METHOD(input_read), METH_FASTCALL,
     "read(size=-1): at most so many bytes of the body."},
    {"read1", METHOD(input_read1), METH_FASTCALL,
     "read1(size=-1): what is there of the body; waits only if nothing is."},
    {"readinto", METHOD(input_readinto), METH_O,
     "readinto(buffer): read1() into a buffer; how many bytes."},
    {"readline", METHOD(input_readline), METH_FASTCALL,
     "readline(size=-1): up to and with the next line feed."},
    {"readlines", METHOD(input_readlines), METH_FASTCALL,
     "readlines(hint=-1): a list of lines, until `hint` bytes are read."},
    {"readable", METHOD(input_true), METH_NOARGS, "True."},
    {"writable", METHOD(input_false), METH_NOARGS, "False."},
    {"seekable", METHOD(input_false), METH_NOARGS, "False."},
    {"isatty", METHOD(input_false), METH_NOARGS, "False."},
    {"flush", METHOD(input_flush), METH_NOARGS, "Nothing."},
    {"close", METHOD(input_close), METH_NOARGS, "Further reads raise."},
    {NULL, NULL, 0, NULL},
};

#undef METHOD

static PyType_Slot input_slots[] = {
    {Py_tp_doc, "The body of a request (PEP 3333, wsgi.input)."},
    {Py_tp_dealloc, input_dealloc},
    {Py_tp_methods, input_methods},
    {Py_tp_getset, input_attributes},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, input_next},
    {0, NULL},
};

static PyType_Spec input_spec = {
    .name = "poolsrv._core.Input",
    .basicsize = sizeof(Input),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = input_slots,
};

int
core_add_input(PyObject *module, CoreState *state)
{
    return core_add_type(module, &input_spec, &state->input_type);
}
