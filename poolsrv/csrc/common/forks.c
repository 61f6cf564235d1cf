/* Leaving our things behind in a child that the application forks. Pure C. */
#define _GNU_SOURCE
#include "common/forks.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The handlers of pthread_atfork have no argument: what they do concerns the
 * process as a whole, whichever interpreter forks it. Hence the only state of
 * the core that hangs on no object. */
static struct {
    pthread_once_t once;
    pthread_mutex_t lock; /* of the rest; held while any thread forks */
    ForkGuard *guards;
    int *fds, *signals;
    size_t fd_count, signal_count;
    bool left;
} forks = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool ours;
static _Thread_local sigset_t mask; /* of signals, before the fork */

static void
before(void)
{
    sigset_t all;
    /* A signal for the child must not find a handler that it shares with us. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    pthread_mutex_lock(&forks.lock);
}

static void
after(void)
{
    ours = false;
    pthread_mutex_unlock(&forks.lock);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void
in_child(void)
{
    forks.left = !ours;
    if (!ours) {
        const struct sigaction usual = {.sa_handler = SIG_DFL};
        ForkGuard *guard, *following;
        size_t i;
        for (i = 0; i < forks.signal_count; i++) {
            sigaction(forks.signals[i], &usual, NULL);
        }
        for (guard = forks.guards; guard; guard = following) {
            following = guard->next;
            guard->next = guard->previous = NULL;
            guard->leave(guard->argument);
        }
        for (i = 0; i < forks.fd_count; i++) {
            close(forks.fds[i]);
        }
        /* In its own children these numbers mean other things. */
        forks.guards = NULL;
        forks.fd_count = forks.signal_count = 0;
    }
    after();
}

static void
handle_forks(void)
{
    pthread_atfork(before, after, in_child);
}

void
forks_guard(ForkGuard *guard, ForkLeave *leave, void *argument)
{
    pthread_once(&forks.once, handle_forks);
    *guard = (ForkGuard){.leave = leave, .argument = argument};
    pthread_mutex_lock(&forks.lock);
    guard->next = forks.guards;
    if (guard->next) {
        guard->next->previous = guard;
    }
    forks.guards = guard;
    pthread_mutex_unlock(&forks.lock);
}

void
forks_unguard(ForkGuard *guard)
{
    pthread_mutex_lock(&forks.lock);
    if (guard->previous) {
        guard->previous->next = guard->next;
    } else if (forks.guards == guard) { /* else it was left behind by a fork */
        forks.guards = guard->next;
    }
    if (guard->next) {
        guard->next->previous = guard->previous;
    }
    pthread_mutex_unlock(&forks.lock);
}

static int *
copy(const int *numbers, size_t count)
{
    int *own = malloc((count + 1) * sizeof *own);
    if (own && count) {
        memcpy(own, numbers, count * sizeof *own);
    }
    return own;
}

int
forks_keep(const int *fds, size_t fd_count, const int *signals,
           size_t signal_count)
{
    int *own_fds = copy(fds, fd_count);
    int *own_signals = copy(signals, signal_count);
    int *old_fds, *old_signals;

    if (own_fds == NULL || own_signals == NULL) {
        free(own_fds);
        free(own_signals);
        return -1;
    }
    pthread_once(&forks.once, handle_forks);
    pthread_mutex_lock(&forks.lock);
    old_fds = forks.fds;
    old_signals = forks.signals;
    forks.fds = own_fds;
    forks.fd_count = fd_count;
    forks.signals = own_signals;
    forks.signal_count = signal_count;
    pthread_mutex_unlock(&forks.lock);
    free(old_fds);
    free(old_signals);
    return 0;
}

void
forks_ours(void)
{
    ours = true;
}

bool
forks_left(void)
{
    return forks.left;
}
