/* The supervisor's loop between real clients and workers that are only the
 * other end of a channel: who gets what, what waits, and what is let go. */
#define _GNU_SOURCE
#include "supervisor/server.h"

/* ------------------------------------------------------------------------
 * Who gets what */

static void
test_the_most_free_threads_first_then_the_fewest_connections(void)
{
    Server *s = server_open(&patient);
    static const uint32_t order[] = {1, 2, 1, 0, 2, 1};
    int clients[sizeof order / sizeof order[0]];
    workers(s, (int32_t[]){3, 1, 2});
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const int32_t before = load(s, order[i]);
        clients[i] = connects_and_asks(s);
        UNTIL(s, count(s->board.supervisor->dispatched) == i + 1);
        CHECK(load(s, order[i]) == before + 1);
        CHECK(receives_from(s, order[i], clients[i]));
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        CHECK(load(s, i) == THREADS);
    }
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        close(clients[i]);
    }
    server_close(s);
}

static void
test_a_place_is_taken_when_it_is_given(void)
{
    Server *s = server_open(&patient);
    int clients[SLOTS * THREADS + 1];
    workers(s, (int32_t[]){0, 0, 0});
    for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
        clients[i] = connects_and_asks(s);
    }
    UNTIL(s, dispatch_queued(s->dispatch) == 1); /* no worker has read one */
    for (uint32_t i = 0; i < SLOTS; i++) {
        Got got[THREADS];
        CHECK(load(s, i) == THREADS &&
              s->board.loads[i].connections == THREADS);
        CHECK(receives(s, i, got, THREADS) == THREADS);
        for (uint32_t n = 0; n < THREADS; n++) {
            close(got[n].fd);
        }
    }
    CHECK(count(s->board.supervisor->dispatched) == SLOTS * THREADS);
    CHECK(count(s->board.supervisor->queue_length) == 1);
    CHECK(s->board.notice->turn == count(s->board.supervisor->queue_since));
    for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
        close(clients[i]);
    }
    server_close(s);
}

static void
test_a_worker_learns_who_the_client_is(void)
{
    Server *s = server_open(&patient);
    const int tcp = connects(s);
    const int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const uint32_t loopback = htonl(INADDR_LOOPBACK);
    const uint64_t before = clock_now();
    Got got;
    workers(s, (int32_t[]){0, -1, -1});

    asks(tcp);
    UNTIL(s, load(s, 0) == 1);
    got = receives_one(s, 0);
    CHECK(got.item.client.family == AF_INET && got.item.listener == 0);
    CHECK(got.item.client.port == port_of(tcp) && got.item.requests == 0);
    CHECK(memcmp(got.item.client.bytes, &loopback, sizeof loopback) == 0);
    CHECK(got.item.since >= before && got.item.since <= clock_now());
    CHECK(descriptors_close_on_exec(got.fd));
    CHECK(fcntl(got.fd, F_GETFL) & O_NONBLOCK);
    close(got.fd);

    CHECK(connect(local, (struct sockaddr *)&s->path, s->path_size) == 0);
    asks(local);
    UNTIL(s, load(s, 0) == 2);
    got = receives_one(s, 0);
    CHECK(got.item.client.family == AF_UNIX && got.item.listener == 1);
    close(got.fd);
    close(tcp);
    close(local);
    server_close(s);
}

static void
test_who_is_disabled_gets_nothing(void)
{
    Server *s = server_open(&patient);
    int client;
    workers(s, (int32_t[]){3, -1, -1});
    client = connects_and_asks(s);
    UNTIL(s, count(s->board.supervisor->dispatched) == 1);
    CHECK(receives_from(s, 0, client));
    close(client);
    server_close(s);
}

static void
test_what_waits_goes_in_the_order_it_came(void)
{
    Server *s = server_open(&patient);
    int clients[3];
    workers(s, (int32_t[]){THREADS, -1, -1});
    for (uint32_t i = 0; i < 3; i++) {
        clients[i] = connects_and_asks(s);
        UNTIL(s, dispatch_queued(s->dispatch) == i + 1);
    }
    CHECK(count(s->board.supervisor->queue_since) > 0);
    for (uint32_t i = 0; i < 3; i++) {
        end_request(s, 0);
        UNTIL(s, load(s, 0) == THREADS);
        CHECK(receives_from(s, 0, clients[i]));
        close(clients[i]);
    }
    UNTIL(s, count(s->board.supervisor->queue_since) == 0);
    CHECK(s->board.notice->turn == 0);
    server_close(s);
}

static void
test_a_worker_that_comes_gets_what_waits(void)
{
    Server *s = server_open(&patient);
    int client;
    workers(s, (int32_t[]){-1, -1, -1});
    client = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    dispatch_enable(s->dispatch, 2, true);
    atomic_store(&s->board.loads[2].load, 0);
    UNTIL(s, load(s, 2) == 1);
    CHECK(receives_from(s, 2, client));
    close(client);
    server_close(s);
}

static void
test_a_full_channel_loses_nothing(void)
{
    enum { MANY = 400 };
    Server *s = server_open(&patient);
    const int small = 1;
    static int clients[MANY];
    static Got got[MANY];
    uint32_t n = 0;
    CHECK(setsockopt(s->ours[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) ==
          0);
    workers(s, (int32_t[]){0, -1, -1});
    atomic_store(&s->board.loads[0].limit, MANY);
    for (int i = 0; i < MANY; i++) {
        clients[i] = connects_and_asks(s);
    }
    UNTIL(s, count(s->board.supervisor->accepted) == MANY);
    CHECK(dispatch_queued(s->dispatch) > 0);
    CHECK(load(s, 0) + (int32_t)dispatch_queued(s->dispatch) == MANY);
    UNTIL(s, (n += receives(s, 0, got + n, MANY - n)) == MANY);
    CHECK(load(s, 0) == MANY && s->board.loads[0].connections == MANY);
    CHECK(count(s->board.supervisor->dispatched) == MANY);
    for (int i = 0; i < MANY; i++) {
        CHECK(i == 0 || got[i].item.since >= got[i - 1].item.since);
        close(got[i].fd);
        close(clients[i]);
    }
    server_close(s);
}

/* ------------------------------------------------------------------------
 * What comes back */

static void
test_an_idle_connection_is_parked_and_its_next_request_goes_to_the_best(void)
{
    Server *s = server_open(&patient);
    int client;
    Got got;
    workers(s, (int32_t[]){0, -1, -1});
    client = has_been_served(s);
    UNTIL(s, count(s->board.supervisor->parked) == 1);
    CHECK(load(s, 0) == 0 && s->board.loads[0].connections == 0);

    workers(s, (int32_t[]){3, -1, 1});
    asks(client);
    UNTIL(s, load(s, 2) == 2);
    got = receives_one(s, 2);
    CHECK(got.item.client.port == port_of(client) && got.item.requests == 1);
    UNTIL(s, count(s->board.supervisor->parked) == 0);
    close(got.fd);
    close(client);
    server_close(s);
}

static void
test_one_handed_back_with_a_request_keeps_its_place(void)
{
    Server *s = server_open(&patient);
    int first, second;
    Got got;
    workers(s, (int32_t[]){0, -1, -1});
    first = connects_and_asks(s);
    UNTIL(s, load(s, 0) == 1);
    got = receives_one(s, 0);
    atomic_store(&s->board.loads[0].load, THREADS + 1);
    second = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    hands_back(s, 0, got, true);
    UNTIL(s, dispatch_queued(s->dispatch) == 2);
    end_request(s, 0);
    UNTIL(s, load(s, 0) == THREADS && dispatch_queued(s->dispatch) == 1);
    CHECK(receives_from(s, 0, first));
    end_request(s, 0);
    UNTIL(s, dispatch_queued(s->dispatch) == 0);
    CHECK(receives_from(s, 0, second));
    close(first);
    close(second);
    server_close(s);
}

/* Until so many wait, one more than before. */
static void
waits(Server *s, uint32_t number)
{
    UNTIL(s, dispatch_queued(s->dispatch) == number);
}

/* One after the other while all threads are taken: `s` asks for what is short,
 * `l` for what is long. Where nobody waits, nobody is judged. */
static void
wait_in_line(Server *s, const char *kinds, int *clients)
{
    workers(s, (int32_t[]){THREADS, -1, -1});
    for (uint32_t i = 0; kinds[i]; i++) {
        clients[i] =
            kinds[i] == 'l' ? connects_and_asks_slow(s) : connects_and_asks(s);
        waits(s, i + 1);
    }
}

static void
close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        close(fds[i]);
    }
}

static void
test_short_requests_overtake_long_ones(void)
{
    Server *s = server_open(&patient);
    int clients[5];
    slow_takes(s, LONG_TIME);
    wait_in_line(s, "sllss", clients);
    /* And among their like, first come, first served. */
    for (uint32_t i = 0; i < 5; i++) {
        static const size_t order[] = {0, 3, 4, 1, 2};
        end_request(s, 0);
        waits(s, 4 - i);
        CHECK(receives_from(s, 0, clients[order[i]]));
    }
    CHECK(count(s->board.supervisor->overtook) == 2);
    close_all(clients, 5);
    server_close(s);
}

/* `first` has waited for so long already; who is served next? */
static bool
is_overtaken(const DispatchLimits *limits, uint64_t waited)
{
    Server *s = server_open(limits);
    int first, before, second;
    bool overtaken;
    Got got;
    slow_takes(s, CLOCK_MILLISECOND);
    workers(s, (int32_t[]){0, -1, -1});
    first = connects_and_asks_slow(s);
    UNTIL(s, load(s, 0) == 1);
    got = receives_one(s, 0);
    workers(s, (int32_t[]){THREADS + 1, -1, -1});
    before = connects_and_asks(s); /* where nobody waits, nobody is judged */
    waits(s, 1);
    got.item.since -= waited;
    hands_back(s, 0, got, true);
    waits(s, 2);
    second = connects_and_asks(s);
    waits(s, 3);
    end_request(s, 0);
    waits(s, 2);
    got = receives_one(s, 0);
    if (got.item.client.port == port_of(before)) {
        close(got.fd);
        end_request(s, 0);
        waits(s, 1);
        got = receives_one(s, 0);
    }
    overtaken = got.item.client.port == port_of(second);
    CHECK(overtaken || got.item.client.port == port_of(first));
    close(got.fd);
    close(first);
    close(before);
    close(second);
    server_close(s);
    return overtaken;
}

static void
test_nobody_is_overtaken_for_ever(void)
{
    DispatchLimits strict = patient, hasty = patient, generous = patient;
    strict.queue_overtaking = 0;
    hasty.queue_timeout = CLOCK_SECOND;
    generous.queue_overtaking = hasty.queue_overtaking = 1000000;
    CHECK(is_overtaken(&generous, CLOCK_SECOND));
    CHECK(!is_overtaken(&patient, CLOCK_SECOND));
    CHECK(!is_overtaken(&strict, 0));
    /* Nor until its time is up: half of that is the most. */
    CHECK(!is_overtaken(&hasty, CLOCK_SECOND - CLOCK_SECOND / 4));
}

/* Clocks agree, but a worker's word is only a word. */
static void
test_nobody_waits_since_tomorrow(void)
{
    Server *s = server_open(&patient);
    Got got;
    const int client = connects_and_asks(s);
    workers(s, (int32_t[]){0, -1, -1});
    UNTIL(s, load(s, 0) == 1);
    got = receives_one(s, 0);
    got.item.since = clock_now() + LONG_TIME;
    workers(s, (int32_t[]){THREADS, -1, -1});
    hands_back(s, 0, got, true);
    atomic_store(&s->board.loads[0].load, THREADS);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    CHECK(count(s->board.supervisor->queue_since) <= clock_now());
    close(client);
    server_close(s);
}

static void
test_what_a_dead_worker_had_not_received_goes_to_another(void)
{
    Server *s = server_open(&patient);
    int clients[3];
    Got got[3];
    workers(s, (int32_t[]){0, -1, -1});
    for (int i = 0; i < 3; i++) {
        clients[i] = connects_and_asks(s);
        UNTIL(s, load(s, 0) == i + 1);
    }
    CHECK(channel_say(s->ours[0], CHANNEL_READY, "", 0) == 0); /* no batch */
    workers(s, (int32_t[]){-1, 0, -1});
    CHECK(dispatch_reclaim(s->dispatch, 0) == 3);
    CHECK(dispatch_reclaim(s->dispatch, 0) == 0);
    CHECK(count(s->board.supervisor->reclaimed) == 3);
    UNTIL(s, load(s, 1) == 3);
    CHECK(receives(s, 1, got, 3) == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(got[i].item.client.port == port_of(clients[i]));
        close(got[i].fd);
        close(clients[i]);
    }
    server_close(s);
}

/* ------------------------------------------------------------------------
 * What is let go */

static void
test_a_client_that_leaves_without_a_word(void)
{
    Server *s = server_open(&patient);
    const int client = connects(s);
    UNTIL(s, count(s->board.supervisor->parked) == 1);
    close(client);
    UNTIL(s, closed(s, CLOSED_CLIENT) == 1);
    UNTIL(s, count(s->board.supervisor->parked) == 0);
    server_close(s);
}

/* It has said all it wants to say, and listens. */
static void
test_a_client_that_ends_its_side_after_the_request(void)
{
    Server *s = server_open(&patient);
    const int client = connects(s);
    workers(s, (int32_t[]){0, -1, -1});
    UNTIL(s, count(s->board.supervisor->parked) == 1);
    asks(client);
    CHECK(shutdown(client, SHUT_WR) == 0);
    UNTIL(s, load(s, 0) == 1);
    CHECK(receives_from(s, 0, client));
    CHECK(closed(s, CLOSED_CLIENT) == 0);
    close(client);
    server_close(s);
}

static void
test_a_client_that_sends_nothing_in_time(void)
{
    DispatchLimits limits = patient;
    limits.header_timeout = CLOCK_MILLISECOND;
    Server *s = server_open(&limits);
    const int client = connects(s);
    UNTIL(s, closed(s, CLOSED_HEADER) == 1);
    CHECK(sees_the_end(client));
    close(client);
    server_close(s);
}

static void
test_a_connection_that_is_idle_for_too_long(void)
{
    DispatchLimits limits = patient;
    limits.keep_alive_timeout = CLOCK_MILLISECOND;
    Server *s = server_open(&limits);
    workers(s, (int32_t[]){0, -1, -1});
    const int client = has_been_served(s);
    UNTIL(s, closed(s, CLOSED_KEEP_ALIVE) == 1);
    CHECK(sees_the_end(client));
    CHECK(closed(s, CLOSED_HEADER) == 0);
    close(client);
    server_close(s);
}

static void
test_a_request_that_waits_for_too_long_is_refused(void)
{
    DispatchLimits limits = patient;
    limits.queue_timeout = CLOCK_MILLISECOND;
    Server *s = server_open(&limits);
    const int held = descriptors_open();
    const int client = connects_and_asks(s);
    UNTIL(s, closed(s, CLOSED_QUEUE_TIMEOUT) == 1);
    CHECK(dispatch_queued(s->dispatch) == 0);
    CHECK(reads_503(client));
    close(client);
    UNTIL(s, descriptors_open() == held);
    server_close(s);
}

/* A body of which nobody will ever read a byte must not turn the answer into
 * a reset. */
static void
test_a_refused_client_may_go_on_sending(void)
{
    DispatchLimits limits = patient;
    limits.queue_size = 0;
    Server *s = server_open(&limits);
    const int held = descriptors_open();
    const int client = connects_and_asks(s);
    UNTIL(s, closed(s, CLOSED_QUEUE_FULL) == 1);
    for (int i = 0; i < 10; i++) {
        asks(client);
        turn(s);
    }
    CHECK(reads_503(client));
    close(client);
    UNTIL(s, descriptors_open() == held);
    CHECK(closed(s, CLOSED_CLIENT) == 0);
    server_close(s);
}

static void
test_the_queue_has_an_end(void)
{
    DispatchLimits limits = patient;
    limits.queue_size = 2;
    Server *s = server_open(&limits);
    int clients[3];
    for (uint32_t i = 0; i < 2; i++) {
        clients[i] = connects_and_asks(s);
        UNTIL(s, dispatch_queued(s->dispatch) == i + 1);
    }
    clients[2] = connects(s);
    UNTIL(s, count(s->board.supervisor->parked) == 1);
    asks(clients[2]);
    UNTIL(s, closed(s, CLOSED_QUEUE_FULL) == 1);
    CHECK(reads_503(clients[2]));
    CHECK(dispatch_queued(s->dispatch) == 2);
    for (int i = 0; i < 3; i++) {
        close(clients[i]);
    }
    server_close(s);
}

/* However many come at once: only those that must wait are in the queue. */
/* What waits in workers is in the same queue. */
static void
test_the_queue_has_one_end_for_all_that_wait(void)
{
    DispatchLimits limits = patient;
    Server *s;
    int clients[2];
    limits.queue_size = 3;
    s = server_open(&limits);
    workers(s, (int32_t[]){THREADS, THREADS, -1});
    word_set(s->board.workers[0].waiting, 1);
    word_set(s->board.workers[1].waiting, 1);
    clients[0] = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    clients[1] = connects_and_asks(s);
    UNTIL(s, closed(s, CLOSED_QUEUE_FULL) == 1);
    CHECK(dispatch_queued(s->dispatch) == 1);
    CHECK(reads_503(clients[1]));
    close(clients[0]);
    close(clients[1]);
    server_close(s);
}

static void
test_nobody_is_refused_whom_a_thread_is_free_for(void)
{
    enum { WAIT = 2, MORE = 3 };
    DispatchLimits limits = patient;
    limits.queue_size = WAIT;
    Server *s = server_open(&limits);
    int clients[THREADS + WAIT + MORE];
    Got got[THREADS];
    workers(s, (int32_t[]){0, -1, -1});
    for (size_t i = 0; i < THREADS + WAIT + MORE; i++) {
        clients[i] = connects_and_asks(s);
    }
    UNTIL(s, closed(s, CLOSED_QUEUE_FULL) == MORE);
    CHECK(dispatch_queued(s->dispatch) == WAIT);
    CHECK(receives(s, 0, got, THREADS) == THREADS);
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(got[i].item.client.port == port_of(clients[i]));
        close(got[i].fd);
    }
    for (size_t i = THREADS + WAIT; i < THREADS + WAIT + MORE; i++) {
        CHECK(reads_503(clients[i])); /* the last to come */
    }
    close_all(clients, THREADS + WAIT + MORE);
    server_close(s);
}

/* ------------------------------------------------------------------------
 * Without descriptors */

static void
test_accepting_goes_on_when_there_are_descriptors_again(void)
{
    Server *s = server_open(&patient);
    const int clients[] = {connects(s), connects(s)};
    const Word *errors = s->board.supervisor->accept_errors;
    const struct rlimit before = descriptors_leave(0);
    uint64_t tried;
    UNTIL(s, count(errors) > 0);
    tried = count(errors);
    turn(s); /* sleeps: trying at once would keep a processor busy */
    CHECK(count(errors) == tried);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    UNTIL(s, count(s->board.supervisor->accepted) == 2);
    close(clients[0]);
    close(clients[1]);
    server_close(s);
}

static void
test_idle_connections_make_room_for_new_ones(void)
{
    Server *s = server_open(&patient);
    struct rlimit before;
    int idle, client;
    workers(s, (int32_t[]){0, -1, -1});
    idle = has_been_served(s);
    client = connects(s);
    before = descriptors_leave(0);
    UNTIL(s, count(s->board.supervisor->accepted) == 2);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(closed(s, CLOSED_EVICTED) == 1);
    CHECK(sees_the_end(idle));
    close(idle);
    close(client);
    server_close(s);
}

/* ------------------------------------------------------------------------
 * Events */

static void
test_words_become_events_however_many(void)
{
    Server *s = server_open(&patient);
    enum { WORDS = 2 * ROOM + 1 };
    for (int i = 0; i < WORDS; i++) {
        const char text[] = {(char)('a' + i), '\0'};
        CHECK(channel_say(s->theirs[1], CHANNEL_FAILED, text, 1) == 0);
    }
    UNTIL(s, s->event_count == WORDS);
    for (int i = 0; i < WORDS; i++) {
        const DispatchEvent *e = &s->events[i];
        CHECK(e->kind == DISPATCH_NEWS && e->slot == 1);
        CHECK(e->news == CHANNEL_FAILED);
        CHECK(e->text[0] == 'a' + i && e->text[1] == '\0');
    }
    server_close(s);
}

static void
test_a_watched_descriptor_is_an_event_while_it_is_readable(void)
{
    Server *s = server_open(&patient);
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK(dispatch_watch(s->dispatch, ends[0], 42) == 0);
    turn(s);
    CHECK(s->event_count == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    UNTIL(s, s->event_count == 1);
    CHECK(s->events[0].kind == DISPATCH_READABLE && s->events[0].token == 42);
    UNTIL(s, s->event_count == 2); /* nobody has read it */
    dispatch_unwatch(s->dispatch, ends[0]);
    turn(s);
    CHECK(s->event_count == 2);
    dispatch_unwatch(s->dispatch, ends[0]); /* it is not watched */
    close(ends[0]);
    close(ends[1]);
    server_close(s);
}

/* What a worker said before it ended explains its end. */
static void
test_words_come_before_the_news_that_a_process_has_ended(void)
{
    Server *s = server_open(&patient);
    int ends[2];
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    CHECK(dispatch_watch(s->dispatch, ends[0], 42) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK(channel_say(s->theirs[1], CHANNEL_FAILED, "why", 3) == 0);
    UNTIL(s, s->event_count == 2);
    CHECK(s->events[0].kind == DISPATCH_NEWS);
    CHECK(s->events[1].kind == DISPATCH_READABLE);
    close(ends[0]);
    close(ends[1]);
    server_close(s);
}

/* ------------------------------------------------------------------------
 * The end */

static void
test_a_stop_closes_what_is_idle_and_serves_what_has_come(void)
{
    Server *s = server_open(&patient);
    int idle, silent, asked, waiting, late;
    workers(s, (int32_t[]){0, -1, -1});
    idle = has_been_served(s);
    silent = connects(s);
    asked = connects(s);
    UNTIL(s, count(s->board.supervisor->parked) == 3);
    workers(s, (int32_t[]){THREADS, -1, -1});
    waiting = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    asks(asked);                 /* nobody has looked yet */
    late = connects_and_asks(s); /* nobody has accepted it yet */

    dispatch_stop(s->dispatch);
    CHECK(sees_the_end(idle) && sees_the_end(silent));
    CHECK(closed(s, CLOSED_STOPPING) == 2);
    CHECK(dispatch_queued(s->dispatch) == 3);
    CHECK(s->board.notice->stopping);
    for (int i = 0; i < 3; i++) {
        turn(s);
        CHECK(s->event_count == 0); /* not drained yet */
        end_request(s, 0);
        UNTIL(s, load(s, 0) == THREADS);
        close(receives_one(s, 0).fd);
    }
    UNTIL(s, s->event_count == 1);
    CHECK(s->events[0].kind == DISPATCH_DRAINED);
    turn(s);
    CHECK(s->event_count == 1); /* said once */
    close(idle);
    close(silent);
    close(asked);
    close(waiting);
    close(late);
    server_close(s);
}

static void
test_a_stop_is_not_over_while_a_worker_gives_back_or_has_what_waits(void)
{
    Server *s = server_open(&patient);
    workers(s, (int32_t[]){0, 0, -1});
    word_set(s->board.workers[0].waiting, 1);
    word_set(s->board.workers[1].leaving, 1);
    dispatch_stop(s->dispatch);
    turn(s);
    CHECK(s->event_count == 0);
    word_set(s->board.workers[0].waiting, 0);
    turn(s);
    CHECK(s->event_count == 0 && s->board.notice->stopping == 1);
    word_set(s->board.workers[1].leaving, 0);
    UNTIL(s, s->event_count == 1);
    CHECK(s->events[0].kind == DISPATCH_DRAINED);
    CHECK(s->board.notice->stopping == 2);
    server_close(s);
}

static void
test_what_comes_back_after_the_end_is_let_go(void)
{
    Server *s = server_open(&patient);
    int idle, asking;
    Got got[2];
    workers(s, (int32_t[]){0, -1, -1});
    idle = connects_and_asks(s);
    asking = connects_and_asks(s);
    UNTIL(s, load(s, 0) == 2);
    CHECK(receives(s, 0, got, 2) == 2);
    CHECK(got[0].item.client.port == port_of(idle));
    dispatch_stop(s->dispatch);
    UNTIL(s, s->event_count == 1);
    hands_back(s, 0, got[0], false);
    hands_back(s, 0, got[1], true);
    UNTIL(s, closed(s, CLOSED_STOPPING) == 2);
    CHECK(reads_503(asking));
    close(idle);
    close(asking);
    server_close(s);
}

/* It was sent in the hope of quick answers, and its worker is stuck. */
static void
test_what_may_come_back_is_waited_for(void)
{
    Server *s = server_open(&patient);
    int clients[THREADS + 1];
    Got got[THREADS + 1];
    workers(s, (int32_t[]){0, -1, -1});
    atomic_store(&s->board.loads[0].limit, THREADS + 1);
    for (size_t i = 0; i <= THREADS; i++) {
        clients[i] = connects_and_asks(s);
    }
    UNTIL(s, load(s, 0) == THREADS + 1);
    CHECK(receives(s, 0, got, THREADS + 1) == THREADS + 1);
    dispatch_stop(s->dispatch);
    turn(s);
    CHECK(s->event_count == 0);
    dispatch_enable(s->dispatch, 1, true);
    atomic_store(&s->board.loads[1].load, 0);
    hands_back(s, 0, got[THREADS], true);
    UNTIL(s, s->event_count == 1);
    CHECK(s->events[0].kind == DISPATCH_DRAINED);
    CHECK(receives_from(s, 1, clients[THREADS]));
    for (size_t i = 0; i < THREADS; i++) {
        close(got[i].fd);
    }
    close_all(clients, THREADS + 1);
    server_close(s);
}

static void
test_nobody_is_accepted_after_a_stop(void)
{
    Server *s = server_open(&patient);
    int client;
    dispatch_stop(s->dispatch);
    dispatch_stop(s->dispatch); /* twice is once */
    UNTIL(s, s->event_count == 1);
    client = connects_and_asks(s);
    turn(s);
    CHECK(count(s->board.supervisor->accepted) == 0);
    close(client);
    server_close(s);
}

/* ------------------------------------------------------------------------
 * Another supervisor */

enum { NO_WORKER = -1 };

/* `heir` gets what `s` has from now on; the pair is the caller's to close. */
static void
bequeaths(Server *s, Server *heir, int pair[2])
{
    static const uint16_t exchanged[] = {1, 0};
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(dispatch_inherit(heir->dispatch, pair[1], exchanged, 2) == 0);
    workers(s, (int32_t[]){NO_WORKER, NO_WORKER, NO_WORKER});
    dispatch_bequeath(s->dispatch, pair[0]);
}

static void
test_an_heir_gets_what_is_idle_what_waits_and_what_comes_back(void)
{
    Server *s = server_open(&patient), *heir = server_open(&patient);
    int idle, silent, waiting, late, pair[2];
    Got got, at_work;
    workers(s, (int32_t[]){0, NO_WORKER, NO_WORKER});
    idle = has_been_served(s);
    silent = connects(s);
    UNTIL(s, count(s->board.supervisor->parked) == 2);
    const int served = connects_and_asks(s);
    UNTIL(s, load(s, 0) == 1);
    at_work = receives_one(s, 0);
    workers(s, (int32_t[]){THREADS, NO_WORKER, NO_WORKER});
    waiting = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    late = connects_and_asks(s); /* nobody has accepted it yet */

    workers(heir, (int32_t[]){NO_WORKER, 0, NO_WORKER});
    bequeaths(s, heir, pair);
    UNTIL(s, dispatch_held(s->dispatch) == 0);
    UNTIL(heir, count(heir->board.supervisor->inherited) == 4);
    CHECK(load(heir, 1) == 2); /* waiting, late */
    UNTIL(heir, count(heir->board.supervisor->parked) == 2);
    Got two[2];
    CHECK(receives(heir, 1, two, 2) == 2);
    CHECK(two[0].item.client.port == port_of(waiting));
    CHECK(two[0].item.listener == 1); /* it has the other number there */
    close(two[0].fd);
    close(two[1].fd);

    asks(idle);
    UNTIL(heir, load(heir, 1) == 3);
    got = receives_one(heir, 1);
    CHECK(got.item.client.port == port_of(idle) && got.item.requests == 1);
    close(got.fd);

    hands_back(s, 0, at_work, true);
    while (load(heir, 1) != 4) {
        turn(s);
        turn(heir);
    }
    CHECK(receives_from(heir, 1, served));
    CHECK(closed(s, CLOSED_STOPPING) == 0 && closed(s, CLOSED_CLIENT) == 0);
    CHECK(!s->board.notice->stopping); /* the old workers hand back */
    dispatch_inherit_rest(heir->dispatch);
    dispatch_inherit_rest(heir->dispatch);
    CHECK(recv(silent, &got, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    close(idle);
    close(silent);
    close(served);
    close(waiting);
    close(late);
    close(pair[0]);
    close(pair[1]);
    server_close(s);
    server_close(heir);
}

static void
test_an_heir_that_does_not_read_for_a_while_loses_nothing(void)
{
    Server *s = server_open(&patient), *heir = server_open(&patient);
    int clients[300], pair[2], small = 1;
    for (int i = 0; i < 300; i++) {
        clients[i] = connects(s);
    }
    UNTIL(s, count(s->board.supervisor->parked) == 300);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) ==
          0);
    CHECK(dispatch_inherit(heir->dispatch, pair[1], NULL, 0) == 0);
    dispatch_bequeath(s->dispatch, pair[0]);
    turn(s);
    CHECK(dispatch_held(s->dispatch) > 0);
    while (count(heir->board.supervisor->inherited) < 300) {
        turn(s);
        turn(heir);
    }
    CHECK(dispatch_held(s->dispatch) == 0);
    for (int i = 0; i < 300; i++) {
        close(clients[i]);
    }
    close(pair[0]);
    close(pair[1]);
    server_close(s);
    server_close(heir);
}

static void
test_without_an_heir_it_ends_as_at_a_stop(void)
{
    Server *s = server_open(&patient);
    int pair[2];
    workers(s, (int32_t[]){0, NO_WORKER, NO_WORKER});
    const int idle = has_been_served(s);
    UNTIL(s, count(s->board.supervisor->parked) == 1);
    workers(s, (int32_t[]){THREADS, NO_WORKER, NO_WORKER});
    const int waiting = connects_and_asks(s);
    UNTIL(s, dispatch_queued(s->dispatch) == 1);
    workers(s, (int32_t[]){NO_WORKER, NO_WORKER, NO_WORKER});
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    close(pair[1]);
    dispatch_bequeath(s->dispatch, pair[0]);
    UNTIL(s, sees_the_end(idle));
    CHECK(reads_503(waiting));
    close(idle);
    close(waiting);
    close(pair[0]);
    server_close(s);
}

static void
test_freeing_closes_whatever_it_holds(void)
{
    Server *s = server_open(&patient);
    int clients[200];
    for (int i = 0; i < 200; i++) {
        clients[i] = i % 2 ? connects(s) : connects_and_asks(s);
    }
    UNTIL(s, count(s->board.supervisor->accepted) == 200);
    server_close(s); /* the descriptors are counted by RUN */
    for (int i = 0; i < 200; i++) {
        close(clients[i]);
    }
}

int
main(void)
{
    RUN(test_the_most_free_threads_first_then_the_fewest_connections);
    RUN(test_a_place_is_taken_when_it_is_given);
    RUN(test_a_worker_learns_who_the_client_is);
    RUN(test_who_is_disabled_gets_nothing);
    RUN(test_what_waits_goes_in_the_order_it_came);
    RUN(test_a_worker_that_comes_gets_what_waits);
    RUN(test_a_full_channel_loses_nothing);
    RUN(test_an_idle_connection_is_parked_and_its_next_request_goes_to_the_best);
    RUN(test_one_handed_back_with_a_request_keeps_its_place);
    RUN(test_short_requests_overtake_long_ones);
    RUN(test_nobody_is_overtaken_for_ever);
    RUN(test_nobody_waits_since_tomorrow);
    RUN(test_what_a_dead_worker_had_not_received_goes_to_another);
    RUN(test_a_client_that_leaves_without_a_word);
    RUN(test_a_client_that_ends_its_side_after_the_request);
    RUN(test_a_client_that_sends_nothing_in_time);
    RUN(test_a_connection_that_is_idle_for_too_long);
    RUN(test_a_request_that_waits_for_too_long_is_refused);
    RUN(test_a_refused_client_may_go_on_sending);
    RUN(test_the_queue_has_an_end);
    RUN(test_the_queue_has_one_end_for_all_that_wait);
    RUN(test_nobody_is_refused_whom_a_thread_is_free_for);
    RUN(test_accepting_goes_on_when_there_are_descriptors_again);
    RUN(test_idle_connections_make_room_for_new_ones);
    RUN(test_words_become_events_however_many);
    RUN(test_a_watched_descriptor_is_an_event_while_it_is_readable);
    RUN(test_words_come_before_the_news_that_a_process_has_ended);
    RUN(test_a_stop_closes_what_is_idle_and_serves_what_has_come);
    RUN(test_a_stop_is_not_over_while_a_worker_gives_back_or_has_what_waits);
    RUN(test_what_comes_back_after_the_end_is_let_go);
    RUN(test_what_may_come_back_is_waited_for);
    RUN(test_nobody_is_accepted_after_a_stop);
    RUN(test_an_heir_gets_what_is_idle_what_waits_and_what_comes_back);
    RUN(test_an_heir_that_does_not_read_for_a_while_loses_nothing);
    RUN(test_without_an_heir_it_ends_as_at_a_stop);
    RUN(test_freeing_closes_whatever_it_holds);
    return 0;
}
