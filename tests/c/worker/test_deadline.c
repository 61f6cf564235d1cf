/* Who is late, and who may touch the connection. */
#include "check.h"
#include "worker/deadline.h"

enum { LIMIT = 100, INTERRUPT = 10, SINCE = 1000, REQUEST = 7 };

static DeadlineVerdict
judge(const Deadline *d, uint64_t now)
{
    return deadline_judge(d, LIMIT, INTERRUPT, SINCE, REQUEST, now);
}

static void
test_late(void)
{
    Deadline d = {0};
    CHECK(judge(&d, SINCE + 2 * LIMIT) == DEADLINE_KEPT); /* in our code */
    deadline_begin(&d);
    CHECK(judge(&d, SINCE + LIMIT - 1) == DEADLINE_KEPT);
    CHECK(judge(&d, SINCE + LIMIT) == DEADLINE_LATE);
    CHECK(deadline_judge(&d, 0, 0, SINCE, REQUEST, UINT64_MAX) ==
          DEADLINE_KEPT);
    CHECK(deadline_judge(&d, LIMIT, 0, 0, REQUEST, UINT64_MAX) ==
          DEADLINE_KEPT);
    word_set(&d.alive, SINCE - 1); /* in the request before */
    CHECK(judge(&d, SINCE + LIMIT) == DEADLINE_LATE);
    word_set(&d.alive, SINCE + 50);
    CHECK(judge(&d, SINCE + LIMIT) == DEADLINE_KEPT);
    CHECK(judge(&d, SINCE + 50 + LIMIT) == DEADLINE_LATE);
    /* It is told once, until there is a sign of life. */
    d.told = REQUEST;
    d.told_at = SINCE + 50 + LIMIT;
    CHECK(judge(&d, SINCE + 5 * LIMIT) == DEADLINE_KEPT);
    word_set(&d.alive, d.told_at + 1);
    CHECK(judge(&d, SINCE + 5 * LIMIT) == DEADLINE_LATE);
}

static void
test_own_limit(void)
{
    Deadline d = {0};
    deadline_begin(&d);
    deadline_set(&d, REQUEST, 0);
    word_set(&d.alive, 0);
    CHECK(judge(&d, UINT64_MAX) == DEADLINE_KEPT);
    deadline_set(&d, REQUEST, 5);
    word_set(&d.alive, 0);
    CHECK(judge(&d, SINCE + 5) == DEADLINE_LATE);
    deadline_set(&d, REQUEST - 1, 5); /* of another request */
    word_set(&d.alive, 0);
    CHECK(judge(&d, SINCE + 5) == DEADLINE_KEPT);
}

static void
test_stuck(void)
{
    Deadline d = {0};
    deadline_begin(&d);
    CHECK(!deadline_take(&d));
    CHECK(deadline_raise(&d));
    CHECK(!deadline_raise(&d));
    CHECK(judge(&d, UINT64_MAX) == DEADLINE_KEPT);
    deadline_raised(&d, true);
    CHECK(judge(&d, d.raised_at + INTERRUPT - 1) == DEADLINE_KEPT);
    CHECK(judge(&d, d.raised_at + INTERRUPT) == DEADLINE_STUCK);
    CHECK(deadline_take(&d));
    CHECK(judge(&d, UINT64_MAX) == DEADLINE_KEPT);
    CHECK(!deadline_hold(&d) && !deadline_raise(&d));
}

static void
test_a_thread_that_is_back(void)
{
    Deadline d = {0};
    deadline_begin(&d);
    CHECK(deadline_hold(&d));
    CHECK(!deadline_raise(&d)); /* it sends, or receives */
    deadline_let_go(&d);
    CHECK(deadline_raise(&d));
    deadline_raised(&d, false); /* it was another request */
    CHECK(!deadline_take(&d));
    CHECK(deadline_raise(&d));
    deadline_raised(&d, true);
    CHECK(deadline_hold(&d));
    CHECK(!deadline_take(&d));
}

int
main(void)
{
    test_late();
    test_own_limit();
    test_stuck();
    test_a_thread_that_is_back();
    return 0;
}
