/* The connections that the supervisor holds: parked, waiting for a thread, or
 * told to go away.
 *
 * Pure C: a table, no system call. A connection is in one list, which is in
 * order of time, so that its first member is the first whose time runs out.
 * Those that wait for a thread are in a heap besides: whose turn comes first
 * need not be who came first (path_times.h).
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
    HELD_QUEUED, /* waits for a free thread */
    HELD_LINGER, /* was told to go away */
    HELD_STATES
} HeldState;

typedef struct {
    ChannelItem item; /* item.since: in this state since then */
    uint64_t usual;   /* of a queued one: how long it will hold its thread */
    uint64_t rank;    /* likewise: the least comes first, and of equals */
    uint32_t order;   /* the one that was queued first */
    uint32_t turn;    /* its place in the heap */
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
    uint32_t *turns; /* the heap: [lists[HELD_QUEUED].count] indices */
    uint32_t room;
    uint32_t free;  /* first of the free places */
    uint32_t order; /* of the next to be queued */
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

/* One that is queued will hold its thread for `usual` nanoseconds: those that
 * come later, but no more than `patience` later, may overtake it. */
void held_rank(HeldTable *t, uint32_t index, uint64_t usual, uint64_t patience);

/* Whose turn it is; there must be one that is queued. */
static inline uint32_t
held_turn(const HeldTable *t)
{
    return t->turns[0];
}

#endif
