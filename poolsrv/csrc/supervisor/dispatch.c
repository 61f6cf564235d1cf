/* The supervisor's loop: one wait, and what is called for each event. Pure C;
 * see dispatch.h. */
#define _GNU_SOURCE
#include "supervisor/dispatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "supervisor/dispatch_internal.h"

#define EVENT_BATCH 256
/* Connections taken in a row before the other events get their turn. */
#define ACCEPT_ROUNDS 4

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

/* What the caller gets to know of. */
typedef struct {
    DispatchEvent *events;
    uint32_t room, count;
} Said;

static void
act_on(Dispatch *d, const struct epoll_event *e, uint64_t now, Said *said)
{
    const uint32_t index = (uint32_t)e->data.u64;
    const uint32_t stamp = e->data.u64 >> 32 & 0xffffff;
    int rounds = ACCEPT_ROUNDS;
    uint64_t rung;
    switch ((Tag)(e->data.u64 >> 56)) {
    case TAG_LISTENER:
        while (rounds-- && accept_batch(d, index, now))
            ;
        break;
    case TAG_HELD:
        if (d->held.items[index].state != HELD_FREE &&
            (d->held.items[index].stamp & 0xffffff) == stamp) {
            parked_event(d, index, e->events, now);
        }
        break;
    case TAG_CHANNEL:
        if (e->events & EPOLLOUT) {
            struct epoll_event only_in = {.events = EPOLLIN,
                                          .data.u64 = e->data.u64};
            epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->slots[index].ours, &only_in);
            d->slots[index].full = false;
        }
        slots_hear(d, index, now, said->events, said->room, &said->count);
        break;
    case TAG_BELL:
        if (read(d->bell, &rung, sizeof rung) < 0) {
            rung = 0; /* another round has read it already */
        }
        break;
    case TAG_FOREBEAR:
        heir_receive(d, now);
        break;
    case TAG_GROUP: /* of the first, which looks there itself */
    case TAG_FOREIGN:
        break;
    }
}

/* Is there more than was looked at? */
static bool
act_on_group(Dispatch *d, uint64_t now, Said *said)
{
    struct epoll_event got[EVENT_BATCH];
    const int n = epoll_wait(d->epoll, got, EVENT_BATCH, 0);
    joined_stir(d);
    for (int i = 0; i < n; i++) {
        act_on(d, &got[i], now, said);
    }
    return n == EVENT_BATCH;
}

static bool
act_on_all(Dispatch *first, const struct epoll_event *got, int n, uint64_t now,
           Said *said)
{
    bool more = n == EVENT_BATCH;
    for (int i = 0; i < n; i++) {
        if ((Tag)(got[i].data.u64 >> 56) == TAG_GROUP) {
            Dispatch *group = joined_group(first, (uint32_t)got[i].data.u64);
            more |= group && act_on_group(group, now, said);
        } else {
            act_on(first, &got[i], now, said);
        }
    }
    /* After the news: the end of a worker is heard this way, and its last
     * news may say why it ended. */
    for (int i = 0; i < n && said->count < said->room; i++) {
        if ((Tag)(got[i].data.u64 >> 56) == TAG_FOREIGN) {
            said->events[said->count++] = (DispatchEvent){
                .kind = DISPATCH_READABLE, .token = (uint32_t)got[i].data.u64};
        }
    }
    return more;
}

/* What came may have gone from one to another of them, so each is asked for one
 * thing before any is asked for the next. */
static void
go_on(Dispatch *first, uint64_t now)
{
    for (Dispatch *d = first->astir; d; d = d->astir_next) {
        parked_expire(d, now);
    }
    for (Dispatch *d = first->astir; d; d = d->astir_next) {
        queue_dispatch(d, now);
        word_set(d->board->supervisor->parked,
                 d->held.lists[HELD_NEW].count +
                     d->held.lists[HELD_KEPT].count +
                     d->held.lists[HELD_HEAD].count);
    }
}

static void
say_of(Dispatch *d, uint64_t now, Said *said)
{
    DispatchEvent *e = &said->events[said->count];
    if (said->count < said->room &&
        refusals_say(&d->refusals, now, e->text, sizeof e->text)) {
        e->kind = DISPATCH_REFUSED;
        e->group = d->number;
        said->count++;
    }
    if (said->count < said->room && queue_wants_worker(d)) {
        d->said_wanted = true;
        said->events[said->count++] =
            (DispatchEvent){.kind = DISPATCH_WANTED, .group = d->number};
    }
}

int
dispatch_wait(Dispatch *d, uint64_t deadline, DispatchEvent *events,
              uint32_t room)
{
    Said said = {.events = events, .room = room};
    uint64_t now = clock_now();

    for (Dispatch *group = d->astir; group; group = group->astir_next) {
        queue_dispatch(group, now); /* the caller may have changed who works */
    }
    for (;;) {
        struct epoll_event got[EVENT_BATCH];
        const bool done = joined_is_done(d);
        int n;

        record_round(d, now);
        n = milliseconds(joined_deadline(d, deadline), now);
        if (done) {
            n = 0;
        }
        n = epoll_wait(d->epoll, got, EVENT_BATCH, n);
        d->woke = now = clock_now();
        if (n < 0) {
            return errno == EINTR ? 0 : -1;
        }
        const bool more = act_on_all(d, got, n, now, &said);
        go_on(d, now);
        now = clock_now();
        if (done && !more && said.count < room && joined_end(d)) {
            events[said.count++] = (DispatchEvent){.kind = DISPATCH_DRAINED};
        }
        for (Dispatch *group = d->astir; group; group = group->astir_next) {
            say_of(group, now, &said);
        }
        if (said.count || (deadline && deadline <= now)) {
            return (int)said.count;
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

/* The way out never fails: what could not be watched need not be unwatched. */
void
dispatch_unwatch(Dispatch *d, int fd)
{
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, fd, NULL);
}

int
dispatch_bell(const Dispatch *d)
{
    return d->bell;
}

void
dispatch_set_pages(Dispatch *d, const Http1Pages *pages)
{
    d->pages = *pages;
    busy_forget(d);
}

void
dispatch_set_mounts(Dispatch *d, const Mounts *mounts)
{
    d->mounts = mounts;
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
    d->limits = *limits;
    d->notice = board->notice;
    d->first = d;
    d->room = -1;
    joined_stir(d);
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
dispatch_close_in_child(const Dispatch *d)
{
    for (uint32_t i = 0; i < d->held.room; i++) {
        if (d->held.items[i].fd >= 0) {
            close(d->held.items[i].fd);
        }
    }
    if (d->epoll >= 0) {
        close(d->epoll);
    }
    if (d->bell >= 0) {
        close(d->bell);
    }
}

void
dispatch_free(Dispatch *d)
{
    uint32_t i;
    joined_leave(d);
    dispatch_close_in_child(d);
    for (i = 0; d->slots && i < d->board->slot_count; i++) {
        free(d->slots[i].out);
    }
    free(d->groups);
    free(d->slots);
    free(d->workers);
    free(d->listeners);
    free(d->translation);
    held_clear(&d->held);
    for (size_t kind = 0; kind < 2; kind++) {
        buffer_clear(&d->busy_answers[kind][0]);
        buffer_clear(&d->busy_answers[kind][1]);
    }
    free(d);
}
