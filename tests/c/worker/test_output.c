/* Answers and their slow readers, without their time: the clock is the test's
 * own, and while it goes on the reader takes what it takes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "worker/body_streamed.h"
#include "worker/handler.h"
#include "worker/exchange.h"
#include "worker/output.h"
#include "worker/pieces.h"
#include "worker/refuse.h"
#include "worker/worker_internal.h"

/* Seconds until a test that hangs is killed. */
#define PATIENCE 60

#define STEP (100 * CLOCK_MILLISECOND)
/* The kernel doubles it. A Unix socket is writable again when three quarters
 * are free: that is every 15 s for a reader of 10 KB a second, and every 7.5 s
 * for one of 20. */
#define SEND_BUFFER 100000
#define ANSWER 2000000
#define TIMEOUT (10 * CLOCK_SECOND)
/* More milliseconds than an int has. */
#define BODY_TIMEOUT (25 * UINT64_C(86400) * CLOCK_SECOND)

/* ------------------------------------------------------------------------
 * The reader and its time */

static uint64_t now = 1000 * CLOCK_SECOND;
static struct {
    int fd;
    size_t rate; /* bytes a second, of ten steps */
    size_t taken;
} reader;

int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

int
__wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    CHECK(clock == CLOCK_MONOTONIC || clock == CLOCK_THREAD_CPUTIME_ID);
    *t = (struct timespec){.tv_sec = (time_t)(now / CLOCK_SECOND),
                           .tv_nsec = (long)(now % CLOCK_SECOND)};
    return 0;
}

/* Up to so many bytes; false if there are none. */
static bool
take(size_t size)
{
    static char buffer[SEND_BUFFER];
    ssize_t n;
    CHECK(size <= sizeof buffer);
    n = size ? recv(reader.fd, buffer, size, MSG_DONTWAIT) : 0;
    reader.taken += n > 0 ? (size_t)n : 0;
    return n > 0;
}

static void
pass(void)
{
    now += STEP;
    take(reader.rate / 10);
}

int
__wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    const uint64_t end = now + (uint64_t)timeout * CLOCK_MILLISECOND;
    int n;
    CHECK(timeout >= 0); /* nobody waits for ever */
    while ((n = __real_poll(fds, count, 0)) == 0 && now < end) {
        if (reader.rate) {
            pass();
        } else {
            now = end;
        }
    }
    return n;
}

/* ------------------------------------------------------------------------
 * A worker with one connection */

typedef struct {
    Scoreboard board;
    Worker *worker;
    Thread *thread;
    Conn *conn;
    int memory, channel[2];
    int quiet[2]; /* nothing is ever to be read from them */
} Stage;

/* In pieces of so many bytes. */
static void
generate(Thread *t, Conn *c, size_t size)
{
    static const char piece[10000];
    size_t left;
    for (left = ANSWER; left != 0 && !c->gone; left -= size) {
        output_send(t, c, NULL, 0, piece, size, NULL, NULL, STREAM_PUSH);
        output_wait(t, c);
    }
}

/* So much has the reader got since the last look. */
static size_t
got(void)
{
    const size_t before = reader.taken;
    while (take(SEND_BUFFER)) {
    }
    return reader.taken - before;
}

/* What an application gives in pieces, and when it is sent. */
static void
pieces(Thread *t, Conn *c)
{
    static const char piece[PIECES_MOST];
    CHECK(output_send(t, c, piece, 100, NULL, 0, NULL, NULL, STREAM_PUSH) == 0);
    pieces_sent(t);
    CHECK(got() == 100); /* the first, at once */

    CHECK(pieces_put_off(t, c, piece, 10) && pieces_put_off(t, c, piece, 20));
    CHECK(got() == 0);
    pieces_tick(t->worker);
    CHECK(got() == 30); /* the tick */
    pieces_tick(t->worker);
    CHECK(got() == 0);

    CHECK(pieces_put_off(t, c, piece, 10));
    CHECK(pieces_put_off(t, c, piece, sizeof piece - 10));
    CHECK(!pieces_put_off(t, c, piece, 1)); /* there is enough */
    CHECK(output_send(t, c, piece, 1, NULL, 0, NULL, NULL, STREAM_PUSH) == 0);
    CHECK(got() == sizeof piece + 1);

    CHECK(pieces_put_off(t, c, piece, 5));
    CHECK(output_send(t, c, NULL, 0, piece, 1000, NULL, NULL, STREAM_PUSH) ==
          0);
    CHECK(got() == 1005); /* a large one, behind those that waited */

    CHECK(pieces_put_off(t, c, piece, 7));
    CHECK(output_send(t, c, piece, 3, NULL, 0, NULL, NULL, STREAM_PUSH) == 0);
    CHECK(got() == 10); /* the end, and no more than one packet with it */

    pass();
    CHECK(!pieces_put_off(t, c, piece, 1)); /* after a pause, at once */
    pieces_sent(t);
    CHECK(pieces_put_off(t, c, piece, 9)); /* and nobody sends these */
}

/* The socket takes less than what waited. */
static void
pieces_of_a_slow_reader(Thread *t, Conn *c)
{
    static const char piece[PIECES_MOST];
    pieces_sent(t);
    while (c->out == NULL) {
        pieces_tick(t->worker);
        if (!pieces_put_off(t, c, piece, 1000)) {
            CHECK(output_send(t, c, piece, 1000, NULL, 0, NULL, NULL,
                              STREAM_PUSH) == 0);
        }
    }
    CHECK(!pieces_put_off(t, c, piece, 1)); /* it would overtake them */
}

/* It never comes, and the wait ends neither early nor never. */
static void
read_body(Thread *t, Conn *c, Request *r)
{
    const uint64_t began = now;
    const char *words;
    char byte;
    CHECK(body_streamed_read(t, c, r, &byte, 1, &words) == -1);
    CHECK(r->refusal == 408);
    CHECK(now >= began + BODY_TIMEOUT &&
          now < began + BODY_TIMEOUT + CLOCK_SECOND);
}

static void
application(void *argument, Thread *t, Conn *c, Request *r)
{
    static const char list[ANSWER];
    const char kind = r->buffer[r->start + r->head.path.at + 1];
    int fd;
    CHECK(argument == NULL);
    c->status = 200;
    c->ending = exchange_may_keep(t->worker, c, r) ? ENDING_KEEP : ENDING_CLOSE;
    switch (kind) {
    case 'l':
        output_send(t, c, NULL, 0, list, sizeof list, NULL, NULL, STREAM_PUSH);
        break;
    case 'f':
        fd = memfd_create("file", MFD_CLOEXEC);
        CHECK(fd >= 0 && ftruncate(fd, ANSWER) == 0);
        output_send_file(t, c, fd, false, 0, ANSWER);
        break;
    case 'u':
        body_streamed_want(t, c, r);
        read_body(t, c, r);
        break;
    case 'p':
        pieces(t, c);
        break;
    case 's':
        pieces_of_a_slow_reader(t, c);
        break;
    case 'b':
        pieces_sent(t);
        CHECK(pieces_put_off(t, c, list, 10));
        c->gone = true;
        break;
    default:
        generate(t, c, kind == 't' ? 10 : 10000);
    }
}

static const Handler handler = {.serve = application};

static void
connect_by_unix(int *server, int *client)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                     ends) == 0);
    *server = ends[0];
    *client = ends[1];
}

static void
connect_by_tcp(int *server, int *client)
{
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0);
    CHECK(listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    CHECK(connect(*client, (struct sockaddr *)&address, size) == 0);
    *server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(*server >= 0);
    close(listener);
}

/* The reader asks for it and is served. */
static void
stage_open(Stage *stage, char kind, uint64_t least, uint64_t buffer,
           void (*connect_by)(int *, int *))
{
    WorkerOptions options = {
        .board = &stage->board,
        .thread_count = 1,
        .limits = {.limit_request_line = 8190,
                   .limit_request_field_size = 8190,
                   .limit_request_fields = 100,
                   .limit_request_body = UINT64_MAX,
                   .body_timeout = BODY_TIMEOUT,
                   .send_timeout = TIMEOUT,
                   .send_min_rate = least,
                   .worker_buffer = UINT64_MAX,
                   .worker_spool = UINT64_MAX,
                   .keep_alive_timeout = TIMEOUT,
                   .response_buffer = buffer},
        .handler = &handler,
        .access_log = {.fd = -1},
    };
    const ChannelItem item = {.since = now};
    const int size = SEND_BUFFER;
    const char *length = kind == 'u' ? "Content-Length: 5\r\n" : "";
    char request[80];
    int fd;
    snprintf(request, sizeof request, "GET /%c HTTP/1.1\r\nHost: a\r\n%s\r\n",
             kind, length);
    stage->memory = scoreboard_create(1, 1);
    CHECK(stage->memory >= 0 &&
          scoreboard_attach(&stage->board, stage->memory) == 0);
    stage->quiet[0] = eventfd(0, EFD_CLOEXEC);
    stage->quiet[1] = eventfd(0, EFD_CLOEXEC);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                     stage->channel) == 0);
    options.lifeline = stage->quiet[0];
    options.bell = options.signals = stage->quiet[1];
    options.channel = stage->channel[1];
    stage->worker = worker_new(&options);
    CHECK(stage->worker != NULL);
    stage->thread = threads_at(stage->worker, 0);
    stage->thread->now = now;
    connect_by(&fd, &reader.fd);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    reader.taken = 0;
    CHECK(send(reader.fd, request, strlen(request), 0) ==
          (ssize_t)strlen(request));
    stage->conn = conn_open(stage->worker, stage->thread, fd, &item);
    CHECK(stage->conn != NULL);
    exchange_run(stage->worker, stage->thread, stage->conn);
}

/* What the main thread does with it, as its time is over. */
static void
expire(Stage *stage)
{
    CHECK(!(atomic_fetch_or(&stage->conn->word, CONN_OWNED) & CONN_OWNED));
    refuse_expire(stage->worker, &stage->worker->main, stage->conn, now);
}

static bool
is_open(const Stage *stage)
{
    return stage->conn->fd >= 0;
}

/* It has events, or gave way. */
static Conn *
ready(Stage *stage)
{
    Conn *c = ready_take(stage->worker, 0);
    return c ? c : threads_poll(stage->worker, stage->thread, 0).first;
}

/* Until the answer is with the kernel, or the connection closed. */
static void
stage_write(Stage *stage)
{
    while (is_open(stage) && stage->conn->state == CONN_WRITING) {
        pass();
        if (ready(stage)) {
            exchange_run(stage->worker, stage->thread, stage->conn);
        } else if (word_get(&stage->conn->deadline) <= now) {
            expire(stage);
        }
    }
}

/* How often --send-timeout has closed it. */
static uint64_t
stage_close(Stage *stage)
{
    const uint64_t cut =
        word_get(&stage->thread->row->limited[LIMIT_SEND]) +
        word_get(&stage->worker->main.row->limited[LIMIT_SEND]);
    worker_free(stage->worker);
    scoreboard_detach(&stage->board);
    close(stage->memory);
    close(stage->quiet[0]);
    close(stage->quiet[1]);
    close(stage->channel[0]);
    close(stage->channel[1]);
    close(reader.fd);
    return cut;
}

/* ------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    char kind;       /* list, file, generator, or one of tiny pieces */
    uint64_t buffer; /* --response-buffer */
    uint64_t least;  /* --send-min-rate */
    size_t rate;     /* of the reader */
    bool whole;      /* it gets all of it */
} Case;

static const Case cases[] = {
    {"steady reader of a list", 'l', 65536, 4096, 10000, true},
    {"steady reader of a file", 'f', 65536, 4096, 10000, true},
    {"steady reader of a generator", 'g', 65536, 4096, 10000, true},
    {"the same, tiny pieces", 't', 65536, 4096, 10000, true},
    {"the same, no buffer", 'g', 0, 4096, 10000, true},
    {"the same, neither", 't', 0, 4096, 10000, true},
    {"the same, at any rate", 'g', 65536, 0, 10000, true},
    {"trickling reader of a list", 'l', 65536, 100000, 20000, false},
    {"trickling reader of a file", 'f', 65536, 100000, 20000, false},
    {"the same, at any rate", 'f', 65536, 0, 20000, true},
    {"trickling reader of a generator", 'g', 65536, 100000, 20000, false},
    {"the same, tiny pieces", 't', 65536, 100000, 20000, false},
    {"the same, no buffer", 'g', 0, 100000, 20000, false},
    {"the same, neither", 't', 0, 100000, 20000, false},
    {"the same, a large buffer", 'g', ANSWER / 2, 100000, 20000, false},
    {"no reader of a list", 'l', 65536, 4096, 0, false},
    {"no reader of a file", 'f', 65536, 4096, 0, false},
    {"no reader of a generator", 'g', 65536, 4096, 0, false},
    {"the same, at any rate", 'g', 65536, 0, 0, false},
};

static void
play(const Case *it)
{
    const uint64_t began = now;
    bool whole;
    uint64_t cut, took;
    Stage stage;
    reader.rate = it->rate;
    stage_open(&stage, it->kind, it->least, it->buffer, connect_by_unix);
    stage_write(&stage);
    whole = is_open(&stage);
    took = now - began;
    if (whole) {
        while (take(SEND_BUFFER)) {
        }
        CHECK(reader.taken == ANSWER);
    }
    cut = stage_close(&stage);
    printf("%s: %s after %d s\n", it->name, whole ? "all" : "cut",
           (int)(took / CLOCK_SECOND));
    CHECK(whole == it->whole && cut == !whole);
    /* Tricklers, with a fifth of the rate, earn a little. */
    CHECK(whole || (took >= TIMEOUT && took < 2 * TIMEOUT));
}

/* TCP tells as well, in its own time, that a reader takes something, long
 * before the socket is writable again. */
static void
play_tcp(void)
{
    int kept, left;
    Stage stage;
    reader.rate = 0;
    stage_open(&stage, 'l', 4096, 65536, connect_by_tcp);
    CHECK(stage.conn->state == CONN_WRITING);
    CHECK(ioctl(stage.conn->fd, SIOCOUTQ, &kept) == 0);
    do {
        take(1000);
        CHECK(ioctl(stage.conn->fd, SIOCOUTQ, &left) == 0);
    } while (left == kept);
    now = word_get(&stage.conn->deadline);
    expire(&stage);
    CHECK(is_open(&stage));
    while (is_open(&stage)) { /* what is on its way may still count */
        now = word_get(&stage.conn->deadline);
        expire(&stage);
    }
    CHECK(stage_close(&stage) == 1);
}

/* None is left for the answer that the thread gives next, to somebody else. */
static void
play_pieces(char kind, size_t rest)
{
    Stage stage;
    reader.rate = 10000;
    stage_open(&stage, kind, 4096, 65536, connect_by_unix);
    CHECK(stage.thread->pieces.size == 0);
    stage_write(&stage);
    got();
    CHECK(rest == SIZE_MAX ? reader.taken > SEND_BUFFER / 2
                           : reader.taken == rest);
    CHECK(reader.taken == word_get(stage.thread->row->bytes_out) +
                              word_get(stage.worker->main.row->bytes_out));
    CHECK(kind == 'b' || stage.conn->sent == reader.taken);
    CHECK(stage_close(&stage) == 0);
}

static void
play_body(void)
{
    Stage stage;
    reader.rate = 0;
    stage_open(&stage, 'u', 4096, 65536, connect_by_unix);
    CHECK(word_get(&stage.thread->row->limited[LIMIT_BODY]) == 1);
    CHECK(stage_close(&stage) == 0);
}

int
main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(PATIENCE);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        play(&cases[i]);
    }
    play_tcp();
    play_body();
    play_pieces('p', 100 + 30 + PIECES_MOST + 1 + 1005 + 10 + 9);
    play_pieces('s', SIZE_MAX);
    play_pieces('b', 0);
    return 0;
}
