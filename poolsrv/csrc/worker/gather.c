/* Finished answers that wait for others: see gather.h. Pure C.
 *
 * An answer wakes the client that sleeps for it, and that costs the server as
 * much as it costs the client: the kernel finds a processor and rings it, which
 * on a virtual machine leaves to the host, and where the processors are all in
 * use it puts the client in our place, who then finds its caches cold. For a
 * page of 250 us on 64 connections of one client that was a tenth of all. So
 * where requests wait for the thread, finished answers wait for each other,
 * for a part of the time that their own requests have waited, and go together:
 * the client, or the proxy, is woken once.
 *
 * Whoever ends a call comes by and sends what is due. If a call takes longer
 * than calls do, the tick does; so none waits while no tick would come. */
#include "worker/gather.h"

#include "worker/exchange.h"
#include "worker/output.h"
#include "worker/pieces.h"
#include "worker/worker_internal.h"

/* Until when the answer of the thread's request may wait. */
static uint64_t
due_of(const Thread *t)
{
    return t->now + choice_company(t->queued);
}

/* Would it have to go before the thread comes by again, if the next call takes
 * as long as calls do? */
static bool
is_before_next(const Worker *w, uint64_t due, uint64_t now)
{
    return due < now + schedule_mean(&w->schedule);
}

bool
gather_is_likely(const Thread *t)
{
    const Worker *w = t->worker;
    return word_get(w->o.board->workers[w->o.slot].waiting) != 0 &&
           schedule_mean(&w->schedule) >= LADDER_BLOCKED &&
           !atomic_load_explicit(&w->away, memory_order_relaxed);
}

bool
gather_puts_off(Thread *t, Conn *c, const Request *r)
{
    Worker *w = t->worker;
    if (!gather_is_likely(t) || c->ending != ENDING_KEEP || c->out || c->gone ||
        r->streaming || r->next != r->size ||
        is_before_next(w, due_of(t), t->now) || worker_is_full(w)) {
        return false;
    }
    pthread_mutex_lock(&w->lock);
    const bool waits =
        w->ready.count != 0 && w->gathered.count < GATHER_MOST &&
        (w->gathered.count == 0 || !is_before_next(w, w->gathered.due, t->now));
    pthread_mutex_unlock(&w->lock);
    if (waits && pieces_keep(t, c) == 0 &&
        output_keep(c, t->out.data, t->out.size) == 0) {
        t->puts_off = c->out != NULL;
    }
    return t->puts_off;
}

bool
gather_add(Thread *t, Conn *c)
{
    Worker *w = t->worker;
    const uint64_t due = due_of(t);
    t->puts_off = false;
    pthread_mutex_lock(&w->lock);
    const bool added = !atomic_load(&w->away);
    if (added) {
        word_add(w->o.board->workers[w->o.slot].gathered, 1);
        if (w->gathered.count++ == 0 || due < w->gathered.due) {
            w->gathered.due = due;
        }
        ready_chain(&w->gathered.conns, c);
    }
    pthread_mutex_unlock(&w->lock);
    return added;
}

bool
gather_is_due(const Worker *w, uint64_t now)
{
    return w->gathered.count != 0 && (w->ready.count == 0 || ready_is_slow(w) ||
                                      is_before_next(w, w->gathered.due, now));
}

void
gather_send(Worker *w, Thread *t)
{
    Conn *c = w->gathered.conns.first;
    w->gathered = (Gathered){.count = 0};
    pthread_mutex_unlock(&w->lock);
    while (c) {
        Conn *next = c->next;
        exchange_send_on(w, t, c);
        c = next;
    }
    pthread_mutex_lock(&w->lock);
}

static bool
send_before(Worker *w, uint64_t end)
{
    pthread_mutex_lock(&w->lock);
    if (w->gathered.count && w->gathered.due <= end) {
        gather_send(w, &w->main);
    }
    const bool some = w->gathered.count != 0;
    pthread_mutex_unlock(&w->lock);
    return some;
}

bool
gather_tick(Worker *w)
{
    return send_before(w, w->main.now);
}

void
gather_resume(Worker *w)
{
    atomic_store(&w->away, false);
}

void
gather_pause(Worker *w)
{
    /* First, so that what comes to those that wait has seen it, or is sent. */
    atomic_store(&w->away, true);
    pieces_tick(w);
    send_before(w, UINT64_MAX);
}
