/* Leader and followers: the threads of a worker over one epoll set, and the
 * queue of connections that are ready. */
#ifndef POOLSRV_THREADS_H
#define POOLSRV_THREADS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/buffer.h"
#include "common/scoreboard.h"
#include "worker/conn.h"
#include "worker/deadline.h"
#include "worker/pieces.h"
#include "worker/ready.h"
#include "worker/record.h"
#include "worker/request.h"
#include "worker/schedule.h"
#include "worker/worker.h"

/* Of a worker's `leader`, beside the index of the thread that polls. */
#define LEADER_NONE (-1)
#define LEADER_MAIN (-2)

/* In `epoll`, next to connections: indices that no connection has. */
#define INDEX_CHANNEL UINT32_MAX
#define INDEX_NUDGE (UINT32_MAX - 1)

struct Thread {
    Worker *worker;
    ThreadRow *row;
    uint32_t index;
    uint32_t home; /* the interpreter that it serves in if any will do */
    _Atomic uint32_t interpreter; /* that of its request, or of its last */
    pid_t tid;
    pthread_cond_t wake;
    Thread *next; /* parked before it */
    bool woken;
    bool active;     /* has a connection in hand */
    bool puts_off;   /* the answer that it has finished: see gather.h */
    uint64_t now;    /* the last time it looked at the clock */
    uint64_t queued; /* for so long its request waited for it */
    Word waited;     /* for the client, in this request; by whoever waited */
    Request request;
    Pieces pieces;
    Record record; /* of the request that it serves or served last */
    Buffer out;    /* the answer that it puts together */
    ScheduleMeter meter;
    uint64_t looked; /* when output_look last did */
    Conn *conn;      /* whose request the application has, or had last */
    Deadline deadline;
    _Atomic bool upgraded; /* its call has taken `conn` over: see upgrade.h;
                            * changes under the worker's lock */
    int upgraded_fd;       /* the application's */
    void *context;         /* the application's */
};

Thread *threads_at(Worker *w, uint32_t index);
/* A request thread's life: returns when the worker is done. */
void threads_serve(Worker *w, uint32_t index, void *context);

/* Wait for events; the connections that became ready. */
Chain threads_poll(Worker *w, Thread *t, int timeout);
/* Take a thread from the parked, to be signalled, or NULL. `lock` is held. */
Thread *threads_unpark(Worker *w);
/* To the end of the ready queue, owned: its thread goes on with the first. */
void threads_queue(Worker *w, Conn *c, uint64_t now);
/* The same from the main thread, which has no time: a thread is called. */
void threads_call(Worker *w, Conn *c);

#endif
