/* Mounts, as Python gives them to a worker. */
#ifndef POOLSRV_MOUNT_TABLE_H
#define POOLSRV_MOUNT_TABLE_H

#include "python/core.h"

#include "common/mounts.h"

typedef struct {
    Mounts *table;     /* NULL: one application, which is at every path */
    Networks *allowed; /* [count], whose items are ours */
    Py_ssize_t count;
} MountTable;

/* A tuple of (host, path, inner, kind, application, folder, group, status,
 * allowed), where -1 stands for none, and host and path are bytes. It may be
 * empty, and then there is no table. 0, or -1 and exception; clear it in either
 * case. */
int mount_table_read(PyObject *tuple, Py_ssize_t applications,
                     Py_ssize_t folders, MountTable *t);
void mount_table_clear(MountTable *t);

#endif
