/* The access log. */
#ifndef POOLSRV_ACCESS_LOG_H
#define POOLSRV_ACCESS_LOG_H

#include "worker/worker.h"

/* A line for the request that the thread's record is of, if there is a log.
 * `took` is in nanoseconds. Of a request that could not be read, what is not
 * known is left open. */
void access_log_write(Thread *t, const Conn *c, const Request *r,
                      uint64_t took);

#endif
