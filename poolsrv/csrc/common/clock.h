/* One clock for the whole server: CLOCK_MONOTONIC, nanoseconds.
 *
 * All processes share it, so a time that one wrote in the scoreboard or in a
 * channel message is a time for the others.
 */
#ifndef POOLSRV_CLOCK_H
#define POOLSRV_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_SECOND UINT64_C(1000000000)
#define CLOCK_MILLISECOND UINT64_C(1000000)

/* How long a client may take to read its last answer and close, and how many
 * bytes it may send meanwhile. A client that reads no answer before it has
 * sent everything gets the answer after a body of up to that size; one that
 * sends without end takes no more of our time. */
#define LINGER_TIMEOUT (2 * CLOCK_SECOND)
#define LINGER_BYTES (UINT64_C(64) << 20)

static inline uint64_t
clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* vDSO: 25 ns, no system call */
    return (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec;
}

#endif
