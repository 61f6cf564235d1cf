/* A worker's reactor: connections in, complete requests out, answers back.
 *
 * Pure C. Any number of threads over one epoll set, leader and followers: the
 * thread that polls is the thread that serves. The application is a function
 * pointer, so this file knows no Python and no GIL.
 *
 * Ownership. A connection is OWNED by one thread at a time: that thread alone
 * touches it. Whoever sees an event of a connection that is not owned takes it
 * and queues it; an event of an owned one is left to its owner as the EVENT
 * bit. Events are edge-triggered and registered once, so a kept-alive request
 * costs no epoll_ctl. `lock` guards the queue of ready connections, the list
 * of parked threads, the leader's office and the free list.
 */
#ifndef POOLSRV_SERVE_H
#define POOLSRV_SERVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/channel.h"
#include "protocol/http1.h"
#include "worker/schedule.h"
#include "common/scoreboard.h"

/* Bytes that one recv asks for, and a thread's buffer for heads. */
#define REQUEST_BUFFER 65536

typedef struct {
    Http1Limits head;
    uint64_t header_timeout; /* nanoseconds, like all times */
    uint64_t body_timeout;   /* between two reads */
    uint64_t body_rate; /* bytes a second that a body must come at; 0: any */
    uint64_t send_timeout;
    uint64_t send_rate; /* bytes a second that a client must take while a
                         * thread waits for it; 0: any */
    uint64_t keep_alive_timeout; /* 0: a connection serves one request */
    uint64_t body_limit;         /* bytes; UINT64_MAX: none */
    uint64_t body_buffer;        /* bytes kept in memory; more is spooled */
    bool buffering; /* bodies are complete before the application runs */
    uint64_t response_buffer;
    uint32_t keep_alive_requests; /* on one connection; 0: any number */
} WorkerLimits;

typedef struct Worker Worker;
typedef struct Thread Thread;
typedef struct Conn Conn;

/* A request on its way in; complete when the application gets it. The head's
 * spans count from `buffer + start`. */
typedef struct {
    Http1Head head;
    Http1Field *fields;
    char *buffer;
    uint32_t start; /* of this request: pipelined ones came before */
    uint32_t size;  /* filled */
    uint32_t next;  /* where the following request begins, if size is beyond */
    uint32_t capacity;
    Http1Chunks chunks;
    /* Body: in `buffer` behind the head, in memory, or in a file. */
    const char *body;
    char *memory;       /* what must be freed, or NULL */
    uint64_t body_size; /* received so far */
    uint64_t body_capacity;
    uint64_t body_began; /* when its first part was asked for */
    int spool;           /* an unlinked file that holds the body, or -1 */
    /* A streamed body: what the application has not read is in `buffer` from
     * `next` on, still encoded, or still with the client. */
    bool streaming;
    bool ended;      /* all of it has been read */
    bool wanted;     /* 100 Continue has been answered, or was not asked for */
    Http1Span chunk; /* decoded, but no room for it at the last read */
    int refusal;     /* reading went wrong: the status to answer with */
} Request;

/* A piece of an answer that the socket has not taken yet. */
typedef struct Segment {
    struct Segment *next;
    const char *data; /* in `copy`, or the owner's */
    void *owner;      /* garbage when sent, may be NULL */
    int fd;           /* of a file, or -1 */
    off_t offset;     /* in the file */
    uint64_t size;    /* left */
    char copy[];
} Segment;

struct Conn {
    _Atomic uint64_t word; /* generation, ENDS, EVENT, OWNED */
    uint32_t index;
    int fd;
    Conn *next; /* in the ready queue or the free list */
    ChannelItem item;
    uint64_t ready;   /* since when it could be read */
    Word deadline;    /* of the state it is in; 0: none */
    Request *request; /* an incomplete one, or NULL */
    Segment *out, *out_last;
    uint64_t out_size;
    uint64_t sent;     /* bytes that the socket took, ever */
    uint64_t taken;    /* of these, by the client, at the last look */
    uint64_t patience; /* how long a thread may still wait for its reader */
    uint8_t state;
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

/* Small pieces of the answer that the thread is at, which wait for more. */
typedef struct {
    pthread_mutex_t lock; /* of all below: the main thread may send them */
    Conn *conn;
    char *data;
    _Atomic size_t size;
    uint64_t sent; /* when a piece was last sent; the thread's alone */
} Pieces;

struct Thread {
    Worker *worker;
    ThreadRow *row;
    uint32_t index;
    pid_t tid;
    pthread_cond_t wake;
    Thread *next; /* parked before it */
    bool woken;
    bool active;  /* has a connection in hand */
    uint64_t now; /* the last time it looked at the clock */
    Request request;
    Pieces pieces;
    ScheduleMeter meter;
    void *context; /* the application's */
};

/* What the main thread is told. */
typedef enum {
    WATCH_SIGNAL,  /* the signal descriptor is readable */
    WATCH_NOTES,   /* something to log or to release: notes_pop and
                    * output_garbage_pop */
    WATCH_DRAINED, /* nothing is left; the threads are ending */
} WatchResult;

typedef enum { NOTE_DEBUG = 10, NOTE_INFO = 20, NOTE_WARNING = 30 } NoteLevel;

typedef struct {
    NoteLevel level;
    char text[248];
} Note;

/* Serve a complete request: fill in the answer through output_send and its
 * like, set conn->keep and conn->status, and thread->now to when the
 * application returned. */
typedef void WorkerApplication(void *application, Thread *t, Conn *c,
                               Request *r);

typedef struct {
    Scoreboard *board;
    uint32_t slot;
    uint32_t thread_count;
    bool parallel;
    int channel;         /* the worker's end */
    int bell;            /* the supervisor's eventfd */
    int lifeline;        /* a pidfd of the supervisor */
    int signals;         /* readable when a signal came in */
    bool proxy_protocol; /* each connection begins with a PROXY header */
    Networks trusted;    /* of proxies */
    WorkerLimits limits;
    WorkerApplication *application;
    void *argument;
} WorkerOptions;

/* Descriptors and networks stay the caller's. NULL and errno on failure. */
Worker *worker_new(const WorkerOptions *options);
void worker_free(Worker *w);

Thread *threads_at(Worker *w, uint32_t index);

/* A request thread's life: returns when the worker is done. */
void threads_serve(Worker *w, uint32_t index, void *context);

/* The main thread's life, piece by piece. */
WatchResult watch_wait(Worker *w);

/* Finish what is there, hand the idle connections back, take nothing new. */
void watch_drain(Worker *w);

bool notes_pop(Worker *w, Note *note);
void notes_add(Worker *w, NoteLevel level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- For the application, on the thread that serves. -------------------- */

/* May the connection stay open after this answer? Judged before the answer's
 * head is written, which must say so. */
bool exchange_may_keep(const Worker *w, const Conn *c, const Request *r);

/* Send head and body in one system call; what the socket does not take is
 * kept. `owner` (may be NULL) keeps `body` alive: if some of it had to wait,
 * true comes back in *kept, the caller gives its reference away, and it comes
 * back as garbage when sent. 0, or -1 if the client is gone (nothing more is
 * sent, ever). */
int output_send(Thread *t, Conn *c, const char *head, size_t head_size,
                const char *body, size_t body_size, void *owner, bool *kept);

/* Send a piece of a body that more may follow. One that comes upon the heels of
 * another may wait for company: until there is enough, until the answer ends,
 * or until the main thread's next tick. False: send it yourself. */
bool pieces_put_off(Thread *t, Conn *c, const char *data, size_t size);
/* A piece has been sent. */
void pieces_sent(Thread *t);

/* Send part of a file. `fd` belongs to serve from now on. */
int output_send_file(Thread *t, Conn *c, int fd, off_t offset, uint64_t size);

/* Wait until no more than the response buffer is unsent; -1 if the client is
 * gone, or takes too little for a thread to wait for it. */
int output_wait(Thread *t, Conn *c);

/* Read a streamed body: up to `room` bytes, waiting for the client if nothing
 * is there. How many; 0 at its end; -1 if it cannot be read: *words says why,
 * and r->refusal which status tells the client. */
ssize_t body_streamed_read(Thread *t, Conn *c, Request *r, char *to,
                           size_t room, const char **words);

/* Owners whose segments have been sent: one, or NULL. */
void *output_garbage_pop(Worker *w);

const WorkerLimits *worker_limits(const Worker *w);
Schedule *worker_schedule(Worker *w);

#endif
