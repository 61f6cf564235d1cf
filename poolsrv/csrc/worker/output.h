/* Answers on their way out. */
#ifndef POOLSRV_OUTPUT_H
#define POOLSRV_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/stream.h"
#include "worker/worker.h"

/* Of a connection's patience: this answer has not waited for its reader. */
#define PATIENCE_UNTRIED UINT64_MAX

/* A piece of an answer that the socket has not taken yet. */
typedef struct Segment {
    struct Segment *next;
    const char *data;     /* in `copy`, or the owner's */
    void *owner;          /* garbage when sent, may be NULL */
    uint32_t interpreter; /* the owner's */
    int fd;               /* of a file, or -1 */
    bool lent;            /* a later segment has the same, and closes it */
    off_t offset;         /* in the file */
    uint64_t size;        /* left */
    char copy[];
} Segment;

/* Send head and body in one system call; what the socket does not take is
 * kept. `owner` (may be NULL) keeps `body` alive: if some of it had to wait,
 * true comes back in *kept, the caller gives its reference away, and it comes
 * back as garbage when sent. 0, or -1 if the client is gone (nothing more is
 * sent, ever). */
int output_send(Thread *t, Conn *c, const char *head, size_t head_size,
                const char *body, size_t body_size, void *owner, bool *kept,
                StreamFollow follow);
/* What follows the last bytes of this answer? */
StreamFollow output_last(const Conn *c);

/* Keep an answer, all of it, to be sent by output_flush(): 0, or -1 if there is
 * no memory for it. */
int output_keep(Conn *c, const char *data, size_t size);

/* Send part of a file. `fd` belongs to serve from now on; if it is lent, it
 * goes on to be the caller's, who sends another part of it behind this one,
 * unless the client is gone. */
int output_send_file(Thread *t, Conn *c, int fd, bool lent, off_t offset,
                     uint64_t size);

/* Wait until no more than the response buffer is unsent; -1 if the client is
 * gone, or takes too little for a thread to wait for it. */
int output_wait(Thread *t, Conn *c);

/* Nothing is to be sent: look, now and then, whether the client has reset the
 * connection, and set c->gone. That it sends no more is no such sign. */
void output_look(Thread *t, Conn *c);

/* Go on sending: 1 all is sent, 0 the client must read first, -1 it is gone;
 * 2 there could be more, but others may have their turn. */
int output_flush(Thread *t, Conn *c, StreamFollow follow);
void output_discard(Worker *w, Conn *c);
/* How much the client has taken since the last look. */
uint64_t output_taken(Conn *c);
/* An answer waits without a thread: how long the client has to take some more
 * of it is set as the deadline. False: it has no time left. */
bool output_await_reader(Worker *w, Conn *c, uint64_t now);

/* For pieces.c: what is not sent yet, head and body in one system call. */
int output_send_or_keep(Thread *t, Conn *c, const char *head, size_t head_size,
                        const char *body, size_t body_size, void *owner,
                        bool *kept, StreamFollow follow);

#endif
