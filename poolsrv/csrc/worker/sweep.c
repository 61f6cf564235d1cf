/* Time limits of connections, which the main thread looks after: see sweep.h.
 * Pure C. */
#include "worker/sweep.h"

#include "worker/drain.h"
#include "worker/ending.h"
#include "worker/own.h"
#include "worker/refuse.h"
#include "worker/worker_internal.h"

/* The server ends, and so does this connection, which has been idle for its
 * time, unless a request has come: one that was answered just now, before the
 * answers said that they are the last, is most likely to ask again. Looking and
 * ending follow each other at once: what lies between is all that a client can
 * lose, and it finds an end, no reset. */
static void
end_idle(Worker *w, Conn *c)
{
    c->ready = w->main.now;
    if (stream_has_bytes(c)) {
        threads_call(w, c);
    } else {
        ending_idle(w, c);
    }
}

/* Those whose time is over. Also when we come by: before we wait for the end,
 * whatever has to wake us must still be there. */
void
sweep_run(Worker *w, uint64_t now, bool all_idle)
{
    const uint32_t places = atomic_load(&w->conn_count);
    Conn *idle[CHANNEL_BATCH];
    uint32_t i, n = 0;

    word_set(&w->swept, now);
    own_check(w);
    for (i = 0; i < places; i++) {
        Conn *c = conn_at(w, i);
        const uint64_t deadline = word_get(&c->deadline);
        uint64_t word = atomic_load(&c->word);
        if (word & CONN_OWNED ||
            (!all_idle && (deadline == 0 || deadline > now))) {
            continue;
        }
        if (!atomic_compare_exchange_strong(&c->word, &word,
                                            word | CONN_OWNED)) {
            continue;
        }
        if (conn_may_move(c) && drain_is_last(w)) {
            end_idle(w, c);
        } else if (conn_may_move(c)) {
            c->ready = 0;
            idle[n++] = c;
            if (n == CHANNEL_BATCH) {
                conn_hand_back(w, &w->main, idle, n, now - LADDER_IDLE);
                n = 0;
            }
        } else if (word_get(&c->deadline) && word_get(&c->deadline) <= now) {
            refuse_expire(w, &w->main, c, now);
        } else if (!conn_release(w, c)) {
            threads_call(w, c);
        }
    }
    conn_hand_back(w, &w->main, idle, n, now - LADDER_IDLE);
}

void
sweep_close(Worker *w)
{
    const uint32_t places = atomic_load(&w->conn_count);
    for (uint32_t i = 0; i < places; i++) {
        Conn *c = conn_at(w, i);
        uint64_t word = atomic_load(&c->word);
        if (!(word & CONN_OWNED) && atomic_compare_exchange_strong(
                                        &c->word, &word, word | CONN_OWNED)) {
            conn_close(w, &w->main, c);
        }
    }
}
