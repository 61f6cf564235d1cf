/* Answers on their way out: what the socket does not take at once waits with
 * the connection, not with a thread. Pure C. */
#define _GNU_SOURCE
#include "worker/output.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/garbage.h"
#include "worker/pieces.h"
#include "worker/worker_internal.h"

/* A sendfile of more would keep a thread in the kernel for long. */
#define FILE_PIECE (1 << 20)
/* How soon an application that yields nothing learns that its client is gone.
 */
#define LOOK_EVERY (100 * CLOCK_MILLISECOND)
/* And so many of one that its client takes as fast would keep it too. */
#define FLUSH_PIECES 4

/* The first segment of an answer that must wait is copied up to this size;
 * above, its owner is kept. */
#define COPY_MOST 16384

static void
append(Conn *c, Segment *segment)
{
    segment->next = NULL;
    if (c->out) {
        c->out_last->next = segment;
    } else {
        c->out = segment;
    }
    c->out_last = segment;
    if (segment->fd < 0) {
        c->out_size += segment->size;
    }
}

static int
append_copy(Conn *c, const char *data, size_t size)
{
    Segment *segment;
    if (size == 0) {
        return 0;
    }
    segment = malloc(sizeof *segment + size);
    if (segment == NULL) {
        return -1;
    }
    *segment = (Segment){.fd = -1, .size = size, .data = segment->copy};
    memcpy(segment->copy, data, size);
    append(c, segment);
    return 0;
}

static int
append_owned(const Thread *t, Conn *c, const char *data, size_t size,
             void *owner)
{
    Segment *segment = malloc(sizeof *segment);
    if (segment == NULL) {
        return -1;
    }
    *segment = (Segment){
        .fd = -1,
        .size = size,
        .data = data,
        .owner = owner,
        .interpreter =
            atomic_load_explicit(&t->interpreter, memory_order_relaxed),
    };
    append(c, segment);
    return 0;
}

/* The first segment is sent. Its owner can only be released with the
 * interpreter: it becomes garbage. */
static void
drop_first(Worker *w, Conn *c)
{
    Segment *segment = c->out;
    c->out = segment->next;
    if (segment->fd < 0) {
        c->out_size -= segment->size;
    }
    if (segment->fd >= 0 && !segment->lent) {
        close(segment->fd);
    }
    if (segment->owner == NULL) {
        free(segment);
        return;
    }
    garbage_add(w, segment);
}

void
output_discard(Worker *w, Conn *c)
{
    while (c->out) {
        drop_first(w, c);
    }
}

static int
lose_client(Conn *c)
{
    c->gone = true;
    return -1;
}

static void
count_sent(Thread *t, Conn *c, ssize_t n)
{
    c->sent += (uint64_t)n;
    word_add(t->row->bytes_out, (uint64_t)n);
}

/* Bytes sent, 0 if the socket is full, -1 if the client is gone. */
static ssize_t
send_some(Thread *t, Conn *c, const struct iovec *parts, size_t count,
          StreamFollow follow)
{
    const ssize_t n = stream_send(c, parts, count, follow);
    if (n >= 0) {
        count_sent(t, c, n);
        return n;
    }
    return n == STREAM_AGAIN ? 0 : lose_client(c);
}

int
output_send_or_keep(Thread *t, Conn *c, const char *head, size_t head_size,
                    const char *body, size_t body_size, void *owner, bool *kept,
                    StreamFollow follow)
{
    if (c->gone) {
        return -1;
    }
    if (c->out == NULL && head_size + body_size) {
        const struct iovec parts[2] = {{(void *)head, head_size},
                                       {(void *)body, body_size}};
        const ssize_t n = send_some(t, c, head_size ? parts : parts + 1,
                                    head_size && body_size ? 2 : 1, follow);
        size_t sent = (size_t)n;
        if (n < 0) {
            return -1;
        }
        if (sent == head_size + body_size) {
            return 0;
        }
        if (sent < head_size) {
            head += sent;
            head_size -= sent;
        } else {
            body += sent - head_size;
            body_size -= sent - head_size;
            head_size = 0;
        }
    }
    if (append_copy(c, head, head_size) < 0) {
        return lose_client(c);
    }
    if (owner && body_size > COPY_MOST) {
        if (append_owned(t, c, body, body_size, owner) < 0) {
            return lose_client(c);
        }
        *kept = true;
        return 0;
    }
    return append_copy(c, body, body_size) < 0 ? lose_client(c) : 0;
}

int
output_send(Thread *t, Conn *c, const char *head, size_t head_size,
            const char *body, size_t body_size, void *owner, bool *kept,
            StreamFollow follow)
{
    if (kept) {
        *kept = false;
    }
    if (pieces_wait(t) && pieces_add(t, c, head, head_size)) {
        return pieces_send(t, c, body, body_size, owner, kept, follow);
    }
    if (pieces_flush(t, c, STREAM_MORE) < 0) {
        return -1;
    }
    return output_send_or_keep(t, c, head, head_size, body, body_size, owner,
                               kept, follow);
}

int
output_keep(Conn *c, const char *data, size_t size)
{
    return append_copy(c, data, size);
}

StreamFollow
output_last(const Conn *c)
{
    return c->ending == ENDING_CLOSE ? STREAM_MORE : STREAM_PUSH;
}

int
output_send_file(Thread *t, Conn *c, int fd, bool lent, off_t offset,
                 uint64_t size)
{
    Segment *segment = c->gone || pieces_flush(t, c, STREAM_MORE) < 0
                           ? NULL
                           : malloc(sizeof *segment);
    if (segment == NULL) {
        if (!lent) {
            close(fd);
        }
        return lose_client(c);
    }
    *segment =
        (Segment){.fd = fd, .lent = lent, .offset = offset, .size = size};
    append(c, segment);
    return output_flush(t, c, STREAM_PUSH) < 0 ? -1 : 0;
}

/* Like send_some, of the first segment. A file that ends early cuts the
 * answer short: the client must see that, so the connection is lost. */
static ssize_t
send_segment(Thread *t, Conn *c, Segment *segment, StreamFollow follow)
{
    ssize_t n;
    if (segment->fd < 0) {
        const struct iovec part = {(void *)segment->data, segment->size};
        n = send_some(t, c, &part, 1, segment->next ? STREAM_MORE : follow);
        if (n > 0) {
            segment->data += n;
        }
        return n;
    }
    n = stream_send_file(c, segment->fd, &segment->offset,
                         segment->size < FILE_PIECE ? segment->size
                                                    : FILE_PIECE);
    if (n > 0) {
        count_sent(t, c, n);
        return n;
    }
    if (n == 0) {
        notes_add(
            t->worker, NOTE_FILE_CUT,
            "a file got shorter while it was sent; the connection is cut");
    }
    return n == STREAM_AGAIN ? 0 : lose_client(c);
}

int
output_flush(Thread *t, Conn *c, StreamFollow follow)
{
    uint32_t left = FLUSH_PIECES;
    while (c->out) {
        Segment *segment = c->out;
        const ssize_t n =
            segment->size ? send_segment(t, c, segment, follow) : 0;
        if (n < 0) {
            return -1;
        }
        segment->size -= (uint64_t)n;
        if (segment->fd < 0) {
            c->out_size -= (uint64_t)n;
        }
        if (segment->size == 0) {
            drop_first(t->worker, c);
        } else if (n == 0) {
            return 0;
        } else if (--left == 0) {
            return 2;
        }
    }
    return 1;
}

/* A socket is writable again once a third of its buffer is free, and that may
 * be megabytes: to a reader of 10 KB a second, two minutes. So progress is what
 * the kernel no longer keeps for the client. A Unix socket counts with it what
 * each message costs, so less may seem to be taken as small ones replace large.
 */
uint64_t
output_taken(Conn *c)
{
    const uint64_t before = c->taken;
    c->taken = c->sent - stream_untaken(c);
    return (int64_t)(c->taken - before) > 0 ? c->taken - before : 0;
}

void
output_look(Thread *t, Conn *c)
{
    const uint64_t now = clock_now();
    if (now - t->looked < LOOK_EVERY) {
        return;
    }
    t->looked = now;
    if (stream_is_reset(c)) {
        lose_client(c);
    }
}

/* The time that a client has left of what it `had`. Waiting spends it, and
 * bytes that the client takes earn it back, up to the send timeout. So neither
 * the number of waits matters nor the size of the portions: over loopback, a
 * client of 10 KB a second takes 95 KB at a time. */
static uint64_t
patience(const WorkerLimits *limits, uint64_t had, uint64_t waited,
         uint64_t taken)
{
    const uint64_t most = UINT64_MAX / 2 / CLOCK_SECOND; /* that fits */
    uint64_t has = had;
    if (limits->send_min_rate) {
        has += (taken < most ? taken : most) * CLOCK_SECOND /
               limits->send_min_rate;
    } else if (taken) {
        has += limits->send_timeout;
    }
    has = has > waited ? has - waited : 0;
    return has < limits->send_timeout ? has : limits->send_timeout;
}

/* We have waited for the client since the last look. */
static void
spend_patience(const WorkerLimits *limits, Conn *c, uint64_t now)
{
    if (c->patience == PATIENCE_UNTRIED) {
        c->patience = limits->send_timeout;
        output_taken(c); /* from here on it counts */
    } else {
        c->patience =
            patience(limits, c->patience, now - c->judged, output_taken(c));
    }
    c->judged = now;
}

int
output_wait(Thread *t, Conn *c)
{
    Worker *w = t->worker;
    const WorkerLimits *limits = worker_limits(w);
    while (!c->gone &&
           c->out_size > (worker_is_full(w) ? 0 : limits->response_buffer)) {
        uint64_t timeout;
        int n;
        if (c->patience == PATIENCE_UNTRIED) {
            spend_patience(limits, c, clock_now());
        }
        if (c->patience == 0) {
            word_add(&t->row->limited[LIMIT_SEND], 1);
            return lose_client(c);
        }
        timeout = c->patience / CLOCK_MILLISECOND + 1;
        c->judged = clock_now();
        atomic_store(&t->row->current.state, THREAD_WRITING);
        n = stream_wait_writable(c, timeout < INT_MAX ? (int)timeout : INT_MAX);
        word_add(&t->waited, clock_now() - c->judged);
        atomic_store(&t->row->current.state, THREAD_APPLICATION);
        if (n < 0) {
            return lose_client(c);
        }
        if (n > 0) {
            do { /* all that the socket takes: fewer waits */
                n = output_flush(t, c, STREAM_PUSH);
            } while (n == 2);
        }
        spend_patience(limits, c, clock_now());
    }
    return c->gone ? -1 : 0;
}

bool
output_await_reader(Worker *w, Conn *c, uint64_t now)
{
    spend_patience(&w->o.limits, c, now);
    word_set(&c->deadline, now + c->patience);
    return c->patience != 0;
}
