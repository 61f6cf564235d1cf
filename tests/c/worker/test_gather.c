/* Which finished answers wait for others, and until when. */
#include "worker/gather.h"

#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "descriptors.h"
#include "worker/worker_internal.h"

#define CALL (250 * LADDER_MICROSECOND)

typedef struct {
    Scoreboard board;
    Worker *worker;
    Thread *thread;
    Conn conn, next;
    Request request;
} Setup;

/* A thread has finished an answer of three bytes, whose request waited for so
 * long; another request waits. */
static Setup *
setup_open(uint64_t waited)
{
    Setup *s = calloc(1, sizeof *s);
    const int fd = scoreboard_create(1, 1);
    CHECK(s != NULL && scoreboard_attach(&s->board, fd) == 0);
    close(fd);
    Worker *w = s->worker = calloc(1, sizeof *w);
    Thread *t = s->thread = calloc(1, sizeof *t);
    CHECK(w != NULL && t != NULL);
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_init(&t->pieces.lock, NULL);
    w->o.board = &s->board;
    w->o.limits.worker_buffer = 1;
    schedule_init(&w->schedule, 1, 1);
    atomic_store(&w->schedule.mean, CALL);
    t->worker = w;
    t->row = s->board.threads;
    t->now = CLOCK_SECOND;
    t->queued = waited;
    CHECK(buffer_add(&t->out, "abc", 3) == 0);
    s->conn = (Conn){.fd = -1, .state = CONN_RUNNING, .ending = ENDING_KEEP};
    s->next = (Conn){.fd = -1, .state = CONN_IDLE, .ready = 1};
    s->next.rank = 1;
    Chain chain = {NULL, NULL};
    ready_chain(&chain, &s->next);
    ready_push(w, chain);
    ready_tell(w);
    return s;
}

static void
setup_close(Setup *s)
{
    output_discard(s->worker, &s->conn);
    buffer_clear(&s->thread->out);
    scoreboard_detach(&s->board);
    free(s->worker);
    free(s->thread);
    free(s);
}

static bool
puts_off(Setup *s)
{
    const bool result = gather_puts_off(s->thread, &s->conn, &s->request);
    CHECK(result == (s->conn.out != NULL));
    return result;
}

static void
add(Setup *s, Conn *c)
{
    CHECK(gather_add(s->thread, c));
}

static void
test_an_answer_waits_if_the_thread_is_back_in_time(void)
{
    static const struct {
        uint64_t waited;
        bool waits;
    } cases[] = {
        {0, false},
        {4 * CALL - 4, false},
        {4 * CALL, true},
        {100 * LADDER_TICK, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Setup *s = setup_open(cases[i].waited);
        CHECK(puts_off(s) == cases[i].waits);
        setup_close(s);
    }
}

static void
test_no_longer_than_a_tick(void)
{
    Setup *s = setup_open(100 * LADDER_TICK);
    atomic_store(&s->worker->schedule.mean, LADDER_TICK);
    CHECK(puts_off(s));
    setup_close(s);
    s = setup_open(100 * LADDER_TICK);
    atomic_store(&s->worker->schedule.mean, LADDER_TICK + 1);
    CHECK(!puts_off(s));
    setup_close(s);
}

/* To a client that is still awake, and where nobody knows what calls take. */
static void
test_not_where_calls_are_short(void)
{
    Setup *s = setup_open(LADDER_TICK);
    atomic_store(&s->worker->schedule.mean, LADDER_BLOCKED - 1);
    CHECK(!puts_off(s));
    atomic_store(&s->worker->schedule.mean, 0);
    CHECK(!puts_off(s));
    atomic_store(&s->worker->schedule.mean, LADDER_BLOCKED);
    CHECK(puts_off(s));
    setup_close(s);
}

static void
spoil_nothing(Setup *s)
{
    (void)s;
}

static void
spoil_queue(Setup *s)
{
    CHECK(ready_take(s->worker, s->thread->now) == &s->next);
    ready_tell(s->worker);
}

static void
spoil_keeping(Setup *s)
{
    s->conn.ending = ENDING_CLOSE;
}

static void
spoil_client(Setup *s)
{
    s->conn.gone = true;
}

static void
spoil_order(Setup *s)
{
    s->request.size = 1; /* a byte of the next one lies behind it */
}

static void
spoil_body(Setup *s)
{
    s->request.streaming = true;
}

static void
spoil_memory(Setup *s)
{
    word_set(s->board.workers[0].buffered, 1);
}

static void
spoil_place(Setup *s)
{
    s->worker->gathered = (Gathered){.count = GATHER_MOST, .due = UINT64_MAX};
}

static void
spoil_hurry(Setup *s)
{
    s->worker->gathered =
        (Gathered){.count = 1, .due = s->thread->now + CALL - 1};
}

static void
test_only_whole_answers_of_connections_that_go_on_wait(void)
{
    static const struct {
        void (*spoil)(Setup *s);
        bool waits;
    } cases[] = {
        {spoil_nothing, true}, {spoil_queue, false}, {spoil_keeping, false},
        {spoil_client, false}, {spoil_order, false}, {spoil_body, false},
        {spoil_memory, false}, {spoil_place, false}, {spoil_hurry, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Setup *s = setup_open(LADDER_TICK);
        cases[i].spoil(s);
        CHECK(puts_off(s) == cases[i].waits);
        s->worker->gathered = (Gathered){.count = 0};
        setup_close(s);
    }
}

static void
test_none_waits_where_no_tick_would_come(void)
{
    Setup *s = setup_open(8 * CALL);
    CHECK(puts_off(s));
    atomic_store(&s->worker->away, true); /* just now */
    CHECK(!gather_add(s->thread, &s->conn));
    CHECK(!s->thread->puts_off && s->worker->gathered.count == 0);
    output_discard(s->worker, &s->conn);
    CHECK(!puts_off(s));
    setup_close(s);
}

static void
test_all_go_when_the_first_must(void)
{
    Setup *s = setup_open(8 * CALL);
    Worker *w = s->worker;
    Thread *t = s->thread;
    CHECK(!gather_is_due(w, t->now));
    CHECK(puts_off(s));
    add(s, &s->conn);
    CHECK(!t->puts_off && w->gathered.count == 1);
    CHECK(w->gathered.due == t->now + 2 * CALL);
    CHECK(!gather_is_due(w, t->now + CALL));
    CHECK(gather_is_due(w, t->now + CALL + 1));
    /* Its own request has waited less. */
    t->queued = 4 * CALL;
    add(s, &s->conn);
    CHECK(w->gathered.due == t->now + CALL);
    t->queued = 8 * CALL;
    add(s, &s->conn);
    CHECK(w->gathered.due == t->now + CALL);
    CHECK(!gather_is_due(w, t->now));
    CHECK(word_get(s->board.workers[0].gathered) == 3);
    /* Nobody waits: the thread would not come by. */
    spoil_queue(s);
    CHECK(gather_is_due(w, t->now));
    setup_close(s);
}

static void
test_they_do_not_wait_for_a_slow_one(void)
{
    Setup *s = setup_open(8 * CALL);
    CHECK(puts_off(s));
    add(s, &s->conn);
    CHECK(!gather_is_due(s->worker, s->thread->now));
    spoil_queue(s);
    s->next.lane = READY_SLOW;
    Chain chain = {NULL, NULL};
    ready_chain(&chain, &s->next);
    ready_push(s->worker, chain);
    CHECK(gather_is_due(s->worker, s->thread->now));
    setup_close(s);
}

/* What is left of them when the first are due, the main thread must look after:
 * nobody else may come by. */
static void
test_the_main_thread_looks_again_while_any_are_left(void)
{
    Setup *s = setup_open(8 * CALL);
    Worker *w = s->worker;
    w->main.worker = w;
    w->main.now = s->thread->now;
    CHECK(!gather_tick(w));
    w->gathered = (Gathered){.count = 1, .due = w->main.now + 1};
    CHECK(gather_tick(w));
    w->main.now++;
    CHECK(!gather_tick(w) && w->gathered.count == 0);
    w->gathered = (Gathered){.count = 1, .due = w->main.now + 1};
    gather_pause(w);
    CHECK(w->gathered.count == 0);
    setup_close(s);
}

int
main(void)
{
    RUN(test_an_answer_waits_if_the_thread_is_back_in_time);
    RUN(test_no_longer_than_a_tick);
    RUN(test_not_where_calls_are_short);
    RUN(test_only_whole_answers_of_connections_that_go_on_wait);
    RUN(test_none_waits_where_no_tick_would_come);
    RUN(test_all_go_when_the_first_must);
    RUN(test_they_do_not_wait_for_a_slow_one);
    RUN(test_the_main_thread_looks_again_while_any_are_left);
    return 0;
}
