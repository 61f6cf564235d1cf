/* Binding: _core.SharedTable and _core.SharedLock, for poolsrv.shared. */
#include <errno.h>

#include "python/core.h"

#include "common/clock.h"
#include "common/shared.h"

/* A thread that waits looks up so often: so a request's time limit can end
 * it. */
#define LOOK_UP (200 * CLOCK_MILLISECOND)

/* The mapping lives as long as its process: a lock may be held. */
typedef struct {
    PyObject_HEAD SharedTable *table;
} SharedObject;

static PyObject *
shared_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", NULL};
    int fd;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i:SharedTable", names,
                                     &fd)) {
        return NULL;
    }
    SharedTable *table = shared_attach(fd);
    if (table == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    SharedObject *self = (SharedObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->table = table;
    }
    return (PyObject *)self;
}

static void
shared_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
shared_take(SharedObject *self, PyObject *args)
{
    int kind;
    const char *name;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "iy#:find", &kind, &name, &size)) {
        return NULL;
    }
    SharedPlace *place =
        shared_find(self->table, (SharedKind)kind, name, (size_t)size);
    if (place == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromSsize_t(place - self->table->places);
}

/* The place with that index, which must be of this kind; NULL and exception. */
static SharedPlace *
place_at(SharedObject *self, PyObject *value, SharedKind kind)
{
    const unsigned long index = PyLong_AsUnsignedLong(value);
    if (index == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index >= SHARED_PLACES ||
        atomic_load(&self->table->places[index].kind) != (uint32_t)kind) {
        PyErr_Format(PyExc_IndexError, "no such place: %lu", index);
        return NULL;
    }
    return &self->table->places[index];
}

static PyObject *
shared_add(SharedObject *self, PyObject *args)
{
    PyObject *index;
    long long more;
    if (!PyArg_ParseTuple(args, "OL:add", &index, &more)) {
        return NULL;
    }
    SharedPlace *place = place_at(self, index, SHARED_NUMBER);
    if (place == NULL) {
        return NULL;
    }
    /* It wraps around, as the words of a machine do. */
    const uint64_t before =
        (uint64_t)atomic_fetch_add(&place->number, (int64_t)more);
    return PyLong_FromLongLong((long long)(before + (uint64_t)more));
}

static PyObject *
shared_exchange(SharedObject *self, PyObject *args)
{
    PyObject *index;
    long long value;
    if (!PyArg_ParseTuple(args, "OL:exchange", &index, &value)) {
        return NULL;
    }
    SharedPlace *place = place_at(self, index, SHARED_NUMBER);
    if (place == NULL) {
        return NULL;
    }
    return PyLong_FromLongLong(atomic_exchange(&place->number, (int64_t)value));
}

static PyMethodDef shared_methods[] = {
    {"find", (PyCFunction)shared_take, METH_VARARGS,
     "find(kind, name): the index of the place with that name, taken if there "
     "is none.\n\nRaises OSError: EEXIST if it is of another kind, ENOSPC if "
     "all are taken, EINVAL for the name."},
    {"add", (PyCFunction)shared_add, METH_VARARGS,
     "add(index, more): the number as it is then."},
    {"exchange", (PyCFunction)shared_exchange, METH_VARARGS,
     "exchange(index, value): the number as it was before."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shared_slots[] = {
    {Py_tp_doc, "SharedTable(fd): numbers and locks by name, mapped.\n\n"
                "Raises OSError (EINVAL) if fd is no such table."},
    {Py_tp_new, shared_new},
    {Py_tp_dealloc, shared_dealloc},
    {Py_tp_methods, shared_methods},
    {0, NULL},
};

static PyType_Spec shared_spec = {
    .name = "poolsrv._core.SharedTable",
    .basicsize = sizeof(SharedObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shared_slots,
};

/* ------------------------------------------------------------------------
 * A lock. Its `with` is done here: Python may raise RequestTimeout between any
 * two of its own instructions, so also behind a call that has just got the
 * lock, and then nobody would give it back. From C into the block it raises
 * nothing (BEFORE_WITH), nor between the block and our end of it. */

typedef struct {
    PyObject_HEAD SharedPlace *place;
} LockObject;

static PyObject *
lock_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    const CoreState *state = core_state_of(type);
    PyObject *table, *index;
    if (state == NULL ||
        !PyArg_ParseTuple(args, "O!O:SharedLock", state->shared_type, &table,
                          &index)) {
        return NULL;
    }
    SharedPlace *place = place_at((SharedObject *)table, index, SHARED_LOCK);
    if (place == NULL) {
        return NULL;
    }
    LockObject *self = (LockObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->place = place;
    }
    return (PyObject *)self;
}

static PyObject *
lock_error(const LockObject *self, const char *text)
{
    PyObject *name = PyUnicode_DecodeUTF8(
        self->place->name, (Py_ssize_t)self->place->size, "replace");
    if (name != NULL) {
        PyErr_Format(PyExc_RuntimeError, text, name);
        Py_DECREF(name);
    }
    return NULL;
}

/* A SharedOutcome; -1 and errno. The first try lets nobody else run. */
static int
lock_try(LockObject *self, uint64_t limit)
{
    int outcome = shared_acquire(self->place, 0);
    if (outcome == SHARED_TIMED_OUT && limit) {
        /* clang-format off */
        Py_BEGIN_ALLOW_THREADS
        outcome = shared_acquire(self->place, limit);
        Py_END_ALLOW_THREADS
        /* clang-format on */
    }
    return outcome;
}

/* Wait until `end`: a SharedOutcome; -1 and exception. */
static int
lock_wait(LockObject *self, uint64_t end)
{
    for (;;) {
        const uint64_t now = clock_now();
        const uint64_t left = end > now ? end - now : 0;
        const int outcome = lock_try(self, left < LOOK_UP ? left : LOOK_UP);
        if (outcome < 0 && errno == EDEADLK) {
            lock_error(self, "this thread has the lock %R already");
            return -1;
        }
        if (outcome < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (outcome != SHARED_TIMED_OUT || left <= LOOK_UP) {
            return outcome;
        }
        PyObject *done =
            PyObject_CallMethod((PyObject *)self, "_look_up", NULL);
        if (done == NULL) {
            return -1;
        }
        Py_DECREF(done);
    }
}

/* What the caller is told. NULL and exception: it does not have the lock. */
static PyObject *
lock_tell(LockObject *self, int outcome)
{
    PyObject *told;
    if (outcome < 0) {
        return NULL;
    }
    told = PyObject_CallMethod((PyObject *)self, "_told", "i", outcome);
    if (told == NULL && outcome != SHARED_TIMED_OUT) {
        shared_undo(self->place, (SharedOutcome)outcome);
    }
    return told;
}

static PyObject *
lock_acquire(LockObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    uint64_t end = UINT64_MAX;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O:acquire", names,
                                     &timeout)) {
        return NULL;
    }
    if (timeout != Py_None) {
        const double seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        if (seconds < 1e9) { /* it is in no machine's life */
            end = clock_now() + (seconds > 0 ? (uint64_t)(seconds * 1e9) : 0);
        }
    }
    return lock_tell(self, lock_wait(self, end));
}

static PyObject *
lock_enter(LockObject *self, PyObject *Py_UNUSED(none))
{
    return lock_tell(self, lock_wait(self, UINT64_MAX));
}

static PyObject *
lock_release(LockObject *self, PyObject *Py_UNUSED(none))
{
    if (shared_release(self->place) == 0) {
        Py_RETURN_NONE;
    }
    if (errno == EPERM) {
        return lock_error(self, "this thread does not have the lock %R");
    }
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *
lock_exit(LockObject *self, PyObject *Py_UNUSED(args))
{
    return lock_release(self, NULL);
}

static PyMethodDef lock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))lock_acquire,
     METH_VARARGS | METH_KEYWORDS,
     "Wait for it, so many seconds at most; 0 does not wait. RuntimeError if "
     "we have it."},
    {"release", (PyCFunction)lock_release, METH_NOARGS,
     "RuntimeError if it is not this thread's."},
    {"__enter__", (PyCFunction)lock_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)lock_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc,
     "SharedLock(table, index): the lock of a place.\n\nWhoever derives from "
     "it has a method `_look_up()`, which is called while it waits, and "
     "`_told(outcome)`, which says what the caller is told."},
    {Py_tp_new, lock_new},
    {Py_tp_dealloc, shared_dealloc},
    {Py_tp_methods, lock_methods},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "poolsrv._core.SharedLock",
    .basicsize = sizeof(LockObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lock_slots,
};

int
core_add_shared(PyObject *module, CoreState *state)
{
    if (core_add_type(module, &shared_spec, &state->shared_type) < 0) {
        return -1;
    }
    return core_add_type(module, &lock_spec, &state->shared_lock_type);
}
