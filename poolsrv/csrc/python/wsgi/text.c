/* Binding: strings for the application: see text.h. */
#include "python/wsgi/text.h"

#include <arpa/inet.h>
#include <stdio.h>

PyObject *
text_field_key(Context *x, const char *name, size_t size)
{
    char key[5 + 256];
    char *text = key;
    uint32_t hash = 5381;
    size_t i, slot;
    PyObject *result;

    if (size + 5 > sizeof key) {
        text = PyMem_Malloc(size + 5);
        if (text == NULL) {
            return PyErr_NoMemory();
        }
    }
    memcpy(text, "HTTP_", 5);
    for (i = 0; i < size; i++) {
        const char c = name[i];
        text[5 + i] = c == '-'               ? '_'
                      : c >= 'a' && c <= 'z' ? (char)(c - 32)
                                             : c;
        hash = hash * 33 + (unsigned char)text[5 + i];
    }
    slot = hash % NAME_CACHE;
    if (x->names[slot].key && x->names[slot].size == size &&
        memcmp(x->names[slot].name, text + 5, size) == 0) {
        result = Py_NewRef(x->names[slot].key);
    } else {
        result = text_latin1(text, size + 5);
        if (result && size <= sizeof x->names[slot].name) {
            Py_XSETREF(x->names[slot].key, Py_NewRef(result));
            x->names[slot].size = (uint32_t)size;
            memcpy(x->names[slot].name, text + 5, size);
        }
    }
    if (text != key) {
        PyMem_Free(text);
    }
    return result;
}

PyObject *
text_address(Context *x, const Address *address)
{
    const size_t size = address_size(address->family);
    uint32_t hash = address->family;
    char text[INET6_ADDRSTRLEN];
    size_t i;

    if (size == 0) { /* a Unix socket's peer, or not known */
        return PyUnicode_FromStringAndSize(NULL, 0);
    }
    for (i = 0; i < size; i++) {
        hash = hash * 31 + address->bytes[i];
    }
    hash %= ADDRESS_CACHE;
    if (x->addresses[hash].text &&
        x->addresses[hash].address.family == address->family &&
        memcmp(x->addresses[hash].address.bytes, address->bytes, size) == 0) {
        return Py_NewRef(x->addresses[hash].text);
    }
    if (inet_ntop(address->family, address->bytes, text, sizeof text) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_XSETREF(x->addresses[hash].text, PyUnicode_FromString(text));
    x->addresses[hash].address = *address;
    return Py_XNewRef(x->addresses[hash].text);
}

PyObject *
text_port(Context *x, uint16_t port)
{
    const size_t slot = port % PORT_CACHE;
    char text[8];
    if (port == 0) { /* not known */
        return PyUnicode_FromStringAndSize(NULL, 0);
    }
    if (x->ports[slot].text && x->ports[slot].port == port) {
        return Py_NewRef(x->ports[slot].text);
    }
    snprintf(text, sizeof text, "%u", port);
    Py_XSETREF(x->ports[slot].text, PyUnicode_FromString(text));
    x->ports[slot].port = port;
    return Py_XNewRef(x->ports[slot].text);
}

PyObject *
text_path(const char *path, size_t size)
{
    char small[512];
    char *plain = small;
    ptrdiff_t length;
    PyObject *text;
    if (memchr(path, '%', size) == NULL) {
        return text_latin1(path, size);
    }
    if (size > sizeof small) {
        plain = PyMem_Malloc(size);
        if (plain == NULL) {
            return PyErr_NoMemory();
        }
    }
    length = http1_unescape(plain, path, size);
    if (length < 0) {
        PyErr_SetString(PyExc_ValueError, "malformed escape in the path");
        text = NULL;
    } else {
        text = text_latin1(plain, (size_t)length);
    }
    if (plain != small) {
        PyMem_Free(plain);
    }
    return text;
}

void
text_clear(Context *x)
{
    size_t i;
    for (i = 0; i < HTTP1_KNOWN_COUNT; i++) {
        Py_CLEAR(x->values[i]);
    }
    Py_CLEAR(x->target);
    for (i = 0; i < NAME_CACHE; i++) {
        Py_CLEAR(x->names[i].key);
    }
    for (i = 0; i < ADDRESS_CACHE; i++) {
        Py_CLEAR(x->addresses[i].text);
    }
    for (i = 0; i < PORT_CACHE; i++) {
        Py_CLEAR(x->ports[i].text);
    }
}
