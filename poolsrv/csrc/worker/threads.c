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
    const NoticeLine *notice = s->o.board->notice;
    atomic_fetch_sub(&s->line->load, (int32_t)count);
    if (atomic_load(&notice->turn) || atomic_load(&notice->stopping))
        serve_ring(s->o.bell);
}

/* ------------------------------------------------------------------------
 * The ready queue and the parked threads; `lock` is held */

void
serve_push(Serve *s, Conn *first, Conn *last)
{
    if (s->ready)
        s->ready_last->next = first;
    else
        s->ready = first;
    s->ready_last = last;
}

Thread *
serve_unpark(Serve *s)
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
    t->now = clock_now(); /* what it knew may be of long ago */
}

void
serve_queue(Serve *s, Conn *c)
{
    c->next = NULL;
    pthread_mutex_lock(&s->lock);
    serve_push(s, c, c);
    pthread_mutex_unlock(&s->lock);
}

void
serve_call(Serve *s, Conn *c)
{
    Thread *wake;
    c->next = NULL;
    pthread_mutex_lock(&s->lock);
    serve_push(s, c, c);
    wake = serve_unpark(s);
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

void
serve_chain(Chain *chain, Conn *c)
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
            serve_chain(chain, c);
    }
    /* What was lost, or found no memory, may have been the last to come. */
    if (atomic_load(&s->draining))
        serve_ring(s->bell);
}

/* Wait for events; the connections that became ready, owned. */
Chain
serve_poll(Serve *s, Thread *t, int timeout)
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
                serve_chain(&chain, c);
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
                wake = serve_unpark(s);
            break;
        }
        if (s->quitting)
            break;
        if (s->leader < 0) {
            const int timeout = s->ready ? 0 : -1;
            Chain chain;
            s->leader = (int32_t)t->index;
            pthread_mutex_unlock(&s->lock);
            chain = serve_poll(s, t, timeout);
            pthread_mutex_lock(&s->lock);
            s->leader = LEADER_NONE;
            s->polled = t->now;
            if (chain.first)
                serve_push(s, chain.first, chain.last);
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
    if (pthread_cond_init(&t->wake, NULL) != 0 ||
        pthread_mutex_init(&t->pieces.lock, NULL) != 0)
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
    atomic_store(&s->line->width, (int32_t)threads);
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
