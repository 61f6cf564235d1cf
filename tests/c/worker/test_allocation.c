/* Every allocation of a worker and of the supervisor's loop fails in turn.
 *
 * A scene is played until none is left that could fail: first with that one
 * allocation failing, then with all after it failing too. Each time there is
 * no crash and no leak (the sanitizers see to that), the client gets the right
 * answer, a beginning of it or a 500, and the worker is empty afterwards,
 * drains and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "worker/drain.h"
#include "worker/handler.h"
#include "worker/allocation.h"
#include "check.h"
#include "common/clock.h"
#include "descriptors.h"
#include "supervisor/dispatch.h"
#include "worker/body_streamed.h"
#include "worker/conn.h"
#include "worker/exchange.h"
#include "worker/file_answer.h"
#include "worker/found.h"
#include "worker/notes.h"
#include "worker/garbage.h"
#include "worker/output.h"
#include "worker/threads.h"
#include "worker/watch.h"
#include "worker/worker.h"

/* Seconds until a scene that hangs is killed. */
#define PATIENCE 30

static void
pair(int type, int *ours, int *theirs)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
    *ours = ends[0];
    *theirs = ends[1];
}

/* What poll says of it, within so many milliseconds. */
static short
wait_for(int fd, short events, int milliseconds)
{
    struct pollfd p = {.fd = fd, .events = events};
    CHECK(poll(&p, 1, milliseconds) >= 0);
    return p.revents;
}

/* ------------------------------------------------------------------------
 * A worker */

typedef struct {
    Scoreboard board;
    Worker *worker;
    pthread_t request_thread, main_thread;
    int memory, bell, lifeline, signals, signal_end;
    int ours, theirs; /* the channel */
} Stage;

/* Sent by "/large": more than a socket takes, so that some of it waits. */
static char large[400000];
static _Atomic int owners;

static void
drop_garbage(Worker *s)
{
    while (garbage_pop(s, 0) != NULL) {
        owners--;
    }
}

static void
send_large(Thread *t, Conn *c, const char *head)
{
    bool kept;
    owners++;
    output_send(t, c, head, strlen(head), large, sizeof large, &owners, &kept,
                STREAM_PUSH);
    if (!kept) {
        owners--;
    }
}

static void
send_file(Thread *t, Conn *c, const char *head)
{
    const int fd = memfd_create("file", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "a file\n", 7) == 7);
    if (output_send(t, c, head, strlen(head), NULL, 0, NULL, NULL,
                    STREAM_PUSH) == 0) {
        output_send_file(t, c, fd, false, 0, 7);
    } else {
        close(fd);
    }
}

/* As a mount of files does, once it has opened one. */
static void
answer_with_file(Thread *t, Conn *c, Request *r)
{
    static const FileAnswerFields none = {.lines = ""};
    const struct timespec times[2] = {{.tv_sec = 1700000000},
                                      {.tv_sec = 1700000000}};
    const int fd = memfd_create("file", MFD_CLOEXEC);
    Found found = {.type = "text/plain", .cache_control = "max-age=60"};
    CHECK(fd >= 0 && write(fd, "a file\n", 7) == 7);
    CHECK(futimens(fd, times) == 0);
    CHECK(found_stat(&found, fd, "", 1800000000));
    file_answer_send(t, c, r, &found, &none);
}

/* The application: the size of the body, then what the path asks for. */
static void
application(void *argument, Thread *t, Conn *c, Request *r)
{
    const char *path = r->buffer + r->start + r->head.path.at;
    const char *words;
    char head[40], piece[100];
    ssize_t got = 0;

    CHECK(argument == NULL);
    drop_garbage(t->worker);
    if (r->streaming) {
        do {
            got = body_streamed_read(t, c, r, piece, sizeof piece, &words);
        } while (got > 0);
    }
    CHECK(got == 0);
    if (strncmp(path, "/mounted", 8) == 0) {
        answer_with_file(t, c, r);
        return;
    }
    c->status = 200;
    c->ending = exchange_may_keep(t->worker, c, r) ? ENDING_KEEP : ENDING_CLOSE;
    snprintf(head, sizeof head, "answer %d\n", (int)r->body_size);
    if (strncmp(path, "/large", 6) == 0) {
        send_large(t, c, head);
    } else if (strncmp(path, "/file", 5) == 0) {
        send_file(t, c, head);
    } else {
        output_send(t, c, head, strlen(head), NULL, 0, NULL, NULL, STREAM_PUSH);
    }
    t->now = clock_now();
}

static const Handler handler = {.serve = application};

static void *
request_thread(void *argument)
{
    Stage *stage = argument;
    threads_serve(stage->worker, 0, NULL);
    return NULL;
}

static void *
main_thread(void *argument)
{
    Stage *stage = argument;
    WatchResult result;
    do {
        Note note;
        char byte;
        result = watch_wait(stage->worker);
        if (result == WATCH_SIGNAL) {
            CHECK(read(stage->signals, &byte, 1) == 1);
            drain_start(stage->worker, DRAIN_ALL);
        }
        while (notes_pop(stage->worker, &note)) {
            CHECK(note.level == NOTE_DEBUG || note.level == NOTE_WARNING);
        }
        drop_garbage(stage->worker);
    } while (result != WATCH_DRAINED);
    return NULL;
}

static void
stage_open(Stage *stage)
{
    stage->memory = scoreboard_create(1, 1);
    CHECK(stage->memory >= 0 &&
          scoreboard_attach(&stage->board, stage->memory) == 0);
    stage->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    stage->lifeline = eventfd(0, EFD_CLOEXEC);
    CHECK(stage->bell >= 0 && stage->lifeline >= 0);
    pair(SOCK_STREAM, &stage->signals, &stage->signal_end);
    pair(SOCK_SEQPACKET, &stage->ours, &stage->theirs);
}

static void
stage_close(Stage *stage)
{
    const int all[] = {stage->memory,  stage->bell,       stage->lifeline,
                       stage->signals, stage->signal_end, stage->ours,
                       stage->theirs};
    scoreboard_detach(&stage->board);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        close(all[i]);
    }
}

/* False if there was no memory for it. */
static bool
stage_start(Stage *stage, bool streamed, const Mounts *mounts)
{
    const WorkerOptions options = {
        .board = &stage->board,
        .thread_count = 1,
        .channel = stage->theirs,
        .bell = stage->bell,
        .lifeline = stage->lifeline,
        .signals = stage->signals,
        .limits = {.limit_request_line = 8190,
                   .limit_request_field_size = 8190,
                   .limit_request_fields = 100,
                   .header_timeout = PATIENCE * CLOCK_SECOND,
                   .body_timeout = PATIENCE * CLOCK_SECOND,
                   .send_timeout = PATIENCE * CLOCK_SECOND,
                   .worker_buffer = UINT64_MAX,
                   .worker_spool = UINT64_MAX,
                   .keep_alive_timeout = PATIENCE * CLOCK_SECOND,
                   .limit_request_body = 100000,
                   .body_buffer = 3000,
                   .response_buffer = 1 << 20,
                   .request_buffering = !streamed},
        .handler = &handler,
        .access_log = {.fd = -1},
        .mounts = mounts,
    };
    stage->worker = worker_new(&options);
    if (stage->worker == NULL) {
        CHECK(errno == ENOMEM);
        return false;
    }
    CHECK(pthread_create(&stage->request_thread, NULL, request_thread, stage) ==
          0);
    CHECK(pthread_create(&stage->main_thread, NULL, main_thread, stage) == 0);
    return true;
}

/* Drain it. It hands back what is idle and has nothing left. */
static void
stage_end(Stage *stage)
{
    ChannelMessage m;
    CHECK(write(stage->signal_end, "", 1) == 1);
    CHECK(pthread_join(stage->main_thread, NULL) == 0);
    CHECK(pthread_join(stage->request_thread, NULL) == 0);
    worker_free(stage->worker);
    while (channel_receive(stage->ours, &m) > 0) {
        for (uint32_t i = 0; i < m.header.count; i++) {
            close(m.fds[i]);
        }
    }
    CHECK(owners == 0);
    CHECK(atomic_load(&stage->board.loads[0].load) == 0);
    CHECK(atomic_load(&stage->board.loads[0].connections) == 0);
    for (uint32_t state = 0; state < 4; state++) {
        uint64_t seen = 0; /* each row adds and takes off, in sum nothing */
        for (uint32_t thread = 0; thread < 2; thread++) {
            seen += word_get(&stage->board.threads[thread].connections[state]);
        }
        CHECK(seen == 0);
    }
}

/* ------------------------------------------------------------------------
 * Its client */

#define PIECES 4

typedef struct {
    const char *name;
    const char *send[PIECES];
    const char *answer;
    size_t large; /* so many bytes of `large` follow, then */
    const char *answer_after;
    bool streamed;
    bool grouped; /* another group is at /other */
} Scene;

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n"
#define B10 "0123456789"
#define B100 B10 B10 B10 B10 B10 B10 B10 B10 B10 B10
#define B1000 B100 B100 B100 B100 B100 B100 B100 B100 B100 B100
#define FIELD "X: " B1000 B1000 B1000 B1000 B1000 B1000 B1000 B1000 B100 "\r\n"

#define MOUNTED "GET /mounted HTTP/1.1\r\nHost: a\r\n"
#define VALIDATORS                                                    \
    "ETag: \"17979cfe362a0000-7\"\r\n"                                \
    "Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\nCache-Control: " \
    "max-age=60\r\n"
#define REPRESENTATION                                     \
    "Content-Type: text/plain\r\nAccept-Ranges: bytes\r\n" \
    "X-Content-Type-Options: nosniff\r\n"

/* Ours is at /, another one at /other. */
static Mounts *two_groups;

static void
two_groups_make(void)
{
    static const Mount mounts[] = {
        {.host = {.text = ""}, .path = {.text = ""}},
        {.host = {.text = ""},
         .path = {.text = "/other", .size = 6},
         .application = MOUNT_NONE,
         .group = 1},
    };
    two_groups = mounts_new(mounts, 2);
    CHECK(two_groups != NULL);
}

static const Scene scenes[] = {
    {"small", {GET("/")}, "answer 0\n", 0, "", false, false},
    {"head in pieces",
     {"GET / HT", "TP/1.1\r\nHost: a\r\nX: " B1000 B100,
      "\r\nY: " B1000 B1000 "\r\n", "\r\n"},
     "answer 0\n",
     0,
     "",
     false,
     false},
    {"body",
     {POST "Content-Length: 1020\r\n\r\n" B10, B1000, B10 GET("/")},
     "answer 1020\n",
     0,
     "answer 0\n",
     false,
     false},
    {"chunks",
     {CHUNKED "\r\n", "3e8\r\n" B1000, "\r\n64\r\n" B100 "\r\n",
      "0\r\n\r\n" GET("/") GET("/")},
     "answer 1100\n",
     0,
     "answer 0\nanswer 0\n",
     false,
     false},
    {"chunks and more at once",
     {CHUNKED "\r\n1\r\n0\r\n0\r\n\r\n" GET("/") GET("/")},
     "answer 1\n",
     0,
     "answer 0\nanswer 0\n",
     false,
     false},
    {"spooled",
     {POST "Content-Length: 4000\r\n\r\n", B1000, B1000 B1000 B1000},
     "answer 4000\n",
     0,
     "",
     false,
     false},
    {"spooled chunks",
     {CHUNKED "\r\n7d0\r\n" B1000, B1000 "\r\n7d0\r\n", B1000 B1000 "\r\n",
      "0\r\n\r\n"},
     "answer 4000\n",
     0,
     "",
     false,
     false},
    {"streamed",
     {POST "Content-Length: 1020\r\n\r\n" B10, B1000, B10 GET("/")},
     "answer 1020\n",
     0,
     "answer 0\n",
     true,
     false},
    {"streamed chunks",
     {CHUNKED "X: " B100 B10, "\r\n\r\n", "3e8\r\n" B1000,
      "\r\n0\r\n\r\n" GET("/")},
     "answer 1000\n",
     0,
     "answer 0\n",
     true,
     false},
    {"streamed chunks behind a head that fills its buffer",
     /* 1024 bytes */
     {CHUNKED "X: " B100 B10,
      B100 B100 B100 B100 B100 B100 B100 B100 B10 B10 B10 B10 B10 "012\r\n\r\n",
      "3e8\r\n" B1000, "\r\n0\r\n\r\n" GET("/")},
     "answer 1000\n",
     0,
     "answer 0\n",
     true,
     false},
    {"streamed chunks behind a head of the largest size",
     {CHUNKED FIELD FIELD FIELD FIELD FIELD FIELD FIELD FIELD
      "\r\n1\r\n0\r\n0\r\n\r\n",
      GET("/large") CHUNKED FIELD FIELD FIELD FIELD FIELD FIELD FIELD FIELD
      "\r\n1\r\n0\r\n0\r\n\r\n" POST "Content-Length: 1000\r\n\r\n" B1000},
     "answer 1\nanswer 0\n",
     sizeof large,
     "answer 1\nanswer 1000\n",
     true,
     false},
    {"file", {GET("/file")}, "answer 0\na file\n", 0, "", false, false},
    {"mounted files",
     {GET("/mounted"),
      MOUNTED "Range: bytes=2-5\r\n\r\n" MOUNTED "If-None-Match: *\r\n\r\n",
      MOUNTED "Range: bytes=7-\r\n\r\n"},
     "HTTP/1.1 200 OK\r\n" VALIDATORS REPRESENTATION
     "Content-Length: 7\r\n\r\na file\n"
     "HTTP/1.1 206 Partial Content\r\n" VALIDATORS REPRESENTATION
     "Content-Range: bytes 2-5/7\r\nContent-Length: 4\r\n\r\nfile"
     "HTTP/1.1 304 Not Modified\r\n" VALIDATORS "\r\n",
     0,
     "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */7\r\n"
     "Content-Type: text/plain\r\nContent-Length: 26\r\n\r\n"
     "416 Range Not Satisfiable\n",
     false,
     false},
    /* A head that is peeked is received as a whole, so each piece has one. */
    {.name = "groups",
     .send = {GET("/") POST "Content-Length: 1020\r\n\r\n" B10, B1000,
              B10 GET("/")},
     .answer = "answer 0\nanswer 1020\n",
     .answer_after = "answer 0\n",
     .grouped = true},
    {.name = "groups, and chunks with a request of ours behind",
     .send = {CHUNKED "\r\n3e8\r\n" B1000, "\r\n0\r\n\r\n" GET("/")},
     .answer = "answer 1000\n",
     .answer_after = "answer 0\n",
     .grouped = true},
    {.name = "groups, and a head of more than what is peeked",
     .send = {"GET / HTTP/1.1\r\nHost: a\r\n" FIELD FIELD "Y: " B1000
              "\r\n\r\n"},
     .answer = "answer 0\n",
     .answer_after = "",
     .grouped = true},
    {"large",
     {GET("/large") GET("/file")},
     "answer 0\n",
     sizeof large,
     "answer 0\na file\n",
     false,
     false},
};

/* Send the worker a connection, as the supervisor does. The client's end. */
static int
connect_to(Stage *stage)
{
    static ChannelMessage m;
    const int small = 4096;
    /* An answer that is shorter than expected is shown, not waited for. */
    const struct timeval patience = {.tv_sec = PATIENCE / 2};
    int client, end;
    pair(SOCK_STREAM, &client, &end);
    CHECK(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience,
                     sizeof patience) == 0);
    CHECK(setsockopt(end, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    m.header = (ChannelHeader){.kind = CHANNEL_DISPATCH, .count = 1};
    m.items[0] = (ChannelItem){.since = clock_now()};
    m.fds[0] = end;
    atomic_fetch_add(&stage->board.loads[0].load, 1);
    atomic_fetch_add(&stage->board.loads[0].connections, 1);
    CHECK(channel_send(stage->ours, &m.batch) == 0);
    close(end);
    return client;
}

/* Send the pieces, each when the worker has taken the one before. */
static void
send_pieces(int client, const char *const *pieces)
{
    for (size_t i = 0; i < PIECES && pieces[i] != NULL; i++) {
        int left;
        CHECK(ioctl(client, SIOCOUTQ, &left) == 0);
        while (left != 0 && wait_for(client, POLLRDHUP, 1) == 0) {
            CHECK(ioctl(client, SIOCOUTQ, &left) == 0);
        }
        send(client, pieces[i], strlen(pieces[i]), MSG_NOSIGNAL);
    }
}

/* As much of it as was read. */
static bool
is_refusal(const char *got, size_t size)
{
    static const char start[] = "HTTP/1.1 500 ";
    return strncmp(got, start,
                   size < sizeof start - 1 ? size : sizeof start - 1) == 0;
}

/* Read `size` bytes, fewer if the connection ends before. */
static size_t
receive(int client, char *to, size_t size)
{
    size_t got = 0;
    ssize_t n;
    do {
        n = recv(client, to + got, size - got, 0);
        got += n > 0 ? (size_t)n : 0;
    } while (n > 0 && got < size);
    return got;
}

/* The answers are those of the scene; if memory failed they may end early. */
static void
check_answers(const Scene *scene, int client)
{
    static char expected[sizeof large + 2000], got[sizeof expected];
    size_t size, same = 0;
    char *end = stpcpy(expected, scene->answer);
    end = mempcpy(end, large, scene->large);
    end = stpcpy(end, scene->answer_after);
    size = receive(client, got, (size_t)(end - expected));
    while (same < size && got[same] == expected[same]) {
        same++;
    }
    CHECK(same == size ||
          (allocation_failed() && is_refusal(got + same, size - same)));
    CHECK(same == (size_t)(end - expected) || allocation_failed());
}

static void
play(const Scene *scene)
{
    Stage stage;
    stage_open(&stage);
    if (stage_start(&stage, scene->streamed,
                    scene->grouped ? two_groups : NULL)) {
        const int client = connect_to(&stage);
        send_pieces(client, scene->send);
        check_answers(scene, client);
        if (allocation_failed()) { /* it may wait for us to have read a 500 */
            shutdown(client, SHUT_RDWR);
        }
        stage_end(&stage);
        close(client);
    }
    stage_close(&stage);
}

/* ------------------------------------------------------------------------
 * The supervisor's loop */

/* So many that the table of connections grows twice. */
#define CLIENTS 140

static int
listener_open(struct sockaddr_un *address, socklen_t *size)
{
    const int fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *size = sizeof *address;
    CHECK(fd >= 0);
    /* The kernel chooses an abstract name. */
    CHECK(bind(fd, (struct sockaddr *)address, sizeof(sa_family_t)) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)address, size) == 0);
    CHECK(listen(fd, CLIENTS) == 0);
    return fd;
}

static void
turn(Dispatch *d)
{
    DispatchEvent event; /* only that a worker is wanted, at the end */
    const int n = dispatch_wait(d, clock_now() + CLOCK_MILLISECOND, &event, 1);
    CHECK(n == 0 || (n == 1 && event.kind == DISPATCH_WANTED));
}

/* Accept them all, dispatch some and take those back. */
static void
circulate(Dispatch *d, Scoreboard *board, const int *clients)
{
    uint32_t closed = 0;
    dispatch_enable(d, 0, true);
    atomic_store(&board->loads[0].limit, 10);
    do {
        turn(d);
    } while (word_get(board->supervisor->accepted) < CLIENTS);
    dispatch_enable(d, 0, false);
    dispatch_reclaim(d, 0);
    turn(d);
    for (size_t i = 0; i < CLIENTS; i++) {
        closed += wait_for(clients[i], POLLRDHUP, 0) != 0;
    }
    CHECK(closed == 0 || allocation_failed());
    CHECK(dispatch_queued(d) + word_get(board->supervisor->parked) + closed ==
          CLIENTS);
}

static void
play_supervisor(const Scene *none)
{
    const DispatchLimits limits = {.header_timeout = PATIENCE * CLOCK_SECOND,
                                   .keep_alive_timeout =
                                       PATIENCE * CLOCK_SECOND,
                                   .queue_timeout = PATIENCE * CLOCK_SECOND,
                                   .queue_size = CLIENTS};
    struct sockaddr_un address;
    socklen_t size;
    const int listener = listener_open(&address, &size);
    int clients[CLIENTS];
    Stage stage;
    Dispatch *d;

    CHECK(none == NULL);
    stage_open(&stage);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(connect(clients[i], (struct sockaddr *)&address, size) == 0);
        CHECK(i % 2 == 0 || send(clients[i], "G", 1, 0) == 1);
    }
    d = dispatch_new(&stage.board, &limits, &listener, 1);
    if (d == NULL) {
        CHECK(errno == ENOMEM);
    } else if (dispatch_channel(d, 0, stage.ours, stage.theirs) < 0) {
        CHECK(errno == ENOMEM);
    } else {
        circulate(d, &stage.board, clients);
    }
    if (d != NULL) {
        dispatch_free(d);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        close(clients[i]);
    }
    close(listener);
    stage_close(&stage);
}

/* ------------------------------------------------------------------------ */

static void
sweep(void (*play_it)(const Scene *), const Scene *scene, const char *name)
{
    const Failing ways[] = {FAIL_ONCE, FAIL_ON};
    for (size_t i = 0; i < 2; i++) {
        const int held = descriptors_open();
        long number = -1;
        do {
            alarm(PATIENCE);
            allocation_fail(++number, ways[i]);
            play_it(scene);
            if (descriptors_open() != held) {
                fprintf(stderr, "%s, allocation %ld: descriptors leak\n", name,
                        number);
                abort();
            }
        } while (allocation_failed());
        allocation_restore();
        alarm(0);
        printf("%s: %ld allocations\n", name, number);
        CHECK(number > 0);
    }
}

int
main(void)
{
    memset(large, 'x', sizeof large);
    two_groups_make();
    sweep(play_supervisor, NULL, "supervisor");
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        sweep(play, &scenes[i], scenes[i].name);
    }
    mounts_free(two_groups);
    return 0;
}
