/* Connections of a worker: whose they are, what state they are in, what of
 * them is counted.
 *
 * Ownership. A connection is OWNED by one thread at a time: that thread alone
 * touches it. Whoever sees an event of a connection that is not owned takes it
 * and queues it; an event of an owned one is left to its owner as the EVENT
 * bit. Events are edge-triggered and registered once, so a kept-alive request
 * costs no epoll_ctl.
 *
 * States. conn_set_state() alone changes the state, and with it the gauge of
 * connections and the deadline.
 *
 *   from the supervisor              back to it: only from IDLE
 *        |                                 ^
 *        v          the first bytes        |
 *   +-> IDLE ----------------------> PARSE <--- incomplete ---+
 *   |    ^ | its PROXY header, or     | | |                   |
 *   |    | v head, is incomplete      | | +--> HEAD (more) ---+
 *   |   PREFACE, PEEKED               | v
 *   |                      complete   | BODY: the head is complete, the body
 * not |                                 v  | |  PARSE <--- more is here ---
 * RUNNING <-- complete |                               |   |
 *   +---- the answer is sent -------+   | its reader is slow
 *   |                               |   v
 *   +-------------------------------|- WRITING
 *                                   v   v
 *        the answer says `close`:  LINGER ----> FREE, as from any other state
 * if so do refusals                         the client has gone
 * (if the client has said that this was its last request, FREE at once)
 *
 *   state    bytes of the request      of the answer    deadline      gauge
 *   IDLE     none has been received    none             keep-alive    idle
 *   PREFACE  none; the header is       none             header        reading
 *            peeked, not received
 *   PEEKED   none; the head is peeked  none             header        reading
 *   PARSE    thread's buffer, or       none             none: owned   idle
 *            c->request if it had to
 *            let others go first
 *   HEAD     c->request                none             header        reading
 *   BODY     c->request; the body in   100 Continue     body          reading
 *            it, in memory or a file
 *   RUNNING  as in PARSE or BODY       pieces, c->out   none: the     running
 *                                                       deadlines'
 *   UPGRADED given away; what comes is the application's, upgraded
 *            the application's         as well           none (upgrade.h)
 *   WRITING  c->request holds what     c->out           send          writing
 *            came behind, if any
 *   LINGER   thrown away, to 64 MiB    with the kernel  2 s           idle
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

typedef enum {
    CONN_FREE,
    CONN_IDLE,     /* no byte of a request has been received */
    CONN_PREFACE,  /* its PROXY header is incomplete */
    CONN_PEEKED,   /* its head is, and may turn out to be another group's */
    CONN_PARSE,    /* bytes of the next request are here */
    CONN_HEAD,     /* the head is incomplete */
    CONN_BODY,     /* the body is */
    CONN_RUNNING,  /* the application has its request */
    CONN_UPGRADED, /* the application has it: see upgrade.h */
    CONN_WRITING,  /* the answer waits for its reader */
    CONN_LINGER,   /* our side has ended; the client's has not */
} ConnState;

/* How far its next request, or the one that runs, has come: for whoever finds
 * the connection when this process is dead (keeper.h). It is written before the
 * system call that makes it true, so it never says too little. */
typedef enum {
    PROGRESS_UNREAD,    /* no byte of it has been received */
    PROGRESS_BEGUN,     /* some may have been, and none of its answer sent */
    PROGRESS_ANSWERED,  /* some of its answer may have been sent */
    PROGRESS_PASSED_ON, /* another process may have the connection */
} ConnProgress;

/* What follows an answer. */
typedef enum {
    ENDING_KEEP,  /* the next request */
    ENDING_CLOSE, /* our end; the connection's when the client has read it */
    ENDING_RESET, /* the answer lacks its end, and only a reset can say so */
} Ending;

struct Conn {
    _Atomic uint64_t word; /* generation, ENDS, EVENT, OWNED */
    uint32_t index;
    int fd;
    Conn *next; /* in the ready queue, the free list or that of the ended */
    ChannelItem item;
    uint64_t ready;   /* since when it could be read */
    uint64_t rank;    /* in the ready queue: see choice.h */
    Word deadline;    /* of the state it is in; 0: none */
    Request *request; /* an incomplete one, or NULL */
    Segment *out, *out_last;
    uint64_t out_size; /* bytes in these segments, files aside */
    uint64_t sent;     /* bytes that the socket accepted, in total */
    uint64_t taken; /* bytes that the client had acknowledged when last asked */
    uint64_t patience; /* how long we may still wait for its reader */
    uint64_t judged;   /* when that was last found out */
    uint64_t buffered; /* of the worker's, so many bytes are for this one */
    uint64_t spooled;  /* likewise, in a temporary file */
    uint64_t wasted;   /* bytes thrown away since our side has ended */
    uint8_t state;     /* ConnState; by conn_set_state() */
    uint8_t ending;    /* Ending, of the answer on its way */
    uint8_t lane;      /* in the ready queue: a ReadyLane */
    uint16_t thread;   /* that runs it, or did last */
    bool registered;   /* in the epoll set: not before it first waits */
    bool counted;      /* in the load: it has, or is to have, a thread */
    bool drained;      /* nothing is left to receive, as far as we know */
    _Atomic bool gone; /* the client is gone: send nothing more */
    bool deaf;         /* stream_deafen: the end that it gives is our own */
    bool probed;       /* by stream_is_reset */
    bool owes_nothing; /* it was idle when our side ended */
    bool refused;      /* that is the server's, and is counted as such */
    uint16_t status;   /* of the answer on its way */
    _Atomic uint8_t progress; /* ConnProgress; by conn_progress() */
    uint64_t began; /* when the first byte of that request was there */
};

/* The status of a request by which the application took the connection over;
 * it can give no such status itself. */
#define STATUS_UPGRADED 101

static inline void
conn_progress(Conn *c, ConnProgress progress)
{
    atomic_store_explicit(&c->progress, (uint8_t)progress,
                          memory_order_relaxed);
}

/* Has the application taken it over? Then it may hold a descriptor of it. */
static inline bool
conn_is_upgraded(const Conn *c)
{
    return c->status == STATUS_UPGRADED;
}

/* May whoever finds it in a dead worker give it to another? So far the states;
 * PROGRESS_UNREAD must say the same. */
static inline bool
conn_is_unread(ConnState state)
{
    return state == CONN_IDLE || state == CONN_PREFACE || state == CONN_PEEKED;
}

/* May it go to another worker, or to the supervisor? Only while no byte of its
 * next request has been received. */
static inline bool
conn_may_move(const Conn *c)
{
    return c->state == CONN_IDLE;
}

Conn *conn_open(Worker *w, Thread *t, int fd, const ChannelItem *item);
void conn_close(Worker *w, Thread *t, Conn *c);
/* No events of it from now on. Another process may hold the same connection's
 * descriptor (a child that the application forked, the message in which it was
 * handed back), or the application: closing ours does not take it out of our
 * epoll set. */
void conn_forget(Worker *w, Conn *c);
/* As it goes back to the supervisor. One that has c->ready and bytes to read is
 * said to wait for a thread. */
ChannelItem conn_item(Conn *c, uint64_t now);
/* Give owned connections that may move back; at most CHANNEL_BATCH. */
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
void conn_request_free(Conn *c);
/* What it keeps in memory or in a file has changed: count it anew. */
void conn_count_kept(Worker *w, Conn *c);

#endif
