/* Leader and followers, and the main thread that looks after them. Pure C;
 * see serve.h. */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "serve_private.h"

#define EVENT_BATCH 64
/* While connections are ready, events wait so long at most. */
#define POLL_EVERY CLOCK_MILLISECOND
/* With connections but no busy thread, deadlines are looked at so often. */
#define SWEEP_EVERY (200 * CLOCK_MILLISECOND)
/* The supervisor is gone: what runs gets this long. */
#define ORPHAN_GRACE (1500 * CLOCK_MILLISECOND)

/* In `epoll`, next to connections: indices that no connection has. */
#define INDEX_CHANNEL UINT32_MAX
#define INDEX_NUDGE (UINT32_MAX - 1)

/* In `watch`. */
typedef enum {
    WATCHED_TIMER,
    WATCHED_BELL,
    WATCHED_SIGNALS,
    WATCHED_LIFELINE,
    WATCHED_EPOLL
} Watched;

void
serve_ring(int bell)
{
    const uint64_t one = 1;
    /* Full means that it rings already. */
    while (write(bell, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void
serve_unload(Serve *s, uint32_t count)
{
    atomic_fetch_sub(&s->line->load, (int32_t)count);
    if (atomic_load(&s->o.board->notice->queued))
        serve_ring(s->o.bell);
}

/* ------------------------------------------------------------------------
 * The ready queue and the parked threads; `lock` is held */

static void
push(Serve *s, Conn *first, Conn *last)
{
    if (s->ready)
        s->ready_last->next = first;
    else
        s->ready = first;
    s->ready_last = last;
}

static Thread *
unpark(Serve *s)
{
    Thread *t = s->parked;
    if (t) {
        s->parked = t->next;
        s->parked_count--;
        t->woken = true;
    }
    return t;
}

static void
park(Serve *s, Thread *t)
{
    t->woken = false;
    t->next = s->parked;
    s->parked = t;
    s->parked_count++;
    while (!t->woken)
        pthread_cond_wait(&t->wake, &s->lock);
}

void
serve_queue(Serve *s, Conn *c)
{
    c->next = NULL;
    pthread_mutex_lock(&s->lock);
    push(s, c, c);
    pthread_mutex_unlock(&s->lock);
}

void
serve_call(Serve *s, Conn *c)
{
    Thread *wake;
    c->next = NULL;
    pthread_mutex_lock(&s->lock);
    push(s, c, c);
    wake = unpark(s);
    pthread_mutex_unlock(&s->lock);
    if (wake)
        pthread_cond_signal(&wake->wake);
    else
        serve_ring(s->nudge);
}

/* ------------------------------------------------------------------------
 * Polling: the leader, or the main thread where it stands in */

/* Take the connection that an event is for, unless somebody owns it. */
static Conn *
take_event(Serve *s, const struct epoll_event *e, uint64_t now)
{
    Conn *c = conn_at(s, (uint32_t)e->data.u64);
    const uint64_t generation = e->data.u64 >> 32;
    const uint64_t ends =
        e->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? CONN_ENDS : 0;
    uint64_t word = atomic_load(&c->word);
    for (;;) {
        /* The word holds more bits of the generation than the event. */
        if ((word >> CONN_BITS & UINT32_MAX) != generation)
            return NULL;
        if (word & CONN_OWNED) {
            if (atomic_compare_exchange_weak(&c->word, &word,
                                             word | CONN_EVENT | ends))
                return NULL;
        } else if (atomic_compare_exchange_weak(&c->word, &word,
                                                word | CONN_OWNED | ends)) {
            break;
        }
    }
    /* Room to write is news only to one that waits for it. */
    if (!(e->events & ~(uint32_t)EPOLLOUT) && c->state != CONN_WRITING &&
        conn_release(s, c))
        return NULL;
    c->drained = false;
    if (c->state == CONN_IDLE)
        c->ready = now;
    c->next = NULL;
    return c;
}

typedef struct {
    Conn *first, *last;
} Chain;

static void
chain_add(Chain *chain, Conn *c)
{
    if (chain->first)
        chain->last->next = c;
    else
        chain->first = c;
    chain->last = c;
}

static void
receive(Serve *s, Thread *t, Chain *chain)
{
    ChannelMessage m;
    uint32_t i;
    const int got = channel_receive(s->o.channel, &m);
    if (got < 0 && errno != EPROTO) /* nobody is there any more */
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->o.channel, NULL);
    if (got <= 0 || m.header.kind != CHANNEL_DISPATCH)
        return;
    if (m.lost) {
        serve_note(s, NOTE_WARNING,
                   "%u connections were lost for want of descriptors; raise "
                   "the limit of open files",
                   m.lost);
        atomic_fetch_sub(&s->line->held, (int32_t)m.lost);
        serve_unload(s, m.lost);
    }
    for (i = 0; i < m.header.count; i++) {
        Conn *c = conn_open(s, t, m.fds[i], &m.items[i]);
        if (c)
            chain_add(chain, c);
    }
    /* What was lost, or found no memory, may have been the last to come. */
    if (atomic_load(&s->draining))
        serve_ring(s->bell);
}

/* Wait for events; the connections that became ready, owned. */
static Chain
poll_events(Serve *s, Thread *t, int timeout)
{
    struct epoll_event events[EVENT_BATCH];
    Chain chain = {NULL, NULL};
    int i, n;
    n = epoll_wait(s->epoll, events, EVENT_BATCH, timeout);
    t->now = clock_now();
    for (i = 0; i < n; i++) {
        Conn *c;
        switch ((uint32_t)events[i].data.u64) {
        case INDEX_CHANNEL:
            receive(s, t, &chain);
            break;
        case INDEX_NUDGE:
            break;
        default:
            c = take_event(s, &events[i], t->now);
            if (c)
                chain_add(&chain, c);
        }
    }
    return chain;
}

/* The next connection to serve; NULL: the worker is done. */
static Conn *
take(Serve *s, Thread *t)
{
    Thread *wake = NULL;
    Conn *c = NULL;

    pthread_mutex_lock(&s->lock);
    if (t->active) {
        t->active = false;
        s->active--;
    }
    for (;;) {
        /* While another works and does not hang, one more would only fight it
         * for the GIL. Should it hang, the tick wakes us. */
        if (s->active > s->stuck && !schedule_wakes(&s->schedule) &&
            !s->quitting) {
            park(s, t);
            continue;
        }
        /* The queue may never be empty: those who come must get into it. */
        const bool late = t->now > s->polled + POLL_EVERY;
        if (s->ready && (!late || s->leader >= 0)) {
            c = s->ready;
            s->ready = c->next;
            c->next = NULL;
            t->active = true;
            s->active++;
            if (s->parked && (s->ready || s->leader < 0) &&
                schedule_wakes(&s->schedule))
                wake = unpark(s);
            break;
        }
        if (s->quitting)
            break;
        if (s->leader < 0) {
            const int timeout = s->ready ? 0 : -1;
            Chain chain;
            s->leader = (int32_t)t->index;
            pthread_mutex_unlock(&s->lock);
            chain = poll_events(s, t, timeout);
            pthread_mutex_lock(&s->lock);
            s->leader = LEADER_NONE;
            s->polled = t->now;
            if (chain.first)
                push(s, chain.first, chain.last);
        } else {
            park(s, t);
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (wake) {
        word_add(t->row->wakeups, 1);
        pthread_cond_signal(&wake->wake);
    }
    return c;
}

Thread *
serve_thread_at(Serve *s, uint32_t index)
{
    return &s->threads[index];
}

void
serve_thread(Serve *s, uint32_t index, void *context)
{
    Thread *t = &s->threads[index];
    Conn *c;
    t->context = context;
    t->tid = gettid();
    t->now = clock_now();
    while ((c = take(s, t)) != NULL)
        conn_run(s, t, c);
}

/* ------------------------------------------------------------------------
 * The main thread's clock */

static void
set_timer(Serve *s, uint64_t after)
{
    const struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(after / CLOCK_SECOND),
                     .tv_nsec = (long)(after % CLOCK_SECOND)}};
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
    const bool held = atomic_load(&s->live) != 0;
    /* First: who sees the new pace and sets the timer has the last word. */
    if (held)
        set_timer(s, SWEEP_EVERY);
    atomic_store(&s->pace, held ? WATCH_SLOW : WATCH_OFF);
    atomic_thread_fence(memory_order_seq_cst);
    if (busy_threads(s))
        serve_arm(s);
    else if (!held && atomic_load(&s->live) != 0)
        serve_attend(s);
}

/* Is every thread in the very request it was in at the last tick? */
static bool
all_stuck(const Serve *s)
{
    uint32_t i;
    for (i = 0; i < s->o.thread_count; i++) {
        const Current *current = &s->threads[i].row->current;
        if (word_get(&current->since) == 0 ||
            atomic_load(&s->threads[i].row->current.sequence) !=
                s->sequences[i])
            return false;
    }
    return true;
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
look(Serve *s, uint64_t now)
{
    ScheduleView view = {.cpu = process_cpu()};
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
    wake = s->leader < 0 || s->ready ? unpark(s) : NULL;
    pthread_mutex_unlock(&s->lock);
    if (wake)
        pthread_cond_signal(&wake->wake);
}

/* All threads are in requests that do not end: what has come for us and is
 * unread goes back, so that whichever worker is free first can take it. What
 * has been read in part must wait here. */
static void
stand_in(Serve *s)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT,
                            .data.u64 = WATCHED_EPOLL};
    Conn *back[CHANNEL_BATCH];
    Chain stay = {NULL, NULL}, got;
    Conn *c, *following;
    uint32_t n = 0;

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
                chain_add(&stay, c);
                continue;
            }
            back[n++] = c;
            if (n == CHANNEL_BATCH) {
                conn_hand_back(s, &s->main, back, n, s->main.now);
                n = 0;
            }
        }
        got = poll_events(s, &s->main, 0);
        if (got.first == NULL)
            break;
    }
    conn_hand_back(s, &s->main, back, n, s->main.now);
    pthread_mutex_lock(&s->lock);
    if (stay.first)
        push(s, stay.first, stay.last);
    if (s->leader == LEADER_MAIN)
        s->leader = LEADER_NONE;
    pthread_mutex_unlock(&s->lock);
    /* Called again by the next event, while threads are as busy as now. */
    epoll_ctl(s->watch, EPOLL_CTL_MOD, s->epoll, &e);
}

static void
tick(Serve *s)
{
    uint64_t fired;
    const uint64_t now = clock_now();
    ScheduleView view;

    if (read(s->timer, &fired, sizeof fired) < 0)
        return; /* it was set anew meanwhile */
    s->main.now = now;
    word_add(s->o.board->workers[s->o.slot].ticks, 1);
    view = look(s, now);
    if (!s->draining)
        atomic_store(&s->line->limit, schedule_limit(&s->schedule));
    switch (schedule_tick(&s->schedule, &view, now)) {
    case TICK_WAKE:
        wake_one(s);
        break;
    case TICK_STAND_IN:
        stand_in(s);
        break;
    case TICK_NOTHING:
        break;
    }
    if (now - s->swept >= SWEEP_EVERY)
        sweep(s, now, s->draining);
    if (view.busy)
        set_timer(s, SCHEDULE_TICK);
    else
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
        Thread *t = unpark(s);
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
                if (all_stuck(s))
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

/* ------------------------------------------------------------------------
 * Notes: what the threads have to say, logged by the main thread */

void
serve_note(Serve *s, NoteLevel level, const char *format, ...)
{
    va_list arguments;
    bool first;
    pthread_mutex_lock(&s->side);
    first = s->note_count == 0;
    if (s->note_count == SERVE_NOTES) {
        /* A flood must not become a flood of log lines, nor one of debug
         * lines a warning. */
        if (s->note_lost++ == 0 || level > s->note_lost_level)
            s->note_lost_level = level;
    } else {
        Note *note = &s->notes[(s->note_first + s->note_count++) % SERVE_NOTES];
        note->level = level;
        va_start(arguments, format);
        vsnprintf(note->text, sizeof note->text, format, arguments);
        va_end(arguments);
    }
    pthread_mutex_unlock(&s->side);
    if (first)
        serve_ring(s->bell);
}

bool
serve_note_pop(Serve *s, Note *note)
{
    bool found = false;
    pthread_mutex_lock(&s->side);
    if (s->note_count) {
        *note = s->notes[s->note_first];
        s->note_first = (s->note_first + 1) % SERVE_NOTES;
        s->note_count--;
        found = true;
    } else if (s->note_lost) {
        note->level = s->note_lost_level;
        snprintf(note->text, sizeof note->text,
                 "%u more messages like these were dropped", s->note_lost);
        s->note_lost = 0;
        found = true;
    }
    pthread_mutex_unlock(&s->side);
    return found;
}

/* ------------------------------------------------------------------------
 * Making it */

bool
serve_may_keep(const Serve *s, const Conn *c, const Request *r)
{
    const uint32_t most = s->o.limits.keep_alive_requests;
    /* The rest of a streamed body must be here: nobody knows whether the
     * application will read it, and we do not wait for it. */
    return r->head.keep_alive && request_body_end(r, NULL) &&
           (most == 0 || c->item.requests + 1 < most) &&
           s->o.limits.keep_alive_timeout != 0 && !s->orphan &&
           !atomic_load_explicit(&s->o.board->notice->stopping,
                                 memory_order_relaxed);
}

const ServeLimits *
serve_limits(const Serve *s)
{
    return &s->o.limits;
}

Schedule *
serve_schedule(Serve *s)
{
    return &s->schedule;
}

static int
watch_fd(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event e = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static int
thread_init(Serve *s, Thread *t, uint32_t index, ThreadRow *row)
{
    t->serve = s;
    t->index = index;
    t->row = row;
    if (pthread_cond_init(&t->wake, NULL) != 0)
        return -1;
    return request_init(&t->request, &s->o.limits.head, SERVE_BUFFER);
}

Serve *
serve_new(const ServeOptions *options)
{
    Serve *s = calloc(1, sizeof *s);
    const uint32_t threads = options->thread_count;
    uint32_t i;

    if (s == NULL)
        return NULL;
    s->o = *options;
    s->line = &options->board->loads[options->slot];
    s->leader = LEADER_NONE;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->side, NULL);
    schedule_init(&s->schedule, (int32_t)threads, options->parallel);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->watch = epoll_create1(EPOLL_CLOEXEC);
    s->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    s->threads = calloc(threads, sizeof *s->threads);
    s->sequences = calloc(threads, sizeof *s->sequences);
    if (s->epoll < 0 || s->watch < 0 || s->nudge < 0 || s->bell < 0 ||
        s->timer < 0 || !s->threads || !s->sequences)
        goto failed;
    for (i = 0; i < threads; i++)
        if (thread_init(s, &s->threads[i], i,
                        scoreboard_thread(options->board, options->slot, i)))
            goto failed;
    /* The main thread counts what it does in the row behind the last. */
    if (thread_init(s, &s->main, threads,
                    scoreboard_thread(options->board, options->slot, threads)))
        goto failed;
    if (watch_fd(s->epoll, options->channel, EPOLLIN, INDEX_CHANNEL) < 0 ||
        watch_fd(s->epoll, s->nudge, EPOLLIN | EPOLLET, INDEX_NUDGE) < 0 ||
        watch_fd(s->watch, s->timer, EPOLLIN, WATCHED_TIMER) < 0 ||
        watch_fd(s->watch, s->bell, EPOLLIN, WATCHED_BELL) < 0 ||
        watch_fd(s->watch, options->signals, EPOLLIN, WATCHED_SIGNALS) < 0 ||
        watch_fd(s->watch, options->lifeline, EPOLLIN, WATCHED_LIFELINE) < 0 ||
        watch_fd(s->watch, s->epoll, 0, WATCHED_EPOLL) < 0)
        goto failed;
    word_set(options->board->workers[options->slot].threads, threads);
    atomic_store(&s->line->limit, (int32_t)threads);
    return s;
failed:
    i = (uint32_t)errno;
    serve_free(s);
    errno = (int)i;
    return NULL;
}

static void
thread_free(Thread *t)
{
    if (t->serve == NULL)
        return;
    pthread_cond_destroy(&t->wake);
    request_clear(&t->request);
}

static void
close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Only when no thread is in serve_thread any more. */
void
serve_free(Serve *s)
{
    const uint32_t places = atomic_load(&s->conn_count);
    uint32_t i;
    for (i = 0; i < places; i++)
        close_if_open(conn_at(s, i)->fd);
    for (i = 0; i < places; i += CONN_BLOCK)
        free(s->blocks[i / CONN_BLOCK]);
    for (i = 0; s->threads && i < s->o.thread_count; i++)
        thread_free(&s->threads[i]);
    thread_free(&s->main);
    close_if_open(s->epoll);
    close_if_open(s->watch);
    close_if_open(s->nudge);
    close_if_open(s->bell);
    close_if_open(s->timer);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->side);
    free(s->threads);
    free(s->sequences);
    free(s);
}
