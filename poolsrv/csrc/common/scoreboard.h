/* The scoreboard: who does what, and how much has been done.
 *
 * One shared mapping (a memfd that every process inherits). Pure C. The
 * fields stand in the tables of scoreboard_fields.h.
 *
 * Rows and their only writers:
 *   supervisor  the supervisor
 *   slot        the supervisor: a worker's place in the pool
 *   worker      the main thread of the process in the slot
 *   thread      that thread
 * A row starts on a cache line of its own and needs no lock: readers get
 * untorn 64-bit numbers, not a consistent set. Rows outlive the process in
 * the slot: its successor goes on counting. When a process has ended, the
 * supervisor is the writer of its rows until the next one starts
 * (scoreboard_bury).
 *
 * Words with more than one writer: `load` and `connections` of a LoadLine, all
 * of PathTimes, and `lines_lost` (word_add_shared).
 */
#ifndef POOLSRV_SCOREBOARD_H
#define POOLSRV_SCOREBOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/choice.h"
#include "common/path_times.h"
#include "common/scoreboard_fields.h"

#define SCOREBOARD_LINE 64

/* What is only added to is for observers: the server acts on atomics and on
 * words that are set. So a build without the additions serves alike, and the
 * difference is what observation costs (POOLSRV_BUILD=unobserved). */
#ifndef SCOREBOARD_OBSERVED
#define SCOREBOARD_OBSERVED 1
#endif

typedef _Atomic uint64_t Word;

/* No two rows share a cache line. */
#define SCOREBOARD_ROW __attribute__((aligned(SCOREBOARD_LINE)))

#define SCOREBOARD_MEMBER(field, kind, words, unit, metric, label, help) \
    Word field[words];

typedef struct {
    SCOREBOARD_SUPERVISOR_FIELDS(SCOREBOARD_MEMBER)
} SCOREBOARD_ROW SupervisorRow;

/* What the supervisor tells all workers. They read it with each request and it
 * changes rarely, hence a line of its own: the supervisor's row changes with
 * each round of its loop. */
typedef struct {
    /* The rank (choice.h) of the first that waits in the supervisor; 0: none
     * waits there. */
    _Atomic uint64_t turn;
    /* The server ends: keep no connection. 2: and what waits in a worker stays
     * there, because the supervisor sends nothing more. */
    _Atomic uint32_t stopping;
    /* Requests that wait are to be refused: they would be lost with all of it.
     */
    _Atomic uint32_t last_call;
    /* Of the whole queue; the same for as long as the server lives. */
    _Atomic uint32_t queue_size;
    _Atomic uint64_t queue_timeout; /* nanoseconds */
} SCOREBOARD_ROW NoticeLine;

/* Two writers, hence a line of its own. The supervisor adds one to `load` when
 * it passes a connection, so that the place is taken at once; the worker adds
 * one for a request on a connection that it kept, and takes one off when a
 * request ends or turns out to be incomplete. `width` is how many requests the
 * worker serves at a time, `limit` is the load up to which the supervisor
 * sends: `width`, and as many more as the worker serves within a tick
 * (schedule_limit). `connections` counts those in the worker, busy or not:
 * added to and taken off likewise; `most` is for how many of them it has
 * descriptors, 0 if it has not said. */
typedef struct {
    _Atomic int32_t load;
    _Atomic int32_t limit;
    _Atomic int32_t width;
    _Atomic int32_t connections;
    _Atomic int32_t most;
} SCOREBOARD_ROW LoadLine;

typedef struct {
    SCOREBOARD_SLOT_FIELDS(SCOREBOARD_MEMBER)
} SCOREBOARD_ROW SlotRow;

typedef struct {
    SCOREBOARD_WORKER_FIELDS(SCOREBOARD_MEMBER)
} SCOREBOARD_ROW WorkerRow;

/* What a thread does now; readable when the worker hangs or is dead. */
typedef enum {
    THREAD_IDLE,
    THREAD_APPLICATION, /* in the application: its call, or its iterable */
    THREAD_READING,     /* waits for the rest of a body that is streamed */
    THREAD_WRITING,     /* waits for a slow reader */
    THREAD_UPGRADED,    /* in the application, which has the connection */
    THREAD_FILE,        /* opens, reads or sends a file of a mount */
} ThreadState;

typedef struct {
    _Atomic uint32_t state;
    _Atomic uint32_t
        sequence;    /* grows with each request: tells stuck from busy */
    Word since;      /* when the request was taken, 0 if idle */
    Word ready;      /* when the request was complete */
    char method[16]; /* NUL-terminated, cut if longer */
    char path[160];  /* without query, as sent, cut if longer */
    char request_id[40];
} Current;

typedef struct {
    SCOREBOARD_THREAD_FIELDS(SCOREBOARD_MEMBER)
    Current current;
} SCOREBOARD_ROW ThreadRow;

#undef SCOREBOARD_MEMBER

/* A mapped scoreboard; the pointers lead into the mapping. */
typedef struct {
    void *base;
    size_t size;
    uint32_t slot_count;
    uint32_t thread_count; /* request threads per slot; one more row follows */
    SupervisorRow *supervisor;
    NoticeLine *notice;
    LoadLine *loads; /* [slot_count] */
    SlotRow *slots;  /* [slot_count] */
    PathTimes *path_times;
    WorkerRow *workers; /* [slot_count] */
    ThreadRow *threads; /* [slot_count * (thread_count + 1)] */
    /* What the counters of the server were before this scoreboard: of all
     * supervisors that this one has followed. Readers add it. */
    SupervisorRow *carried_supervisor;
    SlotRow *carried_slots;     /* [slot_count] */
    WorkerRow *carried_workers; /* [slot_count] */
    ThreadRow *carried_threads; /* [slot_count]: all threads of a slot */
} Scoreboard;

/* Make a memfd for so many slots and threads; the descriptor, or -1 and errno.
 */
int scoreboard_create(uint32_t slots, uint32_t threads);

/* Map it; 0, or -1 and errno (EINVAL: not a scoreboard of this version, or
 * cut short: touching it would be a SIGBUS later). */
int scoreboard_attach(Scoreboard *board, int fd);
void scoreboard_detach(Scoreboard *board);
/* A ForkLeave. In a child that the application forks: what is on its way to the
 * scoreboard must end, and must not arrive. From now on it is memory that
 * nobody shares. */
void scoreboard_leave(void *board);

/* The process of a slot has ended and its supervisor speaks for it: fold the
 * time of requests that ran into busy_time, zero its gauges and its load. */
void scoreboard_bury(Scoreboard *board, uint32_t slot, uint64_t now);

/* The row of a request thread; `thread_count` names the main thread's, which
 * counts what it does for connections. */
static inline ThreadRow *
scoreboard_thread(const Scoreboard *board, uint32_t slot, uint32_t thread)
{
    return &board->threads[(size_t)slot * (board->thread_count + 1) + thread];
}

/* A worker as choice.h wants to see it. */
ChoiceWorker scoreboard_view(const Scoreboard *board, uint32_t slot);

/* For the row's only writer: no lock prefix, no fence. */
static inline void
word_add(Word *word, uint64_t more)
{
    uint64_t old;
    if (!SCOREBOARD_OBSERVED) {
        return;
    }
    old = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, old + more, memory_order_relaxed);
}

/* For a word that several threads or processes add to. */
static inline void
word_add_shared(Word *word, uint64_t more)
{
    if (SCOREBOARD_OBSERVED) {
        atomic_fetch_add_explicit(word, more, memory_order_relaxed);
    }
}

static inline void
word_set(Word *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline uint64_t
word_get(const Word *word)
{
    return atomic_load_explicit((Word *)word, memory_order_relaxed);
}

/* A thread takes its next request. */
static inline void
scoreboard_next(Current *current)
{
    const uint32_t last =
        atomic_load_explicit(&current->sequence, memory_order_relaxed);
    atomic_store_explicit(&current->sequence, last + 1, memory_order_relaxed);
}

/* The word of `refused` that counts a status, which is one of ours. */
static inline Refused
scoreboard_refused(int status)
{
    switch (status) {
#define X(number, phrase) \
    case number:          \
        return REFUSED_##number;
        STATUS_PHRASES(X)
#undef X
    default:
        return REFUSED_500;
    }
}

static inline void
histogram_add(Word *histogram, uint64_t nanoseconds)
{
    word_add(&histogram[histogram_bucket(nanoseconds)], 1);
    word_add(&histogram[HISTOGRAM_BUCKETS], nanoseconds);
}

#endif
