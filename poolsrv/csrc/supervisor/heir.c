/* One supervisor takes the place of another: connections go from one to the
 * other, as they go between supervisor and worker. Pure C; see dispatch.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "supervisor/dispatch_internal.h"

/* The heir has not read yet, or too many descriptors are in flight: nothing
 * tells us of the end of that. */
#define SEND_PAUSE (5 * CLOCK_MILLISECOND)

/* In the order in which they go: those with a request first. */
static const HeldState states[] = {HELD_FAST, HELD_SLOW, HELD_HEAD, HELD_KEPT,
                                   HELD_NEW};

/* No byte of a request is there, as far as we know. */
static bool
is_idle(HeldState state)
{
    return state == HELD_KEPT || state == HELD_NEW;
}

/* As many of a list as fit one message; they stay in the list. */
static uint32_t
gather(const Dispatch *d, HeldState state, ChannelBatch *m, uint32_t *indices)
{
    uint32_t index = d->held.lists[state].first;
    uint32_t count = 0;
    while (index != HELD_NONE && count < CHANNEL_BATCH) {
        const Held *h = &d->held.items[index];
        m->fds[count] = h->fd;
        m->items[count] = h->item;
        m->items[count].request_waits = !is_idle(state);
        m->items[count].group = 0; /* the heir's groups may be others */
        indices[count++] = index;
        index = h->next;
    }
    m->header = (ChannelHeader){.kind = CHANNEL_HAND_BACK, .count = count};
    return count;
}

/* The heir has them: they are ours no more. */
static void
let_go(Dispatch *d, HeldState state, const uint32_t *indices, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const int fd = d->held.items[indices[i]].fd;
        if (is_idle(state) || state == HELD_HEAD) {
            epoll_ctl(d->epoll, EPOLL_CTL_DEL, fd, NULL);
        }
        close(fd);
        held_remove(&d->held, indices[i]);
    }
}

/* Nobody is left to hand anything to: as at a stop. */
static void
heir_lost(Dispatch *d, uint64_t now)
{
    d->stopped = d->drained = true;
    parked_stop(d, HELD_KEPT, now);
    parked_stop(d, HELD_NEW, now);
    while (queue_length(d)) {
        const uint32_t fast = d->held.lists[HELD_FAST].first;
        parked_refuse(d,
                      fast != HELD_NONE ? fast : d->held.lists[HELD_SLOW].first,
                      CLOSED_STOPPING);
    }
}

void
heir_send(Dispatch *d, uint64_t now)
{
    ChannelBatch m;
    uint32_t indices[CHANNEL_BATCH];
    if (d->stopped || d->heir_again > now) {
        return;
    }
    d->heir_again = 0;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        uint32_t count;
        while ((count = gather(d, states[i], &m, indices)) != 0) {
            if (channel_send(d->heir, &m) == 0) {
                let_go(d, states[i], indices, count);
            } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                d->heir_again = now + SEND_PAUSE;
                return;
            } else {
                heir_lost(d, now);
                return;
            }
        }
    }
}

static void
forget(Dispatch *d)
{
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->forebear, NULL);
    d->forebear = -1;
}

void
heir_receive(Dispatch *d, uint64_t now)
{
    ChannelMessage m;
    int got;
    while ((got = channel_receive(d->forebear, &m)) > 0) {
        if (m.header.kind != CHANNEL_HAND_BACK) {
            continue;
        }
        for (uint32_t i = 0; i < m.header.count; i++) {
            const uint16_t listener = m.items[i].listener;
            m.items[i].listener =
                listener < d->translation_count ? d->translation[listener] : 0;
        }
        word_add(d->board->supervisor->inherited, m.header.count);
        d->first->room -= (int32_t)m.header.count;
        slots_take_back(d, &m, now);
    }
    if (got < 0 && errno != EPROTO) { /* it has ended */
        forget(d);
    }
}

void
dispatch_inherit_rest(Dispatch *d)
{
    if (d->forebear >= 0) {
        heir_receive(d, clock_now());
    }
    if (d->forebear >= 0) {
        forget(d);
    }
}

void
dispatch_bequeath(Dispatch *d, int heir)
{
    const uint64_t now = clock_now();
    for (uint32_t i = 0; i < d->listener_count; i++) {
        while (accept_batch(d, i, now)) {
        }
        /* The heir has the same listener: closing ours would not end this. */
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->listeners[i], NULL);
    }
    d->accept_again = 0;
    d->heir = heir;
    atomic_store(&d->notice->turn, 0);
}

int
dispatch_inherit(Dispatch *d, int forebear, const uint16_t *translation,
                 uint32_t count)
{
    struct epoll_event e = {.events = EPOLLIN,
                            .data.u64 = dispatch_tag(TAG_FOREBEAR, 0, 0)};
    uint16_t *copy = malloc((count + 1) * sizeof *copy);
    if (copy == NULL) {
        return -1;
    }
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, forebear, &e) < 0) {
        free(copy);
        return -1;
    }
    if (count) {
        memcpy(copy, translation, count * sizeof *copy);
    }
    d->translation = copy;
    d->translation_count = count;
    d->forebear = forebear;
    return 0;
}
