/* One connection in a worker, from its first byte to its last. Pure C.
 *
 * conn_run() is the state machine; the thread that calls it owns the
 * connection. A head that comes in one piece is parsed where recv put it, in
 * the thread's buffer, and costs no allocation; only what is incomplete moves
 * into a Request of its own, so an idle connection has no buffer at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "proxy.h"
#include "serve_private.h"

/* A connection whose bytes come without a pause has a thread for so long; then
 * it is the others' turn. */
#define TURN CLOCK_MILLISECOND
/* Pieces of SERVE_BUFFER that are read before the clock is looked at. */
#define BODY_PIECES 16
#define LINGER_PIECES 16
/* Behind the head, for the pieces of a chunked body that is streamed. */
#define CHUNK_ROOM 8192

typedef enum {
    STEP_AGAIN, /* look at the state again */
    STEP_WAIT,  /* until the socket is ready */
    STEP_GONE,  /* closed or handed back: not ours any more */
} Step;

/* ------------------------------------------------------------------------
 * Requests */

int
request_init(Request *r, const Http1Limits *limits, uint32_t capacity)
{
    *r = (Request){.spool = -1, .capacity = capacity};
    r->fields = malloc(limits->fields * sizeof *r->fields);
    r->buffer = malloc(capacity);
    if (r->fields && r->buffer) {
        http1_head_init(&r->head, r->fields);
        return 0;
    }
    request_clear(r);
    return -1;
}

/* Forget the body; the buffer stays. */
static void
body_clear(Request *r)
{
    free(r->memory);
    if (r->spool >= 0)
        close(r->spool);
    r->body = r->memory = NULL;
    r->body_size = r->body_capacity = 0;
    r->spool = -1;
    r->streaming = r->ended = r->wanted = false;
    r->chunk.len = 0;
    r->refusal = 0;
}

void
request_clear(Request *r)
{
    body_clear(r);
    free(r->fields);
    free(r->buffer);
    r->fields = NULL;
    r->buffer = NULL;
}

static void
request_free(Conn *c)
{
    if (c->request) {
        request_clear(c->request);
        free(c->request);
        c->request = NULL;
    }
}

/* Room for so many bytes in all. */
static int
request_grow(Request *r, uint32_t capacity)
{
    char *buffer;
    if (capacity <= r->capacity)
        return 0;
    buffer = realloc(r->buffer, capacity);
    if (buffer == NULL)
        return -1;
    r->buffer = buffer;
    r->capacity = capacity;
    return 0;
}

/* While a head is read, a buffer never grows beyond a thread's: no head may be
 * as large, and what comes behind it then fits there. */
static uint32_t
larger(uint32_t size)
{
    return size < 512                ? 1024
           : size > SERVE_BUFFER / 2 ? SERVE_BUFFER
                                     : size * 2;
}

/* Give the connection a Request of its own with the bytes of `r`. */
static Request *
adopt(Serve *s, Conn *c, Request *r)
{
    const uint32_t size = r->size - r->start;
    /* The parser may be inside one more. */
    const uint32_t fields = r->head.count < s->o.limits.head.fields
                                ? r->head.count + 1
                                : r->head.count;
    Request *own;
    if (r == c->request)
        return r;
    own = malloc(sizeof *own);
    if (own == NULL)
        return NULL;
    if (request_init(own, &s->o.limits.head, larger(size))) {
        free(own);
        return NULL;
    }
    memcpy(own->buffer, r->buffer + r->start, size);
    memcpy(own->fields, r->fields, fields * sizeof *own->fields);
    own->head = r->head;
    own->head.fields = own->fields;
    own->size = size;
    c->request = own;
    return own;
}

/* ------------------------------------------------------------------------
 * Being owned, counted, opened and closed */

bool
conn_release(Serve *s, Conn *c)
{
    uint64_t word;
    if (!c->registered) {
        struct epoll_event e = {
            .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
            .data.u64 = (atomic_load(&c->word) >> CONN_BITS << 32) | c->index,
        };
        c->registered = true;
        if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, c->fd, &e) < 0) {
            shutdown(c->fd, SHUT_RDWR); /* reads as the client's end */
            return false;
        }
    }
    word = atomic_load(&c->word);
    for (;;) {
        if (word & CONN_EVENT) {
            if (atomic_compare_exchange_weak(&c->word, &word,
                                             word & ~CONN_EVENT)) {
                c->drained = false;
                return false;
            }
        } else if (atomic_compare_exchange_weak(&c->word, &word,
                                                word & ~CONN_OWNED)) {
            return true;
        }
    }
}

/* Have these bytes emptied the socket? Less than there was room for has, but
 * the client's end may lie behind them, and it comes with no further event. */
static bool
is_all(const Conn *c, size_t n, size_t room)
{
    return n < room && !(atomic_load(&c->word) & CONN_ENDS);
}

void
conn_uncount(Serve *s, Conn *c)
{
    if (!c->counted)
        return;
    c->counted = false;
    serve_unload(s, 1);
}

static void
count(Serve *s, Conn *c)
{
    if (!c->counted) {
        c->counted = true;
        atomic_fetch_add(&s->line->load, 1);
    }
}

static Conn *
conn_place(Serve *s)
{
    const uint32_t made = atomic_load(&s->conn_count);
    Conn *block, *c;
    uint32_t i;

    if (s->free == NULL) {
        if (made / CONN_BLOCK >= CONN_BLOCKS)
            return NULL;
        block = calloc(CONN_BLOCK, sizeof *block);
        if (block == NULL)
            return NULL;
        for (i = CONN_BLOCK; i-- > 0;) {
            block[i].index = made + i;
            block[i].fd = -1;
            atomic_init(&block[i].word, CONN_OWNED);
            block[i].next = s->free;
            s->free = &block[i];
        }
        s->blocks[made / CONN_BLOCK] = block;
        atomic_store(&s->conn_count, made + CONN_BLOCK);
    }
    c = s->free;
    s->free = c->next;
    return c;
}

/* Owned, and counted in the load already. `fd` is the connection's. */
Conn *
conn_open(Serve *s, Thread *t, int fd, const ChannelItem *item)
{
    Conn *c;
    pthread_mutex_lock(&s->lock);
    c = conn_place(s);
    pthread_mutex_unlock(&s->lock);
    if (c == NULL) {
        close(fd);
        atomic_fetch_sub(&s->line->held, 1);
        serve_unload(s, 1);
        return NULL;
    }
    c->fd = fd;
    c->item = *item;
    c->ready = item->since;
    c->state = CONN_IDLE;
    c->counted = true;
    c->next = NULL;
    c->registered = c->drained = c->keep = c->gone = false;
    c->unread = c->last = false;
    atomic_fetch_add(&s->live, 1);
    word_add(&t->row->connections[SEEN_IDLE], 1);
    return c;
}

/* The place is free again. The last one to leave a draining worker tells the
 * main thread. */
static void
conn_leave(Serve *s, Thread *t, Conn *c)
{
    const uint64_t word = atomic_load(&c->word);
    request_free(c);
    output_discard(s, c);
    word_add(&t->row->connections[SEEN_IDLE], (uint64_t)-1);
    conn_uncount(s, c);
    atomic_fetch_sub(&s->line->held, 1);
    close(c->fd);
    c->fd = -1;
    c->state = CONN_FREE;
    word_set(&c->deadline, 0);
    /* A new generation, still owned: events on their way are for nobody. */
    atomic_store(&c->word, ((word >> CONN_BITS) + 1) << CONN_BITS | CONN_OWNED);
    pthread_mutex_lock(&s->lock);
    c->next = s->free;
    s->free = c;
    pthread_mutex_unlock(&s->lock);
    if (atomic_fetch_sub(&s->live, 1) == 1 && atomic_load(&s->draining))
        serve_ring(s->bell);
}

/* Another process may hold the same connection's descriptor (a child that the
 * application forked, the message in which it was handed back): closing ours
 * does not take it out of our epoll set. */
static void
conn_forget(Serve *s, Conn *c)
{
    if (c->registered)
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static Step
conn_close(Serve *s, Thread *t, Conn *c)
{
    conn_forget(s, c);
    conn_leave(s, t, c);
    return STEP_GONE;
}

void
conn_hand_back(Serve *s, Thread *t, Conn **conns, uint32_t n, uint64_t now)
{
    ChannelMessage m = {.header = {.kind = CHANNEL_HAND_BACK, .count = n}};
    uint32_t i;

    if (n == 0)
        return;
    for (i = 0; i < n; i++) {
        Conn *c = conns[i];
        m.fds[i] = c->fd;
        m.items[i] = c->item;
        m.items[i].request_waits = c->ready != 0;
        m.items[i].since = c->ready ? c->ready : now;
    }
    if (!s->orphan && channel_send(s->o.channel, &m) < 0) {
        /* The channel is full: the sweep tries again a little later. Edges
         * that we forget meanwhile the supervisor will see for itself. */
        for (i = 0; i < n; i++) {
            conn_uncount(s, conns[i]);
            word_set(&conns[i]->deadline, now + IDLE_GRACE / 16);
            while (!conn_release(s, conns[i]))
                ;
        }
        serve_arm(s);
        return;
    }
    for (i = 0; i < n; i++)
        conn_close(s, t, conns[i]);
}

/* ------------------------------------------------------------------------
 * Refusing */

const char *
serve_phrase(int status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Internal Server Error";
    }
}

static void
count_refusal(Thread *t, int status)
{
    static const int columns[] = {400, 408, 413, 414, 417, 431};
    size_t i = 0;
    while (i < sizeof columns / sizeof columns[0] && columns[i] != status)
        i++;
    word_add(&t->row->refused[i], 1); /* behind the last: other */
}

/* Closing at once over bytes that the client still sends would reset the
 * connection, and the reset may overtake the answer: so our side ends first,
 * and the rest is thrown away. */
static Step
start_linger(Serve *s, Thread *t, Conn *c)
{
    if (shutdown(c->fd, SHUT_WR) < 0)
        return conn_close(s, t, c);
    c->state = CONN_LINGER;
    word_set(&c->deadline, clock_now() + LINGER_TIMEOUT);
    return STEP_AGAIN;
}

/* Answer with an error and stop reading. */
static Step
refuse(Serve *s, Thread *t, Conn *c, int status, const char *words)
{
    char answer[512];
    char body[160];
    const int body_size = snprintf(body, sizeof body, "%d %s: %s\n", status,
                                   serve_phrase(status), words);
    const int size = snprintf(answer, sizeof answer,
                              "HTTP/1.1 %d %s\r\n"
                              "Content-Type: text/plain\r\n"
                              "Content-Length: %d\r\n"
                              "Connection: close\r\n"
                              "\r\n"
                              "%s",
                              status, serve_phrase(status), body_size, body);
    count_refusal(t, status);
    serve_note(s, NOTE_DEBUG, "refused a request: %d, %s", status, words);
    conn_uncount(s, c);
    request_free(c);
    if (serve_send(t, c, answer, (size_t)size, NULL, 0, NULL, NULL) < 0 ||
        c->out)
        return conn_close(s, t, c);
    return start_linger(s, t, c);
}

static Step
linger(Serve *s, Thread *t, Conn *c)
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
    return conn_close(s, t, c);
}

void
conn_expire(Serve *s, Thread *t, Conn *c, uint64_t now)
{
    switch ((ConnState)c->state) {
    case CONN_IDLE:
        c->ready = 0;
        conn_hand_back(s, t, &c, 1, now - IDLE_GRACE);
        return;
    case CONN_PREFACE: /* it speaks no HTTP yet: no answer */
        word_add(&t->row->timeouts[TIMEOUT_HEADER], 1);
        conn_seen(t, SEEN_READING, SEEN_IDLE);
        conn_close(s, t, c);
        return;
    case CONN_HEAD:
    case CONN_BODY:
        word_add(&t->row->timeouts[c->state == CONN_HEAD ? TIMEOUT_HEADER
                                                         : TIMEOUT_BODY],
                 1);
        conn_seen(t, SEEN_READING, SEEN_IDLE);
        if (refuse(s, t, c, 408, "the request did not arrive in time") ==
            STEP_AGAIN)
            serve_call(s, c);
        return;
    case CONN_WRITING:
        word_add(&t->row->timeouts[TIMEOUT_SEND], 1);
        conn_seen(t, SEEN_WRITING, SEEN_IDLE);
        conn_close(s, t, c);
        return;
    default:
        conn_close(s, t, c);
    }
}

/* ------------------------------------------------------------------------
 * Serving a complete request */

static void
record(Thread *t, Conn *c, uint64_t now)
{
    const unsigned class = c->status / 100u;
    if (class >= 1 && class <= 5)
        word_add(&t->row->requests[class - 1], 1);
    histogram_add(t->row->duration, now - c->began);
}

bool
request_body_end(const Request *r, uint32_t *end)
{
    Http1Chunks chunks = r->chunks;
    uint32_t at = r->next;

    if (r->ended || !r->streaming)
        return true;
    if (r->refusal)
        return false;
    if (!r->head.chunked) {
        const uint64_t left = (uint64_t)r->head.content_length - r->body_size;
        if (left > r->size - at)
            return false;
        at += (uint32_t)left;
    } else {
        Http1Result result;
        do {
            Http1Span span;
            size_t used;
            result = http1_chunks_next(&chunks, r->buffer + at, r->size - at,
                                       &used, &span);
            at += (uint32_t)used;
        } while (result == HTTP1_DATA);
        if (result != HTTP1_DONE)
            return false;
    }
    if (end)
        *end = at;
    return true;
}

/* The answer is with the kernel: what next? */
static Step
finish(Serve *s, Thread *t, Conn *c, Request *r)
{
    uint32_t rest = r->size - r->next;

    record(t, c, t->now);
    body_clear(r);
    if (!c->keep && c->unread)
        return start_linger(s, t, c);
    if (!c->keep)
        return conn_close(s, t, c);
    c->item.requests++;
    c->ready = t->now;
    if (rest) {
        Request *own = &t->request;
        memmove(own->buffer, r->buffer + r->next, rest);
        own->start = 0;
        own->size = rest;
        request_free(c);
        http1_head_init(&own->head, own->fields);
        c->began = t->now;
        c->state = CONN_PARSE;
        return STEP_AGAIN;
    }
    request_free(c);
    c->state = CONN_IDLE;
    if (!c->drained)
        return STEP_AGAIN;
    if (atomic_load_explicit(&s->draining, memory_order_relaxed)) {
        c->ready = 0;
        conn_hand_back(s, t, &c, 1, t->now);
        return STEP_GONE;
    }
    word_set(&c->deadline, t->now + (s->o.limits.keep_alive_timeout < IDLE_GRACE
                                         ? s->o.limits.keep_alive_timeout
                                         : IDLE_GRACE));
    return STEP_WAIT;
}

static void
show(Current *now, const Request *r)
{
    const char *base = r->buffer + r->start;
    size_t n = r->head.method.len;
    if (n >= sizeof now->method)
        n = sizeof now->method - 1;
    memcpy(now->method, base + r->head.method.at, n);
    now->method[n] = '\0';
    n = r->head.path.len;
    if (n >= sizeof now->path)
        n = sizeof now->path - 1;
    memcpy(now->path, base + r->head.path.at, n);
    now->path[n] = '\0';
}

static Step
serve_request(Serve *s, Thread *t, Conn *c, Request *r, uint64_t complete)
{
    Current *current = &t->row->current;
    const uint64_t start = clock_now();

    count(s, c);
    word_set(&c->deadline, 0);
    c->status = 0;
    c->keep = false;
    conn_seen(t, SEEN_IDLE, SEEN_RUNNING);
    histogram_add(t->row->queue, start > complete ? start - complete : 0);
    word_add(t->row->read_time, complete > c->began ? complete - c->began : 0);
    show(current, r);
    word_set(&current->ready, complete);
    atomic_store_explicit(
        &current->sequence,
        atomic_load_explicit(&current->sequence, memory_order_relaxed) + 1,
        memory_order_relaxed);
    atomic_store_explicit(&current->state, THREAD_APPLICATION,
                          memory_order_relaxed);
    word_set(&current->since, start);
    t->now = start;
    serve_arm(s);

    s->o.application(s->o.argument, t, c, r);

    t->now = clock_now();
    word_set(&current->since, 0);
    atomic_store_explicit(&current->state, THREAD_IDLE, memory_order_relaxed);
    word_add(t->row->busy_time, t->now - start);
    conn_seen(t, SEEN_RUNNING, SEEN_IDLE);
    conn_uncount(s, c);
    if (r->streaming && !r->ended)
        r->ended = request_body_end(r, &r->next);
    c->unread = r->streaming && !r->ended;
    if (c->gone) {
        word_add(t->row->disconnected, 1);
        body_clear(r);
        return conn_close(s, t, c);
    }
    if (c->out == NULL)
        return finish(s, t, c, r);

    /* Its reader is slow: what is left waits without a thread, and so do
     * bytes of the next request that came along. */
    if (c->keep && r->size > r->next && adopt(s, c, r) == NULL)
        c->keep = false;
    if (r != c->request) {
        if (c->request)
            c->request->next = r->next - r->start;
        body_clear(r);
    }
    c->state = CONN_WRITING;
    word_set(&c->deadline, t->now + s->o.limits.send_timeout);
    conn_seen(t, SEEN_IDLE, SEEN_WRITING);
    return STEP_AGAIN;
}

static Step
write_on(Serve *s, Thread *t, Conn *c)
{
    Request none = {.spool = -1};
    const uint64_t before = c->out_size;
    const int done = output_flush(t, c);
    t->now = clock_now();
    if (done < 0) {
        word_add(t->row->disconnected, 1);
        conn_seen(t, SEEN_WRITING, SEEN_IDLE);
        return conn_close(s, t, c);
    }
    if (done != 1) {
        if (c->out_size != before)
            word_set(&c->deadline, t->now + s->o.limits.send_timeout);
        return done ? STEP_AGAIN : STEP_WAIT;
    }
    conn_seen(t, SEEN_WRITING, SEEN_IDLE);
    word_set(&c->deadline, 0);
    return finish(s, t, c, c->request ? c->request : &none);
}

/* ------------------------------------------------------------------------
 * Reading a body */

static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
static const char too_large[] = "the body is larger than is allowed here";

/* A body may pause for so long, and has so long in all, plus the time that
 * what has come takes at the least rate. */
static uint64_t
body_deadline(const Serve *s, const Request *r, uint64_t now)
{
    const ServeLimits *limits = &s->o.limits;
    uint64_t all;
    if (limits->body_rate == 0)
        return now + limits->body_timeout;
    all = r->body_began + limits->body_timeout +
          r->body_size / limits->body_rate * CLOCK_SECOND;
    return all < now + limits->body_timeout ? all : now + limits->body_timeout;
}

/* Room for `more` bytes of body in memory. */
static int
body_reserve(Request *r, uint64_t more, uint64_t expected)
{
    const uint64_t need = r->body_size + more;
    uint64_t capacity = r->body_capacity;
    char *memory;
    if (need <= capacity)
        return 0;
    /* Grown as bytes come, never for what was only announced. */
    capacity = capacity * 2 > need ? capacity * 2 : need;
    if (expected && capacity > expected)
        capacity = expected > need ? expected : need;
    memory = realloc(r->memory, capacity);
    if (memory == NULL)
        return -1;
    r->memory = memory;
    r->body = memory;
    r->body_capacity = capacity;
    return 0;
}

static int
write_all(int fd, const char *data, size_t size)
{
    while (size) {
        const ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

/* An unlinked file where temporary files go. */
static int
spool_open(void)
{
    const char *folder = getenv("TMPDIR");
    char path[4096];
    int fd;
    if (folder == NULL || *folder == '\0')
        folder = "/tmp";
    fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    /* Not every file system has O_TMPFILE. */
    if (snprintf(path, sizeof path, "%s/poolsrv-body-XXXXXX", folder) >=
        (int)sizeof path)
        return -1;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

/* Keep `size` bytes of body. 0, or the status to refuse with. */
static int
body_add(Serve *s, Request *r, const char *data, size_t size)
{
    const uint64_t total = r->body_size + size;
    if (size == 0) /* and perhaps no memory yet, which memcpy must not see */
        return 0;
    if (total > s->o.limits.body_limit)
        return 413;
    if (r->spool < 0 && total > s->o.limits.body_buffer) {
        r->spool = spool_open();
        if (r->spool < 0 || write_all(r->spool, r->memory, r->body_size) < 0)
            goto failed;
        free(r->memory);
        r->memory = NULL;
        r->body = NULL;
        r->body_capacity = 0;
    }
    if (r->spool >= 0) {
        if (write_all(r->spool, data, size) < 0)
            goto failed;
    } else {
        const int64_t expected = r->head.content_length;
        if (body_reserve(r, size, expected > 0 ? (uint64_t)expected : 0) < 0)
            return 500;
        memcpy(r->memory + r->body_size, data, size);
    }
    r->body_size = total;
    return 0;
failed:
    serve_note(s, NOTE_WARNING,
               "cannot keep a request body in a temporary file: %s; make room "
               "in TMPDIR or raise body-buffer",
               strerror(errno));
    return 500;
}

/* Decode chunks. 1: the body is complete, *used bytes were its; 0: more is
 * needed; else the status to refuse with, *words why. */
static int
body_decode(Serve *s, Request *r, const char *data, size_t size, size_t *used,
            const char **words)
{
    *used = 0;
    for (;;) {
        size_t n;
        Http1Span span;
        const Http1Result result = http1_chunks_next(&r->chunks, data + *used,
                                                     size - *used, &n, &span);
        const char *piece = data + *used + span.at;
        int status;
        *used += n;
        switch (result) {
        case HTTP1_DATA:
            status = body_add(s, r, piece, span.len);
            if (status == 413)
                *words = too_large;
            if (status)
                return status;
            break;
        case HTTP1_PARTIAL:
            return 0;
        case HTTP1_DONE:
            return 1;
        default:
            *words = http1_words(result);
            return http1_status(result);
        }
    }
}

/* Bytes behind the body belong to the next request: keep them behind the
 * head, whose spans stay where they are. */
static int
keep_rest(Request *r, const char *data, uint32_t size)
{
    const uint32_t at = r->head.length;
    if (request_grow(r, at + size) < 0)
        return -1;
    memmove(r->buffer + at, data, size); /* it may lie there already */
    r->next = at;
    r->size = at + size;
    return 0;
}

/* The head is complete, its body is not: go on in a Request of our own. */
static Step
start_body(Serve *s, Thread *t, Conn *c, Request *r)
{
    const uint32_t behind = r->size - r->start - r->head.length;
    size_t used = 0;
    const char *words = "the body cannot be kept";
    int status = 0;
    char *rest;

    r = adopt(s, c, r);
    if (r == NULL)
        return conn_close(s, t, c);
    http1_chunks_init(&r->chunks);
    rest = r->buffer + r->head.length;
    r->next = r->size = r->head.length;
    if (r->head.chunked)
        status = body_decode(s, r, rest, behind, &used, &words);
    else
        status = body_add(s, r, rest, behind);
    if (status > 1)
        return refuse(s, t, c, status, words);
    if (status == 1) {
        if (keep_rest(r, rest + used, behind - (uint32_t)used) < 0)
            return conn_close(s, t, c);
        return serve_request(s, t, c, r, c->began);
    }
    if (r->head.expect_continue && behind == 0 &&
        serve_send(t, c, go_on, sizeof go_on - 1, NULL, 0, NULL, NULL) < 0)
        return conn_close(s, t, c);
    c->state = CONN_BODY;
    conn_seen(t, SEEN_IDLE, SEEN_READING);
    r->body_began = t->now;
    word_set(&c->deadline, body_deadline(s, r, t->now));
    if (!c->drained)
        return STEP_AGAIN;
    conn_uncount(s, c);
    return STEP_WAIT;
}

static Step
client_left(Serve *s, Thread *t, Conn *c)
{
    word_add(t->row->disconnected, 1);
    conn_seen(t, SEEN_READING, SEEN_IDLE);
    return conn_close(s, t, c);
}

static Step
read_body(Serve *s, Thread *t, Conn *c)
{
    Request *r = c->request;
    const char *words = "the body cannot be kept";
    uint32_t pieces = BODY_PIECES;
    int status = 0;

    for (;;) {
        char *to = t->request.buffer;
        size_t room = SERVE_BUFFER;
        size_t used = 0;
        ssize_t n;

        if (!r->head.chunked) {
            const uint64_t left =
                (uint64_t)r->head.content_length - r->body_size;
            if (left < room)
                room = left;
            /* What stays in memory is received where it stays. */
            if (r->spool < 0 &&
                (uint64_t)r->head.content_length <= s->o.limits.body_buffer) {
                if (body_reserve(r, room, (uint64_t)r->head.content_length) < 0)
                    return client_left(s, t, c);
                to = r->memory + r->body_size;
            }
        }
        do
            n = recv(c->fd, to, room, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            conn_uncount(s, c);
            return STEP_WAIT;
        }
        if (n <= 0)
            return client_left(s, t, c);
        word_add(t->row->bytes_in, (uint64_t)n);
        c->drained = is_all(c, (size_t)n, room);
        t->now = clock_now();
        word_set(&c->deadline, body_deadline(s, r, t->now));
        if (r->head.chunked) {
            status = body_decode(s, r, to, (size_t)n, &used, &words);
        } else {
            if (to == t->request.buffer)
                status = body_add(s, r, to, (size_t)n);
            else
                r->body_size += (uint64_t)n;
            used = (size_t)n;
            if (!status && r->body_size == (uint64_t)r->head.content_length)
                status = 1;
        }
        if (status > 1) {
            conn_seen(t, SEEN_READING, SEEN_IDLE);
            return refuse(s, t, c, status, words);
        }
        if (status == 1) {
            conn_seen(t, SEEN_READING, SEEN_IDLE);
            if (keep_rest(r, to + used, (uint32_t)((size_t)n - used)) < 0)
                return conn_close(s, t, c);
            return serve_request(s, t, c, r, t->now);
        }
        if (c->drained) {
            conn_uncount(s, c);
            return STEP_WAIT;
        }
        if (--pieces == 0)
            return STEP_AGAIN;
    }
}

/* ------------------------------------------------------------------------
 * Streaming a body: the application reads while the client sends */

/* Wait until there is something to read. 0, or the status to refuse with. */
static int
wait_readable(Thread *t, Conn *c, const Request *r)
{
    const uint64_t now = clock_now();
    const uint64_t deadline = body_deadline(t->serve, r, now);
    const uint64_t left = deadline > now ? deadline - now : 0;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int n;
    atomic_store(&t->row->current.state, THREAD_READING);
    do
        n = poll(&p, 1, (int)(left / CLOCK_MILLISECOND) + 1);
    while (n < 0 && errno == EINTR);
    atomic_store(&t->row->current.state, THREAD_APPLICATION);
    if (n == 0)
        word_add(&t->row->timeouts[TIMEOUT_BODY], 1);
    return n > 0 ? 0 : n == 0 ? 408 : 500;
}

/* Receive into `to`, waiting. Bytes, or 0 and r->refusal. */
static size_t
receive_body(Thread *t, Conn *c, Request *r, char *to, size_t room,
             const char **words)
{
    for (;;) {
        const ssize_t n = recv(c->fd, to, room, MSG_DONTWAIT);
        if (n > 0) {
            word_add(t->row->bytes_in, (uint64_t)n);
            c->drained = is_all(c, (size_t)n, room);
            return (size_t)n;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            r->refusal = wait_readable(t, c, r);
            if (r->refusal == 0)
                continue;
            *words = "the request's body did not arrive in time";
            return 0;
        }
        if (n < 0 && errno == EINTR)
            continue;
        *words = "the client went away before it had sent the whole body";
        r->refusal = 400;
        c->gone = true;
        return 0;
    }
}

/* Take decoded bytes that are in the buffer already. */
static size_t
take_chunk(Request *r, char *to, size_t room)
{
    const size_t n = r->chunk.len < room ? r->chunk.len : room;
    memcpy(to, r->buffer + r->chunk.at, n);
    r->chunk.at += (uint32_t)n;
    r->chunk.len -= (uint32_t)n;
    return n;
}

static size_t
read_chunked(Thread *t, Conn *c, Request *r, char *to, size_t room,
             const char **words)
{
    while (r->chunk.len == 0) {
        const uint32_t body = r->start + r->head.length;
        Http1Result result;
        size_t used;
        if (r->next == r->size) {
            r->next = r->size = body;
            r->size += (uint32_t)receive_body(t, c, r, r->buffer + body,
                                              r->capacity - body, words);
            if (r->refusal)
                return 0;
        }
        result = http1_chunks_next(&r->chunks, r->buffer + r->next,
                                   r->size - r->next, &used, &r->chunk);
        r->chunk.at += r->next;
        r->next += (uint32_t)used;
        if (result == HTTP1_DONE) {
            r->ended = true;
            return 0;
        }
        if (result != HTTP1_DATA && result != HTTP1_PARTIAL) {
            *words = http1_words(result);
            r->refusal = http1_status(result);
            return 0;
        }
    }
    return take_chunk(r, to, room);
}

static size_t
read_sized(Thread *t, Conn *c, Request *r, char *to, size_t room,
           const char **words)
{
    const uint64_t left = (uint64_t)r->head.content_length - r->body_size;
    size_t n = r->size - r->next;
    if (left < room)
        room = left;
    if (n == 0)
        return receive_body(t, c, r, to, room, words);
    if (n > room)
        n = room;
    memcpy(to, r->buffer + r->next, n);
    r->next += (uint32_t)n;
    return n;
}

ssize_t
serve_read_body(Thread *t, Conn *c, Request *r, char *to, size_t room,
                const char **words)
{
    size_t n;
    if (r->ended || room == 0)
        return 0;
    if (r->refusal) {
        *words = "the body could not be read before";
        return -1;
    }
    if (!r->wanted) {
        r->wanted = true;
        r->body_began = clock_now();
        /* Once the answer has begun, this would stand in its middle. */
        if (r->head.expect_continue && r->next == r->size && c->status == 0 &&
            serve_send(t, c, go_on, sizeof go_on - 1, NULL, 0, NULL, NULL) < 0)
            r->refusal = 400;
    }
    n = r->head.chunked ? read_chunked(t, c, r, to, room, words)
                        : read_sized(t, c, r, to, room, words);
    r->body_size += n;
    if (r->body_size > t->serve->o.limits.body_limit) {
        *words = too_large;
        r->refusal = 413;
    }
    if (r->refusal)
        return -1;
    if (!r->head.chunked && r->body_size == (uint64_t)r->head.content_length)
        r->ended = true;
    return (ssize_t)n;
}

/* ------------------------------------------------------------------------
 * Reading a head */

static Step
framed(Serve *s, Thread *t, Conn *c, Request *r)
{
    const uint32_t body = r->start + r->head.length;
    const int64_t length = r->head.content_length;

    r->next = body;
    if (!r->head.chunked && length <= 0)
        return serve_request(s, t, c, r, c->ready);
    if (!r->head.chunked && (uint64_t)length > s->o.limits.body_limit)
        return refuse(s, t, c, 413, too_large);
    if (r->head.chunked || (uint64_t)length > r->size - body) {
        if (s->o.limits.buffering)
            return start_body(s, t, c, r);
        /* Beyond SERVE_BUFFER only in a Request of its own: what one thread
         * received must fit any other's buffer. */
        if (r->head.chunked && body + CHUNK_ROOM > r->capacity) {
            r = adopt(s, c, r);
            if (r == NULL || request_grow(r, r->head.length + CHUNK_ROOM) < 0)
                return conn_close(s, t, c);
            r->next = r->head.length;
        }
        r->streaming = true;
        http1_chunks_init(&r->chunks);
        return serve_request(s, t, c, r, c->ready);
    }
    r->body = r->buffer + body;
    r->body_size = (uint64_t)length;
    r->next = body + (uint32_t)length;
    return serve_request(s, t, c, r, c->ready);
}

/* Where the bytes of the next request are: with the connection if it had to
 * give way, else with the thread. */
static Request *
parsed(Thread *t, Conn *c)
{
    return c->request ? c->request : &t->request;
}

static Step
parse(Serve *s, Thread *t, Conn *c, Request *r)
{
    const Http1Result result = http1_head_parse(
        &r->head, &s->o.limits.head, r->buffer + r->start, r->size - r->start);
    if (result == HTTP1_DONE)
        return framed(s, t, c, r);
    if (result != HTTP1_PARTIAL)
        return refuse(s, t, c, http1_status(result), http1_words(result));
    if (adopt(s, c, r) == NULL)
        return conn_close(s, t, c);
    c->state = CONN_HEAD;
    conn_seen(t, SEEN_IDLE, SEEN_READING);
    word_set(&c->deadline, c->began + s->o.limits.header_timeout);
    if (!c->drained)
        return STEP_AGAIN;
    conn_uncount(s, c);
    return STEP_WAIT;
}

static Step
read_head(Serve *s, Thread *t, Conn *c)
{
    Request *r = c->request;
    ssize_t n;

    if (r->size == r->capacity && request_grow(r, larger(r->capacity)) < 0)
        return client_left(s, t, c);
    do
        n = recv(c->fd, r->buffer + r->size, r->capacity - r->size,
                 MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        conn_uncount(s, c);
        return STEP_WAIT;
    }
    if (n <= 0)
        return client_left(s, t, c);
    word_add(t->row->bytes_in, (uint64_t)n);
    c->drained = is_all(c, (size_t)n, r->capacity - r->size);
    r->size += (uint32_t)n;
    t->now = clock_now();
    c->ready = t->now;
    conn_seen(t, SEEN_READING, SEEN_IDLE);
    return parse(s, t, c, r);
}

/* ------------------------------------------------------------------------
 * Reading a PROXY header */

static Step
unproxied(Serve *s, Thread *t, Conn *c, Unproxied why)
{
    word_add(&t->row->unproxied[why], 1);
    serve_note(s, NOTE_DEBUG, "closed a connection: %s",
               why == UNPROXIED_UNTRUSTED
                   ? "its peer is none that trust-proxy names"
                   : "it does not begin with a PROXY header");
    return conn_close(s, t, c);
}

/* The header is looked at where the kernel keeps it, and taken out once it is
 * complete: until then the connection needs no memory, and at no time has a
 * byte of its request been read, so it may still go to another worker. */
static Step
read_preface(Serve *s, Thread *t, Conn *c)
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
    if (!address_within(&client, &s->o.trusted))
        return unproxied(s, t, c, UNPROXIED_UNTRUSTED);
    do
        n = recv(c->fd, buffer, PROXY_LONGEST, MSG_DONTWAIT | MSG_PEEK);
    while (n < 0 && errno == EINTR);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
        return conn_close(s, t, c);
    if (n > 0)
        result = proxy_parse(buffer, (size_t)n, &length, &client);
    switch (result) {
    case PROXY_DONE:
        do
            n = recv(c->fd, buffer, length, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n != (ssize_t)length)
            return conn_close(s, t, c);
        word_add(t->row->bytes_in, length);
        word_set(&c->deadline, 0);
        c->item.client = client;
        c->item.prefaced = 1;
        return STEP_AGAIN;
    case PROXY_PARTIAL:
        if (atomic_load(&c->word) & CONN_ENDS)
            return conn_close(s, t, c);
        c->state = CONN_PREFACE;
        conn_seen(t, SEEN_IDLE, SEEN_READING);
        if (word_get(&c->deadline) == 0)
            word_set(&c->deadline, t->now + s->o.limits.header_timeout);
        conn_uncount(s, c);
        return STEP_WAIT;
    case PROXY_BAD:
        break;
    }
    return unproxied(s, t, c, UNPROXIED_MALFORMED);
}

/* ------------------------------------------------------------------------
 * The first bytes */

/* The first byte of a request should be there. Before it is read, the
 * connection may still go to another worker; afterwards it is ours. */
static Step
begin(Serve *s, Thread *t, Conn *c)
{
    Request *r = &t->request;
    ssize_t n;

    if (!c->counted &&
        (atomic_load_explicit(&s->draining, memory_order_relaxed) ||
         (atomic_load_explicit(&s->o.board->notice->queued,
                               memory_order_relaxed) &&
          schedule_queues(&s->schedule)))) {
        /* Others have waited longer: to the end of the common queue. */
        conn_hand_back(s, t, &c, 1, t->now);
        return STEP_GONE;
    }
    if (s->o.proxy_protocol && !c->item.prefaced)
        return read_preface(s, t, c);
    do
        n = recv(c->fd, r->buffer, r->capacity, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        conn_uncount(s, c);
        if (word_get(&c->deadline) == 0)
            word_set(&c->deadline, t->now + s->o.limits.header_timeout);
        return STEP_WAIT;
    }
    if (n <= 0)
        return conn_close(s, t, c);
    count(s, c);
    word_set(&c->deadline, 0);
    word_add(t->row->bytes_in, (uint64_t)n);
    c->drained = is_all(c, (size_t)n, r->capacity);
    c->began = c->ready;
    r->start = 0;
    r->size = (uint32_t)n;
    http1_head_init(&r->head, r->fields);
    return parse(s, t, c, r);
}

/* The thread has been with this connection for long: others first. Bytes of
 * the next request leave the thread's buffer with it. False: it cannot go. */
static bool
give_way(Serve *s, Thread *t, Conn *c)
{
    if (c->state == CONN_PARSE && adopt(s, c, parsed(t, c)) == NULL)
        return false;
    serve_queue(s, c);
    return true;
}

void
conn_run(Serve *s, Thread *t, Conn *c)
{
    const uint64_t turn = t->now + TURN;
    for (;;) {
        Step step = STEP_GONE;
        switch ((ConnState)c->state) {
        case CONN_IDLE:
            step = begin(s, t, c);
            break;
        case CONN_PREFACE:
            step = read_preface(s, t, c);
            break;
        case CONN_PARSE:
            step = parse(s, t, c, parsed(t, c));
            break;
        case CONN_HEAD:
            step = read_head(s, t, c);
            break;
        case CONN_BODY:
            step = read_body(s, t, c);
            break;
        case CONN_WRITING:
            step = write_on(s, t, c);
            break;
        case CONN_LINGER:
            step = linger(s, t, c);
            break;
        case CONN_FREE:
            break;
        }
        if (step == STEP_GONE)
            return;
        if (step == STEP_WAIT) {
            serve_attend(s);
            if (conn_release(s, c))
                return;
            t->now = clock_now();
            if (c->state == CONN_IDLE)
                c->ready = t->now;
        }
        if (t->now > turn && give_way(s, t, c))
            return;
    }
}
