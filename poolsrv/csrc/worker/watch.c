/* The main thread of a worker: looks after busy threads, time limits and the
 * end, and polls where no thread is left to do so. It never serves. Pure C.
 */
#define _GNU_SOURCE
#include "worker/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "worker/ending.h"
#include "worker/pieces.h"
#include "worker/refuse.h"
#include "worker/overdue.h"
#include "worker/worker_internal.h"

/* The supervisor is gone: what runs gets this long. */
#define ORPHAN_GRACE (1500 * CLOCK_MILLISECOND)

/* Ring after each `period`; 0: never. */
static void
set_timer(Worker *w, uint64_t period)
{
    const struct timespec each = {.tv_sec = (time_t)(period / CLOCK_SECOND),
                                  .tv_nsec = (long)(period % CLOCK_SECOND)};
    const struct itimerspec at = {.it_interval = each, .it_value = each};
    timerfd_settime(w->timer, 0, &at, NULL);
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
        atomic_exchange(&w->pace, WATCH_FAST) != WATCH_FAST)
        set_timer(w, LADDER_TICK);
}

/* A connection waits, with a deadline: somebody must look at it. */
void
watch_attend(Worker *w)
{
    uint32_t off = WATCH_OFF;
    atomic_thread_fence(memory_order_seq_cst); /* as in watch_arm */
    if (atomic_load_explicit(&w->pace, memory_order_relaxed) == WATCH_OFF &&
        atomic_compare_exchange_strong(&w->pace, &off, WATCH_SLOW))
        set_timer(w, LADDER_SWEEP);
}

static int32_t
busy_threads(const Worker *w)
{
    int32_t busy = 0;
    uint32_t i;
    for (i = 0; i < w->o.thread_count; i++)
        busy += word_get(&w->threads[i].row->current.since) != 0;
    return busy;
}

static void
pace_down(Worker *w)
{
    const WatchPace pace =
        atomic_load(&w->live) || atomic_load(&w->has_refusals) ? WATCH_SLOW
                                                               : WATCH_OFF;
    if (atomic_load(&w->pace) == pace)
        return;
    /* First: who sees the new pace and sets the timer has the last word. */
    set_timer(w, pace == WATCH_SLOW ? LADDER_SWEEP : 0);
    atomic_store(&w->pace, pace);
    atomic_thread_fence(memory_order_seq_cst);
    if (busy_threads(w))
        watch_arm(w);
    else if (pace == WATCH_OFF &&
             (atomic_load(&w->live) != 0 || atomic_load(&w->has_refusals)))
        watch_attend(w);
}

/* All of the server ends, or nobody is left to send anything to. */
static bool
is_last(const Worker *w)
{
    return w->orphan || atomic_load(&w->o.board->notice->stopping);
}

bool
watch_hands_back(const Worker *w)
{
    return atomic_load_explicit(&w->draining, memory_order_relaxed) &&
           !is_last(w);
}

/* The server ends, and so does this connection, which has been idle for its
 * time, unless a request has come: one that was answered just now, before the
 * answers said that they are the last, is most likely to ask again. Looking and
 * ending follow each other at once: what lies between is all that a client can
 * lose, and it finds an end, no reset. */
static void
end_idle(Worker *w, Conn *c)
{
    c->ready = w->main.now;
    if (stream_has_bytes(c) ||
        (ending_start(w, &w->main, c) == STEP_AGAIN && !conn_release(w, c))) {
        threads_call(w, c);
    }
}

/* Those whose time is over. */
static void
sweep(Worker *w, uint64_t now, bool all_idle)
{
    const uint32_t places = atomic_load(&w->conn_count);
    Conn *idle[CHANNEL_BATCH];
    uint32_t i, n = 0;

    w->swept = now;
    for (i = 0; i < places; i++) {
        Conn *c = conn_at(w, i);
        const uint64_t deadline = word_get(&c->deadline);
        uint64_t word = atomic_load(&c->word);
        if (word & CONN_OWNED ||
            (!all_idle && (deadline == 0 || deadline > now)))
            continue;
        if (!atomic_compare_exchange_strong(&c->word, &word, word | CONN_OWNED))
            continue;
        if (conn_may_move(c) && is_last(w)) {
            end_idle(w, c);
        } else if (conn_may_move(c)) {
            c->ready = 0;
            idle[n++] = c;
            if (n == CHANNEL_BATCH) {
                conn_hand_back(w, &w->main, idle, n, now - LADDER_IDLE);
                n = 0;
            }
        } else if (word_get(&c->deadline) && word_get(&c->deadline) <= now) {
            refuse_expire(w, &w->main, c, now);
        } else if (!conn_release(w, c)) {
            threads_call(w, c);
        }
    }
    conn_hand_back(w, &w->main, idle, n, now - LADDER_IDLE);
}

/* Does the thread sleep (in the application: it has let the GIL go), rather
 * than compute or wait for a processor? Its CPU clock cannot tell the last two
 * from sleeping on a machine that is full; the kernel's letter for it can. */
static bool
is_asleep(const Thread *t)
{
    char path[48], text[512];
    const char *end;
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)t->tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
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
        const uint32_t sequence = atomic_load(&t->row->current.sequence);
        if (since != 0)
            view.busy++;
        if (since != 0 && sequence == w->sequences[i]) {
            view.stuck++;
            if (now > since && now - since > view.longest)
                view.longest = now - since;
        }
        w->sequences[i] = sequence;
    }
    pthread_mutex_lock(&w->lock);
    view.parked = w->parked_count;
    w->stuck = view.stuck;
    view.polled = w->leader >= 0;
    w->begun = w->ready.begun;
    w->ready.begun = 0;
    *unseen = !view.polled && now >= w->polled + LADDER_TICK;
    pthread_mutex_unlock(&w->lock);
    /* Asked only where the answer counts: it takes some 10 us a thread. */
    if (view.polled || view.stuck == 0 || view.stuck < view.busy ||
        (view.parked == 0 && schedule_wakes(&w->schedule)))
        return view;
    view.asleep = true;
    for (i = 0; view.asleep && i < w->o.thread_count; i++)
        if (word_get(&w->threads[i].row->current.since))
            view.asleep = is_asleep(&w->threads[i]);
    return view;
}

static void
wake_one(Worker *w)
{
    Thread *wake;
    pthread_mutex_lock(&w->lock);
    wake = w->leader < 0 || w->ready.count ? threads_unpark(w) : NULL;
    pthread_mutex_unlock(&w->lock);
    if (wake)
        pthread_cond_signal(&wake->wake);
}

/* ------------------------------------------------------------------------
 * What waits here */

/* All threads are in calls: look for events in their place. False: a thread
 * does so by now. */
static bool
stand_in(Worker *w)
{
    bool found = false, polled;

    pthread_mutex_lock(&w->lock);
    if (w->leader >= 0) {
        pthread_mutex_unlock(&w->lock);
        return false;
    }
    w->leader = LEADER_MAIN;
    pthread_mutex_unlock(&w->lock);

    word_add(w->o.board->workers[w->o.slot].stood_in, 1);
    for (;;) {
        const Chain got = threads_poll(w, &w->main, 0);
        if (got.first == NULL) {
            break;
        }
        found = true;
        pthread_mutex_lock(&w->lock);
        ready_push(w, got);
        pthread_mutex_unlock(&w->lock);
    }
    pthread_mutex_lock(&w->lock);
    if (w->leader == LEADER_MAIN) {
        w->leader = LEADER_NONE;
    }
    polled = w->leader >= 0;
    ready_tell(w);
    pthread_mutex_unlock(&w->lock);
    if (found && polled) { /* a thread found nothing, and waits for events */
        worker_ring(w->nudge);
    }
    return true;
}

/* Requests that other workers would begin at once. */
static uint32_t
others_room(const Worker *w)
{
    const Scoreboard *board = w->o.board;
    int32_t room = 0;
    for (uint32_t i = 0; i < board->slot_count; i++) {
        if (i != w->o.slot) {
            const ChoiceWorker other = scoreboard_view(board, i);
            room += choice_room(&other);
        }
    }
    return (uint32_t)room;
}

/* The fewest connections of a worker where requests wait as well. */
static int32_t
fewest_connections(const Worker *w)
{
    const Scoreboard *board = w->o.board;
    int32_t fewest = INT32_MAX;
    for (uint32_t i = 0; i < board->slot_count; i++) {
        const ChoiceWorker other = scoreboard_view(board, i);
        if (other.waiting > 0 && other.connections < fewest) {
            fewest = other.connections;
        }
    }
    return fewest;
}

/* How many that wait in the whole server are too many. */
static uint32_t
too_many(const Worker *w)
{
    const Scoreboard *board = w->o.board;
    const uint64_t most = atomic_load(&board->notice->queue_size);
    uint64_t waiting = word_get(board->supervisor->queue_length);
    for (uint32_t i = 0; i < board->slot_count; i++) {
        waiting += word_get(board->workers[i].waiting);
    }
    return waiting > most ? (uint32_t)(waiting - most) : 0;
}

typedef Conn *TakeOut(Worker *w, uint64_t argument);

static Conn *
take_first(Worker *w, uint64_t unused)
{
    (void)unused;
    return ready_take_first(w);
}

static Conn *
take_newest(Worker *w, uint64_t unused)
{
    (void)unused;
    return ready_take_newest(w);
}

/* Give at most so many of those that wait back to the supervisor. */
static void
give_back(Worker *w, TakeOut *take_out, uint64_t argument, uint32_t most)
{
    Conn *back[CHANNEL_BATCH];
    uint32_t n;
    do {
        n = 0;
        pthread_mutex_lock(&w->lock);
        while (n < most && n < CHANNEL_BATCH &&
               (back[n] = take_out(w, argument)) != NULL) {
            n++;
        }
        ready_tell(w);
        pthread_mutex_unlock(&w->lock);
        conn_hand_back(w, &w->main, back, n, w->main.now);
        most -= n;
    } while (n == CHANNEL_BATCH);
}

/* What waits here belongs to the queue of all. It stays as long as it is as
 * well off here: not where another worker would begin it at once and this one
 * not within a tick, not in a worker that ends, not for longer than requests
 * may wait, and not where too many wait. The supervisor sends it on, or
 * refuses it. */
static void
share(Worker *w, uint32_t room)
{
    const uint64_t timeout = atomic_load(&w->o.board->notice->queue_timeout);
    uint32_t waiting;

    pthread_mutex_lock(&w->lock);
    waiting = w->ready.waiting;
    pthread_mutex_unlock(&w->lock);
    if (waiting == 0) {
        return;
    }
    if (w->draining) {
        if (watch_hands_back(w)) {
            give_back(w, take_first, 0, UINT32_MAX);
        }
        return;
    }
    if (timeout && timeout < w->main.now) {
        give_back(w, ready_take_older, w->main.now - timeout, UINT32_MAX);
    }
    give_back(w, take_newest, 0,
              choice_surplus(waiting, w->begun, too_many(w)));
    give_back(w, take_first, 0, choice_surplus(waiting, w->begun, room));
}

/* Connections that all go on asking would stay as unevenly spread as chance has
 * it: some of those that wait go where there are fewer. */
static void
even_out(Worker *w)
{
    uint32_t waiting;
    pthread_mutex_lock(&w->lock);
    waiting = w->ready.waiting;
    pthread_mutex_unlock(&w->lock);
    if (waiting) {
        give_back(w, take_first, 0,
                  choice_excess(atomic_load(&w->line->held),
                                fewest_connections(w), waiting));
    }
}

/* Look for events as soon as there are any: a request that comes now waits for
 * a thread, and there is one elsewhere. */
static void
await_events(Worker *w)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT,
                            .data.u64 = WATCHED_EPOLL};
    epoll_ctl(w->watch, EPOLL_CTL_MOD, w->epoll, &e);
}

static void
events_came(Worker *w)
{
    uint32_t room;
    if (!stand_in(w)) {
        return;
    }
    share(w, others_room(w));
    room = others_room(w);
    if (room) {
        await_events(w);
    }
}

/* As when the load falls: whoever waits for a place must hear of it. */
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

/* True: there is something that the binding must hear. */
static bool
tick(Worker *w)
{
    const uint64_t now = w->main.now;
    uint64_t rung;
    ScheduleView view;
    uint32_t room;
    bool unseen;

    if (read(w->timer, &rung, sizeof rung) < 0) /* which also sets it anew */
        return false;                           /* it was set meanwhile */
    word_add(w->o.board->workers[w->o.slot].ticks, 1);
    pieces_tick(w);
    notes_tick(w, now);
    ending_tick(w);
    view = look(w, now, &unseen);
    if (!w->draining)
        set_places(w, view.stuck);
    if (schedule_tick(&w->schedule, &view, now) == TICK_WAKE)
        wake_one(w);
    if (unseen)
        stand_in(w);
    room = others_room(w);
    share(w, room);
    if (room && unseen && view.stuck && view.stuck == view.busy)
        await_events(w);
    if (now - w->swept >= LADDER_SWEEP) {
        sweep(w, now, watch_hands_back(w));
        if (!w->draining) {
            even_out(w);
        }
    }
    if (view.busy == 0) {
        pace_down(w);
        return false;
    }
    return overdue_tick(w) || watchdog_is_due(w);
}

/* ------------------------------------------------------------------------
 * The end */

void
watch_drain(Worker *w)
{
    if (atomic_exchange(&w->draining, true))
        return;
    atomic_store(&w->line->limit, 0);
    w->main.now = clock_now();
    sweep(w, w->main.now, watch_hands_back(w));
    share(w, 0);
    worker_ring(w->bell);
}

/* Nothing here and nothing on its way to us? What is in the channel counts in
 * the load until it counts as live: hence the order. Threads that are lost keep
 * their connections; they are read last, because one may come back. */
static bool
empty(Worker *w)
{
    const int32_t load = atomic_load(&w->line->load);
    const uint32_t live = atomic_load(&w->live);
    const uint32_t lost = atomic_load(&w->lost);
    return load <= (int32_t)lost && live <= lost;
}

static void
quit(Worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->quitting = true;
    while (w->parked) {
        Thread *t = threads_unpark(w);
        pthread_cond_signal(&t->wake);
    }
    pthread_mutex_unlock(&w->lock);
    worker_ring(w->nudge);
}

static void
orphaned(Worker *w)
{
    epoll_ctl(w->watch, EPOLL_CTL_DEL, w->o.lifeline, NULL);
    w->orphan = true;
    w->orphan_end = clock_now() + ORPHAN_GRACE;
    /* Nobody will send or take back anything more. */
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->o.channel, NULL);
    atomic_store(&w->line->load, 0);
    watch_drain(w);
}

static bool
has_news(Worker *w)
{
    return atomic_load(&w->has_garbage) || notes_wait(w);
}

static WatchResult
wait_for_news(Worker *w)
{
    for (;;) {
        struct epoll_event events[8];
        uint64_t rung, now;
        int i, n, timeout = -1;

        /* Before the wait: what told us may have told us of notes as well. */
        if (atomic_load(&w->broken)) {
            errno = atomic_load(&w->broken);
            return WATCH_BROKEN;
        }
        if (atomic_load(&w->draining) && empty(w)) {
            quit(w);
            return WATCH_DRAINED;
        }
        if (w->orphan) {
            now = clock_now();
            /* No Python here: a thread that hangs may hold the GIL. */
            if (now >= w->orphan_end)
                _exit(0);
            timeout = (int)((w->orphan_end - now) / CLOCK_MILLISECOND) + 1;
        }
        n = epoll_wait(w->watch, events, 8, timeout);
        if (n < 0 && errno != EINTR) {
            return WATCH_BROKEN;
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
                events_came(w);
                break;
            case WATCHED_BELL:
                if (read(w->bell, &rung, sizeof rung) < 0)
                    break;
                if (has_news(w))
                    return WATCH_NOTES;
                break;
            case WATCHED_SIGNALS:
                return WATCH_SIGNAL;
            case WATCHED_LIFELINE:
                orphaned(w);
                break;
            }
        }
    }
}

WatchResult
watch_wait(Worker *w)
{
    const WatchResult result = wait_for_news(w);
    const int error = errno; /* of one that is broken */
    watchdog_ask(w);
    errno = error;
    return result;
}
