/* What is said on a connection: requests in, answers out, from its first byte
 * to its last. */
#ifndef POOLSRV_EXCHANGE_H
#define POOLSRV_EXCHANGE_H

#include <stdbool.h>

#include "worker/worker.h"

typedef enum {
    STEP_AGAIN, /* look at the state again */
    STEP_WAIT,  /* until the socket is ready */
    STEP_GONE,  /* closed or handed back: not ours any more */
} Step;

/* Go on with a connection that is ready and owned. */
void exchange_run(Worker *w, Thread *t, Conn *c);
/* Send an answer that has waited for others. What follows it, if it is here by
 * now, is queued. */
void exchange_send_on(Worker *w, Thread *t, Conn *c);

/* May the connection stay open after this answer? Judged before the answer's
 * head is written, which must say so. */
bool exchange_may_keep(const Worker *w, const Conn *c, const Request *r);

/* A request is complete, since then: run the application. */
Step exchange_serve(Worker *w, Thread *t, Conn *c, Request *r,
                    uint64_t complete);
/* What has been received of a request has been parsed, with this result: what
 * now? */
Step exchange_parsed(Worker *w, Thread *t, Conn *c, Request *r,
                     Http1Result result);
Step exchange_hang_up(Worker *w, Thread *t, Conn *c);
/* The client went away while its request was read. */
Step exchange_client_left(Worker *w, Thread *t, Conn *c);

#endif
