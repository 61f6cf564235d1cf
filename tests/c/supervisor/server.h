/* A dispatcher between real clients and workers that are only the other end of
 * a channel: what its tests share. */
#ifndef POOLSRV_TEST_SERVER_H
#define POOLSRV_TEST_SERVER_H

#include "supervisor/dispatch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "check.h"
#include "common/clock.h"
#include "descriptors.h"

#define LONG_TIME (60 * CLOCK_SECOND)
#define DEADLINE (5 * CLOCK_SECOND)
#define TURN CLOCK_MILLISECOND

enum { SLOTS = 3, THREADS = 4, ROOM = 3, MOST_EVENTS = 16 };

typedef struct {
    Scoreboard board;
    Dispatch *dispatch;
    int listeners[2]; /* TCP and Unix */
    in_port_t port;
    struct sockaddr_un path; /* in the abstract namespace */
    socklen_t path_size;
    int ours[SLOTS], theirs[SLOTS];
    DispatchEvent events[MOST_EVENTS]; /* all that it has said */
    uint32_t event_count;
} Server;

static const DispatchLimits patient = {.header_timeout = LONG_TIME,
                                       .keep_alive_timeout = LONG_TIME,
                                       .queue_timeout = LONG_TIME,
                                       .queue_size = 1000,
                                       .queue_overtaking = 10};

static inline Server *
server_open(const DispatchLimits *limits)
{
    Server *s = calloc(1, sizeof *s);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    const int fd = scoreboard_create(SLOTS, THREADS);
    CHECK(s != NULL && scoreboard_attach(&s->board, fd) == 0);
    close(fd);

    s->listeners[0] =
        socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(bind(s->listeners[0], (struct sockaddr *)&a, size) == 0);
    CHECK(listen(s->listeners[0], 1000) == 0);
    CHECK(getsockname(s->listeners[0], (struct sockaddr *)&a, &size) == 0);
    s->port = a.sin_port;

    s->listeners[1] =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    s->path.sun_family = AF_UNIX;
    CHECK(bind(s->listeners[1], (struct sockaddr *)&s->path,
               sizeof(sa_family_t)) == 0); /* the kernel finds a name */
    s->path_size = sizeof s->path;
    CHECK(getsockname(s->listeners[1], (struct sockaddr *)&s->path,
                      &s->path_size) == 0);
    CHECK(listen(s->listeners[1], 1000) == 0);

    s->dispatch = dispatch_new(&s->board, limits, s->listeners, 2);
    CHECK(s->dispatch != NULL);
    for (uint32_t i = 0; i < SLOTS; i++) {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        s->ours[i] = pair[0];
        s->theirs[i] = pair[1];
        CHECK(dispatch_channel(s->dispatch, i, pair[0], pair[1]) == 0);
    }
    return s;
}

static inline void
server_close(Server *s)
{
    dispatch_free(s->dispatch);
    for (uint32_t i = 0; i < SLOTS; i++) {
        close(s->ours[i]);
        close(s->theirs[i]);
    }
    close(s->listeners[0]);
    close(s->listeners[1]);
    scoreboard_detach(&s->board);
    free(s);
}

/* Slot i has a worker of which loads[i] threads are taken; -1: none. */
static inline void
workers(Server *s, const int32_t loads[SLOTS])
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        atomic_store(&s->board.loads[i].load, loads[i]);
        atomic_store(&s->board.loads[i].limit, THREADS);
        atomic_store(&s->board.loads[i].width, THREADS);
        dispatch_enable(s->dispatch, i, loads[i] >= 0);
    }
}

/* As a worker whose request is done. */
static inline void
end_request(Server *s, uint32_t slot)
{
    const uint64_t one = 1;
    atomic_fetch_sub(&s->board.loads[slot].load, 1);
    CHECK(write(dispatch_bell(s->dispatch), &one, sizeof one) == sizeof one);
}

static inline int32_t
load(const Server *s, uint32_t slot)
{
    return s->board.loads[slot].load;
}

static inline uint64_t
closed(const Server *s, int why)
{
    return word_get(&s->board.supervisor->closed[why]);
}

static inline uint64_t
count(const Word *word)
{
    return word_get(word);
}

/* Run the loop for a turn. */
static inline void
turn(Server *s)
{
    const int n = dispatch_wait(s->dispatch, clock_now() + TURN,
                                s->events + s->event_count, ROOM);
    CHECK(n >= 0 && n <= ROOM);
    s->event_count += (uint32_t)n;
    CHECK(s->event_count + ROOM <= MOST_EVENTS);
}

/* Run it until the fact has come about. */
#define UNTIL(s, fact)                                       \
    do {                                                     \
        const uint64_t end = clock_now() + DEADLINE;         \
        while (!(fact)) {                                    \
            CHECK(clock_now() < end && "still not: " #fact); \
            turn(s);                                         \
        }                                                    \
    } while (0)

/* ------------------------------------------------------------------------
 * Clients and what workers have received */

static inline int
connects(const Server *s)
{
    const struct sockaddr_in a = {.sin_family = AF_INET,
                                  .sin_port = s->port,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (const void *)&a, sizeof a) == 0);
    return fd;
}

static inline void
asks(int fd)
{
    CHECK(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL) == 18);
}

static inline int
connects_and_asks(const Server *s)
{
    const int fd = connects(s);
    asks(fd);
    return fd;
}

/* What takes so long, as the workers have seen. */
#define SLOW "GET /slow HTTP/1.1\r\n\r\n"

static inline void
slow_takes(Server *s, uint64_t nanoseconds)
{
    path_times_learn(s->board.path_times, "GET", 3, "/slow", 5, nanoseconds);
}

static inline int
connects_and_asks_slow(const Server *s)
{
    const int fd = connects(s);
    CHECK(send(fd, SLOW, strlen(SLOW), MSG_NOSIGNAL) == (ssize_t)strlen(SLOW));
    return fd;
}

static inline uint16_t
port_of(int fd)
{
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    CHECK(getsockname(fd, (struct sockaddr *)&a, &size) == 0);
    return ntohs(a.sin_port);
}

/* Does the client see the end of the connection, without an answer? */
static inline bool
sees_the_end(int client)
{
    char byte;
    return recv(client, &byte, 1, MSG_DONTWAIT) == 0;
}

static inline bool
reads_503(int client)
{
    char answer[1024] = "";
    size_t size = 0;
    ssize_t n;
    while ((n = recv(client, answer + size, sizeof answer - 1 - size, 0)) > 0) {
        size += (size_t)n;
    }
    CHECK(n == 0); /* the whole of it, and no reset */
    return strncmp(answer, "HTTP/1.1 503 ", 13) == 0 &&
           strstr(answer, "\r\nRetry-After: ") &&
           strstr(answer, "\r\nConnection: close\r\n");
}

/* All that came for a slot; the caller closes it. */
typedef struct {
    ChannelItem item;
    int fd;
} Got;

static inline uint32_t
receives(Server *s, uint32_t slot, Got *got, uint32_t room)
{
    ChannelMessage m;
    uint32_t n = 0;
    while (channel_receive(s->theirs[slot], &m) > 0) {
        CHECK(m.header.kind == CHANNEL_DISPATCH);
        for (uint32_t i = 0; i < m.header.count; i++) {
            CHECK(n < room);
            got[n++] = (Got){m.items[i], m.fds[i]};
        }
    }
    return n;
}

/* The one connection that came for a slot. */
static inline Got
receives_one(Server *s, uint32_t slot)
{
    Got got;
    CHECK(receives(s, slot, &got, 1) == 1);
    return got;
}

/* Is it this client that came for the slot, alone? */
static inline bool
receives_from(Server *s, uint32_t slot, int client)
{
    const Got got = receives_one(s, slot);
    close(got.fd);
    return got.item.client.port == port_of(client);
}

static inline void
hands_back(Server *s, uint32_t slot, Got got, bool request_waits)
{
    ChannelMessage m = {.header = {.kind = CHANNEL_HAND_BACK, .count = 1},
                        .items = {got.item},
                        .fds = {got.fd}};
    m.items[0].request_waits = request_waits;
    m.items[0].requests++;
    CHECK(channel_send(s->theirs[slot], &m.batch) == 0);
    close(got.fd);
    atomic_fetch_sub(&s->board.loads[slot].load, 1);
    atomic_fetch_sub(&s->board.loads[slot].connections, 1);
}

/* A connection that slot 0 has answered once and handed back. */
static inline int
has_been_served(Server *s)
{
    const uint64_t before = count(s->board.supervisor->handed_back);
    const int client = connects_and_asks(s);
    UNTIL(s, load(s, 0) == 1);
    const Got got = receives_one(s, 0);
    char request[18];
    CHECK(recv(got.fd, request, sizeof request, 0) == sizeof request);
    hands_back(s, 0, got, false);
    UNTIL(s, count(s->board.supervisor->handed_back) == before + 1);
    return client;
}

#endif
