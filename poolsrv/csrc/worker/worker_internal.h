/* What threads.c, watch.c, conn.c, exchange.c, body.c and output.c share,
 * and nobody else. */
#ifndef POOLSRV_SERVE_PRIVATE_H
#define POOLSRV_SERVE_PRIVATE_H

#include "common/clock.h"
#include "worker/worker.h"

#define CONN_BLOCK 256
#define CONN_BLOCKS 4096
#define NOTES_MOST 64

/* A kept-alive connection that was silent for so long goes back to the
 * supervisor: its next request may find a better worker. Shorter would pass
 * clients to and fro that think for a moment. */
#define IDLE_GRACE CLOCK_SECOND
/* The first segment of an answer that must wait is copied up to this size;
 * above, its owner is kept. */
#define COPY_MOST 16384
/* Pieces of an answer that wait for company, in bytes. */
#define PIECES_MOST 16384
/* Of a connection's patience: no thread has waited for this answer's reader. */
#define PATIENCE_UNTRIED UINT64_MAX

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

#define CONN_OWNED UINT64_C(1)
#define CONN_EVENT UINT64_C(2)
#define CONN_ENDS UINT64_C(4) /* the client sends no more than is here */
#define CONN_BITS 3           /* the generation stands above */

#define LEADER_NONE (-1)
#define LEADER_MAIN (-2)

typedef enum { WATCH_OFF, WATCH_SLOW, WATCH_FAST } WatchPace;

/* In `watch`. */
typedef enum {
    WATCHED_TIMER,
    WATCHED_BELL,
    WATCHED_SIGNALS,
    WATCHED_LIFELINE,
    WATCHED_EPOLL
} Watched;

struct Worker {
    WorkerOptions o;
    LoadLine *line;
    int epoll; /* connections, the channel, `nudge` */
    int nudge; /* eventfd: each ring gets the leader out of its wait */
    int watch; /* epoll of the main thread */
    int timer;
    int bell; /* eventfd: something for the main thread */
    Schedule schedule;
    Thread *threads;
    Thread main; /* the main thread where it acts for connections */

    pthread_mutex_t lock;
    Conn *ready, *ready_last; /* owned; first come, first served */
    Thread *parked;           /* last come, first woken: its caches are warm */
    int32_t parked_count;
    int32_t leader;
    int32_t active;  /* threads with a connection in hand */
    int32_t stuck;   /* of these, in the same call for a tick */
    uint64_t polled; /* when a thread last looked for events */
    Conn *free;
    bool quitting;

    Conn *blocks[CONN_BLOCKS];
    _Atomic uint32_t conn_count; /* places made so far */
    _Atomic uint32_t live;       /* of those, in use */
    _Atomic uint32_t pace;
    _Atomic bool draining;
    bool orphan;
    uint64_t orphan_end;
    uint64_t swept;
    uint32_t *sequences; /* [threads] at the last tick */

    pthread_mutex_t side; /* guards notes and garbage */
    Note notes[NOTES_MOST];
    uint32_t note_first, note_count, note_lost;
    NoteLevel note_lost_level; /* the highest of those lost */
    Segment *garbage;
    _Atomic bool has_garbage;
};

static inline Conn *
conn_at(Worker *w, uint32_t index)
{
    return &w->blocks[index / CONN_BLOCK][index % CONN_BLOCK];
}

static inline void
conn_seen(Thread *t, ConnSeen from, ConnSeen to)
{
    word_add(&t->row->connections[from], (uint64_t)-1);
    word_add(&t->row->connections[to], 1);
}

/* conn.c */
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
/* Have these bytes emptied the socket? */
bool conn_is_all(const Conn *c, size_t n, size_t room);
/* Give the connection a Request of its own with the bytes of `r`; NULL: no
 * memory. */
Request *request_adopt(Worker *w, Conn *c, Request *r);
void conn_request_free(Conn *c);

/* exchange.c */
void exchange_run(Worker *w, Thread *t, Conn *c);
/* The time of its state is over; owned. */
void refuse_expire(Worker *w, Thread *t, Conn *c, uint64_t now);

/* body.c */
int request_init(Request *r, const Http1Limits *limits, uint32_t capacity);
void request_clear(Request *r);
int request_grow(Request *r, uint32_t capacity);
/* The next size of a head's buffer. */
uint32_t request_larger(uint32_t size);
/* Is the rest of a streamed body in the buffer? *end: where it ends. */
bool body_streamed_end(const Request *r, uint32_t *end);

extern const char request_go_on[];
extern const char request_too_large[];
void request_drop_body(Request *r);
uint64_t request_body_deadline(const Worker *w, const Request *r, uint64_t now);
int body_kept_reserve(Request *r, uint64_t more, uint64_t expected);
/* Keep bytes of a body: 0, or the status to refuse with. */
int body_kept_add(Worker *w, Request *r, const char *data, size_t size);
/* Decode chunks and keep them. 1: complete, *used bytes were its; 0: more is
 * needed; else the status to refuse with, *words why. */
int body_kept_decode(Worker *w, Request *r, const char *data, size_t size,
                     size_t *used, const char **words);
/* Keep what came behind a body for the next request. */
int body_kept_put_back(Request *r, const char *data, uint32_t size);

/* output.c */
/* Go on sending: 1 all is sent, 0 the client must read first, -1 it is gone;
 * 2 there could be more, but others may have their turn. */
int output_flush(Thread *t, Conn *c);
void output_discard(Worker *w, Conn *c);
/* Send the pieces that wait for company, before anything else is sent and at
 * the end of each request: none is left. 0, or -1 if the client is gone. */
int pieces_flush(Thread *t, Conn *c);
/* From the main thread: what has waited for company long enough. */
void pieces_tick(Worker *w);
/* How much the client has taken since the last look. */
uint64_t output_taken(Conn *c);

/* threads.c */
/* Owned connections that are ready, first come first. */
typedef struct {
    Conn *first, *last;
} Chain;

void threads_chain(Chain *chain, Conn *c);
/* Wait for events; the connections that became ready. */
Chain threads_poll(Worker *w, Thread *t, int timeout);
/* Add to the ready queue; take a thread from the parked, to be signalled, or
 * NULL. `lock` is held. */
void threads_push(Worker *w, Conn *first, Conn *last);
Thread *threads_unpark(Worker *w);
void worker_ring(int bell);
/* The worker has room for so many more; the supervisor is told if one waits, or
 * if it waits for the end. */
void conn_unload(Worker *w, uint32_t count);
/* To the end of the ready queue, owned: its thread goes on with the first. */
void threads_queue(Worker *w, Conn *c);
/* The same from the main thread, which has no time: a thread is called. */
void threads_call(Worker *w, Conn *c);

/* watch.c */
/* A request begins: the main thread's clock must run. */
void watch_arm(Worker *w);
/* A connection waits, with a deadline. */
void watch_attend(Worker *w);

#endif
