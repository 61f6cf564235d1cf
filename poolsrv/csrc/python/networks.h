/* Networks, as Python gives them to a worker. */
#ifndef POOLSRV_PYTHON_NETWORKS_H
#define POOLSRV_PYTHON_NETWORKS_H

#include "python/core.h"

#include "common/address.h"

/* A tuple of (family, bits, bytes). 0, or -1 and exception; clear them in
 * either case. */
int networks_read(PyObject *tuple, Networks *networks);
void networks_clear(Networks *networks);

#endif
