/* Requests where groups of workers share listeners: see group.h. Pure C.
 *
 * A head is looked at where the kernel keeps it until it is complete. Then the
 * request is received, and no byte behind it, or the connection goes back as it
 * came. Bytes of two requests come into our hands together only behind chunks,
 * and where a head is larger than what is looked at: then the answer says
 * `close` unless the next request is ours, too. */
#include "worker/group.h"

#include "protocol/peek.h"
#include "worker/body_streamed.h"
#include "worker/refuse.h"
#include "worker/worker_internal.h"

/* Bytes of a request that are looked at: nearly every head is smaller. A
 * larger one is received on the strength of its first lines. The kernel keeps
 * several times as many of a connection. */
#define LOOK 16384

static const char no_host[] = "the head does not say soon enough who is asked";

/* How much of what was seen is this request's. */
static uint32_t
measure(const Request *r, uint32_t seen, Http1Result result)
{
    const Http1Head *head = &r->head;
    if (result != HTTP1_DONE || head->chunked) {
        return seen;
    }
    const uint64_t length =
        head->content_length > 0 ? (uint64_t)head->content_length : 0;
    return length < seen - head->length ? head->length + (uint32_t)length
                                        : seen;
}

/* Receive what was seen: the same bytes, so what is known of them stays. */
static Step
receive(Worker *w, Thread *t, Conn *c, uint32_t seen, Http1Result result)
{
    Request *r = &t->request;
    const uint32_t size = measure(r, seen, result);
    const bool ends = atomic_load(&c->word) & CONN_ENDS;
    conn_progress(c, PROGRESS_BEGUN);
    if (stream_receive(c, r->buffer, size) != (ssize_t)size) {
        return exchange_hang_up(w, t, c);
    }
    c->drained = size == seen && seen < LOOK && !ends;
    word_add(&t->row->bytes_in[0], size);
    if (c->state == CONN_IDLE) {
        c->began = c->ready;
    }
    c->item.group = 0;
    r->size = size;
    conn_count(w, c);
    conn_set_state(w, t, c, CONN_PARSE);
    return exchange_parsed(w, t, c, r, result);
}

/* Another worker has said that this request is for us: that it is not, by what
 * we know, is answered, or it might go to and fro. */
static bool
was_sent_here(const Worker *w, const Conn *c)
{
    return c->item.group == w->o.group + 1u;
}

static Step
hand_over(Worker *w, Thread *t, Conn *c, uint16_t group)
{
    c->item.group = (group + 1u) & 0x1fff;
    if (c->state != CONN_IDLE) {
        conn_set_state(w, t, c, CONN_IDLE);
    }
    conn_hand_back(w, t, &c, 1, t->now);
    return STEP_GONE;
}

static Step
await_more(Worker *w, Thread *t, Conn *c, bool ends)
{
    if (ends) { /* it has begun what it will not end */
        return exchange_client_left(w, t, c);
    }
    if (c->state != CONN_PEEKED) {
        c->began = c->ready;
        conn_set_state(w, t, c, CONN_PEEKED);
    }
    return refuse_if_late(w, t, c);
}

/* It fills all that is looked at. */
static Step
judge_large(Worker *w, Thread *t, Conn *c)
{
    uint16_t group = w->o.group;
    switch (peek_group(w->o.mounts, t->request.buffer, LOOK, &group)) {
    case PEEK_PARTIAL:
        if (c->state == CONN_IDLE) {
            c->began = c->ready;
        }
        return refuse_request(w, t, c, 431, no_host);
    case PEEK_KNOWN:
    case PEEK_NOBODYS:
        break;
    }
    if (group != w->o.group && !was_sent_here(w, c) && !w->orphan) {
        return hand_over(w, t, c, group);
    }
    return receive(w, t, c, LOOK, HTTP1_PARTIAL);
}

Step
group_begin(Worker *w, Thread *t, Conn *c)
{
    Request *r = &t->request;
    /* Looked at before the bytes, so that these are all that came before. */
    const bool ends = atomic_load(&c->word) & CONN_ENDS;
    const ssize_t n = stream_peek(c, r->buffer, LOOK);
    if (n == STREAM_AGAIN) {
        conn_uncount(w, c);
        return STEP_WAIT;
    }
    if (n <= 0) {
        return exchange_hang_up(w, t, c);
    }
    if (c->state == CONN_PEEKED) {
        t->now = c->ready = clock_now();
    }
    r->start = 0;
    r->size = (uint32_t)n;
    request_begin(r);
    const Http1Result result =
        http1_head_parse(&r->head, &w->head_limits, r->buffer, r->size);
    if (result == HTTP1_PARTIAL) {
        return n < LOOK ? await_more(w, t, c, ends) : judge_large(w, t, c);
    }
    if (result == HTTP1_DONE) {
        route_find(w, c, r);
        if (r->route.elsewhere && !was_sent_here(w, c) && !w->orphan) {
            return hand_over(w, t, c, r->route.mount->group);
        }
    }
    return receive(w, t, c, (uint32_t)n, result);
}

bool
group_may_keep(const Worker *w, const Conn *c, const Request *r)
{
    uint16_t group = w->o.group;
    uint32_t next = r->next;
    body_streamed_end(r, &next);
    if (next == r->size) {
        return true;
    }
    /* What a proxy says of it would have to be read as well. */
    if (w->believed && address_within(&c->item.client, &w->o.trusted)) {
        return false;
    }
    return peek_group(w->o.mounts, r->buffer + next, r->size - next, &group) !=
               PEEK_PARTIAL &&
           group == w->o.group;
}
