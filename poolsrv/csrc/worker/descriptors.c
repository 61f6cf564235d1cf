/* Numbers of descriptors and the limit of open files. Pure C; see
 * descriptors.h. */
#define _GNU_SOURCE
#include "worker/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

#include "common/descriptor_room.h"
#include "worker/worker_internal.h"

/* Of the numbers that select() and the application reach, connections take this
 * share: it costs them no system call more. */
#define SHARE 4
/* Two messages: one that is received, and what the application opens beside. */
#define MARGIN (2 * CHANNEL_BATCH)

/* Where those begin that neither of them reaches. */
static uint64_t
beyond(const Descriptors *d)
{
    return d->usual < FD_SETSIZE ? d->usual : FD_SETSIZE;
}

void
descriptors_init(Descriptors *d, bool fixed)
{
    struct rlimit limit;
    *d = (Descriptors){
        .usual = RLIM_INFINITY, .most = RLIM_INFINITY, .fixed = fixed};
    pthread_mutex_init(&d->lock, NULL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        d->usual = limit.rlim_cur;
        d->most = limit.rlim_max;
    }
    if (fixed) {
        d->most = d->usual;
    }
    d->stay = (uint32_t)beyond(d) / SHARE;
    d->scarce = (uint64_t)descriptor_room_lowest() + MARGIN > d->usual;
}

/* A program that another thread starts within these microseconds would have the
 * limit, too. To receive in a process that shares our descriptors, and has a
 * limit of its own, rules that out, and costs 65 us a message. */
static void
raise_limit(Descriptors *d)
{
    struct rlimit limit;
    if (d->fixed || getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
        limit.rlim_cur == limit.rlim_max) {
        return;
    }
    d->usual = limit.rlim_cur;
    d->raised = true; /* first: a child that is forked now restores it */
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void
descriptors_restore(Descriptors *d)
{
    struct rlimit limit;
    if (d->raised && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = d->usual;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    d->raised = false;
}

/* Put it beyond the numbers that others need, if there are any. */
static int
move_up(const Descriptors *d, int fd)
{
    int high;
    if ((uint64_t)fd >= beyond(d)) {
        return fd;
    }
    high = fcntl(fd, F_DUPFD_CLOEXEC, (int)beyond(d));
    if (high < 0) {
        return fd;
    }
    close(fd);
    return high;
}

void
descriptors_free(Descriptors *d)
{
    pthread_mutex_destroy(&d->lock);
}

int
descriptors_receive(Worker *w, ChannelMessage *m)
{
    Descriptors *d = &w->descriptors;
    pthread_mutex_lock(&d->lock);
    const bool many =
        atomic_load_explicit(&w->live, memory_order_relaxed) >= d->stay &&
        d->most > beyond(d);
    int got, highest = 0;

    if (many || d->scarce) {
        raise_limit(d);
    }
    got = channel_receive(w->o.channel, m);
    if (got > 0 && m->header.kind == CHANNEL_DISPATCH) {
        for (uint32_t i = 0; i < m->header.count; i++) {
            highest = m->fds[i] > highest ? m->fds[i] : highest;
        }
        d->scarce = m->lost || (uint64_t)highest + MARGIN > d->usual;
        for (uint32_t i = 0; many && i < m->header.count; i++) {
            m->fds[i] = move_up(d, m->fds[i]);
        }
    }
    descriptors_restore(d);
    pthread_mutex_unlock(&d->lock);
    return got;
}
