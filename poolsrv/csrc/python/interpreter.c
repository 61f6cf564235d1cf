/* Binding: _core.Interpreter, for applications that have one of their own.
 *
 * Each has its own lock, so what one computes keeps no other waiting. From
 * Python 3.13 on: in 3.12 half of the standard library's extensions refuse such
 * an interpreter, and others end the process.
 *
 * What goes from one to another is copied as bytes. All of it is called on the
 * thread that has made the interpreter: a thread has a state in each, and this
 * object keeps that one's.
 */
#include "python/interpreter.h"

#include <string.h>

#include "worker/watchdog.h"

PyThreadState *
interpreter_enter(const Interpreter *self)
{
    PyThreadState *own = PyEval_SaveThread();
    if (self->worker) {
        watchdog_ask(self->worker);
    }
    PyEval_RestoreThread(self->tstate);
    if (self->worker) {
        watchdog_answer(self->worker);
    }
    return own;
}

void
interpreter_leave(Interpreter *self, PyThreadState *own)
{
    self->tstate = PyEval_SaveThread();
    PyEval_RestoreThread(own);
}

Interpreter *
interpreter_of(CoreState *state, PyObject *object)
{
    if (Py_TYPE(object) != state->interpreter_type) {
        PyErr_SetString(PyExc_TypeError, "not a _core.Interpreter");
        return NULL;
    }
    Interpreter *self = (Interpreter *)object;
    if (self->tstate == NULL || self->app == NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "the interpreter has no applications");
        return NULL;
    }
    return self;
}

static PyObject *
interpreter_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, ":Interpreter", names)) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030D0000
    const PyInterpreterConfig config = {
        .use_main_obmalloc = 0,
        .allow_fork = 0,
        .allow_exec = 0,
        .allow_threads = 1,
        .allow_daemon_threads = 1, /* interpreter_end() looks for them */
        .check_multi_interp_extensions = 1,
        .gil = PyInterpreterConfig_OWN_GIL,
    };
    Interpreter *self = (Interpreter *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    PyThreadState *own = PyThreadState_Get(), *made = NULL;
    const PyStatus status = Py_NewInterpreterFromConfig(&made, &config);
    if (PyStatus_Exception(status) || made == NULL) {
        /* Whose turn it is now differs by where it has failed. */
        if (PyThreadState_GetUnchecked() != own) {
            PyEval_RestoreThread(own);
        }
        PyErr_Format(PyExc_RuntimeError, "no further interpreter: %s",
                     status.err_msg ? status.err_msg : "it does not begin");
        Py_DECREF(self);
        return NULL;
    }
    self->tstate = PyEval_SaveThread();
    PyEval_RestoreThread(own);
    return (PyObject *)self;
#else
    (void)type;
    PyErr_SetString(PyExc_NotImplementedError,
                    "an interpreter with a lock of its own needs Python 3.13");
    return NULL;
#endif
}

/* What a call there has come to, without an object of that interpreter. */
typedef struct {
    char *text; /* PyMem_RawMalloc; NULL: nothing, or no memory */
    Py_ssize_t size;
    bool failed;
} Outcome;

static void
keep(Outcome *outcome, const char *text, Py_ssize_t size)
{
    outcome->text = PyMem_RawMalloc((size_t)size + 1);
    if (outcome->text) {
        memcpy(outcome->text, text, (size_t)size);
        outcome->size = size;
    }
}

/* The exception that is set, in words; and clear it. */
static void
keep_exception(Outcome *outcome)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *words = value ? PyObject_Repr(value) : NULL;
    PyObject *encoded =
        words ? PyUnicode_AsEncodedString(words, "utf-8", "backslashreplace")
              : NULL;
    outcome->failed = true;
    if (encoded) {
        keep(outcome, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded));
    }
    Py_XDECREF(encoded);
    Py_XDECREF(words);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    PyErr_Clear();
}

/* Of the module of this file in the interpreter that we are in. */
static CoreState *
state_here(void)
{
    PyObject *module = PyImport_ImportModule("poolsrv._core");
    CoreState *state = module ? PyModule_GetState(module) : NULL;
    Py_XDECREF(module); /* sys.modules has it */
    return state;
}

static void
call_here(Interpreter *self, const char *module_name, const char *function,
          const char *data, Py_ssize_t size, Outcome *outcome)
{
    CoreState *state = state_here();
    PyObject *module = state ? PyImport_ImportModule(module_name) : NULL;
    PyObject *result =
        module ? PyObject_CallMethod(module, function, "y#", data, size) : NULL;
    Py_XDECREF(module);
    if (result == NULL) {
        keep_exception(outcome);
    } else if (PyBytes_Check(result)) {
        keep(outcome, PyBytes_AS_STRING(result), PyBytes_GET_SIZE(result));
    } else if (self->app == NULL) {
        self->app = app_of(state, result);
        if (self->app) {
            Py_INCREF(self->app);
        } else {
            keep_exception(outcome);
        }
    }
    Py_XDECREF(result);
}

static int
check_alive(const Interpreter *self)
{
    if (self->tstate) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "the interpreter has ended");
    return -1;
}

static PyObject *
interpreter_call(Interpreter *self, PyObject *args)
{
    const char *module, *function, *data;
    Py_ssize_t size;
    Outcome outcome = {.text = NULL};
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "ssy#:call", &module, &function, &data,
                          &size) ||
        check_alive(self) < 0) {
        return NULL;
    }
    PyThreadState *own = interpreter_enter(self);
    call_here(self, module, function, data, size, &outcome);
    interpreter_leave(self, own);
    if (outcome.failed) {
        PyErr_SetString(PyExc_RuntimeError,
                        outcome.text ? outcome.text : "no memory");
    } else {
        result = PyBytes_FromStringAndSize(outcome.text, outcome.size);
    }
    PyMem_RawFree(outcome.text);
    return result;
}

/* With a thread left there, CPython would end the process. */
static bool
is_last_thread(const Interpreter *self)
{
    PyInterpreterState *there = PyThreadState_GetInterpreter(self->tstate);
    return PyThreadState_Next(PyInterpreterState_ThreadHead(there)) == NULL;
}

static PyObject *
interpreter_end(Interpreter *self, PyObject *Py_UNUSED(none))
{
    if (self->tstate == NULL) {
        Py_RETURN_TRUE;
    }
    if (self->app && self->app->common) {
        PyErr_SetString(PyExc_RuntimeError, "a worker serves there");
        return NULL;
    }
    PyThreadState *own = interpreter_enter(self);
    if (!is_last_thread(self)) {
        interpreter_leave(self, own);
        Py_RETURN_FALSE;
    }
    Py_CLEAR(self->app);
    Py_EndInterpreter(self->tstate);
    self->tstate = NULL;
    PyEval_RestoreThread(own);
    Py_RETURN_TRUE;
}

/* Its state cannot be dropped: it stays until the process ends. */
static void
interpreter_dealloc(Interpreter *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The threads of another interpreter, whose objects are not ours, stay out.
 * That of this one's lock is ours, so no thread of it ends meanwhile; one that
 * begins is in front of those that we have not seen. */
static PyObject *
interpreter_frames(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    PyObject *found = PyDict_New();
    PyThreadState *each =
        PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; found && each; each = PyThreadState_Next(each)) {
        PyFrameObject *frame = PyThreadState_GetFrame(each);
        PyObject *ident =
            frame ? PyLong_FromUnsignedLong(each->thread_id) : NULL;
        if (frame && (ident == NULL ||
                      PyDict_SetItem(found, ident, (PyObject *)frame) < 0)) {
            Py_CLEAR(found);
        }
        Py_XDECREF(ident);
        Py_XDECREF(frame);
    }
    return found;
}

static PyMethodDef interpreter_methods[] = {
    {"call", (PyCFunction)interpreter_call, METH_VARARGS,
     "call(module, function, argument): call it there with these bytes; the "
     "bytes that it returns.\n\nIf it returns Applications, these are what "
     "is served there, and the result is empty. RuntimeError, with its repr, "
     "for an exception."},
    {"end", (PyCFunction)interpreter_end, METH_NOARGS,
     "End it, and run its atexit functions. False: threads are left there, and "
     "it goes on."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot interpreter_slots[] = {
    {Py_tp_doc,
     "Interpreter()\n\n"
     "A further interpreter of this process, with a lock of its own; all of it "
     "is called by the thread that made it. NotImplementedError before Python "
     "3.13."},
    {Py_tp_new, interpreter_new},
    {Py_tp_dealloc, interpreter_dealloc},
    {Py_tp_methods, interpreter_methods},
    {0, NULL},
};

static PyType_Spec interpreter_spec = {
    .name = "poolsrv._core.Interpreter",
    .basicsize = sizeof(Interpreter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = interpreter_slots,
};

static PyMethodDef interpreter_functions[] = {
    {"frames", interpreter_frames, METH_NOARGS,
     "frames(): the innermost frame of each thread of this interpreter, by its "
     "ident.\n\nsys._current_frames() touches the objects of all interpreters "
     "(CPython 3.13)."},
    {NULL, NULL, 0, NULL},
};

int
core_add_interpreter(PyObject *module, CoreState *state)
{
    return PyModule_AddFunctions(module, interpreter_functions) < 0
               ? -1
               : core_add_type(module, &interpreter_spec,
                               &state->interpreter_type);
}
