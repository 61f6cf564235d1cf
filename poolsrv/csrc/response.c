/* Binding: start_response, the answer's head and body, wsgi.file_wrapper.
 *
 * A small answer is put together in the thread's buffer, so that one system
 * call sends it after the interpreter is let go; a large body is sent from
 * where it lies, and its owner kept until the client has it.
 */
#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <structmember.h>

/* Bodies up to this size are copied behind their head: for less than two
 * pages a memcpy is cheaper than a second iovec and keeping the owner. */
#define COPY_BODY 16384
/* What a chunk has around its data, at most: the size and two line ends. */
#define CHUNK_FRAME 20

/* ------------------------------------------------------------------------
 * Buffers */

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

#define ADD_LITERAL(b, text) buffer_add((b), (text), sizeof(text) - 1)

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

static PyObject *start_response_write(PyObject *self, PyObject *data);

static PyMethodDef write_method = {
    "write", start_response_write, METH_O,
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

/* ------------------------------------------------------------------------
 * Sending */

static bool
bodiless(const StartResponse *sr)
{
    return sr->status == 204 || sr->status == 304;
}

static int
add_date(Context *x)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed",
                                    "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr",
                                       "May", "Jun", "Jul", "Aug",
                                       "Sep", "Oct", "Nov", "Dec"};
    const uint64_t second = x->thread->now / 1000000000u;
    if (second != x->date_second) {
        const time_t now = time(NULL);
        struct tm t;
        gmtime_r(&now, &t);
        /* strftime would follow the application's locale. */
        snprintf(x->date, sizeof x->date,
                 "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n",
                 days[t.tm_wday % 7], t.tm_mday, months[t.tm_mon % 12],
                 t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
        x->date_second = second;
    }
    return buffer_add(&x->out, x->date, strlen(x->date));
}

/* Decide the framing and complete the head in x->out. `length` is the body's
 * if it is known, else -1. */
static int
finish_head(Context *x, StartResponse *sr, int64_t length)
{
    const Http1Head *head = &x->request->head;
    Buffer *out = &x->out;

    if (!sr->called) {
        PyErr_SetString(PyExc_AssertionError,
                        "the application gave a body before it called "
                        "start_response");
        return -1;
    }
    x->conn->status = sr->status;
    x->conn->keep =
        !sr->closes && serve_may_keep(x->thread->serve, x->conn, x->request);
    out->size = 0;
    if (buffer_add(out, sr->head.data, sr->head.size) < 0)
        return -1;
    if (x->app->date_field && !sr->has_date && add_date(x) < 0)
        return -1;
    if (x->app->server_field && !sr->has_server &&
        ADD_LITERAL(out, "Server: poolsrv\r\n") < 0)
        return -1;
    if (sr->content_length < 0 && !bodiless(sr))
        sr->content_length = length;
    if (sr->content_length >= 0 && sr->status != 204) {
        if (ADD_LITERAL(out, "Content-Length: ") < 0 ||
            buffer_add_number(out, (uint64_t)sr->content_length) < 0 ||
            ADD_LITERAL(out, "\r\n") < 0)
            return -1;
    } else if (!bodiless(sr)) {
        /* Neither side knows the length: chunks, or the connection's end. */
        if (head->minor == 0)
            x->conn->keep = false;
        else if (ADD_LITERAL(out, "Transfer-Encoding: chunked\r\n") < 0)
            return -1;
        sr->chunked = head->minor != 0 && !head->is_head;
    }
    if (!x->conn->keep) {
        if (ADD_LITERAL(out, "Connection: close\r\n") < 0)
            return -1;
    } else if (head->minor == 0) {
        if (ADD_LITERAL(out, "Connection: keep-alive\r\n") < 0)
            return -1;
    }
    if (ADD_LITERAL(out, "\r\n") < 0)
        return -1;
    sr->head_sent = true;
    return 0;
}

/* Send x->out and then `size` bytes of `data`, which `owner` keeps alive (its
 * reference stays the caller's). The interpreter is let go meanwhile. */
static void
transmit(Context *x, const char *data, size_t size, PyObject *owner)
{
    /* Not the context's: write() may be called on a thread of its own. */
    PyThreadState *own;
    bool kept = false;
    Py_INCREF(owner);
    own = PyEval_SaveThread();
    serve_send(x->thread, x->conn, x->out.data, x->out.size, data, size, owner,
               &kept);
    PyEval_RestoreThread(own);
    x->out.size = 0;
    if (!kept)
        Py_DECREF(owner);
}

/* How much of a piece of `size` bytes may go out: what a HEAD asked for, and
 * what Content-Length announced. The surplus is cut, and said once. */
static size_t
allowed(Context *x, StartResponse *sr, size_t size)
{
    if (x->request->head.is_head || bodiless(sr))
        return 0;
    if (sr->content_length >= 0 &&
        (int64_t)size > sr->content_length - sr->sent) {
        const size_t rest = (size_t)(sr->content_length - sr->sent);
        serve_note(x->thread->serve, NOTE_WARNING,
                   "request %s: the application sent more than its "
                   "Content-Length of %lld bytes; the rest is cut",
                   x->request_id, (long long)sr->content_length);
        return rest;
    }
    return size;
}

/* Send a piece of the body, with the head before the first. `last` says that
 * nothing follows: all of the answer may then go out together. `length` is the
 * whole body's if known. */
static int
send_piece(Context *x, StartResponse *sr, PyObject *bytes, int64_t length,
           bool last)
{
    char *data;
    Py_ssize_t size;
    size_t body;

    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError,
                     "the body must be made of bytes, not %.100s",
                     Py_TYPE(bytes)->tp_name);
        return -1;
    }
    data = PyBytes_AS_STRING(bytes);
    size = PyBytes_GET_SIZE(bytes);
    if (!sr->head_sent && finish_head(x, sr, length) < 0)
        return -1;
    body = allowed(x, sr, (size_t)size);
    /* All of the room before the first byte: an application may catch the
     * exception and go on, and what follows must not land in half a chunk. */
    if ((body <= COPY_BODY || sr->chunked) &&
        buffer_reserve(&x->out, body + CHUNK_FRAME) < 0)
        return -1;
    sr->sent += (int64_t)body;
    if (sr->chunked && body) {
        char line[20];
        const int n = snprintf(line, sizeof line, "%zx\r\n", body);
        if (buffer_add(&x->out, line, (size_t)n) < 0)
            return -1;
    }
    if (body <= COPY_BODY || sr->chunked) {
        if (buffer_add(&x->out, data, body) < 0 ||
            (sr->chunked && body && ADD_LITERAL(&x->out, "\r\n") < 0))
            return -1;
        body = 0;
    }
    if (last && body == 0)
        return 0; /* response_send's caller sends it with what follows */
    transmit(x, data, body, bytes);
    return 0;
}

/* Between two pieces: give a slow reader time before more is made. */
static void
pace(Context *x)
{
    PyThreadState *own;
    if (x->conn->out_size <= serve_limits(x->thread->serve)->response_buffer)
        return;
    own = PyEval_SaveThread();
    serve_wait_writable(x->thread, x->conn);
    PyEval_RestoreThread(own);
}

static PyObject *
start_response_write(PyObject *self, PyObject *data)
{
    StartResponse *sr = (StartResponse *)self;
    if (sr->context == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "write was called after its request's end");
        return NULL;
    }
    if (PyBytes_Check(data) && PyBytes_GET_SIZE(data) == 0)
        Py_RETURN_NONE;
    if (send_piece(sr->context, sr, data, -1, false) < 0)
        return NULL;
    pace(sr->context);
    Py_RETURN_NONE;
}

/* After the last piece. */
static int
finish_body(Context *x, StartResponse *sr)
{
    if (!sr->head_sent && finish_head(x, sr, 0) < 0)
        return -1;
    if (sr->chunked && ADD_LITERAL(&x->out, "0\r\n\r\n") < 0)
        return -1;
    if (sr->content_length > sr->sent && !x->request->head.is_head &&
        !bodiless(sr)) {
        serve_note(x->thread->serve, NOTE_WARNING,
                   "request %s: the application sent %lld bytes of its "
                   "Content-Length of %lld; the connection is closed",
                   x->request_id, (long long)sr->sent,
                   (long long)sr->content_length);
        x->conn->keep = false;
    }
    return 0;
}

/* ------------------------------------------------------------------------
 * wsgi.file_wrapper */

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

/* An int that a method of the file returns; -1 if it has no such method or
 * says no, which is no error: the file is then read like any other. */
static long long
ask(PyObject *file, const char *method)
{
    PyObject *result = PyObject_CallMethod(file, method, NULL);
    long long number = -1;
    if (result && PyLong_Check(result))
        number = PyLong_AsLongLong(result);
    Py_XDECREF(result);
    PyErr_Clear();
    return number;
}

/* Send a regular file from its position on with sendfile. 1: it is on its way;
 * 0: it is no such file, read it; -1 and exception. */
static int
send_file(Context *x, StartResponse *sr, PyObject *file)
{
    const long long fd = ask(file, "fileno");
    const long long at = fd < 0 ? -1 : ask(file, "tell");
    struct stat info;
    int64_t size;
    int own;

    if (at < 0 || fstat((int)fd, &info) < 0 || !S_ISREG(info.st_mode))
        return 0;
    size = info.st_size > at ? info.st_size - at : 0;
    if (finish_head(x, sr, size) < 0)
        return -1;
    size = (int64_t)allowed(x, sr, (size_t)size);
    sr->sent += size;
    if (sr->chunked) { /* cannot be: its length is known */
        PyErr_SetString(PyExc_SystemError, "a file of unknown length");
        return -1;
    }
    if (size == 0)
        return 1;
    own = fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    x->tstate = PyEval_SaveThread();
    if (serve_send(x->thread, x->conn, x->out.data, x->out.size, NULL, 0, NULL,
                   NULL) == 0)
        serve_send_file(x->thread, x->conn, own, (off_t)at, (uint64_t)size);
    else
        close(own);
    PyEval_RestoreThread(x->tstate);
    x->out.size = 0;
    return 1;
}

/* ------------------------------------------------------------------------
 * What the application returned */

/* A list or tuple: its length is known before anything is sent. */
static int
send_list(Context *x, StartResponse *sr, PyObject *result)
{
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(result);
    int64_t length = sr->sent ? -1 : 0;
    Py_ssize_t i;

    for (i = 0; length >= 0 && i < count; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(result, i);
        length = PyBytes_Check(item) ? length + PyBytes_GET_SIZE(item) : -1;
    }
    /* The list may change while another thread runs: ask its size anew. */
    for (i = 0; i < PySequence_Fast_GET_SIZE(result); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(result, i));
        const bool last = i + 1 == PySequence_Fast_GET_SIZE(result);
        int failed = 0;
        if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item))
            failed = send_piece(x, sr, item, length, last);
        Py_DECREF(item);
        if (failed || x->conn->gone)
            return failed;
    }
    return finish_body(x, sr);
}

static int
send_iterable(Context *x, StartResponse *sr, PyObject *result)
{
    PyObject *iterator = PyObject_GetIter(result), *item;
    int failed = 0;

    if (iterator == NULL)
        return -1;
    while (!failed && !x->conn->gone &&
           (item = PyIter_Next(iterator)) != NULL) {
        /* An empty piece must not send the head (PEP 3333). */
        if (!PyBytes_Check(item) || PyBytes_GET_SIZE(item)) {
            failed = send_piece(x, sr, item, -1, false);
            if (!failed)
                pace(x);
        }
        Py_DECREF(item);
        if (x->request->head.is_head && sr->head_sent)
            break; /* nobody wants the rest */
    }
    Py_DECREF(iterator);
    if (failed || PyErr_Occurred())
        return -1;
    return x->conn->gone ? 0 : finish_body(x, sr);
}

/* close() once, whatever happened; its own exception counts only if there is
 * no other. */
static int
close_result(PyObject *result)
{
    PyObject *type, *value, *traceback, *close, *done = NULL;
    int failed = 0;

    if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
        return 0;
    PyErr_Fetch(&type, &value, &traceback);
    close = PyObject_GetAttrString(result, "close");
    if (close == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        else
            failed = -1;
    } else {
        done = PyObject_CallNoArgs(close);
        failed = done ? 0 : -1;
        Py_XDECREF(done);
        Py_DECREF(close);
    }
    if (type == NULL)
        return failed;
    if (failed)
        PyErr_WriteUnraisable(result); /* the first exception is the cause */
    PyErr_Restore(type, value, traceback);
    return 0;
}

int
response_send(Context *x, StartResponse *sr, PyObject *result)
{
    int failed, sent = 0;

    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        failed = send_list(x, sr, result);
    } else {
        if (Py_TYPE(result) == x->app->state->file_wrapper_type &&
            !sr->head_sent)
            sent = send_file(x, sr, ((FileWrapper *)result)->file);
        failed = sent < 0   ? -1
                 : sent > 0 ? finish_body(x, sr)
                            : send_iterable(x, sr, result);
    }
    /* An answer that is complete is not taken back for a close() that failed.
     */
    if (close_result(result) < 0)
        return failed < 0 ? -1 : 1;
    return failed;
}

void
response_fail(Context *x, StartResponse *sr)
{
    const Http1Head *head = &x->request->head;
    /* A body that could not be read is the client's fault, not ours. */
    const int status = x->request->refusal ? x->request->refusal : 500;
    const char *phrase = serve_phrase(status);

    x->out.size = 0;
    if (sr && sr->head_sent) {
        /* Cut short, without a last chunk: the client must see that. */
        x->conn->keep = false;
        return;
    }
    x->conn->status = (uint16_t)status;
    x->conn->keep = serve_may_keep(x->thread->serve, x->conn, x->request);
    if (ADD_LITERAL(&x->out, "HTTP/1.1 ") < 0 ||
        buffer_add_number(&x->out, (uint64_t)status) < 0 ||
        ADD_LITERAL(&x->out, " ") < 0 ||
        buffer_add(&x->out, phrase, strlen(phrase)) < 0 ||
        ADD_LITERAL(&x->out, "\r\nContent-Type: text/plain\r\n"
                             "Content-Length: ") < 0 ||
        buffer_add_number(&x->out, strlen(phrase) + 5) < 0 ||
        ADD_LITERAL(&x->out, "\r\n") < 0 || add_date(x) < 0 ||
        (!x->conn->keep && ADD_LITERAL(&x->out, "Connection: close\r\n") < 0) ||
        (x->conn->keep && head->minor == 0 &&
         ADD_LITERAL(&x->out, "Connection: keep-alive\r\n") < 0) ||
        ADD_LITERAL(&x->out, "\r\n") < 0 ||
        (!head->is_head && (buffer_add_number(&x->out, (uint64_t)status) < 0 ||
                            ADD_LITERAL(&x->out, " ") < 0 ||
                            buffer_add(&x->out, phrase, strlen(phrase)) < 0 ||
                            ADD_LITERAL(&x->out, "\n") < 0))) {
        PyErr_Clear(); /* no memory even for this: close without an answer */
        x->out.size = 0;
        x->conn->keep = false;
    }
}

int
core_add_response(PyObject *module, CoreState *state)
{
    if (core_add_type(module, &start_response_spec,
                      &state->start_response_type) < 0)
        return -1;
    return core_add_type(module, &file_wrapper_spec, &state->file_wrapper_type);
}
