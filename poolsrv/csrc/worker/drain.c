/* How a worker ends: see drain.h. Pure C. */
#include "worker/drain.h"

#include <sys/epoll.h>

#include "worker/share.h"
#include "worker/sweep.h"
#include "worker/upgrade.h"
#include "worker/worker_internal.h"

/* The supervisor is gone: what runs gets this long. */
#define ORPHAN_GRACE (1500 * CLOCK_MILLISECOND)

/* All of the server ends, or nobody is left to send anything to. */
bool
drain_is_last(const Worker *w)
{
    return w->orphan || atomic_load(&w->o.board->notice->stopping);
}

bool
drain_hands_back(const Worker *w)
{
    return atomic_load_explicit(&w->draining, memory_order_relaxed) &&
           !drain_is_last(w);
}

void
drain_start(Worker *w, DrainStep step)
{
    if (step > w->drain_step) {
        w->drain_step = step;
        watch_arm(w); /* the next tick may be the last */
    }
    if (atomic_exchange(&w->draining, true)) {
        return;
    }
    atomic_store(&w->line->limit, 0);
    upgrade_drain(w);
    w->main.now = clock_now();
    sweep_run(w, w->main.now, drain_hands_back(w));
    share_waiting(w, 0);
    worker_ring(w->alarm);
}

/* Is nothing here, and nothing on its way to us? Who is broken does not get to
 * this end: its threads might not be woken. A connection in the channel is
 * part of `load`, and is added to `live` before it leaves `load`: so `load`
 * must be read first. Threads that are lost keep their connections; they are
 * read last, because one may come back. */
bool
drain_is_done(Worker *w)
{
    const int32_t load = atomic_load(&w->line->load);
    const uint32_t live = atomic_load(&w->live);
    const uint32_t lost = atomic_load(&w->lost);
    return !atomic_load(&w->broken) &&
           (w->drain_step == DRAIN_NOTHING ||
            (load <= (int32_t)lost &&
             (live <= lost || w->drain_step >= DRAIN_REQUESTS)));
}

void
drain_quit(Worker *w)
{
    Conn *c;
    pthread_mutex_lock(&w->lock);
    /* Who waits for a thread would still get one. */
    while (w->drain_step == DRAIN_NOTHING &&
           (c = ready_take(w, w->main.now)) != NULL) {
        pthread_mutex_unlock(&w->lock);
        conn_close(w, &w->main, c);
        pthread_mutex_lock(&w->lock);
    }
    w->quitting = true;
    while (w->parked) {
        Thread *t = threads_unpark(w);
        pthread_cond_signal(&t->wake);
    }
    pthread_mutex_unlock(&w->lock);
    worker_ring(w->nudge);
    if (w->drain_step != DRAIN_ALL) {
        sweep_close(w);
    }
}

void
drain_orphan(Worker *w)
{
    epoll_ctl(w->watch, EPOLL_CTL_DEL, w->o.lifeline, NULL);
    w->orphan = true;
    w->orphan_end = clock_now() + ORPHAN_GRACE;
    /* Nobody will send or take back anything more. */
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, w->o.channel, NULL);
    atomic_store(&w->line->load, 0);
    drain_start(w, DRAIN_ALL);
}
