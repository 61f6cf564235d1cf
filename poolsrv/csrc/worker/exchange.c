/* What is said on a connection: requests in, answers out, from its first byte
 * to its last. Pure C.
 *
 * exchange_run() is the state machine; the thread that calls it owns the
 * connection. A head that comes in one piece is parsed where recv put it, in
 * the thread's buffer, and costs no allocation; only what is incomplete moves
 * into a Request of its own, so an idle connection has no buffer at all.
 *
 * Long, because each state of a connection leads to another of them.
 */
#define _GNU_SOURCE
#include "worker/exchange.h"

#include <string.h>

#include "worker/access_log.h"
#include "worker/body_kept.h"
#include "worker/body_streamed.h"
#include "worker/drain.h"
#include "worker/ending.h"
#include "worker/group.h"
#include "worker/handler.h"
#include "worker/output.h"
#include "worker/pieces.h"
#include "worker/preface.h"
#include "worker/refuse.h"
#include "worker/stream.h"
#include "worker/upgrade.h"
#include "worker/worker_internal.h"

/* After so long a wait for a thread, a system call more does not matter. */
#define LONG_WAIT (50 * CLOCK_MILLISECOND)

Step
exchange_hang_up(Worker *w, Thread *t, Conn *c)
{
    conn_close(w, t, c);
    return STEP_GONE;
}

Step
exchange_client_left(Worker *w, Thread *t, Conn *c)
{
    word_add(t->row->disconnected, 1);
    return exchange_hang_up(w, t, c);
}

/* ------------------------------------------------------------------------
 * Serving a complete request */

bool
exchange_may_keep(const Worker *w, const Conn *c, const Request *r)
{
    const uint32_t most = w->o.limits.keep_alive_requests;
    /* The rest of a streamed body must be here: nobody knows whether the
     * application will read it, and we do not wait for it. (One of chunks has
     * no length, so it is never known to be here.) */
    return r->head.keep_alive && body_streamed_end(r, NULL) &&
           (most == 0 || c->item.requests + 1 < most) &&
           w->o.limits.keep_alive_timeout != 0 && !w->orphan &&
           !atomic_load_explicit(&w->o.board->notice->stopping,
                                 memory_order_relaxed) &&
           (!w->shares || group_may_keep(w, c, r));
}

/* Will nothing come that closing would answer with a reset? The client has said
 * that this request is its last (HTTP/1.0 says so as well), and must send
 * nothing more (RFC 9112 section 9.6); it has no body, behind which old clients
 * put CR LF, and nothing has come. And if a client sends something all the
 * same, the reset comes behind the answer, since nothing of that waits here. To
 * linger would cost a third of what the worker does for a connection with one
 * small request. */
static bool
is_last(Conn *c, const Request *r)
{
    return !r->head.keep_alive && !r->head.chunked &&
           r->head.content_length <= 0 && r->next == r->size &&
           !stream_has_bytes(c) && stream_is_nearly_sent(c);
}

/* The answer is with the kernel: what next? `r` is NULL if nothing is known any
 * more of its request, which then was not the last. */
static Step
finish(Worker *w, Thread *t, Conn *c, Request *r)
{
    const uint32_t rest = r ? r->size - r->next : 0;

    record_end(t, c, t->now);
    if (r) {
        request_drop_body(r);
    }
    if (c->ending != ENDING_KEEP) {
        if (c->item.requests + 1 == w->o.limits.keep_alive_requests) {
            word_add(&t->row->limited[LIMIT_REQUESTS], 1);
        }
        return c->ending == ENDING_RESET || (r && is_last(c, r))
                   ? exchange_hang_up(w, t, c)
                   : ending_start(w, t, c);
    }
    c->item.requests++;
    c->ready = t->now;
    if (rest) {
        Request *own = &t->request;
        memmove(own->buffer, r->buffer + r->next, rest);
        own->start = 0;
        own->size = rest;
        conn_request_free(c);
        request_begin(own);
        c->began = t->now;
        conn_progress(c, PROGRESS_BEGUN);
        conn_set_state(w, t, c, CONN_PARSE);
        return STEP_AGAIN;
    }
    conn_request_free(c);
    conn_set_state(w, t, c, CONN_IDLE);
    conn_progress(c, PROGRESS_UNREAD);
    if (!c->drained) {
        return STEP_AGAIN;
    }
    if (drain_hands_back(w)) {
        c->ready = 0;
        conn_hand_back(w, t, &c, 1, t->now);
        return STEP_GONE;
    }
    return STEP_WAIT;
}

Step
exchange_serve(Worker *w, Thread *t, Conn *c, Request *r, uint64_t complete)
{
    Current *current = &t->row->current;
    /* The thread has looked at the clock since it polled, woke or ended the
     * last request. A recv and a parse lie between, some 2 us, which are no
     * waiting. */
    const uint64_t start = t->now;
    const Handler *handler = r->route.found ? r->route.handler : w->o.handler;
    uint64_t returned;

    conn_count(w, c);
    c->status = 0;
    c->refused = false;
    c->ending = ENDING_CLOSE;
    c->patience = PATIENCE_UNTRIED;
    word_set(&t->waited, 0);
    conn_set_state(w, t, c, CONN_RUNNING);
    t->queued = start > complete ? start - complete : 0;
    histogram_add(t->row->queue, t->queued);
    word_add(t->row->read_time, complete > c->began ? complete - c->began : 0);
    record_show(current, r, complete);
    scoreboard_next(current);
    word_set(&current->since, start);
    record_begin(t, c, r);
    t->puts_off = false;
    t->conn = c;
    c->thread = (uint16_t)t->index;
    watch_arm(w);

    handler->serve(handler->argument, t, c, r);
    returned = t->now;
    if (!t->puts_off) {
        pieces_flush(t, c, output_last(c));
    }
    if (c->out && !t->puts_off && worker_is_full(w)) {
        output_wait(t, c);
    }

    /* Only the figures need the exact end. */
    if (SCOREBOARD_OBSERVED) {
        t->now = clock_now();
    }
    access_log_write(t, c, r, t->now - c->began);
    word_add(t->row->write_time, t->now - returned);
    word_set(&current->since, 0);
    atomic_store_explicit(&current->state, THREAD_IDLE, memory_order_relaxed);
    word_add(t->row->busy_time, t->now - start);
    record_learn(w, c, r, t->now - start - word_get(&t->waited));
    conn_uncount(w, c);
    if (r->streaming && !r->ended) {
        r->ended = body_streamed_end(r, &r->next);
    }
    if (c->gone) {
        /* If it was taken away from us, the client did not leave. */
        if (t->deadline.lost_request != atomic_load(&current->sequence)) {
            word_add(t->row->disconnected, 1);
        }
        request_drop_body(r);
        return exchange_hang_up(w, t, c);
    }
    if (c->out == NULL) {
        return finish(w, t, c, r);
    }

    /* Its reader is slow: what is left waits without a thread, and so do
     * bytes of the next request that came along. */
    if (c->ending == ENDING_KEEP && r->size > r->next &&
        request_adopt(w, c, r) == NULL) {
        c->ending = ENDING_CLOSE;
    }
    if (r != c->request) {
        if (c->request) {
            c->request->next = r->next - r->start;
        }
        request_drop_body(r);
    }
    conn_set_state(w, t, c, CONN_WRITING);
    c->judged = t->now;
    if (t->puts_off && gather_add(t, c)) {
        return STEP_GONE;
    }
    output_await_reader(w, c, t->now);
    return STEP_AGAIN;
}

static Step
write_on(Worker *w, Thread *t, Conn *c)
{
    const uint64_t before = c->sent;
    const uint64_t start = clock_now();
    const int done = output_flush(t, c, output_last(c));
    t->now = clock_now();
    word_add(t->row->write_time, t->now - start);
    if (done < 0) {
        word_add(t->row->disconnected, 1);
        return exchange_hang_up(w, t, c);
    }
    if (done != 1) {
        if (c->sent != before) {
            output_await_reader(w, c, t->now);
        }
        return done ? STEP_AGAIN : STEP_WAIT;
    }
    return finish(w, t, c, c->request);
}

/* ------------------------------------------------------------------------
 * Reading a head */

static Step
act_on_head(Worker *w, Thread *t, Conn *c, Request *r)
{
    const uint32_t body = r->start + r->head.length;
    const int64_t length = r->head.content_length;

    r->next = body;
    if ((r->head.seen | HTTP1_BIT(HTTP1_OTHER)) & w->routed &&
        !r->route.found) {
        route_find(w, c, r);
    }
    if (!r->head.chunked && length <= 0) {
        if (http1_upgrade_seen(&r->head) && upgrade_is_refused(w, r)) {
            return refuse_request(w, t, c, 503, upgrade_refused);
        }
        return exchange_serve(w, t, c, r, c->ready);
    }
    if (r->route.status != 0) {
        return refuse_request(w, t, c, r->route.status, r->route.words);
    }
    if (!r->head.chunked && (uint64_t)length > w->o.limits.limit_request_body) {
        return refuse_request(w, t, c, 413, request_too_large);
    }
    if (r->head.chunked || (uint64_t)length > r->size - body) {
        /* Chunks are spooled in either mode: an application may be told no
         * length that is not known, and without one most take a body for
         * empty (RFC 3875 section 4.1.2). */
        if (!r->route.skips_body &&
            (w->o.limits.request_buffering || r->head.chunked)) {
            return body_kept_start(w, t, c, r);
        }
        r->streaming = true;
        return exchange_serve(w, t, c, r, c->ready);
    }
    r->body = r->buffer + body;
    r->body_size = (uint64_t)length;
    r->next = body + (uint32_t)length;
    return exchange_serve(w, t, c, r, c->ready);
}

/* Where the bytes of the next request are: with the connection if it had to
 * give way, else with the thread. */
static Request *
find_request(Thread *t, Conn *c)
{
    return c->request ? c->request : &t->request;
}

Step
exchange_parsed(Worker *w, Thread *t, Conn *c, Request *r, Http1Result result)
{
    if (result == HTTP1_DONE) {
        return act_on_head(w, t, c, r);
    }
    if (result == HTTP1_PARTIAL && c->request == NULL && worker_is_full(w)) {
        return refuse_request(w, t, c, 503, request_too_much_kept);
    }
    if (result != HTTP1_PARTIAL) {
        return refuse_request(w, t, c, http1_status(result),
                              http1_words(result));
    }
    if (request_adopt(w, c, r) == NULL) {
        return exchange_hang_up(w, t, c);
    }
    conn_set_state(w, t, c, CONN_HEAD);
    return c->drained ? refuse_if_late(w, t, c) : STEP_AGAIN;
}

static Step
parse(Worker *w, Thread *t, Conn *c, Request *r)
{
    return exchange_parsed(w, t, c, r,
                           http1_head_parse(&r->head, &w->head_limits,
                                            r->buffer + r->start,
                                            r->size - r->start));
}

static Step
read_head(Worker *w, Thread *t, Conn *c)
{
    Request *r = c->request;
    ssize_t n;

    if (r->size == r->capacity &&
        request_grow(r, request_larger(r->capacity)) < 0) {
        return exchange_client_left(w, t, c);
    }
    n = stream_receive(c, r->buffer + r->size, r->capacity - r->size);
    if (n == STREAM_AGAIN) {
        return refuse_if_late(w, t, c);
    }
    if (n <= 0) {
        return exchange_client_left(w, t, c);
    }
    word_add(t->row->bytes_in, (uint64_t)n);
    r->size += (uint32_t)n;
    t->now = clock_now();
    c->ready = t->now;
    return parse(w, t, c, r);
}

/* ------------------------------------------------------------------------
 * The first bytes */

/* The first byte of a request should be there. Before it is read, the
 * connection may still go to another worker; afterwards it is ours. */
static Step
begin(Worker *w, Thread *t, Conn *c)
{
    Request *r = &t->request;
    ssize_t n;

    if (!c->counted && drain_hands_back(w)) {
        conn_hand_back(w, t, &c, 1, t->now);
        return STEP_GONE;
    }
    /* Its request is still here, but nobody waits for the answer. That it sends
     * no more is no such sign. */
    if (t->now > c->ready + LONG_WAIT && stream_is_reset(c)) {
        word_add(t->row->disconnected, 1);
        return exchange_hang_up(w, t, c);
    }
    if (w->looks) {
        if (w->o.limits.proxy_protocol == OPTION_ON &&
            c->item.preface == PREFACE_NONE) {
            return preface_read(w, t, c);
        }
        if (w->shares) {
            return group_begin(w, t, c);
        }
    }
    conn_progress(c, PROGRESS_BEGUN);
    n = stream_receive(c, r->buffer, r->capacity);
    if (n == STREAM_AGAIN) {
        conn_progress(c, PROGRESS_UNREAD);
        conn_uncount(w, c);
        return STEP_WAIT;
    }
    if (n <= 0) {
        return exchange_hang_up(w, t, c);
    }
    conn_count(w, c);
    conn_set_state(w, t, c, CONN_PARSE);
    word_add(t->row->bytes_in, (uint64_t)n);
    c->began = c->ready;
    r->start = 0;
    r->size = (uint32_t)n;
    request_begin(r);
    return parse(w, t, c, r);
}

/* The thread has been with this connection for long: others first. Bytes of
 * the next request leave the thread's buffer with it. False: it cannot go. */
static bool
give_way(Worker *w, Thread *t, Conn *c)
{
    if (c->state == CONN_PARSE &&
        request_adopt(w, c, find_request(t, c)) == NULL) {
        return false;
    }
    threads_queue(w, c, t->now);
    return true;
}

/* It waits for events. False: one has come by now. */
static bool
leave(Worker *w, Thread *t, Conn *c)
{
    watch_attend(w);
    if (c->request || c->out || c->buffered || c->spooled) {
        conn_count_kept(w, c);
    }
    if (conn_release(w, c)) {
        return true;
    }
    t->now = clock_now();
    if (c->state == CONN_IDLE) {
        c->ready = t->now;
    }
    return false;
}

void
exchange_send_on(Worker *w, Thread *t, Conn *c)
{
    const Step step = write_on(w, t, c);
    if (step == STEP_AGAIN || (step == STEP_WAIT && !leave(w, t, c))) {
        if (t == &w->main) {
            threads_call(w, c);
        } else {
            threads_queue(w, c, t->now);
        }
    }
}

void
exchange_run(Worker *w, Thread *t, Conn *c)
{
    const uint64_t slice_end = t->now + LADDER_SLICE;
    for (;;) {
        Step step = STEP_GONE;
        switch ((ConnState)c->state) {
        case CONN_IDLE:
            step = begin(w, t, c);
            break;
        case CONN_PREFACE:
            step = preface_read(w, t, c);
            break;
        case CONN_PEEKED:
            step = group_begin(w, t, c);
            break;
        case CONN_PARSE:
            step = parse(w, t, c, find_request(t, c));
            break;
        case CONN_HEAD:
            step = read_head(w, t, c);
            break;
        case CONN_BODY:
            step = body_kept_read(w, t, c);
            break;
        case CONN_WRITING:
            step = write_on(w, t, c);
            break;
        case CONN_LINGER:
            step = ending_linger(w, t, c);
            break;
        case CONN_RUNNING:
        case CONN_UPGRADED:
        case CONN_FREE:
            break;
        }
        if (step == STEP_GONE) {
            return;
        }
        if (step == STEP_WAIT && leave(w, t, c)) {
            return;
        }
        if (t->now > slice_end && give_way(w, t, c)) {
            return;
        }
    }
}
