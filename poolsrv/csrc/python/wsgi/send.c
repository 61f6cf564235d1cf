/* Binding: an answer on its way: see send.h.
 *
 * A small answer is put together in the thread's buffer, so that one system
 * call sends it after the interpreter is let go; a large body is sent from
 * where it lies, and its owner kept until the client has it. */
#include "python/wsgi/send.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "worker/gather.h"
#include "worker/named_file.h"
#include "worker/notes.h"
#include "worker/output.h"
#include "worker/pieces.h"

/* Bodies up to this size are copied behind their head: for less than two
 * pages a memcpy is cheaper than a second iovec and keeping the owner. */
#define COPY_BODY 16384

Http1Asker
send_asker(Context *x)
{
    if (!x->request->streaming) {
        return record_asker(x->thread, x->conn, x->request, true);
    }
    const bool settled = gate_try(x->reading);
    const Http1Asker who =
        record_asker(x->thread, x->conn, x->request, settled);
    if (settled) {
        gate_leave(x->reading);
    }
    return who;
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
    const Http1Asker who = send_asker(x);
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

void
send_buffer(Context *x, const char *data, size_t size, PyObject *owner)
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
send_soon(Context *x, bool first, bool complete, PyObject *owner)
{
    Buffer *out = &x->thread->out;
    if ((!first || complete) && context_hold(x)) {
        const bool waits =
            complete ? pieces_add(x->thread, x->conn, out->data, out->size)
                     : pieces_put_off(x->thread, x->conn, out->data, out->size);
        context_let_go(x);
        if (waits) {
            out->size = 0;
            return;
        }
    }
    send_buffer(x, NULL, 0, owner);
}

/* How much of a piece of `size` bytes may go out. What is beyond the announced
 * length is cut, and said once. */
static size_t
allowed(Context *x, StartResponse *sr, size_t size)
{
    const size_t rest = http1_answer_allows(&sr->answer, size);
    if (rest < size && sr->answer.framing == FRAMING_LENGTH) {
        notes_add(x->thread->worker, NOTE_LENGTH,
                  "request %s: the application sent more than its "
                  "Content-Length of %lld bytes; the rest is cut",
                  x->thread->record.id, (long long)sr->answer.content_length);
    }
    return rest;
}

int
send_piece(Context *x, StartResponse *sr, PyObject *bytes, int64_t length,
           bool last)
{
    const bool first = !send_has_begun(sr);

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
            send_buffer(x, data, body, bytes);
        }
        http1_answer_close(&sr->answer, &x->thread->out);
    }
    /* The last is sent by response_send's caller, with what follows. */
    if (!last && x->thread->out.size) {
        const bool complete = sr->answer.framing == FRAMING_LENGTH &&
                              sr->answer.sent == sr->answer.content_length &&
                              gather_is_likely(x->thread);
        send_soon(x, first && copied, complete, bytes);
    }
    return 0;
}

void
send_wait(Context *x)
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

int
send_end(Context *x, StartResponse *sr)
{
    if (!send_has_begun(sr) && finish_head(x, sr, 0) < 0) {
        return -1;
    }
    if (answer_result(http1_answer_end(&sr->answer, &x->thread->out), NULL) <
        0) {
        return -1;
    }
    if (http1_answer_is_short(&sr->answer)) {
        notes_add(x->thread->worker, NOTE_LENGTH,
                  "request %s: the application sent %lld bytes of its "
                  "Content-Length of %lld; the connection is closed",
                  x->thread->record.id, (long long)sr->answer.sent,
                  (long long)sr->answer.content_length);
        x->conn->ending = ENDING_CLOSE;
    }
    return 0;
}

int
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
        output_send_file(x->thread, x->conn, own, false, span.at, size);
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

void
send_named_file(Context *x, StartResponse *sr)
{
    PyThreadState *own = PyEval_SaveThread();
    if (context_hold(x)) {
        named_file_send(x->thread, x->conn, x->request, &sr->answer,
                        &x->app->common->sendfile.files);
        context_let_go(x);
    }
    PyEval_RestoreThread(own);
    x->thread->out.size = 0;
    sr->answer.framing = FRAMING_NONE; /* what comes now is no part of it */
    sr->answer.sent = x->thread->record.body_size;
}
