/* The module poolsrv._core: its types, in the order they need each other. */
#include "python/options.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/channel.h"
#include "common/forks.h"
#include "common/privileges.h"
#include "common/shared.h"
#include "common/title.h"
#include "worker/keeper.h"

static PyObject *
core_shared_create(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    const int fd = shared_create();
    if (fd < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(fd);
}

static PyObject *
core_scoreboard_create(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned slots, threads;
    int fd;
    if (!PyArg_ParseTuple(args, "II:scoreboard_create", &slots, &threads)) {
        return NULL;
    }
    if (slots == 0 || slots > 4096 || threads == 0 || threads > 4096) {
        PyErr_SetString(PyExc_ValueError,
                        "slots and threads must be between 1 and 4096");
        return NULL;
    }
    fd = scoreboard_create(slots, threads);
    if (fd < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(fd);
}

static PyObject *
core_say(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *text;
    Py_ssize_t size;
    int fd, kind;
    if (!PyArg_ParseTuple(args, "iiy#:say", &fd, &kind, &text, &size)) {
        return NULL;
    }
    if (channel_say(fd, (ChannelKind)kind, text, (size_t)size) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

#ifdef POOLSRV_COVERAGE
void __gcov_dump(void);

/* For processes that end by _exit, as forked children do. */
static PyObject *
core_dump_coverage(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    __gcov_dump();
    Py_RETURN_NONE;
}
#endif

/* The ints of a sequence in memory of ours; NULL and exception. */
static int *
numbers(PyObject *sequence, Py_ssize_t *count)
{
    PyObject *fast = PySequence_Fast(sequence, "a sequence of ints");
    int *items = NULL;
    Py_ssize_t i;

    if (fast == NULL) {
        return NULL;
    }
    *count = PySequence_Fast_GET_SIZE(fast);
    items = PyMem_Calloc((size_t)*count + 1, sizeof *items);
    if (items == NULL) {
        PyErr_NoMemory();
    }
    for (i = 0; items && i < *count; i++) {
        const long number = PyLong_AsLong(PySequence_Fast_GET_ITEM(fast, i));
        if (number == -1 && PyErr_Occurred()) {
            PyMem_Free(items);
            items = NULL;
            break;
        }
        items[i] = (int)number;
    }
    Py_DECREF(fast);
    return items;
}

static PyObject *
core_forks_keep(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *fds, *signals, *result = NULL;
    Py_ssize_t fd_count = 0, signal_count = 0;
    int *fd_items = NULL, *signal_items = NULL;

    if (!PyArg_ParseTuple(args, "OO:forks_keep", &fds, &signals)) {
        return NULL;
    }
    fd_items = numbers(fds, &fd_count);
    signal_items = fd_items ? numbers(signals, &signal_count) : NULL;
    if (signal_items == NULL) {
        goto done;
    }
    if (forks_keep(fd_items, (size_t)fd_count, signal_items,
                   (size_t)signal_count) < 0) {
        PyErr_NoMemory();
        goto done;
    }
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(fd_items);
    PyMem_Free(signal_items);
    return result;
}

static PyObject *
core_forks_ours(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    forks_ours();
    Py_RETURN_NONE;
}

static PyObject *
core_exit(PyObject *Py_UNUSED(module), PyObject *args)
{
    int status;
    if (!PyArg_ParseTuple(args, "i:exit", &status)) {
        return NULL;
    }
    Py_Exit(status);
}

static PyObject *
core_forks_left(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    return PyBool_FromLong(forks_left());
}

static PyObject *
core_adopt_orphans(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* Names that come, go or change in a folder, or that are touched. */
#define FOLDER_EVENTS                                                       \
    (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | \
     IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

static PyObject *
core_watch_folders(PyObject *Py_UNUSED(module), PyObject *list)
{
    PyObject *fast = PySequence_Fast(list, "a sequence of bytes");
    if (fast == NULL) {
        return NULL;
    }
    const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        const char *path = PyBytes_AsString(PySequence_Fast_GET_ITEM(fast, i));
        if (path == NULL) {
            goto failed;
        }
        if (inotify_add_watch(fd, path, FOLDER_EVENTS) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            goto failed;
        }
    }
    Py_DECREF(fast);
    return PyLong_FromLong(fd);
failed:
    if (fd >= 0) {
        close(fd);
    }
    Py_DECREF(fast);
    return NULL;
}

static PyObject *
core_keep_capabilities(PyObject *Py_UNUSED(module), PyObject *value)
{
    const uint64_t kept = PyLong_AsUnsignedLongLong(value);
    if (kept == (uint64_t)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (privileges_keep(kept) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *
core_forbid_new_privileges(PyObject *Py_UNUSED(module),
                           PyObject *Py_UNUSED(none))
{
    if (privileges_forbid_more() < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *
core_set_title(PyObject *Py_UNUSED(module), PyObject *value)
{
    const char *text = PyBytes_AsString(value);
    if (text == NULL) {
        return NULL;
    }
    return PyBool_FromLong(title_write(text));
}

static PyObject *
core_keep(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *name, *title;
    Keeper keeper;
    if (!PyArg_ParseTuple(args, "iiIyy:keep", &keeper.channel, &keeper.board,
                          &keeper.slot, &name, &title)) {
        return NULL;
    }
    const pid_t pid = keeper_start(&keeper, name, title);
    if (pid < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("(iii)", (int)pid, keeper.places, keeper.life);
}

static PyObject *
core_dismiss(PyObject *Py_UNUSED(module), PyObject *value)
{
    const long keeper = PyLong_AsLong(value);
    if (keeper == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (keeper <= 0) { /* it would mean other processes */
        PyErr_SetString(PyExc_ValueError, "a keeper has a pid");
        return NULL;
    }
    keeper_dismiss((pid_t)keeper);
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"dismiss", core_dismiss, METH_O,
     "dismiss(keeper): end the keeper of this worker, which has no connection "
     "any more."},
    {"keep", core_keep, METH_VARARGS,
     "keep(channel, board, slot, name, title): start the keeper of this "
     "worker, which has "
     "one "
     "thread and no connection yet: (its pid, the descriptor of the places for "
     "connections, that of this process).\n\nThe caller owns them."},
    {"set_title", core_set_title, METH_O,
     "set_title(text): what ps shows instead of this process's command line, "
     "cut to its length. False: the kernel does not say where that is."},
    {"watch_folders", core_watch_folders, METH_O,
     "watch_folders(paths): a descriptor that is readable when a name in one "
     "of "
     "these folders comes, goes, is written or is touched (inotify(7)); paths "
     "are bytes.\n\nThe caller owns it."},
    {"keep_capabilities", core_keep_capabilities, METH_O,
     "keep_capabilities(mask): give up all others (capabilities(7))."},
    {"forbid_new_privileges", core_forbid_new_privileges, METH_NOARGS,
     "forbid_new_privileges(): no program that is started gains any."},
    {"adopt_orphans", core_adopt_orphans, METH_NOARGS,
     "adopt_orphans(): processes whose parent ends become this one's children, "
     "if it descends from us (PR_SET_CHILD_SUBREAPER)."},
    {"exit", core_exit, METH_VARARGS,
     "exit(status): end the interpreter in an orderly way, then the process, "
     "wherever it is called."},
    {"forks_keep", core_forks_keep, METH_VARARGS,
     "forks_keep(descriptors, signals): what a child that the application "
     "forks closes, and handles by default."},
    {"forks_ours", core_forks_ours, METH_NOARGS,
     "forks_ours(): the next fork of this thread is the server's own."},
    {"forks_left", core_forks_left, METH_NOARGS,
     "forks_left(): is this process a child that the application has forked?"},
    {"say", core_say, METH_VARARGS,
     "say(channel, word, text): tell the supervisor; text beyond 16000 bytes "
     "is cut."},
    {"shared_create", core_shared_create, METH_NOARGS,
     "shared_create(): the descriptor of a new table for SharedTable.\n\n"
     "The caller owns it."},
    {"scoreboard_create", core_scoreboard_create, METH_VARARGS,
     "scoreboard_create(slots, threads): the descriptor of a new memfd.\n\n"
     "The caller owns it."},
#ifdef POOLSRV_COVERAGE
    {"dump_coverage", core_dump_coverage, METH_NOARGS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static int
core_exec(PyObject *module)
{
    CoreState *state = PyModule_GetState(module);
    if (core_add_options(module) < 0 || core_add_events(module) < 0 ||
        core_add_fields(module) < 0 || core_add_scoreboard(module, state) < 0 ||
        core_add_routes(module, state) < 0 ||
        core_add_dispatcher(module, state) < 0 ||
        core_add_input(module, state) < 0 ||
        core_add_start_response(module, state) < 0 ||
        core_add_set_timeout(module, state) < 0 ||
        core_add_takeover(module, state) < 0 ||
        core_add_shared(module, state) < 0 ||
        core_add_file_wrapper(module, state) < 0 ||
        core_add_app(module, state) < 0 ||
        core_add_interpreter(module, state) < 0 ||
        core_add_worker(module, state) < 0) {
        return -1;
    }
    return 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    CoreState *state = PyModule_GetState(module);
#define X(type) Py_VISIT(state->type);
    CORE_TYPES(X)
#undef X
    return 0;
}

static int
core_clear(PyObject *module)
{
    CoreState *state = PyModule_GetState(module);
#define X(type) Py_CLEAR(state->type);
    CORE_TYPES(X)
#undef X
    return 0;
}

static void
core_free(void *module)
{
    core_clear(module);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "poolsrv._core",
    .m_doc = "The hot path: dispatching sockets, serving HTTP, counting.",
    .m_size = sizeof(CoreState),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
