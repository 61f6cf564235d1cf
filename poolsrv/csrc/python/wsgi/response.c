/* Binding: what the application returns, as an answer: a list, an iterable, a
 * file; and what it says by write(). */
#include "python/wsgi/send.h"

#include <errno.h>
#include <stdio.h>

#include "common/status.h"
#include "worker/notes.h"
#include "worker/output.h"
#include "worker/pieces.h"
#include "worker/stream.h"

/* What write() raises when the client is gone, as socket.send() would: the
 * application has no other way to learn that nobody reads. */
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
            send_wait(x);
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
        failed = send_end(x, sr);
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
            send_wait(x);
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
        if (!send_names_file(sr)) {
            failed = send_item(x, sr, item);
        }
        Py_DECREF(item);
        if (send_names_file(sr)) {
            break; /* the file comes instead of all of it */
        }
        if (x->request->head.is_head && send_has_begun(sr)) {
            break; /* nobody wants the rest */
        }
    }
    context_stay(x);
    Py_DECREF(iterator);
    return failed || PyErr_Occurred() ? -1 : 0;
}

/* The body ends with the connection. What a slow reader has not taken goes
 * first, and our side then ends with the request. */
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
    if (send_names_file(sr)) {
        send_named_file(x, sr);
    } else if (!x->conn->gone) {
        failed = send_end(x, sr);
        if (!failed && x->thread->out.size) {
            if (pieces_add(x->thread, x->conn, x->thread->out.data,
                           x->thread->out.size)) {
                x->thread->out.size = 0;
            } else {
                send_buffer(x, NULL, 0, Py_None);
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

    if ((PyList_CheckExact(result) || PyTuple_CheckExact(result)) &&
        !send_names_file(sr)) {
        return send_list(x, sr, result); /* they have no close() */
    }
    if (Py_TYPE(result) == x->app->state->file_wrapper_type &&
        !send_has_begun(sr) && !send_names_file(sr)) {
        if (gate_enter(sr->gate, &sr->context) != GATE_ENTERED) {
            return -1;
        }
        sent = send_file(x, sr, result);
        gate_leave(sr->gate);
    }
    failed = sent < 0                          ? -1
             : sent > 0 || send_names_file(sr) ? 0
                                               : send_iterable(x, sr, result);
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
    if (sr && send_has_begun(sr)) {
        /* Cut short, without a last chunk: the client must see that. */
        x->conn->ending =
            sr->answer.framing == FRAMING_CLOSE ? ENDING_RESET : ENDING_CLOSE;
        return;
    }
    const Http1Asker who = send_asker(x);
    char text[64];
    snprintf(text, sizeof text, "%d %s", status, status_phrase(status));
    if (x->request->refusal) {
        word_add(&x->thread->row->refused[scoreboard_refused(status)], 1);
        notes_refused(x->thread->worker, status, "the body cannot be read");
    }
    x->conn->status = (uint16_t)status;
    const Http1Own own =
        http1_answer_own(&x->thread->out, &who, status, "", text);
    x->thread->record.body_size = own.body_size;
    x->conn->ending = own.keep ? ENDING_KEEP : ENDING_CLOSE;
}
