/* Connections of a worker: owned, counted, opened, closed and handed back.
 * What is said on them is in exchange.c. Pure C.
 */
#define _GNU_SOURCE
#include "worker/conn.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/output.h"
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
bool
conn_is_all(const Conn *c, size_t n, size_t room)
{
    return n < room && !(atomic_load(&c->word) & CONN_ENDS);
}

void
conn_unload(Worker *w, uint32_t count)
{
    const NoticeLine *notice = w->o.board->notice;
    atomic_fetch_sub(&w->line->load, (int32_t)count);
    if (atomic_load(&notice->turn) || atomic_load(&notice->stopping))
        worker_ring(w->o.bell);
}

void
conn_uncount(Worker *w, Conn *c)
{
    if (!c->counted)
        return;
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
        if (made / CONN_BLOCK >= CONN_BLOCKS)
            return NULL;
        block = calloc(CONN_BLOCK, sizeof *block);
        if (block == NULL)
            return NULL;
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
        atomic_fetch_sub(&w->line->held, 1);
        conn_unload(w, 1);
        return NULL;
    }
    c->fd = fd;
    c->item = *item;
    c->ready = item->since;
    c->state = CONN_IDLE;
    c->counted = true;
    c->next = NULL;
    c->registered = c->drained = c->keep = c->gone = false;
    c->unread = c->more = c->broken = false;
    atomic_fetch_add(&w->live, 1);
    word_add(&t->row->connections[SEEN_IDLE], 1);
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
    word_add(&t->row->connections[SEEN_IDLE], (uint64_t)-1);
    conn_uncount(w, c);
    atomic_fetch_sub(&w->line->held, 1);
    close(c->fd);
    c->fd = -1;
    c->state = CONN_FREE;
    word_set(&c->deadline, 0);
    /* A new generation, still owned: events on their way are for nobody. */
    atomic_store(&c->word, ((word >> CONN_BITS) + 1) << CONN_BITS | CONN_OWNED);
    pthread_mutex_lock(&w->lock);
    c->next = w->free;
    w->free = c;
    pthread_mutex_unlock(&w->lock);
    if (atomic_fetch_sub(&w->live, 1) == 1 && atomic_load(&w->draining))
        worker_ring(w->bell);
}

/* Another process may hold the same connection's descriptor (a child that the
 * application forked, the message in which it was handed back): closing ours
 * does not take it out of our epoll set. */
static void
conn_forget(Worker *w, Conn *c)
{
    if (c->registered)
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

/* An answer that is cut short must not look complete, which one without a
 * length does when the connection just ends. A reset also frees what the kernel
 * keeps for a client that does not read: megabytes, for as long as it likes. */
static void
conn_reset(const Conn *c)
{
    const struct linger none = {.l_onoff = 1};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

void
conn_close(Worker *w, Thread *t, Conn *c)
{
    if (c->broken || c->gone)
        conn_reset(c);
    conn_forget(w, c);
    conn_leave(w, t, c);
}

void
conn_hand_back(Worker *w, Thread *t, Conn **conns, uint32_t n, uint64_t now)
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
    if (!w->orphan && channel_send(w->o.channel, &m) < 0) {
        /* The channel is full: the sweep tries again a little later. Edges
         * that we forget meanwhile the supervisor will see for itself. */
        for (i = 0; i < n; i++) {
            conn_uncount(w, conns[i]);
            word_set(&conns[i]->deadline, now + IDLE_GRACE / 16);
            while (!conn_release(w, conns[i]))
                ;
        }
        watch_arm(w);
        return;
    }
    for (i = 0; i < n; i++)
        conn_close(w, t, conns[i]);
}
