/* A worker, for those who make one: its options, its life, its application.
 *
 * Pure C. Any number of threads over one epoll set, leader and followers: the
 * thread that polls is the thread that serves. The application is a function
 * pointer, so nothing in this folder knows Python or its lock.
 *
 * A header for each file says what the others may call: threads.h (who polls
 * and serves), conn.h (connections and their states), exchange.h (what is said
 * on one), preface.h, request.h, body_kept.h, body_streamed.h (bytes in),
 * output.h, garbage.h, pieces.h, gather.h (bytes out), route.h (where to),
 * refuse.h (errors), watch.h (the main thread), sweep.h (its look at time
 * limits), share.h (at what waits), drain.h (the end), deadline.h, overdue.h,
 * watchdog.h (applications that hang), notes.h (what is to be logged),
 * schedule.h (how many threads). An application needs conn.h, request.h,
 * threads.h and what it calls. worker_internal.h is for this folder alone.
 */
#ifndef POOLSRV_WORKER_H
#define POOLSRV_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/address.h"
#include "common/log_file.h"
#include "common/mounts.h"
#include "common/options.h"
#include "common/scoreboard.h"
#include "protocol/http1.h"
#include "protocol/http1_answer.h"
#include "worker/schedule.h"

typedef struct Worker Worker;
typedef struct Thread Thread;
typedef struct Conn Conn;
typedef struct Request Request;

typedef struct {
    WORKER_OPTIONS(OPTION_MEMBER)
} WorkerLimits;

/* handler.h */
struct Handler;

typedef struct {
    Scoreboard *board;
    uint32_t slot;
    uint32_t thread_count;
    uint32_t interpreters; /* in which the handler calls applications, each
                            * with a lock of its own; 0 stands for 1 */
    bool parallel;
    bool guest;        /* of a process that is not ours: its limits stay */
    int channel;       /* the worker's end */
    pid_t keeper;      /* 0: there is none, and `places` is not used */
    int places;        /* the file for its connections (places.h) */
    int bell;          /* the supervisor's eventfd */
    int lifeline;      /* a pidfd of the supervisor */
    int signals;       /* readable when a signal came in */
    int stacks_signal; /* its handler writes all stacks to `stacks`; 0: none */
    int stacks;        /* a file that the supervisor reads */
    Networks trusted;  /* of proxies */
    WorkerLimits limits;
    uint64_t id_prefix; /* of request ids: random */
    LogFile access_log;
    const struct Handler *handler; /* of requests for applications */
    const struct Handler *files;   /* of those for folders, if there are any */
    const Mounts *mounts;    /* NULL: one application, which is at every path */
    uint16_t group;          /* ours: the mounts of others are not */
    Http1Pages pages;        /* of the server's own answers */
    const char *maintenance; /* a file, whose content is the page while the
                              * supervisor says so; NULL: it never does */
    const char *maintenance_type; /* of that page */
    Networks bypass;              /* whose clients it is not for */
} WorkerOptions;

/* Descriptors and networks stay the caller's. NULL and errno on failure. */
Worker *worker_new(const WorkerOptions *options);
/* Only when no thread is in threads_serve any more. */
void worker_free(Worker *w);

/* Is this process a child that the application has forked? It has none of our
 * descriptors, and locks in `w` may be held for ever: it must end, or do
 * something else. */
bool worker_left(const Worker *w);

/* At most so many `interpreters`. */
#define INTERPRETERS_MOST SCHEDULE_LOCKS

const WorkerLimits *worker_limits(const Worker *w);
Schedule *worker_schedule(Worker *w);

#endif
