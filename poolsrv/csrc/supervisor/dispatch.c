/* The supervisor's loop: one wait, and what is called for each event. Pure C;
 * see dispatch.h. */
#define _GNU_SOURCE
#include "supervisor/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/descriptor_room.h"
#include "supervisor/dispatch_internal.h"

#define EVENT_BATCH 256
/* Connections taken in a row before the other events get their turn. */
#define ACCEPT_ROUNDS 4
/* Descriptors that are opened later: by the exporter and a template. */
#define PROCESSES 4

/* The time until then in milliseconds, rounded up, for epoll_wait. -1: for
 * ever. */
static int
milliseconds(uint64_t at, uint64_t now)
{
    if (at == 0) {
        return -1;
    }
    if (at <= now) {
        return 0;
    }
    at = (at - now + CLOCK_MILLISECOND - 1) / CLOCK_MILLISECOND;
    return at > 3600000 ? 3600000 : (int)at;
}

/* A round goes from the end of one wait to the start of the next, so what the
 * caller did with our events counts as well. */
static void
record_round(Dispatch *d, uint64_t now)
{
    SupervisorRow *row = d->board->supervisor;
    if (d->woke) {
        word_add(row->loop_busy, now - d->woke);
        histogram_add(row->loop_lag, now - d->woke);
    }
}

/* Is the loop stopped, and has each request a thread? A worker may still give
 * back a request for which it has no thread, and takes it off its load after
 * that. So this is asked before we listen a last time. */
static bool
is_draining_done(const Dispatch *d)
{
    uint32_t i;
    if (!d->stopped || d->drained || queue_length(d)) {
        return false;
    }
    atomic_thread_fence(memory_order_seq_cst); /* as in ready_tell */
    for (i = 0; i < d->board->slot_count; i++) {
        if (atomic_load(&d->board->loads[i].load) >
                (int32_t)d->board->thread_count ||
            word_get(d->board->workers[i].waiting)) {
            return false;
        }
    }
    return true;
}

int
dispatch_wait(Dispatch *d, uint64_t deadline, DispatchEvent *events,
              uint32_t room)
{
    SupervisorRow *row = d->board->supervisor;
    uint64_t now = clock_now();
    uint32_t count = 0;

    queue_dispatch(d, now); /* the caller may have changed who gets work */
    for (;;) {
        struct epoll_event got[EVENT_BATCH];
        const bool done = is_draining_done(d);
        int i, n;

        record_round(d, now);
        n = milliseconds(dispatch_earlier(deadline, parked_deadline(d)), now);
        if (done) {
            n = 0;
        }
        n = epoll_wait(d->epoll, got, EVENT_BATCH, n);
        d->woke = now = clock_now();
        if (n < 0) {
            return errno == EINTR ? 0 : -1;
        }
        for (i = 0; i < n; i++) {
            const uint32_t index = (uint32_t)got[i].data.u64;
            const uint32_t stamp = got[i].data.u64 >> 32 & 0xffffff;
            const uint32_t mask = got[i].events;
            int rounds = ACCEPT_ROUNDS;
            uint64_t rung;
            switch ((Tag)(got[i].data.u64 >> 56)) {
            case TAG_LISTENER:
                while (rounds-- && accept_batch(d, index, now))
                    ;
                break;
            case TAG_HELD:
                if (d->held.items[index].state != HELD_FREE &&
                    (d->held.items[index].stamp & 0xffffff) == stamp) {
                    parked_event(d, index, mask, now);
                }
                break;
            case TAG_CHANNEL:
                if (mask & EPOLLOUT) {
                    struct epoll_event e = {.events = EPOLLIN,
                                            .data.u64 = got[i].data.u64};
                    epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->slots[index].ours,
                              &e);
                    d->slots[index].full = false;
                }
                slots_hear(d, index, now, events, room, &count);
                break;
            case TAG_BELL:
                if (read(d->bell, &rung, sizeof rung) < 0) {
                    rung = 0; /* another round has read it already */
                }
                break;
            case TAG_FOREBEAR:
                heir_receive(d, now);
                break;
            case TAG_FOREIGN: /* below */
                break;
            }
        }
        /* After the news: the end of a worker is heard this way, and its last
         * news may say why it ended. */
        for (i = 0; i < n && count < room; i++) {
            if ((Tag)(got[i].data.u64 >> 56) == TAG_FOREIGN) {
                events[count++] =
                    (DispatchEvent){.kind = DISPATCH_READABLE,
                                    .token = (uint32_t)got[i].data.u64};
            }
        }
        parked_expire(d, now);
        queue_dispatch(d, now);
        word_set(row->parked, d->held.lists[HELD_NEW].count +
                                  d->held.lists[HELD_KEPT].count);
        now = clock_now();
        if (done && n < EVENT_BATCH && count < room && queue_length(d) == 0) {
            d->drained = d->refuses = true;
            atomic_store(&d->group.notice->stopping, 2);
            events[count++] = (DispatchEvent){.kind = DISPATCH_DRAINED};
        }
        if (count < room && refusals_say(&d->refusals, now, events[count].text,
                                         sizeof events[count].text)) {
            events[count++].kind = DISPATCH_REFUSED;
        }
        if (count || (deadline && deadline <= now)) {
            return (int)count;
        }
    }
}

int
dispatch_watch(Dispatch *d, int fd, uint32_t token)
{
    struct epoll_event e = {.events = EPOLLIN,
                            .data.u64 = dispatch_tag(TAG_FOREIGN, 0, token)};
    return epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &e);
}

int
dispatch_unwatch(Dispatch *d, int fd)
{
    return epoll_ctl(d->epoll, EPOLL_CTL_DEL, fd, NULL);
}

int
dispatch_bell(const Dispatch *d)
{
    return d->bell;
}

int32_t
dispatch_measure(Dispatch *d)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        /* A pidfd of each worker comes. */
        d->most = descriptor_room_of(limit.rlim_cur,
                                     (uint64_t)descriptor_room_lowest(),
                                     PROCESSES + d->board->slot_count);
    }
    return d->most;
}

void
dispatch_set_pages(Dispatch *d, const Http1Pages *pages)
{
    d->pages = *pages;
    d->busy_answers[0].size = d->busy_answers[1].size = 0;
}

void
dispatch_log(Dispatch *d, int fd)
{
    d->access_log = log_file_of(fd);
}

uint32_t
dispatch_queued(const Dispatch *d)
{
    return queue_length(d);
}

void
dispatch_accept(Dispatch *d, bool on)
{
    accept_listen(d, on);
}

uint32_t
dispatch_held(const Dispatch *d)
{
    uint32_t count = 0;
    for (size_t state = HELD_FREE + 1; state < HELD_STATES; state++) {
        count += d->held.lists[state].count;
    }
    return count;
}

void
dispatch_stop(Dispatch *d)
{
    uint32_t i;
    const uint64_t now = clock_now();
    if (d->stopped) {
        return;
    }
    d->most = INT32_MAX; /* no process is started any more: take the reserve */
    for (i = 0; i < d->listener_count; i++) {
        while (accept_batch(d, i, now))
            ;
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->listeners[i], NULL);
    }
    d->stopped = true;
    atomic_store(&d->group.notice->stopping, 1);
    parked_stop(d, HELD_KEPT, now);
    parked_stop(d, HELD_NEW, now);
}

void
dispatch_last_call(Dispatch *d)
{
    d->refuses = true;
    atomic_store(&d->group.notice->last_call, 1);
    queue_refuse_all(d);
}

Dispatch *
dispatch_new(Scoreboard *board, const DispatchLimits *limits,
             const int *listeners, uint32_t listener_count)
{
    Dispatch *d = calloc(1, sizeof *d);
    struct epoll_event e = {.events = EPOLLIN};
    uint32_t i;

    if (d == NULL) {
        return NULL;
    }
    d->board = board;
    d->access_log.fd = -1;
    d->group = (Group){.limits = *limits, .notice = board->notice};
    held_init(&d->held);
    atomic_store(&board->path_times->factor, limits->queue_overtaking);
    atomic_store(&board->path_times->patience, limits->queue_timeout / 2);
    atomic_store(&board->notice->queue_timeout, limits->queue_timeout);
    atomic_store(&board->notice->queue_size, limits->queue_size);
    d->heir = d->forebear = -1;
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->slots = calloc(board->slot_count, sizeof *d->slots);
    d->workers = calloc(board->slot_count, sizeof *d->workers);
    d->listeners = malloc(listener_count * sizeof *listeners);
    d->listener_count = listener_count;
    d->most = INT32_MAX;
    if (d->epoll < 0 || d->bell < 0 || !d->slots || !d->workers ||
        !d->listeners) {
        goto failed;
    }
    memcpy(d->listeners, listeners, listener_count * sizeof *listeners);
    e.data.u64 = dispatch_tag(TAG_BELL, 0, 0);
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->bell, &e) < 0) {
        goto failed;
    }
    for (i = 0; i < listener_count; i++) {
        e.data.u64 = dispatch_tag(TAG_LISTENER, 0, i);
        if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, listeners[i], &e) < 0) {
            goto failed;
        }
    }
    return d;
failed:
    i = (uint32_t)errno;
    dispatch_free(d);
    errno = (int)i;
    return NULL;
}

void
dispatch_free(Dispatch *d)
{
    uint32_t i;
    for (i = 0; i < d->held.room; i++) {
        if (d->held.items[i].fd >= 0) {
            close(d->held.items[i].fd);
        }
    }
    for (i = 0; d->slots && i < d->board->slot_count; i++) {
        free(d->slots[i].out);
    }
    if (d->epoll >= 0) {
        close(d->epoll);
    }
    if (d->bell >= 0) {
        close(d->bell);
    }
    free(d->slots);
    free(d->workers);
    free(d->listeners);
    free(d->translation);
    held_clear(&d->held);
    buffer_clear(&d->busy_answers[0]);
    buffer_clear(&d->busy_answers[1]);
    free(d);
}
