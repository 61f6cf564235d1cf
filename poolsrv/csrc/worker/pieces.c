/* Pieces that wait for company. Pure C.
 *
 * A generator that yields small pieces one after the other would cost a system
 * call and a packet each, and a turn of the interpreter: 100 of 1 KiB took five
 * times as long. PEP 3333 lets a server go on sending a piece while the
 * application makes the next. So the first piece goes at once, and so does one
 * after a pause; those in between go together. */
#define _GNU_SOURCE
#include "worker/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "worker/output.h"
#include "worker/worker_internal.h"

/* No event stream is so dense. */
#define PAUSE (200 * CLOCK_MILLISECOND / 1000)

bool
pieces_add(Thread *t, Conn *c, const char *data, size_t size)
{
    Pieces *p = &t->pieces;
    bool fits;
    if (c->out || c->gone) {
        return false;
    }
    pthread_mutex_lock(&p->lock);
    if (p->data == NULL) {
        p->data = malloc(PIECES_MOST);
    }
    fits = p->data && size <= PIECES_MOST - p->size;
    if (fits && size) {
        memcpy(p->data + p->size, data, size);
        p->size += size;
        p->conn = c;
    }
    pthread_mutex_unlock(&p->lock);
    return fits;
}

bool
pieces_put_off(Thread *t, Conn *c, const char *data, size_t size)
{
    return clock_now() - t->pieces.sent < PAUSE && pieces_add(t, c, data, size);
}

void
pieces_sent(Thread *t)
{
    t->pieces.sent = clock_now();
}

/* What waits, and a body behind it: afterwards nothing waits. */
int
pieces_send(Thread *t, Conn *c, const char *body, size_t body_size, void *owner,
            bool *kept, StreamFollow follow)
{
    Pieces *p = &t->pieces;
    int result;
    pthread_mutex_lock(&p->lock);
    result = output_send_or_keep(t, c, p->data, p->size, body, body_size, owner,
                                 kept, follow);
    p->size = 0;
    pthread_mutex_unlock(&p->lock);
    return result;
}

int
pieces_keep(Thread *t, Conn *c)
{
    Pieces *p = &t->pieces;
    int result = 0;
    if (pieces_wait(t)) {
        pthread_mutex_lock(&p->lock);
        result = output_keep(c, p->data, p->size);
        if (result == 0) {
            p->size = 0;
        }
        pthread_mutex_unlock(&p->lock);
    }
    return result;
}

bool
pieces_wait(const Thread *t)
{
    /* If the main thread has sent them, all that it did comes before this. */
    return atomic_load_explicit(&t->pieces.size, memory_order_acquire) != 0;
}

int
pieces_flush(Thread *t, Conn *c, StreamFollow follow)
{
    return pieces_wait(t) ? pieces_send(t, c, NULL, 0, NULL, NULL, follow) : 0;
}

void
pieces_tick(Worker *w)
{
    uint32_t i;
    for (i = 0; i < w->o.thread_count; i++) {
        Pieces *p = &w->threads[i].pieces;
        ssize_t n;
        if (atomic_load_explicit(&p->size, memory_order_relaxed) == 0) {
            continue;
        }
        pthread_mutex_lock(&p->lock);
        /* The thread will find an error itself, and send what is left: the
         * connection is its own. */
        const struct iovec part = {p->data, p->size};
        n = p->size ? stream_send(p->conn, &part, 1, STREAM_PUSH) : 0;
        if (n > 0) {
            p->conn->sent += (uint64_t)n;
            word_add(w->main.row->bytes_out, (uint64_t)n);
            memmove(p->data, p->data + n, p->size - (size_t)n);
            p->size -= (size_t)n;
        }
        pthread_mutex_unlock(&p->lock);
    }
}
