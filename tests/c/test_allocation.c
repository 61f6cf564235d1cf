/* Every allocation of a worker and of the supervisor's loop fails in turn.
 *
 * A scene is played until none is left that could fail: first with that one
 * allocation failing, then with all after it failing too. What must hold each
 * time: no crash, no leak (the sanitizers see to that), the client gets a
 * right answer, a beginning of it or an error, and afterwards the worker is
 * empty, drains and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/un.h>

#include "allocation.h"
#include "check.h"
#include "clock.h"
#include "descriptors.h"
#include "dispatch.h"
#include "serve.h"

/* No wait is longer, in milliseconds: what hangs fails. */
#define PATIENCE 10000

static void
pair(int type, int *ours, int *theirs)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
    *ours = ends[0];
    *theirs = ends[1];
}

static bool
readable(int fd, int milliseconds)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    const int n = poll(&p, 1, milliseconds);
    CHECK(n >= 0);
    return n > 0;
}

/* ------------------------------------------------------------------------
 * A worker and its client */

typedef struct {
    const char *send[4]; /* each when the one before has been read */
    const char *answer;  /* all that the client gets if nothing fails */
    bool streamed;
} Scene;

typedef struct {
    Scoreboard board;
    Serve *serve;
    pthread_t thread, watch;
    int memory, bell, lifeline, signals, signal_end;
    int ours, theirs; /* the channel */
    int client;
    char got[1 << 20];
    size_t size;
} Worker;

/* Sent by "/large": more than a socket takes, so that some of it waits. */
static char large[400000];
static _Atomic int owners;

static void
answer_file(Thread *t, Conn *c, const char *head)
{
    const int fd = memfd_create("file", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "of a file\n", 10) == 10);
    if (serve_send(t, c, head, strlen(head), NULL, 0, NULL, NULL) == 0)
        serve_send_file(t, c, fd, 0, 10);
    else
        close(fd);
}

static void
answer_large(Thread *t, Conn *c, const char *head)
{
    bool kept;
    owners++;
    serve_send(t, c, head, strlen(head), large, sizeof large, &owners, &kept);
    if (!kept)
        owners--;
}

/* The application: what the path asks for, and the size of the body. */
static void
application(void *argument, Thread *t, Conn *c, Request *r)
{
    const char *path = r->buffer + r->start + r->head.path.at;
    const char *words;
    char head[200], piece[100];
    ssize_t n = 0;

    while (serve_garbage_pop(t->serve) != NULL)
        owners--;
    if (r->streaming)
        while ((n = serve_read_body(t, c, r, piece, sizeof piece, &words)) > 0)
            ;
    CHECK(argument == NULL);
    c->status = 200;
    c->keep = n == 0 && serve_may_keep(t->serve, c, r);
    snprintf(head, sizeof head, "%s %llu\n", n == 0 ? "answer" : "error",
             (unsigned long long)r->body_size);
    if (strncmp(path, "/file", 5) == 0)
        answer_file(t, c, head);
    else if (strncmp(path, "/large", 6) == 0)
        answer_large(t, c, head);
    else
        serve_send(t, c, head, strlen(head), NULL, 0, NULL, NULL);
}

static void *
serve(void *argument)
{
    Worker *w = argument;
    serve_thread(w->serve, 0, NULL);
    return NULL;
}

/* As a worker's main thread does, to the end. */
static void *
watch(void *argument)
{
    Worker *w = argument;
    WatchResult result;
    Note note;
    do {
        result = serve_watch(w->serve);
        while (serve_note_pop(w->serve, &note))
            ;
        while (serve_garbage_pop(w->serve) != NULL)
            owners--;
    } while (result != WATCH_DRAINED);
    return NULL;
}

static ServeOptions
worker_options(const Worker *w, Scoreboard *board, bool streamed)
{
    return (ServeOptions){
        .board = board,
        .thread_count = 1,
        .channel = w->theirs,
        .bell = w->bell,
        .lifeline = w->lifeline,
        .signals = w->signals,
        .limits = {.head = {.line = 8190,
                            .field_size = 8190,
                            .fields = 100,
                            .head = 65535},
                   .header_timeout = 60 * CLOCK_SECOND,
                   .body_timeout = 60 * CLOCK_SECOND,
                   .send_timeout = 60 * CLOCK_SECOND,
                   .keep_alive_timeout = 60 * CLOCK_SECOND,
                   .graceful_timeout = 60 * CLOCK_SECOND,
                   .body_limit = 100000,
                   .body_buffer = 3000,
                   .buffering = !streamed},
        .application = application,
    };
}

static void
worker_open(Worker *w)
{
    w->memory = scoreboard_create(1, 1);
    CHECK(w->memory >= 0 && scoreboard_attach(&w->board, w->memory) == 0);
    w->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->lifeline = eventfd(0, EFD_CLOEXEC);
    CHECK(w->bell >= 0 && w->lifeline >= 0);
    pair(SOCK_STREAM, &w->signals, &w->signal_end);
    pair(SOCK_SEQPACKET, &w->ours, &w->theirs);
    w->serve = NULL;
    w->size = 0;
}

static void
worker_close(Worker *w)
{
    const int all[] = {w->memory,     w->bell, w->lifeline, w->signals,
                       w->signal_end, w->ours, w->theirs};
    scoreboard_detach(&w->board);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        close(all[i]);
}

/* Send the worker a connection, as the supervisor does. */
static void
dispatch(Worker *w)
{
    static ChannelMessage m;
    const int small = 4096;
    int end;
    pair(SOCK_STREAM | SOCK_NONBLOCK, &w->client, &end);
    CHECK(setsockopt(end, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    m.header = (ChannelHeader){.kind = CHANNEL_DISPATCH, .count = 1};
    m.items[0] = (ChannelItem){.since = clock_now(), .family = AF_UNIX};
    m.fds[0] = end;
    atomic_fetch_add(&w->board.loads[0].load, 1);
    atomic_fetch_add(&w->board.loads[0].held, 1);
    CHECK(channel_send(w->ours, &m) == 0);
    close(end);
}

/* Read what has come; false at the connection's end. */
static bool
receive(Worker *w)
{
    ssize_t n;
    CHECK(w->size < sizeof w->got);
    n = recv(w->client, w->got + w->size, sizeof w->got - w->size, 0);
    if (n > 0)
        w->size += (size_t)n;
    return n > 0 || (n < 0 && errno == EAGAIN);
}

/* Has the worker read all that the client sent? */
static bool
taken(const Worker *w)
{
    int left;
    CHECK(ioctl(w->client, SIOCOUTQ, &left) == 0);
    return left == 0;
}
