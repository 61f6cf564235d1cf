/* The connections of a worker that are ready for a thread, and whose turn it
 * is.
 *
 * A kept connection whose next request has come, unread, waits here in the fast
 * or the slow lane, and so belongs to the one queue that the supervisor holds
 * the rest of: it is counted in the worker's row, and goes back when another
 * worker has room. What the supervisor sent has its place already, and what has
 * been read in part cannot leave: both wait in a lane of their own, but for
 * slow ones that were sent, which fast ones go before here as well. A
 * connection in the queue is owned by it. The worker's `lock` guards all of
 * this but ready_judge().
 */
#ifndef POOLSRV_READY_H
#define POOLSRV_READY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/choice.h"
#include "worker/worker.h"

/* Those of choice.h, and one more. */
typedef enum {
    READY_FAST = LANE_FAST,
    READY_SLOW = LANE_SLOW,
    READY_PLACED, /* it has a place in the load, or was read in part, and is
                   * not slow */
    READY_LANES
} ReadyLane;

/* Linked by `next`. */
typedef struct {
    Conn *first, *last;
} Chain;

typedef struct {
    Chain lanes[READY_LANES];
    uint32_t count;      /* connections in all lanes */
    uint32_t waiting;    /* of these, those with an unread request */
    uint32_t begun;      /* unread requests that threads took in this tick */
    uint64_t counted_at; /* when it began */
    uint64_t slow_at;    /* when the last one of the slow lane was taken */
    uint64_t took_at;    /* when the last one of any lane was */
    uint64_t told;       /* of `waiting`, to those who look */
    uint64_t told_since, told_rank, told_slow_rank;
} Ready;

void ready_chain(Chain *chain, Conn *c);

/* Find out lane and rank of a connection that becomes ready. Where it will not
 * wait, it is not judged by its path, which takes a system call. */
void ready_judge(const Worker *w, Conn *c, bool waits, uint64_t now);
/* Add all of a chain. */
void ready_push(Worker *w, Chain chain);
/* Is the one to serve next a slow one? */
bool ready_is_slow(const Worker *w);
/* The one to serve next; NULL: there is none. */
Conn *ready_take(Worker *w, uint64_t now);
/* Note how many were begun in the tick that is over, if it is. */
void ready_count_begun(Worker *w, uint64_t now);
/* For how long it should wait although there is a thread, the last free one. */
uint64_t ready_pause(const Worker *w, uint64_t now);
/* Take out the unread one with the lowest rank; the one that came last; one
 * that came before `then`. NULL: there is none. */
Conn *ready_take_first(Worker *w);
/* The first of a lane that ranks below `rank`. */
Conn *ready_take_overdue_fast(Worker *w, uint64_t rank);
Conn *ready_take_overdue_slow(Worker *w, uint64_t rank);
Conn *ready_take_newest(Worker *w);
Conn *ready_take_older(Worker *w, uint64_t then);
/* Of those that wait on kept connections: take out the one that came last;
 * since when the first waits, UINT64_MAX if none does. What the supervisor sent
 * is to be begun next, and stays. */
Conn *ready_take_kept(Worker *w);
uint64_t ready_kept_since(const Worker *w);
/* Publish how many wait, since when, and the lowest rank. */
void ready_tell(Worker *w);

#endif
