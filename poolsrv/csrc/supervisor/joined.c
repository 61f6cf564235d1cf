/* Groups of workers that one process serves: each has a Dispatch, and the first
 * of them waits for all. Their epoll sets lie in its own. Pure C; see
 * dispatch.h. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "common/descriptor_room.h"
#include "supervisor/dispatch_internal.h"

/* Descriptors that are opened later: by the exporter and a template. */
#define PROCESSES 4

Dispatch *
joined_group(const Dispatch *d, uint32_t number)
{
    Dispatch *first = d->first;
    if (number == 0) {
        return first;
    }
    return number < first->group_count ? first->groups[number] : NULL;
}

/* Room for that number. */
static int
grow(Dispatch *first, uint32_t number)
{
    Dispatch **groups;
    if (number < first->group_count) {
        return 0;
    }
    groups = realloc(first->groups, (number + 1) * sizeof(Dispatch *));
    if (groups == NULL) {
        return -1;
    }
    while (first->group_count <= number) {
        groups[first->group_count++] = NULL;
    }
    first->groups = groups;
    return 0;
}

int
dispatch_join(Dispatch *first, Dispatch *other, uint32_t number)
{
    struct epoll_event e = {.events = EPOLLIN,
                            .data.u64 = dispatch_tag(TAG_GROUP, 0, number)};
    if (number > CHANNEL_GROUPS || joined_group(first, number) ||
        first->first != first || other->first != other || other->next ||
        other == first) {
        errno = EINVAL;
        return -1;
    }
    if (grow(first, number) < 0 ||
        epoll_ctl(first->epoll, EPOLL_CTL_ADD, other->epoll, &e) < 0) {
        return -1;
    }
    first->groups[number] = other;
    first->room = -1;
    other->number = number;
    other->first = first;
    other->astir = NULL; /* it is among those of `first` now */
    other->is_astir = false;
    joined_stir(other);
    other->next = first->next;
    first->next = other;
    return 0;
}

void
joined_stir(Dispatch *d)
{
    if (!d->is_astir) {
        d->is_astir = true;
        d->astir_next = d->first->astir;
        d->first->astir = d;
    }
}

static void
calm(Dispatch *d)
{
    Dispatch **place = &d->first->astir;
    while (*place && *place != d) {
        place = &(*place)->astir_next;
    }
    if (*place) {
        *place = d->astir_next;
    }
    d->is_astir = false;
    d->astir_next = NULL;
}

/* Nobody but itself is the first of those that it waits for. */
static void
stand_alone(Dispatch *d)
{
    d->first = d;
    d->next = NULL;
    d->number = 0;
    d->room = -1;
    d->astir = NULL;
    d->is_astir = false;
    joined_stir(d);
}

uint32_t
joined_hold(Dispatch *d, int fd, const ChannelItem *item, HeldState state)
{
    joined_stir(d);
    return held_add(&d->held, fd, item, state);
}

/* The epoll sets stay as they are: this may be a forked child, which shares
 * them with the process that goes on. */
void
joined_leave(Dispatch *d)
{
    Dispatch *first = d->first, *next = d->next;
    if (first != d) {
        calm(d);
        Dispatch *before = first;
        while (before->next != d) {
            before = before->next;
        }
        before->next = next;
        first->groups[d->number] = NULL;
    }
    while (first == d && next) {
        Dispatch *other = next;
        next = other->next;
        stand_alone(other);
    }
    d->group_count = 0;
    stand_alone(d);
}

int32_t
dispatch_measure(Dispatch *d)
{
    struct rlimit limit;
    Dispatch *first = d->first;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        uint64_t come = 0;
        for (d = first; d; d = d->next) {
            come += PROCESSES + d->board->slot_count; /* pidfds of workers */
        }
        first->most = descriptor_room_of(
            limit.rlim_cur, (uint64_t)descriptor_room_lowest(), come);
        first->room = -1;
    }
    return first->most;
}

uint64_t
joined_deadline(Dispatch *first, uint64_t at)
{
    Dispatch **place = &first->astir;
    while (*place) {
        Dispatch *d = *place;
        const uint64_t own = parked_deadline(d);
        at = dispatch_earlier(at, own);
        if (own == 0 && d != first) {
            *place = d->astir_next;
            d->is_astir = false;
        } else {
            place = &d->astir_next;
        }
    }
    return at;
}

static bool
is_stopped_and_empty(const Dispatch *d)
{
    return d->stopped && !d->drained && queue_length(d) == 0;
}

static bool
has_thread_for_each(const Dispatch *d)
{
    for (uint32_t i = 0; i < d->board->slot_count; i++) {
        if (atomic_load(&d->board->loads[i].load) >
                (int32_t)d->board->thread_count ||
            word_get(d->board->workers[i].waiting)) {
            return false;
        }
        atomic_thread_fence(memory_order_seq_cst); /* as in tell_leaving */
        if (word_get(d->board->workers[i].leaving)) {
            return false;
        }
    }
    return true;
}

/* A worker may still give back a request for which it has no thread, or which
 * is another group's, and takes it off its load after that. So this is asked
 * before we listen a last time. */
bool
joined_is_done(const Dispatch *first)
{
    for (const Dispatch *d = first; d; d = d->next) {
        if (!is_stopped_and_empty(d)) {
            return false;
        }
    }
    atomic_thread_fence(memory_order_seq_cst); /* as in ready_tell */
    for (const Dispatch *d = first; d; d = d->next) {
        if (!has_thread_for_each(d)) {
            return false;
        }
    }
    return true;
}

bool
joined_end(Dispatch *first)
{
    for (Dispatch *d = first; d; d = d->next) {
        if (queue_length(d)) {
            return false;
        }
    }
    for (Dispatch *d = first; d; d = d->next) {
        d->drained = d->refuses = true;
        atomic_store(&d->notice->stopping, 2);
    }
    return true;
}

void
dispatch_stop(Dispatch *d)
{
    const uint64_t now = clock_now();
    /* No process is started any more: take the reserve. */
    d->first->most = INT32_MAX;
    d->first->room = -1;
    for (d = d->first; d; d = d->next) {
        if (d->stopped) {
            continue;
        }
        for (uint32_t i = 0; i < d->listener_count; i++) {
            while (accept_batch(d, i, now))
                ;
            epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->listeners[i], NULL);
        }
        d->stopped = true;
        atomic_store(&d->notice->stopping, 1);
        parked_stop(d, HELD_KEPT, now);
        parked_stop(d, HELD_NEW, now);
    }
}

void
dispatch_last_call(Dispatch *d)
{
    d->refuses = true;
    atomic_store(&d->notice->last_call, 1);
    queue_refuse_all(d);
}
