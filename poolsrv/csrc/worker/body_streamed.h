/* Bodies that the application reads while the client sends. */
#ifndef POOLSRV_BODY_STREAMED_H
#define POOLSRV_BODY_STREAMED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/worker.h"

/* Before the first body_streamed_read: the client may wait for 100 Continue. */
void body_streamed_want(Thread *t, Conn *c, Request *r);

/* Read a streamed body: up to `room` bytes, waiting for the client if nothing
 * is there. How many; 0 at its end; -1 if it cannot be read: *words says why,
 * and r->refusal which status tells the client. */
ssize_t body_streamed_read(Thread *t, Conn *c, Request *r, char *to,
                           size_t room, const char **words);

/* The request ends while another thread may wait in body_streamed_read: it sees
 * the end of the body. */
void body_streamed_abandon(Conn *c, Request *r);

/* Is the rest of a streamed body in the buffer? *end: where it ends. */
bool body_streamed_end(const Request *r, uint32_t *end);

#endif
