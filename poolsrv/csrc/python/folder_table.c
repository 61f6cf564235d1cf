/* Binding: folders from tuples. */
#include "python/folder_table.h"

#include <string.h>

/* -1: there are none of that name. */
static int
links_of(const char *text)
{
    static const char *const names[] = {
#define X(name, text) [name] = text,
        FOLDER_LINKS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            return (int)i;
        }
    }
    PyErr_Format(PyExc_ValueError, "not a kind of links: %s", text);
    return -1;
}

static int
read_types(PyObject *tuple, Folder *folder)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    MediaType *types = PyMem_Calloc((size_t)count + 1, sizeof *types);
    if (types == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    folder->types = types;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "yy:type",
                              &types[i].suffix, &types[i].type)) {
            return -1;
        }
        folder->type_count++;
    }
    return 0;
}

static int
read_folder(PyObject *item, Folder *folder)
{
    const char *links;
    PyObject *types;
    int is_file, precompressed;
    if (!PyArg_ParseTuple(item, "ypsyyypyO!:folder", &folder->path, &is_file,
                          &links, &folder->index, &folder->cache_control,
                          &folder->immutable, &precompressed, &folder->fields,
                          &PyTuple_Type, &types)) {
        return -1;
    }
    const int kind = links_of(links);
    if (kind < 0) {
        return -1;
    }
    folder->links = (FolderLinks)kind;
    folder->is_file = is_file;
    folder->precompressed = precompressed;
    if (read_types(types, folder) < 0) {
        return -1;
    }
    if (folders_open(folder) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

int
folder_table_read(PyObject *tuple, FolderTable *t)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    t->files.folders =
        PyMem_Calloc((size_t)count + 1, sizeof *t->files.folders);
    if (t->files.folders == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    t->tuple = Py_NewRef(tuple);
    for (Py_ssize_t i = 0; i < count; i++) {
        Folder *folder = &t->files.folders[t->files.count++];
        folder->fd = -1;
        if (read_folder(PyTuple_GET_ITEM(tuple, i), folder) < 0) {
            return -1;
        }
    }
    return 0;
}

void
folder_table_clear(FolderTable *t)
{
    for (uint32_t i = 0; i < t->files.count; i++) {
        folders_close(&t->files.folders[i]);
        PyMem_Free((void *)t->files.folders[i].types);
    }
    PyMem_Free(t->files.folders);
    Py_CLEAR(t->tuple);
    *t = (FolderTable){0};
}
