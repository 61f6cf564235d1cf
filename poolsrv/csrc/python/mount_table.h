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

/* Who reads it: what there is of its own. */
typedef struct {
    Py_ssize_t applications, folders;
    unsigned group;
} MountReader;

/* A tuple of (host, path, inner, kind, application, folder, group, status,
 * allowed), where -1 stands for none, and host and path are bytes. The
 * application of another group is not here, so it has no number. 0, or -1 and
 * exception; clear it in either case. An empty tuple is no table. */
int mount_table_read(PyObject *tuple, const MountReader *reader, MountTable *t);
void mount_table_clear(MountTable *t);

#endif
