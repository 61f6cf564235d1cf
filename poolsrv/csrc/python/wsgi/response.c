/* Binding: the answer's framing and its body.
 *
 * A small answer is put together in the thread's buffer, so that one system
 * call sends it after the interpreter is let go; a large body is sent from
 * where it lies, and its owner kept until the client has it.
 */
#include "python/wsgi/wsgi.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Bodies up to this size are copied behind their head: for less than two
 * pages a memcpy is cheaper than a second iovec and keeping the owner. */
#define COPY_BODY 16384
/* What a chunk has around its data, at most: the size and two line ends. */
#define CHUNK_FRAME 20

/* ------------------------------------------------------------------------
 * Sending */

static bool
bodiless(const StartResponse *sr)
{
    return sr->status == 204 || sr->status == 304;
}

static int
add_date(Context *x)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed",
                                    "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr",
                                       "May", "Jun", "Jul", "Aug",
                                       "Sep", "Oct", "Nov", "Dec"};
    const uint64_t second = x->thread->now / 1000000000u;
    if (second != x->date_second) {
        const time_t now = time(NULL);
        struct tm t;
        gmtime_r(&now, &t);
        /* strftime would follow the application's locale. */
        snprintf(x->date, sizeof x->date,
                 "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n",
                 days[t.tm_wday % 7], t.tm_mday, months[t.tm_mon % 12],
                 t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
        x->date_second = second;
    }
    return buffer_add(&x->out, x->date, strlen(x->date));
}

/* Decide the framing and complete the head in x->out. `length` is the body's
 * if it is known, else -1. */
static int
finish_head(Context *x, StartResponse *sr, int64_t length)
{
    const Http1Head *head = &x->request->head;
    Buffer *out = &x->out;

    if (!sr->called) {
        PyErr_SetString(PyExc_AssertionError,
                        "the application gave a body before it called "
                        "start_response");
        return -1;
    }
    x->conn->status = sr->status;
    x->conn->keep =
        !sr->closes && serve_may_keep(x->thread->serve, x->conn, x->request);
    out->size = 0;
    if (buffer_add(out, sr->head.data, sr->head.size) < 0)
        return -1;
    if (x->app->date_field && !sr->has_date && add_date(x) < 0)
        return -1;
    if (x->app->server_field && !sr->has_server &&
        ADD_LITERAL(out, "Server: poolsrv\r\n") < 0)
        return -1;
    if (sr->content_length < 0 && !bodiless(sr))
        sr->content_length = length;
    if (sr->content_length >= 0 && sr->status != 204) {
        if (ADD_LITERAL(out, "Content-Length: ") < 0 ||
            buffer_add_number(out, (uint64_t)sr->content_length) < 0 ||
            ADD_LITERAL(out, "\r\n") < 0)
            return -1;
    } else if (!bodiless(sr)) {
        /* Neither side knows the length: chunks, or the connection's end. */
        if (head->minor == 0)
            x->conn->keep = false;
        else if (ADD_LITERAL(out, "Transfer-Encoding: chunked\r\n") < 0)
            return -1;
        sr->chunked = head->minor != 0 && !head->is_head;
    }
    if (!x->conn->keep) {
        if (ADD_LITERAL(out, "Connection: close\r\n") < 0)
            return -1;
    } else if (head->minor == 0) {
        if (ADD_LITERAL(out, "Connection: keep-alive\r\n") < 0)
            return -1;
    }
    if (ADD_LITERAL(out, "\r\n") < 0)
        return -1;
    sr->head_sent = true;
    return 0;
}

/* Send x->out and then `size` bytes of `data`, which `owner` keeps alive (its
 * reference stays the caller's). The interpreter is let go meanwhile. */
static void
transmit(Context *x, const char *data, size_t size, PyObject *owner)
{
    /* Not the context's: write() may be called on a thread of its own. */
    PyThreadState *own;
    bool kept = false;
    Py_INCREF(owner);
    own = PyEval_SaveThread();
    serve_send(x->thread, x->conn, x->out.data, x->out.size, data, size, owner,
               &kept);
    serve_sent_piece(x->thread);
    PyEval_RestoreThread(own);
    x->out.size = 0;
    if (!kept)
        Py_DECREF(owner);
}

/* What is in x->out; a piece that is not the first may wait for others. */
static void
send_soon(Context *x, bool first, PyObject *owner)
{
    if (!first && serve_put_off(x->thread, x->conn, x->out.data, x->out.size))
        x->out.size = 0;
    else
        transmit(x, NULL, 0, owner);
}

/* How much of a piece of `size` bytes may go out: what a HEAD asked for, and
 * what Content-Length announced. The surplus is cut, and said once. */
static size_t
allowed(Context *x, StartResponse *sr, size_t size)
{
    if (x->request->head.is_head || bodiless(sr))
        return 0;
    if (sr->content_length >= 0 &&
        (int64_t)size > sr->content_length - sr->sent) {
        const size_t rest = (size_t)(sr->content_length - sr->sent);
        serve_note(x->thread->serve, NOTE_WARNING,
                   "request %s: the application sent more than its "
                   "Content-Length of %lld bytes; the rest is cut",
                   x->request_id, (long long)sr->content_length);
        return rest;
    }
    return size;
}

/* Send a piece of the body, with the head before the first. `last` says that
 * nothing follows: all of the answer may then go out together. `length` is the
 * whole body's if known. */
static int
send_piece(Context *x, StartResponse *sr, PyObject *bytes, int64_t length,
           bool last)
{
    const bool first = !sr->head_sent;
    char *data;
    Py_ssize_t size;
    size_t body;
    bool copied;

    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError,
                     "the body must be made of bytes, not %.100s",
                     Py_TYPE(bytes)->tp_name);
        return -1;
    }
    data = PyBytes_AS_STRING(bytes);
    size = PyBytes_GET_SIZE(bytes);
    if (first && finish_head(x, sr, length) < 0)
        return -1;
    body = allowed(x, sr, (size_t)size);
    copied = body <= COPY_BODY;
    /* All of the room before the first byte: an application may catch the
     * exception and go on, and what follows must not land in half a chunk. */
    if (buffer_reserve(&x->out, (copied ? body : 0) + CHUNK_FRAME) < 0)
        return -1;
    sr->sent += (int64_t)body;
    if (sr->chunked && body) {
        char line[20];
        const int n = snprintf(line, sizeof line, "%zx\r\n", body);
        buffer_add(&x->out, line, (size_t)n);
    }
    if (copied)
        buffer_add(&x->out, data, body);
    else
        transmit(x, data, body, bytes);
    if (sr->chunked && body)
        ADD_LITERAL(&x->out, "\r\n");
    /* The last is sent by response_send's caller, with what follows. */
    if (!last && x->out.size)
        send_soon(x, first && copied, bytes);
    return 0;
}

/* Between two pieces: give a slow reader time before more is made. */
static void
pace(Context *x)
{
    PyThreadState *own;
    if (x->conn->out_size <= serve_limits(x->thread->serve)->response_buffer)
        return;
    own = PyEval_SaveThread();
    serve_wait_writable(x->thread, x->conn);
    PyEval_RestoreThread(own);
}

PyObject *
response_write(PyObject *self, PyObject *data)
{
    StartResponse *sr = (StartResponse *)self;
    if (sr->context == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "write was called after its request's end");
        return NULL;
    }
    if (PyBytes_Check(data) && PyBytes_GET_SIZE(data) == 0)
        Py_RETURN_NONE;
    if (send_piece(sr->context, sr, data, -1, false) < 0)
        return NULL;
    pace(sr->context);
    Py_RETURN_NONE;
}

/* After the last piece. */
static int
finish_body(Context *x, StartResponse *sr)
{
    if (!sr->head_sent && finish_head(x, sr, 0) < 0)
        return -1;
    if (sr->chunked && ADD_LITERAL(&x->out, "0\r\n\r\n") < 0)
        return -1;
    if (sr->content_length > sr->sent && !x->request->head.is_head &&
        !bodiless(sr)) {
        serve_note(x->thread->serve, NOTE_WARNING,
                   "request %s: the application sent %lld bytes of its "
                   "Content-Length of %lld; the connection is closed",
                   x->request_id, (long long)sr->sent,
                   (long long)sr->content_length);
        x->conn->keep = false;
    }
    return 0;
}

/* ------------------------------------------------------------------------
 * A file that the kernel sends */

/* An int that a method of the file returns; -1 if it has no such method or
 * says no, which is no error: the file is then read like any other. */
static long long
ask(PyObject *file, const char *method)
{
    PyObject *result = PyObject_CallMethod(file, method, NULL);
    long long number = -1;
    if (result && PyLong_Check(result))
        number = PyLong_AsLongLong(result);
    Py_XDECREF(result);
    PyErr_Clear();
    return number;
}

/* Send a regular file from its position on with sendfile. 1: it is on its way;
 * 0: it is no such file, read it; -1 and exception. */
static int
send_file(Context *x, StartResponse *sr, PyObject *file)
{
    const long long fd = ask(file, "fileno");
    const long long at = fd < 0 ? -1 : ask(file, "tell");
    struct stat info;
    int64_t size;
    int own;

    if (at < 0 || fstat((int)fd, &info) < 0 || !S_ISREG(info.st_mode))
        return 0;
    size = info.st_size > at ? info.st_size - at : 0;
    if (finish_head(x, sr, size) < 0)
        return -1;
    size = (int64_t)allowed(x, sr, (size_t)size);
    sr->sent += size;
    if (sr->chunked) { /* cannot be: its length is known */
        PyErr_SetString(PyExc_SystemError, "a file of unknown length");
        return -1;
    }
    if (size == 0)
        return 1;
    own = fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    x->tstate = PyEval_SaveThread();
    x->conn->more = true;
    if (serve_send(x->thread, x->conn, x->out.data, x->out.size, NULL, 0, NULL,
                   NULL) == 0)
        serve_send_file(x->thread, x->conn, own, (off_t)at, (uint64_t)size);
    else
        close(own);
    x->conn->more = false;
    PyEval_RestoreThread(x->tstate);
    x->out.size = 0;
    return 1;
}

/* ------------------------------------------------------------------------
 * What the application returned */

/* A list or tuple: its length is known before anything is sent. */
static int
send_list(Context *x, StartResponse *sr, PyObject *result)
{
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(result);
    int64_t length = sr->sent ? -1 : 0;
    Py_ssize_t i;

    for (i = 0; length >= 0 && i < count; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(result, i);
        length = PyBytes_Check(item) ? length + PyBytes_GET_SIZE(item) : -1;
    }
    /* The list may change while another thread runs: ask its size anew. */
    for (i = 0; i < PySequence_Fast_GET_SIZE(result); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(result, i));
        const bool last = i + 1 == PySequence_Fast_GET_SIZE(result);
        int failed = 0;
        if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item))
            failed = send_piece(x, sr, item, length, last);
        Py_DECREF(item);
        if (failed || x->conn->gone)
            return failed;
    }
    return finish_body(x, sr);
}

static int
send_iterable(Context *x, StartResponse *sr, PyObject *result)
{
    PyObject *iterator = PyObject_GetIter(result), *item;
    int failed = 0;

    if (iterator == NULL)
        return -1;
    while (!failed && !x->conn->gone &&
           (item = PyIter_Next(iterator)) != NULL) {
        /* An empty piece must not send the head (PEP 3333). */
        if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item)) {
            failed = send_piece(x, sr, item, -1, false);
            if (!failed)
                pace(x);
        }
        Py_DECREF(item);
        if (x->request->head.is_head && sr->head_sent)
            break; /* nobody wants the rest */
    }
    Py_DECREF(iterator);
    if (failed || PyErr_Occurred())
        return -1;
    return x->conn->gone ? 0 : finish_body(x, sr);
}

/* close() once, whatever happened; its own exception counts only if there is
 * no other. */
static int
close_result(PyObject *result)
{
    PyObject *type, *value, *traceback, *close, *done = NULL;
    int failed = 0;

    if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
        return 0;
    PyErr_Fetch(&type, &value, &traceback);
    close = PyObject_GetAttrString(result, "close");
    if (close == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        else
            failed = -1;
    } else {
        done = PyObject_CallNoArgs(close);
        failed = done ? 0 : -1;
        Py_XDECREF(done);
        Py_DECREF(close);
    }
    if (type == NULL)
        return failed;
    if (failed)
        PyErr_WriteUnraisable(result); /* the first exception is the cause */
    PyErr_Restore(type, value, traceback);
    return 0;
}

int
response_send(Context *x, StartResponse *sr, PyObject *result)
{
    int failed, sent = 0;

    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        failed = send_list(x, sr, result);
    } else {
        if (Py_TYPE(result) == x->app->state->file_wrapper_type &&
            !sr->head_sent)
            sent = send_file(x, sr, file_wrapper_file(result));
        failed = sent < 0   ? -1
                 : sent > 0 ? finish_body(x, sr)
                            : send_iterable(x, sr, result);
    }
    /* An answer that is complete is not taken back for a close() that failed.
     */
    if (close_result(result) < 0)
        return failed < 0 ? -1 : 1;
    return failed;
}

void
response_fail(Context *x, StartResponse *sr)
{
    const Http1Head *head = &x->request->head;
    /* A body that could not be read is the client's fault, not ours. */
    const int status = x->request->refusal ? x->request->refusal : 500;
    const char *phrase = serve_phrase(status);

    x->out.size = 0;
    if (sr && sr->head_sent) {
        /* Cut short, without a last chunk: the client must see that. */
        x->conn->keep = false;
        x->conn->broken = !sr->chunked && sr->content_length < 0;
        return;
    }
    x->conn->status = (uint16_t)status;
    x->conn->keep = serve_may_keep(x->thread->serve, x->conn, x->request);
    if (ADD_LITERAL(&x->out, "HTTP/1.1 ") < 0 ||
        buffer_add_number(&x->out, (uint64_t)status) < 0 ||
        ADD_LITERAL(&x->out, " ") < 0 ||
        buffer_add(&x->out, phrase, strlen(phrase)) < 0 ||
        ADD_LITERAL(&x->out, "\r\nContent-Type: text/plain\r\n"
                             "Content-Length: ") < 0 ||
        buffer_add_number(&x->out, strlen(phrase) + 5) < 0 ||
        ADD_LITERAL(&x->out, "\r\n") < 0 || add_date(x) < 0 ||
        (!x->conn->keep && ADD_LITERAL(&x->out, "Connection: close\r\n") < 0) ||
        (x->conn->keep && head->minor == 0 &&
         ADD_LITERAL(&x->out, "Connection: keep-alive\r\n") < 0) ||
        ADD_LITERAL(&x->out, "\r\n") < 0 ||
        (!head->is_head && (buffer_add_number(&x->out, (uint64_t)status) < 0 ||
                            ADD_LITERAL(&x->out, " ") < 0 ||
                            buffer_add(&x->out, phrase, strlen(phrase)) < 0 ||
                            ADD_LITERAL(&x->out, "\n") < 0))) {
        PyErr_Clear(); /* no memory even for this: close without an answer */
        x->out.size = 0;
        x->conn->keep = false;
    }
}
