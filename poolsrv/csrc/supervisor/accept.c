/* New connections: accepted in batches, or not for a while. Pure C; see
 * dispatch.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "supervisor/dispatch_internal.h"

#define ACCEPT_BATCH 64
/* When accept has no descriptors, idle connections make room, or else we look
 * again after this long. */
#define ACCEPT_PAUSE (100 * CLOCK_MILLISECOND)
#define EVICT_BATCH 16

void
accept_listen(Dispatch *d, bool on)
{
    uint32_t i;
    for (i = 0; i < d->listener_count; i++) {
        struct epoll_event e = {.events = on ? EPOLLIN : 0,
                                .data.u64 = dispatch_tag(TAG_LISTENER, 0, i)};
        epoll_ctl(d->epoll, EPOLL_CTL_MOD, d->listeners[i], &e);
    }
}

static int32_t
count_room(const Dispatch *d)
{
    int64_t room = d->first->most;
    for (d = d->first; d; d = d->next) {
        for (size_t i = 0; i < HELD_STATES; i++) {
            room -= d->held.lists[i].count;
        }
        for (uint32_t i = 0; i < d->board->slot_count; i++) {
            room -= atomic_load(&d->board->loads[i].connections);
        }
    }
    return (int32_t)room;
}

/* Counting goes over all groups, so it is done when it matters. In between
 * connections go from us to workers and back, or end: that makes no less. */
int32_t
accept_room(Dispatch *d, int32_t enough)
{
    Dispatch *first = d->first;
    if (first->room < enough) {
        first->room = count_room(first);
    }
    return first->room;
}

/* No descriptor is free: the connections that have been idle longest are
 * closed, but none that has just come and is about to send a request. New ones
 * wait in the kernel. */
static bool
make_room(Dispatch *d, uint64_t now)
{
    word_add(&d->board->supervisor->accept_errors[0], 1);
    if (parked_evict(d, EVICT_BATCH, now - LADDER_IDLE) == 0) {
        accept_listen(d, false);
        d->accept_again = now + ACCEPT_PAUSE;
        return false;
    }
    return true;
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
bool
accept_batch(Dispatch *d, uint32_t listener, uint64_t now)
{
    struct pollfd fds[ACCEPT_BATCH];
    ChannelItem items[ACCEPT_BATCH];
    uint32_t i, count = 0;
    bool more = true;
    int32_t room = accept_room(d, ACCEPT_BATCH);

    if (room <= 0 && make_room(d, now)) {
        room = accept_room(d, ACCEPT_BATCH);
    }
    while (count < ACCEPT_BATCH) {
        if (room-- <= 0) {
            more = false;
            break;
        }
        struct sockaddr_storage from = {.ss_family = AF_UNIX};
        socklen_t size = sizeof from;
        int fd = accept4(d->listeners[listener], (struct sockaddr *)&from,
                         &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) {
                continue;
            }
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                errno == ENOMEM) {
                make_room(d, now);
            }
            more = false;
            break;
        }
        items[count] =
            (ChannelItem){.since = now, .listener = (uint16_t)listener};
        describe(&items[count], &from);
        fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    if (count == 0) {
        return false;
    }
    d->first->room -= (int32_t)count;
    word_add(&d->board->supervisor->accepted[0], count);
    if (poll(fds, count, 0) < 0) {
        for (i = 0; i < count; i++) {
            fds[i].revents = 0;
        }
    }
    for (i = 0; i < count; i++) {
        if (fds[i].revents & POLLIN) {
            queue_add(d, fds[i].fd, &items[i]);
        } else {
            parked_add(d, fds[i].fd, &items[i]);
        }
    }
    return more;
}
