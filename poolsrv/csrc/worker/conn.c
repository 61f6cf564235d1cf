/* Connections of a worker: owned, counted, opened, closed and handed back.
 * What is said on them is in exchange.c. Pure C.
 */
#define _GNU_SOURCE
#include "worker/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/output.h"
#include "worker/places.h"
#include "worker/worker_internal.h"

void
conn_request_free(Conn *c)
{
    if (c->request) {
        request_clear(c->request);
        free(c->request);
        c->request = NULL;
    }
}

/* Bytes of the worker's sum that are counted for this connection. */
static void
account(Word *sum, uint64_t *own, uint64_t bytes)
{
    if (bytes != *own) {
        /* Not word_add(), because all threads add. It may wrap. */
        atomic_fetch_add(sum, bytes - *own);
        *own = bytes;
    }
}

void
conn_count_kept(Worker *w, Conn *c)
{
    WorkerRow *row = &w->o.board->workers[w->o.slot];
    const Request *r = c->request;
    account(row->buffered, &c->buffered,
            c->out_size + (r ? r->capacity + r->body_capacity : 0));
    account(row->spooled, &c->spooled, r && r->spool >= 0 ? r->body_size : 0);
}

bool
conn_release(Worker *w, Conn *c)
{
    uint64_t word;
    if (!c->registered) {
        struct epoll_event e = {
            .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
            .data.u64 = (atomic_load(&c->word) >> CONN_BITS << 32) | c->index,
        };
        c->registered = true;
        if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->fd, &e) < 0) {
            stream_shut(c); /* reads as the client's end */
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

void
conn_unload(Worker *w, uint32_t count)
{
    const NoticeLine *notice = w->o.board->notice;
    atomic_fetch_sub(&w->line->load, (int32_t)count);
    if (atomic_load(&notice->turn) || atomic_load(&notice->stopping)) {
        worker_ring(w->o.bell);
    }
}

void
conn_uncount(Worker *w, Conn *c)
{
    if (!c->counted) {
        return;
    }
    c->counted = false;
    conn_unload(w, 1);
}

void
conn_count(Worker *w, Conn *c)
{
    if (!c->counted) {
        c->counted = true;
        atomic_fetch_add(&w->line->load, 1);
    }
}

static Conn *
conn_place(Worker *w)
{
    const uint32_t made = atomic_load(&w->conn_count);
    Conn *block, *c;
    uint32_t i;

    if (w->free == NULL) {
        if (made / CONN_BLOCK >= CONN_BLOCKS) {
            return NULL;
        }
        block = places_make(worker_places(w), made / CONN_BLOCK);
        if (block == NULL) {
            return NULL;
        }
        for (i = CONN_BLOCK; i-- > 0;) {
            block[i].index = made + i;
            block[i].fd = -1;
            atomic_init(&block[i].word, CONN_OWNED);
            block[i].next = w->free;
            w->free = &block[i];
        }
        w->blocks[made / CONN_BLOCK] = block;
        atomic_store(&w->conn_count, made + CONN_BLOCK);
    }
    c = w->free;
    w->free = c->next;
    return c;
}

/* Owned, and counted in the load already. `fd` is the connection's. */
Conn *
conn_open(Worker *w, Thread *t, int fd, const ChannelItem *item)
{
    Conn *c;
    pthread_mutex_lock(&w->lock);
    c = conn_place(w);
    pthread_mutex_unlock(&w->lock);
    if (c == NULL) {
        close(fd);
        atomic_fetch_sub(&w->line->connections, 1);
        conn_unload(w, 1);
        return NULL;
    }
    c->fd = fd;
    c->item = *item;
    c->ready = item->since;
    c->status = 0;
    c->ending = ENDING_CLOSE;
    c->counted = true;
    c->next = NULL;
    c->registered = c->drained = c->gone = c->deaf = c->probed = false;
    c->owes_nothing = false;
    conn_progress(c, PROGRESS_UNREAD);
    atomic_fetch_add(&w->live, 1);
    atomic_signal_fence(memory_order_release); /* all of it, or it is free */
    conn_set_state(w, t, c, CONN_IDLE);
    return c;
}

/* The place is free again. The last one to leave a draining worker tells the
 * main thread. */
static void
conn_leave(Worker *w, Thread *t, Conn *c)
{
    const uint64_t word = atomic_load(&c->word);
    conn_request_free(c);
    output_discard(w, c);
    conn_count_kept(w, c);
    conn_set_state(w, t, c, CONN_FREE);
    conn_uncount(w, c);
    if (atomic_fetch_sub(&w->line->connections, 1) >=
            atomic_load(&w->line->most) &&
        atomic_load(&w->o.board->notice->turn)) {
        worker_ring(w->o.bell); /* it may wait for just this place */
    }
    /* This comes first: a child that is forked meanwhile must not close
     * another descriptor that has got the number. */
    const int fd = c->fd;
    c->fd = -1;
    if (close(fd) < 0 && errno == EBADF) {
        worker_break(w, EBADF); /* somebody else has closed it */
    }
    /* A new generation, still owned: events on their way are for nobody. */
    atomic_store(&c->word, ((word >> CONN_BITS) + 1) << CONN_BITS | CONN_OWNED);
    pthread_mutex_lock(&w->lock);
    c->next = w->free;
    w->free = c;
    pthread_mutex_unlock(&w->lock);
    if (atomic_fetch_sub(&w->live, 1) == 1 && atomic_load(&w->draining)) {
        worker_ring(w->alarm);
    }
}

void
conn_forget(Worker *w, Conn *c)
{
    if (c->registered) {
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, c->fd, NULL);
        c->registered = false;
    }
}

void
conn_close(Worker *w, Thread *t, Conn *c)
{
    if (c->gone || c->ending == ENDING_RESET) {
        stream_reset(c);
    } else if (c->state != CONN_LINGER || conn_is_upgraded(c)) {
        /* A child of the application may hold it, too, or the application.
         * Otherwise our side has ended. */
        stream_shut(c);
    }
    conn_forget(w, c);
    conn_leave(w, t, c);
}

ChannelItem
conn_item(Conn *c, uint64_t now)
{
    ChannelItem item = c->item;
    /* An event is not always a byte, and a client that has sent none must
     * never be answered: a proxy would take that for the answer to its
     * next request. */
    item.request_waits = c->ready != 0 && (item.group || stream_has_bytes(c));
    item.since = item.request_waits ? c->ready : now;
    return item;
}

void
conn_hand_back(Worker *w, Thread *t, Conn **conns, uint32_t n, uint64_t now)
{
    ChannelBatch m; /* as large as a page, and n is small */
    uint32_t i;

    if (n == 0) {
        return;
    }
    m.header = (ChannelHeader){.kind = CHANNEL_HAND_BACK, .count = n};
    for (i = 0; i < n; i++) {
        Conn *c = conns[i];
        m.fds[i] = c->fd;
        m.items[i] = conn_item(c, now);
        conn_progress(c, PROGRESS_PASSED_ON);
    }
    if (!w->orphan && channel_send(w->o.channel, &m) < 0) {
        /* The channel is full: the sweep tries again a little later. We may
         * drop an edge-triggered event here. That is safe: the supervisor's
         * epoll set is level-triggered. */
        for (i = 0; i < n; i++) {
            conn_progress(conns[i], PROGRESS_UNREAD);
            conn_uncount(w, conns[i]);
            word_set(&conns[i]->deadline, now + LADDER_IDLE / 16);
            while (!conn_release(w, conns[i]))
                ;
        }
        watch_arm(w);
        return;
    }
    for (i = 0; i < n; i++) { /* its descriptor alone: it lives on */
        conn_forget(w, conns[i]);
        conn_leave(w, t, conns[i]);
    }
}
