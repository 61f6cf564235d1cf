/* Binding: the body of a request: see body.h. */
#include "python/wsgi/body.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "worker/body_streamed.h"

/* One read of a spooled body's lines, and the room that a read without a size
 * starts with. */
#define PIECE 65536
/* Read ahead in search of the end of a line. */
#define AHEAD 8192

/* Receive up to `room` bytes of a streamed body, without the interpreter.
 * Bytes, 0 at the end, -1 and exception. */
static Py_ssize_t
receive(Body *b, char *to, size_t room)
{
    Context *x = *b->context;
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
        if (gate_enter(x->writing, b->context) != GATE_ENTERED) {
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
look_ahead(Body *b, uint64_t most)
{
    Buffer *ahead = &b->ahead;
    size_t seen;
    if (b->at) { /* what was taken makes room */
        memmove(ahead->data, ahead->data + b->at, ahead->size - b->at);
        ahead->size -= b->at;
        b->at = 0;
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
        n = receive(b, ahead->data + ahead->size, AHEAD);
        if (n <= 0) {
            return (int)n;
        }
        ahead->size += (size_t)n;
    }
    return 0;
}

/* body_take() of a streamed body: what was read ahead, then from the client
 * until `size` bytes are there or the body ends. Room grows as bytes come. */
static PyObject *
take_stream(Body *b, uint64_t size)
{
    uint64_t done = b->ahead.size - b->at;
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
        memcpy(PyBytes_AS_STRING(bytes), b->ahead.data + b->at, done);
    }
    b->at += done;
    while (done < size) {
        Py_ssize_t n;
        if (done == room) {
            room = size < room * 2 ? size : room * 2;
            if (_PyBytes_Resize(&bytes, (Py_ssize_t)room) < 0) {
                return NULL;
            }
        }
        n = receive(b, PyBytes_AS_STRING(bytes) + done, room - done);
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

PyObject *
body_take(Body *b, uint64_t size)
{
    PyObject *bytes;
    uint64_t done = 0;

    if (b->streaming) {
        return take_stream(b, size);
    }
    const Context *x = *b->context;
    if (x) { /* NULL: its request ends at this moment */
        deadline_alive(&x->thread->deadline);
    }
    if (size > b->size - b->at) {
        size = b->size - b->at;
    }
    if (b->spool < 0) {
        bytes = PyBytes_FromStringAndSize(size ? b->data + b->at : NULL,
                                          (Py_ssize_t)size);
        if (bytes) {
            b->at += size;
        }
        return bytes;
    }
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    while (bytes && done < size) {
        char *to = PyBytes_AS_STRING(bytes) + done;
        const int fd = b->spool;
        const off_t from = (off_t)(b->at + done);
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
        b->at += size;
    }
    return bytes;
}

int
body_line_size(Body *b, uint64_t most, uint64_t *size)
{
    char piece[PIECE];
    uint64_t left, seen = 0;
    if (b->streaming && look_ahead(b, most) < 0) {
        return -1;
    }
    left = (b->streaming ? b->ahead.size : b->size) - b->at;
    if (most < left) {
        left = most;
    }
    *size = left;
    if (b->spool < 0) {
        const char *data = b->streaming ? b->ahead.data : b->data;
        const char *start = left ? data + b->at : NULL;
        const char *end = left ? memchr(start, '\n', left) : NULL;
        if (end) {
            *size = (uint64_t)(end - start) + 1;
        }
        return 0;
    }
    while (seen < left) {
        const size_t want = left - seen < PIECE ? left - seen : PIECE;
        const ssize_t n = pread(b->spool, piece, want, (off_t)(b->at + seen));
        const char *end;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            if (n == 0) {
                errno = EIO; /* the file was ours: it cannot be shorter */
            }
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

PyObject *
body_take_some(Body *b, uint64_t size)
{
    if (!b->streaming) {
        return body_take(b, size);
    }
    if (b->ahead.size == b->at && size) {
        b->ahead.size = b->at = 0;
        if (buffer_reserve(&b->ahead, PIECE) < 0) {
            return PyErr_NoMemory();
        }
        const Py_ssize_t n = receive(b, b->ahead.data, PIECE);
        if (n < 0) {
            return NULL;
        }
        b->ahead.size = (size_t)n;
    }
    const uint64_t left = b->ahead.size - b->at;
    return body_take(b, left < size ? left : size);
}

void
body_clear(Body *b)
{
    b->data = NULL;
    b->spool = -1;
    buffer_clear(&b->ahead);
}
