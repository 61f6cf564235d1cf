/* Strings for the application from the bytes of a request. What clients repeat
 * is made once for each thread, and shared.
 *
 * All return a new reference, or NULL and an exception. */
#ifndef POOLSRV_TEXT_H
#define POOLSRV_TEXT_H

#include "python/wsgi/wsgi.h"

#include <string.h>

static inline PyObject *
text_latin1(const char *text, size_t size)
{
    return PyUnicode_DecodeLatin1(text, (Py_ssize_t)size, NULL);
}

static inline bool
text_same(PyObject *text, const char *data, size_t size)
{
    return text && (size_t)PyUnicode_GET_LENGTH(text) == size &&
           memcmp(PyUnicode_1BYTE_DATA(text), data, size) == 0;
}

/* A str for these bytes: the one in *place if it is equal. New reference. */
static inline PyObject *
text_cached(PyObject **place, const char *data, size_t size)
{
    PyObject *text;
    if (text_same(*place, data, size)) {
        return Py_NewRef(*place);
    }
    text = text_latin1(data, size);
    if (text && size <= VALUE_CACHE) {
        Py_XSETREF(*place, Py_NewRef(text));
    }
    return text;
}

/* HTTP_NAME of a field that http1.h does not list. */
PyObject *text_field_key(Context *x, const char *name, size_t size);

/* Empty if they are not known. */
PyObject *text_address(Context *x, const Address *address);
PyObject *text_port(Context *x, uint16_t port);

/* Without its escapes. */
PyObject *text_path(const char *path, size_t size);

static inline PyObject *
text_request_id(const Context *x)
{
    const Record *record = &x->thread->record;
    const size_t size =
        record->id == record->own ? RECORD_ID_SIZE : strlen(record->id);
    PyObject *text = PyUnicode_New((Py_ssize_t)size, 127);
    if (text) {
        memcpy(PyUnicode_1BYTE_DATA(text), record->id, size);
    }
    return text;
}

#endif
