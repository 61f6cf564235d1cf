/* Binding: mounts from tuples. */
#include "python/mount_table.h"

#include <string.h>

#include "common/channel.h"
#include "python/networks.h"

/* MOUNT_KIND_COUNT for what is none. */
static MountKind
kind_of(const char *text)
{
    static const char *const names[MOUNT_KIND_COUNT] = {
#define X(name, text) [name] = text,
        MOUNT_KINDS(X)
#undef X
    };
    int kind = 0;
    while (kind < MOUNT_KIND_COUNT && strcmp(text, names[kind]) != 0) {
        kind++;
    }
    return (MountKind)kind;
}

/* The texts of `mount` stay those of the tuple. */
static int
read_mount(PyObject *item, const MountReader *reader, Mount *mount,
           Networks *allowed)
{
    const char *host, *path, *text;
    Py_ssize_t host_size, path_size;
    int application, folder, group, status, inner;
    PyObject *networks;

    if (!PyArg_ParseTuple(item, "y#y#isiiiiO!:mount", &host, &host_size, &path,
                          &path_size, &inner, &text, &application, &folder,
                          &group, &status, &PyTuple_Type, &networks)) {
        return -1;
    }
    const MountKind kind = kind_of(text);
    const bool is_own = group >= 0 && (unsigned)group == reader->group;
    if (kind == MOUNT_KIND_COUNT || application >= reader->applications ||
        folder >= reader->folders ||
        (kind == MOUNT_APPLICATION && application < 0 && is_own) ||
        (kind == MOUNT_FOLDER && folder < 0) || group < 0 ||
        group > CHANNEL_GROUPS || status < 0 || status > 999 || inner < 0 ||
        inner > path_size || host_size > UINT16_MAX || path_size > UINT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "not a mount");
        return -1;
    }
    if (networks_read(networks, allowed) < 0) {
        return -1;
    }
    *mount = (Mount){
        .host = {.text = host, .size = (uint32_t)host_size},
        .path = {.text = path, .size = (uint32_t)path_size},
        .inner = (uint32_t)inner,
        .kind = kind,
        .number = mount->number,
        .application = application < 0 ? MOUNT_NONE : (uint32_t)application,
        .folder = folder < 0 ? MOUNT_NONE : (uint32_t)folder,
        .group = (uint16_t)group,
        .status = (uint16_t)status,
        .allowed = *allowed,
    };
    return 0;
}

int
mount_table_read(PyObject *tuple, const MountReader *reader, MountTable *t)
{
    const Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    Mount *mounts = NULL;
    int result = -1;

    if (reader->applications == 0 && count == 0) {
        PyErr_SetString(PyExc_ValueError, "nothing is mounted");
        return -1;
    }
    if (count == 0) {
        return 0;
    }
    mounts = PyMem_Calloc((size_t)count, sizeof *mounts);
    t->allowed = PyMem_Calloc((size_t)count, sizeof *t->allowed);
    if (mounts == NULL || t->allowed == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    t->count = count;
    for (Py_ssize_t i = 0; i < count; i++) {
        mounts[i].number = (uint32_t)i;
        if (read_mount(PyTuple_GET_ITEM(tuple, i), reader, &mounts[i],
                       &t->allowed[i]) < 0) {
            goto done;
        }
    }
    t->table = mounts_new(mounts, (uint32_t)count);
    if (t->table == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    result = 0;
done:
    PyMem_Free(mounts);
    return result;
}

void
mount_table_clear(MountTable *t)
{
    mounts_free(t->table);
    for (Py_ssize_t i = 0; i < t->count; i++) {
        networks_clear(&t->allowed[i]);
    }
    PyMem_Free(t->allowed);
    *t = (MountTable){0};
}
