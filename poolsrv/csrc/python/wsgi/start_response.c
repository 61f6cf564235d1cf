/* Binding: start_response. The head is checked and written while the
 * application calls: a mistake is raised where it is made, and nothing has to
 * be kept.
 */
#include "python/wsgi/wsgi.h"

#include <structmember.h>

/* The bytes of a native string of PEP 3333: latin-1 without controls. */
static const char *
native(PyObject *text, const char *what, Py_ssize_t *size)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", what,
                     Py_TYPE(text)->tp_name);
        return NULL;
    }
    if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
        PyErr_Format(PyExc_ValueError,
                     "%s holds characters beyond latin-1: %.200R", what, text);
        return NULL;
    }
    const char *data = (const char *)PyUnicode_1BYTE_DATA(text);
    *size = PyUnicode_GET_LENGTH(text);
    return data;
}

int
answer_result(Http1AnswerResult result, PyObject *culprit)
{
    if (result == ANSWER_DONE) {
        return 0;
    }
    if (result == ANSWER_NO_MEMORY) {
        PyErr_NoMemory();
    } else {
        PyErr_Format(PyExc_ValueError, "%s, unlike %.200R",
                     http1_answer_words(result), culprit);
    }
    return -1;
}

static int
add_field(Http1Answer *answer, PyObject *pair)
{
    const char *name, *value;
    Py_ssize_t name_size, value_size;

    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "a response header must be a (name, value) tuple, not %R",
                     pair);
        return -1;
    }
    name = native(PyTuple_GET_ITEM(pair, 0), "a response header's name",
                  &name_size);
    if (name == NULL) {
        return -1;
    }
    value = native(PyTuple_GET_ITEM(pair, 1), "a response header's value",
                   &value_size);
    if (value == NULL) {
        return -1;
    }
    return answer_result(http1_answer_field(answer, name, (size_t)name_size,
                                            value, (size_t)value_size),
                         pair);
}

static int
start(Http1Answer *answer, PyObject *status)
{
    Py_ssize_t size;
    const char *text = native(status, "the status", &size);
    return text == NULL
               ? -1
               : answer_result(http1_answer_start(answer, text, (size_t)size),
                               status);
}

static PyMethodDef write_method = {
    "write", response_write, METH_O,
    "write(data): send a piece of the body at once (PEP 3333)."};

/* The third argument, by place or by name; NULL and exception. Borrowed. */
static PyObject *
third_argument(StartResponse *sr, PyObject *const *args, Py_ssize_t count,
               PyObject *names)
{
    const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (count == 3 && named == 0) {
        return args[2];
    }
    if (count == 2 && named == 0) {
        return Py_None;
    }
    if (count == 2 && named == 1 && sr->context) {
        const int same = PyObject_RichCompareBool(
            PyTuple_GET_ITEM(names, 0), sr->context->app->keys.exc_info, Py_EQ);
        if (same) {
            return same > 0 ? args[2] : NULL;
        }
    }
    PyErr_SetString(PyExc_TypeError, "start_response takes status, headers "
                                     "and, if there is one, exc_info");
    return NULL;
}

/* start_response(status, headers, exc_info=None), PEP 3333: by place, as it
 * says; names would cost their lookup in each request. */
static PyObject *
start_response_call(PyObject *object, PyObject *const *args, size_t flags,
                    PyObject *names)
{
    StartResponse *sr = (StartResponse *)object;
    PyObject *exc_info =
        third_argument(sr, args, PyVectorcall_NARGS(flags), names);
    PyObject *status, *headers, *fast;
    Py_ssize_t i;

    if (exc_info == NULL) {
        return NULL;
    }
    status = args[0];
    headers = args[1];
    if (sr->context == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "start_response was called after its request's end");
        return NULL;
    }
    if (exc_info != Py_None) {
        if (!PyTuple_Check(exc_info) || PyTuple_GET_SIZE(exc_info) != 3) {
            PyErr_SetString(PyExc_TypeError,
                            "exc_info must be a tuple as of sys.exc_info()");
            return NULL;
        }
        if (sr->answer.framing !=
            FRAMING_UNDECIDED) { /* too late for another answer */
            PyErr_Restore(Py_NewRef(PyTuple_GET_ITEM(exc_info, 0)),
                          Py_NewRef(PyTuple_GET_ITEM(exc_info, 1)),
                          Py_NewRef(PyTuple_GET_ITEM(exc_info, 2)));
            return NULL;
        }
    } else if (sr->answer.framing == FRAMING_FORGONE && sr->called) {
        return PyCFunction_New(&write_method, object); /* nobody gets it */
    } else if (sr->called) {
        PyErr_SetString(PyExc_AssertionError,
                        "start_response was called twice; a second call needs "
                        "exc_info (PEP 3333)");
        return NULL;
    }
    sr->called = false; /* until this call has been found good */
    if (start(&sr->answer, status) < 0) {
        return NULL;
    }
    fast = PySequence_Fast(headers, "the response headers must be a list");
    if (fast == NULL) {
        return NULL;
    }
    for (i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        if (add_field(&sr->answer, PySequence_Fast_GET_ITEM(fast, i)) < 0) {
            Py_DECREF(fast);
            return NULL;
        }
    }
    Py_DECREF(fast);
    sr->called = true;
    return PyCFunction_New(&write_method, object);
}

static int
start_response_traverse(StartResponse *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
start_response_dealloc(StartResponse *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    buffer_clear(&self->answer.head);
    buffer_clear(&self->answer.file);
    gate_release(self->gate);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef start_response_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(StartResponse, vectorcall),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot start_response_slots[] = {
    {Py_tp_doc, "start_response(status, headers, exc_info=None), PEP 3333."},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, start_response_members},
    {Py_tp_traverse, start_response_traverse},
    {Py_tp_dealloc, start_response_dealloc},
    {0, NULL},
};

static PyType_Spec start_response_spec = {
    .name = "poolsrv._core.StartResponse",
    .basicsize = sizeof(StartResponse),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = start_response_slots,
};

/* The thread's own if no application kept it, else a new one. */
StartResponse *
start_response_new(Context *x)
{
    StartResponse *sr = x->start_response;
    if (sr == NULL || Py_REFCNT(sr) > 1) {
        PyTypeObject *type = x->app->state->start_response_type;
        sr = (StartResponse *)type->tp_alloc(type, 0);
        if (sr == NULL) {
            return NULL;
        }
        sr->vectorcall = start_response_call;
        sr->gate = gate_hold(x->writing);
        sr->answer.takes_file = x->app->common->sendfile.files.count > 0;
        Py_XSETREF(x->start_response, sr);
    }
    sr->context = x;
    sr->answer.framing = FRAMING_UNDECIDED;
    sr->answer.sent = 0;
    sr->called = false;
    return (StartResponse *)Py_NewRef(sr);
}

int
core_add_start_response(PyObject *module, CoreState *state)
{
    return core_add_type(module, &start_response_spec,
                         &state->start_response_type);
}
