/* Making a worker, and its end. Pure C; see worker.h. */
#define _GNU_SOURCE
#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "worker/places.h"
#include "worker/upgrade.h"
#include "common/descriptor_room.h"
#include "worker/worker_internal.h"

bool
worker_ring(int bell)
{
    const uint64_t one = 1;
    ssize_t n;
    do {
        n = write(bell, &one, sizeof one);
    } while (n < 0 && errno == EINTR);
    return n > 0 || errno == EAGAIN; /* full: it rings already */
}

void
worker_break(Worker *w, int error)
{
    int none = 0;
    atomic_compare_exchange_strong(&w->broken, &none, error);
    atomic_store(&w->line->limit, 0);
    if (!worker_ring(w->alarm)) {
        dprintf(STDERR_FILENO,
                "poolsrv: worker %d ends: its descriptors are gone (%s); does "
                "the application close what it has not opened?\n",
                (int)getpid(), strerror(error));
        _exit(1);
    }
}

const WorkerLimits *
worker_limits(const Worker *w)
{
    return &w->o.limits;
}

Schedule *
worker_schedule(Worker *w)
{
    return &w->schedule;
}

static void
close_once(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

bool
worker_left(const Worker *w)
{
    return w->left;
}

/* In a child that the application has forked: a connection, above all, that is
 * open here is open for its client. Bodies that are spooled and files on their
 * way stay open: what names them may be half written. */
static void
leave(void *argument)
{
    Worker *w = argument;
    int *own[] = {&w->epoll, &w->watch, &w->nudge,
                  &w->alarm, &w->timer, &w->watchdog.timer};
    const uint32_t places = atomic_load(&w->conn_count);
    uint32_t i;

    w->left = true;
    descriptors_restore(&w->descriptors);
    upgrade_leave(w);
    for (i = 0; i < places; i += CONN_BLOCK) {
        places_leave(worker_places(w), conn_at(w, i), i / CONN_BLOCK);
    }
    for (i = 0; i < places; i++) {
        Conn *c = conn_at(w, i);
        c->gone = true;
        close_once(&c->fd);
    }
    for (i = 0; i < sizeof own / sizeof own[0]; i++) {
        close_once(own[i]);
    }
}

static int
thread_init(Worker *w, Thread *t, uint32_t index, ThreadRow *row)
{
    t->worker = w;
    t->index = index;
    t->home = index % w->o.interpreters;
    atomic_init(&t->interpreter, t->home);
    t->row = row;
    t->record.id = t->record.own;
    if (pthread_cond_init(&t->wake, NULL) != 0 ||
        pthread_mutex_init(&t->pieces.lock, NULL) != 0) {
        return -1;
    }
    return request_init(&t->request, &w->head_limits, REQUEST_BUFFER);
}

Worker *
worker_new(const WorkerOptions *options)
{
    Worker *w = calloc(1, sizeof *w);
    const uint32_t threads = options->thread_count;
    uint32_t i;

    if (w == NULL) {
        return NULL;
    }
    w->o = *options;
    if (w->o.interpreters == 0) {
        w->o.interpreters = 1;
    }
    w->head_limits = (Http1Limits){
        .line = options->limits.limit_request_line,
        .fields = options->limits.limit_request_fields,
        .field_size = options->limits.limit_request_field_size,
        .head = REQUEST_BUFFER - 1,
    };
    w->believed = forwarded_fields((ForwardedFamily)options->limits.forwarded,
                                   options->limits.forwarded_fields);
    w->routed =
        w->believed |
        (options->mounts || options->maintenance ? HTTP1_BIT(HTTP1_OTHER) : 0);
    w->shares =
        options->mounts && mounts_have_other(options->mounts, options->group);
    w->looks = w->shares || options->limits.proxy_protocol == OPTION_ON;
    w->line = &options->board->loads[options->slot];
    w->leader = LEADER_NONE;
    atomic_store(&w->away, true);
    /* Now, while no application can change the environment under us. */
    const char *folder = getenv("TMPDIR");
    w->spool_folder = strdup(folder && *folder ? folder : "/tmp");
    descriptors_init(&w->descriptors, options->guest);
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&w->side, NULL);
    schedule_init(&w->schedule, (int32_t)threads,
                  (int32_t)(options->parallel ? threads : w->o.interpreters));
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->watch = epoll_create1(EPOLL_CLOEXEC);
    w->nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->alarm = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    w->threads = calloc(threads, sizeof *w->threads);
    if (w->epoll < 0 || w->watch < 0 || w->nudge < 0 || w->alarm < 0 ||
        w->timer < 0 || !w->threads || !w->spool_folder) {
        goto failed;
    }
    for (i = 0; i < threads; i++) {
        if (thread_init(w, &w->threads[i], i,
                        scoreboard_thread(options->board, options->slot, i))) {
            goto failed;
        }
    }
    /* The main thread counts what it does in the row behind the last. */
    if (thread_init(
            w, &w->main, threads,
            scoreboard_thread(options->board, options->slot, threads))) {
        goto failed;
    }
    if (own_begin(w) < 0) {
        goto failed;
    }
    word_set(options->board->workers[options->slot].threads, threads);
    word_set(options->board->workers[options->slot].keeper,
             (uint64_t)options->keeper);
    atomic_store(&w->line->width, (int32_t)threads);
    atomic_store(&w->line->limit, (int32_t)threads);
    const int32_t most = descriptor_room_of(
        w->descriptors.most, (uint64_t)descriptor_room_lowest(), 0);
    atomic_store(&w->line->most, most > 0 ? most : 1);
    if (watchdog_start(w) < 0) {
        goto failed;
    }
    forks_guard(&w->guard, leave, w);
    return w;
failed:
    i = (uint32_t)errno;
    worker_free(w);
    errno = (int)i;
    return NULL;
}

static void
thread_free(Thread *t)
{
    if (t->worker == NULL) {
        return;
    }
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->pieces.lock);
    free(t->pieces.data);
    buffer_clear(&t->out);
    request_clear(&t->request);
}

void
worker_free(Worker *w)
{
    const uint32_t places = atomic_load(&w->conn_count);
    uint32_t i;
    if (w->guard.leave) {
        forks_unguard(&w->guard);
    }
    watchdog_end(w);
    for (i = 0; i < places; i++) {
        close_once(&conn_at(w, i)->fd);
    }
    for (i = 0; i < places; i += CONN_BLOCK) {
        places_free(worker_places(w), w->blocks[i / CONN_BLOCK]);
    }
    for (i = 0; w->threads && i < w->o.thread_count; i++) {
        thread_free(&w->threads[i]);
    }
    thread_free(&w->main);
    close_once(&w->epoll);
    close_once(&w->watch);
    close_once(&w->nudge);
    close_once(&w->alarm);
    close_once(&w->timer);
    descriptors_free(&w->descriptors);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->side);
    free(w->spool_folder);
    free(w->threads);
    free(w);
}
