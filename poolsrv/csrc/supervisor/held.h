/* The connections that the supervisor holds: parked, waiting for a thread, or
 * told to go away.
 *
 * Pure C: a table, no system call. A connection is in one list, which is in
 * order of time, so that its first member is the first whose time runs out.
 * Those that wait for a thread are in one of two: fast or slow (choice.h).
 */
#ifndef POOLSRV_HELD_H
#define POOLSRV_HELD_H

#include <stdint.h>

#include "common/channel.h"

#define HELD_NONE UINT32_MAX

typedef enum {
    HELD_FREE,
    HELD_NEW,    /* parked; no request yet */
    HELD_KEPT,   /* parked between two requests */
    HELD_HEAD,   /* parked; a request has begun, and nobody knows whose it is */
    HELD_FAST,   /* waits for a free thread, in the fast lane */
    HELD_SLOW,   /* likewise, in the slow lane */
    HELD_LINGER, /* was told to go away */
    HELD_STATES
} HeldState;

typedef struct {
    ChannelItem item; /* item.since: in this state since then */
    union {
        uint64_t delay;  /* HELD_SLOW: by how much it may be overtaken */
        uint64_t wasted; /* HELD_LINGER: bytes thrown away */
    };
    uint32_t next, previous;
    int fd;
    uint32_t stamp; /* tells it from earlier ones in the same place */
    uint8_t state;
} Held;

typedef struct {
    uint32_t first, last, count;
} HeldList;

typedef struct {
    Held *items;
    uint32_t room;
    uint32_t free; /* first of the free places */
    HeldList lists[HELD_STATES];
} HeldTable;

void held_init(HeldTable *t);
/* The descriptors are the caller's to close. */
void held_clear(HeldTable *t);

/* Take a place for `fd`, which stays the caller's to close. Its index, or
 * HELD_NONE if there is no memory. */
uint32_t held_add(HeldTable *t, int fd, const ChannelItem *item,
                  HeldState state);
void held_move(HeldTable *t, uint32_t index, HeldState state, uint64_t since);
void held_remove(HeldTable *t, uint32_t index);

#endif
