/* Binding: wsgi.input. It ends where the body ends (wsgi.input_terminated).
 *
 * The body is complete before the application runs, in memory or in a file, so
 * that no read ever waits; or, with request buffering off, each read takes what
 * the client has sent and waits for more.
 *
 * Long, because each of a file's ways to read stands beside the others.
 */
#include "python/wsgi/wsgi.h"
#include "worker/body_streamed.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* One read of a spooled body's lines, and the room that a read without a size
 * starts with. */
#define PIECE 65536
/* Read ahead in search of the end of a line. */
#define AHEAD 8192

typedef struct {
    PyObject_HEAD Context *context; /* NULL: the request is over */
    Gate *gate;
    const char *data; /* NULL: spooled, or streamed */
    int spool;        /* the request's, or -1 */
    bool streaming;
    bool closed; /* by the application */
    uint64_t size, at;
    Buffer ahead; /* streamed: read but not asked for yet, from `at` on */
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
    self->data = r->spool < 0 ? r->body : NULL;
    self->spool = r->spool;
    self->streaming = r->streaming;
    self->closed = false;
    self->size = r->body_size;
    self->at = 0;
    self->ahead = (Buffer){NULL, 0, 0};
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
    Input *self = (Input *)object;
    self->data = NULL;
    self->spool = -1;
    buffer_clear(&self->ahead);
}

static void
input_dealloc(Input *self)
{
    PyTypeObject *type = Py_TYPE(self);
    buffer_clear(&self->ahead);
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

/* Receive up to `room` bytes of a streamed body, without the interpreter.
 * Bytes, 0 at the end, -1 and exception. */
static Py_ssize_t
receive(Input *self, char *to, size_t room)
{
    Context *x = self->context;
    const char *words = "";
    PyThreadState *own;
    ssize_t n;

    if (x == NULL) { /* it ended while we waited for the client */
        PyErr_SetString(PyExc_ValueError,
                        "wsgi.input was read after the end of its request");
        return -1;
    }
    if (worker_left(x->thread->worker)) {
        PyErr_SetString(PyExc_OSError,
                        "wsgi.input: this process is a child of the worker");
        return -1;
    }
    if (!x->request->wanted) {
        if (gate_enter(x->writing, &self->context) != GATE_ENTERED) {
            return -1;
        }
        body_streamed_want(x->thread, x->conn, x->request);
        gate_leave(x->writing);
    }
    /* Not the context's: the application may read on a thread of its own. */
    own = PyEval_SaveThread();
    if (context_hold(x)) {
        n = body_streamed_read(x->thread, x->conn, x->request, to, room,
                               &words);
        context_let_go(x);
    } else {
        words = "the request has timed out";
        n = -1;
    }
    PyEval_RestoreThread(own);
    if (n < 0) {
        PyErr_Format(PyExc_OSError, "wsgi.input: %s", words);
    }
    return n;
}

/* Read ahead until a line feed or `most` bytes are there, or the end. */
static int
look_ahead(Input *self, uint64_t most)
{
    Buffer *ahead = &self->ahead;
    size_t seen;
    if (self->at) { /* what was taken makes room */
        memmove(ahead->data, ahead->data + self->at, ahead->size - self->at);
        ahead->size -= self->at;
        self->at = 0;
    }
    for (seen = 0; ahead->size < most;) {
        Py_ssize_t n;
        if (ahead->size > seen &&
            memchr(ahead->data + seen, '\n', ahead->size - seen)) {
            return 0;
        }
        seen = ahead->size;
        if (buffer_reserve(ahead, AHEAD) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        n = receive(self, ahead->data + ahead->size, AHEAD);
        if (n <= 0) {
            return (int)n;
        }
        ahead->size += (size_t)n;
    }
    return 0;
}

/* take() of a streamed body: what was read ahead, then from the client until
 * `size` bytes are there or the body ends. Room grows as bytes come. */
static PyObject *
take_stream(Input *self, uint64_t size)
{
    uint64_t done = self->ahead.size - self->at;
    uint64_t room;
    PyObject *bytes;

    if (done > size) {
        done = size;
    }
    room = size < done + PIECE ? size : done + PIECE;
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (bytes == NULL) {
        return NULL;
    }
    if (done) {
        memcpy(PyBytes_AS_STRING(bytes), self->ahead.data + self->at, done);
    }
    self->at += done;
    while (done < size) {
        Py_ssize_t n;
        if (done == room) {
            room = size < room * 2 ? size : room * 2;
            if (_PyBytes_Resize(&bytes, (Py_ssize_t)room) < 0) {
                return NULL;
            }
        }
        n = receive(self, PyBytes_AS_STRING(bytes) + done, room - done);
        if (n < 0) {
            Py_DECREF(bytes);
            return NULL;
        }
        if (n == 0) {
            break;
        }
        done += (uint64_t)n;
    }
    if (done < room && _PyBytes_Resize(&bytes, (Py_ssize_t)done) < 0) {
        return NULL;
    }
    return bytes;
}

/* The next `size` bytes as a bytes object. */
static PyObject *
take(Input *self, uint64_t size)
{
    PyObject *bytes;
    uint64_t done = 0;

    if (self->streaming) {
        return take_stream(self, size);
    }
    const Context *x = self->context;
    if (x) { /* NULL: its request ends at this moment */
        deadline_alive(&x->thread->deadline);
    }
    if (size > self->size - self->at) {
        size = self->size - self->at;
    }
    if (self->spool < 0) {
        bytes = PyBytes_FromStringAndSize(size ? self->data + self->at : NULL,
                                          (Py_ssize_t)size);
        if (bytes) {
            self->at += size;
        }
        return bytes;
    }
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    while (bytes && done < size) {
        char *to = PyBytes_AS_STRING(bytes) + done;
        const int fd = self->spool;
        const off_t from = (off_t)(self->at + done);
        ssize_t n;
        Py_BEGIN_ALLOW_THREADS
        n = pread(fd, to, size - done, from);
        Py_END_ALLOW_THREADS
        if (n < 0 && errno == EINTR && PyErr_CheckSignals() == 0) {
            continue;
        }
        if (n <= 0) {
            if (!PyErr_Occurred()) {
                if (n == 0) {
                    errno = EIO; /* the file was ours: it cannot be shorter */
                }
                PyErr_SetFromErrno(PyExc_OSError);
            }
            Py_CLEAR(bytes);
            break;
        }
        done += (uint64_t)n;
    }
    if (bytes) {
        self->at += size;
    }
    return bytes;
}

/* Where the line that starts at `at` ends, at most `most` bytes on. */
static int
line_size(Input *self, uint64_t most, uint64_t *size)
{
    char piece[PIECE];
    uint64_t left, seen = 0;
    if (self->streaming && look_ahead(self, most) < 0) {
        return -1;
    }
    left = (self->streaming ? self->ahead.size : self->size) - self->at;
    if (most < left) {
        left = most;
    }
    *size = left;
    if (self->spool < 0) {
        const char *data = self->streaming ? self->ahead.data : self->data;
        const char *start = left ? data + self->at : NULL;
        const char *end = left ? memchr(start, '\n', left) : NULL;
        if (end) {
            *size = (uint64_t)(end - start) + 1;
        }
        return 0;
    }
    while (seen < left) {
        const size_t want = left - seen < PIECE ? left - seen : PIECE;
        const ssize_t n =
            pread(self->spool, piece, want, (off_t)(self->at + seen));
        const char *end;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        end = memchr(piece, '\n', (size_t)n);
        if (end) {
            *size = seen + (uint64_t)(end - piece) + 1;
            return 0;
        }
        seen += (uint64_t)n;
    }
    return 0;
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
    PyObject *bytes = take(self, size);
    gate_leave(self->gate);
    return bytes;
}

/* What is there, at most `size` bytes; waits only if nothing is. */
static PyObject *
take_some(Input *self, uint64_t size)
{
    if (!self->streaming) {
        return take(self, size);
    }
    if (self->ahead.size == self->at && size) {
        self->ahead.size = self->at = 0;
        if (buffer_reserve(&self->ahead, PIECE) < 0) {
            return PyErr_NoMemory();
        }
        const Py_ssize_t n = receive(self, self->ahead.data, PIECE);
        if (n < 0) {
            return NULL;
        }
        self->ahead.size = (size_t)n;
    }
    const uint64_t left = self->ahead.size - self->at;
    return take(self, left < size ? left : size);
}

static PyObject *
input_read1(Input *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t size;
    if (size_argument(args, count, "read1", &size) < 0 || enter(self) < 0) {
        return NULL;
    }
    PyObject *bytes = take_some(self, size);
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
        PyObject *bytes = take_some(self, (uint64_t)to.len);
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
    PyObject *line = line_size(self, most, &size) < 0 ? NULL : take(self, size);
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
