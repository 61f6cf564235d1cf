/* Connections of a worker: whose they are, what state they are in, what of
 * them is counted.
 *
 * Ownership. A connection is OWNED by one thread at a time: that thread alone
 * touches it. Whoever sees an event of a connection that is not owned takes it
 * and queues it; an event of an owned one is left to its owner as the EVENT
 * bit. Events are edge-triggered and registered once, so a kept-alive request
 * costs no epoll_ctl.
 */
#ifndef POOLSRV_CONN_H
#define POOLSRV_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/channel.h"
#include "common/scoreboard.h"
#include "worker/output.h"
#include "worker/request.h"
#include "worker/worker.h"

#define CONN_BLOCK 256
#define CONN_BLOCKS 4096

#define CONN_OWNED UINT64_C(1)
#define CONN_EVENT UINT64_C(2)
#define CONN_ENDS UINT64_C(4) /* the client sends no more than is here */
#define CONN_BITS 3           /* the generation stands above */

/* A kept-alive connection that was silent for so long goes back to the
 * supervisor: its next request may find a better worker. Shorter would pass
 * clients to and fro that think for a moment. */
#define IDLE_GRACE CLOCK_SECOND

typedef enum {
    CONN_FREE,
    CONN_IDLE,    /* no byte of a request has been read */
    CONN_PREFACE, /* its PROXY header is incomplete, and unread */
    CONN_PARSE,   /* bytes of the next one are in the thread's buffer */
    CONN_HEAD,    /* the head is incomplete */
    CONN_BODY,    /* the body is */
    CONN_WRITING, /* the answer waits for its reader */
    CONN_LINGER,  /* refused; waits for the client to close */
} ConnState;

struct Conn {
    _Atomic uint64_t word; /* generation, ENDS, EVENT, OWNED */
    uint32_t index;
    int fd;
    Conn *next; /* in the ready queue or the free list */
    ChannelItem item;
    uint64_t ready;   /* since when it could be read */
    uint64_t rank;    /* in the ready queue: see choice.h */
    Word deadline;    /* of the state it is in; 0: none */
    Request *request; /* an incomplete one, or NULL */
    Segment *out, *out_last;
    uint64_t out_size;
    uint64_t sent;     /* bytes that the socket took, ever */
    uint64_t taken;    /* of these, by the client, at the last look */
    uint64_t patience; /* how long a thread may still wait for its reader */
    uint8_t state;
    uint8_t lane;    /* in the ready queue: a ReadyLane */
    bool registered; /* in the epoll set */
    bool counted;    /* in the load */
    bool drained;    /* the last recv took all there was */
    bool keep;       /* after the answer, go on */
    bool gone;       /* the client is: write nothing more */
    bool broken;     /* the answer lacks its end, and only a reset can say so */
    bool unread;     /* it sends a body that nobody reads */
    bool more;       /* its end, or a file, follows at once what is sent now */
    uint16_t status; /* of the answer on its way */
    uint64_t began;  /* of that request */
};

Conn *conn_open(Worker *w, Thread *t, int fd, const ChannelItem *item);
void conn_close(Worker *w, Thread *t, Conn *c);
/* Give owned connections back, unread; at most CHANNEL_BATCH. */
void conn_hand_back(Worker *w, Thread *t, Conn **conns, uint32_t count,
                    uint64_t now);
/* No longer owned; false: it has an event, and the caller still owns it. */
bool conn_release(Worker *w, Conn *c);
/* Its request counts in the load, or no longer. */
void conn_count(Worker *w, Conn *c);
void conn_uncount(Worker *w, Conn *c);
/* The worker has room for so many more; the supervisor is told if one waits, or
 * if it waits for the end. */
void conn_unload(Worker *w, uint32_t count);
/* Have these bytes emptied the socket? */
bool conn_is_all(const Conn *c, size_t n, size_t room);
void conn_request_free(Conn *c);

#endif
