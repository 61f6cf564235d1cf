/* Binding: start_response, and the buffers that answers are put together in.
 *
 * The head is checked and written while the application calls: a mistake is
 * raised where it is made, and nothing has to be kept.
 */
#include "python/wsgi/wsgi.h"

#include <string.h>

#include <structmember.h>

int
buffer_reserve(Buffer *b, size_t more)
{
    size_t capacity = b->capacity ? b->capacity : 1024;
    char *data;
    if (b->size + more <= b->capacity)
        return 0;
    while (capacity < b->size + more)
        capacity *= 2;
    data = PyMem_RawRealloc(b->data, capacity);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    b->data = data;
    b->capacity = capacity;
    return 0;
}

int
buffer_add(Buffer *b, const char *data, size_t size)
{
    if (buffer_reserve(b, size) < 0)
        return -1;
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    return 0;
}

int
buffer_add_number(Buffer *b, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    return buffer_add(b, digits + at, sizeof digits - at);
}

void
buffer_clear(Buffer *b)
{
    PyMem_RawFree(b->data);
    *b = (Buffer){NULL, 0, 0};
}

/* ------------------------------------------------------------------------
 * start_response */

/* The bytes of a native string of PEP 3333: latin-1 without controls, so that
 * nothing in it can end the line (CR, LF) or the text (NUL). */
static const char *
native(PyObject *text, const char *what, Py_ssize_t *size)
{
    const unsigned char *data;
    unsigned controls = 0;
    Py_ssize_t i;

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
    data = PyUnicode_1BYTE_DATA(text);
    *size = PyUnicode_GET_LENGTH(text);
    /* Without a branch a byte: the compiler does sixteen at once. */
    for (i = 0; i < *size; i++)
        controls |= (data[i] < 32 && data[i] != '\t') || data[i] == 127;
    if (controls) {
        PyErr_Format(PyExc_ValueError, "%s holds a control character: %R", what,
                     text);
        return NULL;
    }
    return (const char *)data;
}

/* RFC 9110 section 5.6.2. */
static bool
is_token(const char *text, Py_ssize_t size)
{
    static const bool allowed[256] = {
        ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1,
        ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1,
        ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0'] = 1, ['1'] = 1, ['2'] = 1,
        ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1,
        ['9'] = 1, ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1,
        ['F'] = 1, ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1,
        ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1,
        ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1,
        ['X'] = 1, ['Y'] = 1, ['Z'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1,
        ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1,
        ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1,
        ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1,
        ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
    };
    bool good = size > 0;
    Py_ssize_t i;
    for (i = 0; i < size; i++)
        good &= allowed[(unsigned char)text[i]];
    return good;
}

static bool
same_name(const char *name, Py_ssize_t size, const char *lower)
{
    Py_ssize_t i;
    for (i = 0; i < size; i++)
        if ((name[i] | 32) != lower[i])
            return false;
    return lower[size] == '\0';
}

/* Hop-by-hop fields are the server's business (PEP 3333, RFC 9110 7.6.1). */
static bool
hop_by_hop(const char *name, Py_ssize_t size)
{
    static const char *const names[] = {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "te",         "trailer",    "transfer-encoding",  "upgrade"};
    size_t i;
    for (i = 0; i < sizeof names / sizeof names[0]; i++)
        if ((name[0] | 32) == names[i][0] && same_name(name, size, names[i]))
            return true;
    return false;
}

static int
content_length(StartResponse *sr, const char *value, Py_ssize_t size)
{
    int64_t number = 0;
    Py_ssize_t i;
    for (i = 0; i < size; i++) {
        if (value[i] < '0' || value[i] > '9' || number > INT64_MAX / 10 - 10)
            break;
        number = number * 10 + (value[i] - '0');
    }
    if (size == 0 || i < size) {
        PyErr_Format(PyExc_ValueError, "Content-Length is no number: '%.50s'",
                     value);
        return -1;
    }
    if (sr->content_length >= 0 && sr->content_length != number) {
        PyErr_SetString(PyExc_ValueError, "two different Content-Lengths");
        return -1;
    }
    sr->content_length = number;
    return 0;
}

/* One response field, checked and written. */
static int
add_field(StartResponse *sr, PyObject *pair)
{
    const char *name, *value;
    Py_ssize_t name_size, value_size;
    char *to;

    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "a response header must be a (name, value) tuple, not %R",
                     pair);
        return -1;
    }
    name = native(PyTuple_GET_ITEM(pair, 0), "a response header's name",
                  &name_size);
    if (name == NULL)
        return -1;
    value = native(PyTuple_GET_ITEM(pair, 1), "a response header's value",
                   &value_size);
    if (value == NULL)
        return -1;
    if (!is_token(name, name_size)) {
        PyErr_Format(PyExc_ValueError, "no valid response header name: %R",
                     PyTuple_GET_ITEM(pair, 0));
        return -1;
    }
    switch (name[0] | 32) {
    case 'c':
        /* Kept as a number: finish_head writes it where it belongs. */
        if (name_size == 14 && same_name(name, name_size, "content-length"))
            return content_length(sr, value, value_size);
        if (name_size == 10 && same_name(name, name_size, "connection") &&
            value_size == 5 && same_name(value, value_size, "close"))
            sr->closes = true;
        break;
    case 'd':
        if (name_size == 4 && same_name(name, name_size, "date"))
            sr->has_date = true;
        break;
    case 's':
        if (name_size == 6 && same_name(name, name_size, "server"))
            sr->has_server = true;
        break;
    default:
        break;
    }
    if (hop_by_hop(name, name_size))
        return 0;
    if (buffer_reserve(&sr->head, (size_t)(name_size + value_size) + 4) < 0)
        return -1;
    to = sr->head.data + sr->head.size;
    memcpy(to, name, (size_t)name_size);
    to += name_size;
    *to++ = ':';
    *to++ = ' ';
    memcpy(to, value, (size_t)value_size);
    to += value_size;
    *to++ = '\r';
    *to++ = '\n';
    sr->head.size = (size_t)(to - sr->head.data);
    return 0;
}

static int
write_status(StartResponse *sr, PyObject *status)
{
    Py_ssize_t size, i;
    const char *text = native(status, "the status", &size);
    unsigned number = 0;
    if (text == NULL)
        return -1;
    for (i = 0; i < 3 && i < size && text[i] >= '0' && text[i] <= '9'; i++)
        number = number * 10 + (unsigned)(text[i] - '0');
    if (i != 3 || number < 200 || number > 999 ||
        (size > 3 && text[3] != ' ')) {
        PyErr_Format(PyExc_ValueError,
                     "the status must read like '200 OK' (200 to 999), not %R",
                     status);
        return -1;
    }
    sr->head.size = 0;
    sr->status = (uint16_t)number;
    sr->content_length = -1;
    sr->has_date = sr->has_server = sr->closes = false;
    if (ADD_LITERAL(&sr->head, "HTTP/1.1 ") < 0 ||
        buffer_add(&sr->head, text, (size_t)size) < 0 ||
        (size == 3 && ADD_LITERAL(&sr->head, " ") < 0))
        return -1;
    return ADD_LITERAL(&sr->head, "\r\n");
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
    if (count == 3 && named == 0)
        return args[2];
    if (count == 2 && named == 0)
        return Py_None;
    if (count == 2 && named == 1 && sr->context) {
        const int same = PyObject_RichCompareBool(
            PyTuple_GET_ITEM(names, 0), sr->context->app->keys.exc_info, Py_EQ);
        if (same)
            return same > 0 ? args[2] : NULL;
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

    if (exc_info == NULL)
        return NULL;
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
        if (sr->head_sent) { /* too late for another answer */
            PyErr_Restore(Py_NewRef(PyTuple_GET_ITEM(exc_info, 0)),
                          Py_NewRef(PyTuple_GET_ITEM(exc_info, 1)),
                          Py_NewRef(PyTuple_GET_ITEM(exc_info, 2)));
            return NULL;
        }
    } else if (sr->called) {
        PyErr_SetString(PyExc_AssertionError,
                        "start_response was called twice; a second call needs "
                        "exc_info (PEP 3333)");
        return NULL;
    }
    sr->called = false; /* until this call has been found good */
    if (write_status(sr, status) < 0)
        return NULL;
    fast = PySequence_Fast(headers, "the response headers must be a list");
    if (fast == NULL)
        return NULL;
    for (i = 0; i < PySequence_Fast_GET_SIZE(fast); i++)
        if (add_field(sr, PySequence_Fast_GET_ITEM(fast, i)) < 0) {
            Py_DECREF(fast);
            return NULL;
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
    buffer_clear(&self->head);
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
        if (sr == NULL)
            return NULL;
        sr->vectorcall = start_response_call;
        Py_XSETREF(x->start_response, sr);
    }
    sr->context = x;
    sr->head.size = 0;
    sr->content_length = -1;
    sr->sent = 0;
    sr->status = 0;
    sr->called = sr->head_sent = sr->chunked = sr->closes = false;
    sr->has_date = sr->has_server = false;
    return (StartResponse *)Py_NewRef(sr);
}

void
start_response_end(StartResponse *sr)
{
    sr->context = NULL;
    Py_DECREF(sr);
}

int
core_add_start_response(PyObject *module, CoreState *state)
{
    return core_add_type(module, &start_response_spec,
                         &state->start_response_type);
}
