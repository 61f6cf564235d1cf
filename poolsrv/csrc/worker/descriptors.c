/* Numbers of descriptors and the limit of open files. Pure C; see
 * descriptors.h. */
#define _GNU_SOURCE
#include "worker/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

#include "worker/worker_internal.h"

/* Connections that stay where they are: three quarters of select()'s numbers
 * are left to the application, and each of them costs no system call more. */
#define STAY (FD_SETSIZE / 4)
/* The limit is raised before it is reached: a message brings up to 64. */
#define MARGIN 128

void
descriptors_init(Descriptors *d)
{
    struct rlimit limit;
    *d = (Descriptors){.usual = RLIM_INFINITY};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        d->usual = limit.rlim_cur;
    }
}

static void
raise_limit(Descriptors *d)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        d->usual = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    d->raised = true;
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

int
descriptors_place(Worker *w, int fd)
{
    const bool many =
        atomic_load_explicit(&w->live, memory_order_relaxed) >= STAY;
    int high;

    if (!many && (uint64_t)fd + MARGIN < w->descriptors.usual) {
        return fd;
    }
    pthread_mutex_lock(&w->lock);
    if (!w->descriptors.raised) {
        raise_limit(&w->descriptors);
    }
    pthread_mutex_unlock(&w->lock);
    if (!many || fd >= FD_SETSIZE) {
        return fd;
    }
    high = fcntl(fd, F_DUPFD_CLOEXEC, FD_SETSIZE);
    if (high < 0) { /* the hard limit is as low */
        return fd;
    }
    close(fd);
    return high;
}

void
descriptors_left(Worker *w, uint32_t live)
{
    if (live != STAY / 2) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    descriptors_restore(&w->descriptors);
    pthread_mutex_unlock(&w->lock);
}
