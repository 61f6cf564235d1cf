/* Binding: _core.Applications, what the requests of all threads share in one
 * interpreter. */
#include "python/wsgi/wsgi.h"

#include "python/options.h"

#define APP_ROW(kind, name, values) OPTION_ROW(WorkerLimits, kind, name, values)
static const Option app_rows[] = {WORKER_OPTIONS(APP_ROW)};
#undef APP_ROW

static PyObject *
app_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "callables", "script_names", "templates", "options", "errors",
        "on_error",  "on_left",      "offer",     "timeout", NULL};
    CoreState *state = core_state_of(type);
    PyObject *callables, *script_names, *templates, *given, *errors, *on_error,
        *on_left, *offer, *timeout;
    WorkerLimits limits;

    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(
            args, keywords, "O!$O!O!OOOOOO:Applications", names, &PyTuple_Type,
            &callables, &PyTuple_Type, &script_names, &PyTuple_Type, &templates,
            &given, &errors, &on_error, &on_left, &offer, &timeout) ||
        core_read_options(given, app_rows, sizeof app_rows / sizeof app_rows[0],
                          &limits) < 0) {
        return NULL;
    }
    App *self = (App *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->callables = Py_NewRef(callables);
    self->script_names = Py_NewRef(script_names);
    self->templates = Py_NewRef(templates);
    self->errors = Py_NewRef(errors);
    self->on_error = Py_NewRef(on_error);
    self->on_left = Py_NewRef(on_left);
    self->offer = Py_NewRef(offer);
    self->timeout = Py_NewRef(timeout);
    if (environ_keys_init(&self->keys) < 0 ||
        environ_keys_name_id(&self->keys, &limits.request_id_header) < 0 ||
        file_types_init(&self->files) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

App *
app_of(CoreState *state, PyObject *object)
{
    if (Py_TYPE(object) == state->applications_type) {
        return (App *)object;
    }
    PyErr_Format(PyExc_TypeError, "applications must be _core.Applications");
    return NULL;
}

int
app_attach(App *app, const Common *common, uint32_t thread_count)
{
    if (app->common) {
        PyErr_SetString(PyExc_ValueError,
                        "the applications are another worker's");
        return -1;
    }
    app->contexts = PyMem_Calloc(thread_count, sizeof(Context *));
    if (app->contexts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    app->thread_count = thread_count;
    app->common = common;
    return 0;
}

void
app_detach(App *app)
{
    PyMem_Free(app->contexts);
    app->contexts = NULL;
    app->thread_count = 0;
    app->common = NULL;
}

static int
app_traverse(App *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->callables);
    Py_VISIT(self->script_names);
    Py_VISIT(self->templates);
    Py_VISIT(self->errors);
    Py_VISIT(self->on_error);
    Py_VISIT(self->on_left);
    Py_VISIT(self->offer);
    Py_VISIT(self->timeout);
    return 0;
}

static int
app_clear(App *self)
{
    Py_CLEAR(self->callables);
    Py_CLEAR(self->script_names);
    Py_CLEAR(self->templates);
    Py_CLEAR(self->errors);
    Py_CLEAR(self->on_error);
    Py_CLEAR(self->on_left);
    Py_CLEAR(self->offer);
    Py_CLEAR(self->timeout);
    return 0;
}

static void
app_dealloc(App *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    app_clear(self);
    app_detach(self);
    environ_keys_clear(&self->keys);
    file_types_clear(&self->files);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* NULL: no such thread serves; perhaps an exception. */
static Context *
context_at(const App *self, PyObject *value)
{
    const unsigned long index = PyLong_AsUnsignedLong(value);
    return index < self->thread_count ? self->contexts[index] : NULL;
}

static PyObject *
app_request_id(App *self, PyObject *value)
{
    const Context *x = context_at(self, value);
    return PyErr_Occurred()
               ? NULL
               : PyUnicode_FromString(x ? x->thread->record.id : "");
}

static PyObject *
app_line_open(App *self, PyObject *value)
{
    Context *x = context_at(self, value);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (x) {
        x->line_open = true;
    }
    Py_RETURN_NONE;
}

static PyMethodDef app_methods[] = {
    {"request_id", (PyCFunction)app_request_id, METH_O,
     "The id of the request that thread `index` serves or served last."},
    {"line_open", (PyCFunction)app_line_open, METH_O,
     "What thread `index` wrote to its wsgi.errors lacks the end of a line: "
     "call their flush() when its request ends."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot app_slots[] = {
    {Py_tp_doc,
     "Applications(callables, *, script_names, templates, options, errors, "
     "on_error, on_left, offer, timeout)\n\n"
     "The applications of a worker in this interpreter. `script_names` has "
     "that of each mount, `errors` is called with this object and the index of "
     "a thread for the wsgi.errors of its requests, `timeout` is the exception "
     "that ends a request."},
    {Py_tp_new, app_new},
    {Py_tp_traverse, app_traverse},
    {Py_tp_clear, app_clear},
    {Py_tp_dealloc, app_dealloc},
    {Py_tp_methods, app_methods},
    {0, NULL},
};

static PyType_Spec app_spec = {
    .name = "poolsrv._core.Applications",
    .basicsize = sizeof(App),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = app_slots,
};

int
core_add_app(PyObject *module, CoreState *state)
{
    return core_add_type(module, &app_spec, &state->applications_type);
}
