/* Who is served next, and where: the rules of the one queue.
 *
 * Pure C: facts in, decisions out; no system call, no clock, no state. A
 * request waits in the supervisor or, on a connection that a worker kept, in
 * that worker; both sides decide by these rules, so that all waiting requests
 * are one queue. The simulation and the tests call them as well.
 */
#ifndef POOLSRV_CHOICE_H
#define POOLSRV_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/ladder.h"

#define CHOICE_NONE UINT32_MAX

/* A request goes in one of two lanes. Each lane is in order of arrival. */
typedef enum { LANE_FAST, LANE_SLOW, LANE_COUNT } Lane;

/* By how much a request of the slow lane may be overtaken: as if it had come
 * so many times its own usual duration later, but no more than `most`. */
typedef struct {
    uint32_t times; /* 0: nobody is overtaken */
    uint64_t most;  /* nanoseconds */
} ChoicePatience;

/* For how many nanoseconds a request that usually takes `usual` may be
 * overtaken; `mean` is the mean of all requests. 0: it is not slow. A request
 * is slow if it takes more than twice the mean. So if all requests are of one
 * kind none is slow, and all are served in order of arrival, whatever they
 * take. */
uint64_t choice_delay(uint64_t usual, uint64_t mean, ChoicePatience patience);

/* The mean after one more request. From 0 it rises slowly, so what comes first
 * and takes long is slow at first. */
static inline uint64_t
choice_mean(uint64_t mean, uint64_t took)
{
    return took > mean ? mean + (took - mean) / 16 : mean - (mean - took) / 16;
}

static inline Lane
choice_lane(uint64_t delay)
{
    return delay ? LANE_SLOW : LANE_FAST;
}

/* The first requests of both lanes are compared by rank, wherever they wait:
 * the one with the lower rank is served first. A rank is a time in
 * nanoseconds. */
static inline uint64_t
choice_rank(uint64_t since, uint64_t delay)
{
    return since + delay;
}

/* A worker as the others see it. */
typedef struct {
    int32_t load;        /* requests that were sent to it or run in it */
    int32_t limit;       /* load up to which it is sent more */
    int32_t width;       /* requests that it serves at a time */
    int32_t waiting;     /* unread requests in it that wait for a thread */
    int32_t connections; /* in it, busy or not */
    /* The lowest rank of those that wait on kept connections, and the lowest of
     * those that go in the slow lane; 0: none does. */
    uint64_t rank, slow_rank;
} ChoiceWorker;

/* Requests that a worker with a free thread would begin within a tick. */
int32_t choice_room(const ChoiceWorker *worker);

/* The worker that the next request of a lane, of this rank, goes to: the one
 * with the most threads beyond what it has; of equals the one with the fewest
 * connections, because those will ask again; of these the first at or behind
 * `first`. CHOICE_NONE: it must wait. A worker that has reached its limit is
 * sent more if all that wait there rank more than a tick behind: so it goes
 * before them as soon as a thread comes free. Within a tick it is not worth the
 * way. So many slow ones as the worker has threads, which may all come free
 * together, and fast ones up to twice as many. A slow one is compared with the
 * slow ones there, since fast ones go before it wherever it is. */
uint32_t choice_worker(const ChoiceWorker *workers, uint32_t count,
                       uint32_t first, Lane lane, uint64_t rank);

/* For how long the last free thread of so many leaves a slow request waiting
 * that usually takes `usual`, if the slow one before it was begun `since` ago.
 * Threads that begin slow requests together end them together, and stay
 * together for good: then fast ones wait for as long as a slow one takes.
 * Apart, they wait for a part of that. A tick at most: within one, no order
 * counts. */
uint64_t choice_pause(uint64_t usual, uint32_t threads, uint64_t since);

/* For how long a finished answer may wait for others, if its request has
 * `waited` for a thread: a quarter of that, so nobody waits much longer than
 * without, and a tick at most. */
uint64_t choice_company(uint64_t waited);

/* How many that wait in a worker it will not begin within a tick: it begins as
 * many as in the last one, unless it has begun none `since` half a tick. */
uint32_t choice_surplus(uint32_t waiting, uint32_t begun, uint64_t since);

/* How many of these should go, the oldest first, if others have so much room.
 * All, if none of them is begun here: what they make room for within the next
 * tick is not known, and to wait for that tick would cost more than the way. */
uint32_t choice_moving(uint32_t waiting, uint32_t surplus, uint32_t room);

/* Below which rank a request that waits elsewhere is overdue beside those of
 * its lane that wait in this worker, and should go: the supervisor has it begun
 * before them. They rank more than a sweep behind, which is how often it is
 * asked: what changes sooner evens out by itself. 0: none is. */
uint64_t choice_overdue(const ChoiceWorker *worker, Lane lane);

/* How many that wait in a worker should go so that it has no more connections
 * than the one with the fewest. */
uint32_t choice_excess(int32_t connections, int32_t fewest, uint32_t waiting);

#endif
