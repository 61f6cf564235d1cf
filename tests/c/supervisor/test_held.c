/* The table of held connections, beside a model that does everything by
 * looking at all of them. */
#include "supervisor/held.h"

#include <stdbool.h>
#include <stdlib.h>

#include "check.h"

enum { MOST = 300, STEPS = 200000 };

typedef struct {
    bool used;
    HeldState state;
    uint64_t since;
    uint32_t index;
} Expected;

typedef struct {
    HeldTable table;
    Expected all[MOST];
    uint32_t random;
} Pair;

/* xorshift32: the same steps in every run. */
static uint32_t
draw(Pair *p, uint32_t below)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 17;
    p->random ^= p->random << 5;
    return p->random % below;
}

static uint32_t
count_of(const Pair *p, HeldState state)
{
    uint32_t count = 0;
    for (size_t i = 0; i < MOST; i++) {
        count += p->all[i].used && p->all[i].state == state;
    }
    return count;
}

/* Lists are in order of time and hold whom they should. */
static void
check_lists(const Pair *p)
{
    for (HeldState state = HELD_NEW; state < HELD_STATES; state++) {
        const HeldList *list = &p->table.lists[state];
        uint32_t count = 0, before = HELD_NONE;
        for (uint32_t i = list->first; i != HELD_NONE;
             i = p->table.items[i].next) {
            const Held *h = &p->table.items[i];
            CHECK(h->state == state && h->previous == before);
            CHECK(before == HELD_NONE ||
                  p->table.items[before].item.since <= h->item.since);
            before = i;
            count++;
        }
        CHECK(before == list->last && count == list->count);
        CHECK(count == count_of(p, state));
    }
}

/* One step with a place drawn by lot, in the table and in the model. */
static void
step(Pair *p)
{
    Expected *e = &p->all[draw(p, MOST)];
    /* Few different times, so that many are equal. */
    const uint64_t since = draw(p, 50);
    const HeldState state = (HeldState)(HELD_NEW + draw(p, HELD_STATES - 1));
    if (!e->used) {
        const ChannelItem item = {.since = since};
        e->index = held_add(&p->table, (int)(e - p->all), &item, state);
        CHECK(e->index != HELD_NONE);
        e->used = true;
        e->state = state;
        e->since = since;
    } else if (draw(p, 3) == 0) {
        held_remove(&p->table, e->index);
        e->used = false;
    } else {
        held_move(&p->table, e->index, state, since);
        e->state = state;
        e->since = since;
    }
}

static void
test_as_the_model(void)
{
    Pair p = {.random = 2463534242};
    held_init(&p.table);
    for (int i = 0; i < STEPS; i++) {
        step(&p);
        if (i % 100 == 0) {
            check_lists(&p);
        }
    }
    held_clear(&p.table);
}

/* An event of an earlier connection in the same place can be told. */
static void
test_a_place_that_is_used_again_has_another_stamp(void)
{
    HeldTable t;
    const ChannelItem item = {0};
    uint32_t first, stamp;
    held_init(&t);
    first = held_add(&t, 3, &item, HELD_NEW);
    stamp = t.items[first].stamp;
    held_remove(&t, first);
    CHECK(t.items[first].state == HELD_FREE && t.items[first].fd == -1);
    CHECK(held_add(&t, 4, &item, HELD_NEW) == first);
    CHECK(t.items[first].stamp != stamp);
    held_clear(&t);
}

int
main(void)
{
    test_as_the_model();
    test_a_place_that_is_used_again_has_another_stamp();
    return 0;
}
