/* Binding: wsgi.file_wrapper (PEP 3333). An iterable like any other; what is a
 * real file, response.c lets the kernel send.
 */
#include "python/wsgi/wsgi.h"

typedef struct {
    PyObject_HEAD PyObject *file;
    Py_ssize_t block;
} FileWrapper;

static PyObject *
file_wrapper_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"filelike", "block_size", NULL};
    FileWrapper *self;
    PyObject *file;
    Py_ssize_t block = 65536;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|n:FileWrapper", names,
                                     &file, &block))
        return NULL;
    self = (FileWrapper *)type->tp_alloc(type, 0);
    if (self) {
        self->file = Py_NewRef(file);
        self->block = block > 0 ? block : 65536;
    }
    return (PyObject *)self;
}

static int
file_wrapper_traverse(FileWrapper *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->file);
    return 0;
}

static int
file_wrapper_clear(FileWrapper *self)
{
    Py_CLEAR(self->file);
    return 0;
}

static void
file_wrapper_dealloc(FileWrapper *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    file_wrapper_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
file_wrapper_next(FileWrapper *self)
{
    PyObject *data = PyObject_CallMethod(self->file, "read", "n", self->block);
    if (data && PyObject_IsTrue(data) == 0)
        Py_CLEAR(data);
    return data;
}

static PyObject *
file_wrapper_close(FileWrapper *self, PyObject *Py_UNUSED(none))
{
    PyObject *close = PyObject_GetAttrString(self->file, "close"), *result;
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    result = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    return result;
}

static PyMethodDef file_wrapper_methods[] = {
    {"close", (PyCFunction)file_wrapper_close, METH_NOARGS,
     "Close the file, if it can be closed."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot file_wrapper_slots[] = {
    {Py_tp_doc,
     "FileWrapper(filelike, block_size=65536): wsgi.file_wrapper, PEP 3333.\n\n"
     "A real file is sent by the kernel, from its position on."},
    {Py_tp_new, file_wrapper_new},
    {Py_tp_traverse, file_wrapper_traverse},
    {Py_tp_clear, file_wrapper_clear},
    {Py_tp_dealloc, file_wrapper_dealloc},
    {Py_tp_methods, file_wrapper_methods},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, file_wrapper_next},
    {0, NULL},
};

static PyType_Spec file_wrapper_spec = {
    .name = "poolsrv._core.FileWrapper",
    .basicsize = sizeof(FileWrapper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = file_wrapper_slots,
};

PyObject *
file_wrapper_file(PyObject *wrapper)
{
    return ((FileWrapper *)wrapper)->file;
}

int
core_add_file_wrapper(PyObject *module, CoreState *state)
{
    return core_add_type(module, &file_wrapper_spec, &state->file_wrapper_type);
}
