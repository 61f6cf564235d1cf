/* Requests that are refused, and time limits that have passed. */
#ifndef POOLSRV_REFUSE_H
#define POOLSRV_REFUSE_H

#include <stdint.h>

#include "worker/exchange.h"
#include "worker/handler.h"

/* Answer with an error and stop reading. */
Step refuse_request(Worker *w, Thread *t, Conn *c, int status,
                    const char *words);
/* Answers with r->route.status, and leaves the connection open if it may: the
 * request is complete. */
extern const Handler refuse_handler;
/* A request, or a PROXY header, has not come in time. */
Step refuse_late(Worker *w, Thread *t, Conn *c);
/* All that is here has been received, and it is not enough: wait for more,
 * unless the time for it is over (t->now says). */
Step refuse_if_late(Worker *w, Thread *t, Conn *c);
/* The time of its state is over; owned. */
void refuse_expire(Worker *w, Thread *t, Conn *c, uint64_t now);

#endif
