/* Who answers complete requests. */
#ifndef POOLSRV_HANDLER_H
#define POOLSRV_HANDLER_H

#include "worker/worker.h"

typedef struct Handler {
    /* Answer a request through output_send and its like; set conn->keep,
     * conn->status and record.body_size, and thread->now to when the answer was
     * made. Called on the thread that serves, which owns the connection. */
    void (*serve)(void *argument, Thread *t, Conn *c, Request *r);
    void *argument;
} Handler;

#endif
