/* Binding: _core.Worker, a worker's threads and its application.
 *
 * A worker reaches the application by the handler of wsgi/call.c.
 * Long, because it is all that Python may tell and ask a worker. */
#include "python/core.h"

#include <sys/random.h>
#include <unistd.h>

#include "python/networks.h"
#include "python/options.h"
#include "python/wsgi/wsgi.h"
#include "worker/drain.h"
#include "worker/files.h"
#include "worker/notes.h"
#include "worker/output.h"
#include "worker/overdue.h"
#include "worker/watch.h"
#include "worker/watchdog.h"

typedef struct {
    PyObject_HEAD Worker *worker;
    PyObject *board; /* keeps the mapping alive */
    App app;
    Handler files;      /* of requests for folders */
    Context **contexts; /* [thread_count], of threads that serve */
    uint32_t thread_count;
    uint32_t serving; /* threads inside serve() */
} WorkerObject;

static int
check_open(const WorkerObject *self)
{
    if (self->worker) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "the worker is closed");
    return -1;
}

static PyObject *
worker_object_serve(WorkerObject *self, PyObject *args)
{
    unsigned index;
    PyObject *errors;
    Context *x;

    if (!PyArg_ParseTuple(args, "IO:serve", &index, &errors) ||
        check_open(self) < 0) {
        return NULL;
    }
    if (index >= self->thread_count || self->contexts[index]) {
        PyErr_Format(PyExc_ValueError, "thread %u: there is none, or it serves",
                     index);
        return NULL;
    }
    x = context_new(&self->app, errors);
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
worker_object_watch(WorkerObject *self, PyObject *Py_UNUSED(none))
{
    WatchResult result;
    PyObject *notes, *overdue;
    void *garbage;

    if (check_open(self) < 0) {
        return NULL;
    }
    if (worker_left(self->worker)) {
        context_end_process(&self->app);
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
worker_object_interrupt(WorkerObject *self, PyObject *args)
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
worker_object_drain(WorkerObject *self, PyObject *args)
{
    int step = DRAIN_ALL;
    if (!PyArg_ParseTuple(args, "|i:drain", &step) || check_open(self) < 0) {
        return NULL;
    }
    if (step < DRAIN_ALL || step > DRAIN_NOTHING) {
        PyErr_SetString(PyExc_ValueError, "no such step");
        return NULL;
    }
    if (!worker_left(self->worker)) {
        drain_start(self->worker, (DrainStep)step);
    }
    Py_RETURN_NONE;
}

static void
free_worker(WorkerObject *self)
{
    void *garbage;
    if (self->worker) {
        while ((garbage = output_garbage_pop(self->worker)) != NULL) {
            Py_DECREF((PyObject *)garbage);
        }
        worker_free(self->worker);
        self->worker = NULL;
    }
}

static PyObject *
worker_object_close(WorkerObject *self, PyObject *Py_UNUSED(none))
{
    if (self->serving) {
        PyErr_SetString(PyExc_RuntimeError, "a thread still serves");
        return NULL;
    }
    free_worker(self);
    folder_table_clear(&self->app.folders);
    folder_table_clear(&self->app.sendfile);
    Py_RETURN_NONE;
}

static PyObject *
worker_object_request_id(WorkerObject *self, PyObject *value)
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
worker_object_line_open(WorkerObject *self, PyObject *value)
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

#define WORKER_ROW(kind, name, values) \
    OPTION_ROW(WorkerLimits, kind, name, values)
static const Option worker_rows[] = {WORKER_OPTIONS(WORKER_ROW)};
#undef WORKER_ROW

/* () for none, or (file, type of its content, networks that it is not for). */
static int
read_maintenance(PyObject *tuple, App *app, WorkerOptions *options)
{
    PyObject *networks;
    if (PyTuple_GET_SIZE(tuple) == 0) {
        return 0;
    }
    if (!PyArg_ParseTuple(tuple, "yyO!:maintenance", &options->maintenance,
                          &options->maintenance_type, &PyTuple_Type,
                          &networks) ||
        networks_read(networks, &app->bypass) < 0) {
        return -1;
    }
    app->maintenance = Py_NewRef(tuple);
    options->bypass = app->bypass;
    return 0;
}

static PyObject *
worker_object_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "board",         "slot",         "channel", "bell",      "lifeline",
        "signals",       "applications", "mounts",  "templates", "on_error",
        "on_left",       "offer",        "options", "trusted",   "access_log",
        "stacks_signal", "stacks",       "folders", "sendfile",  "guest",
        "pages",         "maintenance",  NULL};
    CoreState *state = core_state_of(type);
    WorkerOptions options = {.parallel = WORKER_PARALLEL};
    PyObject *board, *applications, *mounts, *templates, *on_error, *on_left,
        *offer, *given, *trusted, *folders, *sendfile, *pages, *maintenance;
    int access_log_fd, guest;
    WorkerObject *self;

    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(
            args, keywords, "OI$iiiiO!O!O!OOOOO!iiiO!O!pO!O!:Worker", names,
            &board, &options.slot, &options.channel, &options.bell,
            &options.lifeline, &options.signals, &PyTuple_Type, &applications,
            &PyTuple_Type, &mounts, &PyTuple_Type, &templates, &on_error,
            &on_left, &offer, &given, &PyTuple_Type, &trusted, &access_log_fd,
            &options.stacks_signal, &options.stacks, &PyTuple_Type, &folders,
            &PyTuple_Type, &sendfile, &guest, &PyTuple_Type, &pages,
            &PyTuple_Type, &maintenance)) {
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
    self = (WorkerObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    options.thread_count = options.board->thread_count;
    options.guest = guest;
    options.handler = &call_handler;
    options.access_log = log_file_of(access_log_fd);
    self->thread_count = options.thread_count;
    self->board = Py_NewRef(board);
    self->app.state = state;
    self->app.callables = Py_NewRef(applications);
    self->app.templates = Py_NewRef(templates);
    self->app.on_error = Py_NewRef(on_error);
    self->app.on_left = Py_NewRef(on_left);
    self->app.offer = Py_NewRef(offer);
    if (getrandom(&options.id_prefix, sizeof options.id_prefix, 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    self->contexts = PyMem_Calloc(self->thread_count, sizeof(Context *));
    if (self->contexts == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    if (core_read_options(given, worker_rows,
                          sizeof worker_rows / sizeof worker_rows[0],
                          &options.limits) < 0 ||
        app_init(&self->app, &options.limits, trusted, folders, mounts) < 0 ||
        folder_table_read(sendfile, &self->app.sendfile) < 0) {
        goto failed;
    }
    options.trusted = self->app.trusted;
    if (page_table_read(pages, &self->app.pages) < 0 ||
        read_maintenance(maintenance, &self->app, &options) < 0) {
        goto failed;
    }
    options.pages = self->app.pages.pages;
    options.mounts = self->app.mounts.table;
    self->files =
        (Handler){.serve = files_serve, .argument = &self->app.folders.files};
    options.files = &self->files;
    self->worker = worker_new(&options);
    if (self->worker == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    files_tell(&self->app.folders.files, self->worker);
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static int
worker_object_traverse(WorkerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->board);
    return app_traverse(&self->app, visit, arg);
}

static int
worker_object_clear(WorkerObject *self)
{
    app_clear(&self->app);
    return 0;
}

/* A thread that serves holds a reference: nobody serves any more. */
static void
worker_object_dealloc(WorkerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    worker_object_clear(self);
    free_worker(self);
    app_free(&self->app);
    PyMem_Free(self->contexts);
    Py_XDECREF(self->board);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
worker_object_lost(WorkerObject *self, void *Py_UNUSED(closure))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(overdue_lost(self->worker));
}

static PyGetSetDef worker_object_getset[] = {
    {"lost", (getter)worker_object_lost, NULL,
     "How many threads do not come back from the application.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef worker_object_methods[] = {
    {"serve", (PyCFunction)worker_object_serve, METH_VARARGS,
     "serve(index, errors): be request thread `index` until the worker is "
     "done.\n\n`errors` becomes wsgi.errors of its requests."},
    {"watch", (PyCFunction)worker_object_watch, METH_NOARGS,
     "The main thread's wait: (drained, notes, overdue).\n\n"
     "Returns at a signal, when there are notes to log (level, text), when a "
     "thread is overdue (thread, sequence of its request, lost), or, with "
     "drained true, when nothing is left and the threads are ending. "
     "Raises OSError when the worker cannot go on."},
    {"interrupt", (PyCFunction)worker_object_interrupt, METH_VARARGS,
     "interrupt(thread, sequence, type): raise in the thread, if it is in that "
     "request's application. Was it?"},
    {"drain", (PyCFunction)worker_object_drain, METH_VARARGS,
     "drain(step=DRAIN_ALL): hand idle connections back, finish what runs, "
     "take nothing new. A later step of the same: DRAIN_REQUESTS does not wait "
     "for connections without a request, DRAIN_INTERRUPTS takes those that run "
     "for overdue, DRAIN_NOTHING leaves them behind. For whoever calls "
     "watch()."},
    {"close", (PyCFunction)worker_object_close, METH_NOARGS,
     "Close all it holds, once no thread is inside serve() or watch()."},
    {"request_id", (PyCFunction)worker_object_request_id, METH_O,
     "The id of the request that thread `index` serves or served last."},
    {"line_open", (PyCFunction)worker_object_line_open, METH_O,
     "What thread `index` wrote to its wsgi.errors lacks the end of a line: "
     "call their flush() when its request ends."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot worker_object_slots[] = {
    {Py_tp_doc, "Worker(board, slot, *, channel, bell, lifeline, signals, "
                "applications, mounts, templates, on_error, on_left, offer, "
                "options, trusted, "
                "access_log, stacks_signal, stacks, folders, sendfile, guest, "
                "pages, maintenance)\n\n"
                "A worker: reads requests, calls the application on threads, "
                "writes answers. `options` maps the names in OPTIONS to "
                "values; `folders` are those of mounts, `sendfile` "
                "are the folders of files that X-Sendfile "
                "may name. Descriptors stay the caller's. A `guest` is in a "
                "process that has other work, and leaves its limit of open "
                "files alone."},
    {Py_tp_new, worker_object_new},
    {Py_tp_traverse, worker_object_traverse},
    {Py_tp_clear, worker_object_clear},
    {Py_tp_dealloc, worker_object_dealloc},
    {Py_tp_methods, worker_object_methods},
    {Py_tp_getset, worker_object_getset},
    {0, NULL},
};

static PyType_Spec worker_object_spec = {
    .name = "poolsrv._core.Worker",
    .basicsize = sizeof(WorkerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = worker_object_slots,
};

int
core_add_worker(PyObject *module, CoreState *state)
{
    if (PyModule_AddIntMacro(module, DRAIN_ALL) < 0 ||
        PyModule_AddIntMacro(module, DRAIN_REQUESTS) < 0 ||
        PyModule_AddIntMacro(module, DRAIN_INTERRUPTS) < 0 ||
        PyModule_AddIntMacro(module, DRAIN_NOTHING) < 0) {
        return -1;
    }
    return core_add_type(module, &worker_object_spec, &state->worker_type);
}
