/* Several groups of workers in one wait: what one of them does not do is no
 * matter of another's. */
#define _GNU_SOURCE
#include "supervisor/server.h"

enum { NONE = -1, NUMBER = 7 };

typedef struct {
    Server *first, *other;
} Pair;

static Pair
open_joined(const DispatchLimits *limits)
{
    const Pair p = {server_open(limits), server_open(limits)};
    CHECK(dispatch_join(p.first->dispatch, p.other->dispatch, NUMBER) == 0);
    return p;
}

static void
close_joined(Pair p)
{
    server_close(p.other);
    server_close(p.first);
}

static void
no_workers(Server *s)
{
    workers(s, (int32_t[]){NONE, NONE, NONE});
}

/* How often this was said of the group. */
static uint32_t
said(const Server *s, DispatchEventKind kind, uint32_t group)
{
    uint32_t times = 0;
    for (uint32_t i = 0; i < s->event_count; i++) {
        times += s->events[i].kind == kind && s->events[i].group == group;
    }
    return times;
}

/* A client of the group that is not full gets its worker, whichever group that
 * is, while another waits in the full one. */
static void
test_a_full_group_is_in_nobodys_way(void)
{
    for (int i = 0; i < 2; i++) {
        const Pair p = open_joined(&patient);
        Server *full = i ? p.first : p.other, *idle = i ? p.other : p.first;
        workers(full, (int32_t[]){THREADS, THREADS, NONE});
        workers(idle, (int32_t[]){0, NONE, NONE});
        const int waiting = connects_and_asks(full);
        UNTIL(p.first, dispatch_queued(full->dispatch) == 1);
        for (int more = 0; more < 3; more++) {
            const int client = connects_and_asks(idle);
            UNTIL(p.first, load(idle, 0) == more + 1);
            CHECK(receives_from(idle, 0, client));
            close(client);
        }
        CHECK(dispatch_queued(full->dispatch) == 1);
        CHECK(full->board.notice->turn && !idle->board.notice->turn);

        end_request(full, 1); /* rings the bell of its own group */
        UNTIL(p.first, load(full, 1) == THREADS);
        CHECK(receives_from(full, 1, waiting));
        close(waiting);
        close_joined(p);
    }
}

static void
test_what_is_idle_in_any_group_is_watched(void)
{
    const Pair p = open_joined(&patient);
    workers(p.other, (int32_t[]){0, NONE, NONE});
    const int client = connects_and_asks(p.other);
    UNTIL(p.first, load(p.other, 0) == 1);
    const Got got = receives_one(p.other, 0);
    char request[18];
    CHECK(recv(got.fd, request, sizeof request, 0) == sizeof request);
    hands_back(p.other, 0, got, false);
    UNTIL(p.first, count(p.other->board.supervisor->parked) == 1);
    asks(client);
    UNTIL(p.first, load(p.other, 0) == 1);
    CHECK(receives_from(p.other, 0, client));
    close(client);
    close_joined(p);
}

static void
test_what_waits_too_long_in_any_group_is_refused_there(void)
{
    DispatchLimits limits = patient;
    limits.queue_timeout = CLOCK_MILLISECOND;
    const Pair p = {server_open(&patient), server_open(&limits)};
    CHECK(dispatch_join(p.first->dispatch, p.other->dispatch, NUMBER) == 0);
    const int patient_one = connects_and_asks(p.first);
    const int client = connects_and_asks(p.other);
    UNTIL(p.first, closed(p.other, CLOSED_QUEUE_TIMEOUT) == 1);
    CHECK(reads_503(client));
    CHECK(dispatch_queued(p.first->dispatch) == 1);
    UNTIL(p.first, said(p.first, DISPATCH_REFUSED, NUMBER) == 1);
    CHECK(said(p.first, DISPATCH_REFUSED, 0) == 0);
    close(client);
    close(patient_one);
    close_joined(p);
}

static void
test_words_tell_their_group(void)
{
    const Pair p = open_joined(&patient);
    CHECK(channel_say(p.first->theirs[1], CHANNEL_READY, "", 0) == 0);
    CHECK(channel_say(p.other->theirs[1], CHANNEL_READY, "", 0) == 0);
    UNTIL(p.first, p.first->event_count == 2);
    CHECK(said(p.first, DISPATCH_NEWS, 0) == 1);
    CHECK(said(p.first, DISPATCH_NEWS, NUMBER) == 1);
    CHECK(p.first->events[0].slot == 1 && p.first->events[1].slot == 1);

    DispatchEvent last;
    CHECK(channel_say(p.other->theirs[2], CHANNEL_HUNG, "", 0) == 0);
    CHECK(dispatch_hear(p.other->dispatch, 2, &last, 1) == 1);
    CHECK(last.group == NUMBER && last.slot == 2);
    close_joined(p);
}

static void
test_a_group_without_a_worker_is_wanted_once_until_it_has_one(void)
{
    const Pair p = open_joined(&patient);
    no_workers(p.first);
    no_workers(p.other);
    int clients[3];
    clients[0] = connects_and_asks(p.other);
    UNTIL(p.first, said(p.first, DISPATCH_WANTED, NUMBER) == 1);
    clients[1] = connects_and_asks(p.other);
    UNTIL(p.first, dispatch_queued(p.other->dispatch) == 2);
    turn(p.first);
    CHECK(said(p.first, DISPATCH_WANTED, NUMBER) == 1);
    CHECK(said(p.first, DISPATCH_WANTED, 0) == 0);

    workers(p.other, (int32_t[]){0, NONE, NONE});
    UNTIL(p.first, load(p.other, 0) == 2);
    Got got[2];
    CHECK(receives(p.other, 0, got, 2) == 2);
    close(got[0].fd);
    close(got[1].fd);
    workers(p.other, (int32_t[]){NONE, NONE, NONE});
    clients[2] = connects_and_asks(p.other);
    UNTIL(p.first, said(p.first, DISPATCH_WANTED, NUMBER) == 2);
    for (int i = 0; i < 3; i++) {
        close(clients[i]);
    }
    close_joined(p);
}

/* However full it is, a group that has workers is not wanted. */
static void
test_a_full_group_is_not_wanted(void)
{
    Server *s = server_open(&patient);
    workers(s, (int32_t[]){THREADS, NONE, NONE});
    const int client = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    turn(s);
    CHECK(s->event_count == 0);
    close(client);
    server_close(s);
}

/* All groups live on the descriptors of one process. */
static void
test_the_idle_of_one_group_make_room_for_the_others(void)
{
    const Pair p = open_joined(&patient);
    workers(p.first, (int32_t[]){0, NONE, NONE});
    const int idle = has_been_served(p.first);
    const int client = connects(p.other);
    const struct rlimit before = descriptors_leave(0);
    UNTIL(p.first, count(p.other->board.supervisor->accepted) == 1);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(closed(p.first, CLOSED_EVICTED) == 1);
    CHECK(sees_the_end(idle));
    close(idle);
    close(client);
    close_joined(p);
}

static void
test_there_is_one_measure_for_all(void)
{
    const Pair p = open_joined(&patient);
    Server *alone = server_open(&patient);
    const int32_t most = dispatch_measure(p.first->dispatch);
    CHECK(dispatch_measure(p.other->dispatch) == most);
    CHECK(dispatch_measure(alone->dispatch) > most); /* fewer processes come */
    server_close(alone);
    close_joined(p);
}

static void
test_it_is_drained_when_all_are(void)
{
    const Pair p = open_joined(&patient);
    workers(p.first, (int32_t[]){THREADS, NONE, NONE});
    workers(p.other, (int32_t[]){THREADS, NONE, NONE});
    const int silent = connects(p.first);
    UNTIL(p.first, count(p.first->board.supervisor->parked) == 1);
    const int one = connects_and_asks(p.first);
    const int two = connects_and_asks(p.other); /* nobody has accepted it yet */
    dispatch_stop(p.first->dispatch);
    CHECK(sees_the_end(silent));
    CHECK(p.first->board.notice->stopping && p.other->board.notice->stopping);
    end_request(p.first, 0);
    UNTIL(p.first, load(p.first, 0) == THREADS);
    turn(p.first);
    CHECK(p.first->event_count == 0);
    end_request(p.other, 0);
    UNTIL(p.first, p.first->event_count == 1);
    CHECK(p.first->events[0].kind == DISPATCH_DRAINED);
    CHECK(p.other->board.notice->stopping == 2);
    turn(p.first);
    CHECK(p.first->event_count == 1);
    close(receives_one(p.first, 0).fd);
    close(receives_one(p.other, 0).fd);
    close(silent);
    close(one);
    close(two);
    close_joined(p);
}

static void
test_the_last_call_is_for_one_group(void)
{
    const Pair p = open_joined(&patient);
    const int one = connects_and_asks(p.first);
    const int two = connects_and_asks(p.other);
    UNTIL(p.first, dispatch_queued(p.first->dispatch) == 1);
    UNTIL(p.first, dispatch_queued(p.other->dispatch) == 1);
    dispatch_stop(p.first->dispatch);
    dispatch_last_call(p.first->dispatch);
    CHECK(reads_503(one) && dispatch_queued(p.other->dispatch) == 1);
    dispatch_last_call(p.other->dispatch);
    CHECK(reads_503(two));
    close(one);
    close(two);
    close_joined(p);
}

static void
test_either_may_end_before_the_other(void)
{
    Pair p = open_joined(&patient);
    server_close(p.other);
    workers(p.first, (int32_t[]){0, NONE, NONE});
    int client = connects_and_asks(p.first);
    UNTIL(p.first, load(p.first, 0) == 1);
    close(receives_one(p.first, 0).fd);
    close(client);
    server_close(p.first);

    p = open_joined(&patient);
    server_close(p.first);
    workers(p.other, (int32_t[]){0, NONE, NONE});
    client = connects_and_asks(p.other);
    UNTIL(p.other, load(p.other, 0) == 1);
    close(receives_one(p.other, 0).fd);
    close(client);
    server_close(p.other);
}

static bool
is_refused(Server *first, Server *other, uint32_t number)
{
    errno = 0;
    return dispatch_join(first->dispatch, other->dispatch, number) == -1 &&
           errno == EINVAL;
}

static void
test_what_cannot_be_joined(void)
{
    const Pair p = open_joined(&patient);
    Server *third = server_open(&patient), *fourth = server_open(&patient);
    CHECK(is_refused(p.first, third, 0));      /* the first has it */
    CHECK(is_refused(p.first, third, NUMBER)); /* so has the other */
    CHECK(is_refused(p.first, third, CHANNEL_GROUPS + 1));
    CHECK(is_refused(p.first, p.other, 1)); /* it is */
    CHECK(is_refused(p.first, p.first, 1));
    CHECK(is_refused(p.other, third, 1)); /* another waits for it */
    CHECK(is_refused(third, p.first, 1)); /* others are joined to it */
    CHECK(dispatch_join(p.first->dispatch, third->dispatch, 1) == 0);
    CHECK(dispatch_join(p.first->dispatch, fourth->dispatch, CHANNEL_GROUPS) ==
          0);
    server_close(third);
    close_joined(p);
    server_close(fourth);
}

int
main(void)
{
    RUN(test_a_full_group_is_in_nobodys_way);
    RUN(test_what_is_idle_in_any_group_is_watched);
    RUN(test_what_waits_too_long_in_any_group_is_refused_there);
    RUN(test_words_tell_their_group);
    RUN(test_a_group_without_a_worker_is_wanted_once_until_it_has_one);
    RUN(test_a_full_group_is_not_wanted);
    RUN(test_the_idle_of_one_group_make_room_for_the_others);
    RUN(test_there_is_one_measure_for_all);
    RUN(test_it_is_drained_when_all_are);
    RUN(test_the_last_call_is_for_one_group);
    RUN(test_either_may_end_before_the_other);
    RUN(test_what_cannot_be_joined);
    return 0;
}
