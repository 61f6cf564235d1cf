/* The ready connections of a worker: whose turn it is, who leaves a place to
 * whom, and what others see of those that wait. */
#include "worker/ready.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "common/path_times.h"
#include "descriptors.h"
#include "worker/worker_internal.h"

#define SLOW "GET /slow HTTP/1.1\r\n\r\n"
#define FAST "GET /fast HTTP/1.1\r\n\r\n"
#define SLOW_TAKES (10 * CLOCK_MILLISECOND)
#define TIMES 10

enum { MOST = 8 };

typedef struct {
    Scoreboard board;
    Worker *worker;
    Conn conns[MOST];
    int clients[MOST];
    uint32_t count;
    uint64_t now;
} Setup;

static Setup *
setup_open(void)
{
    Setup *s = calloc(1, sizeof *s);
    const int fd = scoreboard_create(1, 1);
    CHECK(s != NULL && scoreboard_attach(&s->board, fd) == 0);
    close(fd);
    s->worker = calloc(1, sizeof *s->worker);
    CHECK(s->worker != NULL);
    s->worker->o.board = &s->board;
    atomic_store(&s->board.path_times->factor, TIMES);
    atomic_store(&s->board.path_times->patience, CLOCK_SECOND);
    path_times_learn(s->board.path_times, "GET", 3, "/slow", 5, SLOW_TAKES);
    return s;
}

static void
setup_close(Setup *s)
{
    for (uint32_t i = 0; i < s->count; i++) {
        close(s->clients[i]);
        close(s->conns[i].fd);
    }
    scoreboard_detach(&s->board);
    free(s->worker);
    free(s);
}

/* A connection becomes ready, its request unread. */
static Conn *
comes(Setup *s, const char *text, uint64_t ready, bool sent)
{
    Conn *c = &s->conns[s->count];
    Chain chain = {NULL, NULL};
    int ends[2];
    CHECK(s->count < MOST);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK(send(ends[1], text, strlen(text), 0) == (ssize_t)strlen(text));
    s->clients[s->count++] = ends[1];
    *c = (Conn){.fd = ends[0], .state = CONN_IDLE, .ready = ready};
    c->counted = sent;
    ready_judge(s->worker, c, true, ready);
    ready_chain(&chain, c);
    ready_push(s->worker, chain);
    ready_tell(s->worker);
    return c;
}

static Conn *
taken(Setup *s)
{
    Conn *c = ready_take(s->worker, s->now);
    ready_tell(s->worker);
    return c;
}

static uint64_t
told(const Setup *s)
{
    return word_get(s->board.workers[0].waiting);
}

static uint64_t
told_since(const Setup *s)
{
    return word_get(s->board.workers[0].waiting_since);
}

static void
test_fast_requests_overtake_slow_ones_for_a_while(void)
{
    Setup *s = setup_open();
    Conn *slow = comes(s, SLOW, 1, false);
    Conn *fast = comes(s, FAST, 2, false);
    Conn *late = comes(s, FAST, 2 + TIMES * SLOW_TAKES, false);
    CHECK(taken(s) == fast);
    CHECK(taken(s) == slow);
    CHECK(taken(s) == late);
    CHECK(taken(s) == NULL && s->worker->ready.count == 0);
    setup_close(s);
}

static void
test_slow_requests_are_begun_apart_if_that_keeps_a_thread_for_fast_ones(void)
{
    Setup *s = setup_open();
    const uint64_t apart = SLOW_TAKES / 8 / 4 * 3;
    s->worker->o.thread_count = 8;
    s->now = 100 * CLOCK_SECOND;
    comes(s, SLOW, s->now, false);
    Conn *second = comes(s, SLOW, s->now, false);
    CHECK(ready_pause(s->worker, s->now) == 0); /* none before it */
    taken(s);
    CHECK(ready_pause(s->worker, s->now) == apart);
    CHECK(ready_pause(s->worker, s->now + apart - 1) == 1);
    CHECK(ready_pause(s->worker, s->now + apart) == 0);
    s->worker->o.thread_count = 2; /* a tick, however long they take */
    CHECK(ready_pause(s->worker, s->now) == LADDER_TICK);
    s->worker->o.thread_count = 1; /* it would be kept from all */
    CHECK(ready_pause(s->worker, s->now) == 0);
    s->worker->o.thread_count = 2;
    Conn *fast = comes(s, FAST, s->now, false);
    CHECK(ready_pause(s->worker, s->now) == 0); /* a fast one is first */
    CHECK(taken(s) == fast);
    CHECK(ready_pause(s->worker, s->now) == LADDER_TICK);
    CHECK(taken(s) == second);
    CHECK(ready_pause(s->worker, s->now) == 0); /* nobody waits */
    setup_close(s);
}

static void
test_what_was_sent_goes_by_its_age(void)
{
    Setup *s = setup_open();
    Conn *kept = comes(s, FAST, 5, false);
    Conn *sent = comes(s, FAST, 3, true);
    CHECK(taken(s) == sent);
    CHECK(taken(s) == kept);
    setup_close(s);
}

static void
test_a_slow_one_that_was_sent_goes_before_slow_ones_that_came_later(void)
{
    Setup *s = setup_open();
    Conn *kept = comes(s, SLOW, 5, false);
    Conn *sent = comes(s, SLOW, 3, true);
    Conn *fast = comes(s, FAST, 7, false);
    CHECK(word_get(s->board.workers[0].waiting_slow_rank) == kept->rank);
    CHECK(word_get(s->board.workers[0].waiting_rank) == fast->rank);
    /* It does not go back because it has waited for long: it was sent. */
    CHECK(ready_kept_since(s->worker) == 5);
    CHECK(taken(s) == fast);
    CHECK(taken(s) == sent);
    CHECK(word_get(s->board.workers[0].waiting_rank) == kept->rank);
    CHECK(taken(s) == kept);
    CHECK(word_get(s->board.workers[0].waiting_slow_rank) == 0);
    setup_close(s);
}

static void
test_what_was_read_in_part_waits_behind_those_that_are_here(void)
{
    Setup *s = setup_open();
    Conn *kept = comes(s, FAST, 5, false);
    Conn *reading = comes(s, FAST, 1, true);
    Chain chain = {NULL, NULL};
    CHECK(taken(s) == reading);
    reading->state = CONN_BODY; /* its slice is over */
    ready_judge(s->worker, reading, true, 9);
    ready_chain(&chain, reading);
    ready_push(s->worker, chain);
    CHECK(taken(s) == kept);
    CHECK(taken(s) == reading);
    setup_close(s);
}

static void
test_others_see_how_many_wait_and_since_when(void)
{
    Setup *s = setup_open();
    CHECK(told(s) == 0 && told_since(s) == 0);
    comes(s, FAST, 7, false);
    comes(s, SLOW, 5, false);
    comes(s, FAST, 6, true);
    CHECK(told(s) == 3 && told_since(s) == 5);
    CHECK(word_get(s->board.workers[0].waiting_rank) == 7); /* the kept one's */
    taken(s);
    taken(s);
    CHECK(told(s) == 1 && told_since(s) == 5);
    taken(s);
    CHECK(told(s) == 0 && told_since(s) == 0);
    CHECK(s->worker->ready.begun == 3);
    setup_close(s);
}

static void
test_who_leaves_for_another_worker(void)
{
    Setup *s = setup_open();
    Conn *first = comes(s, FAST, 3, false);
    Conn *newest = comes(s, FAST, 9, true);
    Conn *oldest = comes(s, SLOW, 1, false);
    Conn *reading = comes(s, FAST, 2, true);
    reading->state = CONN_HEAD; /* it cannot leave */
    s->worker->ready.waiting--;
    CHECK(ready_take_older(s->worker, 0) == NULL);
    CHECK(ready_kept_since(s->worker) == 1);
    CHECK(ready_take_older(s->worker, 2) == oldest);
    CHECK(ready_take_newest(s->worker) == newest);
    CHECK(ready_kept_since(s->worker) == 3);
    CHECK(ready_take_kept(s->worker) == first);
    CHECK(ready_take_kept(s->worker) == NULL);
    CHECK(ready_kept_since(s->worker) == UINT64_MAX);
    first = comes(s, FAST, 3, false);
    CHECK(ready_take_first(s->worker) == first);
    CHECK(ready_take_first(s->worker) == NULL);
    CHECK(s->worker->ready.waiting == 0);
    CHECK(taken(s) == reading);
    setup_close(s);
}

int
main(void)
{
    RUN(test_fast_requests_overtake_slow_ones_for_a_while);
    RUN(test_slow_requests_are_begun_apart_if_that_keeps_a_thread_for_fast_ones);
    RUN(test_what_was_sent_goes_by_its_age);
    RUN(test_a_slow_one_that_was_sent_goes_before_slow_ones_that_came_later);
    RUN(test_what_was_read_in_part_waits_behind_those_that_are_here);
    RUN(test_others_see_how_many_wait_and_since_when);
    RUN(test_who_leaves_for_another_worker);
    return 0;
}
