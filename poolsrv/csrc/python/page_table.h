/* Pages of the server's own answers, as Python gives them. */
#ifndef POOLSRV_PAGE_TABLE_H
#define POOLSRV_PAGE_TABLE_H

#include "python/core.h"

#include "protocol/http1_answer.h"

typedef struct {
    Http1Pages pages; /* the items are ours */
    PyObject *tuple;  /* what they say is in it */
} PageTable;

/* From a tuple of (status, type, body), the texts bytes. 0, or -1 and
 * exception; clear it in either case. */
int page_table_read(PyObject *tuple, PageTable *t);
void page_table_clear(PageTable *t);

#endif
