/* The channels of the slots: what is sent to workers, and what they say. Pure
 * C; see dispatch.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "supervisor/dispatch_internal.h"

/* How long to wait if too many descriptors are in flight: no event tells when
 * they have arrived. */
#define SEND_PAUSE (5 * CLOCK_MILLISECOND)

/* Send a slot's batch. What the channel does not take is queued again: it
 * keeps its time, hence its place. */
void
slots_flush(Dispatch *d, uint32_t slot, uint64_t now)
{
    Slot *s = &d->slots[slot];
    ChannelBatch *out = s->out;
    const uint32_t count = out->header.count;
    uint32_t i;

    if (count == 0) {
        return;
    }
    out->header.kind = CHANNEL_DISPATCH;
    if (channel_send(s->ours, out) == 0) {
        word_add(&d->board->supervisor->dispatched[0], count);
        for (i = 0; i < count; i++) {
            close(out->fds[i]);
        }
    } else {
        LoadLine *line = &d->board->loads[slot];
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT,
                                .data.u64 = dispatch_tag(TAG_CHANNEL, 0, slot)};
        atomic_fetch_sub(&line->load, (int32_t)count);
        atomic_fetch_sub(&line->connections, (int32_t)count);
        s->full = epoll_ctl(d->epoll, EPOLL_CTL_MOD, s->ours, &e) == 0;
        s->retry_at = now + SEND_PAUSE;
        for (i = 0; i < count; i++) {
            queue_enter(d, out->fds[i], &out->items[i]);
        }
    }
    out->header.count = 0;
}

/* accept.c has left room for all of them, unless other things have taken it
 * since: then the connections that have been idle longest are closed. One for
 * which the kernel had no descriptor is lost. */
void
slots_take_back(Dispatch *d, const ChannelMessage *m, uint64_t now)
{
    uint32_t i;
    word_add(&d->board->supervisor->closed[CLOSED_EVICTED], m->lost);
    for (i = 0; i < m->header.count; i++) {
        ChannelItem item = m->items[i];
        if (item.since > now) {
            item.since = now;
        }
        if (item.request_waits) {
            queue_add(d, m->fds[i], &item);
        } else {
            parked_add(d, m->fds[i], &item);
        }
    }
    const int32_t room = accept_room(d, 0);
    if (m->lost || room < 0) {
        parked_evict(d, room < 0 ? (uint32_t)-room : m->lost, now);
    }
}

/* Of which the worker says that another group has to answer. */
static uint32_t
count_moving(const ChannelMessage *m)
{
    uint32_t moving = 0;
    for (uint32_t i = 0; i < m->header.count; i++) {
        moving += m->items[i].group != 0;
    }
    return moving;
}

/* Hand-backs and words of a slot. False: no room for another event. */
bool
slots_hear(Dispatch *d, uint32_t slot, uint64_t now, DispatchEvent *events,
           uint32_t room, uint32_t *count)
{
    ChannelMessage m;
    while (*count < room) {
        int got = channel_receive(d->slots[slot].ours, &m);
        if (got <= 0) {
            return true;
        }
        if (m.header.kind == CHANNEL_HAND_BACK) {
            word_add(&d->board->supervisor->handed_back[0], m.header.count);
            word_add(d->board->supervisor->switched, count_moving(&m));
            slots_take_back(d, &m, now);
        } else if (m.header.kind == CHANNEL_LOST) {
            lost_answer(d, &m);
        } else {
            DispatchEvent *e = &events[(*count)++];
            e->kind = DISPATCH_NEWS;
            e->group = d->number;
            e->slot = slot;
            e->news = (ChannelKind)m.header.kind;
            memcpy(e->text, m.text, m.header.count + 1);
        }
    }
    return false;
}

uint32_t
dispatch_hear(Dispatch *d, uint32_t slot, DispatchEvent *events, uint32_t room)
{
    uint32_t count = 0;
    slots_hear(d, slot, clock_now(), events, room, &count);
    return count;
}

int
dispatch_channel(Dispatch *d, uint32_t slot, int ours, int theirs)
{
    struct epoll_event e = {.events = EPOLLIN,
                            .data.u64 = dispatch_tag(TAG_CHANNEL, 0, slot)};
    ChannelBatch *out = calloc(1, sizeof *out);
    if (out == NULL) {
        return -1;
    }
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
    Slot *s = &d->slots[slot];
    if (s->enabled != on) {
        s->enabled = on;
        d->enabled += on ? 1 : UINT32_MAX;
    }
    if (on) {
        d->said_wanted = false;
    }
}

uint32_t
dispatch_reclaim(Dispatch *d, uint32_t slot)
{
    ChannelMessage m;
    uint32_t i, count = 0;
    while (channel_receive(d->slots[slot].theirs, &m) > 0) {
        if (m.header.kind != CHANNEL_DISPATCH) {
            continue;
        }
        for (i = 0; i < m.header.count; i++) {
            queue_enter(d, m.fds[i], &m.items[i]);
        }
        count += m.header.count;
    }
    word_add(&d->board->supervisor->reclaimed[0], count);
    return count;
}
