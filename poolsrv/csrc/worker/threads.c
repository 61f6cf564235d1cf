/* Leader and followers: the threads of a worker over one epoll set. Pure C; see
 * worker.h. The main thread is in watch.c. */
#define _GNU_SOURCE
#include "worker/worker.h"

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

#include "worker/worker_internal.h"

#define EVENT_BATCH 64
/* While connections are ready, events wait so long at most. */
#define POLL_EVERY CLOCK_MILLISECOND

/* In `epoll`, next to connections: indices that no connection has. */
#define INDEX_CHANNEL UINT32_MAX
#define INDEX_NUDGE (UINT32_MAX - 1)

void
worker_ring(int bell)
{
    const uint64_t one = 1;
    /* Full means that it rings already. */
    while (write(bell, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void
conn_unload(Worker *w, uint32_t count)
{
    const NoticeLine *notice = w->o.board->notice;
    atomic_fetch_sub(&w->line->load, (int32_t)count);
    if (atomic_load(&notice->turn) || atomic_load(&notice->stopping))
        worker_ring(w->o.bell);
}

/* ------------------------------------------------------------------------
 * The ready queue and the parked threads; `lock` is held */

void
threads_push(Worker *w, Conn *first, Conn *last)
{
    if (w->ready)
        w->ready_last->next = first;
    else
        w->ready = first;
    w->ready_last = last;
}

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
    while (!t->woken)
        pthread_cond_wait(&t->wake, &w->lock);
    t->now = clock_now(); /* what it knew may be of long ago */
}

void
threads_queue(Worker *w, Conn *c)
{
    c->next = NULL;
    pthread_mutex_lock(&w->lock);
    threads_push(w, c, c);
    pthread_mutex_unlock(&w->lock);
}

void
threads_call(Worker *w, Conn *c)
{
    Thread *wake;
    c->next = NULL;
    pthread_mutex_lock(&w->lock);
    threads_push(w, c, c);
    wake = threads_unpark(w);
    pthread_mutex_unlock(&w->lock);
    if (wake)
        pthread_cond_signal(&wake->wake);
    else
        worker_ring(w->nudge);
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
        conn_release(w, c))
        return NULL;
    c->drained = false;
    if (c->state == CONN_IDLE)
        c->ready = now;
    c->next = NULL;
    return c;
}

void
threads_chain(Chain *chain, Conn *c)
{
    if (chain->first)
        chain->last->next = c;
    else
        chain->first = c;
    chain->last = c;
}

static void
receive(Worker *w, Thread *t, Chain *chain)
{
    ChannelMessage m;
    uint32_t i;
    const int got = channel_receive(w->o.channel, &m);
    if (got < 0 && errno != EPROTO) /* nobody is there any more */
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->o.channel, NULL);
    if (got <= 0 || m.header.kind != CHANNEL_DISPATCH)
        return;
    if (m.lost) {
        notes_add(w, NOTE_WARNING,
                  "%u connections were lost for want of descriptors; raise "
                  "the limit of open files",
                  m.lost);
        atomic_fetch_sub(&w->line->held, (int32_t)m.lost);
        conn_unload(w, m.lost);
    }
    for (i = 0; i < m.header.count; i++) {
        Conn *c = conn_open(w, t, m.fds[i], &m.items[i]);
        if (c)
            threads_chain(chain, c);
    }
    /* What was lost, or found no memory, may have been the last to come. */
    if (atomic_load(&w->draining))
        worker_ring(w->bell);
}

/* Wait for events; the connections that became ready, owned. */
Chain
threads_poll(Worker *w, Thread *t, int timeout)
{
    struct epoll_event events[EVENT_BATCH];
    Chain chain = {NULL, NULL};
    int i, n;
    n = epoll_wait(w->epoll, events, EVENT_BATCH, timeout);
    t->now = clock_now();
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
            if (c)
                threads_chain(&chain, c);
        }
    }
    return chain;
}

/* The next connection to serve; NULL: the worker is done. */
static Conn *
take(Worker *w, Thread *t)
{
    Thread *wake = NULL;
    Conn *c = NULL;

    pthread_mutex_lock(&w->lock);
    if (t->active) {
        t->active = false;
        w->active--;
    }
    for (;;) {
        /* While another works and does not hang, one more would only fight it
         * for the GIL. Should it hang, the tick wakes us. */
        if (w->active > w->stuck && !schedule_wakes(&w->schedule) &&
            !w->quitting) {
            park(w, t);
            continue;
        }
        /* The queue may never be empty: those who come must get into it. */
        const bool late = t->now > w->polled + POLL_EVERY;
        if (w->ready && (!late || w->leader >= 0)) {
            c = w->ready;
            w->ready = c->next;
            c->next = NULL;
            t->active = true;
            w->active++;
            if (w->parked && (w->ready || w->leader < 0) &&
                schedule_wakes(&w->schedule))
                wake = threads_unpark(w);
            break;
        }
        if (w->quitting)
            break;
        if (w->leader < 0) {
            const int timeout = w->ready ? 0 : -1;
            Chain chain;
            w->leader = (int32_t)t->index;
            pthread_mutex_unlock(&w->lock);
            chain = threads_poll(w, t, timeout);
            pthread_mutex_lock(&w->lock);
            w->leader = LEADER_NONE;
            w->polled = t->now;
            if (chain.first)
                threads_push(w, chain.first, chain.last);
        } else {
            park(w, t);
        }
    }
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
    t->tid = gettid();
    t->now = clock_now();
    while ((c = take(w, t)) != NULL)
        exchange_run(w, t, c);
}

/* ------------------------------------------------------------------------
 * Notes: what the threads have to say, logged by the main thread */

void
notes_add(Worker *w, NoteLevel level, const char *format, ...)
{
    va_list arguments;
    bool first;
    pthread_mutex_lock(&w->side);
    first = w->note_count == 0;
    if (w->note_count == NOTES_MOST) {
        /* A flood must not become a flood of log lines, nor one of debug
         * lines a warning. */
        if (w->note_lost++ == 0 || level > w->note_lost_level)
            w->note_lost_level = level;
    } else {
        Note *note = &w->notes[(w->note_first + w->note_count++) % NOTES_MOST];
        note->level = level;
        va_start(arguments, format);
        vsnprintf(note->text, sizeof note->text, format, arguments);
        va_end(arguments);
    }
    pthread_mutex_unlock(&w->side);
    if (first)
        worker_ring(w->bell);
}

bool
notes_pop(Worker *w, Note *note)
{
    bool found = false;
    pthread_mutex_lock(&w->side);
    if (w->note_count) {
        *note = w->notes[w->note_first];
        w->note_first = (w->note_first + 1) % NOTES_MOST;
        w->note_count--;
        found = true;
    } else if (w->note_lost) {
        note->level = w->note_lost_level;
        snprintf(note->text, sizeof note->text,
                 "%u more messages like these were dropped", w->note_lost);
        w->note_lost = 0;
        found = true;
    }
    pthread_mutex_unlock(&w->side);
    return found;
}

/* ------------------------------------------------------------------------
 * Making it */

bool
exchange_may_keep(const Worker *w, const Conn *c, const Request *r)
{
    const uint32_t most = w->o.limits.keep_alive_requests;
    /* The rest of a streamed body must be here: nobody knows whether the
     * application will read it, and we do not wait for it. */
    return r->head.keep_alive && body_streamed_end(r, NULL) &&
           (most == 0 || c->item.requests + 1 < most) &&
           w->o.limits.keep_alive_timeout != 0 && !w->orphan &&
           !atomic_load_explicit(&w->o.board->notice->stopping,
                                 memory_order_relaxed);
}

const WorkerLimits *
worker_limits(const Worker *w)
{
    return &w->o.limits;
}

Schedule *
worker_schedule(Worker *w)
{
    return &w->schedule;
}

static int
watch_fd(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event e = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static int
thread_init(Worker *w, Thread *t, uint32_t index, ThreadRow *row)
{
    t->worker = w;
    t->index = index;
    t->row = row;
    if (pthread_cond_init(&t->wake, NULL) != 0 ||
        pthread_mutex_init(&t->pieces.lock, NULL) != 0)
        return -1;
    return request_init(&t->request, &w->o.limits.head, REQUEST_BUFFER);
}

Worker *
worker_new(const WorkerOptions *options)
{
    Worker *w = calloc(1, sizeof *w);
    const uint32_t threads = options->thread_count;
    uint32_t i;

    if (w == NULL)
        return NULL;
    w->o = *options;
    w->line = &options->board->loads[options->slot];
    w->leader = LEADER_NONE;
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->side, NULL);
    schedule_init(&w->schedule, (int32_t)threads, options->parallel);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->watch = epoll_create1(EPOLL_CLOEXEC);
    w->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    w->threads = calloc(threads, sizeof *w->threads);
    w->sequences = calloc(threads, sizeof *w->sequences);
    if (w->epoll < 0 || w->watch < 0 || w->nudge < 0 || w->bell < 0 ||
        w->timer < 0 || !w->threads || !w->sequences)
        goto failed;
    for (i = 0; i < threads; i++)
        if (thread_init(w, &w->threads[i], i,
                        scoreboard_thread(options->board, options->slot, i)))
            goto failed;
    /* The main thread counts what it does in the row behind the last. */
    if (thread_init(w, &w->main, threads,
                    scoreboard_thread(options->board, options->slot, threads)))
        goto failed;
    if (watch_fd(w->epoll, options->channel, EPOLLIN, INDEX_CHANNEL) < 0 ||
        watch_fd(w->epoll, w->nudge, EPOLLIN | EPOLLET, INDEX_NUDGE) < 0 ||
        watch_fd(w->watch, w->timer, EPOLLIN, WATCHED_TIMER) < 0 ||
        watch_fd(w->watch, w->bell, EPOLLIN, WATCHED_BELL) < 0 ||
        watch_fd(w->watch, options->signals, EPOLLIN, WATCHED_SIGNALS) < 0 ||
        watch_fd(w->watch, options->lifeline, EPOLLIN, WATCHED_LIFELINE) < 0 ||
        watch_fd(w->watch, w->epoll, 0, WATCHED_EPOLL) < 0)
        goto failed;
    word_set(options->board->workers[options->slot].threads, threads);
    atomic_store(&w->line->width, (int32_t)threads);
    atomic_store(&w->line->limit, (int32_t)threads);
    return w;
failed:
    i = (uint32_t)errno;
    worker_free(w);
    errno = (int)i;
    return NULL;
}

static void
thread_free(Thread *t)
{
    if (t->worker == NULL)
        return;
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->pieces.lock);
    free(t->pieces.data);
    request_clear(&t->request);
}

static void
close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Only when no thread is in threads_serve any more. */
void
worker_free(Worker *w)
{
    const uint32_t places = atomic_load(&w->conn_count);
    uint32_t i;
    for (i = 0; i < places; i++)
        close_if_open(conn_at(w, i)->fd);
    for (i = 0; i < places; i += CONN_BLOCK)
        free(w->blocks[i / CONN_BLOCK]);
    for (i = 0; w->threads && i < w->o.thread_count; i++)
        thread_free(&w->threads[i]);
    thread_free(&w->main);
    close_if_open(w->epoll);
    close_if_open(w->watch);
    close_if_open(w->nudge);
    close_if_open(w->bell);
    close_if_open(w->timer);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->side);
    free(w->threads);
    free(w->sequences);
    free(w);
}
