/* Times by the bucket: fine enough for a quantile, exported coarser.
 *
 * From 1 us to 18 minutes each power of two is cut into sixteen buckets, so the
 * middle of a bucket is within 3.2 % of every time in it; below 1 us a bucket
 * is 64 ns wide. The metrics have far fewer buckets, with bounds that people
 * know. Each of these bounds also cuts the fine bucket that it falls into, so
 * that a bucket of the metrics is a union of fine ones, and its count exact.
 *
 * The bucket is found by arithmetic, in some ten instructions however long the
 * time.
 */
#ifndef POOLSRV_HISTOGRAM_H
#define POOLSRV_HISTOGRAM_H

#include <stdint.h>

/* Upper bounds of the exported buckets, in nanoseconds; +Inf follows. From
 * 100 us, because a fast application answers below OpenTelemetry's first
 * bucket of 5 ms. B(x, bound): x is the caller's. No two are in one power of
 * two, which the table in histogram.c needs. */
#define HISTOGRAM_BOUNDS(B, x) \
    B(x, 100000)               \
    B(x, 250000)               \
    B(x, 500000)               \
    B(x, 1000000)              \
    B(x, 2500000)              \
    B(x, 5000000)              \
    B(x, 10000000)             \
    B(x, 25000000)             \
    B(x, 50000000)             \
    B(x, 100000000)            \
    B(x, 250000000)            \
    B(x, 500000000)            \
    B(x, 1000000000)           \
    B(x, 2500000000)           \
    B(x, 5000000000)           \
    B(x, 10000000000)

#define HISTOGRAM_ONE(x, bound) +1
enum { HISTOGRAM_BOUND_COUNT = HISTOGRAM_BOUNDS(HISTOGRAM_ONE, 0) };
#undef HISTOGRAM_ONE

/* Powers of two: times from 2^FIRST ns on, below 2^END, and in how many steps
 * (a power of two itself) each is cut. */
enum {
    HISTOGRAM_FIRST = 10,
    HISTOGRAM_END = 40,
    HISTOGRAM_STEP_BITS = 4,
    HISTOGRAM_STEPS = 1 << HISTOGRAM_STEP_BITS,
    HISTOGRAM_OCTAVES = HISTOGRAM_END - HISTOGRAM_FIRST,
    HISTOGRAM_BUCKETS = (1 + HISTOGRAM_OCTAVES) * HISTOGRAM_STEPS +
        HISTOGRAM_BOUND_COUNT,
    /* A count for each bucket (not cumulative), and the sum. */
    HISTOGRAM_WORDS = HISTOGRAM_BUCKETS + 1,
};

typedef struct {
    uint64_t bound; /* the exported one in this power of two; none: all ones */
    uint64_t shift; /* of its buckets' indexes */
} HistogramOctave;

extern const HistogramOctave histogram_octaves[HISTOGRAM_OCTAVES];

/* The bucket of a time. Longer ones count as the longest there is. */
static inline uint64_t
histogram_bucket(uint64_t nanoseconds)
{
    const uint64_t longest = (UINT64_C(1) << HISTOGRAM_END) - 1;
    const uint64_t time = nanoseconds < longest ? nanoseconds : longest;
    /* Below the first power of two the steps go on as they are in it. */
    const unsigned power =
        63 - (unsigned)__builtin_clzll(time | UINT64_C(1) << HISTOGRAM_FIRST);
    const HistogramOctave *octave = &histogram_octaves[power - HISTOGRAM_FIRST];
    return (time >> (power - HISTOGRAM_STEP_BITS)) + octave->shift +
           (time > octave->bound);
}

/* The longest time in a bucket; all ones for the last. */
uint64_t histogram_upper(uint64_t bucket);

#endif
