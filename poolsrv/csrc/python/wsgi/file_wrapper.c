/* Binding: wsgi.file_wrapper (PEP 3333). An iterable like any other; what is
 * certainly a file of the kernel's, response.c lets the kernel send. It passes
 * on seek() and tell(), by which frameworks answer a range of a large file
 * without reading what comes before.
 */
#include "python/wsgi/wsgi.h"

#include <fcntl.h>
#include <sys/stat.h>

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
                                     &file, &block)) {
        return NULL;
    }
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
    if (data && PyObject_IsTrue(data) <= 0) {
        Py_CLEAR(data);
    }
    return data;
}

static PyObject *
file_wrapper_close(FileWrapper *self, PyObject *Py_UNUSED(none))
{
    PyObject *close = PyObject_GetAttrString(self->file, "close"), *result;
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    result = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    return result;
}

/* Call the file's method of that name with our arguments. */
static PyObject *
pass_on(FileWrapper *self, const char *name, PyObject *const *args,
        Py_ssize_t count)
{
    PyObject *method = PyObject_GetAttrString(self->file, name);
    if (method == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(method, args, (size_t)count, NULL);
    Py_DECREF(method);
    return result;
}

static PyObject *
file_wrapper_seek(FileWrapper *self, PyObject *const *args, Py_ssize_t count)
{
    return pass_on(self, "seek", args, count);
}

static PyObject *
file_wrapper_tell(FileWrapper *self, PyObject *const *args, Py_ssize_t count)
{
    return pass_on(self, "tell", args, count);
}

static PyObject *
file_wrapper_read(FileWrapper *self, PyObject *const *args, Py_ssize_t count)
{
    return pass_on(self, "read", args, count);
}

/* As the file says; one that does not say can if it has seek(). */
static PyObject *
file_wrapper_seekable(FileWrapper *self, PyObject *Py_UNUSED(none))
{
    PyObject *result = pass_on(self, "seekable", NULL, 0);
    if (result || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return result;
    }
    PyErr_Clear();
    return PyBool_FromLong(PyObject_HasAttrString(self->file, "seek"));
}

static PyMethodDef file_wrapper_methods[] = {
    {"read", (PyCFunction)(void (*)(void))file_wrapper_read, METH_FASTCALL,
     "The file's read()."},
    {"seek", (PyCFunction)(void (*)(void))file_wrapper_seek, METH_FASTCALL,
     "The file's seek()."},
    {"tell", (PyCFunction)(void (*)(void))file_wrapper_tell, METH_FASTCALL,
     "The file's tell()."},
    {"seekable", (PyCFunction)file_wrapper_seekable, METH_NOARGS,
     "Whether the file can seek()."},
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

/* ------------------------------------------------------------------------
 * What the kernel may send */

int
file_types_init(FileTypes *types)
{
    PyObject *io = PyImport_ImportModule("io");
    if (io == NULL) {
        return -1;
    }
    /* One failure is enough: a further call could forget its exception. */
    const int done =
        (types->raw = PyObject_GetAttrString(io, "FileIO")) &&
        (types->reader = PyObject_GetAttrString(io, "BufferedReader")) &&
        (types->random = PyObject_GetAttrString(io, "BufferedRandom"));
    Py_DECREF(io);
    return done ? 0 : -1;
}

void
file_types_clear(FileTypes *types)
{
    Py_CLEAR(types->raw);
    Py_CLEAR(types->reader);
    Py_CLEAR(types->random);
}

/* Has the object an attribute of its own that hides its type's `name`? */
static bool
overrides(PyObject *object, const char *name)
{
    PyObject *own = PyObject_GetAttrString(object, "__dict__");
    PyObject *found =
        own && PyDict_Check(own) ? PyDict_GetItemString(own, name) : Py_None;
    Py_XDECREF(own);
    return found != NULL;
}

/* Of a file of tempfile.NamedTemporaryFile, the file inside; else the file
 * itself. New reference; NULL and perhaps an exception. */
static PyObject *
inner_file(PyObject *file)
{
    PyObject *name = PyUnicode_FromString("tempfile");
    PyObject *tempfile = name ? PyImport_GetModule(name) : NULL;
    PyObject *wrapper =
        tempfile ? PyObject_GetAttrString(tempfile, "_TemporaryFileWrapper")
                 : NULL;
    PyObject *inner = wrapper && (PyObject *)Py_TYPE(file) == wrapper &&
                              !overrides(file, "read")
                          ? PyObject_GetAttrString(file, "file")
                          : Py_NewRef(file);
    Py_XDECREF(wrapper);
    Py_XDECREF(tempfile);
    Py_XDECREF(name);
    return inner;
}

/* Is read() of this object certainly what its descriptor holds? Only of types
 * whose read() we know, not of their heirs: GzipFile and many a wrapper have a
 * fileno() too, but it is of what they read from. */
static bool
is_plain(const FileTypes *types, PyObject *file)
{
    PyObject *type = (PyObject *)Py_TYPE(file);
    if (overrides(file, "read")) {
        return false;
    }
    if (type == types->raw) {
        return true;
    }
    if (type != types->reader && type != types->random) {
        return false;
    }
    PyObject *raw = PyObject_GetAttrString(file, "raw");
    const bool plain = raw && (PyObject *)Py_TYPE(raw) == types->raw &&
                       !overrides(raw, "readinto");
    Py_XDECREF(raw);
    return plain;
}

/* A number that a method of the file returns; -1: it says no. */
static long long
ask(PyObject *file, const char *method)
{
    PyObject *result = PyObject_CallMethod(file, method, NULL);
    long long number = -1;
    if (result && PyLong_Check(result)) {
        number = PyLong_AsLongLong(result);
    }
    Py_XDECREF(result);
    return number;
}

/* Does the kernel know the file's size? Files of /proc have none, and those of
 * /sys one that is no size; what those have in common is that no block is
 * theirs. (A small file may have none as well: it is read.) */
static bool
has_size(int fd, struct stat *info)
{
    return fstat(fd, info) == 0 && S_ISREG(info->st_mode) &&
           info->st_size > 0 && info->st_blocks > 0 &&
           (fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY;
}

bool
file_wrapper_span(const FileTypes *types, PyObject *wrapper, FileSpan *span)
{
    PyObject *file = inner_file(((FileWrapper *)wrapper)->file);
    struct stat info;
    bool known = false;
    if (file && is_plain(types, file)) {
        /* What was written and is still in Python's buffer. */
        PyObject *flushed = (PyObject *)Py_TYPE(file) == types->random
                                ? PyObject_CallMethod(file, "flush", NULL)
                                : Py_NewRef(Py_None);
        const long long fd = flushed ? ask(file, "fileno") : -1;
        const long long at = fd < 0 ? -1 : ask(file, "tell");
        Py_XDECREF(flushed);
        known = at >= 0 && has_size((int)fd, &info);
        if (known) {
            *span = (FileSpan){
                .fd = (int)fd,
                .at = (off_t)at,
                .size = info.st_size > at ? info.st_size - at : 0,
            };
        }
    }
    Py_XDECREF(file);
    PyErr_Clear(); /* read() will find the same, and say it */
    return known;
}

int
core_add_file_wrapper(PyObject *module, CoreState *state)
{
    return core_add_type(module, &file_wrapper_spec, &state->file_wrapper_type);
}
