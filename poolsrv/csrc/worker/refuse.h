/* Requests that are refused, and time limits that have passed. */
#ifndef POOLSRV_REFUSE_H
#define POOLSRV_REFUSE_H

#include <stdint.h>

#include "worker/exchange.h"

/* Answer with an error and stop reading. */
Step refuse_request(Worker *w, Thread *t, Conn *c, int status,
                    const char *words);
/* Closing at once over bytes that the client still sends would reset the
 * connection, and the reset may overtake the answer: so our side ends first,
 * and the rest is thrown away. */
Step refuse_start_linger(Worker *w, Thread *t, Conn *c);
Step refuse_linger(Worker *w, Thread *t, Conn *c);
/* The time of its state is over; owned. */
void refuse_expire(Worker *w, Thread *t, Conn *c, uint64_t now);

#endif
