/* How long the application may go without a sign of life, and who may touch
 * the connection meanwhile.
 *
 * A sign of life is a piece of the answer that is given, or a piece of the
 * body that is taken. Pure: nothing here waits, sends or logs; overdue.c acts.
 *
 * The stage says whose the connection is. While the application runs, the main
 * thread may raise an exception in its thread; if that brings it to no end, it
 * takes the connection away. A thread that comes back to the server's code
 * takes hold of it first, so that neither is done to a request that is over.
 *
 *     OURS --begin--> APPLICATION --raise--> RAISING --> RAISED
 *      ^ ^                |                                | |
 *      | +----- hold -----+----------- hold ---------------+ | take
 *      +------------------ end ------------------- LOST <----+
 */
#ifndef POOLSRV_DEADLINE_H
#define POOLSRV_DEADLINE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/scoreboard.h"

typedef enum {
    DEADLINE_OURS,        /* the server's code runs on the thread, or none */
    DEADLINE_APPLICATION, /* the application does */
    DEADLINE_RAISING,     /* the main thread raises an exception in it, now */
    DEADLINE_RAISED,      /* it has */
    DEADLINE_LOST,        /* the connection is not the thread's any more */
} DeadlineStage;

typedef struct {
    _Atomic uint32_t stage;   /* DeadlineStage */
    _Atomic uint32_t own_for; /* the request (Current.sequence) with a limit
                               * of its own, which is: */
    Word own_limit;           /* nanoseconds; 0: none */
    Word alive;               /* the last sign of life, of any request */
    uint32_t lost_request;    /* the last that was taken away; the thread's */
    /* The main thread's. */
    uint32_t told; /* the last request that was told of as late */
    uint64_t told_at;
    uint64_t raised_at;
    uint8_t news; /* DeadlineVerdict that nobody has heard yet */
} Deadline;

typedef enum {
    DEADLINE_KEPT,
    DEADLINE_LATE,  /* it gives no sign of life: raise */
    DEADLINE_STUCK, /* and raising has not helped: take the connection away */
} DeadlineVerdict;

/* As `request`: the time of each is over, also of one with its own limit. */
#define DEADLINE_OVER UINT64_MAX

/* `request` and `interrupt` are the limits, in nanoseconds; the first may be 0
 * for none, or DEADLINE_OVER. `since` is when the thread took the request
 * `sequence`, or 0. */
DeadlineVerdict deadline_judge(const Deadline *d, uint64_t request,
                               uint64_t interrupt, uint64_t since,
                               uint32_t sequence, uint64_t now);

/* --- The thread. ------------------------------------------------------- */

static inline void
deadline_begin(Deadline *d)
{
    atomic_store_explicit(&d->stage, DEADLINE_APPLICATION,
                          memory_order_release);
}

/* Take hold of the connection. False: it has been taken away. */
static inline bool
deadline_hold(Deadline *d)
{
    uint32_t stage = atomic_load_explicit(&d->stage, memory_order_relaxed);
    for (;;) {
        if (stage == DEADLINE_LOST) {
            return false;
        }
        if (stage == DEADLINE_RAISING) { /* for some instructions */
            sched_yield();
            stage = atomic_load_explicit(&d->stage, memory_order_acquire);
        } else if (atomic_compare_exchange_weak(&d->stage, &stage,
                                                DEADLINE_OURS)) {
            return true;
        }
    }
}

/* It was alive just now. */
static inline void
deadline_alive(Deadline *d)
{
    word_set(&d->alive, clock_now());
}

/* Back to the application, which was alive just now. */
static inline void
deadline_let_go(Deadline *d)
{
    deadline_alive(d);
    deadline_begin(d);
}

/* This request has a limit of its own, from now on; 0: none. */
static inline void
deadline_set(Deadline *d, uint32_t sequence, uint64_t limit)
{
    deadline_alive(d);
    word_set(&d->own_limit, limit);
    atomic_store_explicit(&d->own_for, sequence, memory_order_release);
}

/* --- The main thread. -------------------------------------------------- */

/* May an exception be raised in the thread? Then it cannot leave the
 * application before deadline_raised(). */
static inline bool
deadline_raise(Deadline *d)
{
    uint32_t stage = DEADLINE_APPLICATION;
    return atomic_compare_exchange_strong(&d->stage, &stage, DEADLINE_RAISING);
}

static inline void
deadline_raised(Deadline *d, bool done)
{
    d->raised_at = clock_now();
    atomic_store_explicit(&d->stage,
                          done ? DEADLINE_RAISED : DEADLINE_APPLICATION,
                          memory_order_release);
}

/* Take the connection away; false: the thread has come back. */
static inline bool
deadline_take(Deadline *d)
{
    uint32_t stage = DEADLINE_RAISED;
    return atomic_compare_exchange_strong(&d->stage, &stage, DEADLINE_LOST);
}

/* Take the connection away from the application at once; false: it does not
 * run. */
static inline bool
deadline_seize(Deadline *d)
{
    uint32_t stage = DEADLINE_APPLICATION;
    return deadline_take(d) ||
           atomic_compare_exchange_strong(&d->stage, &stage, DEADLINE_LOST);
}

#endif
