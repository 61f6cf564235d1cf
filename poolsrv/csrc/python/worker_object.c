/* Binding: _core.Reactor, a worker's threads and its application.
 *
 * Long, because it is both ways between them: what Python gives to a worker
 * when it is made, and what the worker calls for each request. */
#include "python/core.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/status.h"
#include "python/options.h"
#include "python/wsgi/wsgi.h"
#include "worker/body_streamed.h"
#include "worker/drain.h"
#include "worker/handler.h"
#include "worker/notes.h"
#include "worker/output.h"
#include "worker/overdue.h"
#include "worker/watch.h"
#include "worker/watchdog.h"

#include <sys/resource.h>

/* What a thread keeps of its buffer for answers. */
#define OUT_KEPT 262144

/* Do threads run Python at the same time? A build may say so to test how they
 * are then scheduled. */
#ifndef WORKER_PARALLEL
#ifdef Py_GIL_DISABLED
#define WORKER_PARALLEL 1
#else
#define WORKER_PARALLEL 0
#endif
#endif

typedef struct {
    PyObject_HEAD Worker *worker;
    PyObject *board; /* keeps the mapping alive */
    App app;
    Context **contexts; /* [thread_count], of threads that serve */
    uint32_t thread_count;
    uint32_t serving; /* threads inside serve() */
} ReactorObject;

/* ------------------------------------------------------------------------
 * One request */

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

    /* The client's doing is no error of the application's. */
    if (x->conn->gone && PyErr_ExceptionMatches(PyExc_ConnectionError)) {
        notes_add(x->thread->worker, NOTE_DEBUG,
                  "request %s: its client is gone", x->thread->record.id);
        PyErr_Clear();
        return;
    }
    if (x->request->refusal) {
        notes_add(x->thread->worker, NOTE_DEBUG,
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
    /* Whoever comes in holds the interpreter until that is said. */
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

/* The process that has arrived here was forked by the application: it answers
 * nobody, and ends as if it were its own program that had come to its end. */
static void
end_process(const App *app)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value) {
        PyException_SetTraceback(value, traceback);
    }
    PyObject_CallOneArg(app->on_left, value ? value : Py_None);
    _exit(1); /* it does not return: this is for one that raises */
}

void
context_stay(const Context *x)
{
    if (worker_left(x->thread->worker)) {
        end_process(x->app);
    }
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
        result = PyObject_Vectorcall(x->app->callable, arguments + 1,
                                     2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
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

static void
serve_application(void *Py_UNUSED(argument), Thread *t, Conn *c, Request *r)
{
    Context *x = t->context;
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
    while ((garbage = output_garbage_pop(t->worker)) != NULL) {
        Py_DECREF((PyObject *)garbage);
    }
    call(x);
    x->tstate = PyEval_SaveThread();

    t->now = clock_now();
    wall = t->now - start;
    if (measured) {
        after = usage();
    }
    schedule_ran(worker_schedule(t->worker), &t->meter, wall, measured,
                 after.cpu - before.cpu, after.switches - before.switches);
    word_add(t->row->application_time, wall);
    if (t->out.size) {
        output_send(t, c, t->out.data, t->out.size, NULL, 0, NULL, NULL,
                    output_last(c));
        t->out.size = 0;
    }
    if (t->out.capacity > OUT_KEPT) {
        buffer_clear(&t->out); /* one large answer must not stay for ever */
    }
}

static const Handler python_handler = {.serve = serve_application};

/* ------------------------------------------------------------------------
 * A thread's context */

static void
context_free(Context *x)
{
    Py_ssize_t i;
    for (i = 0; x->templates && i < x->template_count; i++) {
        Py_XDECREF(x->templates[i]);
    }
    PyMem_Free(x->templates);
    Py_XDECREF(x->start_response);
    Py_XDECREF(x->variables);
    Py_XDECREF(x->errors);
    gate_release(x->reading);
    gate_release(x->writing);
    set_timeout_end(x->set_timeout);
    environ_context_clear(x);
    PyMem_Free(x);
}

static Context *
context_new(ReactorObject *self, PyObject *errors)
{
    Context *x = PyMem_Calloc(1, sizeof *x);
    Py_ssize_t i;
    if (x == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    x->app = &self->app;
    x->errors = Py_NewRef(errors);
    x->reading = gate_new();
    x->writing = gate_new();
    if (x->reading == NULL || x->writing == NULL) {
        goto failed;
    }
    x->template_count = PyTuple_GET_SIZE(self->app.templates);
    x->templates =
        PyMem_Calloc((size_t)x->template_count + 1, sizeof *x->templates);
    if (x->templates == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    x->set_timeout = set_timeout_new(x);
    if (x->set_timeout == NULL) {
        goto failed;
    }
    for (i = 0; i < x->template_count; i++) {
        x->templates[i] = PyDict_Copy(PyTuple_GET_ITEM(self->app.templates, i));
        if (x->templates[i] == NULL ||
            environ_template_init(&self->app.keys, x->templates[i]) < 0 ||
            PyDict_SetItemString(x->templates[i], "wsgi.errors", errors) < 0 ||
            PyDict_SetItemString(x->templates[i], "poolsrv.set_timeout",
                                 x->set_timeout) < 0) {
            goto failed;
        }
    }
    return x;
failed:
    context_free(x);
    return NULL;
}

static PyObject *
reactor_serve(ReactorObject *self, PyObject *args)
{
    unsigned index;
    PyObject *errors;
    Context *x;

    if (!PyArg_ParseTuple(args, "IO:serve", &index, &errors)) {
        return NULL;
    }
    if (index >= self->thread_count || self->contexts[index]) {
        PyErr_Format(PyExc_ValueError, "thread %u: there is none, or it serves",
                     index);
        return NULL;
    }
    x = context_new(self, errors);
    if (x == NULL) {
        return NULL;
    }
    self->contexts[index] = x;
    self->serving++;
    x->thread = threads_at(self->worker, index);
    x->ident = PyThread_get_thread_ident();
    Py_INCREF(self);
    x->tstate = PyEval_SaveThread();
    threads_serve(self->worker, index, x);
    PyEval_RestoreThread(x->tstate);
    self->serving--;
    self->contexts[index] = NULL;
    context_free(x);
    Py_DECREF(self);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------
 * The main thread's part */

static PyObject *
notes_list(Worker *worker)
{
    PyObject *list = PyList_New(0);
    Note note;
    while (list && notes_pop(worker, &note)) {
        PyObject *item = Py_BuildValue(
            "(iN)", (int)note.level,
            PyUnicode_DecodeUTF8(note.text, (Py_ssize_t)strlen(note.text),
                                 "backslashreplace"));
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* (thread, sequence, lost) of each that is overdue. */
static PyObject *
overdue_list(Worker *worker)
{
    PyObject *list = PyList_New(0);
    Overdue o;
    while (list && overdue_pop(worker, &o)) {
        PyObject *item = Py_BuildValue("(IIN)", o.thread, o.sequence,
                                       PyBool_FromLong(o.lost));
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *
reactor_watch(ReactorObject *self, PyObject *Py_UNUSED(none))
{
    WatchResult result;
    PyObject *notes, *overdue;
    void *garbage;

    if (worker_left(self->worker)) {
        end_process(&self->app);
    }
    PyThreadState *state = PyEval_SaveThread();
    result = watch_wait(self->worker);
    const int error = errno;
    PyEval_RestoreThread(state);
    watchdog_answer(self->worker);
    if (result == WATCH_BROKEN) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    while ((garbage = output_garbage_pop(self->worker)) != NULL) {
        Py_DECREF((PyObject *)garbage);
    }
    notes = notes_list(self->worker);
    if (notes == NULL) {
        return NULL;
    }
    overdue = overdue_list(self->worker);
    if (overdue == NULL) {
        Py_DECREF(notes);
        return NULL;
    }
    return Py_BuildValue("(NNN)", PyBool_FromLong(result == WATCH_DRAINED),
                         notes, overdue);
}

static PyObject *
reactor_interrupt(ReactorObject *self, PyObject *args)
{
    unsigned index, sequence;
    PyObject *type;
    Context *x;
    bool done;

    if (!PyArg_ParseTuple(args, "IIO:interrupt", &index, &sequence, &type)) {
        return NULL;
    }
    x = index < self->thread_count ? self->contexts[index] : NULL;
    if (x == NULL || !overdue_raise(x->thread, sequence)) {
        Py_RETURN_FALSE;
    }
    done = PyThreadState_SetAsyncExc(x->ident, type) == 1;
    if (done) {
        Py_XSETREF(x->interruption, Py_NewRef(type));
    }
    overdue_raised(x->thread, done);
    return PyBool_FromLong(done);
}

static PyObject *
reactor_drain(ReactorObject *self, PyObject *Py_UNUSED(none))
{
    if (!worker_left(self->worker)) {
        drain_start(self->worker);
    }
    Py_RETURN_NONE;
}

static PyObject *
reactor_request_id(ReactorObject *self, PyObject *value)
{
    const unsigned long index = PyLong_AsUnsignedLong(value);
    if (index == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index >= self->thread_count || self->contexts[index] == NULL) {
        return PyUnicode_FromString("");
    }
    return PyUnicode_FromString(self->contexts[index]->thread->record.id);
}

static PyObject *
reactor_line_open(ReactorObject *self, PyObject *value)
{
    const unsigned long index = PyLong_AsUnsignedLong(value);
    if (index == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index < self->thread_count && self->contexts[index]) {
        self->contexts[index]->line_open = true;
    }
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------------
 * Making it */

typedef struct {
    APPLICATION_OPTIONS(OPTION_MEMBER)
} ApplicationOptions;

#define WORKER_ROW(kind, name, values) \
    OPTION_ROW(WorkerLimits, kind, name, values)
#define APPLICATION_ROW(kind, name, values) \
    OPTION_ROW(ApplicationOptions, kind, name, values)

static const Option worker_rows[] = {WORKER_OPTIONS(WORKER_ROW)};
static const Option application_rows[] = {APPLICATION_OPTIONS(APPLICATION_ROW)};

#undef WORKER_ROW
#undef APPLICATION_ROW

static int
read_options(PyObject *given, WorkerLimits *limits, App *app)
{
    ApplicationOptions options;
    if (core_read_options(given, worker_rows,
                          sizeof worker_rows / sizeof worker_rows[0],
                          limits) < 0 ||
        core_read_options(given, application_rows,
                          sizeof application_rows / sizeof application_rows[0],
                          &options) < 0) {
        return -1;
    }
    app->forwarded = (ForwardedFamily)options.forwarded;
    app->forwarded_parts = options.forwarded_fields;
    app->believed = forwarded_fields(app->forwarded, app->forwarded_parts);
    return 0;
}

/* A tuple of (family, bits, bytes). */
static int
parse_networks(PyObject *tuple, Networks *networks)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    Network *items = PyMem_Calloc((size_t)count + 1, sizeof *items);
    Py_ssize_t i;

    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *networks = (Networks){.items = items};
    for (i = 0; i < count; i++) {
        const char *bytes;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "bby#:trusted",
                              &items[i].family, &items[i].bits, &bytes,
                              &size)) {
            return -1;
        }
        if ((size_t)size != address_size(items[i].family) ||
            items[i].bits > size * 8) {
            PyErr_SetString(PyExc_ValueError, "not a network");
            return -1;
        }
        memcpy(items[i].bytes, bytes, (size_t)size);
        networks->count++;
    }
    return 0;
}

static PyObject *
reactor_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "board",      "slot",        "channel",     "bell",
        "lifeline",   "signals",     "application", "templates",
        "on_error",   "on_left",     "options",     "trusted",
        "access_log", "dump_signal", "dump",        NULL};
    CoreState *state = core_state_of(type);
    WorkerOptions options = {.parallel = WORKER_PARALLEL};
    PyObject *board, *application, *templates, *on_error, *on_left, *given,
        *trusted;
    int access_log_fd;
    struct stat log_file;
    ReactorObject *self;

    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(
            args, keywords, "OI$iiiiOO!OOOO!iii:Reactor", names, &board,
            &options.slot, &options.channel, &options.bell, &options.lifeline,
            &options.signals, &application, &PyTuple_Type, &templates,
            &on_error, &on_left, &given, &PyTuple_Type, &trusted,
            &access_log_fd, &options.dump_signal, &options.dump)) {
        return NULL;
    }
    options.board = core_scoreboard(state, board);
    if (options.board == NULL) {
        return NULL;
    }
    if (options.slot >= options.board->slot_count) {
        PyErr_SetString(PyExc_IndexError, "no such slot");
        return NULL;
    }
    self = (ReactorObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    options.thread_count = options.board->thread_count;
    options.handler = &python_handler;
    options.access_log = access_log_fd;
    options.access_socket =
        fstat(access_log_fd, &log_file) == 0 && S_ISSOCK(log_file.st_mode);
    self->thread_count = options.thread_count;
    self->board = Py_NewRef(board);
    self->app.state = state;
    self->app.callable = Py_NewRef(application);
    self->app.templates = Py_NewRef(templates);
    self->app.on_error = Py_NewRef(on_error);
    self->app.on_left = Py_NewRef(on_left);
    if (getrandom(&options.id_prefix, sizeof options.id_prefix, 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    self->contexts = PyMem_Calloc(self->thread_count, sizeof(Context *));
    if (self->contexts == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    if (environ_keys_init(&self->app.keys) < 0 ||
        file_types_init(&self->app.files) < 0 ||
        read_options(given, &options.limits, &self->app) < 0 ||
        parse_networks(trusted, &self->app.trusted) < 0) {
        goto failed;
    }
    options.trusted = self->app.trusted;
    self->worker = worker_new(&options);
    if (self->worker == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static int
reactor_traverse(ReactorObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->board);
    Py_VISIT(self->app.callable);
    Py_VISIT(self->app.templates);
    Py_VISIT(self->app.on_error);
    Py_VISIT(self->app.on_left);
    return 0;
}

static int
reactor_clear(ReactorObject *self)
{
    Py_CLEAR(self->app.callable);
    Py_CLEAR(self->app.templates);
    Py_CLEAR(self->app.on_error);
    Py_CLEAR(self->app.on_left);
    return 0;
}

/* A thread that serves holds a reference: nobody serves any more. */
static void
reactor_dealloc(ReactorObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    reactor_clear(self);
    if (self->worker) {
        worker_free(self->worker);
    }
    environ_keys_clear(&self->app.keys);
    file_types_clear(&self->app.files);
    PyMem_Free((void *)self->app.trusted.items);
    PyMem_Free(self->contexts);
    Py_XDECREF(self->board);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef reactor_methods[] = {
    {"serve", (PyCFunction)reactor_serve, METH_VARARGS,
     "serve(index, errors): be request thread `index` until the worker is "
     "done.\n\n`errors` becomes wsgi.errors of its requests."},
    {"watch", (PyCFunction)reactor_watch, METH_NOARGS,
     "The main thread's wait: (drained, notes, overdue).\n\n"
     "Returns at a signal, when there are notes to log (level, text), when a "
     "thread is overdue (thread, sequence of its request, lost), or, with "
     "drained true, when nothing is left and the threads are ending. "
     "Raises OSError when the worker cannot go on."},
    {"interrupt", (PyCFunction)reactor_interrupt, METH_VARARGS,
     "interrupt(thread, sequence, type): raise in the thread, if it is in that "
     "request's application. Was it?"},
    {"drain", (PyCFunction)reactor_drain, METH_NOARGS,
     "Hand idle connections back, finish what runs, take nothing new."},
    {"request_id", (PyCFunction)reactor_request_id, METH_O,
     "The id of the request that thread `index` serves or served last."},
    {"line_open", (PyCFunction)reactor_line_open, METH_O,
     "What thread `index` wrote to its wsgi.errors lacks the end of a line: "
     "call their flush() when its request ends."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reactor_slots[] = {
    {Py_tp_doc, "Reactor(board, slot, *, channel, bell, lifeline, signals, "
                "application, templates, on_error, on_left, options, trusted, "
                "access_log, dump_signal, dump)\n\n"
                "A worker: reads requests, calls the application on threads, "
                "writes answers. `options` maps the names in OPTIONS to "
                "values. Descriptors stay the caller's."},
    {Py_tp_new, reactor_new},
    {Py_tp_traverse, reactor_traverse},
    {Py_tp_clear, reactor_clear},
    {Py_tp_dealloc, reactor_dealloc},
    {Py_tp_methods, reactor_methods},
    {0, NULL},
};

static PyType_Spec reactor_spec = {
    .name = "poolsrv._core.Reactor",
    .basicsize = sizeof(ReactorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reactor_slots,
};

int
core_add_request(PyObject *module, CoreState *state)
{
    if (core_add_input(module, state) < 0) {
        return -1;
    }
    if (core_add_start_response(module, state) < 0) {
        return -1;
    }
    if (core_add_set_timeout(module, state) < 0) {
        return -1;
    }
    return core_add_file_wrapper(module, state);
}

int
core_add_reactor(PyObject *module, CoreState *state)
{
    return core_add_type(module, &reactor_spec, &state->reactor_type);
}
