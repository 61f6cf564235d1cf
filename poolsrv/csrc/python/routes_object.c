/* Binding: _core.Routes, by which dispatchers tell whose a request is. All that
 * share listeners have the same one: of a table that each had for itself a
 * server of many groups would have as many entries as the square of them. */
#include "python/core.h"

#include "common/channel.h"

typedef struct {
    PyObject_HEAD Mounts *table;
} RoutesObject;

/* The texts stay those of the tuple. */
static int
read_route(PyObject *item, Mount *mount)
{
    const char *host, *path;
    Py_ssize_t host_size, path_size;
    int group;
    if (!PyArg_ParseTuple(item, "y#y#i:route", &host, &host_size, &path,
                          &path_size, &group)) {
        return -1;
    }
    if (group < -1 || group > CHANNEL_GROUPS || host_size > UINT16_MAX ||
        path_size > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "not a route");
        return -1;
    }
    mount->host = (MountText){.text = host, .size = (uint32_t)host_size};
    mount->path = (MountText){.text = path, .size = (uint32_t)path_size};
    mount->group = group < 0 ? MOUNT_OF_ALL : (uint16_t)group;
    return 0;
}

static Mounts *
read_routes(PyObject *tuple)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    Mount *mounts = PyMem_Calloc((size_t)count + 1, sizeof *mounts);
    Mounts *table = NULL;
    if (mounts == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        mounts[i].number = (uint32_t)i;
        if (read_route(PyTuple_GET_ITEM(tuple, i), &mounts[i]) < 0) {
            goto done;
        }
    }
    table = mounts_new(mounts, (uint32_t)count);
    if (table == NULL) {
        PyErr_NoMemory();
    }
done:
    PyMem_Free(mounts);
    return table;
}

static PyObject *
routes_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"routes", NULL};
    PyObject *tuple;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!:Routes", names,
                                     &PyTuple_Type, &tuple)) {
        return NULL;
    }
    RoutesObject *self = (RoutesObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->table = read_routes(tuple);
    if (self->table == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
routes_dealloc(RoutesObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    mounts_free(self->table);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot routes_slots[] = {
    {Py_tp_doc,
     "Routes(routes)\n\n"
     "Whose a request is: a tuple of (host, path, number of the group), host "
     "and path bytes. The number is -1 where the group answers to which the "
     "request has come, whichever that is."},
    {Py_tp_new, routes_new},
    {Py_tp_dealloc, routes_dealloc},
    {0, NULL},
};

static PyType_Spec routes_spec = {
    .name = "poolsrv._core.Routes",
    .basicsize = sizeof(RoutesObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = routes_slots,
};

const Mounts *
core_routes_of(CoreState *state, PyObject *object)
{
    if (!PyObject_TypeCheck(object, state->routes_type)) {
        PyErr_SetString(PyExc_TypeError, "routes must be a _core.Routes");
        return NULL;
    }
    return ((RoutesObject *)object)->table;
}

int
core_add_routes(PyObject *module, CoreState *state)
{
    return core_add_type(module, &routes_spec, &state->routes_type);
}
