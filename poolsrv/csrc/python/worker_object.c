/* Binding: _core.Worker, a worker's threads and its application.
 *
 * A worker reaches the application by the handler of wsgi/call.c.
 * Long, because it is all that Python may tell and ask a worker. */
#include "python/core.h"

#include <sys/random.h>
#include <unistd.h>

#include "python/interpreters.h"
#include "python/networks.h"
#include "python/options.h"
#include "python/wsgi/wsgi.h"
#include "worker/drain.h"
#include "worker/files.h"
#include "worker/notes.h"
#include "worker/overdue.h"
#include "worker/watch.h"
#include "worker/watchdog.h"

typedef struct {
    PyObject_HEAD Worker *worker;
    PyObject *board; /* keeps the mapping alive */
    Interpreters interpreters;
    Common common; /* what they share */
    Handler calls; /* of requests for applications */
    Handler files; /* of those for folders */
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
    Context *contexts[INTERPRETERS_MOST] = {NULL};
    unsigned index;

    if (!PyArg_ParseTuple(args, "I:serve", &index) || check_open(self) < 0) {
        return NULL;
    }
    if (index >= self->thread_count ||
        self->interpreters.app->contexts[index]) {
        PyErr_Format(PyExc_ValueError, "thread %u: there is none, or it serves",
                     index);
        return NULL;
    }
    Py_INCREF(self);
    self->serving++;
    const bool sits =
        interpreters_sit(&self->interpreters, index, contexts) == 0;
    if (sits) {
        threads_serve(self->worker, index, contexts);
        interpreters_stand(&self->interpreters, contexts);
    }
    self->serving--;
    Py_DECREF(self);
    return sits ? Py_NewRef(Py_None) : NULL;
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
            "(iiN)", (int)note.level, (int)note.about,
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

    if (check_open(self) < 0) {
        return NULL;
    }
    if (worker_left(self->worker)) {
        context_end_process(self->interpreters.app);
    }
    PyThreadState *state = PyEval_SaveThread();
    result = watch_wait(self->worker);
    const int error = errno;
    PyEval_RestoreThread(state);
    const bool due = watchdog_is_due(self->worker);
    watchdog_answer(self->worker);
    if (result == WATCH_BROKEN) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    interpreters_visit(&self->interpreters, due);
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
    if (!PyArg_ParseTuple(args, "II:interrupt", &index, &sequence) ||
        check_open(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(
        index < self->thread_count &&
        interpreters_interrupt(&self->interpreters, index, sequence));
}

static PyObject *
worker_object_stack(WorkerObject *self, PyObject *value)
{
    const unsigned long index = PyLong_AsUnsignedLong(value);
    if ((index == (unsigned long)-1 && PyErr_Occurred()) ||
        check_open(self) < 0) {
        return NULL;
    }
    if (index >= self->thread_count) {
        PyErr_SetString(PyExc_IndexError, "no such thread");
        return NULL;
    }
    return interpreters_stack(&self->interpreters, (uint32_t)index);
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
    if (self->worker) {
        interpreters_visit(&self->interpreters, false);
        worker_free(self->worker);
        self->worker = NULL;
    }
    interpreters_clear(&self->interpreters);
}

static PyObject *
worker_object_close(WorkerObject *self, PyObject *Py_UNUSED(none))
{
    if (self->serving) {
        PyErr_SetString(PyExc_RuntimeError, "a thread still serves");
        return NULL;
    }
    free_worker(self);
    folder_table_clear(&self->common.folders);
    folder_table_clear(&self->common.sendfile);
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
read_maintenance(PyObject *tuple, Common *common, WorkerOptions *options)
{
    PyObject *networks;
    if (PyTuple_GET_SIZE(tuple) == 0) {
        return 0;
    }
    if (!PyArg_ParseTuple(tuple, "yyO!:maintenance", &options->maintenance,
                          &options->maintenance_type, &PyTuple_Type,
                          &networks) ||
        networks_read(networks, &common->bypass) < 0) {
        return -1;
    }
    common->maintenance = Py_NewRef(tuple);
    options->bypass = common->bypass;
    return 0;
}

/* What is mounted, and what the server answers by itself. */
static int
read_common(Common *common, const App *app, const WorkerLimits *limits,
            PyObject *trusted, PyObject *mounts, unsigned group,
            PyObject *folders, PyObject *sendfile, PyObject *pages)
{
    const MountReader reader = {
        .applications = PyTuple_GET_SIZE(app->callables),
        .folders = PyTuple_GET_SIZE(folders),
        .group = group,
    };
    common->believed = forwarded_fields((ForwardedFamily)limits->forwarded,
                                        limits->forwarded_fields);
    if (networks_read(trusted, &common->trusted) < 0 ||
        folder_table_read(folders, &common->folders) < 0 ||
        mount_table_read(mounts, &reader, &common->mounts) < 0 ||
        folder_table_read(sendfile, &common->sendfile) < 0 ||
        page_table_read(pages, &common->pages) < 0) {
        return -1;
    }
    if (PyTuple_GET_SIZE(app->script_names) != PyTuple_GET_SIZE(mounts)) {
        PyErr_SetString(PyExc_ValueError,
                        "the applications have been told of other mounts");
        return -1;
    }
    return 0;
}

static void
clear_common(Common *common)
{
    PyMem_Free(common->homes);
    networks_clear(&common->trusted);
    networks_clear(&common->bypass);
    page_table_clear(&common->pages);
    Py_CLEAR(common->maintenance);
    mount_table_clear(&common->mounts);
    folder_table_clear(&common->folders);
    folder_table_clear(&common->sendfile);
}

static PyObject *
worker_object_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "board",    "slot",        "channel",      "bell",
        "lifeline", "signals",     "mounts",       "options",
        "trusted",  "access_log",  "applications", "stacks_signal",
        "stacks",   "folders",     "sendfile",     "guest",
        "pages",    "maintenance", "interpreters", "homes",
        "keeper",   "places",      "group",        NULL};
    CoreState *state = core_state_of(type);
    WorkerOptions options = {.parallel = WORKER_PARALLEL};
    PyObject *board, *applications, *mounts, *given, *trusted, *folders,
        *sendfile, *pages, *maintenance, *further, *homes;
    int access_log_fd, guest, keeper = 0;
    unsigned group;

    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(
            args, keywords, "OI$iiiiO!OO!iOiiO!O!pO!O!O!O!iiI:Worker", names,
            &board, &options.slot, &options.channel, &options.bell,
            &options.lifeline, &options.signals, &PyTuple_Type, &mounts, &given,
            &PyTuple_Type, &trusted, &access_log_fd, &applications,
            &options.stacks_signal, &options.stacks, &PyTuple_Type, &folders,
            &PyTuple_Type, &sendfile, &guest, &PyTuple_Type, &pages,
            &PyTuple_Type, &maintenance, &PyTuple_Type, &further, &PyTuple_Type,
            &homes, &keeper, &options.places, &group)) {
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
    if (group > CHANNEL_GROUPS) {
        PyErr_SetString(PyExc_ValueError, "no such group");
        return NULL;
    }
    WorkerObject *self = (WorkerObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    options.thread_count = options.board->thread_count;
    options.guest = guest;
    options.keeper = keeper;
    self->calls = call_handler(&self->common);
    options.handler = &self->calls;
    options.access_log = log_file_of(access_log_fd);
    self->thread_count = options.thread_count;
    self->board = Py_NewRef(board);
    if (interpreters_read(&self->interpreters, state, applications, further,
                          homes, &self->common, self->thread_count) < 0) {
        goto failed;
    }
    options.interpreters = self->interpreters.count;
    if (getrandom(&options.id_prefix, sizeof options.id_prefix, 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    if (core_read_options(given, worker_rows,
                          sizeof worker_rows / sizeof worker_rows[0],
                          &options.limits) < 0 ||
        read_common(&self->common, self->interpreters.app, &options.limits,
                    trusted, mounts, group, folders, sendfile, pages) < 0 ||
        read_maintenance(maintenance, &self->common, &options) < 0) {
        goto failed;
    }
    options.trusted = self->common.trusted;
    options.pages = self->common.pages.pages;
    options.mounts = self->common.mounts.table;
    options.group = (uint16_t)group;
    self->files = (Handler){.serve = files_serve,
                            .argument = &self->common.folders.files};
    options.files = &self->files;
    self->worker = worker_new(&options);
    if (self->worker == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    interpreters_begin(&self->interpreters, self->worker);
    files_tell(&self->common.folders.files, self->worker);
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
    Py_VISIT(self->interpreters.app);
    return 0;
}

/* A thread that serves holds a reference: nobody serves any more. */
static void
worker_object_dealloc(WorkerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    free_worker(self);
    clear_common(&self->common);
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
     "serve(index): be request thread `index` until the worker is done."},
    {"watch", (PyCFunction)worker_object_watch, METH_NOARGS,
     "The main thread's wait: (drained, notes, overdue).\n\n"
     "Returns at a signal, when there are notes to log (level, number"
     " of the message, text), when a "
     "thread is overdue (thread, sequence of its request, lost), or, with "
     "drained true, when nothing is left and the threads are ending. "
     "Raises OSError when the worker cannot go on."},
    {"interrupt", (PyCFunction)worker_object_interrupt, METH_VARARGS,
     "interrupt(thread, sequence): raise the applications' `timeout` in the "
     "thread, if it is in that request's application. Was it?"},
    {"stack", (PyCFunction)worker_object_stack, METH_O,
     "stack(thread): where it is, as text; it needs a GIL, for it does not "
     "wait "
     "until the thread stands still."},
    {"drain", (PyCFunction)worker_object_drain, METH_VARARGS,
     "drain(step=DRAIN_ALL): hand idle connections back, finish what runs, "
     "take nothing new. A later step of the same: DRAIN_REQUESTS does not wait "
     "for connections without a request, DRAIN_INTERRUPTS takes those that run "
     "for overdue, DRAIN_NOTHING leaves them behind. For whoever calls "
     "watch()."},
    {"close", (PyCFunction)worker_object_close, METH_NOARGS,
     "Close all it holds, once no thread is inside serve() or watch()."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot worker_object_slots[] = {
    {Py_tp_doc, "Worker(board, slot, *, channel, bell, lifeline, signals, "
                "mounts, options, trusted, access_log, applications, "
                "stacks_signal, stacks, folders, sendfile, guest, pages, "
                "maintenance, interpreters, homes, keeper, places, group)\n\n"
                "A worker: reads requests, calls the application on threads, "
                "writes answers. `options` maps the names in OPTIONS to "
                "values; `folders` are those of mounts, `sendfile` "
                "are the folders of files that X-Sendfile "
                "may name; `interpreters` serve beside this one, and `homes` "
                "names for each application the only one that has it, from 1, "
                "or 0. Descriptors stay the caller's. A `guest` is in a "
                "process that has other work, and leaves its limit of open "
                "files alone. `keeper` and `places` are what keep() has "
                "returned; 0: there is no keeper. Requests for mounts of "
                "another `group` go back unread."},
    {Py_tp_new, worker_object_new},
    {Py_tp_traverse, worker_object_traverse},
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
