/* The line about refused requests: at once, then a line a second. */
#include "common/refusals.h"

#include <string.h>

#include "check.h"
#include "common/clock.h"

int
main(void)
{
    Refusals r = {0};
    char text[200], few[12];
    uint64_t now = 5 * CLOCK_SECOND;

    CHECK(refusals_due(&r) == 0 && !refusals_say(&r, now, text, sizeof text));
    refusals_add(&r, 503, "the queue is full");
    CHECK(refusals_due(&r) <= now);
    CHECK(refusals_say(&r, now, text, sizeof text));
    CHECK(strcmp(text, "refused 1 request: 1 x 503 (the queue is full)") == 0);

    for (int i = 0; i < 3; i++) {
        refusals_add(&r, 400, "host is missing");
    }
    refusals_add(&r, 503, "no thread came free in time");
    CHECK(!refusals_say(&r, now + CLOCK_SECOND - 1, text, sizeof text));
    CHECK(refusals_due(&r) == now + CLOCK_SECOND);
    CHECK(refusals_say(&r, now + CLOCK_SECOND, text, sizeof text));
    CHECK(strcmp(text, "refused 4 requests: 3 x 400, 1 x 503 "
                       "(the latest: no thread came free in time)") == 0);
    CHECK(refusals_due(&r) == 0);

    refusals_add(&r, 400, "host is missing");
    CHECK(refusals_say(&r, now * 2, few, sizeof few));
    CHECK(strlen(few) == sizeof few - 1); /* cut */
    return 0;
}
