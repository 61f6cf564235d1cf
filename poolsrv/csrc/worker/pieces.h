/* Small pieces of an answer, which wait for company. */
#ifndef POOLSRV_PIECES_H
#define POOLSRV_PIECES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/stream.h"
#include "worker/worker.h"

/* Pieces of an answer that wait for company, in bytes. */
#define PIECES_MOST 16384

/* Small pieces of the answer that the thread is at, which wait for more. */
typedef struct {
    pthread_mutex_t lock; /* of all below: the main thread may send them */
    Conn *conn;
    char *data;
    _Atomic size_t size;
    uint64_t sent; /* when a piece was last sent; the thread's alone */
} Pieces;

/* Send a piece of a body that more may follow. One that comes upon the heels of
 * another may wait for company: until there is enough, until the answer ends,
 * or until the main thread's next tick. False: send it yourself. */
bool pieces_put_off(Thread *t, Conn *c, const char *data, size_t size);
/* A piece has been sent. */
void pieces_sent(Thread *t);

/* Send the pieces that wait for company, before anything else is sent and at
 * the end of each request: none is left. 0, or -1 if the client is gone. */
int pieces_flush(Thread *t, Conn *c, StreamFollow follow);
/* The same, and a body behind them, as output_send. */
int pieces_send(Thread *t, Conn *c, const char *body, size_t body_size,
                void *owner, bool *kept, StreamFollow follow);
/* What waits becomes the connection's, to be sent by output_flush(). 0, or -1
 * if there is no memory for it. */
int pieces_keep(Thread *t, Conn *c);
bool pieces_wait(const Thread *t);
/* Add to those that wait; false: there is no room, send it. */
bool pieces_add(Thread *t, Conn *c, const char *data, size_t size);
/* From the main thread: what has waited for company long enough. */
void pieces_tick(Worker *w);

#endif
