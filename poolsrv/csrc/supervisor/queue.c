/* The requests that wait for a thread in the supervisor: does what choice.h
 * says. Pure C; see dispatch.h. */
#define _GNU_SOURCE
#include <unistd.h>

#include "common/choice.h"
#include "supervisor/dispatch_internal.h"

uint32_t
queue_length(const Dispatch *d)
{
    return d->held.lists[HELD_FAST].count + d->held.lists[HELD_SLOW].count;
}

static const HeldState lanes[] = {[LANE_FAST] = HELD_FAST,
                                  [LANE_SLOW] = HELD_SLOW};

/* Requests that wait in workers, on connections that those have kept. */
static uint64_t
wait_in_workers(const Dispatch *d)
{
    uint64_t waiting = 0;
    for (uint32_t i = 0; i < d->board->slot_count; i++) {
        waiting += word_get(d->board->workers[i].waiting);
    }
    return waiting;
}

/* By how much the request that came with `fd` may be overtaken. While no
 * request waits none can be overtaken, so none is judged. */
static uint64_t
judge(const Dispatch *d, int fd)
{
    return atomic_load(&d->notice->turn) || wait_in_workers(d)
               ? path_times_delay(d->board->path_times, fd)
               : 0;
}

void
queue_enter(Dispatch *d, int fd, const ChannelItem *item)
{
    const uint64_t delay = judge(d, fd);
    const uint32_t index = joined_hold(d, fd, item, lanes[choice_lane(delay)]);
    if (index == HELD_NONE) {
        close(fd);
        return;
    }
    d->held.items[index].delay = delay;
    if (d->refuses) {
        parked_refuse(d, index, CLOSED_STOPPING);
    }
}

void
queue_add(Dispatch *d, int fd, const ChannelItem *item)
{
    Dispatch *group = guess_group(d, fd, item);
    if (group) {
        queue_enter(group, fd, item);
    } else {
        parked_add_head(d, fd, item);
    }
}

void
queue_move(Dispatch *d, uint32_t index, Dispatch *group, uint64_t now)
{
    if (group != d) {
        ChannelItem item = d->held.items[index].item;
        const int fd = d->held.items[index].fd;
        item.since = now;
        held_remove(&d->held, index);
        queue_enter(group, fd, &item);
        return;
    }
    const uint64_t delay = judge(d, d->held.items[index].fd);
    held_move(&d->held, index, lanes[choice_lane(delay)], now);
    d->held.items[index].delay = delay;
    if (d->refuses) {
        parked_refuse(d, index, CLOSED_STOPPING);
    }
}

static uint64_t
rank_of(const Dispatch *d, uint32_t index)
{
    const Held *h = &d->held.items[index];
    return choice_rank(h->item.since, h->delay);
}

static Lane
lane_of(const Dispatch *d, uint32_t index)
{
    return d->held.items[index].state == HELD_SLOW ? LANE_SLOW : LANE_FAST;
}

/* The first to be served; HELD_NONE: none waits. */
static uint32_t
first_of(const Dispatch *d)
{
    const uint32_t fast = d->held.lists[HELD_FAST].first;
    const uint32_t slow = d->held.lists[HELD_SLOW].first;
    if (fast == HELD_NONE || slow == HELD_NONE) {
        return fast == HELD_NONE ? slow : fast;
    }
    return rank_of(d, fast) <= rank_of(d, slow) ? fast : slow;
}

/* Since when the oldest has waited; 0: none waits. */
static uint64_t
oldest(const Dispatch *d)
{
    uint64_t since = 0;
    for (size_t i = 0; i < LANE_COUNT; i++) {
        const uint32_t first = d->held.lists[lanes[i]].first;
        if (first != HELD_NONE) {
            since = dispatch_earlier(since, d->held.items[first].item.since);
        }
    }
    return since;
}

/* The last that came; there must be one. */
static uint32_t
newest(const Dispatch *d)
{
    const uint32_t fast = d->held.lists[HELD_FAST].last;
    const uint32_t slow = d->held.lists[HELD_SLOW].last;
    if (fast == HELD_NONE || slow == HELD_NONE) {
        return fast == HELD_NONE ? slow : fast;
    }
    return d->held.items[fast].item.since > d->held.items[slow].item.since
               ? fast
               : slow;
}

/* Has the worker a descriptor for one more connection? */
static bool
has_descriptors(const Dispatch *d, uint32_t slot)
{
    const LoadLine *line = &d->board->loads[slot];
    const int32_t most = atomic_load(&line->most);
    return most == 0 || atomic_load(&line->connections) < most;
}

static uint32_t
choose_slot(Dispatch *d, uint32_t index)
{
    const uint32_t count = d->board->slot_count;
    uint32_t best;
    for (uint32_t i = 0; i < count; i++) {
        const Slot *slot = &d->slots[i];
        d->workers[i] =
            slot->enabled && !slot->full && !slot->retry_at &&
                    has_descriptors(d, i)
                ? scoreboard_view(d->board, i)
                : (ChoiceWorker){0}; /* its limit is reached, so to speak */
    }
    best = choice_worker(d->workers, count, d->first_slot, lane_of(d, index),
                         rank_of(d, index));
    if (best != CHOICE_NONE) {
        d->first_slot = best + 1 < count ? best + 1 : 0;
    }
    return best;
}

static void
send_to(Dispatch *d, uint32_t slot, uint32_t index, uint64_t now)
{
    const Held *h = &d->held.items[index];
    ChannelBatch *out = d->slots[slot].out;
    if (h->item.since > oldest(d)) {
        word_add(&d->board->supervisor->overtook[0], 1);
    }
    out->fds[out->header.count] = h->fd;
    out->items[out->header.count] = h->item;
    out->header.count++;
    atomic_fetch_add(&d->board->loads[slot].load, 1);
    atomic_fetch_add(&d->board->loads[slot].connections, 1);
    held_remove(&d->held, index);
    if (out->header.count == CHANNEL_BATCH) {
        slots_flush(d, slot, now);
    }
}

/* Requests that wait in workers belong to the queue, too, and its limit is for
 * both. */
static void
refuse_surplus(Dispatch *d)
{
    const uint64_t waiting = queue_length(d) ? wait_in_workers(d) : 0;
    while (queue_length(d) &&
           queue_length(d) + waiting > d->limits.queue_size) {
        parked_refuse(d, newest(d), CLOSED_QUEUE_FULL);
    }
}

void
queue_refuse_all(Dispatch *d)
{
    uint32_t index;
    while ((index = first_of(d)) != HELD_NONE) {
        parked_refuse(d, index, CLOSED_STOPPING);
    }
}

bool
queue_wants_worker(const Dispatch *d)
{
    return d->enabled == 0 && !d->said_wanted && d->heir < 0 && queue_length(d);
}

void
queue_dispatch(Dispatch *d, uint64_t now)
{
    _Atomic uint64_t *turn = &d->notice->turn;
    Word *since = d->board->supervisor->queue_since;
    uint64_t rank;
    uint32_t index;

    if (d->heir >= 0) {
        heir_send(d, now);
    }
    while ((index = first_of(d)) != HELD_NONE) {
        uint32_t slot = choose_slot(d, index);
        if (slot == CHOICE_NONE && lane_of(d, index) == LANE_FAST &&
            d->held.lists[HELD_SLOW].first != HELD_NONE) {
            /* Where fast ones wait, it may be the first of the slow. */
            index = d->held.lists[HELD_SLOW].first;
            slot = choose_slot(d, index);
        }
        if (slot != CHOICE_NONE) {
            send_to(d, slot, index, now);
            continue;
        }
        if (atomic_load(turn) || d->heir >= 0) {
            break;
        }
        /* Say that someone waits before the last look at the loads: a worker
         * takes its load off before it looks whether someone waits, so one of
         * us sees the other. */
        atomic_store(turn, rank_of(d, first_of(d)));
    }
    for (uint32_t i = 0; i < d->board->slot_count; i++) {
        if (d->slots[i].out) {
            slots_flush(d, i, now);
        }
    }
    refuse_surplus(d);
    index = first_of(d);
    rank = index == HELD_NONE || d->heir >= 0 ? 0 : rank_of(d, index);
    if (atomic_load(turn) != rank) {
        atomic_store(turn, rank);
    }
    word_set(d->board->supervisor->queue_length, queue_length(d));
    if (word_get(since) != oldest(d)) {
        word_set(since, oldest(d));
    }
}
