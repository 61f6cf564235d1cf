/* Buckets of times. Pure C; see histogram.h. */
#include "common/histogram.h"

#define IS_IN(power, bound) ((UINT64_C(bound) >> (power)) == 1)
#define IF_IN(power, bound) +(IS_IN(power, bound) ? UINT64_C(bound) : 0)
#define ONE_IF_IN(power, bound) +IS_IN(power, bound)
#define ONE_IF_BELOW(power, bound) +((UINT64_C(bound) >> (power)) == 0)

/* Each power of two has sixteen buckets more than the one before, and so many
 * as there are bounds below it. */
#define OCTAVE(power)                                                       \
    [(power) - HISTOGRAM_FIRST] = {                                         \
        .bound = (HISTOGRAM_BOUNDS(ONE_IF_IN, power))                       \
                     ? (HISTOGRAM_BOUNDS(IF_IN, power))                     \
                     : UINT64_MAX,                                          \
        .shift = (uint64_t)(((power) - HISTOGRAM_FIRST) * HISTOGRAM_STEPS + \
                            HISTOGRAM_BOUNDS(ONE_IF_BELOW, power)),         \
    }

const HistogramOctave histogram_octaves[HISTOGRAM_OCTAVES] = {
    OCTAVE(10), OCTAVE(11), OCTAVE(12), OCTAVE(13), OCTAVE(14), OCTAVE(15),
    OCTAVE(16), OCTAVE(17), OCTAVE(18), OCTAVE(19), OCTAVE(20), OCTAVE(21),
    OCTAVE(22), OCTAVE(23), OCTAVE(24), OCTAVE(25), OCTAVE(26), OCTAVE(27),
    OCTAVE(28), OCTAVE(29), OCTAVE(30), OCTAVE(31), OCTAVE(32), OCTAVE(33),
    OCTAVE(34), OCTAVE(35), OCTAVE(36), OCTAVE(37), OCTAVE(38), OCTAVE(39),
};

uint64_t
histogram_upper(uint64_t bucket)
{
    if (bucket >= HISTOGRAM_BUCKETS - 1) {
        return UINT64_MAX;
    }
    /* The last time in this bucket, found by halving. It is asked once for
     * each bucket, so it need not be quick. */
    uint64_t low = 0, high = UINT64_C(1) << HISTOGRAM_END;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (histogram_bucket(middle) <= bucket) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low - 1;
}
