/* Bodies that are complete before the application runs. */
#ifndef POOLSRV_BODY_KEPT_H
#define POOLSRV_BODY_KEPT_H

#include <stddef.h>
#include <stdint.h>

#include "worker/exchange.h"

/* The head is complete, its body is not: go on in a Request of our own. */
Step body_kept_start(Worker *w, Thread *t, Conn *c, Request *r);
Step body_kept_read(Worker *w, Thread *t, Conn *c);

#endif
