/* Binding: a worker's interpreters: see interpreters.h. */
#include "python/interpreters.h"

#include <string.h>

#include "worker/garbage.h"
#include "worker/overdue.h"

/* ------------------------------------------------------------------------
 * Which there are */

static int
read_further(Interpreters *all, CoreState *state, PyObject *tuple,
             const Common *common, uint32_t thread_count)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (count >= INTERPRETERS_MOST) {
        PyErr_SetString(PyExc_ValueError, "too many interpreters");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        Interpreter *there = interpreter_of(state, item);
        if (there == NULL) {
            return -1;
        }
        PyThreadState *own = interpreter_enter(there);
        const bool done = app_attach(there->app, common, thread_count) == 0;
        PyErr_Clear(); /* an exception of that interpreter is not ours */
        interpreter_leave(there, own);
        if (!done) {
            PyErr_SetString(PyExc_ValueError,
                            "the interpreter is another worker's");
            return -1;
        }
        all->further[all->count++] = (Interpreter *)Py_NewRef(item);
    }
    return 0;
}

static int
read_homes(Interpreters *all, PyObject *homes, Common *common)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(homes);
    if (count != PyTuple_GET_SIZE(all->app->callables)) {
        PyErr_SetString(PyExc_ValueError, "a home for each application");
        return -1;
    }
    common->homes = PyMem_Calloc((size_t)count + 1, sizeof *common->homes);
    if (common->homes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const long home = PyLong_AsLong(PyTuple_GET_ITEM(homes, i));
        if (home == -1 && PyErr_Occurred()) {
            return -1;
        }
        if (home < 0 || home > (long)all->count) {
            PyErr_SetString(PyExc_ValueError, "there is no such interpreter");
            return -1;
        }
        common->homes[i] = (uint8_t)home;
        if (home) {
            all->named |= UINT64_C(1) << (home - 1);
        }
    }
    return 0;
}

int
interpreters_read(Interpreters *all, CoreState *state, PyObject *applications,
                  PyObject *further, PyObject *homes, Common *common,
                  uint32_t thread_count)
{
    App *app = app_of(state, applications);
    *all = (Interpreters){.count = 1};
    if (app == NULL || app_attach(app, common, thread_count) < 0) {
        return -1;
    }
    all->app = (App *)Py_NewRef(applications);
    return read_further(all, state, further, common, thread_count) < 0
               ? -1
               : read_homes(all, homes, common);
}

void
interpreters_begin(Interpreters *all, Worker *worker)
{
    all->worker = worker;
    for (uint32_t i = 1; i < all->count; i++) {
        all->further[i]->worker = worker;
    }
}

void
interpreters_clear(Interpreters *all)
{
    for (uint32_t i = 1; i < all->count; i++) {
        Interpreter *there = all->further[i];
        there->worker = NULL;
        PyThreadState *own = interpreter_enter(there);
        app_detach(there->app);
        interpreter_leave(there, own);
        Py_DECREF(there);
    }
    all->count = 1;
    if (all->app) {
        app_detach(all->app);
    }
    Py_CLEAR(all->app);
}

/* ------------------------------------------------------------------------
 * Threads that serve */

/* In the interpreter of `app`. */
static Context *
sit_here(const Interpreters *all, App *app, uint32_t index)
{
    Context *x = context_new(app, index);
    if (x) {
        x->thread = threads_at(all->worker, index);
        x->ident = PyThread_get_thread_ident();
        app->contexts[index] = x;
    }
    return x;
}

static void
stand_up(Context *x)
{
    x->app->contexts[x->thread->index] = NULL;
    context_free(x);
}

/* Without an interpreter: the thread gets a state in this one, and a context.
 * NULL: it has none, and the reason has been printed. */
static Context *
sit_there(const Interpreters *all, const Interpreter *there, uint32_t index)
{
    PyThreadState *made =
        PyThreadState_New(PyThreadState_GetInterpreter(there->tstate));
    if (made == NULL) {
        return NULL;
    }
    PyEval_RestoreThread(made);
    Context *x = sit_here(all, there->app, index);
    if (x) {
        x->tstate = PyEval_SaveThread();
        return x;
    }
    PyErr_Print();
    PyThreadState_Clear(made);
    PyThreadState_DeleteCurrent();
    return NULL;
}

static void
leave_all(Context **contexts)
{
    for (uint32_t i = 1; i < INTERPRETERS_MOST; i++) {
        if (contexts[i]) {
            PyThreadState *made = contexts[i]->tstate;
            PyEval_RestoreThread(made);
            stand_up(contexts[i]);
            PyThreadState_Clear(made);
            PyThreadState_DeleteCurrent();
            contexts[i] = NULL;
        }
    }
}

int
interpreters_sit(Interpreters *all, uint32_t index, Context **contexts)
{
    const uint32_t home = threads_at(all->worker, index)->home;
    contexts[0] = sit_here(all, all->app, index);
    if (contexts[0] == NULL) {
        return -1;
    }
    contexts[0]->tstate = PyEval_SaveThread();
    for (uint32_t i = 1; i < all->count; i++) {
        if (i != home && !(all->named >> i & 1)) {
            continue;
        }
        contexts[i] = sit_there(all, all->further[i], index);
        if (contexts[i] == NULL) {
            interpreters_stand(all, contexts);
            PyErr_Format(PyExc_RuntimeError,
                         "thread %u cannot begin in interpreter %u", index,
                         i + 1);
            return -1;
        }
    }
    return 0;
}

void
interpreters_stand(Interpreters *Py_UNUSED(all), Context **contexts)
{
    leave_all(contexts);
    PyEval_RestoreThread(contexts[0]->tstate);
    stand_up(contexts[0]);
}

/* ------------------------------------------------------------------------
 * The main thread */

/* Release what is the interpreter's in which we are. */
static void
collect(const Interpreters *all, uint32_t number)
{
    void *garbage;
    while ((garbage = garbage_pop(all->worker, number)) != NULL) {
        Py_DECREF((PyObject *)garbage);
    }
}

void
interpreters_visit(Interpreters *all, bool everywhere)
{
    collect(all, 0);
    for (uint32_t i = 1; i < all->count; i++) {
        if (everywhere || garbage_is_there(all->worker, i)) {
            PyThreadState *own = interpreter_enter(all->further[i]);
            collect(all, i);
            interpreter_leave(all->further[i], own);
        }
    }
}

/* In the interpreter of `app`. The thread waits for what we decide without
 * letting go of its lock: so that is ours before we ask. */
static bool
raise_here(const App *app, uint32_t number, uint32_t index, uint32_t sequence)
{
    Context *x = app->contexts[index];
    if (x == NULL || !overdue_raise(x->thread, sequence)) {
        return false;
    }
    const bool done = atomic_load(&x->thread->interpreter) == number &&
                      PyThreadState_SetAsyncExc(x->ident, app->timeout) == 1;
    if (done) {
        Py_XSETREF(x->interruption, Py_NewRef(app->timeout));
    }
    overdue_raised(x->thread, done);
    return done;
}

static uint32_t
number_of(const Interpreters *all, uint32_t index)
{
    return atomic_load(&threads_at(all->worker, index)->interpreter);
}

bool
interpreters_interrupt(Interpreters *all, uint32_t index, uint32_t sequence)
{
    const uint32_t number = number_of(all, index);
    if (number == 0) {
        return raise_here(all->app, 0, index, sequence);
    }
    Interpreter *there = all->further[number];
    PyThreadState *own = interpreter_enter(there);
    const bool done = raise_here(there->app, number, index, sequence);
    interpreter_leave(there, own);
    return done;
}

/* In the interpreter of `app`: the stack as bytes, or NULL and no exception. */
static PyObject *
stack_here(const App *app, uint32_t index)
{
    const Context *x = app->contexts[index];
    PyFrameObject *frame = x ? PyThreadState_GetFrame(x->tstate) : NULL;
    PyObject *module = frame ? PyImport_ImportModule("traceback") : NULL;
    PyObject *lines =
        module ? PyObject_CallMethod(module, "format_stack", "O", frame) : NULL;
    PyObject *empty = lines ? PyUnicode_FromString("") : NULL;
    PyObject *text = empty ? PyUnicode_Join(empty, lines) : NULL;
    PyObject *bytes =
        text ? PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace")
             : NULL;
    Py_XDECREF(text);
    Py_XDECREF(empty);
    Py_XDECREF(lines);
    Py_XDECREF(module);
    Py_XDECREF(frame);
    PyErr_Clear();
    return bytes;
}

PyObject *
interpreters_stack(Interpreters *all, uint32_t index)
{
    const uint32_t number = number_of(all, index);
    Interpreter *there = number ? all->further[number] : NULL;
    PyThreadState *own = there ? interpreter_enter(there) : NULL;
    PyObject *bytes = stack_here(there ? there->app : all->app, index);
    const Py_ssize_t size = bytes ? PyBytes_GET_SIZE(bytes) : 0;
    char *copy = PyMem_RawMalloc((size_t)size + 1);
    if (copy && bytes) {
        memcpy(copy, PyBytes_AS_STRING(bytes), (size_t)size);
    }
    Py_XDECREF(bytes);
    if (there) {
        interpreter_leave(there, own);
    }
    PyObject *text =
        copy ? PyUnicode_DecodeUTF8(copy, size, "replace") : PyErr_NoMemory();
    PyMem_RawFree(copy);
    return text;
}
