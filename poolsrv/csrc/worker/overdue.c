/* From the main thread: name the threads that are late, and give up those that
 * are stuck. Pure C; the exception is raised by the binding. */
#define _GNU_SOURCE
#include "worker/overdue.h"

#include <stdio.h>
#include <unistd.h>

#include "worker/worker_internal.h"

/* What they have to come back in when the end waits for them. */
#define INTERRUPT_AT_END (500 * CLOCK_MILLISECOND)

static const char answer[] = "HTTP/1.1 504 Gateway Timeout\r\n"
                             "Content-Type: text/plain\r\n"
                             "Content-Length: 20\r\n"
                             "Connection: close\r\n"
                             "\r\n"
                             "504 Gateway Timeout\n";

/* The thread does not come back: its client need not wait for that. The
 * connection itself stays the thread's, which may be anywhere; only what is
 * sent on it is decided here. It counts in the load, as long as the thread
 * does not serve. */
static void
give_up(Worker *w, Thread *t)
{
    Conn *c = t->conn;
    const struct iovec part = {(void *)answer, sizeof answer - 1};

    atomic_fetch_add(&w->lost, 1);
    word_add(&w->main.row->timed_out[TIMED_OUT_LOST], 1);
    word_add(&w->main.row->requests[STATUS_5XX], 1);
    histogram_add(w->main.row->duration, clock_now() - c->began);
    if (c->status == 0 &&
        stream_send(c, &part, 1, STREAM_MORE) == (ssize_t)part.iov_len) {
        word_add(w->main.row->bytes_out, part.iov_len);
        stream_end(c);
    } else {
        stream_reset(c);
    }
}

void
overdue_give_up_all(Worker *w)
{
    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        if (deadline_seize(&w->threads[i].deadline)) {
            give_up(w, &w->threads[i]);
        }
    }
}

/* The supervisor must start another before this one ends; if the channel is
 * full, it is told at the next tick. */
static void
ask_for_another(Worker *w)
{
    char words[96];
    if (atomic_load(&w->lost) != 0 && !w->asked_for_another) {
        /* The supervisor wants to know who speaks. */
        const int size = snprintf(
            words, sizeof words,
            "%d a thread does not come back from its request", (int)getpid());
        w->asked_for_another = channel_say(w->o.channel, CHANNEL_REPLACE, words,
                                           (size_t)size) == 0;
    }
}

bool
overdue_tick(Worker *w)
{
    const WorkerLimits *limits = &w->o.limits;
    const bool ends = w->drain_step >= DRAIN_INTERRUPTS;
    const uint64_t request = ends ? DEADLINE_OVER : limits->request_timeout;
    const uint64_t interrupt =
        ends ? INTERRUPT_AT_END : limits->interrupt_timeout;
    const uint64_t now = w->main.now;
    bool news = false;

    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        Thread *t = &w->threads[i];
        Deadline *d = &t->deadline;
        const uint32_t sequence = atomic_load(&t->row->current.sequence);
        const DeadlineVerdict verdict =
            deadline_judge(d, request, interrupt,
                           word_get(&t->row->current.since), sequence, now);
        if (verdict == DEADLINE_LATE) {
            d->told = sequence;
            d->told_at = now;
        } else if (verdict == DEADLINE_STUCK && deadline_take(d)) {
            give_up(w, t);
        } else {
            continue;
        }
        d->news = (uint8_t)verdict;
        news = true;
    }
    ask_for_another(w);
    return news;
}

bool
overdue_pop(Worker *w, Overdue *overdue)
{
    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        Deadline *d = &w->threads[i].deadline;
        if (d->news != DEADLINE_KEPT) {
            *overdue = (Overdue){.thread = i,
                                 .sequence = d->told,
                                 .lost = d->news == DEADLINE_STUCK};
            d->news = DEADLINE_KEPT;
            return true;
        }
    }
    return false;
}

uint32_t
overdue_lost(const Worker *w)
{
    return atomic_load(&w->lost);
}

/* It cannot leave the application before overdue_raised(). */
bool
overdue_raise(Thread *t, uint32_t sequence)
{
    if (!deadline_raise(&t->deadline)) {
        return false;
    }
    if (atomic_load(&t->row->current.sequence) == sequence) {
        return true;
    }
    deadline_raised(&t->deadline, false);
    return false;
}

void
overdue_raised(Thread *t, bool done)
{
    word_add(&t->worker->main.row->timed_out[TIMED_OUT_INTERRUPTED], done);
    deadline_raised(&t->deadline, done);
}

void
overdue_end(Thread *t)
{
    Deadline *d = &t->deadline;
    if (deadline_hold(d)) {
        return;
    }
    /* It was lost, and is not. */
    d->lost_request = atomic_load(&t->row->current.sequence);
    t->conn->gone = true;
    atomic_store(&d->stage, DEADLINE_OURS);
    atomic_fetch_sub(&t->worker->lost, 1);
}
