/* Requests on their way in, and their bodies: in memory, spooled to a file, or
 * streamed to an application that reads while the client sends. Pure C; knows
 * connections only to receive from them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/worker_internal.h"

/* Seconds: more than anyone waits, and no sum with it overflows. */
#define LONGEST_BODY (UINT64_C(365) * 86400)

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
void
request_drop_body(Request *r)
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
    request_drop_body(r);
    free(r->fields);
    free(r->buffer);
    r->fields = NULL;
    r->buffer = NULL;
}

/* While a head is read, a buffer never grows beyond a thread's: no head may be
 * as large, and what comes behind it then fits there. */
uint32_t
request_larger(uint32_t size)
{
    return size < 512                  ? 1024
           : size > REQUEST_BUFFER / 2 ? REQUEST_BUFFER
                                       : size * 2;
}

/* Room for so many bytes in all. */
int
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

/* ------------------------------------------------------------------------
 * Reading a body */

const char request_go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
const char request_too_large[] = "the body is larger than is allowed here";

/* A body may pause for so long, and has so long in all, plus the time that
 * what has come takes at the least rate. */
uint64_t
request_body_deadline(const Worker *w, const Request *r, uint64_t now)
{
    const WorkerLimits *limits = &w->o.limits;
    uint64_t all, earned;
    if (limits->body_rate == 0)
        return now + limits->body_timeout;
    earned = r->body_size / limits->body_rate;
    if (earned > LONGEST_BODY)
        earned = LONGEST_BODY;
    all = r->body_began + limits->body_timeout + earned * CLOCK_SECOND;
    return all < now + limits->body_timeout ? all : now + limits->body_timeout;
}

/* Room for `more` bytes of body in memory. */
int
body_kept_reserve(Request *r, uint64_t more, uint64_t expected)
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
int
body_kept_add(Worker *w, Request *r, const char *data, size_t size)
{
    const uint64_t total = r->body_size + size;
    if (size == 0) /* and perhaps no memory yet, which memcpy must not see */
        return 0;
    if (total > w->o.limits.body_limit)
        return 413;
    if (r->spool < 0 && total > w->o.limits.body_buffer) {
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
        if (body_kept_reserve(r, size, expected > 0 ? (uint64_t)expected : 0) <
            0)
            return 500;
        memcpy(r->memory + r->body_size, data, size);
    }
    r->body_size = total;
    return 0;
failed:
    notes_add(w, NOTE_WARNING,
              "cannot keep a request body in a temporary file: %s; make room "
              "in TMPDIR or raise body-buffer",
              strerror(errno));
    return 500;
}

/* Decode chunks. 1: the body is complete, *used bytes were its; 0: more is
 * needed; else the status to refuse with, *words why. */
int
body_kept_decode(Worker *w, Request *r, const char *data, size_t size,
                 size_t *used, const char **words)
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
            status = body_kept_add(w, r, piece, span.len);
            if (status == 413)
                *words = request_too_large;
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
int
body_kept_put_back(Request *r, const char *data, uint32_t size)
{
    const uint32_t at = r->head.length;
    if (request_grow(r, at + size) < 0)
        return -1;
    memmove(r->buffer + at, data, size); /* it may lie there already */
    r->next = at;
    r->size = at + size;
    return 0;
}

/* ------------------------------------------------------------------------
 * Streaming a body: the application reads while the client sends */

/* Wait until there is something to read. 0, or the status to refuse with. */
static int
wait_readable(Thread *t, Conn *c, const Request *r)
{
    const uint64_t now = clock_now();
    const uint64_t deadline = request_body_deadline(t->worker, r, now);
    const uint64_t left = deadline > now ? deadline - now : 0;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int n;
    atomic_store(&t->row->current.state, THREAD_READING);
    do
        n = poll(&p, 1, (int)(left / CLOCK_MILLISECOND) + 1);
    while (n < 0 && errno == EINTR);
    atomic_store(&t->row->current.state, THREAD_APPLICATION);
    if (n == 0)
        word_add(&t->row->limited[LIMIT_BODY], 1);
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
            c->drained = conn_is_all(c, (size_t)n, room);
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
body_streamed_read(Thread *t, Conn *c, Request *r, char *to, size_t room,
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
            output_send(t, c, request_go_on, strlen(request_go_on), NULL, 0,
                        NULL, NULL) < 0)
            r->refusal = 400;
    }
    n = r->head.chunked ? read_chunked(t, c, r, to, room, words)
                        : read_sized(t, c, r, to, room, words);
    r->body_size += n;
    if (r->body_size > t->worker->o.limits.body_limit) {
        *words = request_too_large;
        r->refusal = 413;
    }
    if (r->refusal)
        return -1;
    if (!r->head.chunked && r->body_size == (uint64_t)r->head.content_length)
        r->ended = true;
    return (ssize_t)n;
}

bool
body_streamed_end(const Request *r, uint32_t *end)
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
