/* Leader and followers: the threads of a worker over one epoll set. Pure C.
 * The main thread is in watch.c. */
#define _GNU_SOURCE
#include "worker/threads.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/exchange.h"
#include "common/path_times.h"
#include "worker/worker_internal.h"

#define EVENT_BATCH 64

/* ------------------------------------------------------------------------
 * The ready queue and the parked threads; `lock` is held */

Thread *
threads_unpark(Worker *w)
{
    Thread *t = w->parked;
    if (t) {
        w->parked = t->next;
        w->parked_count--;
        t->woken = true;
    }
    return t;
}

static void
park(Worker *w, Thread *t)
{
    t->woken = false;
    t->next = w->parked;
    w->parked = t;
    w->parked_count++;
    while (!t->woken) {
        pthread_cond_wait(&t->wake, &w->lock);
    }
    t->now = clock_now(); /* what it knew may be of long ago */
}

void
threads_queue(Worker *w, Conn *c, uint64_t now)
{
    Chain chain = {NULL, NULL};
    ready_judge(w, c, true, now);
    ready_chain(&chain, c);
    pthread_mutex_lock(&w->lock);
    ready_push(w, chain);
    pthread_mutex_unlock(&w->lock);
}

void
threads_call(Worker *w, Conn *c)
{
    Chain chain = {NULL, NULL};
    Thread *wake;
    ready_judge(w, c, true, w->main.now);
    ready_chain(&chain, c);
    pthread_mutex_lock(&w->lock);
    ready_push(w, chain);
    wake = threads_unpark(w);
    pthread_mutex_unlock(&w->lock);
    if (wake) {
        pthread_cond_signal(&wake->wake);
    } else {
        worker_ring(w->nudge);
    }
}

/* ------------------------------------------------------------------------
 * Polling: the leader, or the main thread where it stands in */

/* Take the connection that an event is for, unless somebody owns it. */
static Conn *
take_event(Worker *w, const struct epoll_event *e, uint64_t now)
{
    Conn *c = conn_at(w, (uint32_t)e->data.u64);
    const uint64_t generation = e->data.u64 >> 32;
    const uint64_t ends =
        e->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? CONN_ENDS : 0;
    uint64_t word = atomic_load(&c->word);
    for (;;) {
        /* The word holds more bits of the generation than the event. */
        if ((word >> CONN_BITS & UINT32_MAX) != generation) {
            return NULL;
        }
        if (word & CONN_OWNED) {
            if (atomic_compare_exchange_weak(&c->word, &word,
                                             word | CONN_EVENT | ends)) {
                return NULL;
            }
        } else if (atomic_compare_exchange_weak(&c->word, &word,
                                                word | CONN_OWNED | ends)) {
            break;
        }
    }
    /* Room to write is news only to one that waits for it. */
    if (!(e->events & ~(uint32_t)EPOLLOUT) && c->state != CONN_WRITING &&
        conn_release(w, c)) {
        return NULL;
    }
    c->drained = false;
    if (c->state == CONN_IDLE) {
        c->ready = now;
    }
    c->next = NULL;
    return c;
}

/* Requests that would find a thread at once, whatever they are: the last one
 * may be kept for fast ones (pause_before_next). */
static int32_t
room_here(const Worker *w)
{
    const bool keeps = w->o.thread_count > 1 && schedule_wakes(&w->schedule);
    return word_get(w->o.board->workers[w->o.slot].waiting)
               ? 0
               : atomic_load(&w->line->width) - atomic_load(&w->line->load) -
                     keeps;
}

static void
receive(Worker *w, Thread *t, Chain *chain)
{
    ChannelMessage m;
    uint32_t i;
    const int got = descriptors_receive(w, &m);
    if (got < 0 && errno != EPROTO) { /* nobody is there any more */
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->o.channel, NULL);
    }
    if (got <= 0 || m.header.kind != CHANNEL_DISPATCH) {
        return;
    }
    if (m.lost) {
        notes_add(w, NOTE_DESCRIPTORS,
                  "%u connections were lost for want of descriptors; raise "
                  "the limit of open files",
                  m.lost);
        atomic_fetch_sub(&w->line->connections, (int32_t)m.lost);
        conn_unload(w, m.lost);
    }
    for (i = 0; i < m.header.count; i++) {
        Conn *c = conn_open(w, t, m.fds[i], &m.items[i]);
        if (c) {
            ready_judge(w, c, room_here(w) <= 0, t->now);
            ready_chain(chain, c);
        }
    }
    /* What was lost, or found no memory, may have been the last to come. */
    if (atomic_load(&w->draining)) {
        worker_ring(w->alarm);
    }
}

/* Wait for events; the connections that became ready, owned. */
Chain
threads_poll(Worker *w, Thread *t, int timeout)
{
    struct epoll_event events[EVENT_BATCH];
    Chain chain = {NULL, NULL};
    int32_t room;
    int i, n;
    n = epoll_wait(w->epoll, events, EVENT_BATCH, timeout);
    if (n < 0 && errno != EINTR) {
        worker_break(w, errno);
    }
    t->now = clock_now();
    room = path_times_known(w->o.board->path_times) ? room_here(w) : INT32_MAX;
    for (i = 0; i < n; i++) {
        Conn *c;
        switch ((uint32_t)events[i].data.u64) {
        case INDEX_CHANNEL:
            receive(w, t, &chain);
            break;
        case INDEX_NUDGE:
            break;
        default:
            c = take_event(w, &events[i], t->now);
            if (c) {
                ready_judge(w, c, room-- <= 0, t->now);
                ready_chain(&chain, c);
            }
        }
    }
    return chain;
}

static inline void
tell(Worker *w)
{
    if (w->ready.waiting || w->ready.told) {
        ready_tell(w);
    }
}

/* Would it be the last thread that is free, in the mode MANY? One that
 * computes keeps none free for others: they need the same GIL. */
static bool
is_last_free(const Worker *w)
{
    return w->active + 1 >= (int32_t)w->o.thread_count && !w->quitting &&
           schedule_wakes(&w->schedule);
}

/* For how many milliseconds it should look for other requests before it takes
 * the next one. */
static int
pause_before_next(const Worker *w, const Thread *t)
{
    const uint64_t pause = is_last_free(w) ? ready_pause(w, t->now) : 0;
    return (int)((pause + LADDER_MILLISECOND / 2) / LADDER_MILLISECOND);
}

/* The next connection to serve; NULL: the worker is done. */
static Conn *
take(Worker *w, Thread *t)
{
    Thread *wake = NULL;
    Conn *c = NULL;

    if (t->now >=
        atomic_load_explicit(&w->passed, memory_order_relaxed) + LADDER_SLICE) {
        watch_pass(w, t->now);
    }
    pthread_mutex_lock(&w->lock);
    if (t->active) {
        t->active = false;
        w->active--;
    }
    for (;;) {
        if (gather_is_due(w, t->now)) {
            gather_send(w, t);
        }
        /* While another works and does not hang, one more would only fight it
         * for the GIL. Should it hang, the tick wakes us. */
        if (!schedule_has_lock(&w->schedule, w->active - w->stuck) &&
            !schedule_wakes(&w->schedule) && !w->quitting) {
            park(w, t);
            continue;
        }
        /* The queue may never become empty, and new connections must get into
         * it. */
        const bool looks = t->now > w->polled + LADDER_SLICE && w->leader < 0;
        const int pause = w->ready.count ? pause_before_next(w, t) : -1;
        if (pause == 0 && !looks) {
            c = ready_take(w, t->now);
            t->active = true;
            w->active++;
            if (w->parked && (w->ready.count || w->leader < 0) &&
                (schedule_wakes(&w->schedule) ||
                 schedule_has_lock(&w->schedule, w->active - w->stuck))) {
                wake = threads_unpark(w);
            }
            break;
        }
        if (w->quitting || atomic_load(&w->broken)) {
            break;
        }
        if (w->leader < 0) {
            Chain chain;
            w->leader = (int32_t)t->index;
            tell(w);
            pthread_mutex_unlock(&w->lock);
            chain = threads_poll(w, t, pause);
            pthread_mutex_lock(&w->lock);
            w->leader = LEADER_NONE;
            w->polled = t->now;
            ready_push(w, chain);
        } else {
            park(w, t);
        }
    }
    tell(w);
    pthread_mutex_unlock(&w->lock);
    if (wake) {
        word_add(t->row->wakeups, 1);
        pthread_cond_signal(&wake->wake);
    }
    return c;
}

Thread *
threads_at(Worker *w, uint32_t index)
{
    return &w->threads[index];
}

void
threads_serve(Worker *w, uint32_t index, void *context)
{
    Thread *t = &w->threads[index];
    Conn *c;
    t->context = context;
    t->tid = (pid_t)syscall(SYS_gettid); /* glibc has gettid() since 2.30 */
    t->now = clock_now();
    while ((c = take(w, t)) != NULL) {
        exchange_run(w, t, c);
    }
}
