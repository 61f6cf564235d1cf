/* The share of descriptors that connections get, along the whole curve. */
#include "check.h"
#include "common/descriptor_room.h"

int
main(void)
{
    int32_t before = 0;
    for (uint64_t limit = 0; limit < 5000; limit++) {
        const int32_t now = descriptor_room_of(limit, 25, 8);
        CHECK(limit > 33 || now == 0);
        CHECK(now == before || now == before + 1); /* no cliff */
        CHECK(limit < 34 || now > 0);
        CHECK((uint64_t)now < limit || limit == 0);
        before = now;
    }
    CHECK(before == 4999 - 33 - DESCRIPTOR_RESERVE);
    CHECK(descriptor_room_of(UINT64_MAX, 25, 8) == INT32_MAX);
    CHECK(descriptor_room_of(10, UINT64_MAX / 2, 8) == 0);
    CHECK(descriptor_room_lowest() > 2);
    return 0;
}
