/* Requests that wait for a thread of this worker, while others have one: see
 * share.h. Pure C. */
#include "worker/share.h"

#include <sys/epoll.h>

#include "worker/drain.h"
#include "worker/worker_internal.h"

/* All threads are in calls: look for events in their place. False: a thread
 * does so by now. */
bool
share_stand_in(Worker *w)
{
    bool found = false, polled;

    pthread_mutex_lock(&w->lock);
    if (w->leader >= 0) {
        pthread_mutex_unlock(&w->lock);
        return false;
    }
    w->leader = LEADER_MAIN;
    pthread_mutex_unlock(&w->lock);

    word_add(w->o.board->workers[w->o.slot].stood_in, 1);
    for (;;) {
        const Chain got = threads_poll(w, &w->main, 0);
        if (got.first == NULL) {
            break;
        }
        found = true;
        pthread_mutex_lock(&w->lock);
        ready_push(w, got);
        pthread_mutex_unlock(&w->lock);
    }
    pthread_mutex_lock(&w->lock);
    if (w->leader == LEADER_MAIN) {
        w->leader = LEADER_NONE;
    }
    polled = w->leader >= 0;
    ready_tell(w);
    pthread_mutex_unlock(&w->lock);
    if (found && polled) { /* a thread found nothing, and waits for events */
        worker_ring(w->nudge);
    }
    return true;
}

/* Requests that other workers would begin at once. */
uint32_t
share_others_room(const Worker *w)
{
    const Scoreboard *board = w->o.board;
    int32_t room = 0;
    for (uint32_t i = 0; i < board->slot_count; i++) {
        if (i != w->o.slot) {
            const ChoiceWorker other = scoreboard_view(board, i);
            room += choice_room(&other);
        }
    }
    return (uint32_t)room;
}

/* The fewest connections of a worker where requests wait as well. */
static int32_t
fewest_connections(const Worker *w)
{
    const Scoreboard *board = w->o.board;
    int32_t fewest = INT32_MAX;
    for (uint32_t i = 0; i < board->slot_count; i++) {
        const ChoiceWorker other = scoreboard_view(board, i);
        if (other.waiting > 0 && other.connections < fewest) {
            fewest = other.connections;
        }
    }
    return fewest;
}

/* How many that wait in the whole server are too many. */
static uint32_t
too_many(const Worker *w)
{
    const Scoreboard *board = w->o.board;
    const uint64_t most = atomic_load(&board->notice->queue_size);
    uint64_t waiting = word_get(board->supervisor->queue_length);
    for (uint32_t i = 0; i < board->slot_count; i++) {
        waiting += word_get(board->workers[i].waiting);
    }
    return waiting > most ? (uint32_t)(waiting - most) : 0;
}

/* Does the supervisor still send on what it gets back? Else it could only
 * refuse what this worker will serve. */
static bool
is_sent_on(const Worker *w)
{
    return atomic_load(&w->o.board->notice->stopping) < 2;
}

bool
share_may_all_go(Worker *w)
{
    pthread_mutex_lock(&w->lock);
    const bool may_go = w->ready.count == w->ready.waiting;
    pthread_mutex_unlock(&w->lock);
    return may_go && !w->draining && is_sent_on(w);
}

typedef Conn *TakeOut(Worker *w, uint64_t argument);

static Conn *
take_first(Worker *w, uint64_t unused)
{
    (void)unused;
    return ready_take_first(w);
}

static Conn *
take_newest(Worker *w, uint64_t unused)
{
    (void)unused;
    return ready_take_newest(w);
}

static Conn *
take_kept(Worker *w, uint64_t unused)
{
    (void)unused;
    return ready_take_kept(w);
}

/* What leaves is in sight until it is in the channel: of those that wait here
 * it is none any more, and a supervisor that stops would send nothing on, and
 * refuse what comes then. */
static void
tell_leaving(Worker *w, uint32_t count)
{
    word_set(w->o.board->workers[w->o.slot].leaving, count);
    atomic_thread_fence(memory_order_seq_cst); /* as in ready_tell */
    if (count == 0 && atomic_load(&w->o.board->notice->stopping)) {
        worker_ring(w->o.bell);
    }
}

/* Give at most so many of those that wait back to the supervisor. */
static void
give_back(Worker *w, TakeOut *take_out, uint64_t argument, uint32_t most)
{
    Conn *back[CHANNEL_BATCH];
    uint32_t n;
    if (most == 0) {
        return;
    }
    do {
        n = 0;
        pthread_mutex_lock(&w->lock);
        while (n < most && n < CHANNEL_BATCH &&
               (back[n] = take_out(w, argument)) != NULL) {
            n++;
        }
        if (n) {
            tell_leaving(w, n);
        }
        ready_tell(w);
        pthread_mutex_unlock(&w->lock);
        conn_hand_back(w, &w->main, back, n, w->main.now);
        if (n) {
            tell_leaving(w, 0);
        }
        most -= n;
    } while (n == CHANNEL_BATCH);
}

bool
share_is_due(Worker *w, uint64_t now)
{
    const NoticeLine *notice = w->o.board->notice;
    const uint64_t timeout = atomic_load(&notice->queue_timeout);
    pthread_mutex_lock(&w->lock);
    const bool waits = w->ready.waiting != 0;
    const uint64_t since = w->ready.told_since;
    pthread_mutex_unlock(&w->lock);
    return waits &&
           (atomic_load(&notice->last_call) || since == 0 ||
            now > since + LADDER_SWEEP || (timeout && now > since + timeout) ||
            too_many(w) != 0 || share_others_room(w) != 0);
}

/* What waits here belongs to the queue of all. It stays as long as it is as
 * well off here: not where another worker would begin it at once and this one
 * not within a tick, not in a worker that ends, not for longer than requests
 * may wait, and not where too many wait. The supervisor sends it on, or
 * refuses it. */
void
share_waiting(Worker *w, uint32_t room)
{
    const uint64_t timeout = atomic_load(&w->o.board->notice->queue_timeout);
    uint64_t since, took_at;
    uint32_t waiting, begun;

    pthread_mutex_lock(&w->lock);
    waiting = w->ready.waiting;
    begun = w->begun;
    since = ready_kept_since(w);
    took_at = w->ready.took_at;
    pthread_mutex_unlock(&w->lock);
    if (waiting == 0) {
        return;
    }
    if (w->draining || atomic_load(&w->o.board->notice->last_call)) {
        if (drain_hands_back(w) ||
            atomic_load(&w->o.board->notice->last_call)) {
            give_back(w, take_first, 0, UINT32_MAX);
        }
        return;
    }
    if (timeout && timeout < w->main.now) {
        give_back(w, ready_take_older, w->main.now - timeout, UINT32_MAX);
    }
    if (!is_sent_on(w)) {
        return;
    }
    const uint64_t now = w->main.now;
    const uint32_t surplus =
        choice_surplus(waiting, begun, now > took_at ? now - took_at : 0);
    /* All threads hang. What waited here would still count as first in turn,
     * and those that are overdue elsewhere would be sent here. */
    if (took_at < now - LADDER_SWEEP) {
        give_back(w, take_newest, 0, UINT32_MAX);
    }
    /* What waits may be of another group, which has a thread. */
    if (w->shares && since < now - LADDER_TICK) {
        give_back(w, take_kept, 0, surplus);
    }
    const uint32_t many = too_many(w);
    give_back(w, take_newest, 0, many < surplus ? many : surplus);
    give_back(w, take_first, 0, choice_moving(waiting, surplus, room));
}

/* Below which rank is what waits here in a lane overdue? */
static uint64_t
overdue_rank(const Worker *w, Lane lane)
{
    const Scoreboard *board = w->o.board;
    uint64_t overdue = 0;
    for (uint32_t i = 0; i < board->slot_count; i++) {
        const ChoiceWorker other = scoreboard_view(board, i);
        const uint64_t rank = choice_overdue(&other, lane);
        overdue = i != w->o.slot && rank > overdue ? rank : overdue;
    }
    return overdue;
}

/* Connections that all go on sending requests would stay as unevenly spread as
 * chance has it: some of those that wait move to workers with fewer. And where
 * a worker is slower than others, as one with threads that hang, what waits in
 * it goes before what came to others later. */
void
share_even_out(Worker *w)
{
    uint32_t waiting;
    pthread_mutex_lock(&w->lock);
    waiting = w->ready.waiting;
    pthread_mutex_unlock(&w->lock);
    if (waiting && is_sent_on(w)) {
        give_back(w, take_first, 0,
                  choice_excess(atomic_load(&w->line->connections),
                                fewest_connections(w), waiting));
        give_back(w, ready_take_overdue_fast, overdue_rank(w, LANE_FAST),
                  UINT32_MAX);
        give_back(w, ready_take_overdue_slow, overdue_rank(w, LANE_SLOW),
                  UINT32_MAX);
    }
}

/* Look for events as soon as there are any: a request that comes now waits for
 * a thread, and there is one elsewhere. */
void
share_await_events(Worker *w)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT,
                            .data.u64 = WATCHED_EPOLL};
    epoll_ctl(w->watch, EPOLL_CTL_MOD, w->epoll, &e);
}

void
share_events_came(Worker *w)
{
    uint32_t room;
    if (!share_stand_in(w)) {
        return;
    }
    share_waiting(w, share_others_room(w));
    room = share_others_room(w);
    if (room) {
        share_await_events(w);
    }
}
