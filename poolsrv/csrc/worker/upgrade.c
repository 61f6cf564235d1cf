/* Connections that the application takes over: see upgrade.h. Pure C. */
#define _GNU_SOURCE
#include "worker/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/worker_internal.h"

const char upgrade_refused[] =
    "as many connections are taken over as --upgraded-connections allows";

uint32_t
upgrade_limit(const Worker *w)
{
    const uint32_t most = w->o.thread_count - 1;
    return w->o.limits.upgraded_connections < most
               ? w->o.limits.upgraded_connections
               : most;
}

bool
upgrade_is_refused(const Worker *w, const Request *r)
{
    const char *base = r->buffer + r->start;
    const uint32_t limit = upgrade_limit(w);
    return limit && atomic_load(&w->upgraded) >= limit &&
           http1_upgrade_asked(&r->head, base) &&
           http1_upgrade_names(&r->head, base, "websocket");
}

/* One more, if there may be. Together with upgrade_drain: it sees the thread,
 * or we see that the worker ends. The thread leaves those that serve, and its
 * place at the events. */
static bool
hold(Thread *t, Conn *c, int fd)
{
    Worker *w = t->worker;
    Thread *wake = NULL;
    pthread_mutex_lock(&w->lock);
    const bool may = atomic_load(&w->upgraded) < upgrade_limit(w);
    if (may) {
        atomic_fetch_add(&w->upgraded, 1);
        t->upgraded_fd = fd;
        atomic_store(&t->upgraded, true);
        if (atomic_load(&w->draining)) {
            stream_deafen(c);
        }
        t->active = false;
        w->active--;
        wake = w->leader < 0 ? threads_unpark(w) : NULL;
    }
    pthread_mutex_unlock(&w->lock);
    if (wake) {
        pthread_cond_signal(&wake->wake);
    }
    return may;
}

int
upgrade_take(Thread *t, Conn *c)
{
    Worker *w = t->worker;
    const int fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0) {
        return -1;
    }
    if (!hold(t, c, fd)) {
        close(fd);
        errno = EDQUOT;
        return -1;
    }
    stream_watch_peer(c, w->o.limits.send_timeout);
    conn_forget(w, c); /* what comes is no event for us */
    c->drained = false;
    c->status = STATUS_UPGRADED;
    c->ending = ENDING_CLOSE;
    t->now = clock_now();
    conn_set_state(w, t, c, CONN_UPGRADED);
    atomic_store(&t->row->current.state, THREAD_UPGRADED);
    deadline_set(&t->deadline, atomic_load(&t->row->current.sequence), 0);
    schedule_left(&w->schedule, &t->meter);
    word_add(t->row->upgraded, 1);
    return fd;
}

void
upgrade_end(Thread *t)
{
    Worker *w = t->worker;
    pthread_mutex_lock(&w->lock);
    atomic_fetch_sub(&w->upgraded, 1);
    atomic_store(&t->upgraded, false);
    t->upgraded_fd = -1;
    pthread_mutex_unlock(&w->lock);
}

void
upgrade_drain(Worker *w)
{
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        Thread *t = &w->threads[i];
        if (atomic_load(&t->upgraded)) {
            stream_deafen(t->conn);
        }
    }
    pthread_mutex_unlock(&w->lock);
}

/* The application may have closed its descriptor, and its number may be
 * another's by now. */
static bool
is_same_socket(int fd, int other)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstat(other, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void
upgrade_leave(Worker *w)
{
    int dead = -1;
    for (uint32_t i = 0; i < w->o.thread_count; i++) {
        const Thread *t = &w->threads[i];
        if (!atomic_load(&t->upgraded) ||
            !is_same_socket(t->upgraded_fd, t->conn->fd)) {
            continue;
        }
        if (dead < 0) { /* one that is connected to nobody */
            dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        }
        dup3(dead, t->upgraded_fd, O_CLOEXEC);
    }
    if (dead >= 0) {
        close(dead);
    }
}
