/* Times by the bucket: in order, close to what they stand for, cut at the
 * bounds that the metrics show. */
#include "common/histogram.h"

#include "check.h"

static const uint64_t end = UINT64_C(1) << HISTOGRAM_END;

static void
test_longer_times_are_in_later_buckets(void)
{
    CHECK(histogram_bucket(0) == 0);
    for (uint64_t bucket = 0; bucket < HISTOGRAM_BUCKETS - 1; bucket++) {
        const uint64_t upper = histogram_upper(bucket);
        CHECK(histogram_bucket(upper) == bucket);
        CHECK(histogram_bucket(upper + 1) == bucket + 1);
    }
    CHECK(histogram_upper(HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
    CHECK(histogram_bucket(end - 1) == HISTOGRAM_BUCKETS - 1);
    CHECK(histogram_bucket(end) == HISTOGRAM_BUCKETS - 1);
    CHECK(histogram_bucket(UINT64_MAX) == HISTOGRAM_BUCKETS - 1);
}

static void
test_the_middle_of_a_bucket_is_close_to_every_time_in_it(void)
{
    const uint64_t first = histogram_bucket(UINT64_C(1) << HISTOGRAM_FIRST);
    for (uint64_t b = first; b < HISTOGRAM_BUCKETS - 1; b++) {
        const uint64_t least = histogram_upper(b - 1) + 1;
        const uint64_t most = histogram_upper(b);
        CHECK((most - least) * 16 <= least);
    }
}

static void
test_a_bound_of_the_metrics_ends_a_bucket(void)
{
#define BOUND(x, bound) bound,
    const uint64_t bounds[] = {HISTOGRAM_BOUNDS(BOUND, 0)};
#undef BOUND
    for (int i = 0; i < HISTOGRAM_BOUND_COUNT; i++) {
        CHECK(histogram_upper(histogram_bucket(bounds[i])) == bounds[i]);
    }
}

int
main(void)
{
    test_longer_times_are_in_later_buckets();
    test_the_middle_of_a_bucket_is_close_to_every_time_in_it();
    test_a_bound_of_the_metrics_ends_a_bucket();
    return 0;
}
