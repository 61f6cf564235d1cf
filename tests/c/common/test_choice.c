/* Who is served next, and where. */
#include "common/choice.h"

#include <stddef.h>

#include "check.h"

static void
test_a_slow_request_ranks_as_if_it_had_come_later(void)
{
    const ChoicePatience patience = {.times = 10, .most = 50 * LADDER_SLOW};
    CHECK(choice_delay(LADDER_SLOW - 1, 0, patience) == 0);
    CHECK(choice_delay(LADDER_SLOW, 0, patience) == 10 * LADDER_SLOW);
    CHECK(choice_delay(6 * LADDER_SLOW, 0, patience) == 50 * LADDER_SLOW);
    CHECK(choice_delay(LADDER_SLOW, 0, (ChoicePatience){0, 1000}) == 0);
    CHECK(choice_rank(7, 3) == 10);
    CHECK(choice_lane(0) == LANE_FAST && choice_lane(1) == LANE_SLOW);
}

/* Where all take the same none is slow, however long that is. */
static void
test_slow_is_more_than_twice_the_mean(void)
{
    const ChoicePatience patience = {.times = 1, .most = UINT64_MAX};
    uint64_t mean = 0;
    CHECK(choice_delay(8 * LADDER_SLOW, 4 * LADDER_SLOW, patience) == 0);
    CHECK(choice_delay(9 * LADDER_SLOW, 4 * LADDER_SLOW, patience) != 0);
    for (int i = 0; i < 20; i++) {
        mean = choice_mean(mean, 9 * LADDER_SLOW);
    }
    CHECK(choice_delay(9 * LADDER_SLOW, mean, patience) == 0);
    for (int i = 0; i < 40; i++) {
        mean = choice_mean(mean, LADDER_SLOW);
    }
    CHECK(choice_delay(9 * LADDER_SLOW, mean, patience) != 0);
    CHECK(choice_delay(LADDER_SLOW, mean, patience) == 0);
}

static void
test_company_lasts_a_quarter_of_the_wait_and_a_tick_at_most(void)
{
    CHECK(choice_company(0) == 0);
    CHECK(choice_company(400) == 100);
    CHECK(choice_company(4 * LADDER_TICK) == LADDER_TICK);
    CHECK(choice_company(UINT64_MAX) == LADDER_TICK);
}

static void
test_room_is_where_a_thread_is_free(void)
{
    static const struct {
        ChoiceWorker worker;
        int32_t room;
    } cases[] = {
        {{.load = 1, .limit = 4, .width = 4}, 3},
        {{.load = 4, .limit = 4, .width = 4}, 0},
        {{.load = 5, .limit = 9, .width = 4}, 0},
        {{.load = 0, .limit = 9, .width = 1}, 9}, /* within a tick */
        {{.load = 0, .limit = 0, .width = 4}, 0}, /* it drains */
        {{.load = 0, .limit = 4, .width = 4, .waiting = 1}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(choice_room(&cases[i].worker) == cases[i].room);
    }
}

static void
test_the_worker_with_the_most_room_is_next(void)
{
    static const struct {
        ChoiceWorker workers[3];
        uint32_t first, chosen;
    } cases[] = {
        {{{3, 4, 4, 0, 0, 0, 0}, {1, 4, 4, 0, 0, 0, 0}, {2, 4, 4, 0, 0, 0, 0}},
         0,
         1},
        /* Who has reached its limit gets nothing, whatever its width. */
        {{{4, 4, 4, 0, 0, 0, 0}, {0, 0, 4, 0, 0, 0, 0}, {5, 6, 4, 0, 0, 0, 0}},
         0,
         2},
        {{{4, 4, 4, 0, 0, 0, 0}, {4, 4, 4, 0, 0, 0, 0}, {4, 4, 4, 0, 0, 0, 0}},
         0,
         CHOICE_NONE},
        /* What waits there goes first. */
        {{{1, 4, 4, 9, 0, 0, 0}, {2, 4, 4, 0, 0, 0, 0}, {3, 4, 4, 0, 0, 0, 0}},
         0,
         1},
        /* Of equals the one with the fewest connections, then each in turn. */
        {{{1, 4, 4, 0, 9, 0, 0}, {1, 4, 4, 0, 7, 0, 0}, {1, 4, 4, 0, 8, 0, 0}},
         0,
         1},
        {{{1, 4, 4, 0, 9, 0, 0}, {1, 4, 4, 0, 9, 0, 0}, {1, 4, 4, 0, 9, 0, 0}},
         2,
         2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(choice_worker(cases[i].workers, 3, cases[i].first, LANE_FAST,
                            0) == cases[i].chosen);
    }
}

/* One more is sent where all that wait came more than a tick later. */
static void
test_who_has_waited_longer_goes_before_those_on_kept_connections(void)
{
    ChoiceWorker full = {.load = 4,
                         .limit = 4,
                         .width = 4,
                         .waiting = 9,
                         .rank = 5 * LADDER_TICK};
    CHECK(choice_worker(&full, 1, 0, LANE_FAST, 4 * LADDER_TICK) ==
          CHOICE_NONE);
    CHECK(choice_worker(&full, 1, 0, LANE_FAST, 4 * LADDER_TICK - 1) == 0);
    /* Fast ones that wait there go before a slow one wherever it is. */
    full.slow_rank = 9 * LADDER_TICK;
    CHECK(choice_worker(&full, 1, 0, LANE_SLOW, 8 * LADDER_TICK - 1) == 0);
    CHECK(choice_worker(&full, 1, 0, LANE_SLOW, 8 * LADDER_TICK) ==
          CHOICE_NONE);
    CHECK(choice_worker(&full, 1, 0, LANE_FAST, 8 * LADDER_TICK - 1) ==
          CHOICE_NONE);
    full.load = 8; /* one waits for each thread */
    CHECK(choice_worker(&full, 1, 0, LANE_SLOW, 1) == CHOICE_NONE);
    CHECK(choice_worker(&full, 1, 0, LANE_FAST, 1) == 0);
    full.load = 12; /* two do */
    CHECK(choice_worker(&full, 1, 0, LANE_FAST, 1) == CHOICE_NONE);
    full.load = full.limit = 0; /* it drains */
    CHECK(choice_worker(&full, 1, 0, LANE_FAST, 1) == CHOICE_NONE);
}

static void
test_what_a_worker_will_not_begin_goes_where_there_is_room(void)
{
    CHECK(choice_surplus(5, 3, 0) == 2);
    CHECK(choice_surplus(5, 200, 0) == 0); /* they are begun within a tick */
    CHECK(choice_surplus(5, 200, LADDER_SLICE - 1) == 0);
    CHECK(choice_surplus(5, 200, LADDER_SLICE) ==
          5); /* it has come to a stop */
    CHECK(choice_moving(5, 2, 9) == 2);
    CHECK(choice_moving(5, 2, 1) == 1);
    CHECK(choice_moving(5, 2, 0) == 0);
    CHECK(choice_moving(5, 5, 1) == 5);
    CHECK(choice_moving(5, 5, 0) == 0);
}

static void
test_what_came_long_before_all_that_waits_elsewhere_is_overdue(void)
{
    static const struct {
        ChoiceWorker worker;
        uint64_t fast, slow;
    } cases[] = {
        {{.limit = 4}, 0, 0}, /* nobody waits there */
        {{.limit = 4, .rank = 5 * LADDER_SWEEP}, 4 * LADDER_SWEEP, 0},
        {{.limit = 4, .rank = LADDER_SWEEP / 2}, 0, 0},
        {{.limit = 0, .rank = 5 * LADDER_SWEEP}, 0, 0}, /* it drains */
        /* Slow ones that wait there say nothing of fast ones. */
        {{.limit = 4, .rank = 7 * LADDER_SWEEP, .slow_rank = 7 * LADDER_SWEEP},
         0,
         6 * LADDER_SWEEP},
        {{.limit = 4, .rank = 5 * LADDER_SWEEP, .slow_rank = 7 * LADDER_SWEEP},
         4 * LADDER_SWEEP,
         6 * LADDER_SWEEP},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(choice_overdue(&cases[i].worker, LANE_FAST) == cases[i].fast);
        CHECK(choice_overdue(&cases[i].worker, LANE_SLOW) == cases[i].slow);
    }
}

static void
test_connections_even_out(void)
{
    CHECK(choice_excess(40, 24, 30) == 8);
    CHECK(choice_excess(40, 24, 3) == 3);
    CHECK(choice_excess(33, 32, 30) == 0);
    CHECK(choice_excess(24, 40, 30) == 0);
}

int
main(void)
{
    test_a_slow_request_ranks_as_if_it_had_come_later();
    test_slow_is_more_than_twice_the_mean();
    test_company_lasts_a_quarter_of_the_wait_and_a_tick_at_most();
    test_room_is_where_a_thread_is_free();
    test_the_worker_with_the_most_room_is_next();
    test_who_has_waited_longer_goes_before_those_on_kept_connections();
    test_what_a_worker_will_not_begin_goes_where_there_is_room();
    test_what_came_long_before_all_that_waits_elsewhere_is_overdue();
    test_connections_even_out();
    return 0;
}
