/* What is said on a connection: requests in, answers out, from its first byte
 * to its last. Pure C.
 *
 * exchange_run() is the state machine; the thread that calls it owns the
 * connection. A head that comes in one piece is parsed where recv put it, in
 * the thread's buffer, and costs no allocation; only what is incomplete moves
 * into a Request of its own, so an idle connection has no buffer at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocol/proxy_header.h"
#include "protocol/status.h"
#include "worker/worker_internal.h"

/* A connection whose bytes come without a pause has a thread for so long; then
 * it is the others' turn. */
#define TURN CLOCK_MILLISECOND
/* Pieces of REQUEST_BUFFER that are read before the clock is looked at. */
#define BODY_PIECES 16
#define LINGER_PIECES 16
/* Behind the head, for the pieces of a chunked body that is streamed. */
#define CHUNK_ROOM 8192

typedef enum {
    STEP_AGAIN, /* look at the state again */
    STEP_WAIT,  /* until the socket is ready */
    STEP_GONE,  /* closed or handed back: not ours any more */
} Step;

static Step
hang_up(Worker *w, Thread *t, Conn *c)
{
    conn_close(w, t, c);
    return STEP_GONE;
}

/* ------------------------------------------------------------------------
 * Refusing */

static void
count_refusal(Thread *t, int status)
{
    static const int statuses[REFUSED_OTHER] = {
        [REFUSED_400] = 400, [REFUSED_408] = 408, [REFUSED_413] = 413,
        [REFUSED_414] = 414, [REFUSED_417] = 417, [REFUSED_431] = 431,
    };
    size_t i = 0;
    while (i < REFUSED_OTHER && statuses[i] != status) {
        i++;
    }
    word_add(&t->row->refused[i], 1);
}

/* Closing at once over bytes that the client still sends would reset the
 * connection, and the reset may overtake the answer: so our side ends first,
 * and the rest is thrown away. */
static Step
start_linger(Worker *w, Thread *t, Conn *c)
{
    if (shutdown(c->fd, SHUT_WR) < 0)
        return hang_up(w, t, c);
    c->state = CONN_LINGER;
    word_set(&c->deadline, clock_now() + LINGER_TIMEOUT);
    return STEP_AGAIN;
}

/* Answer with an error and stop reading. */
static Step
refuse(Worker *w, Thread *t, Conn *c, int status, const char *words)
{
    char answer[512];
    char body[160];
    const int body_size = snprintf(body, sizeof body, "%d %s: %s\n", status,
                                   status_phrase(status), words);
    const int size = snprintf(answer, sizeof answer,
                              "HTTP/1.1 %d %s\r\n"
                              "Content-Type: text/plain\r\n"
                              "Content-Length: %d\r\n"
                              "Connection: close\r\n"
                              "\r\n"
                              "%s",
                              status, status_phrase(status), body_size, body);
    count_refusal(t, status);
    notes_add(w, NOTE_DEBUG, "refused a request: %d, %s", status, words);
    conn_uncount(w, c);
    conn_request_free(c);
    if (output_send(t, c, answer, (size_t)size, NULL, 0, NULL, NULL) < 0 ||
        c->out)
        return hang_up(w, t, c);
    return start_linger(w, t, c);
}

static Step
linger(Worker *w, Thread *t, Conn *c)
{
    uint32_t left = LINGER_PIECES;
    ssize_t n;
    /* The thread's buffer holds nothing that is needed: after an error,
     * nothing behind it runs. */
    do
        n = recv(c->fd, t->request.buffer, t->request.capacity, MSG_DONTWAIT);
    while ((n > 0 && --left) || (n < 0 && errno == EINTR));
    if (n < 0 && errno == EAGAIN)
        return STEP_WAIT;
    t->now = clock_now();
    if (n > 0 && t->now < word_get(&c->deadline))
        return STEP_AGAIN;
    return hang_up(w, t, c);
}

/* An answer waits without a thread: from now on the client has its time to take
 * some more of it. */
static void
await_reader(Worker *w, Conn *c, uint64_t now)
{
    output_taken(c);
    word_set(&c->deadline, now + w->o.limits.send_timeout);
}

void
refuse_expire(Worker *w, Thread *t, Conn *c, uint64_t now)
{
    switch ((ConnState)c->state) {
    case CONN_IDLE:
        c->ready = 0;
        conn_hand_back(w, t, &c, 1, now - IDLE_GRACE);
        return;
    case CONN_PREFACE: /* it speaks no HTTP yet: no answer */
        word_add(&t->row->limited[LIMIT_HEADER], 1);
        conn_seen(t, SEEN_READING, SEEN_IDLE);
        conn_close(w, t, c);
        return;
    case CONN_HEAD:
    case CONN_BODY:
        word_add(
            &t->row->limited[c->state == CONN_HEAD ? LIMIT_HEADER : LIMIT_BODY],
            1);
        conn_seen(t, SEEN_READING, SEEN_IDLE);
        if (refuse(w, t, c, 408, "the request did not arrive in time") ==
            STEP_AGAIN)
            threads_call(w, c);
        return;
    case CONN_WRITING:
        if (output_taken(c)) {
            await_reader(w, c, now);
            if (!conn_release(w, c))
                threads_call(w, c);
            return;
        }
        word_add(&t->row->limited[LIMIT_SEND], 1);
        conn_seen(t, SEEN_WRITING, SEEN_IDLE);
        c->broken = true;
        conn_close(w, t, c);
        return;
    default:
        conn_close(w, t, c);
    }
}

/* ------------------------------------------------------------------------
 * Serving a complete request */

static void
record(Thread *t, Conn *c, uint64_t now)
{
    const unsigned class = c->status / 100u;
    if (class >= 1 && class <= STATUS_CLASS_COUNT) {
        word_add(&t->row->requests[class - 1], 1);
    }
    histogram_add(t->row->duration, now - c->began);
}

/* The answer is with the kernel: what next? */
static Step
finish(Worker *w, Thread *t, Conn *c, Request *r)
{
    uint32_t rest = r->size - r->next;

    record(t, c, t->now);
    request_drop_body(r);
    if (!c->keep && c->item.requests + 1 == w->o.limits.keep_alive_requests)
        word_add(&t->row->limited[LIMIT_REQUESTS], 1);
    if (!c->keep && c->unread)
        return start_linger(w, t, c);
    if (!c->keep)
        return hang_up(w, t, c);
    c->item.requests++;
    c->ready = t->now;
    if (rest) {
        Request *own = &t->request;
        memmove(own->buffer, r->buffer + r->next, rest);
        own->start = 0;
        own->size = rest;
        conn_request_free(c);
        http1_head_init(&own->head, own->fields);
        c->began = t->now;
        c->state = CONN_PARSE;
        return STEP_AGAIN;
    }
    conn_request_free(c);
    c->state = CONN_IDLE;
    if (!c->drained)
        return STEP_AGAIN;
    if (atomic_load_explicit(&w->draining, memory_order_relaxed)) {
        c->ready = 0;
        conn_hand_back(w, t, &c, 1, t->now);
        return STEP_GONE;
    }
    word_set(&c->deadline, t->now + (w->o.limits.keep_alive_timeout < IDLE_GRACE
                                         ? w->o.limits.keep_alive_timeout
                                         : IDLE_GRACE));
    return STEP_WAIT;
}

/* For those who look: what runs here now. */
static void
show(Current *now, const Request *r, uint64_t complete)
{
    const char *base = r->buffer + r->start;
    size_t n = r->head.method.len;
    if (!SCOREBOARD_OBSERVED)
        return;
    if (n >= sizeof now->method)
        n = sizeof now->method - 1;
    memcpy(now->method, base + r->head.method.at, n);
    now->method[n] = '\0';
    n = r->head.path.len;
    if (n >= sizeof now->path)
        n = sizeof now->path - 1;
    memcpy(now->path, base + r->head.path.at, n);
    now->path[n] = '\0';
    word_set(&now->ready, complete);
    atomic_store_explicit(&now->state, THREAD_APPLICATION,
                          memory_order_relaxed);
}

/* What requests like it take, for those that will have to wait. Of these only
 * the first bytes are looked at, not parsed: so what counts as the path is the
 * target as it was sent, up to its query. */
static void
learn(const Worker *w, const Request *r, uint64_t took)
{
    Forecast *forecast = w->o.board->forecast;
    const char *base = r->buffer + r->start;
    const Http1Head *head = &r->head;
    const char *path = base + head->target.at;
    const char *query;

    if (!forecast_learns(forecast, took))
        return;
    query = memchr(path, '?', head->target.len);
    forecast_learn(forecast, base + head->method.at, head->method.len, path,
                   query ? (size_t)(query - path) : head->target.len, took);
}

static Step
serve_request(Worker *w, Thread *t, Conn *c, Request *r, uint64_t complete)
{
    Current *current = &t->row->current;
    /* It has looked at the clock since it polled, woke or ended the last one;
     * between lie a recv and a parse, some 2 us that are no waiting. */
    const uint64_t start = t->now;
    uint64_t returned;

    conn_count(w, c);
    word_set(&c->deadline, 0);
    c->status = 0;
    c->keep = false;
    c->patience = PATIENCE_UNTRIED;
    conn_seen(t, SEEN_IDLE, SEEN_RUNNING);
    histogram_add(t->row->queue, start > complete ? start - complete : 0);
    word_add(t->row->read_time, complete > c->began ? complete - c->began : 0);
    show(current, r, complete);
    atomic_store_explicit(
        &current->sequence,
        atomic_load_explicit(&current->sequence, memory_order_relaxed) + 1,
        memory_order_relaxed);
    word_set(&current->since, start);
    watch_arm(w);

    w->o.application(w->o.argument, t, c, r);
    returned = t->now;
    pieces_flush(t, c);

    /* The figures alone must know the very end. */
    if (SCOREBOARD_OBSERVED)
        t->now = clock_now();
    word_add(t->row->write_time, t->now - returned);
    word_set(&current->since, 0);
    atomic_store_explicit(&current->state, THREAD_IDLE, memory_order_relaxed);
    word_add(t->row->busy_time, t->now - start);
    learn(w, r, t->now - start);
    conn_seen(t, SEEN_RUNNING, SEEN_IDLE);
    conn_uncount(w, c);
    if (r->streaming && !r->ended)
        r->ended = body_streamed_end(r, &r->next);
    c->unread = r->streaming && !r->ended;
    if (c->gone) {
        word_add(t->row->disconnected, 1);
        request_drop_body(r);
        return hang_up(w, t, c);
    }
    if (c->out == NULL)
        return finish(w, t, c, r);

    /* Its reader is slow: what is left waits without a thread, and so do
     * bytes of the next request that came along. */
    if (c->keep && r->size > r->next && request_adopt(w, c, r) == NULL)
        c->keep = false;
    if (r != c->request) {
        if (c->request)
            c->request->next = r->next - r->start;
        request_drop_body(r);
    }
    c->state = CONN_WRITING;
    await_reader(w, c, t->now);
    conn_seen(t, SEEN_IDLE, SEEN_WRITING);
    return STEP_AGAIN;
}

static Step
write_on(Worker *w, Thread *t, Conn *c)
{
    Request none = {.spool = -1};
    const uint64_t before = c->out_size;
    const uint64_t start = clock_now();
    const int done = output_flush(t, c);
    t->now = clock_now();
    word_add(t->row->write_time, t->now - start);
    if (done < 0) {
        word_add(t->row->disconnected, 1);
        conn_seen(t, SEEN_WRITING, SEEN_IDLE);
        return hang_up(w, t, c);
    }
    if (done != 1) {
        if (c->out_size != before)
            await_reader(w, c, t->now);
        return done ? STEP_AGAIN : STEP_WAIT;
    }
    conn_seen(t, SEEN_WRITING, SEEN_IDLE);
    word_set(&c->deadline, 0);
    return finish(w, t, c, c->request ? c->request : &none);
}

/* ------------------------------------------------------------------------
 * Reading a body */

/* The head is complete, its body is not: go on in a Request of our own. */
static Step
start_body(Worker *w, Thread *t, Conn *c, Request *r)
{
    const uint32_t behind = r->size - r->start - r->head.length;
    const char *rest = r->buffer + r->start + r->head.length;
    const char *words = "the body cannot be kept";
    size_t used = 0;
    int status = 0;

    /* The head alone: what is behind it goes straight to where it is kept. */
    r->size -= behind;
    r = request_adopt(w, c, r);
    if (r == NULL)
        return hang_up(w, t, c);
    http1_chunks_init(&r->chunks);
    r->next = r->size;
    if (r->head.chunked)
        status = body_kept_decode(w, r, rest, behind, &used, &words);
    else
        status = body_kept_add(w, r, rest, behind);
    if (status > 1)
        return refuse(w, t, c, status, words);
    if (status == 1) {
        if (body_kept_put_back(r, rest + used, behind - (uint32_t)used) < 0)
            return hang_up(w, t, c);
        return serve_request(w, t, c, r, c->began);
    }
    if (r->head.expect_continue && behind == 0 &&
        output_send(t, c, request_go_on, strlen(request_go_on), NULL, 0, NULL,
                    NULL) < 0)
        return hang_up(w, t, c);
    c->state = CONN_BODY;
    conn_seen(t, SEEN_IDLE, SEEN_READING);
    r->body_began = t->now;
    word_set(&c->deadline, request_body_deadline(w, r, t->now));
    if (!c->drained)
        return STEP_AGAIN;
    conn_uncount(w, c);
    return STEP_WAIT;
}

static Step
client_left(Worker *w, Thread *t, Conn *c)
{
    word_add(t->row->disconnected, 1);
    conn_seen(t, SEEN_READING, SEEN_IDLE);
    return hang_up(w, t, c);
}

static Step
read_body(Worker *w, Thread *t, Conn *c)
{
    Request *r = c->request;
    const char *words = "the body cannot be kept";
    uint32_t pieces = BODY_PIECES;
    int status = 0;

    for (;;) {
        char *to = t->request.buffer;
        size_t room = REQUEST_BUFFER;
        size_t used = 0;
        ssize_t n;

        if (!r->head.chunked) {
            const uint64_t left =
                (uint64_t)r->head.content_length - r->body_size;
            if (left < room)
                room = left;
            /* What stays in memory is received where it stays. */
            if (r->spool < 0 &&
                (uint64_t)r->head.content_length <= w->o.limits.body_buffer) {
                if (body_kept_reserve(r, room,
                                      (uint64_t)r->head.content_length) < 0)
                    return client_left(w, t, c);
                to = r->memory + r->body_size;
            }
        }
        do
            n = recv(c->fd, to, room, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            conn_uncount(w, c);
            return STEP_WAIT;
        }
        if (n <= 0)
            return client_left(w, t, c);
        word_add(t->row->bytes_in, (uint64_t)n);
        c->drained = conn_is_all(c, (size_t)n, room);
        t->now = clock_now();
        word_set(&c->deadline, request_body_deadline(w, r, t->now));
        if (r->head.chunked) {
            status = body_kept_decode(w, r, to, (size_t)n, &used, &words);
        } else {
            if (to == t->request.buffer)
                status = body_kept_add(w, r, to, (size_t)n);
            else
                r->body_size += (uint64_t)n;
            used = (size_t)n;
            if (!status && r->body_size == (uint64_t)r->head.content_length)
                status = 1;
        }
        if (status > 1) {
            conn_seen(t, SEEN_READING, SEEN_IDLE);
            return refuse(w, t, c, status, words);
        }
        if (status == 1) {
            conn_seen(t, SEEN_READING, SEEN_IDLE);
            if (body_kept_put_back(r, to + used, (uint32_t)((size_t)n - used)) <
                0)
                return hang_up(w, t, c);
            return serve_request(w, t, c, r, t->now);
        }
        if (c->drained) {
            conn_uncount(w, c);
            return STEP_WAIT;
        }
        if (--pieces == 0)
            return STEP_AGAIN;
    }
}

/* ------------------------------------------------------------------------
 * Reading a head */

static Step
framed(Worker *w, Thread *t, Conn *c, Request *r)
{
    const uint32_t body = r->start + r->head.length;
    const int64_t length = r->head.content_length;

    r->next = body;
    if (!r->head.chunked && length <= 0)
        return serve_request(w, t, c, r, c->ready);
    if (!r->head.chunked && (uint64_t)length > w->o.limits.body_limit)
        return refuse(w, t, c, 413, request_too_large);
    if (r->head.chunked || (uint64_t)length > r->size - body) {
        if (w->o.limits.buffering)
            return start_body(w, t, c, r);
        /* Beyond REQUEST_BUFFER only in a Request of its own: what one thread
         * received must fit any other's buffer. */
        if (r->head.chunked && body + CHUNK_ROOM > r->capacity) {
            r = request_adopt(w, c, r);
            if (r == NULL || request_grow(r, r->head.length + CHUNK_ROOM) < 0)
                return hang_up(w, t, c);
            r->next = r->head.length;
        }
        r->streaming = true;
        http1_chunks_init(&r->chunks);
        return serve_request(w, t, c, r, c->ready);
    }
    r->body = r->buffer + body;
    r->body_size = (uint64_t)length;
    r->next = body + (uint32_t)length;
    return serve_request(w, t, c, r, c->ready);
}

/* Where the bytes of the next request are: with the connection if it had to
 * give way, else with the thread. */
static Request *
parsed(Thread *t, Conn *c)
{
    return c->request ? c->request : &t->request;
}

static Step
parse(Worker *w, Thread *t, Conn *c, Request *r)
{
    const Http1Result result = http1_head_parse(
        &r->head, &w->o.limits.head, r->buffer + r->start, r->size - r->start);
    if (result == HTTP1_DONE)
        return framed(w, t, c, r);
    if (result != HTTP1_PARTIAL)
        return refuse(w, t, c, http1_status(result), http1_words(result));
    if (request_adopt(w, c, r) == NULL)
        return hang_up(w, t, c);
    c->state = CONN_HEAD;
    conn_seen(t, SEEN_IDLE, SEEN_READING);
    word_set(&c->deadline, c->began + w->o.limits.header_timeout);
    if (!c->drained)
        return STEP_AGAIN;
    conn_uncount(w, c);
    return STEP_WAIT;
}

static Step
read_head(Worker *w, Thread *t, Conn *c)
{
    Request *r = c->request;
    ssize_t n;

    if (r->size == r->capacity &&
        request_grow(r, request_larger(r->capacity)) < 0)
        return client_left(w, t, c);
    do
        n = recv(c->fd, r->buffer + r->size, r->capacity - r->size,
                 MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        conn_uncount(w, c);
        return STEP_WAIT;
    }
    if (n <= 0)
        return client_left(w, t, c);
    word_add(t->row->bytes_in, (uint64_t)n);
    c->drained = conn_is_all(c, (size_t)n, r->capacity - r->size);
    r->size += (uint32_t)n;
    t->now = clock_now();
    c->ready = t->now;
    conn_seen(t, SEEN_READING, SEEN_IDLE);
    return parse(w, t, c, r);
}

/* ------------------------------------------------------------------------
 * Reading a PROXY header */

static Step
unproxied(Worker *w, Thread *t, Conn *c, Unproxied why)
{
    word_add(&t->row->unproxied[why], 1);
    notes_add(w, NOTE_DEBUG, "closed a connection: %s",
              why == UNPROXIED_UNTRUSTED
                  ? "its peer is none that trust-proxy names"
                  : "it does not begin with a PROXY header");
    return hang_up(w, t, c);
}

/* The header is looked at where the kernel keeps it, and taken out once it is
 * complete: until then the connection needs no memory, and at no time has a
 * byte of its request been read, so it may still go to another worker. */
static Step
read_preface(Worker *w, Thread *t, Conn *c)
{
    Address client = c->item.client;
    ProxyResult result = PROXY_PARTIAL;
    char *buffer = t->request.buffer;
    size_t length;
    ssize_t n;

    if (c->state == CONN_PREFACE) {
        conn_seen(t, SEEN_READING, SEEN_IDLE);
        c->state = CONN_IDLE;
        t->now = c->ready = clock_now();
    }
    if (!address_within(&client, &w->o.trusted))
        return unproxied(w, t, c, UNPROXIED_UNTRUSTED);
    do
        n = recv(c->fd, buffer, PROXY_LONGEST, MSG_DONTWAIT | MSG_PEEK);
    while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
        return hang_up(w, t, c);
    if (n > 0)
        result = proxy_parse(buffer, (size_t)n, &length, &client);
    switch (result) {
    case PROXY_DONE:
        do
            n = recv(c->fd, buffer, length, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n != (ssize_t)length)
            return hang_up(w, t, c);
        word_add(t->row->bytes_in, length);
        word_set(&c->deadline, 0);
        c->item.client = client;
        c->item.prefaced = 1;
        return STEP_AGAIN;
    case PROXY_PARTIAL:
        if (atomic_load(&c->word) & CONN_ENDS)
            return hang_up(w, t, c);
        c->state = CONN_PREFACE;
        conn_seen(t, SEEN_IDLE, SEEN_READING);
        if (word_get(&c->deadline) == 0)
            word_set(&c->deadline, t->now + w->o.limits.header_timeout);
        conn_uncount(w, c);
        return STEP_WAIT;
    case PROXY_BAD:
        break;
    }
    return unproxied(w, t, c, UNPROXIED_MALFORMED);
}

/* ------------------------------------------------------------------------
 * The first bytes */

/* Others wait for a thread. May a request that found one by itself be served
 * before them? If it is short and would have its turn before them there as
 * well: passing it to and fro takes longer than serving it. Hence also if they
 * are not much before it, but no longer: on one connection or another, such a
 * request may always be there. */
static bool
gives_way(const Worker *w, const Conn *c)
{
    const Forecast *forecast = w->o.board->forecast;
    const uint64_t turn =
        atomic_load_explicit(&w->o.board->notice->turn, memory_order_relaxed);
    return turn != 0 && schedule_queues(&w->schedule) &&
           (c->ready > turn + SCHEDULE_TICK || !forecast_knows(forecast) ||
            forecast_of(forecast, c->fd) >= CHOICE_SLOW);
}

/* The first byte of a request should be there. Before it is read, the
 * connection may still go to another worker; afterwards it is ours. */
static Step
begin(Worker *w, Thread *t, Conn *c)
{
    Request *r = &t->request;
    ssize_t n;

    if (!c->counted &&
        (atomic_load_explicit(&w->draining, memory_order_relaxed) ||
         gives_way(w, c))) {
        conn_hand_back(w, t, &c, 1, t->now);
        return STEP_GONE;
    }
    if (w->o.proxy_protocol && !c->item.prefaced)
        return read_preface(w, t, c);
    do
        n = recv(c->fd, r->buffer, r->capacity, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        conn_uncount(w, c);
        if (word_get(&c->deadline) == 0)
            word_set(&c->deadline, t->now + w->o.limits.header_timeout);
        return STEP_WAIT;
    }
    if (n <= 0)
        return hang_up(w, t, c);
    conn_count(w, c);
    word_set(&c->deadline, 0);
    word_add(t->row->bytes_in, (uint64_t)n);
    c->drained = conn_is_all(c, (size_t)n, r->capacity);
    c->began = c->ready;
    r->start = 0;
    r->size = (uint32_t)n;
    http1_head_init(&r->head, r->fields);
    return parse(w, t, c, r);
}

/* The thread has been with this connection for long: others first. Bytes of
 * the next request leave the thread's buffer with it. False: it cannot go. */
static bool
give_way(Worker *w, Thread *t, Conn *c)
{
    if (c->state == CONN_PARSE && request_adopt(w, c, parsed(t, c)) == NULL)
        return false;
    threads_queue(w, c);
    return true;
}

void
exchange_run(Worker *w, Thread *t, Conn *c)
{
    const uint64_t turn = t->now + TURN;
    for (;;) {
        Step step = STEP_GONE;
        switch ((ConnState)c->state) {
        case CONN_IDLE:
            step = begin(w, t, c);
            break;
        case CONN_PREFACE:
            step = read_preface(w, t, c);
            break;
        case CONN_PARSE:
            step = parse(w, t, c, parsed(t, c));
            break;
        case CONN_HEAD:
            step = read_head(w, t, c);
            break;
        case CONN_BODY:
            step = read_body(w, t, c);
            break;
        case CONN_WRITING:
            step = write_on(w, t, c);
            break;
        case CONN_LINGER:
            step = linger(w, t, c);
            break;
        case CONN_FREE:
            break;
        }
        if (step == STEP_GONE)
            return;
        if (step == STEP_WAIT) {
            watch_attend(w);
            if (conn_release(w, c))
                return;
            t->now = clock_now();
            if (c->state == CONN_IDLE)
                c->ready = t->now;
        }
        if (t->now > turn && give_way(w, t, c))
            return;
    }
}
