/* The durations that scheduling decides by, from short to long, in
 * nanoseconds: all of them, each with its reason. SCHEDULING.md shows them in
 * use. */
#ifndef POOLSRV_LADDER_H
#define POOLSRV_LADDER_H

#include <stdint.h>

#define LADDER_MICROSECOND UINT64_C(1000)
#define LADDER_MILLISECOND UINT64_C(1000000)

/* Calls that block for less on average hardly do: the sixteenth of what counts,
 * which is one call's weight in the mean. */
#define LADDER_BLOCKED_LITTLE (LADDER_BLOCKED / 16)

/* From this mean of blocking, waking a second thread pays: its wake-up and the
 * fight for the GIL take some 10 to 30 us. To wake a client takes as long: if
 * calls are shorter, it is still awake when the next answer comes. */
#define LADDER_BLOCKED (50 * LADDER_MICROSECOND)

/* Shorter calls are not measured: that takes two getrusage of 0.3 us each, and
 * such calls would not be worth a second thread. */
#define LADDER_MEASURED (100 * LADDER_MICROSECOND)

/* Paths that take less are never slow: looking into the queue for them (a recv
 * that peeks, a way to and fro) would cost more than a tenth of what they take.
 */
#define LADDER_SLOW (250 * LADDER_MICROSECOND)

/* How long a thread stays with a connection whose bytes come without a pause,
 * and how often a thread looks for events while connections are ready. Half a
 * tick, so that what comes is seen within one. */
#define LADDER_SLICE LADDER_MILLISECOND

/* The unit of waiting: the main thread looks after busy threads and waiting
 * requests this often, no request waits beside a free thread for longer, and
 * requests that come within one tick count as having come together. It costs 3
 * to 5 % of a core where it rings, so a thread that comes by puts it off:
 * watch_pass. */
#define LADDER_TICK (2 * LADDER_MILLISECOND)

/* A computing thread keeps the GIL, which Python gives to another after 5 ms at
 * the earliest: after two such turns the others get their share. */
#define LADDER_COMPUTING (10 * LADDER_MILLISECOND)

/* How often the main thread looks for connections whose time is over, evens out
 * the numbers of connections, and hands back what is overdue. Time limits are
 * whole seconds as a rule. Also after how long without beginning any request a
 * worker hangs, and keeps none: what its threads do is no matter of chance any
 * more, and the way takes 0.08 ms. */
#define LADDER_SWEEP (200 * LADDER_MILLISECOND)

/* A kept connection that was silent for this long goes back to the supervisor:
 * its next request may find a better worker. If this were shorter, clients
 * that pause for a moment would be passed to and fro. */
#define LADDER_IDLE (1000 * LADDER_MILLISECOND)

/* How often the mode MANY is judged anew, because with several threads awake
 * waiting for the GIL looks like blocking. A wrong judgement costs a tick. */
#define LADDER_LEASE (1000 * LADDER_MILLISECOND)

#endif
