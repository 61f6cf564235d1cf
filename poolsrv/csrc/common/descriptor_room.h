/* How many connections a process can hold, of as many descriptors as it may
 * have. Pure C. */
#ifndef POOLSRV_DESCRIPTOR_ROOM_H
#define POOLSRV_DESCRIPTOR_ROOM_H

#include <stdint.h>

/* Free descriptors that are left for other uses: a share of them, so that the
 * rule holds for any limit, but no more than new processes and files of the
 * application are likely to take. */
#define DESCRIPTOR_SHARE 4
#define DESCRIPTOR_RESERVE 128

/* The lowest number that is free: so many descriptors are open, or a few more,
 * where numbers are given from the lowest up. INT32_MAX: none is free. */
int32_t descriptor_room_lowest(void);

/* So many connections, if this process opens `more` descriptors for itself. */
static inline int32_t
descriptor_room_of(uint64_t limit, uint64_t open, uint64_t more)
{
    if (limit <= open + more) {
        return 0;
    }
    const uint64_t room = limit - open - more;
    const uint64_t share = room / DESCRIPTOR_SHARE;
    const uint64_t rest =
        room - (share < DESCRIPTOR_RESERVE ? share : DESCRIPTOR_RESERVE);
    return rest < INT32_MAX ? (int32_t)rest : INT32_MAX;
}

#endif
