/* A thread that waits for a clock, and acts if it rings. Pure C.
 *
 * The main thread asks at the latest when half of the limit is over; then the
 * clock rings after a quarter, and after another. The first ring may be due to
 * the whole process having stood still (a debugger, a frozen container).
 */
#define _GNU_SOURCE
#include "worker/watchdog.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "worker/overdue.h"
#include "worker/worker_internal.h"

/* The channel was full: again after so long. */
#define AGAIN (100 * CLOCK_MILLISECOND)

static void
set_timer(const Watchdog *d, uint64_t after)
{
    const struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(after / CLOCK_SECOND),
                     .tv_nsec = (long)(after % CLOCK_SECOND)}};
    timerfd_settime(d->timer, 0, &at, NULL);
}

static bool
wait_for_ring(const Watchdog *d)
{
    uint64_t rung;
    ssize_t n;
    do {
        n = read(d->timer, &rung, sizeof rung);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

/* Write the stacks of all threads: the handler of the signal does, and needs no
 * interpreter. It has returned when pthread_kill does. */
static void
write_stacks(const Worker *w)
{
    if (w->o.stacks_signal && ftruncate(w->o.stacks, 0) == 0 &&
        lseek(w->o.stacks, 0, SEEK_SET) == 0) {
        pthread_kill(pthread_self(), w->o.stacks_signal);
    }
}

static void
act(Worker *w)
{
    char text[16]; /* the supervisor wants to know who speaks */
    const int size = snprintf(text, sizeof text, "%d ", (int)getpid());
    write_stacks(w);
    /* No thread comes back from the application, but the one that has the lock:
     * the clients need not wait until we are killed. */
    overdue_give_up_all(w);
    if (channel_say(w->o.channel, CHANNEL_HUNG, text, (size_t)size) < 0 &&
        errno == EAGAIN) {
        set_timer(&w->watchdog, AGAIN);
    }
}

static void *
watch_over(void *argument)
{
    Worker *w = argument;
    Watchdog *d = &w->watchdog;
    uint64_t rung = 0; /* for what was asked then */

    while (wait_for_ring(d) && !atomic_load(&d->is_ending)) {
        const uint64_t asked = atomic_load(&d->asked);
        if (asked == 0) { /* the answer came with the ring */
            continue;
        }
        if (asked == rung) {
            act(w);
        } else {
            rung = asked;
            set_timer(d, w->o.limits.watchdog_timeout / 4);
        }
    }
    return NULL;
}

int
watchdog_start(Worker *w)
{
    Watchdog *d = &w->watchdog;
    sigset_t all, before;
    int failed;

    d->timer = -1;
    if (w->o.limits.watchdog_timeout == 0) {
        return 0;
    }
    d->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (d->timer < 0) {
        return -1;
    }
    /* It hears no signal but the one that it sends to itself. */
    sigfillset(&all);
    if (w->o.stacks_signal) {
        sigdelset(&all, w->o.stacks_signal);
    }
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&d->thread, NULL, watch_over, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        close(d->timer);
        errno = failed;
        return -1;
    }
    d->started = true;
    d->had = clock_now();
    return 0;
}

void
watchdog_end(Worker *w)
{
    Watchdog *d = &w->watchdog;
    if (d->started && !worker_left(w)) { /* a fork has no such thread */
        atomic_store(&d->is_ending, true);
        set_timer(d, 1);
        pthread_join(d->thread, NULL);
        close(d->timer);
    }
}

void
watchdog_ask(Worker *w)
{
    Watchdog *d = &w->watchdog;
    if (d->started) {
        atomic_store(&d->asked, clock_now());
        set_timer(d, w->o.limits.watchdog_timeout / 4);
    }
}

void
watchdog_answer(Worker *w)
{
    Watchdog *d = &w->watchdog;
    if (d->started) {
        atomic_store(&d->asked, 0);
        set_timer(d, 0);
        d->had = clock_now();
    }
}

bool
watchdog_is_due(const Worker *w)
{
    const Watchdog *d = &w->watchdog;
    return d->started &&
           w->main.now > d->had + w->o.limits.watchdog_timeout / 2;
}
