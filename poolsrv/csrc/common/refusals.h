/* What is said of refused requests in the log: a line a second at most, however
 * many they are, with how many of which status, and why the latest.
 *
 * The first is said at once. Those that follow within a second are gathered,
 * and said when it is over.
 */
#ifndef POOLSRV_REFUSALS_H
#define POOLSRV_REFUSALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/scoreboard.h"

typedef struct {
    uint64_t next_line; /* not before this time, in nanoseconds */
    uint32_t total;     /* not said yet */
    uint32_t counts[REFUSED_COUNT];
    const char *reason; /* of the latest */
} Refusals;

/* `reason` must stay. */
void refusals_add(Refusals *r, int status, const char *reason);

/* When the next line is due; 0: there is nothing to say. */
uint64_t refusals_due(const Refusals *r);

/* The line, if it is due, in `text`. */
bool refusals_say(Refusals *r, uint64_t now, char *text, size_t size);

#endif
