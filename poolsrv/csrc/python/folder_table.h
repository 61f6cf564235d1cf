/* Binding: folders from tuples. */
#ifndef POOLSRV_FOLDER_TABLE_H
#define POOLSRV_FOLDER_TABLE_H

#include "python/core.h"
#include "worker/files.h"

typedef struct {
    Files files;
    PyObject *tuple; /* their texts are in it */
} FolderTable;

/* From a tuple of (path, is_file, links, index, cache_control, immutable,
 * precompressed, fields, types), the texts bytes, types a tuple of (suffix,
 * type); and open them. -1 and exception. */
int folder_table_read(PyObject *tuple, FolderTable *t);
void folder_table_clear(FolderTable *t);

#endif
