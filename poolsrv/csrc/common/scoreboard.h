/* The scoreboard: who does what, and how much has been done.
 *
 * One shared mapping (a memfd that every process inherits). Pure C. Each
 * field stands once, in the tables below; the structs, Python's view of them
 * (`_core.FIELDS`), the metrics, the status page and METRICS.md derive from
 * there.
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
 * The one word with two writers is the load of a slot: see LoadLine.
 */
#ifndef POOLSRV_SCOREBOARD_H
#define POOLSRV_SCOREBOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/path_times.h"

#define SCOREBOARD_LINE 64

/* What is only added to is only looked at: the server acts on atomics and on
 * words that are set. So a build without the additions serves alike, and the
 * difference is what observation costs (POOLSRV_BUILD=unobserved). */
#ifndef SCOREBOARD_OBSERVED
#define SCOREBOARD_OBSERVED 1
#endif

/* Upper bounds of the histogram buckets, in nanoseconds; +Inf follows. From
 * 100 us, because a fast application answers below OpenTelemetry's first
 * bucket of 5 ms. */
#define SCOREBOARD_BUCKETS                                                 \
    {100000,     250000,     500000,     1000000,    2500000,   5000000,   \
     10000000,   25000000,   50000000,   100000000,  250000000, 500000000, \
     1000000000, 2500000000, 5000000000, 10000000000}
#define SCOREBOARD_BUCKET_COUNT 16

/* Words of a histogram: a count per bucket (not cumulative), +Inf, the sum. */
#define SCOREBOARD_HISTOGRAM_WORDS (SCOREBOARD_BUCKET_COUNT + 2)

/* F(field, kind, words, unit, metric, label=values, help)
 *
 * kind    COUNTER only grows; GAUGE may fall (a thread's gauges are signed
 *         shares: only their sum means something); HISTOGRAM.
 * unit    "" | "seconds" (stored as nanoseconds) | "bytes"
 * metric  the name without the prefix poolsrv_ and without _total; "" if the
 *         field is not exported under a name of its own.
 * label   "name=a|b|c" for a field of several words: one value a word. */

#define SCOREBOARD_SUPERVISOR_FIELDS(F)                                        \
    F(accepted, COUNTER, 1, "", "connections_accepted", "",                    \
      "Connections accepted from the listeners")                               \
    F(dispatched, COUNTER, 1, "", "connections_dispatched", "",                \
      "Connections passed to a worker")                                        \
    F(handed_back, COUNTER, 1, "", "connections_handed_back", "",              \
      "Connections that a worker gave back to the supervisor")                 \
    F(reclaimed, COUNTER, 1, "", "connections_reclaimed", "",                  \
      "Connections taken back from a worker that ended before it had them")    \
    F(closed, COUNTER, 7, "", "connections_closed",                            \
      "reason=client|keep_alive_timeout|header_timeout|queue_timeout|"         \
      "queue_full|evicted|stopping",                                           \
      "Connections that the supervisor closed, by reason")                     \
    F(accept_errors, COUNTER, 1, "", "accept_errors", "",                      \
      "Times accepting failed for want of descriptors or memory")              \
    F(parked, GAUGE, 1, "", "", "", "Idle connections held by the supervisor") \
    F(queue_length, GAUGE, 1, "", "queue_length", "",                          \
      "Connections with a request that wait for a free thread")                \
    F(overtook, COUNTER, 1, "", "queue_overtakings", "",                       \
      "Requests that left the queue before one that had waited longer")        \
    F(queue_since, GAUGE, 1, "seconds", "", "",                                \
      "Monotonic time since which the first of the queue waits, 0 if none")    \
    F(loop_busy, COUNTER, 1, "seconds", "supervisor_loop_busy_seconds", "",    \
      "Time the supervisor's loop worked rather than waited")                  \
    F(loop_lag, HISTOGRAM, SCOREBOARD_HISTOGRAM_WORDS, "seconds",              \
      "supervisor_loop_lag_seconds", "",                                       \
      "Time from one wait of the supervisor's loop to the next")               \
    F(state, GAUGE, 1, "", "", "",                                             \
      "lifecycle.ServerState of the server: starting, serving, draining")      \
    F(generation, GAUGE, 1, "", "generation", "",                              \
      "Number of the newest generation that serves")                           \
    F(started_at, GAUGE, 1, "seconds", "", "",                                 \
      "Monotonic time of the supervisor's start")                              \
    F(heartbeat, GAUGE, 1, "seconds", "", "",                                  \
      "Monotonic time of the supervisor's last look at its loop")

#define SCOREBOARD_SLOT_FIELDS(F)                                            \
    F(group, GAUGE, 1, "", "", "", "Index of the group the slot belongs to") \
    F(state, GAUGE, 1, "", "", "", "lifecycle.State of the slot")            \
    F(pid, GAUGE, 1, "", "", "", "Process in the slot, 0 if none")           \
    F(slot_generation, GAUGE, 1, "", "worker_generation", "",                \
      "Generation of the worker in the slot")                                \
    F(spawned_at, GAUGE, 1, "seconds", "", "",                               \
      "Monotonic time the process in the slot was started")                  \
    F(ready_at, GAUGE, 1, "seconds", "", "",                                 \
      "Monotonic time it became ready, 0 if it is not")                      \
    F(restarts, COUNTER, 6, "", "worker_restarts",                           \
      "reason=exit|signal|oom|startup|hang|recycle",                         \
      "Workers that ended and were replaced, by reason")

#define SCOREBOARD_WORKER_FIELDS(F)                                          \
    F(threads, GAUGE, 1, "", "threads", "", "Request threads of the worker") \
    F(ticks, COUNTER, 1, "", "worker_watch_ticks", "",                       \
      "Times the main thread looked after busy threads")                     \
    F(stood_in, COUNTER, 1, "", "worker_stand_ins", "",                      \
      "Times the main thread polled because all threads were busy")

#define SCOREBOARD_THREAD_FIELDS(F)                                           \
    F(requests, COUNTER, 5, "", "requests",                                   \
      "status_class=1xx|2xx|3xx|4xx|5xx",                                     \
      "Requests answered by the application, by class of status")             \
    F(duration, HISTOGRAM, SCOREBOARD_HISTOGRAM_WORDS, "seconds",             \
      "request_duration_seconds", "",                                         \
      "From the first byte of a request to the last byte of its answer")      \
    F(queue, HISTOGRAM, SCOREBOARD_HISTOGRAM_WORDS, "seconds",                \
      "request_queue_seconds", "",                                            \
      "From a complete request to the thread that took it")                   \
    F(read_time, COUNTER, 1, "seconds", "request_read_seconds", "",           \
      "Time between the first and the last byte of requests")                 \
    F(application_time, COUNTER, 1, "seconds", "request_application_seconds", \
      "", "Time spent in the application")                                    \
    F(write_time, COUNTER, 1, "seconds", "request_write_seconds", "",         \
      "Time threads spent writing answers once the application had ended")    \
    F(busy_time, COUNTER, 1, "seconds", "thread_busy_seconds", "",            \
      "Time threads spent on requests; its rate over poolsrv_threads is the " \
      "utilization")                                                          \
    F(bytes_in, COUNTER, 1, "bytes", "received_bytes", "",                    \
      "Bytes read from clients")                                              \
    F(bytes_out, COUNTER, 1, "bytes", "sent_bytes", "",                       \
      "Bytes written to clients")                                             \
    F(refused, COUNTER, 7, "", "requests_refused",                            \
      "status=400|408|413|414|417|431|other",                                 \
      "Requests that the server answered with an error itself")               \
    F(failed, COUNTER, 1, "", "application_errors", "",                       \
      "Requests in which the application raised an exception")                \
    F(disconnected, COUNTER, 1, "", "client_disconnects", "",                 \
      "Requests whose client went away before it had the whole answer")       \
    F(limited, COUNTER, 4, "", "connections_limited",                         \
      "limit=header_timeout|body_timeout|send_timeout|keep_alive_requests",   \
      "Connections closed by a worker because a limit was reached")           \
    F(unproxied, COUNTER, 2, "", "proxy_protocol_refusals",                   \
      "reason=untrusted|malformed",                                           \
      "Connections closed because no trusted peer began them with a PROXY "   \
      "header")                                                               \
    F(connections, GAUGE, 4, "", "", "state=idle|reading|running|writing",    \
      "Connections held by the worker, by state")                             \
    F(wakeups, COUNTER, 1, "", "thread_wakeups", "",                          \
      "Times a thread woke another to help")

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
    /* The rank (held.h) of the one that a free thread is for; 0: none waits. */
    _Atomic uint64_t turn;
    _Atomic uint32_t stopping; /* the server ends: keep no connection */
} SCOREBOARD_ROW NoticeLine;

/* Two writers, hence a line of its own. The supervisor adds one to `load`
 * when it passes a connection, so that the place is taken at once; the worker
 * adds one for a request on a connection that it kept, and takes one off when
 * a request ends or turns out to be incomplete. `limit` is how far the
 * supervisor may go (schedule_limit): the threads; for an application that
 * answers within microseconds as much more as it does in a millisecond; for one
 * whose calls are long and compute, two. `held` counts the connections in the
 * worker, busy or not: added to and taken off likewise. */
typedef struct {
    _Atomic int32_t load;
    _Atomic int32_t limit;
    _Atomic int32_t held;
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
    uint32_t thread_count; /* request threads a slot; one more row follows */
    SupervisorRow *supervisor;
    NoticeLine *notice;
    LoadLine *loads; /* [slot_count] */
    SlotRow *slots;  /* [slot_count] */
    Forecast *forecast;
    WorkerRow *workers; /* [slot_count] */
    ThreadRow *threads; /* [slot_count * (thread_count + 1)] */
} Scoreboard;

/* Make a memfd for so many slots and threads; the descriptor, or -1 and errno.
 */
int scoreboard_create(uint32_t slots, uint32_t threads);

/* Map it; 0, or -1 and errno (EINVAL: not a scoreboard of this version, or
 * cut short: touching it would be a SIGBUS later). */
int scoreboard_attach(Scoreboard *board, int fd);
void scoreboard_detach(Scoreboard *board);

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

/* For the row's only writer: no lock prefix, no fence. */
static inline void
word_add(Word *word, uint64_t more)
{
    uint64_t old;
    if (!SCOREBOARD_OBSERVED)
        return;
    old = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, old + more, memory_order_relaxed);
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

static inline void
histogram_add(Word *histogram, uint64_t nanoseconds)
{
    static const uint64_t bounds[] = SCOREBOARD_BUCKETS;
    size_t i = 0;
    /* Linear: what is frequent is fast, so it is found at once. */
    while (i < SCOREBOARD_BUCKET_COUNT && nanoseconds > bounds[i])
        i++;
    word_add(&histogram[i], 1);
    word_add(&histogram[SCOREBOARD_BUCKET_COUNT + 1], nanoseconds);
}

#endif
