/* The line about refused requests. Pure C; see refusals.h. */
#include "common/refusals.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"

void
refusals_add(Refusals *r, int status, const char *reason)
{
    const Refused column = scoreboard_refused(status);
    r->total++;
    r->counts[column]++;
    r->reason = reason;
}

uint64_t
refusals_due(const Refusals *r)
{
    if (r->total == 0) {
        return 0;
    }
    return r->next_line ? r->next_line : 1;
}

bool
refusals_say(Refusals *r, uint64_t now, char *text, size_t size)
{
#define X(status, phrase) #status,
    static const char *const statuses[] = {STATUS_PHRASES(X)};
#undef X
    if (r->total == 0 || now < r->next_line) {
        return false;
    }
    int length = snprintf(text, size, "refused %u request%s", r->total,
                          r->total == 1 ? "" : "s");
    const char *before = ": ";
    for (size_t i = 0; i < REFUSED_COUNT; i++) {
        if (r->counts[i] && length >= 0 && (size_t)length < size) {
            length += snprintf(text + length, size - (size_t)length,
                               "%s%u x %s", before, r->counts[i], statuses[i]);
            before = ", ";
        }
    }
    if (length >= 0 && (size_t)length < size) {
        snprintf(text + length, size - (size_t)length, " (%s%s)",
                 r->total == 1 ? "" : "the latest: ", r->reason);
    }
    *r = (Refusals){.next_line = now + CLOCK_SECOND};
    return true;
}
