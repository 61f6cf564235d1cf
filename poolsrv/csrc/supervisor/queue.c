/* The requests that wait for a thread: whose turn it is, and where it goes.
 * Pure C; see dispatch.h. */
#define _GNU_SOURCE
#include <sys/timerfd.h>
#include <unistd.h>

#include "supervisor/dispatch_internal.h"

/* Short requests come, if one waited within this time. */
#define SHORT_LATELY CLOCK_SECOND
/* Long requests start apart by so much of what lies between them if they are
 * spread evenly. All of it would lose what one of them ends late: 3 to 8 %
 * fewer requests, for a p99 of the short ones that was no better. */
#define SPREAD_EIGHTHS 7

/* Requests that the workers take, and how many more. */
typedef struct {
    int32_t all, free;
} Places;

/* A request has come into the queue: who may overtake it? */
void
queue_join(Dispatch *d, uint32_t index)
{
    const Forecast *forecast = d->board->forecast;
    const Held *h = &d->held.items[index];
    uint64_t usual, patience;

    if (d->drained) {
        parked_refuse(d, index, CLOSED_STOPPING);
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

void
queue_add(Dispatch *d, int fd, const ChannelItem *item)
{
    const uint32_t index = held_add(&d->held, fd, item, HELD_QUEUED);
    if (index == HELD_NONE)
        close(fd);
    else
        queue_join(d, index);
}

/* The slot with the most free threads; of equals the one with the fewest
 * connections, because those will ask again. HELD_NONE: all are full. */
static uint32_t
queue_choose(Dispatch *d, Places *places)
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

void
queue_dispatch(Dispatch *d, uint64_t now)
{
    HeldList *queue = &d->held.lists[HELD_QUEUED];
    _Atomic uint64_t *turn = &d->board->notice->turn;
    Word *since = d->board->supervisor->queue_since;
    uint64_t rank, later;
    Places places;
    uint32_t i;

    while (queue->count) {
        const uint32_t slot = queue_choose(d, &places);
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
            slots_flush(d, slot, now);
    }
    for (i = 0; i < d->board->slot_count; i++)
        if (d->slots[i].out)
            slots_flush(d, i, now);
    while (queue->count > d->limits.queue_size)
        parked_refuse(d, queue->last, CLOSED_QUEUE_FULL);
    rank = queue->count ? d->held.items[held_turn(&d->held)].rank : 0;
    if (atomic_load(turn) != rank)
        atomic_store(turn, rank);
    word_set(d->board->supervisor->queue_length, queue->count);
    if (queue->count)
        word_set(since, d->held.items[queue->first].item.since);
    else if (word_get(since))
        word_set(since, 0);
}
