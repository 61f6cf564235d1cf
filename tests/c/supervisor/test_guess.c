/* Groups that share listeners: whose a request is, as the dispatcher sees it
 * before anybody has received a byte. */
#define _GNU_SOURCE
#include "supervisor/server.h"

enum { NONE = -1 };

/* The group of the listeners has "/" and a.org, the other /b and b.org. */
typedef struct {
    Server *first, *other;
    Mounts *mounts;
} Pair;

static MountText
text_of(const char *text)
{
    return (MountText){.text = text, .size = (uint32_t)strlen(text)};
}

static Pair
open_pair(const DispatchLimits *limits, bool with_hosts)
{
    const Mount mounts[] = {
        {.host = text_of(""), .path = text_of(""), .group = 0},
        {.host = text_of(""), .path = text_of("/b"), .group = 1},
        {.host = text_of("b.org"), .path = text_of(""), .group = 1},
    };
    const Pair p = {server_open(limits), server_open(limits),
                    mounts_new(mounts, with_hosts ? 3 : 2)};
    CHECK(dispatch_join(p.first->dispatch, p.other->dispatch, 1) == 0);
    dispatch_set_mounts(p.first->dispatch, p.mounts);
    dispatch_set_mounts(p.other->dispatch, p.mounts);
    workers(p.first, (int32_t[]){0, NONE, NONE});
    workers(p.other, (int32_t[]){0, NONE, NONE});
    return p;
}

static void
close_pair(Pair p)
{
    server_close(p.other);
    server_close(p.first);
    mounts_free(p.mounts);
}

static void
says(int client, const char *text)
{
    CHECK(send(client, text, strlen(text), MSG_NOSIGNAL) ==
          (ssize_t)strlen(text));
}

static int
connects_and_says(const Server *s, const char *text)
{
    const int fd = connects(s);
    says(fd, text);
    return fd;
}

static void
test_a_request_goes_to_its_group(void)
{
    const Pair p = open_pair(&patient, true);
    static const struct {
        const char *head;
        bool other;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
        {"GET /b HTTP/1.1\r\nHost: a\r\n", true},
        {"GET /%62/c?d HTTP/1.1\r\nHost: a\r\n", true},
        {"GET /bc HTTP/1.1\r\nHost: a\r\n", false},
        {"GET / HTTP/1.1\r\nA: b\r\nHOST: \tB.org:80\t\r\n", true},
        {"GET http://b.org HTTP/1.1\r\n", true},
        {"\r\nGET http://b.org/x?y HTTP/1.1\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"OPTIONS * HTTP/1.1\r\nHost: b.org\r\n", true},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET /b HTTP/1.1\r\nHost: a\r\n",
         true},
        {"\x16\x03\x01 no http", false},
        {"GET /b#c HTTP/1.1\r\n\n", false}, /* whatever that is */
    };
    int32_t to_first = 0, to_other = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int client = connects_and_says(p.first, cases[i].head);
        Server *s = cases[i].other ? p.other : p.first;
        int32_t *load_before = cases[i].other ? &to_other : &to_first;
        UNTIL(p.first, load(s, 0) == *load_before + 1);
        ++*load_before;
        const Got got = receives_one(s, 0);
        CHECK(got.item.client.port == port_of(client));
        CHECK(got.item.group == 0); /* nobody knows it yet */
        close(got.fd);
        close(client);
        end_request(s, 0);
        --*load_before;
    }
    close_pair(p);
}

/* How often the loop has gone round. */
static uint64_t
rounds(const Server *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        sum += count(&s->board.supervisor->loop_lag[i]);
    }
    return sum;
}

/* Byte by byte: nobody is bothered with it before it is clear whose it is, nor
 * is there an event without a byte. */
static void
test_a_head_in_pieces_waits_without_a_worker(void)
{
    const Pair p = open_pair(&patient, true);
    static const char head[] = "GET /b HTTP/1.1\r\nHost: a\r\n";
    const int client = connects(p.first);
    for (size_t i = 0; i < sizeof head - 2; i++) {
        CHECK(send(client, head + i, 1, MSG_NOSIGNAL) == 1);
        turn(p.first);
        CHECK(load(p.first, 0) == 0 && load(p.other, 0) == 0);
        CHECK(dispatch_held(p.first->dispatch) == (i > 0 ? 1u : 1u));
    }
    const uint64_t before = rounds(p.first);
    turn(p.first);
    turn(p.first);
    CHECK(rounds(p.first) <= before + 4);
    says(client, "\n");
    UNTIL(p.first, load(p.other, 0) == 1);
    CHECK(receives_from(p.other, 0, client));
    close(client);
    close_pair(p);
}

static bool
reads_408(int client)
{
    char answer[1024] = "";
    size_t size = 0;
    ssize_t n;
    while ((n = recv(client, answer + size, sizeof answer - 1 - size, 0)) > 0) {
        size += (size_t)n;
    }
    CHECK(n == 0);
    return strncmp(answer, "HTTP/1.1 408 ", 13) == 0 &&
           strstr(answer, "\r\nConnection: close\r\n") &&
           !strstr(answer, "Retry-After");
}

static void
test_a_head_that_does_not_come_in_time(void)
{
    DispatchLimits limits = patient;
    limits.header_timeout = 20 * CLOCK_MILLISECOND;
    const Pair p = open_pair(&limits, false);
    const int held = descriptors_open();
    const int client = connects_and_says(p.first, "GET /");
    UNTIL(p.first, closed(p.first, CLOSED_HEADER) == 1);
    CHECK(reads_408(client));
    CHECK(count(&p.first->board.supervisor->refused[REFUSED_408]) == 1);
    close(client);
    UNTIL(p.first, descriptors_open() == held);
    close_pair(p);
}

static void
test_a_client_that_leaves_within_its_head(void)
{
    const Pair p = open_pair(&patient, false);
    const int held = descriptors_open();
    int client = connects_and_says(p.first, "GET /");
    CHECK(shutdown(client, SHUT_WR) == 0);
    UNTIL(p.first, closed(p.first, CLOSED_CLIENT) == 1);
    close(client);

    client = connects_and_says(p.first, "GET /");
    UNTIL(p.first, count(p.first->board.supervisor->parked) == 1);
    turn(p.first);
    close(client);
    UNTIL(p.first, closed(p.first, CLOSED_CLIENT) == 2);
    UNTIL(p.first, descriptors_open() == held);
    close_pair(p);
}

/* It has said all, and listens: whose it is, is clear. */
static void
test_a_client_that_ends_its_side_behind_its_head(void)
{
    const Pair p = open_pair(&patient, false);
    const int client = connects_and_says(p.first, "GET /b HTTP/1.1\r\n");
    CHECK(shutdown(client, SHUT_WR) == 0);
    UNTIL(p.first, load(p.other, 0) == 1);
    CHECK(receives_from(p.other, 0, client));
    close(client);
    close_pair(p);
}

/* More than is looked at: the worker will see. */
/* By the same rule as idle ones: those that have waited longest, and none whose
 * request has come meanwhile. */
static void
test_heads_that_do_not_come_make_room(void)
{
    const Pair p = open_pair(&patient, false);
    const int half = connects_and_says(p.first, "GET /b");
    UNTIL(p.first, count(p.first->board.supervisor->parked) == 1);
    const int later = connects_and_says(p.first, "GET /b");
    UNTIL(p.first, count(p.first->board.supervisor->parked) == 2);
    const int client = connects(p.first);
    const struct rlimit before = descriptors_leave(0);
    UNTIL(p.first, closed(p.first, CLOSED_EVICTED) == 2);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    UNTIL(p.first, count(p.first->board.supervisor->accepted) == 3);
    close(half);
    close(later);
    close(client);
    close_pair(p);
}

static void
test_a_target_without_end_is_not_waited_for(void)
{
    const Pair p = open_pair(&patient, false);
    char target[5000];
    memset(target, 'x', sizeof target);
    target[sizeof target - 1] = '\0';
    const int client = connects_and_says(p.first, "GET /b/");
    says(client, target);
    UNTIL(p.first, load(p.first, 0) == 1);
    CHECK(receives_from(p.first, 0, client));
    close(client);
    close_pair(p);
}

/* A worker has parsed the head: what it says counts, whatever it looks like
 * here, and is passed on. Otherwise the two might go on for ever. */
static void
test_what_a_worker_says_counts(void)
{
    const Pair p = open_pair(&patient, false);
    const int client = connects_and_says(p.first, "GET / HTTP/1.1\r\n\r\n");
    UNTIL(p.first, load(p.first, 0) == 1);
    Got got = receives_one(p.first, 0);
    got.item.group = 1 + 1;
    hands_back(p.first, 0, got, true);
    UNTIL(p.first, load(p.other, 0) == 1);
    CHECK(count(p.first->board.supervisor->switched) == 1);
    got = receives_one(p.other, 0);
    CHECK(got.item.group == 1 + 1);
    CHECK(got.item.client.port == port_of(client));
    got.item.group = 0; /* it has served one request; the next is whose? */
    hands_back(p.other, 0, got, true);
    UNTIL(p.first, load(p.first, 0) == 1);
    got = receives_one(p.first, 0);
    got.item.group = 100; /* there is no such group */
    hands_back(p.first, 0, got, true);
    UNTIL(p.first, load(p.first, 0) == 1);
    CHECK(receives_from(p.first, 0, client));
    close(client);
    close_pair(p);
}

/* One with listeners of its own is reached by these alone. */
static void
test_nobody_gets_into_a_group_that_shares_nothing(void)
{
    const Pair p = open_pair(&patient, false);
    dispatch_set_mounts(p.other->dispatch, NULL);
    int client = connects_and_says(p.first, "GET /b HTTP/1.1\r\n\r\n");
    UNTIL(p.first, load(p.first, 0) == 1);
    Got got = receives_one(p.first, 0);
    got.item.group = 1 + 1;
    hands_back(p.first, 0, got, true);
    UNTIL(p.first, load(p.first, 0) == 1);
    CHECK(receives_from(p.first, 0, client));
    close(client);

    client = connects_and_says(p.other, "GET / HTTP/1.1\r\n\r\n");
    UNTIL(p.first, load(p.other, 0) == 1);
    CHECK(receives_from(p.other, 0, client));
    close(client);
    close_pair(p);
}

/* Whoever had it last: its next request is looked at. */
static void
test_an_idle_connection_changes_its_group(void)
{
    const Pair p = open_pair(&patient, false);
    const int client = connects_and_says(p.first, "GET /b HTTP/1.1\r\n");
    UNTIL(p.first, load(p.other, 0) == 1);
    Got got = receives_one(p.other, 0);
    char request[100];
    CHECK(recv(got.fd, request, sizeof request, 0) == 17);
    hands_back(p.other, 0, got, false);
    UNTIL(p.first, count(p.other->board.supervisor->parked) == 1);
    says(client, "GET");
    turn(p.first);
    says(client, " / ");
    UNTIL(p.first, load(p.first, 0) == 1);
    got = receives_one(p.first, 0);
    CHECK(got.item.requests == 1 && got.item.since <= clock_now());
    close(got.fd);
    CHECK(count(p.other->board.supervisor->switched) == 0);
    close(client);
    close_pair(p);
}

static void
test_a_full_group_keeps_its_requests_to_itself(void)
{
    const Pair p = open_pair(&patient, false);
    workers(p.other, (int32_t[]){THREADS, NONE, NONE});
    const int waiting = connects_and_says(p.first, "GET /b HTTP/1.1\r\n");
    UNTIL(p.first, dispatch_queued(p.other->dispatch) == 1);
    const int client = connects_and_says(p.first, "GET / HTTP/1.1\r\n");
    UNTIL(p.first, load(p.first, 0) == 1);
    CHECK(receives_from(p.first, 0, client));
    end_request(p.other, 0);
    UNTIL(p.first, load(p.other, 0) == THREADS);
    CHECK(receives_from(p.other, 0, waiting));
    close(waiting);
    close(client);
    close_pair(p);
}

static void
test_an_heir_gets_what_is_incomplete_too(void)
{
    const Pair p = open_pair(&patient, false),
               heir = open_pair(&patient, false);
    int pair[2];
    const int client = connects_and_says(p.first, "GET /");
    UNTIL(p.first, count(p.first->board.supervisor->parked) == 1);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(dispatch_inherit(heir.first->dispatch, pair[1], NULL, 0) == 0);
    workers(p.first, (int32_t[]){NONE, NONE, NONE});
    dispatch_bequeath(p.first->dispatch, pair[0]);
    UNTIL(p.first, dispatch_held(p.first->dispatch) == 0);
    UNTIL(heir.first, count(heir.first->board.supervisor->inherited) == 1);
    says(client, "b HTTP/1.1\r\n");
    UNTIL(heir.first, load(heir.other, 0) == 1);
    CHECK(receives_from(heir.other, 0, client));
    close(client);
    close(pair[0]);
    close(pair[1]);
    close_pair(heir);
    close_pair(p);
}

int
main(void)
{
    RUN(test_a_request_goes_to_its_group);
    RUN(test_a_head_in_pieces_waits_without_a_worker);
    RUN(test_a_head_that_does_not_come_in_time);
    RUN(test_a_client_that_leaves_within_its_head);
    RUN(test_a_client_that_ends_its_side_behind_its_head);
    RUN(test_heads_that_do_not_come_make_room);
    RUN(test_a_target_without_end_is_not_waited_for);
    RUN(test_what_a_worker_says_counts);
    RUN(test_nobody_gets_into_a_group_that_shares_nothing);
    RUN(test_an_idle_connection_changes_its_group);
    RUN(test_a_full_group_keeps_its_requests_to_itself);
    RUN(test_an_heir_gets_what_is_incomplete_too);
    return 0;
}
