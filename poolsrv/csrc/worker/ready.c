/* The connections that are ready for a thread. Pure C; see ready.h. */
#include "worker/ready.h"

#include "common/path_times.h"
#include "worker/worker_internal.h"

void
ready_chain(Chain *chain, Conn *c)
{
    c->next = NULL;
    if (chain->first) {
        chain->last->next = c;
    } else {
        chain->first = c;
    }
    chain->last = c;
}

void
ready_judge(const Worker *w, Conn *c, bool waits, uint64_t now)
{
    const uint64_t delay = waits && conn_may_move(c)
                               ? path_times_delay(w->o.board->path_times, c->fd)
                               : 0;
    c->lane = delay                             ? READY_SLOW
              : !conn_may_move(c) || c->counted ? READY_PLACED
                                                : READY_FAST;
    c->rank = conn_may_move(c) ? choice_rank(c->ready, delay) : now;
}

void
ready_push(Worker *w, Chain chain)
{
    Conn *c, *next;
    for (c = chain.first; c; c = next) {
        next = c->next;
        Chain *lane = &w->ready.lanes[c->lane];
        if (c->lane == READY_SLOW && c->counted && lane->first &&
            c->rank < lane->first->rank) {
            c->next = lane->first; /* that is why it was sent */
            lane->first = c;
        } else {
            ready_chain(lane, c);
        }
        w->ready.count++;
        w->ready.waiting += conn_may_move(c);
    }
}

/* Take out the one behind `before`, or the first if that is NULL. */
static Conn *
remove_behind(Worker *w, Chain *chain, Conn *before)
{
    Conn *c = before ? before->next : chain->first;
    if (before) {
        before->next = c->next;
    } else {
        chain->first = c->next;
    }
    if (chain->last == c) {
        chain->last = before;
    }
    c->next = NULL;
    w->ready.count--;
    w->ready.waiting -= conn_may_move(c);
    return c;
}

/* The lane whose first is to be served next; READY_LANES: all are empty. */
static ReadyLane
next_lane(const Ready *r)
{
    size_t best = READY_LANES;
    for (size_t i = 0; i < READY_LANES; i++) {
        const Conn *first = r->lanes[i].first;
        if (first &&
            (best == READY_LANES || first->rank < r->lanes[best].first->rank)) {
            best = i;
        }
    }
    return (ReadyLane)best;
}

bool
ready_is_slow(const Worker *w)
{
    return next_lane(&w->ready) == READY_SLOW;
}

Conn *
ready_take(Worker *w, uint64_t now)
{
    Ready *r = &w->ready;
    const ReadyLane lane = next_lane(r);
    if (lane == READY_LANES) {
        return NULL;
    }
    Conn *c = remove_behind(w, &r->lanes[lane], NULL);
    r->begun += conn_may_move(c);
    r->took_at = now;
    if (lane == READY_SLOW) {
        r->slow_at = now;
    }
    return c;
}

void
ready_count_begun(Worker *w, uint64_t now)
{
    Ready *r = &w->ready;
    if (now >= r->counted_at + LADDER_TICK) {
        w->begun = r->begun;
        r->begun = 0;
        r->counted_at = now;
    }
}

uint64_t
ready_pause(const Worker *w, uint64_t now)
{
    const Ready *r = &w->ready;
    const uint32_t times = atomic_load_explicit(&w->o.board->path_times->factor,
                                                memory_order_relaxed);
    if (next_lane(r) != READY_SLOW || times == 0) {
        return 0;
    }
    const Conn *c = r->lanes[READY_SLOW].first;
    const uint64_t usual = (c->rank - c->ready) / times;
    return choice_pause(usual, w->o.thread_count,
                        now > r->slow_at ? now - r->slow_at : 0);
}

/* Is `c` the better one to take out? */
typedef bool Better(const Conn *c, const Conn *than);

static bool
ranks_before(const Conn *c, const Conn *than)
{
    return c->rank < than->rank;
}

static bool
came_later(const Conn *c, const Conn *than)
{
    return c->ready > than->ready;
}

static bool
came_earlier(const Conn *c, const Conn *than)
{
    return c->ready < than->ready;
}

static Conn *
take_best(Worker *w, Better *better, uint64_t before, bool kept)
{
    Chain *chain = NULL;
    Conn *best = NULL, *behind = NULL;
    for (size_t i = 0; i < READY_LANES; i++) {
        Conn *last = NULL;
        for (Conn *c = w->ready.lanes[i].first; c; c = c->next) {
            if (conn_may_move(c) && c->ready <= before &&
                !(kept && c->counted) && (!best || better(c, best))) {
                chain = &w->ready.lanes[i];
                best = c;
                behind = last;
            }
            last = c;
        }
    }
    return best ? remove_behind(w, chain, behind) : NULL;
}

Conn *
ready_take_first(Worker *w)
{
    return take_best(w, ranks_before, UINT64_MAX, false);
}

static Conn *
take_overdue(Worker *w, ReadyLane lane, uint64_t rank)
{
    Conn *behind = NULL;
    for (Conn *c = w->ready.lanes[lane].first; c; c = c->next) {
        if (conn_may_move(c) && c->rank < rank) {
            return remove_behind(w, &w->ready.lanes[lane], behind);
        }
        behind = c;
    }
    return NULL;
}

Conn *
ready_take_overdue_fast(Worker *w, uint64_t rank)
{
    return take_overdue(w, READY_FAST, rank);
}

Conn *
ready_take_overdue_slow(Worker *w, uint64_t rank)
{
    return take_overdue(w, READY_SLOW, rank);
}

Conn *
ready_take_newest(Worker *w)
{
    return take_best(w, came_later, UINT64_MAX, false);
}

Conn *
ready_take_older(Worker *w, uint64_t then)
{
    return take_best(w, came_earlier, then, false);
}

Conn *
ready_take_kept(Worker *w)
{
    return take_best(w, came_later, UINT64_MAX, true);
}

/* The first of a lane that waits on a kept connection, or NULL. What was sent
 * stands before it, if there is any: only a few are. */
static const Conn *
first_kept(const Ready *r, size_t lane)
{
    const Conn *c = r->lanes[lane].first;
    while (c && c->counted) {
        c = c->next;
    }
    return c;
}

uint64_t
ready_kept_since(const Worker *w)
{
    uint64_t since = UINT64_MAX;
    for (size_t i = 0; i < READY_PLACED; i++) {
        const Conn *c = first_kept(&w->ready, i);
        if (c && c->ready < since) {
            since = c->ready;
        }
    }
    return since;
}

static void
set_if_new(Word *word, uint64_t *told, uint64_t value)
{
    if (*told != value) {
        *told = value;
        word_set(word, value);
    }
}

void
ready_tell(Worker *w)
{
    WorkerRow *row = &w->o.board->workers[w->o.slot];
    Ready *r = &w->ready;
    const Conn *fast = first_kept(r, READY_FAST);
    const Conn *slow = first_kept(r, READY_SLOW);
    const uint64_t slow_rank = slow ? slow->rank : 0;
    const uint64_t rank =
        fast && (!slow || fast->rank < slow_rank) ? fast->rank : slow_rank;
    uint64_t since = 0;
    for (size_t i = 0; i < READY_LANES; i++) {
        const Conn *c = r->lanes[i].first;
        if (c && conn_may_move(c) && (since == 0 || c->ready < since)) {
            since = c->ready;
        }
    }
    const bool last_has_left = r->told && r->waiting == 0;
    set_if_new(row->waiting, &r->told, r->waiting);
    set_if_new(row->waiting_since, &r->told_since, since);
    set_if_new(row->waiting_rank, &r->told_rank, rank);
    set_if_new(row->waiting_slow_rank, &r->told_slow_rank, slow_rank);
    if (last_has_left) {
        /* Together with the fence in is_draining_done: either the supervisor
         * sees that nobody waits here, or we see that it waits for that. */
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load(&w->o.board->notice->stopping)) {
            worker_ring(w->o.bell);
        }
    }
}
