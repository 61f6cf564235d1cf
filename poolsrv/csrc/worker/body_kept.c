/* Bodies that are complete before the application runs: in memory, or spooled
 * to a file. Pure C. */
#define _GNU_SOURCE
#include "worker/body_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/output.h"
#include "worker/refuse.h"
#include "worker/worker_internal.h"

/* Pieces of REQUEST_BUFFER that are read before the clock is looked at. */
#define BODY_PIECES 16

/* ------------------------------------------------------------------------
 * Keeping it */

/* Room for `more` bytes of body in memory. */
static int
reserve(Request *r, uint64_t more, uint64_t expected)
{
    const uint64_t need = r->body_size + more;
    uint64_t capacity = r->body_capacity;
    char *memory;
    if (need <= capacity) {
        return 0;
    }
    /* It grows as bytes come, never for a length that was only announced. */
    capacity = capacity * 2 > need ? capacity * 2 : need;
    if (expected && capacity > expected) {
        capacity = expected > need ? expected : need;
    }
    memory = realloc(r->memory, capacity);
    if (memory == NULL) {
        return -1;
    }
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
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return -1;
        }
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

/* An unlinked file where temporary files go. */
static int
spool_open(const char *folder)
{
    char path[4096];
    int fd;
    fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) {
        return fd;
    }
    /* Not every file system has O_TMPFILE. */
    if (snprintf(path, sizeof path, "%s/poolsrv-body-XXXXXX", folder) >=
        (int)sizeof path) {
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        unlink(path);
    }
    return fd;
}

/* Keep `size` bytes of body. 0, or the status to refuse with, *words why. */
static int
add(Worker *w, Request *r, const char *data, size_t size, const char **words)
{
    const uint64_t total = r->body_size + size;
    if (size == 0) { /* there may be no memory yet: memcpy must not get NULL */
        return 0;
    }
    if (total > w->o.limits.limit_request_body) {
        *words = request_too_large;
        return 413;
    }
    if (r->spool < 0 &&
        (total > w->o.limits.body_buffer || worker_is_full(w))) {
        r->spool = spool_open(w->spool_folder);
        if (r->spool < 0 || write_all(r->spool, r->memory, r->body_size) < 0) {
            goto failed;
        }
        free(r->memory);
        r->memory = NULL;
        r->body = NULL;
        r->body_capacity = 0;
    }
    if (r->spool >= 0) {
        if (word_get(w->o.board->workers[w->o.slot].spooled) + size >
            w->o.limits.worker_spool) {
            *words = request_too_much_kept;
            return 503;
        }
        if (write_all(r->spool, data, size) < 0) {
            goto failed;
        }
    } else {
        const int64_t expected = r->head.content_length;
        if (reserve(r, size, expected > 0 ? (uint64_t)expected : 0) < 0) {
            return 500;
        }
        memcpy(r->memory + r->body_size, data, size);
    }
    r->body_size = total;
    return 0;
failed:
    notes_add(w, NOTE_SPOOL,
              "cannot keep a request body in a temporary file: %s; make room "
              "in TMPDIR or raise body-buffer",
              strerror(errno));
    return 500;
}

/* Decode chunks. 1: the body is complete, *used bytes were its; 0: more is
 * needed; else the status to refuse with, *words why. */
static int
decode(Worker *w, Request *r, const char *data, size_t size, size_t *used,
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
            status = add(w, r, piece, span.len, words);
            if (status) {
                return status;
            }
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
put_back(Request *r, const char *data, uint32_t size)
{
    const uint32_t at = r->head.length;
    if (request_grow(r, at + size) < 0) {
        return -1;
    }
    memmove(r->buffer + at, data, size); /* it may lie there already */
    r->next = at;
    r->size = at + size;
    return 0;
}

/* ------------------------------------------------------------------------
 * Receiving it */

Step
body_kept_start(Worker *w, Thread *t, Conn *c, Request *r)
{
    const uint32_t behind = r->size - r->start - r->head.length;
    const char *rest = r->buffer + r->start + r->head.length;
    const char *words = "the body cannot be kept";
    size_t used = 0;
    int status = 0;

    /* The head alone: what is behind it goes straight to where it is kept. */
    r->size -= behind;
    r = request_adopt(w, c, r);
    if (r == NULL) {
        return exchange_hang_up(w, t, c);
    }
    http1_chunks_init(&r->chunks);
    r->next = r->size;
    if (r->head.chunked) {
        status = decode(w, r, rest, behind, &used, &words);
    } else {
        status = add(w, r, rest, behind, &words);
    }
    if (status > 1) {
        return refuse_request(w, t, c, status, words);
    }
    if (status == 1) {
        if (put_back(r, rest + used, behind - (uint32_t)used) < 0) {
            return exchange_hang_up(w, t, c);
        }
        return exchange_serve(w, t, c, r, c->began);
    }
    if (r->head.expect_continue && behind == 0 &&
        output_send(t, c, request_go_on, strlen(request_go_on), NULL, 0, NULL,
                    NULL, STREAM_PUSH) < 0) {
        return exchange_hang_up(w, t, c);
    }
    r->body_began = t->now;
    conn_set_state(w, t, c, CONN_BODY);
    if (!c->drained) {
        return STEP_AGAIN;
    }
    conn_uncount(w, c);
    return STEP_WAIT;
}

Step
body_kept_read(Worker *w, Thread *t, Conn *c)
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
            if (left < room) {
                room = left;
            }
            /* What stays in memory is received where it stays. */
            if (r->spool < 0 && !worker_is_full(w) &&
                (uint64_t)r->head.content_length <= w->o.limits.body_buffer) {
                if (reserve(r, room, (uint64_t)r->head.content_length) < 0) {
                    return exchange_client_left(w, t, c);
                }
                to = r->memory + r->body_size;
            }
        }
        n = stream_receive(c, to, room);
        if (n == STREAM_AGAIN) {
            return refuse_if_late(w, t, c);
        }
        if (n <= 0) {
            return exchange_client_left(w, t, c);
        }
        word_add(t->row->bytes_in, (uint64_t)n);
        t->now = clock_now();
        word_set(&c->deadline, request_body_deadline(w, r, t->now));
        if (r->head.chunked) {
            status = decode(w, r, to, (size_t)n, &used, &words);
        } else {
            if (to == t->request.buffer) {
                status = add(w, r, to, (size_t)n, &words);
            } else {
                r->body_size += (uint64_t)n;
            }
            used = (size_t)n;
            if (!status && r->body_size == (uint64_t)r->head.content_length) {
                status = 1;
            }
        }
        if (status > 1) {
            return refuse_request(w, t, c, status, words);
        }
        if (r->spool >= 0) {
            conn_count_kept(w, c);
        }
        if (status == 1) {
            if (put_back(r, to + used, (uint32_t)((size_t)n - used)) < 0) {
                return exchange_hang_up(w, t, c);
            }
            return exchange_serve(w, t, c, r, t->now);
        }
        if (c->drained) {
            return refuse_if_late(w, t, c);
        }
        if (--pieces == 0) {
            return STEP_AGAIN;
        }
    }
}
