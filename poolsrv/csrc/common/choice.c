/* Who is served next, and where. Pure C; see choice.h. */
#include "common/choice.h"

uint64_t
choice_delay(uint64_t usual, uint64_t mean, ChoicePatience patience)
{
    const uint64_t delay = patience.times * usual;
    if (usual < LADDER_SLOW || usual <= 2 * mean) {
        return 0;
    }
    return delay < patience.most ? delay : patience.most;
}

int32_t
choice_room(const ChoiceWorker *worker)
{
    /* What waits there is about to be begun. */
    const bool is_free = worker->waiting == 0 && worker->load < worker->width &&
                         worker->load < worker->limit;
    return is_free ? worker->limit - worker->load : 0;
}

/* Is it sent the request although it has reached its limit? */
static bool
takes_more(const ChoiceWorker *worker, Lane lane, uint64_t rank)
{
    const bool among_slow = lane == LANE_SLOW && worker->slow_rank;
    /* Slow ones that were sent wait longer, and must not shut fast ones out. */
    const int32_t most = worker->width * (lane == LANE_SLOW ? 1 : 2);
    return worker->limit > 0 && worker->load < worker->limit + most &&
           (among_slow ? worker->slow_rank : worker->rank) > rank + LADDER_TICK;
}

uint32_t
choice_worker(const ChoiceWorker *workers, uint32_t count, uint32_t first,
              Lane lane, uint64_t rank)
{
    uint32_t best = CHOICE_NONE;
    int32_t best_free = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = first + i < count ? first + i : first + i - count;
        const ChoiceWorker *worker = &workers[at];
        const int32_t free = worker->width - worker->load - worker->waiting;
        if (worker->load >= worker->limit && !takes_more(worker, lane, rank)) {
            continue;
        }
        if (best == CHOICE_NONE || free > best_free ||
            (free == best_free &&
             worker->connections < workers[best].connections)) {
            best = at;
            best_free = free;
        }
    }
    return best;
}

uint64_t
choice_pause(uint64_t usual, uint32_t threads, uint64_t since)
{
    /* Not the whole of an equal share: then none would have time to spare, and
     * each that ends a little late would make all later. */
    const uint64_t share = usual / threads / 4 * 3;
    const uint64_t apart = share < LADDER_TICK ? share : LADDER_TICK;
    return threads > 1 && apart > since ? apart - since : 0;
}

uint64_t
choice_company(uint64_t waited)
{
    const uint64_t share = waited / 4;
    return share < LADDER_TICK ? share : LADDER_TICK;
}

uint32_t
choice_surplus(uint32_t waiting, uint32_t begun, uint64_t since)
{
    const uint32_t soon = since < LADDER_SLICE ? begun : 0;
    return waiting > soon ? waiting - soon : 0;
}

uint32_t
choice_moving(uint32_t waiting, uint32_t surplus, uint32_t room)
{
    if (surplus == waiting && room) {
        return waiting;
    }
    return surplus < room ? surplus : room;
}

uint64_t
choice_overdue(const ChoiceWorker *worker, Lane lane)
{
    const uint64_t rank =
        lane == LANE_SLOW ? worker->slow_rank
        : worker->rank < worker->slow_rank || worker->slow_rank == 0
            ? worker->rank
            : 0;
    return worker->limit > 0 && rank > LADDER_SWEEP ? rank - LADDER_SWEEP : 0;
}

uint32_t
choice_excess(int32_t connections, int32_t fewest, uint32_t waiting)
{
    /* A difference of one cannot be made smaller. */
    const uint32_t more =
        connections > fewest ? (uint32_t)(connections - fewest) / 2 : 0;
    return more < waiting ? more : waiting;
}
