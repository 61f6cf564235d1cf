/* A whole server in one process, without an interpreter: a dispatcher and
 * workers of several threads, which are drained and replaced all the time,
 * while clients ask on kept connections, in pieces and ahead, and leave in
 * every way. Each answer names the request that it is for, so that none goes to
 * somebody else, none is lost and none comes twice.
 *
 * Under the thread sanitizer: make check-storm BUILD=/tmp/storm SANITIZED="-O1
 * -g -fsanitize=thread -Wno-tsan" (the fences in watch.c are all that it
 * misses). */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "common/clock.h"
#include "descriptors.h"
#include "supervisor/dispatch.h"
#include "worker/conn.h"
#include "worker/drain.h"
#include "worker/exchange.h"
#include "worker/handler.h"
#include "worker/notes.h"
#include "worker/output.h"
#include "worker/threads.h"
#include "worker/watch.h"
#include "worker/worker.h"

enum { SLOTS = 2, THREADS = 3, CLIENTS = 24, REPLACEMENTS = 10 };

/* Seconds until a client that has no answer says so. */
#define PATIENCE 20

/* ------------------------------------------------------------------------
 * The server */

typedef struct {
    struct Server *server;
    uint32_t slot;
    Worker *worker;
    pthread_t request_threads[THREADS], main_thread;
    int signals, signal_end;
    int ours, theirs; /* the channel */
    _Atomic bool enabled;
} Place;

typedef struct Server {
    Scoreboard board;
    Dispatch *dispatch;
    pthread_t thread;
    int order, done, lifeline, listener;
    struct sockaddr_in address;
    _Atomic bool stopping;
    Place places[SLOTS];
} Server;

typedef struct {
    Place *place;
    uint32_t index;
} RequestThread;

static void
pause_for(uint64_t nanoseconds)
{
    const struct timespec time = {.tv_nsec = (long)nanoseconds};
    nanosleep(&time, NULL);
}

static uint64_t
thread_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec;
}

/* The application: its path. "/s" sleeps, "/c" computes, others do neither. */
static void
application(void *argument, Thread *t, Conn *c, Request *r)
{
    Schedule *schedule = worker_schedule(t->worker);
    const uint64_t start = clock_now(), cpu = thread_cpu();
    const bool measured = schedule_runs(schedule, &t->meter);
    const char *path = r->buffer + r->start + r->head.path.at;
    const int size = (int)r->head.path.len;
    char answer[200];

    CHECK(argument == NULL);
    if (path[1] == 's') {
        pause_for(12 * CLOCK_MILLISECOND);
    } else if (path[1] == 'c') {
        while (clock_now() < start + 12 * CLOCK_MILLISECOND) {
        }
    }
    schedule_ran(schedule, &t->meter, clock_now() - start, measured,
                 thread_cpu() - cpu, path[1] == 's');
    c->status = 200;
    c->ending = exchange_may_keep(t->worker, c, r) ? ENDING_KEEP : ENDING_CLOSE;
    snprintf(answer, sizeof answer,
             "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%.*s", size,
             c->ending == ENDING_KEEP ? "" : "Connection: close\r\n", size,
             path);
    output_send(t, c, answer, strlen(answer), NULL, 0, NULL, NULL, STREAM_PUSH);
    t->now = clock_now();
}

static const Handler handler = {.serve = application};

static void *
request_thread(void *argument)
{
    RequestThread *thread = argument;
    threads_serve(thread->place->worker, thread->index, NULL);
    free(thread);
    return NULL;
}

static void *
main_thread(void *argument)
{
    Place *place = argument;
    WatchResult result;
    do {
        Note note;
        char byte;
        result = watch_wait(place->worker);
        CHECK(result != WATCH_BROKEN);
        if (result == WATCH_SIGNAL) {
            CHECK(read(place->signals, &byte, 1) == 1);
            drain_start(place->worker, DRAIN_ALL);
        }
        while (notes_pop(place->worker, &note)) {
        }
    } while (result != WATCH_DRAINED);
    return NULL;
}

static void
start_worker(Place *place)
{
    Server *s = place->server;
    const WorkerOptions options = {
        .board = &s->board,
        .slot = place->slot,
        .thread_count = THREADS,
        .channel = place->theirs,
        .bell = dispatch_bell(s->dispatch),
        .lifeline = s->lifeline,
        .signals = place->signals,
        .limits = {.limit_request_line = 8190,
                   .limit_request_field_size = 8190,
                   .limit_request_fields = 100,
                   .header_timeout = PATIENCE * CLOCK_SECOND,
                   .body_timeout = PATIENCE * CLOCK_SECOND,
                   .send_timeout = PATIENCE * CLOCK_SECOND,
                   .worker_buffer = UINT64_MAX,
                   .worker_spool = UINT64_MAX,
                   .keep_alive_timeout = PATIENCE * CLOCK_SECOND,
                   .response_buffer = 1 << 20},
        .handler = &handler,
        .access_log = {.fd = -1},
    };
    place->worker = worker_new(&options);
    CHECK(place->worker != NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        RequestThread *thread = malloc(sizeof *thread);
        CHECK(thread != NULL);
        *thread = (RequestThread){place, i};
        CHECK(pthread_create(&place->request_threads[i], NULL, request_thread,
                             thread) == 0);
    }
    CHECK(pthread_create(&place->main_thread, NULL, main_thread, place) == 0);
}

static void
end_worker(Place *place)
{
    CHECK(write(place->signal_end, "", 1) == 1);
    CHECK(pthread_join(place->main_thread, NULL) == 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(place->request_threads[i], NULL) == 0);
    }
    worker_free(place->worker);
}

/* What the loop is told: who may get work, and to stop. */
static bool
obey(Server *s)
{
    uint64_t rung;
    CHECK(read(s->order, &rung, sizeof rung) == sizeof rung);
    for (uint32_t i = 0; i < SLOTS; i++) {
        dispatch_enable(s->dispatch, i, atomic_load(&s->places[i].enabled));
    }
    if (atomic_load(&s->stopping)) {
        dispatch_stop(s->dispatch);
    }
    return write(s->done, &(uint64_t){1}, sizeof rung) == sizeof rung;
}

static void *
supervise(void *argument)
{
    static DispatchEvent events[16];
    Server *s = argument;
    for (;;) {
        const int n = dispatch_wait(s->dispatch, 0, events, 16);
        CHECK(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++) {
            if (events[i].kind == DISPATCH_READABLE) {
                CHECK(obey(s));
            } else if (events[i].kind == DISPATCH_DRAINED) {
                return NULL;
            }
        }
    }
}

static void
order(Server *s)
{
    uint64_t one = 1;
    CHECK(write(s->order, &one, sizeof one) == sizeof one);
    CHECK(read(s->done, &one, sizeof one) == sizeof one);
}

static void
enable(Server *s, uint32_t slot, bool on)
{
    atomic_store(&s->places[slot].enabled, on);
    order(s);
}

static void
pair(int type, int *ours, int *theirs)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
    *ours = ends[0];
    *theirs = ends[1];
}

static void
server_start(Server *s)
{
    const DispatchLimits limits = {.header_timeout = PATIENCE * CLOCK_SECOND,
                                   .keep_alive_timeout =
                                       PATIENCE * CLOCK_SECOND,
                                   .queue_timeout = PATIENCE * CLOCK_SECOND,
                                   .queue_size = 1000,
                                   .queue_overtaking = 10};
    const int memory = scoreboard_create(SLOTS, THREADS);
    socklen_t size = sizeof s->address;
    CHECK(memory >= 0 && scoreboard_attach(&s->board, memory) == 0);
    close(memory);
    s->address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    s->listener =
        socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(bind(s->listener, (void *)&s->address, size) == 0);
    CHECK(listen(s->listener, 100) == 0);
    CHECK(getsockname(s->listener, (void *)&s->address, &size) == 0);
    s->order = eventfd(0, EFD_CLOEXEC);
    s->done = eventfd(0, EFD_CLOEXEC);
    s->lifeline = eventfd(0, EFD_CLOEXEC);
    s->dispatch = dispatch_new(&s->board, &limits, &s->listener, 1);
    CHECK(s->dispatch != NULL);
    CHECK(dispatch_watch(s->dispatch, s->order, 0) == 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        Place *place = &s->places[i];
        place->server = s;
        place->slot = i;
        pair(SOCK_STREAM, &place->signals, &place->signal_end);
        pair(SOCK_SEQPACKET, &place->ours, &place->theirs);
        CHECK(dispatch_channel(s->dispatch, i, place->ours, place->theirs) ==
              0);
        start_worker(place);
    }
    CHECK(pthread_create(&s->thread, NULL, supervise, s) == 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        enable(s, i, true);
    }
}

static void
server_stop(Server *s)
{
    atomic_store(&s->stopping, true);
    order(s);
    CHECK(pthread_join(s->thread, NULL) == 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        Place *place = &s->places[i];
        end_worker(place);
        CHECK(atomic_load(&s->board.loads[i].load) == 0);
        CHECK(atomic_load(&s->board.loads[i].connections) == 0);
        close(place->signals);
        close(place->signal_end);
        close(place->ours);
        close(place->theirs);
    }
    dispatch_free(s->dispatch);
    scoreboard_detach(&s->board);
    close(s->order);
    close(s->done);
    close(s->lifeline);
    close(s->listener);
}

/* ------------------------------------------------------------------------
 * Its clients */

typedef struct {
    Server *server;
    pthread_t thread;
    unsigned number, dice;
    _Atomic bool *enough;
    uint64_t answers;
} Client;

static unsigned
roll(Client *c, unsigned sides)
{
    c->dice = c->dice * 1103515245u + 12345u;
    return (c->dice >> 16) % sides;
}

static int
reach(const Client *c)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = PATIENCE};
    CHECK(fd >= 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ==
          0);
    CHECK(connect(fd, (const void *)&c->server->address,
                  sizeof c->server->address) == 0);
    return fd;
}

static void
leave(Client *c, int fd)
{
    if (roll(c, 2)) {
        const struct linger at_once = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    close(fd);
}

/* Read exactly this answer. */
static void
hear(Client *c, int fd, const char *path)
{
    char wanted[200], got[200];
    size_t size = 0;
    const int length =
        snprintf(wanted, sizeof wanted,
                 "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s",
                 (int)strlen(path), path);
    while (size < (size_t)length) {
        const ssize_t n = recv(fd, got + size, (size_t)length - size, 0);
        if (n <= 0) {
            fprintf(stderr, "client %u: no answer to %s: %s\n", c->number, path,
                    n ? strerror(errno) : "the end");
            abort();
        }
        size += (size_t)n;
    }
    got[size] = '\0';
    if (strcmp(got, wanted) != 0) {
        fprintf(stderr, "client %u: for %s came: %s\n", c->number, path, got);
        abort();
    }
    c->answers++;
}

static void
say(Client *c, int fd, const char *text, size_t size)
{
    const size_t first = roll(c, 4) == 0 ? roll(c, (unsigned)size) : 0;
    CHECK(send(fd, text, first, MSG_NOSIGNAL) == (ssize_t)first);
    if (first) {
        pause_for(roll(c, 3) * CLOCK_MILLISECOND);
    }
    CHECK(send(fd, text + first, size - first, MSG_NOSIGNAL) ==
          (ssize_t)(size - first));
}

static void *
ask(void *argument)
{
    static const char kinds[] = "ffffffffffffsc";
    Client *c = argument;
    int fd = -1;
    for (unsigned turn = 0; !atomic_load(c->enough);) {
        char paths[3][40], text[400];
        int size = 0;
        const unsigned count = 1 + (roll(c, 4) == 0) * roll(c, 3);
        if (fd < 0) {
            fd = reach(c);
        }
        for (unsigned i = 0; i < count; i++) {
            snprintf(paths[i], sizeof paths[i], "/%c/%u/%u",
                     kinds[roll(c, sizeof kinds - 1)], c->number, turn++);
            size += snprintf(text + size, sizeof text - (size_t)size,
                             "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i]);
        }
        switch (roll(c, 40)) {
        case 0: /* leaves with its request unanswered */
            say(c, fd, text, (size_t)size);
            leave(c, fd);
            fd = -1;
            continue;
        case 1: /* leaves in the middle of it */
            say(c, fd, text, (size_t)size - 5);
            leave(c, fd);
            fd = -1;
            continue;
        case 2: /* leaves while idle */
            leave(c, fd);
            fd = -1;
            continue;
        default:
            say(c, fd, text, (size_t)size);
        }
        const bool is_last = roll(c, 20) == 0;
        if (is_last) { /* it says so, and waits for the answers */
            CHECK(shutdown(fd, SHUT_WR) == 0);
        }
        for (unsigned i = 0; i < count; i++) {
            hear(c, fd, paths[i]);
        }
        if (is_last) {
            CHECK(recv(fd, text, 1, 0) == 0);
            close(fd);
            fd = -1;
        }
        if (roll(c, 8) == 0) {
            pause_for(roll(c, 30) * CLOCK_MILLISECOND);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return NULL;
}

/* ------------------------------------------------------------------------ */

static void
test_each_request_gets_its_answer_while_workers_come_and_go(void)
{
    static Server server;
    static Client clients[CLIENTS];
    _Atomic bool enough = false;
    uint64_t answers = 0;

    server_start(&server);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (Client){
            .server = &server, .number = i, .dice = i, .enough = &enough};
        CHECK(pthread_create(&clients[i].thread, NULL, ask, &clients[i]) == 0);
    }
    const char *times = getenv("REPLACEMENTS");
    for (int i = 0; i < (times ? atoi(times) : REPLACEMENTS); i++) {
        const uint32_t slot = (uint32_t)i % SLOTS;
        pause_for(100 * CLOCK_MILLISECOND);
        enable(&server, slot, false);
        end_worker(&server.places[slot]);
        start_worker(&server.places[slot]);
        enable(&server, slot, true);
    }
    atomic_store(&enough, true);
    for (unsigned i = 0; i < CLIENTS; i++) {
        CHECK(pthread_join(clients[i].thread, NULL) == 0);
        answers += clients[i].answers;
    }
    server_stop(&server);
    printf("%d answers\n", (int)answers);
}

int
main(void)
{
    RUN(test_each_request_gets_its_answer_while_workers_come_and_go);
    return 0;
}
