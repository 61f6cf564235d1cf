/* How many threads of a worker should be awake.
 *
 * Pure C, no threads and no clock: facts in, decisions out. Waking a second
 * thread costs (it fights for the GIL, and caches move), not waking it stalls
 * those who wait behind an application that sleeps. So it is judged by what
 * the application does: while its calls compute, one thread for each lock does
 * all the work (FEW); once they block, each thread that takes work wakes
 * another to look for more (MANY). A call blocked if no other ran beside it,
 * its thread gave up its processor of its own accord and wall time went by
 * without CPU time; being preempted is neither. Calls are measured only while
 * they are long enough to matter.
 *
 * MANY is a lease: with several threads awake, waiting for the GIL looks like
 * blocking. So at its end it goes on only if the process has left its processor
 * idle for most of it; else one thread is tried alone and the application
 * judged afresh. What that costs, the tick bounds.
 */
#ifndef POOLSRV_SCHEDULE_H
#define POOLSRV_SCHEDULE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/choice.h"

/* Most GILs of a worker. */
#define SCHEDULE_LOCKS 64

typedef enum { SCHEDULE_FEW, SCHEDULE_MANY } ScheduleMode;

typedef struct {
    bool parallel; /* threads do not hinder one another */
    int32_t threads;
    int32_t locks;
    _Atomic uint32_t mode;
    _Atomic uint32_t mean;    /* of a call's duration, as if it were alone */
    _Atomic uint32_t blocked; /* mean of the time a call blocked */
    /* By lock: calls begun so far (upper half), and running. */
    _Atomic uint64_t calls[SCHEDULE_LOCKS];
    /* The main thread's alone. */
    uint64_t lease; /* MANY until then; 0: it has not seen it begin */
    uint64_t cpu;   /* of the process, when it began */
} Schedule;

/* One per thread: which calls to measure. */
typedef struct {
    uint32_t measure; /* calls yet to be measured, all or some */
    uint32_t skipped; /* calls since the first of those */
    uint32_t call;    /* number of the call that its thread is in */
    bool alone;       /* no other call ran when it began */
    uint32_t lock;    /* that of the call that its thread is in */
} ScheduleMeter;

/* `locks`: so many threads may run at the same time, each with a GIL of its
 * own. As many as there are threads where these need none. */
void schedule_init(Schedule *s, int32_t threads, int32_t locks);

/* A call begins, with meter->lock: should it be measured (two getrusage, 0.6
 * us)? */
bool schedule_runs(Schedule *s, ScheduleMeter *meter);

/* It took `wall`; of a measured one, `switches` voluntary context switches and
 * `cpu` nanoseconds; else pass `measured` false. */
void schedule_ran(Schedule *s, ScheduleMeter *meter, uint64_t wall,
                  bool measured, uint64_t cpu, long switches);

/* A call that began is none of those that are judged: it takes as long as its
 * connection lasts. Instead of schedule_ran(). */
void schedule_left(Schedule *s, const ScheduleMeter *meter);

/* A thread takes work: should it wake another, if there is one? */
bool schedule_wakes(const Schedule *s);

/* What a call takes, in nanoseconds; 0: nobody knows yet. */
static inline uint64_t
schedule_mean(const Schedule *s)
{
    return atomic_load_explicit(&s->mean, memory_order_relaxed);
}

/* `computing` threads run: would one more find a lock of its own? */
static inline bool
schedule_has_lock(const Schedule *s, int32_t computing)
{
    return computing < s->locks;
}

/* Requests that this worker serves at a time, where so many threads are in
 * calls that take longer than a tick, and others are awake beside them. */
int32_t schedule_width(const Schedule *s, int32_t stuck);

/* Requests that the supervisor may have sent or running in this worker: as many
 * more than the width as it serves within a tick, so that a thread finds its
 * next request here. */
int32_t schedule_limit(const Schedule *s, int32_t stuck);

/* What the tick saw of the threads. */
typedef struct {
    int32_t held;     /* threads that are not there: see upgrade.h */
    int32_t busy;     /* of the others, those in a call */
    int32_t stuck;    /* of those, in the same call for a tick */
    bool asleep;      /* all of those sleep rather than compute */
    int32_t parked;   /* threads that wait to be woken */
    bool polled;      /* a thread looks for events */
    bool served;      /* what comes meanwhile goes to a free worker */
    uint64_t longest; /* of the calls that are stuck */
    uint64_t cpu; /* of the process so far; 0: nobody asked, the mode was FEW */
} ScheduleView;

typedef enum {
    TICK_NOTHING,
    TICK_WAKE, /* wake a parked thread */
} TickDecision;

/* Of the calls that are stuck, those beside which another thread is awake: so
 * many more requests are served at a time. */
int32_t schedule_beside(const Schedule *s, const ScheduleView *view,
                        TickDecision decision);

TickDecision schedule_tick(Schedule *s, const ScheduleView *view, uint64_t now);

#endif
