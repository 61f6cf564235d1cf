/* Who is late? Pure C. */
#include "worker/deadline.h"

static uint64_t
limit_of(const Deadline *d, uint64_t request, uint32_t sequence)
{
    if (request == DEADLINE_OVER) {
        return 1;
    }
    return atomic_load_explicit(&d->own_for, memory_order_acquire) == sequence
               ? word_get(&d->own_limit)
               : request;
}

DeadlineVerdict
deadline_judge(const Deadline *d, uint64_t request, uint64_t interrupt,
               uint64_t since, uint32_t sequence, uint64_t now)
{
    const uint64_t alive = word_get(&d->alive);
    const uint64_t last = alive > since ? alive : since;
    uint64_t limit;

    if (since == 0) {
        return DEADLINE_KEPT;
    }
    switch ((DeadlineStage)atomic_load(&d->stage)) {
    case DEADLINE_APPLICATION:
        limit = limit_of(d, request, sequence);
        if (limit == 0 || now < last + limit) {
            return DEADLINE_KEPT;
        }
        /* Once, unless it has been alive since. */
        return d->told == sequence && d->told_at >= last ? DEADLINE_KEPT
                                                         : DEADLINE_LATE;
    case DEADLINE_RAISED:
        return now < d->raised_at + interrupt ? DEADLINE_KEPT : DEADLINE_STUCK;
    case DEADLINE_OURS:
    case DEADLINE_RAISING:
    case DEADLINE_LOST:
        break;
    }
    return DEADLINE_KEPT;
}
