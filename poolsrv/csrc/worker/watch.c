/* The main thread of a worker: looks after busy threads, time limits and the
 * end, and polls where no thread is left to do so. It never serves. Pure C; see
 * worker.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "worker/worker_internal.h"

/* With connections but no busy thread, deadlines are looked at so often. */
#define SWEEP_EVERY (200 * CLOCK_MILLISECOND)
/* The supervisor is gone: what runs gets this long. */
#define ORPHAN_GRACE (1500 * CLOCK_MILLISECOND)

/* Ring after each `period`; 0: never. */
static void
set_timer(Serve *s, uint64_t period)
{
    const struct timespec each = {.tv_sec = (time_t)(period / CLOCK_SECOND),
                                  .tv_nsec = (long)(period % CLOCK_SECOND)};
    const struct itimerspec at = {.it_interval = each, .it_value = each};
    timerfd_settime(s->timer, 0, &at, NULL);
}

/* Work has come: the clock runs while there is any. One system call when it
 * did not run already, which under load it does. */
void
serve_arm(Serve *s)
{
    /* Together with the fence in pace_down: either we see that the pace was
     * lowered, or the main thread sees that we are busy. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&s->pace, memory_order_relaxed) != WATCH_FAST &&
        atomic_exchange(&s->pace, WATCH_FAST) != WATCH_FAST)
        set_timer(s, SCHEDULE_TICK);
}

/* A connection waits, with a deadline: somebody must look at it. */
void
serve_attend(Serve *s)
{
    uint32_t off = WATCH_OFF;
    atomic_thread_fence(memory_order_seq_cst); /* as in serve_arm */
    if (atomic_load_explicit(&s->pace, memory_order_relaxed) == WATCH_OFF &&
        atomic_compare_exchange_strong(&s->pace, &off, WATCH_SLOW))
        set_timer(s, SWEEP_EVERY);
}

static int32_t
busy_threads(const Serve *s)
{
    int32_t busy = 0;
    uint32_t i;
    for (i = 0; i < s->o.thread_count; i++)
        busy += word_get(&s->threads[i].row->current.since) != 0;
    return busy;
}

static void
pace_down(Serve *s)
{
    const WatchPace pace = atomic_load(&s->live) ? WATCH_SLOW : WATCH_OFF;
    if (atomic_load(&s->pace) == pace)
        return;
    /* First: who sees the new pace and sets the timer has the last word. */
    set_timer(s, pace == WATCH_SLOW ? SWEEP_EVERY : 0);
    atomic_store(&s->pace, pace);
    atomic_thread_fence(memory_order_seq_cst);
    if (busy_threads(s))
        serve_arm(s);
    else if (pace == WATCH_OFF && atomic_load(&s->live) != 0)
        serve_attend(s);
}

/* How many threads are in a call that has taken long by now? */
static int32_t
occupied(const Serve *s, uint64_t now)
{
    int32_t count = 0;
    uint32_t i;
    for (i = 0; i < s->o.thread_count; i++) {
        const uint64_t since = word_get(&s->threads[i].row->current.since);
        count += since != 0 && now > since + SCHEDULE_LONG;
    }
    return count;
}

/* Those whose time is over. */
static void
sweep(Serve *s, uint64_t now, bool all_idle)
{
    const uint32_t places = atomic_load(&s->conn_count);
    Conn *idle[CHANNEL_BATCH];
    uint32_t i, n = 0;

    s->swept = now;
    for (i = 0; i < places; i++) {
        Conn *c = conn_at(s, i);
        const uint64_t deadline = word_get(&c->deadline);
        uint64_t word = atomic_load(&c->word);
        if (word & CONN_OWNED ||
            (!all_idle && (deadline == 0 || deadline > now)))
            continue;
        if (!atomic_compare_exchange_strong(&c->word, &word, word | CONN_OWNED))
            continue;
        if (c->state == CONN_IDLE) {
            c->ready = 0;
            idle[n++] = c;
            if (n == CHANNEL_BATCH) {
                conn_hand_back(s, &s->main, idle, n, now - IDLE_GRACE);
                n = 0;
            }
        } else if (word_get(&c->deadline) && word_get(&c->deadline) <= now) {
            conn_expire(s, &s->main, c, now);
        } else if (!conn_release(s, c)) {
            serve_call(s, c);
        }
    }
    conn_hand_back(s, &s->main, idle, n, now - IDLE_GRACE);
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
look(Serve *s, uint64_t now, bool *late)
{
    /* The clock of the process is a system call, and of use to a lease only. */
    ScheduleView view = {.cpu =
                             schedule_wakes(&s->schedule) ? process_cpu() : 0,
                         .occupied = occupied(s, now)};
    uint32_t i;
    for (i = 0; i < s->o.thread_count; i++) {
        Thread *t = &s->threads[i];
        const uint64_t since = word_get(&t->row->current.since);
        const uint32_t sequence = atomic_load(&t->row->current.sequence);
        if (since != 0)
            view.busy++;
        if (since != 0 && sequence == s->sequences[i]) {
            view.stuck++;
            if (now > since && now - since > view.longest)
                view.longest = now - since;
        }
        s->sequences[i] = sequence;
    }
    pthread_mutex_lock(&s->lock);
    view.parked = s->parked_count;
    s->stuck = view.stuck;
    view.polled = s->leader >= 0;
    *late = s->ready && now > s->ready->ready + SCHEDULE_TICK;
    pthread_mutex_unlock(&s->lock);
    /* Asked only where the answer counts: it takes some 10 us a thread. */
    if (view.polled || view.stuck == 0 || view.stuck < view.busy)
        return view;
    view.asleep = true;
    for (i = 0; view.asleep && i < s->o.thread_count; i++)
        if (word_get(&s->threads[i].row->current.since))
            view.asleep = is_asleep(&s->threads[i]);
    return view;
}

static void
wake_one(Serve *s)
{
    Thread *wake;
    pthread_mutex_lock(&s->lock);
    wake = s->leader < 0 || s->ready ? serve_unpark(s) : NULL;
    pthread_mutex_unlock(&s->lock);
    if (wake)
        pthread_cond_signal(&wake->wake);
}

/* Has another worker a thread to spare? */
static bool
others_free(const Serve *s)
{
    const Scoreboard *board = s->o.board;
    uint32_t i;
    for (i = 0; i < board->slot_count; i++) {
        const int32_t limit = atomic_load(&board->loads[i].limit);
        const int32_t most =
            limit < s->schedule.threads ? limit : s->schedule.threads;
        if (i != s->o.slot && atomic_load(&board->loads[i].load) < most)
            return true;
    }
    return false;
}

/* The threads are in requests that do not end: what has come for us and is
 * unread goes back to the common queue, where its turn is found among all
 * others, its time is watched and it is counted. What has been read in part
 * must wait here. */
static void
stand_in(Serve *s)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT,
                            .data.u64 = WATCHED_EPOLL};
    Conn *back[CHANNEL_BATCH];
    Chain stay = {NULL, NULL}, got;
    Conn *c, *following;
    uint32_t n = 0;
    bool polled;

    pthread_mutex_lock(&s->lock);
    if (s->leader >= 0) { /* a thread has come free meanwhile */
        pthread_mutex_unlock(&s->lock);
        return;
    }
    s->leader = LEADER_MAIN;
    got = (Chain){s->ready, s->ready_last};
    s->ready = NULL;
    pthread_mutex_unlock(&s->lock);

    word_add(s->o.board->workers[s->o.slot].stood_in, 1);
    if (!s->draining)
        atomic_store(&s->line->limit, s->schedule.threads);
    for (;;) {
        for (c = got.first; c; c = following) {
            following = c->next;
            c->next = NULL;
            if (c->state != CONN_IDLE) {
                serve_chain(&stay, c);
                continue;
            }
            back[n++] = c;
            if (n == CHANNEL_BATCH) {
                conn_hand_back(s, &s->main, back, n, s->main.now);
                n = 0;
            }
        }
        got = serve_poll(s, &s->main, 0);
        if (got.first == NULL)
            break;
    }
    conn_hand_back(s, &s->main, back, n, s->main.now);
    pthread_mutex_lock(&s->lock);
    if (stay.first)
        serve_push(s, stay.first, stay.last);
    if (s->leader == LEADER_MAIN)
        s->leader = LEADER_NONE;
    polled = s->leader >= 0;
    pthread_mutex_unlock(&s->lock);
    if (stay.first && polled) /* a thread found nothing, and waits for events */
        serve_ring(s->nudge);
    /* Called again by the next event, while threads are as busy as now. */
    epoll_ctl(s->watch, EPOLL_CTL_MOD, s->epoll, &e);
}

/* As when the load falls: whoever waits for a place must hear of it. */
static void
set_limit(Serve *s, int32_t limit)
{
    if (limit > atomic_exchange(&s->line->limit, limit) &&
        atomic_load(&s->o.board->notice->turn))
        serve_ring(s->o.bell);
}

static void
tick(Serve *s)
{
    const uint64_t now = s->main.now;
    uint64_t rung;
    ScheduleView view;
    bool late;

    if (read(s->timer, &rung, sizeof rung) < 0) /* which also sets it anew */
        return;                                 /* it was set meanwhile */
    word_add(s->o.board->workers[s->o.slot].ticks, 1);
    output_tick(s);
    view = look(s, now, &late);
    if (!s->draining)
        set_limit(s, schedule_limit(&s->schedule, view.stuck));
    switch (schedule_tick(&s->schedule, &view, now)) {
    case TICK_WAKE:
        wake_one(s);
        break;
    case TICK_STAND_IN:
        stand_in(s);
        break;
    case TICK_NOTHING:
        if (late && schedule_queues(&s->schedule) && others_free(s))
            stand_in(s);
        break;
    }
    if (now - s->swept >= SWEEP_EVERY)
        sweep(s, now, s->draining);
    if (view.busy == 0)
        pace_down(s);
}

/* ------------------------------------------------------------------------
 * The end */

void
serve_drain(Serve *s)
{
    if (atomic_exchange(&s->draining, true))
        return;
    atomic_store(&s->line->limit, 0);
    sweep(s, clock_now(), true);
    serve_ring(s->bell);
}

/* Nothing here and nothing on its way to us? What is in the channel counts in
 * the load until it counts as live: hence the order. */
static bool
empty(Serve *s)
{
    return atomic_load(&s->line->load) <= 0 && atomic_load(&s->live) == 0;
}

static void
quit(Serve *s)
{
    pthread_mutex_lock(&s->lock);
    s->quitting = true;
    while (s->parked) {
        Thread *t = serve_unpark(s);
        pthread_cond_signal(&t->wake);
    }
    pthread_mutex_unlock(&s->lock);
    serve_ring(s->nudge);
}

static void
orphaned(Serve *s)
{
    epoll_ctl(s->watch, EPOLL_CTL_DEL, s->o.lifeline, NULL);
    s->orphan = true;
    s->orphan_end = clock_now() + ORPHAN_GRACE;
    /* Nobody will send or take back anything more. */
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->o.channel, NULL);
    atomic_store(&s->line->load, 0);
    serve_drain(s);
}

static bool
has_news(Serve *s)
{
    bool news;
    pthread_mutex_lock(&s->side);
    news = s->note_count || s->garbage;
    pthread_mutex_unlock(&s->side);
    return news;
}

WatchResult
serve_watch(Serve *s)
{
    for (;;) {
        struct epoll_event events[8];
        uint64_t rung, now;
        int i, n, timeout = -1;

        /* Before the wait: what told us may have told us of notes as well. */
        if (atomic_load(&s->draining) && empty(s)) {
            quit(s);
            return WATCH_DRAINED;
        }
        if (s->orphan) {
            now = clock_now();
            /* No Python here: a thread that hangs may hold the GIL. */
            if (now >= s->orphan_end)
                _exit(0);
            timeout = (int)((s->orphan_end - now) / CLOCK_MILLISECOND) + 1;
        }
        n = epoll_wait(s->watch, events, 8, timeout);
        s->main.now = clock_now();
        for (i = 0; i < n; i++) {
            switch ((Watched)events[i].data.u64) {
            case WATCHED_TIMER:
                tick(s);
                break;
            case WATCHED_EPOLL:
                if (schedule_wakes(&s->schedule) &&
                    occupied(s, s->main.now) == s->schedule.threads)
                    stand_in(s);
                break;
            case WATCHED_BELL:
                if (read(s->bell, &rung, sizeof rung) < 0)
                    break;
                if (has_news(s))
                    return WATCH_NOTES;
                break;
            case WATCHED_SIGNALS:
                return WATCH_SIGNAL;
            case WATCHED_LIFELINE:
                orphaned(s);
                break;
            }
        }
    }
}
