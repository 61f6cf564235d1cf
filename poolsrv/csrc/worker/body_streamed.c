/* Bodies that the application reads while the client sends: of known length,
 * for chunked ones are spooled. Pure C. */
#define _GNU_SOURCE
#include "worker/body_streamed.h"

#include <limits.h>
#include <string.h>

#include "worker/output.h"
#include "worker/worker_internal.h"

/* Wait until there is something to read. 0, or the status to refuse with. */
static int
wait_readable(Thread *t, Conn *c, const Request *r)
{
    const uint64_t now = clock_now();
    const uint64_t deadline = request_body_deadline(t->worker, r, now);
    uint64_t at = now;
    int n;
    atomic_store(&t->row->current.state, THREAD_READING);
    do { /* an int has 25 days of milliseconds */
        const uint64_t left = deadline > at ? deadline - at : 0;
        const uint64_t milliseconds = left / CLOCK_MILLISECOND + 1;
        n = stream_wait_readable(c, milliseconds < INT_MAX ? (int)milliseconds
                                                           : INT_MAX);
        at = clock_now();
    } while (n == 0 && at < deadline);
    word_add(&t->waited, at - now);
    atomic_store(&t->row->current.state, THREAD_APPLICATION);
    if (n == 0) {
        word_add(&t->row->limited[LIMIT_BODY], 1);
    }
    return n > 0 ? 0 : n == 0 ? 408 : 500;
}

/* Receive into `to`, waiting. Bytes, or 0 and r->refusal. */
static size_t
receive_body(Thread *t, Conn *c, Request *r, char *to, size_t room,
             const char **words)
{
    for (;;) {
        const ssize_t n = stream_receive(c, to, room);
        if (n > 0) {
            word_add(t->row->bytes_in, (uint64_t)n);
            return (size_t)n;
        }
        if (n == STREAM_AGAIN) {
            r->refusal = wait_readable(t, c, r);
            if (r->refusal == 0) {
                continue;
            }
            *words = "the request's body did not arrive in time";
            return 0;
        }
        if (r->abandoned) {
            *words = "the request is over";
            r->refusal = 400;
            return 0;
        }
        *words = "the client went away before it had sent the whole body";
        r->refusal = 400;
        c->gone = true;
        return 0;
    }
}

static size_t
read_sized(Thread *t, Conn *c, Request *r, char *to, size_t room,
           const char **words)
{
    const uint64_t left = (uint64_t)r->head.content_length - r->body_size;
    size_t n = r->size - r->next;
    if (left < room) {
        room = left;
    }
    if (n == 0) {
        return receive_body(t, c, r, to, room, words);
    }
    if (n > room) {
        n = room;
    }
    memcpy(to, r->buffer + r->next, n);
    r->next += (uint32_t)n;
    return n;
}

void
body_streamed_want(Thread *t, Conn *c, Request *r)
{
    if (r->wanted) {
        return;
    }
    r->wanted = true;
    r->body_began = clock_now();
    /* Not once the answer has begun: this would stand in its middle. */
    if (r->head.expect_continue && r->next == r->size && c->status == 0 &&
        output_send(t, c, request_go_on, strlen(request_go_on), NULL, 0, NULL,
                    NULL, STREAM_PUSH) < 0) {
        r->refusal = 400;
    }
}

ssize_t
body_streamed_read(Thread *t, Conn *c, Request *r, char *to, size_t room,
                   const char **words)
{
    size_t n;
    if (r->ended || room == 0) {
        return 0;
    }
    if (r->refusal) {
        *words = "the body could not be read before";
        return -1;
    }
    n = read_sized(t, c, r, to, room, words);
    if (r->refusal) {
        return -1;
    }
    r->body_size += n;
    r->ended = r->body_size == (uint64_t)r->head.content_length;
    return (ssize_t)n;
}

void
body_streamed_abandon(Conn *c, Request *r)
{
    if (r->streaming) {
        r->abandoned = true;
        stream_deafen(c); /* wakes the thread that waits, and no other */
    }
}

bool
body_streamed_end(const Request *r, uint32_t *end)
{
    if (r->ended || !r->streaming) {
        return true;
    }
    const uint64_t left = (uint64_t)r->head.content_length - r->body_size;
    if (r->refusal || left > r->size - r->next) {
        return false;
    }
    if (end) {
        *end = r->next + (uint32_t)left;
    }
    return true;
}
