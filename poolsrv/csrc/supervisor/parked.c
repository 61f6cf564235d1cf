/* Connections without a request, and those that are told to go away: watched,
 * timed, closed. Pure C; see dispatch.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/dispatch_internal.h"

void
parked_close(Dispatch *d, uint32_t index, Closed why)
{
    word_add(&d->board->supervisor->closed[why], 1);
    /* A passed descriptor may live on elsewhere: only DEL takes it out. */
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->held.items[index].fd, NULL);
    shutdown(d->held.items[index].fd, SHUT_RDWR);
    close(d->held.items[index].fd);
    held_remove(&d->held, index);
}

/* Has the client sent a byte that nobody has read? */
static bool
has_byte(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0;
}

/* By its state: where bytes wait that are not enough, only more of them are an
 * event. */
static int
watch(Dispatch *d, uint32_t index, int operation)
{
    const Held *h = &d->held.items[index];
    struct epoll_event e = {
        .events = EPOLLIN | EPOLLRDHUP | (h->state == HELD_HEAD ? EPOLLET : 0u),
        .data.u64 = dispatch_tag(TAG_HELD, h->stamp, index),
    };
    return epoll_ctl(d->epoll, operation, h->fd, &e);
}

static int
parked_watch(Dispatch *d, uint32_t index)
{
    return watch(d, index, EPOLL_CTL_ADD);
}

/* Answer 503, or 408, and wait, a little, until the client has read it: closing
 * over its unread request would send a reset that may overtake the answer. A
 * client that has sent nothing, or was reset, gets no answer: a proxy would
 * take it for the answer to its next request. */
void
parked_refuse(Dispatch *d, uint32_t index, Closed why)
{
    Held *h = &d->held.items[index];
    if (!has_byte(h->fd)) {
        parked_close(d, index, CLOSED_CLIENT);
        return;
    }
    word_add(&d->board->supervisor->closed[why], 1);
    if (!busy_answer(d, h, why) || shutdown(h->fd, SHUT_WR) < 0) {
        close(h->fd);
        held_remove(&d->held, index);
        return;
    }
    h->wasted = 0;
    held_move(&d->held, index, HELD_LINGER, clock_now());
    if (parked_watch(d, index) < 0) {
        close(h->fd);
        held_remove(&d->held, index);
    }
}

void
parked_linger(Dispatch *d, int fd, const ChannelItem *item)
{
    ChannelItem since_now = *item;
    since_now.since = clock_now();
    const uint32_t index = joined_hold(d, fd, &since_now, HELD_LINGER);
    if (index == HELD_NONE) {
        close(fd);
    } else if (shutdown(fd, SHUT_WR) < 0 || parked_watch(d, index) < 0) {
        close(fd);
        held_remove(&d->held, index);
    } else {
        d->held.items[index].wasted = 0;
    }
}

/* End an idle connection, unless it has a request that no event has announced
 * yet. Looking and ending follow each other at once, and our side ends first:
 * a client that sends between the two finds an end, and no reset. */
static void
parked_end(Dispatch *d, uint32_t index, Closed why, uint64_t now)
{
    Held *h = &d->held.items[index];
    if (has_byte(h->fd)) {
        parked_event(d, index, EPOLLIN, now);
        return;
    }
    if (shutdown(h->fd, SHUT_WR) < 0) {
        parked_close(d, index, why);
        return;
    }
    word_add(&d->board->supervisor->closed[why], 1);
    h->wasted = 0;
    held_move(&d->held, index, HELD_LINGER, now);
}

void
parked_add(Dispatch *d, int fd, const ChannelItem *item)
{
    const uint32_t index =
        joined_hold(d, fd, item, item->requests ? HELD_KEPT : HELD_NEW);
    if (index == HELD_NONE) {
        word_add(&d->board->supervisor->closed[CLOSED_EVICTED], 1);
        close(fd);
    } else if (parked_watch(d, index) < 0) {
        parked_close(d, index, CLOSED_EVICTED);
    } else if (d->stopped) {
        parked_end(d, index, CLOSED_STOPPING, clock_now());
    }
}

/* The one that has waited longest for its client: for a request, or for the
 * rest of a head. HELD_NONE: none has. */
static uint32_t
longest_idle(const Dispatch *d)
{
    static const HeldState idle[] = {HELD_KEPT, HELD_NEW, HELD_HEAD};
    uint32_t found = HELD_NONE;
    for (size_t i = 0; i < sizeof idle / sizeof idle[0]; i++) {
        const uint32_t first = d->held.lists[idle[i]].first;
        if (first != HELD_NONE &&
            (found == HELD_NONE || d->held.items[first].item.since <
                                       d->held.items[found].item.since)) {
            found = first;
        }
    }
    return found;
}

/* It is idle no more, though no event has said so yet: its request has come, or
 * enough of it to tell whose it is. */
static bool
has_come(Dispatch *d, uint32_t index)
{
    const Held *h = &d->held.items[index];
    return h->state == HELD_HEAD ? guess_group(d, h->fd, &h->item) != NULL
                                 : has_byte(h->fd);
}

static uint32_t
evict_own(Dispatch *d, uint32_t count, uint64_t since)
{
    uint32_t done = 0, index;
    while (done < count && (index = longest_idle(d)) != HELD_NONE &&
           d->held.items[index].item.since <= since) {
        if (has_come(d, index)) {
            parked_event(d, index, EPOLLIN, clock_now());
            continue;
        }
        parked_close(d, index, CLOSED_EVICTED);
        done++;
    }
    return done;
}

void
parked_add_head(Dispatch *d, int fd, const ChannelItem *item)
{
    const uint32_t index = joined_hold(d, fd, item, HELD_HEAD);
    if (index == HELD_NONE) {
        word_add(&d->board->supervisor->closed[CLOSED_EVICTED], 1);
        close(fd);
    } else if (parked_watch(d, index) < 0) {
        parked_close(d, index, CLOSED_EVICTED);
    }
}

/* The time for the head begins with its first byte. */
static void
await_head(Dispatch *d, uint32_t index, uint64_t now)
{
    if (d->held.items[index].state == HELD_HEAD) {
        return;
    }
    held_move(&d->held, index, HELD_HEAD, now);
    if (watch(d, index, EPOLL_CTL_MOD) < 0) {
        parked_close(d, index, CLOSED_EVICTED);
    }
}

uint32_t
parked_evict(Dispatch *d, uint32_t count, uint64_t since)
{
    uint32_t done = evict_own(d, count, since);
    for (Dispatch *other = d->first; other; other = other->next) {
        if (other != d) {
            done += evict_own(other, count - done, since);
        }
    }
    return done;
}

void
parked_event(Dispatch *d, uint32_t index, uint32_t mask, uint64_t now)
{
    Held *h = &d->held.items[index];
    if (h->state == HELD_LINGER) {
        char waste[4096];
        ssize_t n = recv(h->fd, waste, sizeof waste, MSG_DONTWAIT);
        if (n > 0) {
            h->wasted += (uint64_t)n;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN) || h->wasted >= LINGER_BYTES) {
            epoll_ctl(d->epoll, EPOLL_CTL_DEL, h->fd, NULL);
            close(h->fd);
            held_remove(&d->held, index);
        }
        return;
    }
    /* Some clients end their side after the request: look whether one is
     * there before calling it gone. */
    const bool ends = mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (ends && !has_byte(h->fd)) {
        parked_close(d, index, CLOSED_CLIENT);
        return;
    }
    Dispatch *group = guess_group(d, h->fd, &h->item);
    if (group) {
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, h->fd, NULL);
        queue_move(d, index, group, now);
    } else if (ends) { /* it has begun what it will not end */
        parked_close(d, index, CLOSED_CLIENT);
    } else {
        await_head(d, index, now);
    }
}

/* A request that has just arrived is still served; the idle ones go. */
void
parked_stop(Dispatch *d, HeldState state, uint64_t now)
{
    while (d->held.lists[state].count) {
        parked_end(d, d->held.lists[state].first, CLOSED_STOPPING, now);
    }
}

/* When the first of a list runs out of time; 0 if it is empty. */
static uint64_t
runs_out(const Dispatch *d, HeldState state, uint64_t timeout)
{
    const uint32_t first = d->held.lists[state].first;
    return first == HELD_NONE ? 0 : d->held.items[first].item.since + timeout;
}

uint64_t
parked_deadline(const Dispatch *d)
{
    uint64_t at = dispatch_earlier(d->accept_again, d->heir_again);
    uint32_t i;
    at = dispatch_earlier(at, runs_out(d, HELD_NEW, d->limits.header_timeout));
    at = dispatch_earlier(at,
                          runs_out(d, HELD_KEPT, d->limits.keep_alive_timeout));
    at = dispatch_earlier(at, runs_out(d, HELD_FAST, d->limits.queue_timeout));
    at = dispatch_earlier(at, runs_out(d, HELD_SLOW, d->limits.queue_timeout));
    at = dispatch_earlier(at, runs_out(d, HELD_HEAD, d->limits.header_timeout));
    at = dispatch_earlier(at, runs_out(d, HELD_LINGER, LINGER_TIMEOUT));
    at = dispatch_earlier(at, refusals_due(&d->refusals));
    at = dispatch_earlier(at, queue_wants_worker(d) ? 1 : 0);
    for (i = 0; i < d->board->slot_count; i++) {
        at = dispatch_earlier(at, d->slots[i].retry_at);
    }
    return at;
}

static bool
is_over(const Dispatch *d, HeldState state, uint64_t timeout, uint64_t now)
{
    const uint64_t at = runs_out(d, state, timeout);
    return at != 0 && at <= now;
}

void
parked_expire(Dispatch *d, uint64_t now)
{
    uint32_t i;
    while (is_over(d, HELD_NEW, d->limits.header_timeout, now)) {
        parked_end(d, d->held.lists[HELD_NEW].first, CLOSED_HEADER, now);
    }
    while (is_over(d, HELD_KEPT, d->limits.keep_alive_timeout, now)) {
        parked_end(d, d->held.lists[HELD_KEPT].first, CLOSED_KEEP_ALIVE, now);
    }
    while (is_over(d, HELD_HEAD, d->limits.header_timeout, now)) {
        const uint32_t index = d->held.lists[HELD_HEAD].first;
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->held.items[index].fd, NULL);
        parked_refuse(d, index, CLOSED_HEADER);
    }
    /* If this process was stopped for a while, there may be room by now. */
    if (is_over(d, HELD_FAST, d->limits.queue_timeout, now) ||
        is_over(d, HELD_SLOW, d->limits.queue_timeout, now)) {
        queue_dispatch(d, now);
    }
    while (is_over(d, HELD_FAST, d->limits.queue_timeout, now)) {
        parked_refuse(d, d->held.lists[HELD_FAST].first, CLOSED_QUEUE_TIMEOUT);
    }
    while (is_over(d, HELD_SLOW, d->limits.queue_timeout, now)) {
        parked_refuse(d, d->held.lists[HELD_SLOW].first, CLOSED_QUEUE_TIMEOUT);
    }
    while (is_over(d, HELD_LINGER, LINGER_TIMEOUT, now)) {
        const uint32_t index = d->held.lists[HELD_LINGER].first;
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->held.items[index].fd, NULL);
        close(d->held.items[index].fd);
        held_remove(&d->held, index);
    }
    if (d->accept_again && d->accept_again <= now) {
        d->accept_again = 0;
        if (!d->stopped && d->heir < 0) {
            accept_listen(d, true);
        }
    }
    for (i = 0; i < d->board->slot_count; i++) {
        if (d->slots[i].retry_at && d->slots[i].retry_at <= now) {
            d->slots[i].retry_at = 0;
        }
    }
}
