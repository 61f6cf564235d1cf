/* The supervisor's loop. Pure C; see dispatch.h. */
#define _GNU_SOURCE
#include "supervisor/dispatch.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/path_times.h"
#include "supervisor/held.h"

#define ACCEPT_BATCH 64
#define EVENT_BATCH 256
/* Connections taken in a row before the other events get their turn. */
#define ACCEPT_ROUNDS 4
/* When accept has no descriptors, idle connections make room, or else we look
 * again after this long. */
#define ACCEPT_PAUSE (100 * CLOCK_MILLISECOND)
#define EVICT_BATCH 16
/* Descriptors that clients never get: processes that end are started anew, and
 * that takes some. */
#define RESERVE 64
/* When too many descriptors are in flight, nothing tells us of the end. */
#define SEND_PAUSE (5 * CLOCK_MILLISECOND)
/* Short requests come, if one waited within this time. */
#define SHORT_LATELY CLOCK_SECOND
/* Long requests start apart by so much of what lies between them if they are
 * spread evenly. All of it would lose what one of them ends late: 3 to 8 %
 * fewer requests, for a p99 of the short ones that was no better. */
#define SPREAD_EIGHTHS 7
/* How long a client that was told 503 may take to read it. */
#define LINGER_TIMEOUT (2 * CLOCK_SECOND)

/* The word that epoll keeps for a descriptor: what it is, and which. The
 * stamp tells a connection from an earlier one in the same place, whose event
 * may still be in the batch. */
typedef enum {
    TAG_LISTENER,
    TAG_CHANNEL,
    TAG_HELD,
    TAG_FOREIGN,
    TAG_BELL,
    TAG_TIMER
} Tag;

static uint64_t
tagged(Tag tag, uint32_t stamp, uint32_t index)
{
    return (uint64_t)tag << 56 | (uint64_t)(stamp & 0xffffff) << 32 | index;
}

typedef struct {
    int ours, theirs;
    bool enabled;
    bool full;           /* the channel took no more: wait for EPOLLOUT */
    uint64_t retry_at;   /* or until then, 0: not waiting */
    ChannelMessage *out; /* the batch that grows in this round */
} Slot;

struct Dispatch {
    Scoreboard *board;
    DispatchLimits limits;
    int epoll;
    int bell;
    int timer; /* for hold_off: epoll_wait knows milliseconds only */
    int *listeners;
    uint32_t listener_count;
    int most; /* connections are numbered below, for the kernel gives the lowest
               * number that is free */
    uint64_t accept_again; /* accepting pauses until then, 0: it does not */
    bool stopped;
    bool drained; /* and the queue has been empty since */
    HeldTable held;
    Slot *slots;
    uint32_t turn; /* where the search for a slot begins */
    /* While requests wait: when the last short one came, when the last long one
     * was passed on and what it takes, and until when the next is held off (0:
     * it is not). */
    uint64_t short_came, long_sent, long_usual, hold_off;
    uint64_t woke; /* when the last wait ended; 0: before the first */
};

static const char busy_answer[] =
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: 45\r\n"
    "Retry-After: 1\r\n"
    "Connection: close\r\n"
    "\r\n"
    "All threads are busy. Please try again soon.\n";

/* ------------------------------------------------------------------------
 * Held connections */

static void
close_held(Dispatch *d, uint32_t index, Closed why)
{
    word_add(&d->board->supervisor->closed[why], 1);
    /* A passed descriptor may live on elsewhere: only DEL takes it out. */
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->held.items[index].fd, NULL);
    close(d->held.items[index].fd);
    held_remove(&d->held, index);
}

static int
watch_held(Dispatch *d, uint32_t index)
{
    struct epoll_event e = {
        .events = EPOLLIN | EPOLLRDHUP,
        .data.u64 = tagged(TAG_HELD, d->held.items[index].stamp, index),
    };
    return epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->held.items[index].fd, &e);
}

/* Answer 503 and wait, a little, until the client has read it: closing over
 * its unread request would send a reset that may overtake the answer. */
static void
refuse(Dispatch *d, uint32_t index, Closed why)
{
    Held *h = &d->held.items[index];
    word_add(&d->board->supervisor->closed[why], 1);
    if (send(h->fd, busy_answer, sizeof busy_answer - 1,
             MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ||
        shutdown(h->fd, SHUT_WR) < 0 || watch_held(d, index) < 0) {
        close(h->fd);
        held_remove(&d->held, index);
        return;
    }
    held_move(&d->held, index, HELD_LINGER, clock_now());
}

/* A request has come into the queue: who may overtake it? */
static void
queued(Dispatch *d, uint32_t index)
{
    const Forecast *forecast = d->board->forecast;
    const Held *h = &d->held.items[index];
    uint64_t usual, patience;

    if (d->drained) {
        refuse(d, index, CLOSED_STOPPING);
    } else if (atomic_load(&d->board->notice->turn) &&
               forecast_knows(forecast)) { /* else nobody waits as well */
        usual = forecast_of(forecast, h->fd);
        patience = d->limits.overtaking * usual;
        if (patience > d->limits.queue_timeout / 2)
            patience = d->limits.queue_timeout / 2;
        if (usual < FORECAST_LEAST)
            d->short_came = h->item.since;
        held_rank(&d->held, index, usual, patience);
    }
}

static void
enqueue(Dispatch *d, int fd, const ChannelItem *item)
{
    const uint32_t index = held_add(&d->held, fd, item, HELD_QUEUED);
    if (index == HELD_NONE)
        close(fd);
    else
        queued(d, index);
}

static void
park(Dispatch *d, int fd, const ChannelItem *item)
{
    uint32_t index = HELD_NONE;
    if (d->stopped) {
        word_add(&d->board->supervisor->closed[CLOSED_STOPPING], 1);
        close(fd);
        return;
    }
    index = held_add(&d->held, fd, item, item->requests ? HELD_KEPT : HELD_NEW);
    if (index == HELD_NONE) {
        close(fd);
        return;
    }
    if (watch_held(d, index) < 0) {
        close(fd);
        held_remove(&d->held, index);
    }
}

/* ------------------------------------------------------------------------
 * Accepting */

static void
listen_to(Dispatch *d, bool on)
{
    uint32_t i;
    for (i = 0; i < d->listener_count; i++) {
        struct epoll_event e = {.events = on ? EPOLLIN : 0,
                                .data.u64 = tagged(TAG_LISTENER, 0, i)};
        epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->listeners[i], &e);
    }
}

/* No descriptors: those who have been idle longest make room. */
static void
make_room(Dispatch *d, uint64_t now)
{
    int i;
    word_add(&d->board->supervisor->accept_errors[0], 1);
    for (i = 0; i < EVICT_BATCH; i++) {
        /* Those who have had an answer first: they will come again. */
        const HeldState idle =
            d->held.lists[HELD_KEPT].count ? HELD_KEPT : HELD_NEW;
        if (d->held.lists[idle].count == 0)
            break;
        close_held(d, d->held.lists[idle].first, CLOSED_EVICTED);
    }
    if (i == 0) {
        listen_to(d, false);
        d->accept_again = now + ACCEPT_PAUSE;
    }
}

static void
describe(ChannelItem *item, const struct sockaddr_storage *from)
{
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)from;
        item->client = address_of(AF_INET, &a->sin_addr, ntohs(a->sin_port));
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const void *)from;
        item->client = address_of(AF_INET6, &a->sin6_addr, ntohs(a->sin6_port));
    } else {
        item->client = (Address){.family = AF_UNIX};
    }
}

/* One batch: accept, ask in one system call which of them can be read, queue
 * those and park the rest. The first request of a client is mostly there by
 * now, so most connections never enter the epoll set. False: nothing left. */
static bool
accept_batch(Dispatch *d, uint32_t listener, uint64_t now)
{
    struct pollfd fds[ACCEPT_BATCH];
    ChannelItem items[ACCEPT_BATCH];
    uint32_t i, count = 0;
    bool more = true;

    while (count < ACCEPT_BATCH) {
        struct sockaddr_storage from = {.ss_family = AF_UNIX};
        socklen_t size = sizeof from;
        int fd = accept4(d->listeners[listener], (struct sockaddr *)&from,
                         &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= d->most) {
            close(fd);
            fd = -1;
            errno = EMFILE;
        }
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
                continue;
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                errno == ENOMEM)
                make_room(d, now);
            more = false;
            break;
        }
        items[count] =
            (ChannelItem){.since = now, .listener = (uint16_t)listener};
        describe(&items[count], &from);
        fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    if (count == 0)
        return false;
    word_add(&d->board->supervisor->accepted[0], count);
    if (poll(fds, count, 0) < 0)
        for (i = 0; i < count; i++)
            fds[i].revents = 0;
    for (i = 0; i < count; i++) {
        if (fds[i].revents & POLLIN)
            enqueue(d, fds[i].fd, &items[i]);
        else
            park(d, fds[i].fd, &items[i]);
    }
    return more;
}

/* ------------------------------------------------------------------------
 * Dispatching */

/* Requests that the workers take, and how many more. */
typedef struct {
    int32_t all, free;
} Places;

/* The slot with the most free threads; of equals the one with the fewest
 * connections, because those will ask again. HELD_NONE: all are full. */
static uint32_t
choose(Dispatch *d, Places *places)
{
    uint32_t i, best = HELD_NONE;
    int32_t best_free = 0, best_held = 0;
    const uint32_t count = d->board->slot_count;
    *places = (Places){0, 0};
    for (i = 0; i < count; i++) {
        uint32_t s = d->turn + i < count ? d->turn + i : d->turn + i - count;
        LoadLine *line = &d->board->loads[s];
        int32_t load, limit, free, held;
        if (!d->slots[s].enabled || d->slots[s].full || d->slots[s].retry_at)
            continue;
        load = atomic_load(&line->load);
        limit = atomic_load(&line->limit);
        places->all += limit;
        if (load >= limit)
            continue;
        places->free += limit - load;
        free = (int32_t)d->board->thread_count - load;
        held = atomic_load(&line->held);
        if (best == HELD_NONE || free > best_free ||
            (free == best_free && held < best_held)) {
            best = s;
            best_free = free;
            best_held = held;
        }
    }
    if (best != HELD_NONE)
        d->turn = best + 1 < count ? best + 1 : 0;
    return best;
}

/* Send a slot's batch. What the channel does not take is queued again: it
 * keeps its time, hence its place. */
static void
flush(Dispatch *d, uint32_t slot, uint64_t now)
{
    Slot *s = &d->slots[slot];
    ChannelMessage *out = s->out;
    const uint32_t count = out->header.count;
    uint32_t i;

    if (count == 0)
        return;
    out->header.kind = CHANNEL_DISPATCH;
    if (channel_send(s->ours, out) == 0) {
        word_add(&d->board->supervisor->dispatched[0], count);
        for (i = 0; i < count; i++)
            close(out->fds[i]);
    } else {
        LoadLine *line = &d->board->loads[slot];
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT,
                                .data.u64 = tagged(TAG_CHANNEL, 0, slot)};
        atomic_fetch_sub(&line->load, (int32_t)count);
        atomic_fetch_sub(&line->held, (int32_t)count);
        s->full = epoll_ctl(d->epoll, EPOLL_CTL_MOD, s->ours, &e) == 0;
        s->retry_at = now + SEND_PAUSE;
        for (i = 0; i < count; i++)
            enqueue(d, out->fds[i], &out->items[i]);
    }
    out->header.count = 0;
}

/* Long requests that have waited together would start together, end together,
 * and between let no short one through. So the last free place goes to the next
 * of them only when nearly as much time has passed since the one before as lies
 * between two ends if they are spread evenly. Until then it is kept for short
 * ones, hence for nobody once none has come lately, once those that come have
 * their turn behind the long one, or if nothing runs, not even the long one
 * before. When it goes; 0: now. */
static uint64_t
held_off(const Dispatch *d, const Held *h, Places places, uint64_t now)
{
    const uint64_t usual = h->usual < d->long_usual ? h->usual : d->long_usual;
    uint64_t at;
    if (h->usual < FORECAST_LEAST || places.free > 1 ||
        places.free >= places.all)
        return 0;
    at = d->long_sent + usual / (uint32_t)places.all / 8 * SPREAD_EIGHTHS;
    if (at > d->short_came + SHORT_LATELY)
        at = d->short_came + SHORT_LATELY;
    if (at > h->rank)
        at = h->rank;
    return at > now ? at : 0;
}

static void
wake_at(const Dispatch *d, uint64_t at)
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / CLOCK_SECOND),
                     .tv_nsec = (long)(at % CLOCK_SECOND)}};
    timerfd_settime(d->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void
dispatch_queue(Dispatch *d, uint64_t now)
{
    HeldList *queue = &d->held.lists[HELD_QUEUED];
    _Atomic uint64_t *turn = &d->board->notice->turn;
    Word *since = d->board->supervisor->queue_since;
    uint64_t rank, later;
    Places places;
    uint32_t i;

    while (queue->count) {
        const uint32_t slot = choose(d, &places);
        const uint32_t index = held_turn(&d->held);
        const Held *h = &d->held.items[index];
        ChannelMessage *out;
        if (slot == HELD_NONE) {
            /* Say that someone waits before the last look at the loads: a
             * worker takes its load off before it looks at the queue, so one
             * of us sees the other. */
            if (atomic_load(turn) == 0) {
                atomic_store(turn, h->rank);
                continue;
            }
            break;
        }
        later = held_off(d, h, places, now);
        if (later) {
            if (later != d->hold_off)
                wake_at(d, later);
            d->hold_off = later;
            break;
        }
        if (index != queue->first)
            word_add(&d->board->supervisor->overtook[0], 1);
        if (h->usual >= FORECAST_LEAST) {
            d->long_sent = now;
            d->long_usual = h->usual;
        }
        out = d->slots[slot].out;
        out->fds[out->header.count] = h->fd;
        out->items[out->header.count] = h->item;
        out->header.count++;
        atomic_fetch_add(&d->board->loads[slot].load, 1);
        atomic_fetch_add(&d->board->loads[slot].held, 1);
        held_remove(&d->held, index);
        if (out->header.count == CHANNEL_BATCH)
            flush(d, slot, now);
    }
    for (i = 0; i < d->board->slot_count; i++)
        if (d->slots[i].out)
            flush(d, i, now);
    while (queue->count > d->limits.queue_size)
        refuse(d, queue->last, CLOSED_QUEUE_FULL);
    rank = queue->count ? d->held.items[held_turn(&d->held)].rank : 0;
    if (atomic_load(turn) != rank)
        atomic_store(turn, rank);
    word_set(d->board->supervisor->queue_length, queue->count);
    if (queue->count)
        word_set(since, d->held.items[queue->first].item.since);
    else if (word_get(since))
        word_set(since, 0);
}

/* ------------------------------------------------------------------------
 * What the others say */

static void
taken_back(Dispatch *d, const ChannelMessage *m, uint64_t now)
{
    uint32_t i;
    for (i = 0; i < m->header.count; i++) {
        ChannelItem item = m->items[i];
        if (item.since > now)
            item.since = now;
        if (item.request_waits)
            enqueue(d, m->fds[i], &item);
        else
            park(d, m->fds[i], &item);
    }
}

/* Hand-backs and words of a slot. False: no room for another event. */
static bool
hear(Dispatch *d, uint32_t slot, uint64_t now, DispatchEvent *events,
     uint32_t room, uint32_t *count)
{
    ChannelMessage m;
    while (*count < room) {
        int got = channel_receive(d->slots[slot].ours, &m);
        if (got <= 0)
            return true;
        if (m.header.kind == CHANNEL_HAND_BACK) {
            word_add(&d->board->supervisor->handed_back[0], m.header.count);
            taken_back(d, &m, now);
        } else {
            DispatchEvent *e = &events[(*count)++];
            e->kind = DISPATCH_WORD;
            e->slot = slot;
            e->word = (ChannelKind)m.header.kind;
            memcpy(e->text, m.text, m.header.count + 1);
        }
    }
    return false;
}

uint32_t
dispatch_hear(Dispatch *d, uint32_t slot, DispatchEvent *events, uint32_t room)
{
    uint32_t count = 0;
    hear(d, slot, clock_now(), events, room, &count);
    return count;
}

static void
held_event(Dispatch *d, uint32_t index, uint32_t mask, uint64_t now)
{
    Held *h = &d->held.items[index];
    char byte;
    if (h->state == HELD_LINGER) {
        char waste[4096];
        ssize_t n = recv(h->fd, waste, sizeof waste, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            epoll_ctl(d->epoll, EPOLL_CTL_DEL, h->fd, NULL);
            close(h->fd);
            held_remove(&d->held, index);
        }
        return;
    }
    /* Some clients end their side after the request: look whether one is
     * there before calling it gone. */
    if ((mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) &&
        recv(h->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) <= 0) {
        close_held(d, index, CLOSED_CLIENT);
        return;
    }
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, h->fd, NULL);
    held_move(&d->held, index, HELD_QUEUED, now);
    queued(d, index);
}

/* ------------------------------------------------------------------------
 * Time */

static uint64_t
earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* When the first of a list runs out of time; 0 if it is empty. */
static uint64_t
runs_out(const Dispatch *d, HeldState state, uint64_t timeout)
{
    const uint32_t first = d->held.lists[state].first;
    return first == HELD_NONE ? 0 : d->held.items[first].item.since + timeout;
}

static uint64_t
next_deadline(const Dispatch *d)
{
    uint64_t at = d->accept_again;
    uint32_t i;
    at = earlier(at, runs_out(d, HELD_NEW, d->limits.header_timeout));
    at = earlier(at, runs_out(d, HELD_KEPT, d->limits.keep_alive_timeout));
    at = earlier(at, runs_out(d, HELD_QUEUED, d->limits.queue_timeout));
    at = earlier(at, runs_out(d, HELD_LINGER, LINGER_TIMEOUT));
    for (i = 0; i < d->board->slot_count; i++)
        at = earlier(at, d->slots[i].retry_at);
    return at;
}

static bool
over(const Dispatch *d, HeldState state, uint64_t timeout, uint64_t now)
{
    const uint64_t at = runs_out(d, state, timeout);
    return at != 0 && at <= now;
}

static void
expire(Dispatch *d, uint64_t now)
{
    uint32_t i;
    while (over(d, HELD_NEW, d->limits.header_timeout, now))
        close_held(d, d->held.lists[HELD_NEW].first, CLOSED_HEADER);
    while (over(d, HELD_KEPT, d->limits.keep_alive_timeout, now))
        close_held(d, d->held.lists[HELD_KEPT].first, CLOSED_KEEP_ALIVE);
    while (over(d, HELD_QUEUED, d->limits.queue_timeout, now))
        refuse(d, d->held.lists[HELD_QUEUED].first, CLOSED_QUEUE_TIMEOUT);
    while (over(d, HELD_LINGER, LINGER_TIMEOUT, now)) {
        const uint32_t index = d->held.lists[HELD_LINGER].first;
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->held.items[index].fd, NULL);
        close(d->held.items[index].fd);
        held_remove(&d->held, index);
    }
    if (d->accept_again && d->accept_again <= now) {
        d->accept_again = 0;
        if (!d->stopped)
            listen_to(d, true);
    }
    for (i = 0; i < d->board->slot_count; i++)
        if (d->slots[i].retry_at && d->slots[i].retry_at <= now)
            d->slots[i].retry_at = 0;
}

/* Until then, in milliseconds rounded up, for epoll_wait: -1 is for ever. */
static int
milliseconds(uint64_t at, uint64_t now)
{
    if (at == 0)
        return -1;
    if (at <= now)
        return 0;
    at = (at - now + CLOCK_MILLISECOND - 1) / CLOCK_MILLISECOND;
    return at > 3600000 ? 3600000 : (int)at;
}

/* ------------------------------------------------------------------------
 * The loop */

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

/* Stopped, and each request has a thread? What a worker has none for may still
 * come back, and it takes that off its load when it has sent it: so this is
 * asked before we listen a last time. */
static bool
is_draining_done(const Dispatch *d)
{
    uint32_t i;
    if (!d->stopped || d->drained || d->held.lists[HELD_QUEUED].count)
        return false;
    for (i = 0; i < d->board->slot_count; i++)
        if (atomic_load(&d->board->loads[i].load) >
            (int32_t)d->board->thread_count)
            return false;
    return true;
}

int
dispatch_wait(Dispatch *d, uint64_t deadline, DispatchEvent *events,
              uint32_t room)
{
    SupervisorRow *row = d->board->supervisor;
    uint64_t now = clock_now();
    uint32_t count = 0;

    dispatch_queue(d, now); /* the caller may have changed who gets work */
    for (;;) {
        struct epoll_event got[EVENT_BATCH];
        const bool done = is_draining_done(d);
        int i, n;

        record_round(d, now);
        n = milliseconds(earlier(deadline, next_deadline(d)), now);
        if (done)
            n = 0;
        n = epoll_wait(d->epoll, got, EVENT_BATCH, n);
        d->woke = now = clock_now();
        if (n < 0)
            return errno == EINTR ? 0 : -1;
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
                    (d->held.items[index].stamp & 0xffffff) == stamp)
                    held_event(d, index, mask, now);
                break;
            case TAG_CHANNEL:
                if (mask & EPOLLOUT) {
                    struct epoll_event e = {.events = EPOLLIN,
                                            .data.u64 = got[i].data.u64};
                    epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->slots[index].ours,
                              &e);
                    d->slots[index].full = false;
                }
                hear(d, index, now, events, room, &count);
                break;
            case TAG_BELL:
                if (read(d->bell, &rung, sizeof rung) < 0)
                    rung = 0; /* another round has read it already */
                break;
            case TAG_TIMER:
                if (read(d->timer, &rung, sizeof rung) > 0)
                    d->hold_off = 0; /* it can be set anew */
                break;
            case TAG_FOREIGN: /* below */
                break;
            }
        }
        /* After the words: that a worker has ended is heard this way, and why
         * it did may be the last thing that it said. */
        for (i = 0; i < n && count < room; i++)
            if ((Tag)(got[i].data.u64 >> 56) == TAG_FOREIGN)
                events[count++] =
                    (DispatchEvent){.kind = DISPATCH_FOREIGN,
                                    .token = (uint32_t)got[i].data.u64};
        expire(d, now);
        dispatch_queue(d, now);
        word_set(row->parked, d->held.lists[HELD_NEW].count +
                                  d->held.lists[HELD_KEPT].count);
        now = clock_now();
        if (done && n < EVENT_BATCH && count < room &&
            d->held.lists[HELD_QUEUED].count == 0) {
            d->drained = true;
            events[count++] = (DispatchEvent){.kind = DISPATCH_DRAINED};
        }
        if (count || (deadline && deadline <= now))
            return (int)count;
    }
}

/* ------------------------------------------------------------------------
 * Making and changing it */

int
dispatch_watch(Dispatch *d, int fd, uint32_t token)
{
    struct epoll_event e = {.events = EPOLLIN,
                            .data.u64 = tagged(TAG_FOREIGN, 0, token)};
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

uint32_t
dispatch_queued(const Dispatch *d)
{
    return d->held.lists[HELD_QUEUED].count;
}

int
dispatch_channel(Dispatch *d, uint32_t slot, int ours, int theirs)
{
    struct epoll_event e = {.events = EPOLLIN,
                            .data.u64 = tagged(TAG_CHANNEL, 0, slot)};
    ChannelMessage *out = calloc(1, sizeof *out);
    if (out == NULL)
        return -1;
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, ours, &e) < 0) {
        free(out);
        return -1;
    }
    d->slots[slot] = (Slot){.ours = ours, .theirs = theirs, .out = out};
    return 0;
}

void
dispatch_enable(Dispatch *d, uint32_t slot, bool on)
{
    d->slots[slot].enabled = on;
}

uint32_t
dispatch_reclaim(Dispatch *d, uint32_t slot)
{
    ChannelMessage m;
    uint32_t i, count = 0;
    while (channel_receive(d->slots[slot].theirs, &m) > 0) {
        if (m.header.kind != CHANNEL_DISPATCH)
            continue;
        for (i = 0; i < m.header.count; i++)
            enqueue(d, m.fds[i], &m.items[i]);
        count += m.header.count;
    }
    word_add(&d->board->supervisor->reclaimed[0], count);
    return count;
}

/* A request that has just arrived is still served; the idle ones go. */
static void
stop_parked(Dispatch *d, HeldState state, uint64_t now)
{
    while (d->held.lists[state].count) {
        const uint32_t index = d->held.lists[state].first;
        char byte;
        if (recv(d->held.items[index].fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) >
            0)
            held_event(d, index, EPOLLIN, now);
        else
            close_held(d, index, CLOSED_STOPPING);
    }
}

void
dispatch_stop(Dispatch *d)
{
    uint32_t i;
    const uint64_t now = clock_now();
    if (d->stopped)
        return;
    for (i = 0; i < d->listener_count; i++) {
        while (accept_batch(d, i, now))
            ;
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->listeners[i], NULL);
    }
    d->stopped = true;
    atomic_store(&d->board->notice->stopping, 1);
    stop_parked(d, HELD_KEPT, now);
    stop_parked(d, HELD_NEW, now);
}

Dispatch *
dispatch_new(Scoreboard *board, const DispatchLimits *limits,
             const int *listeners, uint32_t listener_count)
{
    Dispatch *d = calloc(1, sizeof *d);
    struct epoll_event e = {.events = EPOLLIN};
    struct rlimit files;
    uint32_t i;

    if (d == NULL)
        return NULL;
    d->board = board;
    d->limits = *limits;
    held_init(&d->held);
    atomic_store(&board->forecast->factor, limits->overtaking);
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    d->slots = calloc(board->slot_count, sizeof *d->slots);
    d->listeners = malloc(listener_count * sizeof *listeners);
    d->listener_count = listener_count;
    d->most = getrlimit(RLIMIT_NOFILE, &files) == 0 &&
                      files.rlim_cur < INT_MAX && files.rlim_cur > 2 * RESERVE
                  ? (int)files.rlim_cur - RESERVE
                  : INT_MAX;
    if (d->epoll < 0 || d->bell < 0 || d->timer < 0 || !d->slots ||
        !d->listeners)
        goto failed;
    memcpy(d->listeners, listeners, listener_count * sizeof *listeners);
    e.data.u64 = tagged(TAG_BELL, 0, 0);
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->bell, &e) < 0)
        goto failed;
    e.data.u64 = tagged(TAG_TIMER, 0, 0);
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->timer, &e) < 0)
        goto failed;
    for (i = 0; i < listener_count; i++) {
        e.data.u64 = tagged(TAG_LISTENER, 0, i);
        if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, listeners[i], &e) < 0)
            goto failed;
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
    for (i = 0; i < d->held.room; i++)
        if (d->held.items[i].fd >= 0)
            close(d->held.items[i].fd);
    for (i = 0; d->slots && i < d->board->slot_count; i++)
        free(d->slots[i].out);
    if (d->epoll >= 0)
        close(d->epoll);
    if (d->bell >= 0)
        close(d->bell);
    if (d->timer >= 0)
        close(d->timer);
    free(d->slots);
    free(d->listeners);
    held_clear(&d->held);
    free(d);
}
