/* Events of the dispatcher, as tuples. */
#ifndef POOLSRV_EVENTS_H
#define POOLSRV_EVENTS_H

#include "python/core.h"

#include "supervisor/dispatch.h"

/* A list, in this order; NULL and exception. */
PyObject *events_list(const DispatchEvent *events, int count);

#endif
