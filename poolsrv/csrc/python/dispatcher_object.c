/* Binding: _core.Dispatcher, the supervisor's loop.
 *
 * Long, because each of its methods is converted by a few lines. */
#include "python/core.h"

#include "common/clock.h"
#include "python/events.h"
#include "python/options.h"
#include "python/page_table.h"

#define EVENT_ROOM 32

typedef struct {
    PyObject_HEAD Dispatch *dispatch;
    PyObject *board;       /* keeps the mapping alive */
    PyObject *joined;      /* list of the others that it waits for, or NULL */
    bool is_joined;        /* another waits for it */
    DispatchEvent *events; /* [EVENT_ROOM], of who waits; else NULL */
    uint32_t slot_count;
    PageTable pages;
    PyObject *routes; /* NULL: all that comes is the group's own */
} DispatcherObject;

static uint64_t
nanoseconds(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

/* The descriptors of a sequence of ints; NULL and exception. */
static int *
descriptors(PyObject *sequence, Py_ssize_t *count)
{
    PyObject *fast = PySequence_Fast(sequence, "listeners must be a sequence");
    Py_ssize_t i;
    int *fds;
    if (fast == NULL) {
        return NULL;
    }
    *count = PySequence_Fast_GET_SIZE(fast);
    fds = PyMem_Calloc((size_t)*count + 1, sizeof *fds);
    if (fds == NULL) {
        PyErr_NoMemory();
    }
    for (i = 0; fds && i < *count; i++) {
        fds[i] = PyObject_AsFileDescriptor(PySequence_Fast_GET_ITEM(fast, i));
        if (fds[i] < 0) {
            PyMem_Free(fds);
            fds = NULL;
        }
    }
    Py_DECREF(fast);
    return fds;
}

#define ROW(kind, name, values) OPTION_ROW(DispatchLimits, kind, name, values)
static const Option option_rows[] = {SUPERVISOR_OPTIONS(ROW)};
#undef ROW

static PyObject *
dispatcher_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"board", "listeners", "options", NULL};
    CoreState *state = core_state_of(type);
    PyObject *board, *listeners, *options;
    DispatchLimits limits;
    Py_ssize_t count;

    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, keywords, "OOO:Dispatcher", names,
                                     &board, &listeners, &options)) {
        return NULL;
    }
    Scoreboard *scoreboard = core_scoreboard(state, board);
    if (scoreboard == NULL ||
        core_read_options(options, option_rows,
                          sizeof option_rows / sizeof option_rows[0],
                          &limits) < 0) {
        return NULL;
    }
    DispatcherObject *self = (DispatcherObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->board = Py_NewRef(board);
    self->slot_count = scoreboard->slot_count;
    int *fds = descriptors(listeners, &count);
    if (fds == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->dispatch = dispatch_new(scoreboard, &limits, fds, (uint32_t)count);
    PyMem_Free(fds);
    if (self->dispatch == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
dispatcher_dealloc(DispatcherObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->dispatch) {
        dispatch_free(self->dispatch);
    }
    PyMem_Free(self->events);
    page_table_clear(&self->pages);
    Py_XDECREF(self->routes);
    Py_XDECREF(self->joined);
    Py_XDECREF(self->board);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static int
check_open(DispatcherObject *self)
{
    if (self->dispatch) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "the dispatcher is closed");
    return -1;
}

static int
check_slot(DispatcherObject *self, unsigned slot)
{
    if (check_open(self) < 0) {
        return -1;
    }
    if (slot < self->slot_count) {
        return 0;
    }
    PyErr_Format(PyExc_IndexError, "slot %u of %u", slot, self->slot_count);
    return -1;
}

static PyObject *
none_or_errno(int result)
{
    if (result < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_channel(DispatcherObject *self, PyObject *args)
{
    unsigned slot;
    int ours, theirs;
    if (!PyArg_ParseTuple(args, "Iii:channel", &slot, &ours, &theirs) ||
        check_slot(self, slot) < 0) {
        return NULL;
    }
    return none_or_errno(dispatch_channel(self->dispatch, slot, ours, theirs));
}

static PyObject *
dispatcher_measure(DispatcherObject *self, PyObject *Py_UNUSED(none))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    return PyLong_FromLong(dispatch_measure(self->dispatch));
}

static PyObject *
dispatcher_set_pages(DispatcherObject *self, PyObject *tuple)
{
    PageTable table = {.tuple = NULL};
    if (check_open(self) < 0) {
        return NULL;
    }
    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "pages must be a tuple");
        return NULL;
    }
    if (page_table_read(tuple, &table) < 0) {
        page_table_clear(&table);
        return NULL;
    }
    dispatch_set_pages(self->dispatch, &table.pages);
    page_table_clear(&self->pages);
    self->pages = table;
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_set_routes(DispatcherObject *self, PyObject *routes)
{
    CoreState *state = core_state_of(Py_TYPE(self));
    if (state == NULL || check_open(self) < 0) {
        return NULL;
    }
    const Mounts *table = core_routes_of(state, routes);
    if (table == NULL) {
        return NULL;
    }
    dispatch_set_mounts(self->dispatch, table);
    Py_XSETREF(self->routes, Py_NewRef(routes));
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_log(DispatcherObject *self, PyObject *value)
{
    const long fd = PyLong_AsLong(value); /* -1: there is none */
    if ((fd == -1 && PyErr_Occurred()) || check_open(self) < 0) {
        return NULL;
    }
    dispatch_log(self->dispatch, (int)fd);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_enable(DispatcherObject *self, PyObject *args)
{
    unsigned slot;
    int on;
    if (!PyArg_ParseTuple(args, "Ip:enable", &slot, &on) ||
        check_slot(self, slot) < 0) {
        return NULL;
    }
    dispatch_enable(self->dispatch, slot, on);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_reclaim(DispatcherObject *self, PyObject *value)
{
    unsigned long slot = PyLong_AsUnsignedLong(value);
    if ((slot == (unsigned long)-1 && PyErr_Occurred()) ||
        check_slot(self, (unsigned)slot) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(
        dispatch_reclaim(self->dispatch, (uint32_t)slot));
}

static PyObject *
dispatcher_watch(DispatcherObject *self, PyObject *args)
{
    int fd;
    unsigned token;
    if (!PyArg_ParseTuple(args, "iI:watch", &fd, &token) ||
        check_open(self) < 0) {
        return NULL;
    }
    return none_or_errno(dispatch_watch(self->dispatch, fd, token));
}

static PyObject *
dispatcher_unwatch(DispatcherObject *self, PyObject *value)
{
    int fd = PyObject_AsFileDescriptor(value);
    if (fd < 0 || check_open(self) < 0) {
        return NULL;
    }
    dispatch_unwatch(self->dispatch, fd);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_close(DispatcherObject *self, PyObject *Py_UNUSED(none))
{
    if (self->dispatch) {
        dispatch_free(self->dispatch);
    }
    self->dispatch = NULL;
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_close_in_child(DispatcherObject *self, PyObject *Py_UNUSED(none))
{
    if (self->dispatch) {
        dispatch_close_in_child(self->dispatch);
    }
    self->dispatch = NULL;
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_last_call(DispatcherObject *self, PyObject *Py_UNUSED(none))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    dispatch_last_call(self->dispatch);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_stop(DispatcherObject *self, PyObject *Py_UNUSED(none))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    dispatch_stop(self->dispatch);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_accept(DispatcherObject *self, PyObject *value)
{
    const int on = PyObject_IsTrue(value);
    if (on < 0 || check_open(self) < 0) {
        return NULL;
    }
    dispatch_accept(self->dispatch, on);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_join(DispatcherObject *self, PyObject *args)
{
    DispatcherObject *other;
    unsigned number;
    if (!PyArg_ParseTuple(args, "O!I:join", Py_TYPE(self), &other, &number) ||
        check_open(self) < 0 || check_open(other) < 0) {
        return NULL;
    }
    if (self->joined == NULL) {
        self->joined = PyList_New(0);
    }
    if (self->joined == NULL ||
        PyList_Append(self->joined, (PyObject *)other) < 0) {
        return NULL;
    }
    other->is_joined = true;
    return none_or_errno(
        dispatch_join(self->dispatch, other->dispatch, number));
}

static PyObject *
dispatcher_bequeath(DispatcherObject *self, PyObject *value)
{
    const int fd = PyObject_AsFileDescriptor(value);
    if (fd < 0 || check_open(self) < 0) {
        return NULL;
    }
    dispatch_bequeath(self->dispatch, fd);
    Py_RETURN_NONE;
}

static PyObject *
dispatcher_inherit(DispatcherObject *self, PyObject *args)
{
    int fd;
    PyObject *numbers;
    if (!PyArg_ParseTuple(args, "iO!:inherit", &fd, &PyTuple_Type, &numbers) ||
        check_open(self) < 0) {
        return NULL;
    }
    const Py_ssize_t count = PyTuple_GET_SIZE(numbers);
    uint16_t *translation =
        PyMem_Calloc((size_t)count + 1, sizeof *translation);
    if (translation == NULL) {
        return PyErr_NoMemory();
    }
    int result = 0;
    for (Py_ssize_t i = 0; i < count && result == 0; i++) {
        const unsigned long number =
            PyLong_AsUnsignedLong(PyTuple_GET_ITEM(numbers, i));
        if (PyErr_Occurred()) {
            result = -1;
        }
        translation[i] = (uint16_t)number;
    }
    if (result == 0) {
        result =
            dispatch_inherit(self->dispatch, fd, translation, (uint32_t)count);
        if (result < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    PyMem_Free(translation);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
dispatcher_inherit_rest(DispatcherObject *self, PyObject *Py_UNUSED(none))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    dispatch_inherit_rest(self->dispatch);
    Py_RETURN_NONE;
}

/* Room for events: half a megabyte, which a group that sleeps needs not. */
static int
events_needed(DispatcherObject *self)
{
    if (self->events == NULL) {
        self->events = PyMem_New(DispatchEvent, EVENT_ROOM);
    }
    if (self->events == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static PyObject *
dispatcher_hear(DispatcherObject *self, PyObject *value)
{
    unsigned long slot = PyLong_AsUnsignedLong(value);
    if ((slot == (unsigned long)-1 && PyErr_Occurred()) ||
        check_slot(self, (unsigned)slot) < 0) {
        return NULL;
    }
    if (events_needed(self) < 0) {
        return NULL;
    }
    return events_list(self->events,
                       (int)dispatch_hear(self->dispatch, (uint32_t)slot,
                                          self->events, EVENT_ROOM));
}

static PyObject *
dispatcher_wait(DispatcherObject *self, PyObject *value)
{
    uint64_t deadline = 0;
    int n;

    if (check_open(self) < 0) {
        return NULL;
    }
    if (self->is_joined) {
        PyErr_SetString(PyExc_ValueError, "another dispatcher waits for this");
        return NULL;
    }
    if (value != Py_None) {
        double at = PyFloat_AsDouble(value);
        if (at == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        deadline = at > 0 ? nanoseconds(at) : 1;
    }
    if (events_needed(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    n = dispatch_wait(self->dispatch, deadline, self->events, EVENT_ROOM);
    Py_END_ALLOW_THREADS
    if (n < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return events_list(self->events, n);
}

static PyObject *
dispatcher_bell(DispatcherObject *self, void *Py_UNUSED(closure))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    return PyLong_FromLong(dispatch_bell(self->dispatch));
}

static PyObject *
dispatcher_held(DispatcherObject *self, void *Py_UNUSED(closure))
{
    if (check_open(self) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(dispatch_held(self->dispatch));
}

static PyGetSetDef dispatcher_getset[] = {
    {"held", (getter)dispatcher_held, NULL,
     "How many connections it holds itself, in whatever state.", NULL},
    {"bell", (getter)dispatcher_bell, NULL,
     "The eventfd by which workers tell that a thread is free.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef dispatcher_methods[] = {
    {"channel", (PyCFunction)dispatcher_channel, METH_VARARGS,
     "channel(slot, ours, theirs): both ends of a slot's channel, which stay "
     "the caller's."},
    {"measure", (PyCFunction)dispatcher_measure, METH_NOARGS,
     "When the caller has opened all that it needs: for how many connections "
     "there are descriptors. More are not accepted."},
    {"set_pages", (PyCFunction)dispatcher_set_pages, METH_O,
     "What its own answers say: a tuple of (status, type, body)."},
    {"set_routes", (PyCFunction)dispatcher_set_routes, METH_O,
     "set_routes(routes), for groups that share listeners: the same for each. "
     "What comes is looked at from now on, and goes to the group of its "
     "route."},
    {"log", (PyCFunction)dispatcher_log, METH_O,
     "log(fd): write a line for each request that is refused; -1: none."},
    {"enable", (PyCFunction)dispatcher_enable, METH_VARARGS,
     "enable(slot, on): may the slot get work?"},
    {"reclaim", (PyCFunction)dispatcher_reclaim, METH_O,
     "Queue again what was sent to a slot and never received; how many."},
    {"hear", (PyCFunction)dispatcher_hear, METH_O,
     "hear(slot): the words of a slot that wait() has not told yet, as it "
     "does; "
     "call it before the slot is buried."},
    {"watch", (PyCFunction)dispatcher_watch, METH_VARARGS,
     "watch(fd, token): wait() also tells when fd is readable."},
    {"unwatch", (PyCFunction)dispatcher_unwatch, METH_O, "Undo watch()."},
    {"stop", (PyCFunction)dispatcher_stop, METH_NOARGS,
     "Accept what waits, then never again; close what is idle. This goes for "
     "all that are joined."},
    {"last_call", (PyCFunction)dispatcher_last_call, METH_NOARGS,
     "Refuse what waits for a thread, and will: soon all is over. This goes "
     "for all that are joined."},
    {"join", (PyCFunction)dispatcher_join, METH_VARARGS,
     "join(other, number): from now on our wait() waits for that dispatcher as "
     "well, whose group gets this number. Ours is 0."},
    {"accept", (PyCFunction)dispatcher_accept, METH_O,
     "accept(on): take connections from the listeners, as at first, or not."},
    {"bequeath", (PyCFunction)dispatcher_bequeath, METH_O,
     "bequeath(fd): another supervisor takes our place. Hand all that is held "
     "or comes back over to it; accept what waits, then never again."},
    {"inherit", (PyCFunction)dispatcher_inherit, METH_VARARGS,
     "inherit(fd, translation): take what another supervisor bequeaths. "
     "`translation` names for each of its listeners the index of ours."},
    {"inherit_rest", (PyCFunction)dispatcher_inherit_rest, METH_NOARGS,
     "inherit_rest(): that has ended. Take what is still there, and forget the "
     "descriptor."},
    {"close", (PyCFunction)dispatcher_close, METH_NOARGS,
     "Close all it holds. No other method may follow."},
    {"close_in_child", (PyCFunction)dispatcher_close_in_child, METH_NOARGS,
     "In a child just forked: close its copies of all descriptors, and leave "
     "the memory to the parent, with which it is shared until it is written "
     "to. No other method may follow."},
    {"wait", (PyCFunction)dispatcher_wait, METH_O,
     "wait(deadline): run until something needs policy, or until the monotonic "
     "time `deadline` in seconds (None: no limit).\n\n"
     "Returns a list of (EVENT_READABLE, token) for watched descriptors, "
     "(EVENT_NEWS, group, slot, news, text) for what workers say, "
     "(EVENT_REFUSED, group, text) for the log, (EVENT_WANTED, group) when a "
     "request waits and none of the group's slots is enabled, once until one "
     "is, and (EVENT_DRAINED,) once when stopped and nothing waits for a "
     "thread any more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot dispatcher_slots[] = {
    {Py_tp_doc,
     "Dispatcher(board, listeners, options)\n\n"
     "Accepts, parks and dispatches connections. `options` maps the names in "
     "OPTIONS to values."},
    {Py_tp_new, dispatcher_new},
    {Py_tp_dealloc, dispatcher_dealloc},
    {Py_tp_methods, dispatcher_methods},
    {Py_tp_getset, dispatcher_getset},
    {0, NULL},
};

static PyType_Spec dispatcher_spec = {
    .name = "poolsrv._core.Dispatcher",
    .basicsize = sizeof(DispatcherObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = dispatcher_slots,
};

int
core_add_dispatcher(PyObject *module, CoreState *state)
{
    if (PyModule_AddIntConstant(module, "CHANNEL_VERSION",
                                (long)CHANNEL_VERSION) < 0) {
        return -1;
    }
    return core_add_type(module, &dispatcher_spec, &state->dispatcher_type);
}
