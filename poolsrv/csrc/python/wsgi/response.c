/* Binding: what the application returns, as an answer.
 *
 * A small answer is put together in the thread's buffer, so that one system
 * call sends it after the interpreter is let go; a large body is sent from
 * where it lies, and its owner kept until the client has it.
 *
 * Long, because the kinds of a body (one piece, pieces, a file) share the rules
 * of the head that goes before.
 */
#include "python/wsgi/wsgi.h"
#include "worker/exchange.h"
#include "worker/notes.h"
#include "worker/output.h"
#include "worker/pieces.h"
#include "worker/stream.h"

#include "common/clock.h"
#include "common/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* Bodies up to this size are copied behind their head: for less than two
 * pages a memcpy is cheaper than a second iovec and keeping the owner. */
#define COPY_BODY 16384

/* ------------------------------------------------------------------------
 * Sending */

static bool
head_sent(const StartResponse *sr)
{
    return sr->answer.framing != FRAMING_UNDECIDED;
}

/* Complete the head in x->thread->out. `length` is the body's if it is known,
 * else -1.
 */
static int
finish_head(Context *x, StartResponse *sr, int64_t length)
{
    if (!sr->called) {
        PyErr_SetString(PyExc_AssertionError,
                        "the application gave a body before it called "
                        "start_response");
        return -1;
    }
    const Http1Asker who = record_asker(x->thread, x->conn, x->request);
    x->thread->out.size = 0;
    if (answer_result(
            http1_answer_head(&sr->answer, &who, length, &x->thread->out),
            NULL) < 0) {
        return -1;
    }
    x->conn->status = sr->answer.status;
    x->conn->ending = sr->answer.keep ? ENDING_KEEP : ENDING_CLOSE;
    return 0;
}

/* Send x->thread->out and then `size` bytes of `data`, which `owner` keeps
 * alive (its reference stays the caller's). The interpreter is let go
 * meanwhile. */
static void
transmit(Context *x, const char *data, size_t size, PyObject *owner)
{
    /* Not the context's: write() may be called on a thread of its own. */
    PyThreadState *own;
    bool kept = false;
    Py_INCREF(owner);
    own = PyEval_SaveThread();
    if (context_hold(x)) {
        output_send(x->thread, x->conn, x->thread->out.data,
                    x->thread->out.size, data, size, owner, &kept, STREAM_PUSH);
        pieces_sent(x->thread);
        context_let_go(x);
    }
    PyEval_RestoreThread(own);
    x->thread->out.size = 0;
    if (!kept) {
        Py_DECREF(owner);
    }
}

/* What is in x->thread->out; a piece that is not the first may wait for others.
 */
static void
send_soon(Context *x, bool first, PyObject *owner)
{
    Buffer *out = &x->thread->out;
    if (!first && context_hold(x)) {
        const bool waits =
            pieces_put_off(x->thread, x->conn, out->data, out->size);
        context_let_go(x);
        if (waits) {
            out->size = 0;
            return;
        }
    }
    transmit(x, NULL, 0, owner);
}

/* How much of a piece of `size` bytes may go out. What is beyond the announced
 * length is cut, and said once. */
static size_t
allowed(Context *x, StartResponse *sr, size_t size)
{
    const size_t rest = http1_answer_allows(&sr->answer, size);
    if (rest < size && sr->answer.framing == FRAMING_LENGTH) {
        notes_add(x->thread->worker, NOTE_WARNING,
                  "request %s: the application sent more than its "
                  "Content-Length of %lld bytes; the rest is cut",
                  x->thread->record.id, (long long)sr->answer.content_length);
    }
    return rest;
}

/* Send a piece of the body, with the head before the first. `last` says that
 * nothing follows: all of the answer may then go out together. `length` is the
 * whole body's if known. */
static int
send_piece(Context *x, StartResponse *sr, PyObject *bytes, int64_t length,
           bool last)
{
    const bool first = !head_sent(sr);

    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError,
                     "the body must be made of bytes, not %.100s",
                     Py_TYPE(bytes)->tp_name);
        return -1;
    }
    if (first && finish_head(x, sr, length) < 0) {
        return -1;
    }
    const char *data = PyBytes_AS_STRING(bytes);
    const size_t body = allowed(x, sr, (size_t)PyBytes_GET_SIZE(bytes));
    const bool copied = body <= COPY_BODY;
    /* All of the room before the first byte: an application may catch the
     * exception and go on, and what follows must not land in half a chunk. */
    if (buffer_reserve(&x->thread->out, (copied ? body : 0) + HTTP1_FRAME) <
        0) {
        PyErr_NoMemory();
        return -1;
    }
    if (body) {
        http1_answer_open(&sr->answer, body, &x->thread->out);
        if (copied) {
            buffer_add(&x->thread->out, data, body);
        } else {
            transmit(x, data, body, bytes);
        }
        http1_answer_close(&sr->answer, &x->thread->out);
    }
    /* The last is sent by response_send's caller, with what follows. */
    if (!last && x->thread->out.size) {
        send_soon(x, first && copied, bytes);
    }
    return 0;
}

/* Between two pieces: give a slow reader time before more is made. */
static void
pace(Context *x)
{
    PyThreadState *own;
    if (x->conn->out_size <=
        worker_limits(x->thread->worker)->response_buffer) {
        return;
    }
    own = PyEval_SaveThread();
    if (context_hold(x)) {
        output_wait(x->thread, x->conn);
        context_let_go(x);
    }
    PyEval_RestoreThread(own);
}

/* What write() raises where a peer's socket.send() would: the application has
 * no other way to learn that nobody reads. */
static void
set_client_gone(void)
{
    errno = EPIPE;
    PyErr_SetFromErrno(PyExc_OSError); /* BrokenPipeError */
}

PyObject *
response_write(PyObject *object, PyObject *data)
{
    StartResponse *sr = (StartResponse *)object;
    int failed = 0;

    if (sr->context && worker_left(sr->context->thread->worker)) {
        PyErr_SetString(PyExc_OSError,
                        "write() was called in a child of the worker");
        return NULL;
    }
    switch (gate_enter(sr->gate, &sr->context)) {
    case GATE_FAILED:
        return NULL;
    case GATE_OVER:
        PyErr_SetString(PyExc_RuntimeError,
                        "write() was called after its request's end");
        return NULL;
    case GATE_ENTERED:
        break;
    }
    Context *x = sr->context;
    if (!PyBytes_Check(data) || PyBytes_GET_SIZE(data)) {
        failed = send_piece(x, sr, data, -1, false);
        if (!failed) {
            pace(x);
        }
    } else {
        output_look(x->thread, x->conn);
    }
    if (!failed && x->conn->gone) {
        set_client_gone();
        failed = -1;
    }
    gate_leave(sr->gate);
    if (failed) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* After the last piece. */
static int
finish_body(Context *x, StartResponse *sr)
{
    if (!head_sent(sr) && finish_head(x, sr, 0) < 0) {
        return -1;
    }
    if (answer_result(http1_answer_end(&sr->answer, &x->thread->out), NULL) <
        0) {
        return -1;
    }
    if (http1_answer_is_short(&sr->answer)) {
        notes_add(x->thread->worker, NOTE_WARNING,
                  "request %s: the application sent %lld bytes of its "
                  "Content-Length of %lld; the connection is closed",
                  x->thread->record.id, (long long)sr->answer.sent,
                  (long long)sr->answer.content_length);
        x->conn->ending = ENDING_CLOSE;
    }
    return 0;
}

/* Send a file with sendfile, if it is one that the kernel can send. 1: it is on
 * its way; 0: read it; -1 and exception. */
static int
send_file(Context *x, StartResponse *sr, PyObject *wrapper)
{
    FileSpan span;
    if (!file_wrapper_span(&x->app->files, wrapper, &span)) {
        return 0;
    }
    if (finish_head(x, sr, span.size) < 0) {
        return -1;
    }
    const size_t size = allowed(x, sr, (size_t)span.size);
    sr->answer.sent += (int64_t)size; /* no chunk: its length is known */
    if (size == 0) {
        return 1;
    }
    /* Our own: the application closes its file before all of it is sent. */
    const int own = fcntl(span.fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    PyThreadState *state = PyEval_SaveThread();
    const bool ours = context_hold(x);
    if (ours && output_send(x->thread, x->conn, x->thread->out.data,
                            x->thread->out.size, NULL, 0, NULL, NULL,
                            STREAM_MORE) == 0) {
        output_send_file(x->thread, x->conn, own, span.at, size);
    } else {
        close(own);
    }
    if (ours) {
        context_let_go(x);
    }
    PyEval_RestoreThread(state);
    x->thread->out.size = 0;
    return 1;
}

/* ------------------------------------------------------------------------
 * What the application returned */

/* A list or tuple: its length is known before anything is sent. */
static int
send_list(Context *x, StartResponse *sr, PyObject *result)
{
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(result);
    int64_t length = sr->answer.sent ? -1 : 0;
    Py_ssize_t i;

    for (i = 0; length >= 0 && i < count; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(result, i);
        length = PyBytes_Check(item) ? length + PyBytes_GET_SIZE(item) : -1;
    }
    if (gate_enter(sr->gate, &sr->context) != GATE_ENTERED) {
        return -1;
    }
    /* The list may change while another thread runs: ask its size anew. */
    int failed = 0;
    for (i = 0;
         !failed && !x->conn->gone && i < PySequence_Fast_GET_SIZE(result);
         i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(result, i));
        const bool last = i + 1 == PySequence_Fast_GET_SIZE(result);
        if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item)) {
            failed = send_piece(x, sr, item, length, last);
        }
        Py_DECREF(item);
    }
    if (!failed && !x->conn->gone) {
        failed = finish_body(x, sr);
    }
    gate_leave(sr->gate);
    return failed;
}

/* One piece of what the application yields, which may be slow to be read. */
static int
send_item(Context *x, StartResponse *sr, PyObject *item)
{
    int failed = 0;
    if (gate_enter(sr->gate, &sr->context) != GATE_ENTERED) {
        return -1;
    }
    if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item)) {
        failed = send_piece(x, sr, item, -1, false);
        if (!failed) {
            pace(x);
        }
    } else { /* it must not send the head (PEP 3333) */
        output_look(x->thread, x->conn);
    }
    gate_leave(sr->gate);
    return failed;
}

static int
send_iterable(Context *x, StartResponse *sr, PyObject *result)
{
    PyObject *iterator = PyObject_GetIter(result), *item;
    int failed = 0;

    if (iterator == NULL) {
        return -1;
    }
    while (!failed && !x->conn->gone &&
           (item = PyIter_Next(iterator)) != NULL) {
        context_stay(x);
        failed = send_item(x, sr, item);
        Py_DECREF(item);
        if (x->request->head.is_head && head_sent(sr)) {
            break; /* nobody wants the rest */
        }
    }
    context_stay(x);
    Py_DECREF(iterator);
    return failed || PyErr_Occurred() ? -1 : 0;
}

/* Only the end of the connection tells the end of this body. What a slow reader
 * has left to wait comes before it, and the end then with the request's. */
static void
end_our_side(Context *x)
{
    PyThreadState *own = PyEval_SaveThread();
    if (context_hold(x)) {
        if (pieces_flush(x->thread, x->conn, STREAM_MORE) == 0 &&
            x->conn->out == NULL && !x->conn->gone) {
            stream_end(x->conn);
        }
        context_let_go(x);
    }
    PyEval_RestoreThread(own);
}

/* The body is complete, and close() comes: the client need not wait for it.
 * What is left goes with what follows, or with the next tick if close() is
 * slow. */
static int
end_iterable(Context *x, StartResponse *sr)
{
    int failed = 0;
    if (gate_enter(sr->gate, &sr->context) != GATE_ENTERED) {
        return -1;
    }
    if (!x->conn->gone) {
        failed = finish_body(x, sr);
        if (!failed && x->thread->out.size) {
            if (pieces_add(x->thread, x->conn, x->thread->out.data,
                           x->thread->out.size)) {
                x->thread->out.size = 0;
            } else {
                transmit(x, NULL, 0, Py_None);
            }
        }
        if (!failed && sr->answer.framing == FRAMING_CLOSE &&
            x->conn->ending == ENDING_CLOSE) {
            end_our_side(x);
        }
    }
    gate_leave(sr->gate);
    return failed;
}

/* close() once, whatever happened; its own exception counts only if there is
 * no other. */
static int
close_result(PyObject *result)
{
    PyObject *type, *value, *traceback, *close, *done = NULL;
    int failed = 0;

    PyErr_Fetch(&type, &value, &traceback);
    close = PyObject_GetAttrString(result, "close");
    if (close == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        } else {
            failed = -1;
        }
    } else {
        done = PyObject_CallNoArgs(close);
        failed = done ? 0 : -1;
        Py_XDECREF(done);
        Py_DECREF(close);
    }
    if (type == NULL) {
        return failed;
    }
    if (failed) {
        PyErr_WriteUnraisable(result); /* the first exception is the cause */
    }
    PyErr_Restore(type, value, traceback);
    return 0;
}

int
response_send(Context *x, StartResponse *sr, PyObject *result)
{
    int failed, sent = 0;

    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        return send_list(x, sr, result); /* they have no close() */
    }
    if (Py_TYPE(result) == x->app->state->file_wrapper_type && !head_sent(sr)) {
        if (gate_enter(sr->gate, &sr->context) != GATE_ENTERED) {
            return -1;
        }
        sent = send_file(x, sr, result);
        gate_leave(sr->gate);
    }
    failed = sent < 0 ? -1 : sent > 0 ? 0 : send_iterable(x, sr, result);
    if (!failed) {
        failed = end_iterable(x, sr);
    }
    /* An answer that is complete is not taken back for a close() that failed.
     */
    const int closed = close_result(result);
    context_stay(x);
    if (closed < 0) {
        return failed < 0 ? -1 : 1;
    }
    return failed;
}

void
response_fail(Context *x, StartResponse *sr)
{
    /* A body that could not be read is the client's fault, not ours. */
    const int status = x->request->refusal ? x->request->refusal
                       : x->interruption   ? 504
                                           : 500;

    x->thread->record.reason = x->request->refusal
                                   ? "the body could not be read"
                                   : "the application failed";
    x->thread->out.size = 0;
    if (sr && head_sent(sr)) {
        /* Cut short, without a last chunk: the client must see that. */
        x->conn->ending =
            sr->answer.framing == FRAMING_CLOSE ? ENDING_RESET : ENDING_CLOSE;
        return;
    }
    const Http1Asker who = record_asker(x->thread, x->conn, x->request);
    char text[64];
    const int size =
        snprintf(text, sizeof text, "%d %s", status, status_phrase(status));
    x->thread->record.body_size = who.is_head ? 0 : size + 1;
    if (x->request->refusal) {
        word_add(&x->thread->row->refused[scoreboard_refused(status)], 1);
        notes_refused(x->thread->worker, status, "the body cannot be read");
    }
    x->conn->status = (uint16_t)status;
    x->conn->ending = http1_answer_own(&x->thread->out, &who, status, "", text)
                          ? ENDING_KEEP
                          : ENDING_CLOSE;
}
