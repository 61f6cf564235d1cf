/* The connections that the supervisor holds. Pure C; see held.h. */
#include "supervisor/held.h"

#include <stdbool.h>
#include <stdlib.h>

/* ------------------------------------------------------------------------
 * The heap of those that wait: a binary one; each knows its place in it */

static bool
comes_before(const HeldTable *t, uint32_t one, uint32_t other)
{
    const Held *a = &t->items[one], *b = &t->items[other];
    if (a->rank != b->rank)
        return a->rank < b->rank;
    return (int32_t)(a->order - b->order) < 0;
}

static void
heap_put(HeldTable *t, uint32_t turn, uint32_t index)
{
    t->turns[turn] = index;
    t->items[index].turn = turn;
}

static void
heap_rise(HeldTable *t, uint32_t turn, uint32_t index)
{
    while (turn > 0 && comes_before(t, index, t->turns[(turn - 1) / 2])) {
        heap_put(t, turn, t->turns[(turn - 1) / 2]);
        turn = (turn - 1) / 2;
    }
    heap_put(t, turn, index);
}

static void
heap_sink(HeldTable *t, uint32_t turn, uint32_t index, uint32_t count)
{
    for (;;) {
        uint32_t child = 2 * turn + 1;
        if (child >= count)
            break;
        if (child + 1 < count &&
            comes_before(t, t->turns[child + 1], t->turns[child]))
            child++;
        if (!comes_before(t, t->turns[child], index))
            break;
        heap_put(t, turn, t->turns[child]);
        turn = child;
    }
    heap_put(t, turn, index);
}

/* `count`: without the one that leaves. */
static void
heap_leave(HeldTable *t, uint32_t turn, uint32_t count)
{
    const uint32_t moved = t->turns[count];
    if (turn == count)
        return;
    if (turn > 0 && comes_before(t, moved, t->turns[(turn - 1) / 2]))
        heap_rise(t, turn, moved);
    else
        heap_sink(t, turn, moved, count);
}

/* ------------------------------------------------------------------------
 * Lists */

static void
leave(HeldTable *t, uint32_t index)
{
    Held *h = &t->items[index];
    HeldList *list = &t->lists[h->state];
    if (h->previous == HELD_NONE)
        list->first = h->next;
    else
        t->items[h->previous].next = h->next;
    if (h->next == HELD_NONE)
        list->last = h->previous;
    else
        t->items[h->next].previous = h->previous;
    list->count--;
    if (h->state == HELD_QUEUED)
        heap_leave(t, h->turn, list->count);
}

/* Keep the list in order of time: nearly always that is its end. */
static void
enter(HeldTable *t, uint32_t index, HeldState state)
{
    Held *h = &t->items[index];
    HeldList *list = &t->lists[state];
    uint32_t after = list->last;
    while (after != HELD_NONE && t->items[after].item.since > h->item.since)
        after = t->items[after].previous;
    h->state = (uint8_t)state;
    h->previous = after;
    if (after == HELD_NONE) {
        h->next = list->first;
        list->first = index;
    } else {
        h->next = t->items[after].next;
        t->items[after].next = index;
    }
    if (h->next == HELD_NONE)
        list->last = index;
    else
        t->items[h->next].previous = index;
    if (state == HELD_QUEUED) {
        h->rank = h->item.since;
        h->usual = 0;
        h->order = t->order++;
        heap_rise(t, list->count, index);
    }
    list->count++;
}

/* ------------------------------------------------------------------------
 * The table */

static int
grow(HeldTable *t)
{
    const uint32_t room = t->room ? t->room * 2 : 64;
    uint32_t *turns = realloc(t->turns, room * sizeof *turns);
    Held *items;
    uint32_t i;

    if (turns == NULL)
        return -1;
    t->turns = turns;
    items = realloc(t->items, room * sizeof *items);
    if (items == NULL)
        return -1;
    for (i = t->room; i < room; i++)
        items[i] = (Held){.fd = -1, .next = i + 1 < room ? i + 1 : HELD_NONE};
    t->free = t->room;
    t->items = items;
    t->room = room;
    return 0;
}

void
held_init(HeldTable *t)
{
    uint32_t i;
    *t = (HeldTable){.free = HELD_NONE};
    for (i = 0; i < HELD_STATES; i++)
        t->lists[i] = (HeldList){HELD_NONE, HELD_NONE, 0};
}

void
held_clear(HeldTable *t)
{
    free(t->items);
    free(t->turns);
    held_init(t);
}

uint32_t
held_add(HeldTable *t, int fd, const ChannelItem *item, HeldState state)
{
    uint32_t index;
    Held *h;
    if (t->free == HELD_NONE && grow(t) < 0)
        return HELD_NONE;
    index = t->free;
    h = &t->items[index];
    t->free = h->next;
    h->fd = fd;
    h->item = *item;
    h->stamp++;
    enter(t, index, state);
    return index;
}

void
held_move(HeldTable *t, uint32_t index, HeldState state, uint64_t since)
{
    leave(t, index);
    t->items[index].item.since = since;
    enter(t, index, state);
}

void
held_remove(HeldTable *t, uint32_t index)
{
    Held *h = &t->items[index];
    leave(t, index);
    h->fd = -1;
    h->state = HELD_FREE;
    h->next = t->free;
    t->free = index;
}

void
held_rank(HeldTable *t, uint32_t index, uint64_t usual, uint64_t patience)
{
    Held *h = &t->items[index];
    h->usual = usual;
    h->rank = h->item.since + patience;
    heap_sink(t, h->turn, index, t->lists[HELD_QUEUED].count);
}
