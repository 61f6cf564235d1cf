/* Binding: networks from tuples. */
#include "python/networks.h"

#include <string.h>

int
networks_read(PyObject *tuple, Networks *networks)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    Network *items = PyMem_Calloc((size_t)count + 1, sizeof *items);

    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *networks = (Networks){.items = items};
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *bytes;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "bby#:network",
                              &items[i].family, &items[i].bits, &bytes,
                              &size)) {
            return -1;
        }
        if ((size_t)size != address_size(items[i].family) ||
            items[i].bits > size * 8) {
            PyErr_SetString(PyExc_ValueError, "not a network");
            return -1;
        }
        memcpy(items[i].bytes, bytes, (size_t)size);
        networks->count++;
    }
    return 0;
}

void
networks_clear(Networks *networks)
{
    PyMem_Free((void *)networks->items);
    *networks = (Networks){0};
}
