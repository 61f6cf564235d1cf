/* What the binding files share. The only header that includes Python.h; it
 * and module.c are the only places that look at Python's version.
 *
 * A binding converts, calls pure C and converts back. All state hangs on the
 * module object: the core must load in a sub-interpreter with its own GIL and
 * on a free-threaded build.
 */
#ifndef POOLSRV_CORE_H
#define POOLSRV_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "common/mounts.h"
#include "common/scoreboard.h"

#define CORE_TYPES(X)      \
    X(scoreboard_type)     \
    X(dispatcher_type)     \
    X(routes_type)         \
    X(worker_type)         \
    X(applications_type)   \
    X(interpreter_type)    \
    X(input_type)          \
    X(start_response_type) \
    X(file_wrapper_type)   \
    X(set_timeout_type)    \
    X(takeover_type)       \
    X(shared_type)         \
    X(shared_lock_type)

typedef struct {
#define X(type) PyTypeObject *type;
    CORE_TYPES(X)
#undef X
} CoreState;

extern struct PyModuleDef core_module;

CoreState *core_state_of(PyTypeObject *type);

/* Each adds its type (and constants) to the module: 0, or -1 and exception. */
int core_add_events(PyObject *module);
int core_add_fields(PyObject *module);
int core_add_scoreboard(PyObject *module, CoreState *state);
int core_add_dispatcher(PyObject *module, CoreState *state);
int core_add_routes(PyObject *module, CoreState *state);
int core_add_interpreter(PyObject *module, CoreState *state);
int core_add_app(PyObject *module, CoreState *state);
int core_add_worker(PyObject *module, CoreState *state);
int core_add_input(PyObject *module, CoreState *state);
int core_add_start_response(PyObject *module, CoreState *state);
int core_add_set_timeout(PyObject *module, CoreState *state);
int core_add_takeover(PyObject *module, CoreState *state);
int core_add_shared(PyObject *module, CoreState *state);
int core_add_file_wrapper(PyObject *module, CoreState *state);

/* The mapping inside a _core.Scoreboard; TypeError if it is none. */
Scoreboard *core_scoreboard(CoreState *state, PyObject *object);

/* The table of a _core.Routes, which stays the object's; TypeError if it is
 * none. */
const Mounts *core_routes_of(CoreState *state, PyObject *object);

/* A type from its spec, kept in *place and added to the module. */
int core_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **place);

#endif
