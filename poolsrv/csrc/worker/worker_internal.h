/* The Worker itself, and what all files of this folder share. */
#ifndef POOLSRV_WORKER_INTERNAL_H
#define POOLSRV_WORKER_INTERNAL_H

#include "common/clock.h"
#include "common/forks.h"
#include "common/refusals.h"
#include "worker/conn.h"
#include "worker/descriptors.h"
#include "worker/drain.h"
#include "worker/gather.h"
#include "worker/stream.h"
#include "worker/notes.h"
#include "worker/own.h"
#include "worker/ready.h"
#include "worker/threads.h"
#include "worker/watch.h"
#include "worker/watchdog.h"
#include "worker/worker.h"

typedef enum { WATCH_OFF, WATCH_SLOW, WATCH_FAST } WatchPace;

/* In `watch`. */
typedef enum {
    WATCHED_TIMER,
    WATCHED_ALARM,
    WATCHED_SIGNALS,
    WATCHED_LIFELINE,
    WATCHED_EPOLL
} Watched;

typedef struct {
    Segment *first;
    _Atomic bool any;
} Garbage;

struct Worker {
    WorkerOptions o;
    Http1Limits head_limits; /* of `o`, as the parser takes them */
    uint64_t believed;       /* fields of trusted proxies, HTTP1_BIT each */
    uint64_t routed; /* and that of HTTP1_OTHER, which stands for any request,
                      * if there are mounts or maintenance: whose route is
                      * looked for */
    bool shares;     /* listeners with other groups: see group.h */
    bool looks;      /* at bytes before it receives them */
    LoadLine *line;
    int epoll; /* connections, the channel, `nudge` */
    int nudge; /* eventfd: each ring gets the leader out of its wait */
    int watch; /* epoll of the main thread */
    int timer;
    int alarm; /* eventfd: something for the main thread */
    Schedule schedule;
    Thread *threads;
    Thread main; /* the main thread where it acts for connections */

    pthread_mutex_t lock;
    Ready ready;
    Gathered gathered;
    Thread *parked; /* last come, first woken: its caches are warm */
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
    DrainStep drain_step;
    char *spool_folder;
    Descriptors descriptors;
    Own own;
    bool left; /* this process is a child that the application has forked */
    ForkGuard guard;
    bool orphan;
    _Atomic int broken; /* an errno */
    uint64_t orphan_end;
    _Atomic bool away; /* the main thread: no tick comes, for as long as another
                        * thread may keep the interpreter */
    Word swept;        /* when sweep_run last did */
    _Atomic uint64_t passed;   /* when a thread last came by: watch_pass */
    _Atomic uint32_t upgraded; /* connections: threads whose call has one */
    uint32_t begun;            /* ready.begun of the last tick; by `lock` */
    _Atomic uint32_t lost;     /* threads whose connection was taken away */
    bool asked_for_another;    /* worker, because of them */
    Watchdog watchdog;

    pthread_mutex_t side; /* guards notes, refusals and garbage */
    Refusals refusals;
    _Atomic bool has_refusals; /* not said yet */
    Note notes[NOTES_MOST];
    uint32_t note_first, note_count, note_lost;
    uint32_t note_said; /* since note_second */
    uint64_t note_second;
    NoteLevel note_lost_level; /* the highest of those lost */
    Garbage garbage[INTERPRETERS_MOST];
    _Atomic(Conn *) ended; /* owned; the main thread looks at them next */
};

/* The file of the connections; -1: they are in memory of this process. */
static inline int
worker_places(const Worker *w)
{
    return w->o.keeper ? w->o.places : -1;
}

static inline Conn *
conn_at(Worker *w, uint32_t index)
{
    return &w->blocks[index / CONN_BLOCK][index % CONN_BLOCK];
}

/* Do connections keep as much in memory as they may, all together? */
static inline bool
worker_is_full(const Worker *w)
{
    return word_get(w->o.board->workers[w->o.slot].buffered) >=
           w->o.limits.worker_buffer;
}

/* Until when a connection may stay in a state that begins now; 0: no limit. */
static inline uint64_t
conn_time_limit(const Worker *w, const Conn *c, ConnState state, uint64_t now)
{
    const WorkerLimits *limits = &w->o.limits;
    switch (state) {
    case CONN_IDLE:
        return now + (limits->keep_alive_timeout < LADDER_IDLE
                          ? limits->keep_alive_timeout
                          : LADDER_IDLE);
    case CONN_PREFACE:
        return now + limits->header_timeout;
    case CONN_PEEKED:
    case CONN_HEAD:
        return c->began + limits->header_timeout;
    case CONN_BODY:
        return request_body_deadline(w, c->request, now);
    case CONN_WRITING:
        return now + limits->send_timeout;
    case CONN_LINGER:
        return now + LINGER_TIMEOUT;
    case CONN_FREE:
    case CONN_PARSE:
    case CONN_RUNNING:
    case CONN_UPGRADED:
        break;
    }
    return 0;
}

/* The gauge's column of a state; SEEN_COUNT: none. */
static inline ConnSeen
conn_column(ConnState state)
{
    switch (state) {
    case CONN_FREE:
        return SEEN_COUNT;
    case CONN_PREFACE:
    case CONN_PEEKED:
    case CONN_HEAD:
    case CONN_BODY:
        return SEEN_READING;
    case CONN_RUNNING:
        return SEEN_RUNNING;
    case CONN_UPGRADED:
        return SEEN_UPGRADED;
    case CONN_WRITING:
        return SEEN_WRITING;
    case CONN_IDLE:
    case CONN_PARSE:
    case CONN_LINGER:
        break;
    }
    return SEEN_IDLE;
}

/* The one place that changes a state. t->now is when. */
static inline void
conn_set_state(const Worker *w, Thread *t, Conn *c, ConnState state)
{
    const ConnSeen from = conn_column((ConnState)c->state);
    const ConnSeen to = conn_column(state);
    if (from != to && from != SEEN_COUNT) {
        word_add(&t->row->connections[from], (uint64_t)-1);
    }
    if (from != to && to != SEEN_COUNT) {
        word_add(&t->row->connections[to], 1);
    }
    c->state = (uint8_t)state;
    word_set(&c->deadline, conn_time_limit(w, c, state, t->now));
}

/* False: the bell is gone. */
bool worker_ring(int bell);
/* This process cannot go on, because of this errno: the application has closed
 * our descriptors, most likely. The main thread ends it, if it can still be
 * told.
 */
void worker_break(Worker *w, int error);

#endif
