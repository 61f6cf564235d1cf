/* Requests that are refused, and time limits that have passed. */
#ifndef POOLSRV_REFUSE_H
#define POOLSRV_REFUSE_H

#include <stdint.h>

#include "worker/exchange.h"

/* Answer with an error and stop reading. */
Step refuse_request(Worker *w, Thread *t, Conn *c, int status,
                    const char *words);
/* The time of its state is over; owned. */
void refuse_expire(Worker *w, Thread *t, Conn *c, uint64_t now);

#endif
