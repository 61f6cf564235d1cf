/* Lingering: our side has ended, the client's has not. Pure C. */
#define _GNU_SOURCE
#include "worker/ending.h"

#include "worker/worker_internal.h"

/* Buffers that are thrown away before the clock is looked at. */
#define LINGER_PIECES 16

/* To the list of those that the main thread looks at. It owns them then. */
static Step
leave_to_main(Worker *w, Conn *c)
{
    c->next = atomic_load_explicit(&w->ended, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&w->ended, &c->next, c)) {
    }
    watch_attend(w);
    return STEP_GONE;
}

/* As stream_receive(). Behind the last answer nothing runs, so that the
 * thread's buffer holds nothing that is needed. */
static ssize_t
throw_away(Conn *c, Thread *t)
{
    const ssize_t n = stream_receive(c, t->request.buffer, t->request.capacity);
    if (n > 0) {
        c->wasted += (uint64_t)n;
    }
    return n;
}

Step
ending_start(Worker *w, Thread *t, Conn *c)
{
    conn_uncount(w, c);
    conn_request_free(c);
    if (stream_end(c) < 0) {
        return exchange_hang_up(w, t, c);
    }
    c->wasted = 0;
    conn_set_state(w, t, c, CONN_LINGER);
    return c->drained && !c->registered ? leave_to_main(w, c) : STEP_AGAIN;
}

void
ending_idle(Worker *w, Conn *c)
{
    c->owes_nothing = true;
    if (ending_start(w, &w->main, c) == STEP_AGAIN) {
        leave_to_main(w, c);
        watch_arm(w);
    }
}

static bool
may_go(const Worker *w, const Conn *c)
{
    return stream_untaken(c) == 0 || w->main.now >= word_get(&c->deadline);
}

Step
ending_linger(Worker *w, Thread *t, Conn *c)
{
    uint32_t left = LINGER_PIECES;
    ssize_t n;
    do {
        n = throw_away(c, t);
    } while (n > 0 && --left);
    if (n == STREAM_AGAIN || (n == 0 && !stream_has_ended(c))) {
        return STEP_WAIT;
    }
    t->now = clock_now();
    if (n > 0 && c->wasted < LINGER_BYTES && t->now < word_get(&c->deadline)) {
        return STEP_AGAIN;
    }
    return exchange_hang_up(w, t, c);
}

void
ending_tick(Worker *w)
{
    Conn *c = NULL;
    if (atomic_load_explicit(&w->ended, memory_order_relaxed) != NULL) {
        c = atomic_exchange(&w->ended, NULL);
    }
    while (c != NULL) {
        Conn *following = c->next;
        ssize_t n = throw_away(c, &w->main);
        if (n == 0 && !stream_has_ended(c)) {
            n = STREAM_AGAIN;
        }
        switch (n) {
        case 0:
        case STREAM_LOST:
            conn_close(w, &w->main, c);
            break;
        case STREAM_AGAIN:
            if (c->owes_nothing && c->wasted == 0) {
                if (may_go(w, c)) {
                    conn_close(w, &w->main, c);
                } else {
                    leave_to_main(w, c);
                }
                break;
            }
            if (conn_release(w, c)) {
                break;
            }
            threads_call(w, c);
            break;
        default: /* there may be much: that is no work for this thread */
            threads_call(w, c);
        }
        c = following;
    }
}
