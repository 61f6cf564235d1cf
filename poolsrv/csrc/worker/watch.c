/* The main thread of a worker: its loop, its timer, its look at busy threads.
 * Time limits are in sweep.c, what waits in share.c, the end in drain.c. It
 * never serves. Pure C. */
#define _GNU_SOURCE
#include "worker/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "worker/drain.h"
#include "worker/ending.h"
#include "worker/garbage.h"
#include "worker/overdue.h"
#include "worker/pieces.h"
#include "worker/share.h"
#include "worker/sweep.h"
#include "worker/worker_internal.h"

static struct timespec
timespec_of(uint64_t time)
{
    return (struct timespec){.tv_sec = (time_t)(time / CLOCK_SECOND),
                             .tv_nsec = (long)(time % CLOCK_SECOND)};
}

/* Ring after each `period`, the first time one or more of them from now; 0:
 * never. */
static void
set_timer(Worker *w, uint64_t period, uint32_t first)
{
    const struct itimerspec at = {.it_interval = timespec_of(period),
                                  .it_value = timespec_of(first * period)};
    if (timerfd_settime(w->timer, 0, &at, NULL) < 0) {
        worker_break(w, errno); /* somebody else has the number now */
    }
}

/* Set the timer to the pace as it is now. Another thread may change the pace
 * between our look and the call: the thread that looked last must set the
 * timer last. */
static void
set_timer_to_pace(Worker *w, uint32_t first)
{
    static const uint64_t periods[] = {
        [WATCH_OFF] = 0,
        [WATCH_SLOW] = LADDER_SWEEP,
        [WATCH_FAST] = LADDER_TICK,
    };
    uint32_t pace;
    do {
        pace = atomic_load(&w->pace);
        set_timer(w, periods[pace], first);
    } while (pace != atomic_load(&w->pace));
}

/* Work has come: the clock runs while there is any. One system call when it
 * did not run already, which under load it does. */
void
watch_arm(Worker *w)
{
    /* Together with the fence in pace_down: either we see that the pace was
     * lowered, or the main thread sees that we are busy. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&w->pace, memory_order_relaxed) != WATCH_FAST &&
        atomic_exchange(&w->pace, WATCH_FAST) != WATCH_FAST) {
        set_timer_to_pace(w, 1);
    }
}

/* A connection waits, with a deadline: somebody must look at it. */
void
watch_attend(Worker *w)
{
    uint32_t off = WATCH_OFF;
    atomic_thread_fence(memory_order_seq_cst); /* as in watch_arm */
    if (atomic_load_explicit(&w->pace, memory_order_relaxed) == WATCH_OFF &&
        atomic_compare_exchange_strong(&w->pace, &off, WATCH_SLOW)) {
        set_timer_to_pace(w, 1);
    }
}

/* As when the load falls: the supervisor must hear of it if a request waits
 * for a place. */
static void
set_places(Worker *w, int32_t stuck)
{
    const int32_t limit = schedule_limit(&w->schedule, stuck);
    atomic_store(&w->line->width, schedule_width(&w->schedule, stuck));
    if (limit > atomic_exchange(&w->line->limit, limit) &&
        atomic_load(&w->o.board->notice->turn)) {
        worker_ring(w->o.bell);
    }
}

/* Has a thread been in a call that began at `since` for a tick? 0: in none. */
static bool
is_stuck(uint64_t since, uint64_t now)
{
    return since != 0 && now >= since + LADDER_TICK;
}

/* Would the main thread find anything to do at its next tick? */
static bool
is_awaited(Worker *w, uint64_t now)
{
    if (atomic_load(&w->draining) || atomic_load(&w->ended) != NULL ||
        now >= word_get(&w->swept) + LADDER_SWEEP) {
        return true;
    }
    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        const Thread *t = &w->threads[i];
        if (is_stuck(word_get(&t->row->current.since), now) || pieces_wait(t)) {
            return true;
        }
    }
    return share_is_due(w, now);
}

/* It sets the timer anew, to two ticks from whenever the last thread comes by.
 * So as long as calls are shorter the main thread is not woken but for the
 * sweep, and a longer one is seen within two ticks of its beginning, as by a
 * timer that always rings. Each 2 ms, to be woken cost 3 to 5 % of all that a
 * worker did, on a virtual machine: far more than what the main thread runs
 * then (6 us). Where another worker has a free thread that cost is no matter,
 * and what comes behind a longer call is seen, and goes there, within a tick:
 * a thread that comes by is noted twice a tick. */
void
watch_pass(Worker *w, uint64_t now)
{
    uint64_t passed = atomic_load(&w->passed);
    if (!atomic_compare_exchange_strong(&w->passed, &passed, now) ||
        is_awaited(w, now)) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    const int32_t stuck = w->stuck;
    ready_count_begun(w, now);
    pthread_mutex_unlock(&w->lock);
    if (stuck == 0) {
        set_places(w, stuck);
        set_timer_to_pace(w, share_others_room(w) ? 1 : 2);
    }
}

static int32_t
busy_threads(const Worker *w)
{
    int32_t busy = 0;
    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        busy += word_get(&w->threads[i].row->current.since) != 0 &&
                !atomic_load(&w->threads[i].upgraded);
    }
    return busy;
}

static void
pace_down(Worker *w)
{
    const WatchPace pace =
        atomic_load(&w->live) || atomic_load(&w->has_refusals) ? WATCH_SLOW
                                                               : WATCH_OFF;
    if (atomic_load(&w->pace) == pace || atomic_load(&w->ended) != NULL) {
        return; /* nothing changes, or some are to be looked at soon */
    }
    /* The timer first, then the pace: a thread that already sees the new pace
     * sets the timer itself, and must not be overwritten. */
    set_timer(w, pace == WATCH_SLOW ? LADDER_SWEEP : 0, 1);
    atomic_store(&w->pace, pace);
    atomic_thread_fence(memory_order_seq_cst);
    if (busy_threads(w)) {
        watch_arm(w);
    } else if (pace == WATCH_OFF &&
               (atomic_load(&w->live) != 0 || atomic_load(&w->has_refusals))) {
        watch_attend(w);
    }
}

/* Does the thread sleep (in the application: it has let the GIL go), rather
 * than compute or wait for a processor? Its CPU clock cannot tell the last two
 * from sleeping on a machine that is full; the kernel's letter for it can. */
static bool
is_asleep(const Thread *t)
{
    char path[48], text[512];
    const char *end;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)t->tid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) {
        return false;
    }
    text[n] = '\0';
    /* "tid (name) S ...", and the name may hold anything. */
    end = strrchr(text, ')');
    return end && end[1] == ' ' && (end[2] == 'S' || end[2] == 'D');
}

static uint64_t
process_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec;
}

static ScheduleView
look(Worker *w, uint64_t now, bool *unseen)
{
    /* The clock of the process is a system call, and of use to a lease only. */
    ScheduleView view = {.cpu =
                             schedule_wakes(&w->schedule) ? process_cpu() : 0};
    uint32_t i;
    for (i = 0; i < w->o.thread_count; i++) {
        Thread *t = &w->threads[i];
        const uint64_t since = word_get(&t->row->current.since);
        if (atomic_load(&t->upgraded)) {
            view.held++;
            continue;
        }
        view.busy += since != 0;
        if (is_stuck(since, now)) {
            view.stuck++;
            if (now - since > view.longest) {
                view.longest = now - since;
            }
        }
    }
    pthread_mutex_lock(&w->lock);
    view.parked = w->parked_count;
    w->stuck = view.stuck;
    view.polled = w->leader >= 0;
    ready_count_begun(w, now);
    *unseen = !view.polled && now >= w->polled + LADDER_SLICE;
    pthread_mutex_unlock(&w->lock);
    /* Asked only where the answer counts: it takes some 10 us a thread. */
    if (view.polled || view.stuck == 0 || view.stuck < view.busy ||
        (view.parked == 0 && schedule_wakes(&w->schedule))) {
        return view;
    }
    view.asleep = true;
    for (i = 0; view.asleep && i < w->o.thread_count; i++) {
        if (word_get(&w->threads[i].row->current.since) &&
            !atomic_load(&w->threads[i].upgraded)) {
            view.asleep = is_asleep(&w->threads[i]);
        }
    }
    return view;
}

static void
wake_one(Worker *w)
{
    Thread *wake;
    pthread_mutex_lock(&w->lock);
    wake = w->leader < 0 || w->ready.count ? threads_unpark(w) : NULL;
    pthread_mutex_unlock(&w->lock);
    if (wake) {
        pthread_cond_signal(&wake->wake);
    }
}

/* True: there is something that the binding must hear. */
static bool
tick(Worker *w)
{
    const uint64_t now = w->main.now;
    uint64_t rung;
    bool unseen;

    if (read(w->timer, &rung, sizeof rung) < 0) { /* which also sets it anew */
        return false;                             /* it was set meanwhile */
    }
    word_add(w->o.board->workers[w->o.slot].ticks, 1);
    pieces_tick(w);
    const bool gathered = gather_tick(w);
    notes_tick(w, now);
    ending_tick(w);
    ScheduleView view = look(w, now, &unseen);
    if (unseen) {
        share_stand_in(w);
    }
    const uint32_t room = share_others_room(w);
    view.served = room && share_may_all_go(w);
    const TickDecision decision = schedule_tick(&w->schedule, &view, now);
    if (decision == TICK_WAKE) {
        wake_one(w);
    }
    if (!w->draining) {
        set_places(w, schedule_beside(&w->schedule, &view, decision));
    }
    share_waiting(w, room);
    if (room && unseen) {
        share_await_events(w);
    }
    if (now - word_get(&w->swept) >= LADDER_SWEEP) {
        sweep_run(w, now, drain_hands_back(w));
        if (!w->draining) {
            share_even_out(w);
        }
    }
    if (view.busy == 0) {
        if (!gathered) { /* a connection that is taken over keeps no tick */
            pace_down(w);
        }
        return false;
    }
    return overdue_tick(w) || watchdog_is_due(w);
}

static bool
has_news(Worker *w)
{
    for (uint32_t i = 0; i < w->o.interpreters; i++) {
        if (garbage_is_there(w, i)) {
            return true;
        }
    }
    return notes_wait(w);
}

static WatchResult
wait_for_news(Worker *w)
{
    for (;;) {
        struct epoll_event events[8];
        uint64_t rung, now;
        int i, n, timeout = -1;

        /* Before the wait: what told us may have told us of notes as well. */
        if (atomic_load(&w->draining) && drain_is_done(w)) {
            drain_quit(w);
            return WATCH_DRAINED;
        }
        if (atomic_load(&w->broken)) {
            errno = atomic_load(&w->broken);
            return WATCH_BROKEN;
        }
        if (w->orphan) {
            now = clock_now();
            /* No Python here: a thread that hangs may hold the GIL. */
            if (now >= w->orphan_end) {
                _exit(0);
            }
            timeout = (int)((w->orphan_end - now) / CLOCK_MILLISECOND) + 1;
        }
        n = epoll_wait(w->watch, events, 8, timeout);
        if (n < 0) {
            /* Whether or not its byte arrives, the handler can run. */
            return errno == EINTR ? WATCH_SIGNAL : WATCH_BROKEN;
        }
        w->main.now = clock_now();
        for (i = 0; i < n; i++) {
            switch ((Watched)events[i].data.u64) {
            case WATCHED_TIMER:
                if (tick(w) || notes_wait(w)) { /* of what was dropped */
                    return WATCH_NOTES;
                }
                break;
            case WATCHED_EPOLL:
                share_events_came(w);
                break;
            case WATCHED_ALARM:
                if (read(w->alarm, &rung, sizeof rung) < 0) {
                    break;
                }
                if (has_news(w)) {
                    return WATCH_NOTES;
                }
                break;
            case WATCHED_SIGNALS:
                return WATCH_SIGNAL;
            case WATCHED_LIFELINE:
                drain_orphan(w);
                break;
            }
        }
    }
}

WatchResult
watch_wait(Worker *w)
{
    gather_resume(w);
    const WatchResult result = wait_for_news(w);
    const int error = errno; /* of one that is broken */
    gather_pause(w);
    watchdog_ask(w);
    errno = error;
    return result;
}
