/* Does a request on a connection that its worker has kept give way to those
 * that wait in the supervisor? */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "descriptors.h"
#include "worker/exchange.h"
#include "worker/worker_internal.h"

static void
application(void *argument, Thread *t, Conn *c, Request *r)
{
    CHECK(argument == NULL);
    c->status = 200;
    c->keep = exchange_may_keep(t->worker, c, r);
}

static void
ask(int client, const char *path)
{
    CHECK(dprintf(client, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path) > 0);
}

typedef struct {
    const char *path;
    uint64_t calls; /* what those of this worker take */
    bool knows;     /* what /long takes? */
    int64_t turn;   /* of who waits, after the request came; 0: nobody waits */
    bool gives_way;
} Case;

static const Case cases[] = {
    {"/long", CLOCK_MILLISECOND, true, 0, false},
    {"/long", CLOCK_MILLISECOND, true, CLOCK_SECOND, true},
    {"/short", CLOCK_MILLISECOND, true, CLOCK_SECOND, false},
    /* Going to and fro would take as long. */
    {"/short", CLOCK_MILLISECOND, true, -(int64_t)CLOCK_MILLISECOND, false},
    {"/short", CLOCK_MILLISECOND, true, -(int64_t)CLOCK_SECOND, true},
    {"/short", CLOCK_MILLISECOND, false, CLOCK_SECOND, true},
    {"/long", CLOCK_MILLISECOND / 10, true, -(int64_t)CLOCK_SECOND, false},
};

static bool
gives_way(const Case *it)
{
    Scoreboard board;
    WorkerOptions options = {
        .board = &board,
        .thread_count = 1,
        .limits = {.head = {.line = 8190,
                            .field_size = 8190,
                            .fields = 100,
                            .head = 65535},
                   .keep_alive_timeout = CLOCK_SECOND},
        .application = application,
    };
    const int memory = scoreboard_create(1, 1);
    int ends[2], channel[2];
    ChannelItem item = {.since = clock_now()};
    ScheduleMeter meter = {0};
    ChannelMessage m;
    bool back;
    Worker *w;
    Thread *t;
    Conn *c;

    CHECK(memory >= 0 && scoreboard_attach(&board, memory) == 0);
    atomic_store(&board.forecast->factor, 10);
    if (it->knows)
        forecast_learn(board.forecast, "GET", 3, "/long", 5, CLOCK_SECOND);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                     ends) == 0);
    options.channel = channel[1];
    options.bell = options.signals = eventfd(0, EFD_CLOEXEC);
    options.lifeline = eventfd(0, EFD_CLOEXEC);
    w = worker_new(&options);
    CHECK(w != NULL);
    t = threads_at(w, 0);
    t->now = clock_now();
    for (int i = 0; i < 100; i++) {
        const bool measured = schedule_runs(worker_schedule(w), &meter);
        schedule_ran(worker_schedule(w), &meter, it->calls, measured, it->calls,
                     0);
    }

    /* Its first request was sent here; with its second it was kept. */
    ask(ends[1], "/first");
    c = conn_open(w, t, ends[0], &item);
    CHECK(c != NULL);
    exchange_run(w, t, c);
    CHECK(c->state == CONN_IDLE && !c->counted);
    ask(ends[1], it->path);
    c = threads_poll(w, t, 0).first;
    CHECK(c != NULL);
    if (it->turn)
        atomic_store(&board.notice->turn, c->ready + (uint64_t)it->turn);
    exchange_run(w, t, c);

    back = channel_receive(channel[0], &m) > 0;
    CHECK(back == (c->state == CONN_FREE));
    if (back) {
        CHECK(m.header.kind == CHANNEL_HAND_BACK && m.header.count == 1);
        CHECK(m.items[0].request_waits);
        close(m.fds[0]);
    }
    worker_free(w);
    scoreboard_detach(&board);
    close(memory);
    close(options.bell);
    close(options.lifeline);
    close(channel[0]);
    close(channel[1]);
    close(ends[1]);
    return back;
}

static void
test_who_gives_way(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(gives_way(&cases[i]) == cases[i].gives_way);
    }
}

int
main(void)
{
    RUN(test_who_gives_way);
    return 0;
}
