/* Binding: the call of the application, for each request.
 *
 * The handler that a worker knows (handler.h): it takes the interpreter, makes
 * what the application is given, calls it, sends what it returns, ends what
 * is left of the request, and measures it for the scheduler. */
#include "python/wsgi/wsgi.h"

#include <sys/resource.h>
#include <time.h>

#include "common/clock.h"
#include "common/status.h"
#include "worker/body_streamed.h"
#include "worker/handler.h"
#include "worker/notes.h"
#include "worker/garbage.h"
#include "worker/gather.h"
#include "worker/output.h"
#include "worker/overdue.h"
#include "worker/schedule.h"
#include "worker/upgrade.h"

/* The largest buffer for answers that a thread keeps, in bytes. */
#define OUT_KEPT 262144

typedef struct {
    uint64_t cpu;
    long switches;
} Usage;

/* The thread's clock, because getrusage knows of a running thread's time only
 * up to the last tick of the kernel, 4 ms back at worst: most calls took none.
 */
static Usage
usage(void)
{
    struct rusage u;
    struct timespec t;
    getrusage(RUSAGE_THREAD, &u);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (Usage){
        .cpu = (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec,
        .switches = u.ru_nvcsw,
    };
}

/* Tell the log about the exception that is set, and clear it. */
static void
report(Context *x)
{
    const Current *current = &x->thread->row->current;
    PyObject *type, *value, *traceback, *done;

    /* What the client does is no error of the application. */
    if (x->conn->gone && PyErr_ExceptionMatches(PyExc_ConnectionError)) {
        notes_add(x->thread->worker, NOTE_CLIENT_GONE,
                  "request %s: its client is gone", x->thread->record.id);
        PyErr_Clear();
        return;
    }
    if (x->request->refusal) {
        notes_add(x->thread->worker, NOTE_BODY_UNREAD,
                  "request %s: its body could not be read, %d %s",
                  x->thread->record.id, x->request->refusal,
                  status_phrase(x->request->refusal));
        PyErr_Clear();
        return;
    }
    if (x->interruption && PyErr_ExceptionMatches(x->interruption)) {
        PyErr_Clear(); /* it was told of when it was raised */
        return;
    }
    /* Some libraries tell servers by it that they have taken the connection. */
    if (conn_is_upgraded(x->conn) &&
        PyErr_ExceptionMatches(PyExc_ConnectionError)) {
        PyErr_Clear();
        return;
    }
    word_add(x->thread->row->failed, 1);
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value) {
        PyException_SetTraceback(value, traceback);
    }
    done = PyObject_CallFunction(x->app->on_error, "Osss",
                                 value ? value : Py_None, x->thread->record.id,
                                 current->method, current->path);
    if (done == NULL) {
        PyErr_WriteUnraisable(x->app->on_error);
    }
    Py_XDECREF(done);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* Wait until nobody is inside, now that nobody can come in. */
static void
wait_until_empty(Context *x, Gate *gate)
{
    /* A thread that comes in holds the interpreter until it has said so. */
    if (!WORKER_PARALLEL && atomic_load(&gate->inside) == 0) {
        return;
    }
    if (pthread_mutex_trylock(&gate->lock) != 0) {
        PyThreadState *own = PyEval_SaveThread();
        body_streamed_abandon(x->conn, x->request);
        pthread_mutex_lock(&gate->lock);
        PyEval_RestoreThread(own);
    }
    pthread_mutex_unlock(&gate->lock);
}

/* Shut out the threads of the application that still use the request, and wait
 * for those inside. One that waits for the client's body would wait for long:
 * nobody will ask for the rest of it, so it sees the end. */
static void
end_request(Context *x, StartResponse *sr)
{
    if (x->input) {
        input_shut(x->input);
        wait_until_empty(x, x->reading);
        input_clear(x->input);
    }
    if (x->takeover) {
        takeover_end(x->takeover);
        x->takeover = NULL;
    }
    if (sr) {
        sr->context = NULL;
        wait_until_empty(x, x->writing);
    }
}

/* A request's contextvars are its own: those that the last one set are not
 * seen. One that set none leaves its context to the next. */
static PyObject *
enter_variables(Context *x)
{
    if (x->variables &&
        (Py_REFCNT(x->variables) > 1 || PyMapping_Size(x->variables) != 0)) {
        Py_CLEAR(x->variables);
    }
    if (x->variables == NULL) {
        x->variables = PyContext_CopyCurrent();
    }
    return x->variables && PyContext_Enter(x->variables) == 0 ? x->variables
                                                              : NULL;
}

/* What was raised in the thread and has not come out of the application must
 * not come out of the next request. */
static void
end_interruption(Context *x)
{
    overdue_end(x->thread);
    if (x->interruption) {
        PyThreadState_SetAsyncExc(x->ident, NULL);
    }
}

/* The application's number. */
static uint32_t
application_of(const Request *r)
{
    const Mount *mount = r->route.mount;
    return mount ? mount->application : 0;
}

static void
call(Context *x)
{
    PyObject *arguments[3] = {NULL, NULL, NULL};
    StartResponse *sr = NULL;
    PyObject *result = NULL;
    PyObject *variables = enter_variables(x);
    int outcome = -1;

    x->input = variables ? input_new(x) : NULL;
    arguments[1] = x->input ? environ_new(x) : NULL;
    sr = arguments[1] ? start_response_new(x) : NULL;
    arguments[2] = (PyObject *)sr;
    deadline_begin(&x->thread->deadline);
    if (sr) {
        result = PyObject_Vectorcall(
            PyTuple_GET_ITEM(x->app->callables, application_of(x->request)),
            arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        context_stay(x);
    }
    if (result) {
        outcome = response_send(x, sr, result);
    }
    end_interruption(x);
    if (outcome != 0) {
        report(x);
    }
    end_request(x, sr);
    x->thread->record.body_size = sr ? sr->answer.sent : 0;
    if (outcome < 0) {
        response_fail(x, sr);
    }
    Py_CLEAR(x->interruption);
    Py_XDECREF(result);
    Py_CLEAR(x->input);
    Py_XDECREF(arguments[1]);
    Py_XDECREF(sr);
    if (x->line_open) {
        x->line_open = false;
        PyObject *flushed = PyObject_CallMethod(x->errors, "flush", NULL);
        if (flushed == NULL) {
            PyErr_WriteUnraisable(x->errors);
        }
        Py_XDECREF(flushed);
    }
    if (variables && PyContext_Exit(variables) < 0) {
        PyErr_WriteUnraisable(variables);
    }
}

/* Where the application is, or if it is in each, where the thread is at home.
 */
static uint32_t
interpreter_for(const Common *common, const Thread *t, const Request *r)
{
    const uint8_t home = common->homes[application_of(r)];
    return home ? home - 1u : t->home;
}

static void
serve_application(void *argument, Thread *t, Conn *c, Request *r)
{
    const uint32_t number = interpreter_for(argument, t, r);
    Context *x = ((Context **)t->context)[number];
    t->meter.lock = WORKER_PARALLEL ? 0 : number;
    atomic_store_explicit(&t->interpreter, number, memory_order_release);
    const bool measured = schedule_runs(worker_schedule(t->worker), &t->meter);
    const uint64_t start = t->now;
    Usage before = {0, 0}, after = {0, 0};
    uint64_t wall;
    void *garbage;

    if (measured) {
        before = usage();
    }
    x->conn = c;
    x->request = r;
    PyEval_RestoreThread(x->tstate);
    while ((garbage = garbage_pop(t->worker, number)) != NULL) {
        Py_DECREF((PyObject *)garbage);
    }
    call(x);
    x->tstate = PyEval_SaveThread();

    t->now = clock_now();
    wall = t->now - start;
    if (measured) {
        after = usage();
    }
    if (conn_is_upgraded(c)) {
        upgrade_end(t);
    } else {
        schedule_ran(worker_schedule(t->worker), &t->meter, wall, measured,
                     after.cpu - before.cpu, after.switches - before.switches);
        word_add(t->row->application_time, wall);
    }
    if (!gather_puts_off(t, c, r) && t->out.size) {
        output_send(t, c, t->out.data, t->out.size, NULL, 0, NULL, NULL,
                    output_last(c));
    }
    t->out.size = 0;
    if (t->out.capacity > OUT_KEPT) {
        buffer_clear(&t->out); /* one large answer must not stay for ever */
    }
}

Handler
call_handler(Common *common)
{
    return (Handler){.serve = serve_application, .argument = common};
}
