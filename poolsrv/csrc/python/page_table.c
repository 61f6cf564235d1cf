/* Binding: pages from tuples. */
#include "python/page_table.h"

int
page_table_read(PyObject *tuple, PageTable *t)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    Http1Page *items = PyMem_Calloc((size_t)count + 1, sizeof *items);

    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *t = (PageTable){.pages.items = items, .tuple = Py_NewRef(tuple)};
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "Hyy#:page",
                              &items[i].status, &items[i].type, &items[i].body,
                              &size)) {
            return -1;
        }
        if (size > HTTP1_PAGE_LONGEST) {
            PyErr_SetString(PyExc_ValueError, "the page is too long");
            return -1;
        }
        items[i].size = (size_t)size;
        t->pages.count++;
    }
    return 0;
}

void
page_table_clear(PageTable *t)
{
    PyMem_Free((void *)t->pages.items);
    Py_CLEAR(t->tuple);
    t->pages = (Http1Pages){0};
}
