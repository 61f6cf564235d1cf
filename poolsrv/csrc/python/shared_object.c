/* Binding: _core.SharedTable, for poolsrv.shared. */
#include <errno.h>

#include "python/core.h"

#include "common/shared.h"

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
shared_dealloc(SharedObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
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

static PyObject *
shared_lock(SharedObject *self, PyObject *args)
{
    PyObject *index;
    double seconds;
    int outcome;
    if (!PyArg_ParseTuple(args, "Od:acquire", &index, &seconds)) {
        return NULL;
    }
    SharedPlace *place = place_at(self, index, SHARED_LOCK);
    if (place == NULL) {
        return NULL;
    }
    const uint64_t limit = seconds > 0 ? (uint64_t)(seconds * 1e9) : 0;
    /* clang-format off */
    Py_BEGIN_ALLOW_THREADS
    outcome = shared_acquire(place, limit);
    Py_END_ALLOW_THREADS
    /* clang-format on */
    if (outcome < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(outcome);
}

static PyObject *
shared_unlock(SharedObject *self, PyObject *index)
{
    SharedPlace *place = place_at(self, index, SHARED_LOCK);
    if (place == NULL) {
        return NULL;
    }
    if (shared_release(place) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
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
    {"acquire", (PyCFunction)shared_lock, METH_VARARGS,
     "acquire(index, seconds): wait so long for the lock: 0 it was not to be "
     "had, 1 it is ours, 2 it is ours and its last owner has ended with it."},
    {"release", (PyCFunction)shared_unlock, METH_O,
     "release(index): give the lock back. OSError (EPERM) if it is not this "
     "thread's."},
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

int
core_add_shared(PyObject *module, CoreState *state)
{
    return core_add_type(module, &shared_spec, &state->shared_type);
}
