/* The connections that the supervisor holds. Pure C; see held.h. */
#include "supervisor/held.h"

#include <stdlib.h>

/* ------------------------------------------------------------------------
 * Lists */

static void
leave(HeldTable *t, uint32_t index)
{
    Held *h = &t->items[index];
    HeldList *list = &t->lists[h->state];
    if (h->previous == HELD_NONE) {
        list->first = h->next;
    } else {
        t->items[h->previous].next = h->next;
    }
    if (h->next == HELD_NONE) {
        list->last = h->previous;
    } else {
        t->items[h->next].previous = h->previous;
    }
    list->count--;
}

/* Keep the list in order of time: nearly always that is its end. */
static void
enter(HeldTable *t, uint32_t index, HeldState state)
{
    Held *h = &t->items[index];
    HeldList *list = &t->lists[state];
    uint32_t after = list->last;
    while (after != HELD_NONE && t->items[after].item.since > h->item.since) {
        after = t->items[after].previous;
    }
    h->state = (uint8_t)state;
    h->previous = after;
    if (after == HELD_NONE) {
        h->next = list->first;
        list->first = index;
    } else {
        h->next = t->items[after].next;
        t->items[after].next = index;
    }
    if (h->next == HELD_NONE) {
        list->last = index;
    } else {
        t->items[h->next].previous = index;
    }
    list->count++;
}

/* ------------------------------------------------------------------------
 * The table */

static int
grow(HeldTable *t)
{
    const uint32_t room = t->room ? t->room * 2 : 64;
    Held *items = realloc(t->items, room * sizeof *items);
    uint32_t i;

    if (items == NULL) {
        return -1;
    }
    for (i = t->room; i < room; i++) {
        items[i] = (Held){.fd = -1, .next = i + 1 < room ? i + 1 : HELD_NONE};
    }
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
    for (i = 0; i < HELD_STATES; i++) {
        t->lists[i] = (HeldList){HELD_NONE, HELD_NONE, 0};
    }
}

void
held_clear(HeldTable *t)
{
    free(t->items);
    held_init(t);
}

uint32_t
held_add(HeldTable *t, int fd, const ChannelItem *item, HeldState state)
{
    uint32_t index;
    Held *h;
    if (t->free == HELD_NONE && grow(t) < 0) {
        return HELD_NONE;
    }
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
